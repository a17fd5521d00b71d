//! The estimator's model, learnt anew in the background when there is more to learn from.

use std::sync::Arc;

use super::Estimator;
use crate::estimate::{self, Model};
use crate::table::Kind;

/// A model, and how many rows there were when it was learnt.
pub(crate) struct Learnt {
    /// The model.
    pub(crate) model: Model,
    rows: u64,
}

impl Estimator {
    /// What was learnt from the records; nothing before the first time, when the published figures alone speak.
    pub(crate) fn learnt(&self) -> Option<Arc<Learnt>> {
        self.shared.model.load_full()
    }

    /// Learns from all records if there are others than the last time.
    pub(super) async fn learn_anew(&self) {
        let index = self.index();
        let rows = index.rows(Kind::Training);
        let known = self.shared.model.load().as_ref().map(|learnt| learnt.rows);
        if known == Some(rows) || rows == 0 {
            return;
        }
        let learning = tokio::task::spawn_blocking(move || estimate::learn(&index));
        match learning.await {
            Ok(Some(model)) => {
                let learnt = Learnt { model, rows };
                self.shared.model.store(Some(Arc::new(learnt)));
                // Answers are remembered for as long as the index is the same one.
                self.show(&self.building());
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the model could not be learnt; the last one stays"
            ),
        }
    }
}
