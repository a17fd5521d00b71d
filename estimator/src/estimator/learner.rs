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

/// A model, and up to which row it was learnt.
pub(crate) struct Learnt {
    /// The model.
    pub(crate) model: Model,
    /// [`Unlearnt::found`] by then.
    until: u64,
}

/// What was found that concerns the model, beside the index that has it.
#[derive(Default)]
pub(super) struct Unlearnt {
    /// How often there were other rows: their number alone may be the same after everything was read anew.
    found: u64,
    /// Rows that came since everything is being learnt anew from what there was before; nothing while it is not.
    meanwhile: Option<Vec<Row>>,
}

impl Unlearnt {
    /// Notes what a look at the training records has found.
    pub(super) fn note(&mut self, rows: &[Row]) {
        self.found += 1;
        if let Some(meanwhile) = &mut self.meanwhile
            && meanwhile.len() <= ROWS_AT_ONCE
        {
            meanwhile.extend(rows);
        }
    }
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
            (Some(learnt), _) => (learnt.model.clone(), learnt.until),
            (None, Some(shipped)) => (shipped.clone(), 0),
            (None, None) => return,
        };
        estimate::observe(&mut model, index, rows);
        let learnt = Learnt {
            model,
            until: learnt_from,
        };
        self.shared.model.store(Some(Arc::new(learnt)));
    }

    /// There are rows now that the model knows nothing of: what is said of keys beside them holds neither before nor after.
    pub(super) fn fall_behind(&self) {
        self.shared.is_behind.store(true, Ordering::Release);
    }

    /// Whether there are.
    pub(crate) fn is_behind(&self) -> bool {
        self.shared.is_behind.load(Ordering::Acquire)
    }

    /// Learns from all records if there are others than the last time, after whoever does so already: what is learnt last is
    /// of the records that were there last. The follower does so every
    /// few minutes, and at once where the model is behind; it takes some seconds of one processor, on a thread of its own.
    pub async fn learn_anew(&self) {
        let _turn = self.shared.learning.lock().await;
        let (index, until) = {
            let mut building = self.building();
            self.shared.is_behind.store(false, Ordering::Release);
            if building.index.rows(Kind::Training) == 0 {
                // Where all of them were taken back, the published figures alone are left.
                if self.shared.model.swap(None).is_some() {
                    self.show(&building);
                }
                return;
            }
            let until = building.unlearnt.found;
            let known = self.shared.model.load().as_ref().map(|learnt| learnt.until);
            if known == Some(until) {
                return;
            }
            building.unlearnt.meanwhile = Some(Vec::new());
            (building.index.clone(), until)
        };
        let mut begun = Begun {
            estimator: self,
            is_done: false,
        };
        let learning = tokio::task::spawn_blocking(move || estimate::learn(&index));
        let learnt = learning.await;
        begun.is_done = true;
        let mut building = self.building();
        let meanwhile = building.unlearnt.meanwhile.take().unwrap_or_default();
        match learnt {
            Ok(Some(mut model)) => {
                // Else they would count only when everything is next learnt.
                if meanwhile.len() <= ROWS_AT_ONCE {
                    estimate::observe(&mut model, &building.index, &meanwhile);
                } else {
                    self.fall_behind();
                }
                let learnt = Learnt { model, until };
                self.shared.model.store(Some(Arc::new(learnt)));
                // Answers are remembered for as long as the index is the same one.
                self.show(&building);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the model could not be learnt; the last one stays"
            ),
        }
    }
}

