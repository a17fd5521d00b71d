//! What a table's log says of a span of its versions: which objects came with them, where their rows have gone since, and
//! what was taken back.

use std::collections::{BTreeMap, HashSet};

use deltalake::kernel::Action;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::{Span, taken};
use crate::error::Error;
use crate::table::follow::READS_AT_ONCE;
use crate::table::log::Table;
use crate::table::versions::rows_of;

/// So many log entries are read at most: a month of one a minute.
const ENTRIES_MAX: u64 = 50_000;

/// An object that came with a version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    pub(super) version: u64,
    rows: u64,
}

/// What the log says.
#[derive(Debug)]
pub(super) struct Trail {
    span: Span,
    /// It was read up to this version.
    read: u64,
    came: BTreeMap<Path, Came>,
    /// Objects that rows of the span have ever been in.
    kin: HashSet<Path>,
    taken: Vec<Span>,
}

impl Trail {
    /// How often something was taken back since the span began.
    pub(super) fn taken(&self) -> usize {
        self.taken.len()
    }

    /// The objects that came with the span and were not taken back yet.
    pub(super) fn left(&self) -> impl Iterator<Item = (&Path, Came)> {
        let left = self.came.iter().map(|(path, came)| (path, *came));
        left.filter(|(_, came)| !self.is_taken(came.version))
    }

    /// How many rows of the span were taken back already.
    pub(super) fn taken_before(&self) -> u64 {
        let came = self.came.values();
        let taken = came.filter(|came| self.is_taken(came.version));
        taken.map(|came| came.rows).sum()
    }

    /// Whether rows of the span may lie there.
    pub(super) fn is_kin(&self, path: &Path) -> bool {
        self.kin.contains(path)
    }

    fn is_taken(&self, version: u64) -> bool {
        self.taken.iter().any(|span| span.holds(version))
    }

    fn take_in(&mut self, version: u64, actions: &[Action]) {
        let changes_rows = |action: &Action| match action {
            Action::Remove(remove) => remove.data_change,
            _ => false,
        };
        let rewrites = actions.iter().any(changes_rows);
        let mut moves = false;
        for action in actions {
            if let Action::Remove(remove) = action {
                let path = Path::from_url_path(&remove.path);
                moves |= path.is_ok_and(|path| self.kin.contains(&path));
            }
        }
        self.taken.extend(taken(actions).map(|taken| taken.span));
        for action in actions {
            let Action::Add(add) = action else { continue };
            let Ok(path) = Path::from_url_path(&add.path) else {
                continue;
            };
            let comes = self.span.holds(version) && add.data_change && !rewrites;
            if comes {
                let rows = rows_of(add);
                self.came.insert(path.clone(), Came { version, rows });
            }
            if comes || moves {
                self.kin.insert(path);
            }
        }
    }
}

impl Table {
    /// What the log says of a span, up to a version.
    pub(super) async fn trail(&self, span: Span, newest: u64) -> Result<Trail, Error> {
        let table = self.kind.name();
        if span.to > newest || span.after > span.to {
            return Err(Error::Config(format!(
                "the {table} table has versions up to {newest}, and {} to {} are none of them in this order",
                span.after, span.to
            )));
        }
        if newest - span.after > ENTRIES_MAX {
            return Err(Error::Config(format!(
                "version {} of the {table} table is too long ago: {ENTRIES_MAX} later ones are looked at",
                span.after
            )));
        }
        let mut trail = Trail {
            span,
            read: span.after,
            came: BTreeMap::new(),
            kin: HashSet::new(),
            taken: Vec::new(),
        };
        self.extend(&mut trail, newest).await?;
        Ok(trail)
    }

    /// Reads what the log says besides, up to a version.
    pub(super) async fn extend(&self, trail: &mut Trail, newest: u64) -> Result<(), Error> {
        let entries = (trail.read + 1..=newest).map(|version| self.actions(version));
        let mut entries = stream::iter(entries).buffered(READS_AT_ONCE);
        while let Some(actions) = entries.try_next().await? {
            let version = trail.read + 1;
            let Some(actions) = actions else {
                return Err(Error::Config(format!(
                    "what came with version {version} of the {} table can no longer be told from the rest: a log entry is kept for 30 days",
                    self.kind.name()
                )));
            };
            trail.take_in(version, &actions);
            trail.read = version;
        }
        Ok(())
    }
}
