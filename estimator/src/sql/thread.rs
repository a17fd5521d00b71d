//! A statement from its text to its answer, here or on a thread of its own; it stops by itself where the engine lets go of
//! its thread now and then.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::answer::Answer;
use super::guard::{self, Statement};
use super::session::{Reach, Session};
use super::{Wanted, catalog};
use crate::error::Error;

/// The stack of a statement's thread. Reading and planning recurse with the depth of the statement; pages that
/// are not touched cost nothing.
const STACK_BYTES: usize = 64 << 20;

/// Runs a statement on a thread of its own. Whoever drops this ends it, as soon as the engine looks up; `held` is dropped
/// when the thread ends.
pub(super) async fn run(
    statement: &str,
    wanted: Wanted,
    reach: Reach,
    time_max: Duration,
    held: impl Send + 'static,
) -> Result<Answer, Error> {
    let (told, answered) = oneshot::channel();
    let statement = statement.to_owned();
    let work = move || {
        let mut told = told;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let said = match runtime {
            Ok(runtime) => runtime.block_on(async {
                tokio::select! {
                    said = answer(&statement, wanted, reach, time_max) => said,
                    // Who asked has gone, and somebody else may wait for the turn.
                    () = told.closed() => Err(Error::Busy),
                }
            }),
            Err(error) => Err(Error::unreachable(error)),
        };
        // Nobody may be waiting any more.
        let _ = told.send(said);
        drop(held);
    };
    spawn(work).map_err(|_| Error::NotRun)?;
    answered.await.unwrap_or_else(|_| Err(failed()))
}

/// A thread that has stack enough for any statement that the guard lets pass.
pub(super) fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new()
        .name("sql".into())
        .stack_size(STACK_BYTES)
        .spawn(work)
}

/// The engine panicked or its process ended by itself.
pub(super) fn failed() -> Error {
    Error::Query {
        message: "the query engine failed on this statement".into(),
        hint: Some("write it another way".into()),
    }
}

/// Runs a statement on this thread, which needs a stack as [`spawn`] gives it.
pub(super) async fn answer(
    statement: &str,
    wanted: Wanted,
    reach: Reach,
    time_max: Duration,
) -> Result<Answer, Error> {
    let started = Instant::now();
    let answer = match guard::read(statement)? {
        Statement::Tables => catalog::list_tables(),
        Statement::Columns(name) => catalog::list_columns(&name)?,
        Statement::Query { query, is_plain } => {
            let session = Session::new(reach, is_plain)?;
            let answer = timeout(time_max, session.query(*query, wanted)).await;
            answer.map_err(|_| Error::TimedOut(time_max))??
        }
    };
    Ok(Answer {
        elapsed: started.elapsed(),
        ..answer
    })
}
