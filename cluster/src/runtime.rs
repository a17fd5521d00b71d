//! Who runs a node's tasks and lets them wait: the host's runtime, or a simulation that owns the time.

use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use ring::rand::{SecureRandom, SystemRandom};

/// What a node's tasks ask of whoever runs them. With it a whole node can run in one thread, from a seed, in no time.
pub trait Runtime: Send + Sync {
    /// Ready after this long.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;

    /// Runs a task beside the others, until it ends or the node does.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Does work that takes a while where it holds no other task up. False if it was broken off.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, bool>;

    /// Bytes that nobody can guess; nothing where the system has none.
    fn random(&self) -> Option<[u8; 32]>;
}

/// The host's: tokio. To be used inside of its runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tokio;

impl Runtime for Tokio {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(time).boxed()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, bool> {
        tokio::task::spawn_blocking(work)
            .map(|done| done.is_ok())
            .boxed()
    }

    fn random(&self) -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// What the future gives, or nothing if it takes longer than this.
pub(crate) async fn timeout<T>(
    runtime: &dyn Runtime,
    time: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    match select(pin!(future), runtime.sleep(time)).await {
        Either::Left((given, _)) => Some(given),
        Either::Right(((), _)) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn what_is_ready_is_given_and_what_takes_too_long_is_not() {
        let no_time = Duration::ZERO;
        assert_eq!(timeout(&Tokio, no_time, ready(7)).await, Some(7));
        assert_eq!(timeout(&Tokio, no_time, pending::<u8>()).await, None);
    }

    #[tokio::test]
    async fn blocking_work_is_waited_for_and_its_panic_is_told() {
        assert!(Tokio.blocking(Box::new(|| {})).await);
        assert!(!Tokio.blocking(Box::new(|| panic!("as it should"))).await);
    }
}
