//! `docs/sql.md`, written from what the code says of the tables.

use std::fmt::Write;
use std::path::Path;

use super::{
    ANSWER_BYTES_MAX, AT_ONCE, MEMORY_MAX, ROWS_MAX, STATEMENT_BYTES_MAX, TIME_MAX, tables,
};

/// What a person needs to know before the tables.
const OPENING: &str = "\
# SQL over the records

`stepcast sql \"SELECT ...\"` answers from two tables; `stepcast sql` alone opens a prompt, where `\\d` lists them. One
statement at a time, read only. The dialect is DataFusion's, close to PostgreSQL's.

There is nobody in these tables: no user, organisation, job or time. A row is one contribution to one key. Rows whose
hardware is `replay` were played from recordings and say nothing of real hardware.

This page is written by a test: `UPDATE=1 cargo test -p stepcast-estimator sql::page`.
";

fn page() -> String {
    let mut page = OPENING.to_owned();
    for table in tables() {
        let columns = table
            .columns
            .iter()
            .map(|c| format!("| `{}` | {} | {} |\n", c.name, c.sql_type, c.description));
        let columns: String = columns.collect();
        let (name, description) = (table.name, table.description);
        let _ = write!(
            page,
            "\n## {name}\n\n{description}\n\n| column | type | what it holds |\n|---|---|---|\n{columns}"
        );
    }
    let _ = write!(
        page,
        "\n## Limits\n\n| what | most |\n|---|---|\n| a statement | {} KiB |\n| its time | {} s |\n| rows of an answer | \
         {ROWS_MAX} |\n| bytes of an answer | {} MiB |\n| memory of its sorts, groups and joins | {} MiB |\n| statements \
         at once | {AT_ONCE} |\n\nAn answer that was cut says so. A statement that runs into a limit ends with one \
         sentence, and nothing else is affected.\n",
        STATEMENT_BYTES_MAX >> 10,
        TIME_MAX.as_secs(),
        ANSWER_BYTES_MAX >> 20,
        MEMORY_MAX >> 20,
    );
    page
}

#[test]
fn the_page_says_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sql.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, page()).expect("docs/sql.md can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written,
        page(),
        "run UPDATE=1 cargo test -p stepcast-estimator sql::page and look at the difference"
    );
}
