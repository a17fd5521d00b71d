//! SQL over the two tables: one reading statement at a time, bounded in time, memory, rows and how many run at once.
//!
//! What a statement can reach is decided by what is there: two tables, a short list of functions, no table function,
//! no other location. A guard reads the statement before the engine does, because some statements cost the engine
//! more than they look. A server then runs the statement in a process of its own ([`Program`]), which is killed when
//! its time is over and has a limit of memory. Without such a program it runs on a thread: that is enough where nobody
//! means harm, as most statements stop by themselves when their time is over.

mod answer;
mod catalog;
mod functions;
mod guard;
mod histogram;
mod lists;
mod measure;
mod members;
mod narrow;
#[cfg(test)]
mod page;
mod passed;
mod process;
mod reads;
mod session;
mod table;
#[cfg(test)]
mod tests;
mod thread;
mod totals;
mod unique;
mod unsaid;
mod wide;
mod words;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::cache::default_cache::DefaultCache;
use object_store::ObjectStore;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::error::Error;
pub use answer::Answer;
pub use catalog::{ColumnDoc, TableDoc, tables};
use process::Processes;
pub use process::{Program, serve};
use reads::Direct;
use session::Reach;
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
/// What a server's process of statements may have of memory for everything: what a statement may hold, what the engine
/// holds without counting it, footers of objects, and stacks. A statement that needs more ends its process, and nothing
/// else.
pub const PROCESS_BYTES_MAX: u64 = 1 << 30;
/// Statements that run at once: SQL never takes the machine away from estimates.
pub const AT_ONCE: usize = 2;
/// A statement waits so long for its turn before it is refused.
const TURN_WAIT: Duration = Duration::from_secs(2);
/// A statement that runs so much longer than it may does not stop by itself.
const GRACE: Duration = Duration::from_secs(1);
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
    /// Where statements run; on threads while nothing was said.
    processes: OnceLock<Processes>,
    footers: Arc<FileMetadataCache>,
    turns: Arc<Semaphore>,
    time_max: Duration,
}

impl Engine {
    pub(crate) fn new() -> Self {
        Self {
            processes: OnceLock::new(),
            footers: footers(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            time_max: TIME_MAX,
        }
    }

    /// From now on statements run in processes of this program; it is said once.
    pub(crate) fn run_in(&self, program: Program) {
        let _ = self.processes.set(Processes::of(program));
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
        if let Some(processes) = self.processes.get() {
            let answer = processes.run(statement, wanted, store, &views, self.time_max);
            let answer = answer.await;
            drop(turn);
            return answer;
        }
        let store = Arc::clone(store);
        let runtime = Handle::current();
        let reach = Reach {
            pieces: Arc::new(Direct { store, runtime }),
            footers: Arc::clone(&self.footers),
            views,
        };
        // The thread stops by itself where it can; where it cannot, its turn is lost for as long as it takes.
        let answer = thread::run(statement, wanted, reach, self.time_max, turn);
        let answer = timeout(self.time_max + GRACE, answer).await;
        answer.map_err(|_| Error::TimedOut(self.time_max))?
    }
}

/// Footers of objects, kept from one statement to the next.
fn footers() -> Arc<FileMetadataCache> {
    Arc::new(DefaultCache::new(FOOTER_BYTES))
}
