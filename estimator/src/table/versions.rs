//! The newest versions of a table: when each came and what it brought.

use std::time::SystemTime;

use deltalake::kernel::{Action, Add};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use serde::Deserialize;

use super::follow::READS_AT_ONCE;
use super::ids::{self, Ids, LOG};
use super::log::Table;
use super::take_back::{Span, taken};
use crate::error::Error;

/// One version of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub number: u64,
    /// When it was written, by the store's clock. A copy of the tables has the times of the copying.
    pub at: SystemTime,
    /// How many rows it brought.
    pub rows: u64,
    /// What it did.
    pub how: How,
    /// Whether the rows that it brought were taken back since.
    pub is_taken_back: bool,
}

/// What a version did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Made the table.
    Created,
    /// Stored so many contributions of workers, or lines of an import.
    Stored {
        /// How many.
        contributions: usize,
        /// The source of an import; nothing for what workers contribute.
        source: Option<String>,
    },
    /// Moved rows into larger objects.
    Moved,
    /// Took back what had come with earlier versions.
    TakenBack {
        /// These.
        span: Span,
        /// How many rows.
        rows: u64,
    },
    /// Something that another program did.
    Other,
}

/// What an object's description in the log says of it.
#[derive(Deserialize)]
struct Statistics {
    #[serde(rename = "numRecords")]
    rows: u64,
}

/// How many rows an object has, as the log says.
pub(super) fn rows_of(add: &Add) -> u64 {
    let stats = add.stats.as_deref().unwrap_or_default();
    serde_json::from_str(stats).map_or(0, |stats: Statistics| stats.rows)
}

impl Table {
    /// The newest versions, at most so many, the newest first; each with the ids that it holds.
    pub(crate) async fn versions_with_ids(
        &self,
        newest: usize,
    ) -> Result<Vec<(Version, Ids)>, Error> {
        let mut written = self.written().await?;
        written.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        written.truncate(newest);
        let reads = written.into_iter().map(|(number, at)| async move {
            let actions = self.actions(number).await?;
            Ok::<_, Error>(actions.map(|actions| seen(number, at, &actions)))
        });
        let reads: Vec<_> = reads.collect();
        let read: Vec<_> = stream::iter(reads)
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        // What was deleted meanwhile is too old to be of use.
        let mut versions: Vec<(Version, Ids)> = read.into_iter().flatten().collect();
        let spans = versions
            .iter()
            .filter_map(|(version, _)| match version.how {
                How::TakenBack { span, .. } => Some(span),
                _ => None,
            });
        let spans: Vec<Span> = spans.collect();
        for (version, _) in &mut versions {
            version.is_taken_back = matches!(version.how, How::Stored { .. })
                && spans.iter().any(|span| span.holds(version.number));
        }
        Ok(versions)
    }

    /// The span of the versions that were written from one moment on, and until another if there is one, by the store's
    /// clock; nothing where there is none.
    pub(crate) async fn between(
        &self,
        since: SystemTime,
        until: Option<SystemTime>,
    ) -> Result<Option<Span>, Error> {
        let mut written = self.written().await?;
        written.sort_unstable_by_key(|(number, _)| *number);
        let first = written.iter().find(|(_, at)| *at >= since);
        let Some((first, _)) = first else {
            return Ok(None);
        };
        if *first > 0 && written.first().is_some_and(|(oldest, _)| oldest == first) {
            return Err(Error::Config(format!(
                "the log of the {} table does not go back as far: an entry is kept for 30 days",
                self.kind.name()
            )));
        }
        let last = written
            .iter()
            .rfind(|(_, at)| until.is_none_or(|until| *at <= until));
        let last = last.filter(|(last, _)| first <= last);
        Ok(last.map(|(last, _)| Span {
            after: first.saturating_sub(1),
            to: *last,
        }))
    }

    /// The versions whose log entries are there, in no order, each with when it was written.
    async fn written(&self) -> Result<Vec<(u64, SystemTime)>, Error> {
        let store = self.log.object_store(None);
        let log = store.list_with_delimiter(Some(&Path::from(LOG))).await;
        let objects = log.map_err(Error::unreachable)?.objects.into_iter();
        let written = objects.filter_map(|object| {
            let number = object.location.filename()?.strip_suffix(".json")?;
            Some((number.parse().ok()?, object.last_modified.into()))
        });
        Ok(written.collect())
    }
}

/// What a log entry says of its version.
fn seen(number: u64, at: SystemTime, actions: &[Action]) -> (Version, Ids) {
    let mut ids = Ids::new();
    ids::collect(actions, &mut ids);
    let adds = actions.iter().filter_map(|action| match action {
        Action::Add(add) => Some(add),
        _ => None,
    });
    let adds: Vec<&Add> = adds.collect();
    let removes = actions
        .iter()
        .any(|action| matches!(action, Action::Remove(_)));
    let changes = adds.iter().any(|add| add.data_change);
    let how = if let Some(taken) = taken(actions) {
        How::TakenBack {
            span: taken.span,
            rows: taken.rows,
        }
    } else if changes && !removes {
        How::Stored {
            contributions: ids.len(),
            source: None,
        }
    } else if removes && !changes && !adds.is_empty() {
        How::Moved
    } else if actions.iter().any(|a| matches!(a, Action::Metadata(_))) && number == 0 {
        How::Created
    } else {
        How::Other
    };
    let rows = match how {
        How::Stored { .. } => adds.iter().map(|add| rows_of(add)).sum(),
        _ => 0,
    };
    let version = Version {
        number,
        at,
        rows,
        how,
        is_taken_back: false,
    };
    (version, ids)
}
