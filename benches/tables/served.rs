//! What a served estimate costs beside DuckDB's lookup of one key, with 100,000 and with a million cells.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stepcast_benches::{keys, row, wide, workload};
use stepcast_estimator::{Ask, Contribution, Day, Estimator, PriceBook, StoreConfig};
use stepcast_records::Hardware;
use stepcast_records::simpletuner::Workload;

use crate::cpu;

/// Estimates of one measurement.
const ESTIMATES: usize = 200_000;
/// Of so many keys.
const KEYS: usize = 1_000;
/// How many cells there are.
const CELLS: [usize; 2] = [100_000, 1_000_000];

/// How long an estimate takes, and whether there is one.
fn ask(estimator: &Estimator, workload: &Workload, hardware: &[Hardware]) -> (Duration, bool) {
    let began = Instant::now();
    let estimates = estimator.estimate(&Ask {
        workload,
        hardware,
        offers: &[],
        day: Day::today(),
    });
    let took = began.elapsed();
    (took, std::hint::black_box(estimates).is_ok())
}

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
        // Some keys of a made table make no run, such as a batch that does not divide by the GPUs.
        let asked = keys.iter().step_by((cells / KEYS / 2).max(1));
        let asked: Vec<_> = asked
            .map(|key| (workload(key), [key.hardware]))
            .filter(|(workload, hardware)| ask(&estimator, workload, hardware).1)
            .take(KEYS)
            .collect();
        ensure!(asked.len() > KEYS / 2, "{} keys make a run", asked.len());
        let mut took = Vec::with_capacity(ESTIMATES);
        let used = cpu::used()?;
        for (number, (workload, hardware)) in asked.iter().cycle().take(ESTIMATES).enumerate() {
            // Answers are remembered, so every question is another one: the steps are as many.
            let mut workload = workload.clone();
            for dataset in &mut workload.datasets {
                dataset.samples = dataset.samples.map(|samples| samples + number as u64 + 1);
            }
            let (time, answered) = ask(&estimator, &workload, hardware);
            ensure!(answered, "no estimate of {workload:?}");
            took.push(time);
        }
        let used = (cpu::used()? - used) / ESTIMATES as u32;
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
