//! The estimator: the history in object storage, its index in memory, and the doors to both.

mod follower;
mod learner;
mod metrics;
mod place;
mod prices;
mod publish;
#[cfg(test)]
mod s3_faults_tests;
#[cfg(test)]
mod s3_tests;
mod stats;
mod take_back;
#[cfg(test)]
mod tests;
mod tidy;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use datafusion::arrow::datatypes::SchemaRef;
use futures::future::{join, join_all};
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use tokio::time::timeout;
use url::Url;

use crate::contribution::{Committed, Contribution, Recorded, has_rows};
use crate::error::Error;
use crate::estimate::remembered::Remembered;
use crate::index::Index;
use crate::price::PriceBook;
use crate::sql::{self, Answer};
use crate::store::StoreConfig;
use crate::table::{Kind, News, Table};
use learner::{Learnt, Unlearnt};
use prices::Book;
pub use prices::PricesImported;
pub use stats::{Stats, TableStats, Work};
pub use take_back::VERSIONS_MAX;

/// One call may record so many contributions: enough for a recorder's batch many times over, few enough for one
/// log entry of well under a megabyte.
pub const CONTRIBUTIONS_MAX: usize = 4_096;
/// Opening waits so long for the store before it goes on without; what is there is then read in the background.
const OPEN_WAIT: Duration = Duration::from_secs(10);
/// A query waits so long for a store that has not been read yet: a person is waiting too.
const FIRST_LOOK_WAIT: Duration = Duration::from_secs(3);

/// The history, the index and the prices. Clones share everything, and every method may be called at any time.
#[derive(Clone)]
pub struct Estimator {
    shared: Arc<Shared>,
}

struct Shared {
    /// The store under its prefix: the tables' folders and what lies beside them.
    prefixed: Arc<dyn ObjectStore>,
    tables: [Table; 2],
    index: ArcSwap<Index>,
    /// How often there was another index.
    shown: AtomicU64,
    /// Whether nothing is taken in, since it is not known whose tables these are.
    held: AtomicBool,
    /// What was learnt from the records when they were last learnt from.
    model: ArcSwapOption<Learnt>,
    /// Held while everything is learnt anew: of two at once the one that has begun earlier might end later.
    learning: tokio::sync::Mutex<()>,
    /// Whether there are rows that it knows nothing of.
    is_behind: AtomicBool,
    /// The index that is being added to, and what was found besides rows. Held for moments only, never over a wait.
    building: Mutex<Building>,
    /// What the operator has written, and what comes with this version.
    own_prices: PriceBook,
    /// The same with what was imported.
    prices: ArcSwap<Book>,
    remembered: Remembered,
    sql: sql::Engine,
    /// Held while something is taken back: two at once would hold the rows of both in memory.
    taking_back: tokio::sync::Mutex<()>,
    /// Where the tables lie.
    base: Url,
}

/// What is known of the tables, as it grows.
#[derive(Default)]
struct Building {
    index: Index,
    /// Rows that were none, by table.
    refused_rows: [u64; 2],
    /// Objects beside the tables that are not of them, by table, as the last clean-up found them.
    foreign: [usize; 2],
    /// What the model may not have of it.
    unlearnt: Unlearnt,
    /// What was tidied up so far.
    work: Work,
    /// What the last look at the store ended with, if it failed.
    trouble: Option<String>,
}

