//! What the tables look like to Prometheus: names, and the numbers behind them, in its text format.

use std::fmt::{Display, Write};

use super::{Stats, TableStats};
use crate::table::Kind;

/// Rows that estimates and queries see.
const ROWS: &str = "stepcast_records_rows";
/// The version that was read last.
const VERSION: &str = "stepcast_records_version";
/// Objects that hold the rows.
const OBJECTS: &str = "stepcast_records_objects";
/// Their size.
const BYTES: &str = "stepcast_records_bytes";
/// Stored rows that are none.
const REFUSED_ROWS: &str = "stepcast_records_refused_rows";
/// Objects that are missing or not readable.
const REFUSED_OBJECTS: &str = "stepcast_records_refused_objects";
/// Objects in a table's folder that are not of it.
const FOREIGN_OBJECTS: &str = "stepcast_records_foreign_objects";
/// Keys whose times are implausible beside their neighbours'.
const CELLS_ASIDE: &str = "stepcast_records_cells_aside";
/// 1 when a newer version has changed a table, so that this one only reads it.
const READ_ONLY: &str = "stepcast_records_read_only";
/// Keys that estimates rest on.
const CELLS: &str = "stepcast_records_cells";
/// Whether the last look at the store succeeded.
const REACHABLE: &str = "stepcast_records_reachable";
/// Times the tables were tidied up, by result.
const TIDIED_TOTAL: &str = "stepcast_records_tidied_total";
/// Objects whose rows moved into larger ones.
const MOVED_OBJECTS_TOTAL: &str = "stepcast_records_moved_objects_total";
/// Rows that moved.
const MOVED_ROWS_TOTAL: &str = "stepcast_records_moved_rows_total";
/// Objects that nobody needs any more and that were deleted.
const DELETED_OBJECTS_TOTAL: &str = "stepcast_records_deleted_objects_total";
/// Objects of cells, and plain files, that were written.
const WRITTEN_TOTAL: &str = "stepcast_records_written_total";
/// How long tidying up took the last time.
const TIDY_SECONDS: &str = "stepcast_records_tidy_seconds";

impl Stats {
    /// Everything measured of the tables, in the text format that Prometheus reads.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let mut text = Text::default();
        text.by_table(ROWS, self, |table| table.rows);
        text.by_table(VERSION, self, |table| table.version.unwrap_or_default());
        text.by_table(OBJECTS, self, |table| table.objects as u64);
        text.by_table(BYTES, self, |table| table.bytes);
        text.by_table(REFUSED_ROWS, self, |table| table.refused_rows);
        text.by_table(REFUSED_OBJECTS, self, |table| table.refused_objects);
        text.by_table(FOREIGN_OBJECTS, self, |table| table.foreign_objects);
        text.by_table(CELLS_ASIDE, self, |table| table.cells_aside);
        text.by_table(READ_ONLY, self, |table| u64::from(table.read_only));
        text.one(CELLS, "gauge", &[("", self.cells as u64)]);
        text.one(
            REACHABLE,
            "gauge",
            &[("", u64::from(self.trouble.is_none()))],
        );
        let work = &self.work;
        let results = [
            ("{result=\"done\"}", work.done),
            ("{result=\"failed\"}", work.failed),
        ];
        text.one(TIDIED_TOTAL, "counter", &results);
        text.one(MOVED_OBJECTS_TOTAL, "counter", &[("", work.files_moved)]);
        text.one(MOVED_ROWS_TOTAL, "counter", &[("", work.rows_moved)]);
        text.one(DELETED_OBJECTS_TOTAL, "counter", &[("", work.deleted)]);
        let written = [
            ("{what=\"cells\"}", work.cells_written),
            ("{what=\"plain\"}", work.published),
        ];
        text.one(WRITTEN_TOTAL, "counter", &written);
        text.one(TIDY_SECONDS, "gauge", &[("", work.last_ms as f64 / 1e3)]);
        text.0
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn by_table(&mut self, name: &str, stats: &Stats, value: impl Fn(&TableStats) -> u64) {
        let values = Kind::ALL.map(|kind| {
            let label = format!("{{table=\"{}\"}}", kind.name());
            (label, value(stats.table(kind)))
        });
        let values: Vec<(&str, u64)> = values.iter().map(|(l, v)| (l.as_str(), *v)).collect();
        self.one(name, "gauge", &values);
    }

    fn one<V: Display>(&mut self, name: &str, kind: &str, values: &[(&str, V)]) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        for (label, value) in values {
            let _ = writeln!(self.0, "{name}{label} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_told_once_and_in_the_format() {
        let mut stats = Stats {
            cells: 7,
            trouble: Some("the benchmark store does not answer".into()),
            ..Stats::default()
        };
        stats.validation.refused_objects = 2;
        stats.work.last_ms = 1_500;
        let text = stats.metrics_text();
        for line in [
            "# TYPE stepcast_records_rows gauge",
            "stepcast_records_refused_objects{table=\"training_steps\"} 0",
            "stepcast_records_refused_objects{table=\"validation_prompts\"} 2",
            "stepcast_records_cells 7",
            "stepcast_records_reachable 0",
            "stepcast_records_tidy_seconds 1.5",
            "stepcast_records_tidied_total{result=\"failed\"} 0",
        ] {
            assert_eq!(text.lines().filter(|l| *l == line).count(), 1, "{line}");
        }
        assert!(!text.contains("store does not"), "numbers only");
    }
}
