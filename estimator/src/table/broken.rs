//! Finding objects of a table that were lost, cut or overwritten after their rows had become known.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use super::follow::{News, READS_AT_ONCE, named};
use super::log::{State, Table};
use crate::error::Error;

/// What a Parquet file ends with.
const MAGIC: &[u8] = b"PAR1";
/// A look that found nothing is not repeated for so long, unless the table has changed: it asks for every object.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Table {
    /// Looks whether the objects of the version that was followed to are there and end as they should, and leaves out of
    /// what queries see those that do not. Asked after a statement could not read one of them; the next tidying then reads
    /// all of each. Where one is damaged within, each statement that meets it asks again: a look that has just found nothing
    /// is not repeated.
    pub(crate) async fn look_for_broken(&self) -> Result<(), Error> {
        let (files, version) = {
            let mut state = self.lock().await;
            state.suspected += 1;
            let Some(delta) = &state.delta else {
                return Ok(());
            };
            let version = delta.version().unwrap_or_default();
            let is_done = |(at, when): (u64, Instant)| at == version && when.elapsed() < LOOK_EVERY;
            if state.fruitless.is_some_and(is_done) {
                return Ok(());
            }
            let files = named(delta)?.into_iter();
            let files = files.filter(|(path, _)| !state.is_left_out(path));
            (files.collect(), version)
        };
        let broken = self.broken(files).await?;
        let mut state = self.lock().await;
        state.fruitless = broken.is_empty().then(|| (version, Instant::now()));
        self.leave_out(&mut state, broken)
    }

    /// Reads every object that was not read since a statement could not read one, and leaves out those that cannot be read.
    pub(super) async fn read_suspects(&self) -> Result<(), Error> {
        let (files, suspected) = {
            let state = self.lock().await;
            let Some(delta) = &state.delta else {
                return Ok(());
            };
            if state.suspected == state.cleared {
                return Ok(());
            }
            let files = named(delta)?.into_keys();
            let files = files.filter(|path| !state.is_left_out(path));
            (files.collect(), state.suspected)
        };
        // Their rows are known.
        let broken = self.read(files, &mut News::default(), true).await?;
        let mut state = self.lock().await;
        // A statement may have met another one meanwhile.
        state.cleared = suspected;
        state.fruitless = None;
        self.leave_out(&mut state, broken)
    }

    /// Leaves out files whose rows are known and that could not be read, as far as they still stand.
    pub(super) fn leave_out(
        &self,
        state: &mut State,
        broken: impl IntoIterator<Item = Path>,
    ) -> Result<(), Error> {
        let Some(delta) = state.delta.clone() else {
            return Ok(());
        };
        let named = named(&delta)?;
        for path in broken {
            // One that is to be read anew by now is none whose rows are known.
            if named.contains_key(&path) && !state.unread.contains(&path) {
                state.away.insert(path);
            }
        }
        self.publish(&delta, state)
    }

    /// Those of these files, each with how many bytes it should have, that are missing, have another length or do not end
    /// as a file of ours does. What is wrong in the middle of one shows only when it is read.
    pub(super) async fn broken(&self, files: Vec<(Path, u64)>) -> Result<BTreeSet<Path>, Error> {
        let store = self.log.object_store(None);
        let looks = files.into_iter().map(|(path, size)| {
            let store = &store;
            async move {
                let is_whole = is_whole(store.as_ref(), &path, size).await;
                is_whole.map(|is_whole| (path, is_whole))
            }
        });
        let mut looks = stream::iter(looks).buffer_unordered(READS_AT_ONCE);
        let mut broken = BTreeSet::new();
        while let Some((path, is_whole)) = looks.try_next().await? {
            if !is_whole {
                let table = self.kind.name();
                tracing::warn!(table, object = %path, "an object is missing or damaged and is left out");
                broken.insert(path);
            }
        }
        Ok(broken)
    }
}

async fn is_whole(store: &dyn ObjectStore, path: &Path, size: u64) -> Result<bool, Error> {
    let end = size.saturating_sub(MAGIC.len() as u64)..size;
    if (end.end - end.start) < MAGIC.len() as u64 {
        return Ok(false);
    }
    let options = GetOptions::new().with_range(Some(GetRange::Bounded(end)));
    let read = async {
        let found = store.get_opts(path, options).await?;
        let is_as_long = found.meta.size == size;
        Ok::<_, object_store::Error>(is_as_long && found.bytes().await? == MAGIC)
    };
    match read.await {
        Ok(is_whole) => Ok(is_whole),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        // A shorter one has no such end, which stores say in words of their own.
        Err(error) => match store.head(path).await {
            Ok(found) if found.size != size => Ok(false),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            _ => Err(Error::unreachable(error)),
        },
    }
}