impl Estimator {
    /// Opens the history. A store that does not answer is no reason to fail: estimates then come from what is
    /// known without it, [`Estimator::stats`] says so, and [`Estimator::follow`] goes on trying.
    ///
    /// # Errors
    /// [`Error::Config`] when the location or an option is wrong.
    pub async fn open(store: StoreConfig, prices: PriceBook) -> Result<Self, Error> {
        let (store, base) = store.open()?;
        let estimator = Self::over(store, base, prices)?;
        // What the published figures teach, first: rows that are read go into it. What goes wrong here goes wrong again,
        // and is told, when the first question is asked.
        let _ = tokio::task::spawn_blocking(crate::estimate::prepare).await;
        let look = async {
            let looked = estimator.look(true).await;
            estimator.learn_anew().await;
            looked
        };
        match timeout(OPEN_WAIT, look).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the history could not be read; it is tried again"
                )
            }
            Err(_) => {
                estimator.note_trouble(Some("the benchmark store answers too slowly".into()));
                tracing::warn!("the history is not read yet; it is tried again");
            }
        }
        Ok(estimator)
    }

    /// An estimator over a store that is rooted where the address is.
    pub(crate) fn over(
        store: Arc<dyn ObjectStore>,
        base: Url,
        prices: PriceBook,
    ) -> Result<Self, Error> {
        let table = |kind| Table::new(kind, &store, &base);
        let shared = Shared {
            tables: [table(Kind::Training)?, table(Kind::Validation)?],
            prefixed: Arc::new(PrefixStore::new(Arc::clone(&store), prefix(&base)?)),
            index: ArcSwap::default(),
            shown: AtomicU64::new(0),
            held: AtomicBool::new(false),
            model: ArcSwapOption::empty(),
            learning: tokio::sync::Mutex::default(),
            is_behind: AtomicBool::new(false),
            building: Mutex::default(),
            prices: ArcSwap::from_pointee(Book::unread(&prices)),
            own_prices: prices,
            remembered: Remembered::default(),
            sql: sql::Engine::new(),
            taking_back: tokio::sync::Mutex::default(),
            base,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Stores contributions, each exactly once by its id however often it is sent. After `Ok` they are in the
    /// store and in the index; after an error the same call may be repeated without any harm.
    ///
    /// # Errors
    /// [`Error::Unreachable`] and [`Error::Contended`] pass with time; the others do not.
    pub async fn record(&self, contributions: Vec<Contribution>) -> Result<Committed, Error> {
        let recorded = self.record_each(contributions).await;
        match recorded.failure {
            Some(error) => Err(error),
            None => Ok(recorded.committed),
        }
    }

    /// Like [`Estimator::record`], and says besides which of them are stored where not all could be: a contribution is, when
    /// each of the tables that it has rows for has taken them.
    pub async fn record_each(&self, contributions: Vec<Contribution>) -> Recorded {
        let mut recorded = Recorded::default();
        let too_many = contributions.len() > CONTRIBUTIONS_MAX;
        let too_many = too_many.then_some(Error::TooMany {
            what: "contributions",
            max: CONTRIBUTIONS_MAX,
        });
        recorded.failure = too_many.or_else(|| self.check_held().err());
        if recorded.failure.is_some() {
            return recorded;
        }
        let commits = self
            .shared
            .tables
            .iter()
            .map(|table| table.commit(&contributions, |news| self.learn(table.kind(), news)));
        let mut stored = HashSet::new();
        let mut failed = Vec::new();
        let outcomes = join_all(commits).await;
        for (table, outcome) in self.shared.tables.iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => {
                    stored.extend(outcome.stored);
                    recorded.committed.rows += outcome.rows;
                }
                Err(error) => {
                    failed.push(table.kind());
                    recorded.failure = Some(error);
                }
            }
        }
        // That one table has taken something says nothing of the other.
        let all_asked = Kind::ALL.iter().all(|kind| has_rows(&contributions, *kind));
        if recorded.failure.is_some() || all_asked {
            self.note(recorded.failure.as_ref());
        }
        recorded.committed.stored = stored.len();
        recorded.committed.skipped = contributions.len() - stored.len();
        let is_kept = |one: &&Contribution| !failed.iter().any(|kind| one.has_rows(*kind));
        let kept = contributions.iter().filter(is_kept);
        recorded.kept = kept.map(|one| one.id).collect();
        recorded
    }

    /// Whether nothing is written from now on, and whatever would be is refused with [`Error::Unreachable`]: until it is known
    /// that the tables are those that this node is to use. What is there is answered from all the same.
    pub fn hold(&self, is_held: bool) {
        self.shared.held.store(is_held, Ordering::Release);
    }

    /// # Errors
    /// [`Error::Unreachable`] while nothing is to be written.
    pub(crate) fn check_held(&self) -> Result<(), Error> {
        if self.shared.held.load(Ordering::Acquire) {
            return Err(Error::unreachable(
                "it is not known yet whether these are the tables that this node has used before",
            ));
        }
        Ok(())
    }

    /// Takes in what others have stored since the last look.
    ///
    /// # Errors
    /// When the store does not answer; what was known stays known.
    pub async fn refresh(&self) -> Result<(), Error> {
        let looks = self.shared.tables.iter().map(|table| async move {
            table
                .follow_with(|news| self.learn(table.kind(), news))
                .await
        });
        let outcome = join_all(looks)
            .await
            .into_iter()
            .collect::<Result<(), Error>>();
        self.note(outcome.as_ref().err());
        outcome
    }

    /// Takes in what others have stored and imported since the last look. Prices lie beside the tables, and whatever becomes of
    /// the one, the other is looked at.
    async fn look(&self, listed: bool) -> Result<(), Error> {
        let (tables, prices) = join(self.refresh(), self.refresh_prices(listed)).await;
        tables.and(prices)
    }

    /// Follows the store, learns from what it holds and tidies it up, until this is dropped: a task to run beside
    /// everything else. It does not end by itself, whatever becomes of the store. Needs a Tokio runtime.
    pub fn follow(&self) -> impl Future<Output = ()> + Send + 'static {
        follower::follow(self.clone())
    }

    /// Answers one reading statement over the tables `training_steps` and `validation_prompts`, as they were at the
    /// last look at the store. Bounded in every way: see the constants beside [`Answer`].
    ///
    /// # Errors
    /// [`Error::Unreachable`] while the store has not been read even once, since an empty answer would be a wrong one;
    /// [`Error::Refused`] and [`Error::Query`] are for the person who wrote the statement, with a hint;
    /// [`Error::TimedOut`], [`Error::OutOfMemory`] and [`Error::Busy`] are the bounds.
    pub async fn sql(&self, statement: &str) -> Result<Answer, Error> {
        let views = self.views().await?;
        let answer = self
            .shared
            .sql
            .run(statement, &self.shared.prefixed, views)
            .await;
        if matches!(answer, Err(Error::Damaged { .. })) {
            self.look_for_broken().await;
        }
        answer
    }

    /// Has the next statement do without objects that are lost or cut. One that is damaged within is found when the tables
    /// are next tidied up.
    async fn look_for_broken(&self) {
        for table in &self.shared.tables {
            if let Err(error) = table.look_for_broken().await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the objects of a table could not be looked at");
            }
        }
    }

    /// From now on every statement runs in a process of this program, so that none can outlive its time or take this
    /// process with it. The first call counts.
    pub fn run_statements_in(&self, program: sql::Program) {
        self.shared.sql.run_in(program);
    }

    /// The columns that the answer to a statement would have. It is planned and does not run.
    ///
    /// # Errors
    /// As [`Estimator::sql`].
    pub async fn sql_columns(&self, statement: &str) -> Result<SchemaRef, Error> {
        let views = self.views().await?;
        self.shared
            .sql
            .columns(statement, &self.shared.prefixed, views)
            .await
    }

    /// The tables as they were at the last look at the store.
    async fn views(&self) -> Result<Vec<sql::View>, Error> {
        if !self.shared.tables.iter().all(|table| table.listing().seen) {
            // It may have come back since the last try; whether it has shows below.
            let _ = timeout(FIRST_LOOK_WAIT, self.refresh()).await;
        }
        let view = |table: &Table| {
            let listing = table.listing();
            let view = sql::View {
                kind: table.kind(),
                files: listing.files.clone(),
            };
            let unseen = || Error::unreachable("the tables have not been read since the start");
            listing.seen.then_some(view).ok_or_else(unseen)
        };
        self.shared.tables.iter().map(view).collect()
    }

    /// Everything known, as it is now. Cheap, and no later change shows in it.
    #[must_use]
    pub fn index(&self) -> Arc<Index> {
        self.shared.index.load_full()
    }

    /// What was answered lately.
    pub(crate) fn remembered(&self) -> &Remembered {
        &self.shared.remembered
    }

    /// Where the tables lie, without a user or a password.
    #[must_use]
    pub fn location(&self) -> String {
        let mut shown = self.shared.base.clone();
        // An address that cannot have a user has none.
        let _ = shown
            .set_username("")
            .and_then(|()| shown.set_password(None));
        shown.to_string()
    }

    /// How much is known, and whether the store answered lately.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let building = self.building();
        let table = |kind: Kind| {
            let listing = self.shared.tables[kind as usize].listing();
            TableStats {
                rows: building.index.rows(kind),
                version: listing.version,
                objects: listing.files.len(),
                bytes: listing.files.iter().map(|file| file.bytes).sum(),
                refused_rows: building.refused_rows[kind as usize],
                refused_objects: listing.unreadable.len() as u64,
                foreign_objects: building.foreign[kind as usize] as u64,
                cells_aside: building.index.aside(kind).count() as u64,
                read_only: listing.read_only,
            }
        };
        Stats {
            training: table(Kind::Training),
            validation: table(Kind::Validation),
            cells: building.index.cells(),
            work: building.work,
            trouble: building.trouble.clone(),
        }
    }

    /// Why the last look at the store failed; `None` when it did not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.building().trouble.clone()
    }

    /// The store under the prefix that the tables share.
    pub(crate) fn prefixed(&self) -> &dyn ObjectStore {
        self.shared.prefixed.as_ref()
    }

    /// Takes news into the index and shows the new index to everybody.
    fn learn(&self, kind: Kind, news: News) {
        if news.is_nothing() {
            return;
        }
        let mut building = self.building();
        if news.everything {
            building.refused_rows[kind as usize] = 0;
            building.index.replace(kind, news.known);
        }
        building.refused_rows[kind as usize] += news.refused_rows;
        building.index.add(&news.rows);
        if kind == Kind::Training {
            building.unlearnt.note(&news.rows);
            match news.everything {
                true => self.fall_behind(),
                false => self.learn_rows(&building.index, &news.rows),
            }
        }
        self.show(&building);
    }

    /// Shows what was built to everybody.
    fn show(&self, building: &Building) {
        self.shared.index.store(Arc::new(building.index.clone()));
        self.shared.shown.fetch_add(1, Ordering::Release);
    }

    /// Which answers estimates are: the same question has the same answer as long as this number is the same.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shared.shown.load(Ordering::Acquire)
    }

    fn note(&self, failure: Option<&Error>) {
        self.note_trouble(failure.map(ToString::to_string));
    }

    fn note_trouble(&self, trouble: Option<String>) {
        self.building().trouble = trouble;
    }

    fn building(&self) -> std::sync::MutexGuard<'_, Building> {
        // A panic while it was held can only have been between two additions, each complete in itself.
        self.shared
            .building
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn prefix(base: &Url) -> Result<Path, Error> {
    let wrong = |error| Error::Config(format!("the store's location is wrong: {error}"));
    Path::from_url_path(base.path()).map_err(wrong)
}

impl std::fmt::Debug for Estimator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Estimator")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