/// A learning that has begun. Where nobody waits for its end any more, as when a caller has gone away, the model is as far
/// behind as before.
struct Begun<'a> {
    estimator: &'a Estimator,
    is_done: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.estimator.building().unlearnt.meanwhile = None;
            self.estimator.fall_behind();
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
    use crate::table::News;
    use crate::testing::{contribution, row, training_key};
    use crate::{Contribution, PriceBook};

    const RECIPE: &str = "kolors.1.0/lora";

    fn estimator() -> Estimator {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let base = Url::parse("memory:///bench/").expect("url");
        Estimator::over(store, base, PriceBook::default()).expect("estimator")
    }

    fn found(estimator: &Estimator) -> u64 {
        estimator.building().unlearnt.found
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
        assert_eq!(first.until, 0, "everything is still to be learnt");
        estimator.learn_anew().await;
        let before = estimator.learnt().expect("a model");
        assert!(!Arc::ptr_eq(&first, &before));
        let thought = before.model.clone();
        assert_eq!(before.until, found(&estimator));

        // Ten times as slow as that on another machine: its recipe is slower everywhere.
        record(vec![run(2, "h100", 40_000)]).await;
        let after = estimator.learnt().expect("a model");
        assert!(!Arc::ptr_eq(&before, &after), "the row was taken in");
        assert_eq!(
            after.until, before.until,
            "and everything is still to be learnt anew"
        );
        let asked = training_key(RECIPE, "l40s");
        let point = estimate::point_of(&asked.shape(), asked.hardware, true);
        let (was, is) = (
            thought.predict(&point).ms[1],
            after.model.predict(&point).ms[1],
        );
        assert!(is > was * 1.05, "{was} {is}");

        estimator.learn_anew().await;
        let learnt = estimator.learnt().expect("a model");
        assert_eq!(learnt.until, found(&estimator));
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
        let learnt = estimator.learnt().expect("a model");
        assert_eq!(learnt.until, found(&estimator));
    }

    /// Learning takes seconds, and the follower or a worker may find something in them.
    #[tokio::test]
    async fn a_row_that_comes_while_everything_is_learnt_anew_counts_as_well() {
        let estimator = estimator();
        let first = estimator.record(vec![run(1, "rtx4090", 4_000)]).await;
        first.expect("stored");
        let learning = estimator.learn_anew();
        let meanwhile = estimator.record(vec![run(2, "h100", 40_000)]);
        // In one thread: the one has begun when the other is polled, and takes its model over afterwards.
        let mut learning = std::pin::pin!(learning);
        assert!(futures::poll!(learning.as_mut()).is_pending());
        meanwhile.await.expect("stored");
        learning.await;
        let late = estimator.learnt().expect("a model");
        assert!(
            late.until < found(&estimator),
            "and everything is still to be learnt anew"
        );
        let alone = self::estimator();
        let first = alone.record(vec![run(1, "rtx4090", 4_000)]).await;
        first.expect("stored");
        alone.learn_anew().await;
        let alone = alone.learnt().expect("a model");
        let asked = training_key(RECIPE, "l40s");
        let point = estimate::point_of(&asked.shape(), asked.hardware, true);
        let ms = |learnt: &Learnt| learnt.model.predict(&point).ms[1];
        assert!(
            ms(&late) > ms(&alone) * 1.05,
            "{} {}",
            ms(&late),
            ms(&alone)
        );
    }

    /// The follower learns while somebody takes everything back.
    #[tokio::test]
    async fn what_is_learnt_last_is_of_what_is_there_last() {
        let estimator = estimator();
        let first = estimator.record(vec![run(1, "rtx4090", 4_000)]).await;
        first.expect("stored");
        let mut learning = std::pin::pin!(estimator.learn_anew());
        assert!(futures::poll!(learning.as_mut()).is_pending());
        let nothing = News {
            everything: true,
            ..News::default()
        };
        estimator.learn(Kind::Training, nothing);
        futures::future::join(learning, estimator.learn_anew()).await;
        assert!(
            estimator.learnt().is_none(),
            "nothing is left to learn from"
        );
    }

    /// Whoever has taken something back goes away while everything is learnt anew.
    #[tokio::test]
    async fn a_learning_that_nobody_waits_for_is_to_be_done_again() {
        let estimator = estimator();
        let first = estimator.record(vec![run(1, "rtx4090", 4_000)]).await;
        first.expect("stored");
        {
            let mut learning = std::pin::pin!(estimator.learn_anew());
            assert!(futures::poll!(learning.as_mut()).is_pending());
            assert!(!estimator.is_behind());
        }
        assert!(
            estimator.is_behind(),
            "the follower learns at its next look"
        );
        assert!(estimator.building().unlearnt.meanwhile.is_none());
        estimator.learn_anew().await;
        let learnt = estimator.learnt().expect("a model");
        assert_eq!(learnt.until, found(&estimator));
        assert!(!estimator.is_behind());
    }

    /// Each time so few that the model takes them in by itself.
    #[tokio::test]
    async fn more_rows_than_a_model_takes_in_while_it_is_learnt_leave_it_behind() {
        let estimator = estimator();
        let first = estimator.record(vec![run(1, "rtx4090", 4_000)]).await;
        first.expect("stored");
        let mut learning = std::pin::pin!(estimator.learn_anew());
        assert!(futures::poll!(learning.as_mut()).is_pending());
        let few = vec![row(training_key(RECIPE, "h100"), 400, 150); ROWS_AT_ONCE / 2 + 1];
        for _ in 0..2 {
            let rows = few.clone();
            let news = News {
                rows,
                ..News::default()
            };
            estimator.learn(Kind::Training, news);
        }
        assert!(!estimator.is_behind());
        learning.await;
        assert!(
            estimator.is_behind(),
            "the follower learns at its next look"
        );
    }

    /// As after a table was set back and has grown to as many rows again.
    #[tokio::test]
    async fn as_many_other_rows_are_others() {
        let estimator = estimator();
        let first = estimator.record(vec![run(1, "rtx4090", 4_000)]).await;
        first.expect("stored");
        estimator.learn_anew().await;
        let before = estimator.learnt().expect("a model");
        let mut known = Index::default();
        known.add(&run(2, "h100", 40_000).rows);
        let others = News {
            everything: true,
            known,
            ..News::default()
        };
        estimator.learn(Kind::Training, others);
        assert_eq!(estimator.index().rows(Kind::Training), 1);
        estimator.learn_anew().await;
        let after = estimator.learnt().expect("a model");
        assert!(!Arc::ptr_eq(&before, &after));
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
