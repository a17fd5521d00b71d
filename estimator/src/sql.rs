//! SQL over the two tables: one reading statement at a time, bounded in time, memory, rows and how many run at once.
//!
//! What a statement can reach is decided by what is there: two tables, a short list of functions, no table function,
//! no other location. A guard reads the statement before the engine does, because some statements cost the engine
//! more than they look. The statement then runs on a thread of its own, so that one that cannot be stopped costs a
//! place in the queue and nothing else.

mod answer;
mod catalog;
mod functions;
mod guard;
mod held;
mod histogram;
#[cfg(test)]
mod page;
mod reads;
mod session;
mod table;
#[cfg(test)]
mod tests;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::cache::default_cache::DefaultCache;
use object_store::ObjectStore;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::error::Error;
pub use answer::Answer;
pub use catalog::{ColumnDoc, TableDoc, tables};
use guard::Statement;
use session::{Reach, Session};
pub(crate) use table::View;

/// The longest statement: no question about two tables needs a longer one, and what it costs to read one grows
/// with its length.
pub const STATEMENT_BYTES_MAX: usize = 8 << 10;
/// A statement that runs longer is stopped. A look at ten million rows takes a second or two.
pub const TIME_MAX: Duration = Duration::from_secs(10);
/// An answer is cut after so many rows: more belongs in a file, not on a screen.
pub const ROWS_MAX: usize = 10_000;
/// An answer is cut after so many bytes, below the size of message that clients accept.
pub const ANSWER_BYTES_MAX: usize = 3 << 20;
/// What the sorts, groups, joins and windows of one statement may hold in memory. There is no spilling to disk.
pub const MEMORY_MAX: usize = 64 << 20;
/// Statements that run at once: SQL never takes the machine away from estimates.
pub const AT_ONCE: usize = 2;
/// A statement waits so long for its turn before it is refused.
const TURN_WAIT: Duration = Duration::from_secs(2);
/// The stack of a statement's thread. Reading and planning recurse with the depth of the statement; pages that
/// are not touched cost nothing.
const STACK_BYTES: usize = 64 << 20;

/// Footers of files that are kept from one statement to the next. Files never change, so that a footer is never old; a
/// footer with its index of pages takes some kilobytes a million rows.
const FOOTER_BYTES: usize = 32 << 20;

/// What is wanted of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Its rows.
    Rows,
    /// The columns that its rows would have; it is planned and does not run.
    Columns,
}

/// Runs statements, a few at a time.
pub(crate) struct Engine {
    footers: Arc<FileMetadataCache>,
    turns: Arc<Semaphore>,
    time_max: Duration,
}

impl Engine {
    pub(crate) fn new() -> Self {
        Self {
            footers: Arc::new(DefaultCache::new(FOOTER_BYTES)),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            time_max: TIME_MAX,
        }
    }

    /// The columns that a statement's rows would have.
    pub(crate) async fn columns(
        &self,
        statement: &str,
        store: &Arc<dyn ObjectStore>,
        views: Vec<View>,
    ) -> Result<SchemaRef, Error> {
        let answer = self.ask(statement, Wanted::Columns, store, views).await?;
        Ok(answer.schema)
    }

    /// Runs one statement over the tables as they are now.
    pub(crate) async fn run(
        &self,
        statement: &str,
        store: &Arc<dyn ObjectStore>,
        views: Vec<View>,
    ) -> Result<Answer, Error> {
        self.ask(statement, Wanted::Rows, store, views).await
    }

    async fn ask(
        &self,
        statement: &str,
        wanted: Wanted,
        store: &Arc<dyn ObjectStore>,
        views: Vec<View>,
    ) -> Result<Answer, Error> {
        if statement.len() > STATEMENT_BYTES_MAX {
            return Err(Error::Refused {
                message: format!("a statement has at most {} kB", STATEMENT_BYTES_MAX >> 10),
                hint: None,
            });
        }
        let turn = Arc::clone(&self.turns).acquire_owned();
        let turn = timeout(TURN_WAIT, turn).await.map_err(|_| Error::Busy)?;
        let turn = turn.map_err(|_| Error::Busy)?;
        let reach = Reach {
            store: Arc::clone(store),
            runtime: Handle::current(),
            footers: Arc::clone(&self.footers),
            views,
        };
        let (answer, answered) = oneshot::channel();
        let (statement, time_max) = (statement.to_owned(), self.time_max);
        let work = move || {
            let mut answer = answer;
            let said = on_this_thread(&statement, wanted, reach, time_max, &mut answer);
            // Nobody may be waiting any more; the turn ends with the thread either way.
            let _ = answer.send(said);
            drop(turn);
        };
        let thread = std::thread::Builder::new()
            .name("sql".into())
            .stack_size(STACK_BYTES);
        thread.spawn(work).map_err(|_| Error::Busy)?;
        // The thread stops by itself where it can; where it cannot, only its turn is lost for as long as it takes.
        match timeout(self.time_max + Duration::from_secs(1), answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Query {
                message: "the query engine failed on this statement".into(),
                hint: Some("write it another way".into()),
            }),
            Err(_) => Err(Error::TimedOut(self.time_max)),
        }
    }
}

fn on_this_thread(
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
