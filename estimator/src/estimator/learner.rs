//! The estimator's model, learnt anew in the background when there is more to learn from.

use std::sync::Arc;

use stepcast_records::Row;

use super::Estimator;
use crate::estimate::{self, Model};
use crate::index::Index;
use crate::table::Kind;

/// More new rows than this wait until everything is learnt anew: they come with a store that was just read.
const ROWS_AT_ONCE: usize = 1_000;

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

    /// Takes a few new rows into the model, so that it need not wait until everything is learnt anew. They are in the
    /// index already, and it is shown to others afterwards.
    pub(super) fn learn_rows(&self, index: &Index, rows: &[Row]) {
        let Some(learnt) = self.learnt().filter(|_| rows.len() <= ROWS_AT_ONCE) else {
            return;
        };
        let mut model = learnt.model.clone();
        estimate::observe(&mut model, index, rows);
        let rows = learnt.rows;
        self.shared
            .model
            .store(Some(Arc::new(Learnt { model, rows })));
    }

    /// Learns from all records if there are others than the last time. The [`Follower`](super::Follower) does so every
    /// few minutes; it takes some seconds of one processor, on a thread of its own.
    pub async fn learn_anew(&self) {
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
