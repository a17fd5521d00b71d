//! What a served estimate costs beside DuckDB's lookup of one key, with 100,000 and with a million cells.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stepcast_benches::{keys, row, wide, workload};
use stepcast_estimator::{Ask, Contribution, Day, Estimator, PriceBook, StoreConfig};

use crate::cpu;

/// Estimates of one measurement.
const ESTIMATES: usize = 200_000;
/// How many cells there are.
const CELLS: [usize; 2] = [100_000, 1_000_000];

/// One estimate each of many keys that have records: time and processor time.
pub(crate) async fn against(lookup: Option<Duration>) -> Result<()> {
    println!(
        "\nAN ESTIMATE ON ONE HARDWARE       P50 US    P99 US    CPU US    DUCKDB'S LOOKUP / IT"
    );
    for cells in CELLS {
        let estimator = Estimator::open(StoreConfig::memory(), PriceBook::shipped()).await?;
        let keys = keys(cells);
        let rows = keys.iter().map(|key| row(*key, 0));
        let rows: Option<Vec<_>> = rows.collect();
        let contribution = Contribution {
            id: wide(1),
            rows: rows.context("rows")?,
        };
        estimator.record(vec![contribution]).await?;
        let asked: Vec<_> = keys
            .iter()
            .step_by((cells / 1_000).max(1))
            .map(|key| (workload(key), [key.hardware]))
            .collect();
        let mut took = Vec::with_capacity(ESTIMATES);
        let mut answered = 0;
        let used = cpu::used()?;
        for (workload, hardware) in asked.iter().cycle().take(ESTIMATES) {
            let began = Instant::now();
            let estimates = estimator.estimate(&Ask {
                workload,
                hardware,
                offers: &[],
                day: Day::today(),
            });
            took.push(began.elapsed());
            answered += usize::from(std::hint::black_box(estimates).is_ok());
        }
        let used = (cpu::used()? - used) / ESTIMATES as u32;
        // A few keys of a made table make no run, such as a batch that does not divide by the GPUs.
        ensure!(
            answered * 10 > ESTIMATES * 9,
            "{answered} of {ESTIMATES} estimates"
        );
        took.sort_unstable();
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let ratio = lookup.map_or_else(
            || "-".to_owned(),
            |lookup| format!("{:.0}", lookup.as_secs_f64() / used.as_secs_f64()),
        );
        println!(
            "{cells:>10} cells {:>23.1} {:>9.1} {:>9.1} {ratio:>12}",
            us(took[took.len() / 2]),
            us(took[took.len() * 99 / 100]),
            us(used),
        );
    }
    Ok(())
}
