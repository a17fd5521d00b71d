//! The estimator's model, learnt anew in the background when there is more to learn from.

use std::sync::Arc;
use std::sync::atomic::Ordering;

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

    /// Takes a few new rows into the model, so that it need not wait until everything is learnt anew: also the first ones
    /// there are, into what the published figures teach. They are in the index already, and it is shown to others
    /// afterwards.
    ///
    /// Of more than a few it notes that the model is behind.
    pub(super) fn learn_rows(&self, index: &Index, rows: &[Row]) {
        if rows.len() > ROWS_AT_ONCE {
            self.fall_behind();
            return;
        }
        let (mut model, learnt_from) = match (self.learnt(), estimate::shipped()) {
            (Some(learnt), _) => (learnt.model.clone(), learnt.rows),
            (None, Some(shipped)) => (shipped.clone(), 0),
            (None, None) => return,
        };
        estimate::observe(&mut model, index, rows);
        let learnt = Learnt {
            model,
            rows: learnt_from,
        };
        self.shared.model.store(Some(Arc::new(learnt)));
    }

    /// There are rows now that the model knows nothing of: what is said of keys beside them holds neither before nor after.
    pub(super) fn fall_behind(&self) {
        self.shared.is_behind.store(true, Ordering::Release);
    }

    /// Whether there are.
    pub(super) fn is_behind(&self) -> bool {
        self.shared.is_behind.load(Ordering::Acquire)
    }

    /// Learns from all records if there are others than the last time. The follower does so every
    /// few minutes, and at once where the model is behind; it takes some seconds of one processor, on a thread of its own.
    pub async fn learn_anew(&self) {
        // As many rows as the last time may be other ones, where some were taken back.
        let is_behind = self.shared.is_behind.swap(false, Ordering::AcqRel);
        let index = self.index();
        let rows = index.rows(Kind::Training);
        if rows == 0 {
            if self.shared.model.swap(None).is_some() {
                self.show(&self.building());
            }
            return;
        }
        let known = self.shared.model.load().as_ref().map(|learnt| learnt.rows);
        if known == Some(rows) && !is_behind {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStore;
    use object_store::memory::InMemory;
    use url::Url;

    use super::*;
    use crate::testing::{contribution, row, training_key};
    use crate::{Contribution, PriceBook};

    const RECIPE: &str = "kolors.1.0/lora";

    fn estimator() -> Estimator {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let base = Url::parse("memory:///bench/").expect("url");
        Estimator::over(store, base, PriceBook::default()).expect("estimator")
    }

    fn run(id: u8, on: &str, avg_ms: u32) -> Contribution {
        contribution(id, vec![row(training_key(RECIPE, on), avg_ms, 150)])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_row_counts_before_everything_is_learnt_anew() {
        let estimator = estimator();
        let record = |runs| {
            let estimator = estimator.clone();
            async move { estimator.record(runs).await.expect("stored") }
        };
        assert!(estimator.learnt().is_none(), "nothing is learnt of nothing");
        record(vec![run(1, "rtx4090", 4_000)]).await;
        let first = estimator
            .learnt()
            .expect("the published figures and the row");
        assert_eq!(first.rows, 0, "everything is still to be learnt");
        estimator.learn_anew().await;
        let before = estimator.learnt().expect("a model");
        assert!(!Arc::ptr_eq(&first, &before));
        let thought = before.model.clone();
        assert_eq!(before.rows, 1);

        // Ten times as slow as that on another machine: its recipe is slower everywhere.
        record(vec![run(2, "h100", 40_000)]).await;
        let after = estimator.learnt().expect("a model");
        assert!(!Arc::ptr_eq(&before, &after), "the row was taken in");
        assert_eq!(after.rows, 1, "and everything is still to be learnt anew");
        let asked = training_key(RECIPE, "l40s");
        let point = estimate::point_of(&asked.shape(), asked.hardware, true);
        let (was, is) = (
            thought.predict(&point).ms[1],
            after.model.predict(&point).ms[1],
        );
        assert!(is > was * 1.05, "{was} {is}");

        estimator.learn_anew().await;
        assert_eq!(estimator.learnt().expect("a model").rows, 2);
        let same = estimator.learnt();
        estimator.learn_anew().await;
        let again = estimator.learnt();
        assert!(same.zip(again).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_rows_at_once_wait_until_everything_is_learnt_anew() {
        let estimator = estimator();
        let runs = vec![run(1, "rtx4090", 4_000)];
        estimator.record(runs).await.expect("stored");
        estimator.learn_anew().await;
        assert!(!estimator.is_behind());
        let before = estimator.learnt().expect("a model");
        let key = training_key(RECIPE, "h100");
        let many = (0..=ROWS_AT_ONCE as u128).map(|number| Contribution {
            id: (1_000 + number).to_be_bytes(),
            rows: vec![row(key, 100 + number as u32 % 100, 150)],
        });
        let stored = estimator.record(many.collect()).await.expect("stored");
        assert_eq!(stored.rows, ROWS_AT_ONCE + 1);
        let after = estimator.learnt().expect("a model");
        assert!(Arc::ptr_eq(&before, &after));
        assert!(
            estimator.is_behind(),
            "the follower learns at its next look"
        );
        estimator.learn_anew().await;
        assert!(!estimator.is_behind());
        assert_eq!(
            estimator.learnt().expect("a model").rows,
            ROWS_AT_ONCE as u64 + 2
        );
    }

    /// Its first look at the tables is of everything that is in them.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_is_behind_after_its_first_look() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let over = |store| {
            let base = Url::parse("memory:///bench/").expect("url");
            Estimator::over(store, base, PriceBook::default()).expect("estimator")
        };
        let (writer, reader) = (over(Arc::clone(&store)), over(store));
        writer
            .record(vec![run(1, "rtx4090", 4_000)])
            .await
            .expect("stored");
        assert!(!reader.is_behind());
        reader.refresh().await.expect("looked");
        assert!(reader.is_behind());
    }
}
