//! Tasks that run for as long as a server does, and the word of the first that ends before.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Tasks that are to run until [`Self::shutdown`]. A server without one of them is half of one, and nobody would notice:
/// whoever runs it waits for [`Self::ended`] and stops. Dropped, they all end.
#[derive(Debug, Default)]
pub struct Tasks {
    running: Mutex<JoinSet<()>>,
    ended: watch::Sender<Option<Ended>>,
    /// Whether they are being ended: some return when others have gone.
    ending: Arc<AtomicBool>,
}

/// A task has ended that was to run on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {task} has ended: {why}")]
pub struct Ended {
    /// What it does, for people: "recorder".
    pub task: &'static str,
    /// What it said when it failed, or that it has just returned.
    pub why: String,
    /// Whether it helps to start the server again. If not, it ends again until what `why` says is done.
    pub again: bool,
}

impl Tasks {
    /// Runs a task beside the others. `task` is what people know it by. Inside a tokio runtime.
    pub fn spawn(&self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&Handle::current(), task, work);
    }

    /// The same for one that ends with why the server is to end, as it will again until that is mended.
    pub fn spawn_saying(
        &self,
        task: &'static str,
        work: impl Future<Output = String> + Send + 'static,
    ) {
        self.run(&Handle::current(), task, work.map(Some));
    }

    /// The same from any thread, and for one that may be ended before the others by what is given back.
    pub(crate) fn spawn_on(
        &self,
        runtime: &Handle,
        task: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.run(runtime, task, work.map(|()| None))
    }

    fn run(
        &self,
        runtime: &Handle,
        task: &'static str,
        work: impl Future<Output = Option<String>> + Send + 'static,
    ) -> AbortHandle {
        let (ended, ending) = (self.ended.clone(), Arc::clone(&self.ending));
        let mut running = self.running.lock();
        // Those that were ended singly leave nothing behind.
        while running.try_join_next().is_some() {}
        let work = async move {
            let (why, again) = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(None) => ("it has returned".to_owned(), true),
                Ok(Some(why)) => (why, false),
                Err(panic) => (format!("it has failed: {}", words(panic.as_ref())), true),
            };
            if ending.load(Ordering::Acquire) {
                return;
            }
            tracing::error!(task, why, "a task has ended that was to run on");
            ended.send_if_modified(|first| {
                let news = first.is_none();
                if news {
                    *first = Some(Ended { task, why, again });
                }
                news
            });
        };
        running.spawn_on(work, runtime)
    }

    /// Waits until one of them has ended by itself, and gives the first: for ever, if none does.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        let first = ended.wait_for(Option::is_some).await;
        match first.ok().and_then(|first| first.clone()) {
            Some(first) => first,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// Ends them all and waits until they have.
    pub async fn shutdown(&self) {
        self.ending.store(true, Ordering::Release);
        let mut running = std::mem::take(&mut *self.running.lock());
        running.shutdown().await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
    }
}

/// What a panic says.
pub(crate) fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_first_that_ends_by_itself_is_told_with_why() {
        let tasks = Tasks::default();
        tasks.spawn("recorder", pending());
        assert_eq!(tasks.ended().now_or_never(), None);
        tasks.spawn("disk watch", async { panic!("no disk {}", 7) });
        let failed = tasks.ended().await;
        assert_eq!(
            failed.to_string(),
            "the disk watch has ended: it has failed: no disk 7"
        );
        tasks.spawn("follower", ready(()));
        assert_eq!(tasks.ended().await, failed, "the first one stays");
        let tasks = Tasks::default();
        tasks.spawn("follower", ready(()));
        let returned = tasks.ended().await.to_string();
        assert_eq!(returned, "the follower has ended: it has returned");
    }

    #[tokio::test]
    async fn those_that_are_ended_are_not_told() {
        let tasks = Tasks::default();
        let held = Arc::new(());
        let in_task = Arc::clone(&held);
        tasks.spawn("recorder", async move {
            let _held = in_task;
            pending().await
        });
        tasks.shutdown().await;
        assert_eq!(Arc::strong_count(&held), 1, "it is gone");
        assert_eq!(tasks.ended().now_or_never(), None);
    }

    #[tokio::test]
    async fn one_that_returns_when_the_others_are_ended_is_not_told() {
        let tasks = Tasks::default();
        let mut ended = tasks.ended.subscribe();
        let (gone, others) = oneshot::channel::<()>();
        tasks.spawn("server of other nodes", async move { drop(others.await) });
        // It runs on: nobody has waited for it, nor ended it by force.
        let running = std::mem::take(&mut *tasks.running.lock());
        tasks.shutdown().await;
        drop(gone);
        running.join_all().await;
        assert_eq!(*ended.borrow_and_update(), None);
    }
}
