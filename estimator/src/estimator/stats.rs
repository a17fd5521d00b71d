//! How much the history holds, for `records ls`, health checks and metrics.

/// What is known of both tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The table `training_steps`.
    pub training: TableStats,
    /// The table `validation_prompts`.
    pub validation: TableStats,
    /// Different keys in both tables.
    pub cells: usize,
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
}

impl Stats {
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
