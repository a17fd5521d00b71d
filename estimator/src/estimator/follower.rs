//! The background follower: looks for what others stored, and now and then tidies the tables up.

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Estimator;

/// The pause between two looks: a look costs two small requests, and an estimate may be so old.
const FOLLOW_EVERY: Duration = Duration::from_secs(10);
/// The longest pause while the store does not answer; it doubles up to here, so that a store that comes back is
/// not run over.
const FOLLOW_PAUSE_MAX: Duration = Duration::from_secs(120);
/// Between two times that the tables are tidied up.
const TIDY_EVERY: Duration = Duration::from_secs(3_600);
/// The first time comes so soon, so that a server that is restarted every hour does it too; nodes that were started
/// together spread over as long again. As soon after the last time it is done before its time.
const TIDY_SOON: Duration = Duration::from_secs(300);
/// So many small objects more than the last time has left are a reason for that: every query and every look at the log
/// goes through all of them. Half as many more for some of the nodes, so that one is the first.
const SMALL_OBJECTS_MAX: usize = 256;

/// Between two times that everything is learnt anew, which takes a second or two of one processor. What was measured
/// meanwhile counts as the nearest cell already, and the model has taken it in row by row.
const LEARN_EVERY: Duration = Duration::from_secs(300);

/// Every so many looks the imported prices are looked for by a list, and not only the next version of them.
const PRICES_LISTED_EVERY: u32 = 30;

/// Keeps the index fresh until it is dropped.
pub(super) async fn follow(estimator: Estimator) {
    run(estimator, FOLLOW_EVERY).await;
}

/// When the tables are to be tidied up.
#[derive(Debug)]
struct Tidying {
    /// By then in any case.
    due: Instant,
    /// From then on if there are many small objects.
    soonest: Instant,
    /// How many small objects the last time has left; some may not be moved.
    left: usize,
    /// What makes nodes differ, from nought to one.
    share: f64,
}

impl Tidying {
    fn new(now: Instant, share: f64) -> Self {
        let soon = now + TIDY_SOON.mul_f64(1.0 + share);
        Self {
            due: soon,
            soonest: soon,
            left: 0,
            share,
        }
    }

    fn is_due(&self, now: Instant, small: usize) -> bool {
        let more = SMALL_OBJECTS_MAX + (SMALL_OBJECTS_MAX as f64 / 2.0 * self.share) as usize;
        now >= self.due || (now >= self.soonest && small > self.left + more)
    }

    /// It was begun then, and has left so many small objects.
    fn done(&mut self, began: Instant, left: usize) {
        self.due = began + TIDY_EVERY;
        self.soonest = began + TIDY_SOON.mul_f64(1.0 + self.share);
        self.left = left;
    }
}

/// A number from nought to one that is another one in each process.
fn any_share() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

async fn run(estimator: Estimator, every: Duration) {
    let mut pause = every;
    let mut tidying = Tidying::new(Instant::now(), any_share());
    let mut learnt = Instant::now();
    let mut looks: u32 = 0;
    estimator.learn_anew().await;
    loop {
        sleep(pause).await;
        looks = looks.wrapping_add(1);
        let listed = looks.is_multiple_of(PRICES_LISTED_EVERY);
        pause = match estimator.look(listed).await {
            Ok(()) => every,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "the history could not be followed; it is tried again"
                );
                (pause * 2).min(FOLLOW_PAUSE_MAX.max(every))
            }
        };
        if learnt.elapsed() >= LEARN_EVERY || estimator.is_behind() {
            estimator.learn_anew().await;
            learnt = Instant::now();
        }
        let now = Instant::now();
        let is_held = estimator.check_held().is_err();
        if !is_held && tidying.is_due(now, estimator.small_objects()) {
            if let Err(error) = estimator.compact().await {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "the history could not be tidied up; it is tried again"
                );
            }
            tidying.done(now, estimator.small_objects());
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
    use crate::PriceBook;
    use crate::testing::{Faulty, contribution, row, training_key};

    #[tokio::test(flavor = "multi_thread")]
    async fn it_finds_what_others_store_also_after_the_store_was_gone() {
        let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let faulty = Faulty::new(&disk, None);
        let base = || Url::parse("memory:///bench/").expect("url");
        let writer = Estimator::over(disk, base(), PriceBook::default()).expect("estimator");
        let reader =
            Estimator::over(faulty.clone(), base(), PriceBook::default()).expect("estimator");
        let task = tokio::spawn(run(reader.clone(), Duration::from_millis(5)));
        faulty.set_dead(true);
        wait_until(|| reader.stats().trouble.is_some()).await;
        let rows = vec![row(training_key("flux.dev/lora", "rtx4090"), 14_000, 150)];
        writer
            .record(vec![contribution(1, rows)])
            .await
            .expect("stored");
        faulty.set_dead(false);
        wait_until(|| reader.stats().rows() == 1).await;
        assert_eq!(reader.stats().trouble, None);
        task.abort();
    }

    #[test]
    fn it_tidies_up_some_minutes_after_the_start_every_hour_and_when_there_is_much_to_do() {
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        for (share, first, many) in [(0.0, 5, 257), (1.0, 10, 385)] {
            let mut tidying = Tidying::new(start, share);
            assert!(!tidying.is_due(at(first - 1), 100_000), "not at once");
            assert!(tidying.is_due(at(first), 0));
            tidying.done(at(first), 3);
            assert!(!tidying.is_due(at(first + 59), many + 2));
            assert!(tidying.is_due(at(first + 60), 0));
            assert!(!tidying.is_due(at(first + first - 1), 100_000));
            assert!(tidying.is_due(at(first + first), many + 3));
            tidying.done(at(30), many + 3);
            assert!(!tidying.is_due(at(60), many + 3), "they may not be moved");
        }
        let shares: Vec<f64> = (0..20).map(|_| any_share()).collect();
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        assert!(shares.iter().any(|share| *share != shares[0]));
    }

    /// The other task tells nobody what it does, so this looks again and again.
    async fn wait_until(met: impl Fn() -> bool) {
        for _ in 0..10_000 {
            if met() {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("it never came");
    }
}
