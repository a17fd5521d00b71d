//! How much the history holds, for `records ls`, health checks and metrics.

use crate::table::Kind;

/// What is known of both tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The table `training_steps`.
    pub training: TableStats,
    /// The table `validation_prompts`.
    pub validation: TableStats,
    /// Different keys in both tables.
    pub cells: usize,
    /// What this process has tidied up since it began.
    pub work: Work,
    /// Why the last look at the store failed; `None` when it did not. What is known stays usable either way.
    pub trouble: Option<String>,
}

/// What is known of one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Rows in the index.
    pub rows: u64,
    /// The version that was read last; `None` while nobody has written to the table, or it was not read yet.
    pub version: Option<u64>,
    /// Parquet objects of that version.
    pub objects: usize,
    /// Their size together.
    pub bytes: u64,
    /// Stored rows that this version cannot read: another vocabulary, or numbers out of bounds.
    pub refused_rows: u64,
    /// Objects that are missing or not readable.
    pub refused_objects: u64,
    /// Objects in the table's folder that are not of it, as the last clean-up found them.
    pub foreign_objects: u64,
    /// Cells that are implausible beside their neighbours: no estimate rests on them.
    pub cells_aside: u64,
    /// Whether a newer version has added columns, so that this one reads the table and does not write to it.
    pub read_only: bool,
}

/// What a process has tidied up since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Times it was done.
    pub done: u64,
    /// Times it failed, to be tried again.
    pub failed: u64,
    /// Files whose rows moved into larger ones.
    pub files_moved: u64,
    /// Rows that moved.
    pub rows_moved: u64,
    /// Files and log entries that nobody needs any more and that were deleted.
    pub deleted: u64,
    /// Objects of cells that were written.
    pub cells_written: u64,
    /// Plain files of cells that were published.
    pub published: u64,
    /// How long the last time took, in milliseconds.
    pub last_ms: u64,
}

impl Stats {
    /// What is known of one table.
    #[must_use]
    pub const fn table(&self, kind: Kind) -> &TableStats {
        match kind {
            Kind::Training => &self.training,
            Kind::Validation => &self.validation,
        }
    }

    /// Rows of both tables.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.training.rows + self.validation.rows
    }

    /// Objects of both tables.
    #[must_use]
    pub const fn objects(&self) -> usize {
        self.training.objects + self.validation.objects
    }
}
