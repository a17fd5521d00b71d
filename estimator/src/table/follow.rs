//! Following a table: what has been added since the last look, or everything on the first one.

use deltalake::DeltaTable;
use deltalake::kernel::Action;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stepcast_records::Row;

use super::log::{ID_RETENTION_DAYS, State, Table};
use super::{ids, parquet};
use crate::error::Error;
use crate::price::Day;

/// So many files are read at once on the first look: enough to hide a store's latency, few enough to be polite.
const READS_AT_ONCE: usize = 16;
const DAY_MS: i64 = 86_400_000;

/// What a look at a table found.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Whether `rows` is everything there is, instead of what was added.
    pub(crate) everything: bool,
    /// The rows.
    pub(crate) rows: Vec<Row>,
    /// Stored rows that are none: another vocabulary, or numbers out of bounds.
    pub(crate) refused_rows: usize,
    /// Files that are missing or no Parquet of ours.
    pub(crate) refused_files: usize,
}

impl News {
    /// Whether there is nothing to take in.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.everything
            && self.rows.is_empty()
            && self.refused_rows == 0
            && self.refused_files == 0
    }
}

/// What the log entries since the last look ask for.
enum Since {
    Files(Vec<Path>),
    /// Files went away or the log was cut: only a full read is right.
    Reload,
}

impl Table {
    /// Looks for what is new and hands it on before anybody else can look. While there is no table yet there is
    /// nothing.
    pub(crate) async fn follow_with(&self, learn: impl FnOnce(News)) -> Result<(), Error> {
        let mut state = self.lock().await;
        learn(self.follow_in(&mut state).await?);
        Ok(())
    }

    #[cfg(test)]
    pub(super) async fn follow(&self) -> Result<News, Error> {
        let mut found = None;
        self.follow_with(|news| found = Some(news)).await?;
        Ok(found.unwrap_or_default())
    }

    /// Nothing is taken over before all of it was read, so a look that fails half way, or is given up, is
    /// simply repeated.
    pub(super) async fn follow_in(&self, state: &mut State) -> Result<News, Error> {
        let Some(mut delta) = state.delta.clone() else {
            return self.open(state).await;
        };
        let before = delta.version().unwrap_or_default();
        delta.update_state().await.map_err(Error::unreachable)?;
        let now = delta.version().unwrap_or_default();
        let mut ids = ids::Ids::new();
        match self.since(before, now, &mut ids).await? {
            Since::Files(files) => {
                let news = self.read(files, News::default()).await?;
                self.publish(&delta)?;
                state.ids.extend(ids);
                state.delta = Some(delta);
                Ok(news)
            }
            Since::Reload => {
                self.check(&delta)?;
                self.open(state).await
            }
        }
    }

    /// The first look, and the one after something unusual: everything is read.
    async fn open(&self, state: &mut State) -> Result<News, Error> {
        let exists = self.log.is_delta_table_location().await;
        if !exists.map_err(Error::unreachable)? {
            self.publish_nothing();
            return Ok(News {
                everything: true,
                ..News::default()
            });
        }
        let mut delta = DeltaTable::new(std::sync::Arc::clone(&self.log));
        delta.load().await.map_err(Error::unreachable)?;
        self.check(&delta)?;
        let version = delta.version().unwrap_or_default();
        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let log_data = snapshot.log_data();
        let files = log_data.iter().map(|file| file.object_store_path());
        let news = News {
            everything: true,
            ..News::default()
        };
        let news = self.read(files.collect(), news).await?;
        state.ids = self.load_ids(version).await?;
        forget_old(&mut state.ids);
        self.publish(&delta)?;
        state.delta = Some(delta);
        Ok(news)
    }

    /// Reads the log entries after `before` up to `now`, and takes their ids along.
    async fn since(&self, before: u64, now: u64, ids: &mut ids::Ids) -> Result<Since, Error> {
        let mut files = Vec::new();
        for version in before + 1..=now {
            let Some(actions) = self.actions(version).await? else {
                return Ok(Since::Reload);
            };
            ids::collect(&actions, ids);
            for action in actions {
                match action {
                    Action::Add(add) if add.data_change => {
                        let path = Path::from_url_path(&add.path);
                        files.push(path.map_err(|_| self.foreign("it names a file that is none"))?);
                    }
                    // Moving rows between files changes nothing that is known.
                    Action::Add(_) | Action::Txn(_) | Action::CommitInfo(_) => {}
                    Action::Remove(remove) if !remove.data_change => {}
                    _ => return Ok(Since::Reload),
                }
            }
        }
        Ok(Since::Files(files))
    }

    async fn read(&self, files: Vec<Path>, mut news: News) -> Result<News, Error> {
        let store = self.log.object_store(None);
        let reads = files
            .into_iter()
            .map(|path| read_file(store.as_ref(), path));
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some(bytes) = reads.try_next().await? {
            let read = bytes.and_then(|bytes| parquet::read(self.kind, bytes).ok());
            match read {
                Some((rows, refused)) => {
                    news.rows.extend(rows);
                    news.refused_rows += refused;
                }
                None => news.refused_files += 1,
            }
        }
        Ok(news)
    }
}

/// Drops the ids that the log may forget, so that memory stays bounded too.
pub(super) fn forget_old(ids: &mut ids::Ids) {
    let oldest = Day::today().start_ms() - (ID_RETENTION_DAYS + 1) * DAY_MS;
    ids.retain(|_, day| *day >= oldest);
}

/// The bytes of a file; `None` when it is not there.
pub(super) async fn read_file(
    store: &dyn ObjectStore,
    path: Path,
) -> Result<Option<bytes::Bytes>, Error> {
    let read = async { store.get(&path).await?.bytes().await };
    match read.await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(Error::unreachable(error)),
    }
}
