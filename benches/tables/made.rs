//! Making a table of many rows the way rows come: contributions, commits, and now and then a compaction.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use stepcast_benches::{keys, row, wide};
use stepcast_estimator::{Contribution, Estimator, PriceBook, StoreConfig};

/// Rows of one commit: few commits, so that making the table does not take the day.
const COMMIT_ROWS: usize = 1_000_000;

/// A table of so many rows over so many keys in a folder.
pub(crate) async fn table(folder: &Path, rows: usize, cells: usize) -> Result<Estimator> {
    let began = Instant::now();
    let config = StoreConfig::folder(folder);
    let estimator = Estimator::open(config, PriceBook::shipped()).await?;
    let keys = keys(cells);
    let runs = rows.div_ceil(cells) as u64;
    let at_once = (COMMIT_ROWS / cells).max(1);
    for commit in 0..runs.div_ceil(at_once as u64) {
        let first = commit * at_once as u64;
        let runs = first..(first + at_once as u64).min(runs);
        let contributions = runs.map(|run| {
            let rows = keys.iter().map(|key| row(*key, run));
            let rows: Option<Vec<_>> = rows.collect();
            Some(Contribution {
                id: wide(run),
                rows: rows?,
            })
        });
        let contributions: Option<Vec<_>> = contributions.collect();
        estimator.record(contributions.context("rows")?).await?;
    }
    let made = began.elapsed();
    let began = Instant::now();
    let compacted = estimator.compact().await?;
    let stats = estimator.stats();
    println!(
        "made {} rows of {cells} keys in {:.0} s; compaction moved {} of {} files, cells and plain file written, {:.0} s; {:.2} bytes a row",
        stats.rows(),
        made.as_secs_f64(),
        compacted.files,
        stats.objects() + compacted.files,
        began.elapsed().as_secs_f64(),
        stats.training.bytes as f64 / stats.rows() as f64,
    );
    Ok(estimator)
}
