//! Tasks that run for as long as the worker does, and the word of the first that ends before.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::task::{JoinError, JoinSet};

/// Tasks that are to run for as long as the worker does: without one of them it would do half of its work, and nobody would
/// notice. Dropped, they all end.
#[derive(Debug, Default)]
pub(crate) struct Tasks(JoinSet<Ended>);

/// A task has ended that was to run on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {task} has ended: {why}; start the worker again, and report what it has logged")]
pub struct Ended {
    /// What it does, for people.
    pub task: &'static str,
    /// What it said when it failed, or that it has just returned.
    pub why: String,
}

impl Ended {
    /// One that has failed, or was ended.
    pub(crate) fn joined(task: &'static str, error: JoinError) -> Self {
        let why = match error.try_into_panic() {
            Ok(panic) => words(panic.as_ref()).to_owned(),
            Err(error) => error.to_string(),
        };
        Self { task, why }
    }
}

impl Tasks {
    /// Runs a task beside the others. `task` is what people know it by.
    pub(crate) fn spawn(
        &mut self,
        task: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.0.spawn(async move {
            let why = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(()) => "it has returned".to_owned(),
                Err(panic) => words(panic.as_ref()).to_owned(),
            };
            Ended { task, why }
        });
    }

    /// Waits for the first that ends by itself: for ever, if none does.
    pub(crate) async fn ended(&mut self) -> Ended {
        match self.0.join_next().await {
            Some(Ok(ended)) => ended,
            // Nothing fails in there but the work, and none is ended singly.
            _ => std::future::pending().await,
        }
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
