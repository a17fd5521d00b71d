//! The background follower: looks for what others stored, and now and then tidies the tables up.

use std::error::Error;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Estimator;

/// The pause between two looks: a look costs two small requests, and an estimate may be so old.
const FOLLOW_EVERY: Duration = Duration::from_secs(10);
/// The longest pause while the store does not answer; it doubles up to here, so that a store that comes back is
/// not run over.
const FOLLOW_PAUSE_MAX: Duration = Duration::from_secs(120);
/// Between two compactions: by then a busy table has gathered some hundreds of small objects.
const COMPACT_EVERY: Duration = Duration::from_secs(3_600);

/// Between two times that everything is learnt anew, which takes a second or two of one processor. What was measured
/// meanwhile counts as the nearest cell already, and the model has taken it in row by row.
const LEARN_EVERY: Duration = Duration::from_secs(300);

/// Every so many looks the imported prices are looked for by a list, and not only the next version of them.
const PRICES_LISTED_EVERY: u32 = 30;

/// A task that keeps the index fresh. It ends when this is dropped.
#[derive(Debug)]
pub struct Follower {
    task: JoinHandle<()>,
}

impl Follower {
    pub(super) fn start(estimator: &Estimator) -> Self {
        Self {
            task: tokio::spawn(run(estimator.clone(), FOLLOW_EVERY)),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(estimator: Estimator, every: Duration) {
    let mut pause = every;
    let mut compacted = Instant::now();
    let mut learnt = Instant::now();
    let mut looks: u32 = 0;
    estimator.learn_anew().await;
    loop {
        sleep(pause).await;
        looks = looks.wrapping_add(1);
        let listed = looks.is_multiple_of(PRICES_LISTED_EVERY);
        let looked = match estimator.refresh().await {
            Ok(()) => estimator.refresh_prices(listed).await,
            Err(error) => Err(error),
        };
        pause = match looked {
            Ok(()) => every,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "the history could not be followed; it is tried again"
                );
                (pause * 2).min(FOLLOW_PAUSE_MAX.max(every))
            }
        };
        if learnt.elapsed() >= LEARN_EVERY {
            estimator.learn_anew().await;
            learnt = Instant::now();
        }
        if compacted.elapsed() >= COMPACT_EVERY {
            compacted = Instant::now();
            if let Err(error) = estimator.compact().await {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "the history could not be tidied up; it is tried again"
                );
            }
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
