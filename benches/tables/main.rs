//! What do the tables cost when they are large: a start, a query, an estimate? Beside DuckDB on the same files.
//!
//! `cargo bench -p stepcast-benches --bench tables -- FOLDER` makes some gigabytes in FOLDER and takes them away again.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

mod cpu;
mod duck;
mod made;
mod served;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use stepcast_estimator::{Estimator, PriceBook, StoreConfig, sql};

/// What to measure, and how large.
#[derive(Debug, Parser)]
struct Options {
    /// A folder for the tables; what is made in it is taken away again.
    folder: PathBuf,
    /// Rows of the table that is asked in SQL.
    #[arg(long, default_value_t = 10_000_000)]
    rows: usize,
    /// Rows of the table that a process starts from; 0 leaves that out.
    #[arg(long, default_value_t = 100_000_000)]
    start_rows: usize,
    /// Keys of that table.
    #[arg(long, default_value_t = 1_000_000)]
    start_cells: usize,
    /// A Python that has DuckDB.
    #[arg(long, env = "STEPCAST_TEST_PYTHON", default_value = "python3")]
    python: PathBuf,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The argument by which this program runs statements, as a server has them run.
const STATEMENTS: &str = "sql-process";

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(STATEMENTS) {
        return Ok(sql::serve()?);
    }
    tokio::runtime::Runtime::new()?.block_on(bench())
}

async fn bench() -> Result<()> {
    let options = Options::parse();
    std::fs::create_dir_all(&options.folder)?;
    let sql = options.folder.join("sql");
    let start = options.folder.join("start");
    let result = measure(&options, &sql, &start).await;
    for made in [sql, start] {
        if made.exists() {
            std::fs::remove_dir_all(made)?;
        }
    }
    result
}

async fn measure(options: &Options, sql: &std::path::Path, start: &std::path::Path) -> Result<()> {
    let keys = options.rows / 50;
    let estimator = made::table(sql, options.rows, keys).await?;
    estimator.run_statements_in(sql::Program::this([STATEMENTS])?);
    let lookup = duck::against(options, sql, &estimator).await?;
    drop(estimator);
    if options.start_rows > 0 {
        drop(made::table(start, options.start_rows, options.start_cells).await?);
        started(start).await?;
    }
    served::against(lookup).await
}

/// A process that starts: everything there is, from what lies there.
async fn started(folder: &std::path::Path) -> Result<()> {
    for round in 1..=3 {
        let (began, cpu) = (Instant::now(), cpu::used()?);
        let estimator = Estimator::open(StoreConfig::folder(folder), PriceBook::shipped()).await?;
        let stats = estimator.stats();
        println!(
            "start {round}: {} rows in {} cells, {} objects, {:.0} MB: {:.2} s, {:.2} s of processor",
            stats.rows(),
            stats.cells,
            stats.objects(),
            (stats.training.bytes + stats.validation.bytes) as f64 / 1e6,
            began.elapsed().as_secs_f64(),
            (cpu::used()? - cpu).as_secs_f64(),
        );
    }
    Ok(())
}
