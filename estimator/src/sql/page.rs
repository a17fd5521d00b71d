//! `docs/sql.md`, written from what the code says of the tables.

use std::fmt::Write;
use std::path::Path;

use super::functions;
use super::{
    ANSWER_BYTES_MAX, AT_ONCE, MEMORY_MAX, PROCESS_BYTES_MAX, ROWS_MAX, STATEMENT_BYTES_MAX,
    TIME_MAX, tables,
};

/// What a person needs to know before the tables.
const OPENING: &str = "\
# SQL over the records

`stepcast sql \"SELECT ...\"` answers from two tables; `stepcast sql` alone opens a prompt, where `\\d` lists them. One
statement at a time, read only. The dialect is DataFusion's, close to PostgreSQL's. `validation` is another name for
`validation_prompts`.

There is nobody in these tables: no user, organisation, job or time. A row is one contribution to one key. Rows whose
hardware is `replayx1` or the like were played from recordings and say nothing of real hardware.

This page is written by a test: `UPDATE=1 cargo test -p stepcast-estimator sql::page`.
";

/// Each function that reads rows as a histogram, as it is called, and what it answers.
const HISTOGRAMS: [(&str, &str); 2] = [
    (
        "histogram_quantile(avg_step_ms, steps_observed, 0.9)",
        "the time that this share of all steps does not exceed",
    ),
    (
        "histogram_share(avg_step_ms, steps_observed, 5000)",
        "the share of all steps that took no longer than so many milliseconds",
    ),
];

/// What becomes of values in JSON.
const AS_JSON: &str = "
## As JSON

In `stepcast sql --json` and over HTTP an integer is a number with all of its digits, up to 64 bits; a reader that takes
every number for a double rounds those beyond 2^53. A `DECIMAL` is a text with all of its digits, such as `\"0.10\"`. What
is no number is the text `NaN`, `inf` or `-inf`. What is missing is `null`, and over HTTP not in its row.
";

/// How other programs ask.
const OTHERS: &str = "
## From other programs

A server speaks Arrow Flight SQL on its client port, so that programs with a driver for it read the tables as they read
any database. From Python, with `adbc-driver-flightsql` and `pyarrow`:

```python
import adbc_driver_flightsql.dbapi as flight

options = {\"adbc.flight.sql.authorization_header\": \"Bearer TOKEN\"}
with flight.connect(\"grpc+tls://HOST:7070\", db_kwargs=options) as connection, connection.cursor() as cursor:
    cursor.execute(\"SELECT hardware, count(*) FROM training_steps GROUP BY hardware\")
    print(cursor.fetch_arrow_table())
```

A certificate that the server has made itself is given as `adbc.flight.sql.client_option.tls_root_certs`; on loopback
it is `grpc://127.0.0.1:7070`, and without tokens no header. A driver that knows only a name and a password takes the
token as the password and any name. Arrow's JDBC driver connects to `jdbc:arrow-flight-sql://HOST:7070/?token=TOKEN`.

Statements have no parameters. The tables are in no catalogue and no schema. What holds for a statement holds here too,
but an answer that would be cut is refused, since no driver shows that it was. Whoever would rather read the whole
tables with a program of their own reads them from the store, [without us](operating.md#the-tables), and what is too
heavy for one process runs on [several machines](engines.md), by DataFusion or Spark.
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
    page += &callable();
    page += AS_JSON;
    page += OTHERS;
    let _ = write!(
        page,
        "\n## Limits\n\n| what | most |\n|---|---|\n| a statement | {} KiB |\n| its time | {} s |\n| rows of an answer | \
         {ROWS_MAX} |\n| bytes of an answer | {} MiB |\n| memory of its sorts, groups, joins and windows | {} MiB |\n| all \
         memory of its process | {} MiB |\n| statements at once | {AT_ONCE} |\n\nAn answer that was cut says so. A statement that runs into a limit ends with one \
         sentence, and nothing else is affected: a server has each run in a process of its own, which is ended when its \
         time is over, whatever it does, and has no access to anything but the objects of the two tables.\n",
        STATEMENT_BYTES_MAX >> 10,
        TIME_MAX.as_secs(),
        ANSWER_BYTES_MAX >> 20,
        MEMORY_MAX >> 20,
        PROCESS_BYTES_MAX >> 20,
    );
    page
}

/// What may be called.
fn callable() -> String {
    let calls = HISTOGRAMS.map(|(call, answer)| format!("| `{call}` | {answer} |\n"));
    let list = |names: Vec<&str>| {
        let mut names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        names.sort();
        names.join(", ")
    };
    let scalar = list(functions::scalar().iter().map(|f| f.name()).collect());
    let aggregate = functions::aggregate().iter().map(|f| f.name());
    let aggregate = list(
        aggregate
            .filter(|name| !name.starts_with("histogram_"))
            .collect(),
    );
    let window = list(functions::window().iter().map(|f| f.name()).collect());
    format!(
        "\n## Functions\n\n\
         The rows of a group are a histogram: so many steps took so long, in three significant digits. It is put together \
         and read by\n\n| function | what it answers |\n|---|---|\n{}\n\
         and the same with `avg_prompt_ms` and `prompts_observed`. Both are exact, and keep each different time once, \
         so that they read any number of rows; `median` and `percentile_cont` keep every row of a group, and weigh \
         each run the same; between two values `percentile_cont` is off by some millionths of their gap. The last argument is a number and no column.\n\n\
         Besides there are, as [DataFusion](https://datafusion.apache.org/user-guide/sql/) has them,\n\n\
         - of one row: {scalar};\n- of many rows: {aggregate};\n- over windows: {window}.\n\n\
         Whatever else DataFusion knows is left out: it makes much from little, or reads something other than the \
         tables. So are lists, maps and structures, dates and intervals; and what would be passed over without a word \
         (`TABLESAMPLE`, `WITH ROLLUP`) is refused, and so are `SIMILAR TO`, `^`, `INTERSECT ALL`, `EXCEPT ALL` and `LATERAL`, which the engine takes for something else or cannot finish. `IN (SELECT ...)` and `EXISTS` stand in WHERE and HAVING; a query there that uses the row it is asked for has no aggregate without GROUP BY, no window and no LIMIT. `+`, `-` and `*` of integers are done in 64 bits with a sign, although the columns have 32 and none; beyond them they wrap, and so does `sum`, as the engine has it: write `CAST(... AS DOUBLE)` where a product of three times may be larger.\n",
        calls.concat()
    )
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
