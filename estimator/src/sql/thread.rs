//! A statement on a thread of its own, which stops by itself where the engine lets go of its thread now and then.

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

/// Runs a statement. Whoever drops this ends it, as soon as the engine looks up; `held` is dropped when the thread ends.
pub(super) async fn run(
    statement: &str,
    wanted: Wanted,
    reach: Reach,
    time_max: Duration,
    held: impl Send + 'static,
) -> Result<Answer, Error> {
    let (answer, answered) = oneshot::channel();
    let statement = statement.to_owned();
    let work = move || {
        let mut answer = answer;
        let said = here(&statement, wanted, reach, time_max, &mut answer);
        // Nobody may be waiting any more.
        let _ = answer.send(said);
        drop(held);
    };
    let thread = std::thread::Builder::new()
        .name("sql".into())
        .stack_size(STACK_BYTES);
    thread.spawn(work).map_err(|_| Error::Busy)?;
    answered.await.unwrap_or_else(|_| Err(failed()))
}

/// The engine panicked or its process ended by itself.
pub(super) fn failed() -> Error {
    Error::Query {
        message: "the query engine failed on this statement".into(),
        hint: Some("write it another way".into()),
    }
}

fn here(
    statement: &str,
    wanted: Wanted,
    reach: Reach,
    time_max: Duration,
    waits: &mut oneshot::Sender<Result<Answer, Error>>,
) -> Result<Answer, Error> {
    let started = Instant::now();
    let answer = match guard::read(statement)? {
        Statement::Tables => catalog::list_tables(),
        Statement::Columns(name) => catalog::list_columns(&name)?,
        Statement::Query { query, is_plain } => {
            let session = Session::new(reach, is_plain)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            let runtime = runtime.map_err(Error::unreachable)?;
            let answer = runtime.block_on(async {
                tokio::select! {
                    answer = timeout(time_max, session.query(*query, wanted)) => answer.map_err(|_| Error::TimedOut(time_max))?,
                    // Who asked has gone, and somebody else may wait for the turn.
                    () = waits.closed() => Err(Error::Busy),
                }
            });
            answer?
        }
    };
    Ok(Answer {
        elapsed: started.elapsed(),
        ..answer
    })
}
