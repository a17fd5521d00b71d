//! What the tables look like to Prometheus: names, and the numbers behind them, in its text format.

use stepcast_records::metrics::{Exposition, Metric};

use super::{Stats, TableStats};
use crate::table::Kind;

const ROWS: Metric = Metric::gauge(
    "stepcast_records_rows",
    "Rows that estimates and queries see.",
);
const VERSION: Metric = Metric::gauge(
    "stepcast_records_version",
    "The version of a table that was read last.",
);
const OBJECTS: Metric = Metric::gauge("stepcast_records_objects", "Objects that hold the rows.");
const BYTES: Metric = Metric::gauge(
    "stepcast_records_bytes",
    "Bytes of the objects that hold the rows.",
);
const REFUSED_ROWS: Metric = Metric::gauge(
    "stepcast_records_refused_rows",
    "Stored rows that cannot be read as rows and are left out.",
);
const REFUSED_OBJECTS: Metric = Metric::gauge(
    "stepcast_records_refused_objects",
    "Objects of a table that are missing or not readable.",
);
const FOREIGN_OBJECTS: Metric = Metric::gauge(
    "stepcast_records_foreign_objects",
    "Objects in a table's folder that are not of it.",
);
const CELLS_ASIDE: Metric = Metric::gauge(
    "stepcast_records_cells_aside",
    "Keys that are left out, since their times are implausible beside their neighbours'.",
);
const READ_ONLY: Metric = Metric::gauge(
    "stepcast_records_read_only",
    "1 when a newer version has changed a table, so that this one only reads it.",
);
const CELLS: Metric = Metric::gauge("stepcast_records_cells", "Keys that estimates rest on.");
const REACHABLE: Metric = Metric::gauge(
    "stepcast_records_reachable",
    "1 when the last look at the store of the tables succeeded.",
);
const TIDIED_TOTAL: Metric = Metric::counter(
    "stepcast_records_tidied_total",
    "Times the tables were tidied up, by result.",
);
const MOVED_OBJECTS_TOTAL: Metric = Metric::counter(
    "stepcast_records_moved_objects_total",
    "Objects whose rows moved into larger ones.",
);
const MOVED_ROWS_TOTAL: Metric = Metric::counter(
    "stepcast_records_moved_rows_total",
    "Rows that moved into larger objects.",
);
const DELETED_OBJECTS_TOTAL: Metric = Metric::counter(
    "stepcast_records_deleted_objects_total",
    "Objects that nobody needs any more and that were deleted.",
);
const WRITTEN_TOTAL: Metric = Metric::counter(
    "stepcast_records_written_total",
    "Objects of cells, and plain files, that were written.",
);
const TIDY_SECONDS: Metric = Metric::gauge(
    "stepcast_records_tidy_seconds",
    "How long tidying up the tables took the last time.",
);

/// What is told of each table.
type OfTable = fn(&TableStats) -> u64;
const TABLES: [(Metric, OfTable); 9] = [
    (ROWS, |table| table.rows),
    (VERSION, |table| table.version.unwrap_or_default()),
    (OBJECTS, |table| table.objects as u64),
    (BYTES, |table| table.bytes),
    (REFUSED_ROWS, |table| table.refused_rows),
    (REFUSED_OBJECTS, |table| table.refused_objects),
    (FOREIGN_OBJECTS, |table| table.foreign_objects),
    (CELLS_ASIDE, |table| table.cells_aside),
    (READ_ONLY, |table| table.read_only as u64),
];

impl Stats {
    /// Everything measured of the tables, in the text format that Prometheus reads.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let mut text = Exposition::default();
        for (metric, value) in TABLES {
            text.begin(&metric);
            for kind in Kind::ALL {
                let table = format!("table=\"{}\"", kind.name());
                text.value(&metric, &table, value(self.table(kind)));
            }
        }
        text.one(&CELLS, self.cells);
        text.one(&REACHABLE, u64::from(self.trouble.is_none()));
        let work = &self.work;
        text.begin(&TIDIED_TOTAL);
        text.value(&TIDIED_TOTAL, "result=\"done\"", work.done);
        text.value(&TIDIED_TOTAL, "result=\"failed\"", work.failed);
        text.one(&MOVED_OBJECTS_TOTAL, work.files_moved);
        text.one(&MOVED_ROWS_TOTAL, work.rows_moved);
        text.one(&DELETED_OBJECTS_TOTAL, work.deleted);
        text.begin(&WRITTEN_TOTAL);
        text.value(&WRITTEN_TOTAL, "what=\"cells\"", work.cells_written);
        text.value(&WRITTEN_TOTAL, "what=\"plain\"", work.published);
        text.one(&TIDY_SECONDS, work.last_ms as f64 / 1e3);
        text.into_text()
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
