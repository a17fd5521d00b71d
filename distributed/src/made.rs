//! A table of rows that nobody measured, made the way rows come: contributions and commits. The same every time.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use stepcast_estimator::{Contribution, Estimator, PriceBook, StoreConfig};
use stepcast_records::{
    Accumulation, BatchSize, HalfMegapixels, Hardware, Key, Precision, Quantization, Recipe, Row,
    TrainingKey,
};

/// Keys of the table. What they are grouped by has fewer values than an answer of a server may have rows.
const KEYS: usize = 10_000;
/// So many recipes, from all over their list.
const RECIPES: usize = 150;
/// Hardware of the table, as columns name it.
const HARDWARE: [&str; 4] = ["h100x1", "l40sx1", "rtx4090x1", "h100x8"];

/// Makes so many rows in so many commits; the first half of them is one file in the end.
pub(crate) async fn table(location: &str, rows: usize, commits: usize) -> Result<()> {
    ensure!(commits > 0 && rows >= commits, "at least a row a commit");
    let estimator = Estimator::open(StoreConfig::at(location), PriceBook::shipped()).await?;
    // Opening does not wait for large tables, nor for a store that is away.
    estimator.refresh().await?;
    ensure!(
        estimator.stats().rows() == 0,
        "there are records in {location}, and made ones do not belong to them"
    );
    let keys = keys()?;
    let (mut made, mut moved) = (0, 0);
    let mut run = 0;
    for commit in 0..commits {
        let until = rows * (commit + 1) / commits;
        let mut contributions = Vec::new();
        while made < until {
            let count = KEYS.min(until - made);
            let rows = keys.iter().take(count).enumerate();
            let rows = rows.map(|(number, key)| row(*key, number as u64, run));
            contributions.push(Contribution {
                id: u128::from(run + 1).to_be_bytes(),
                rows: rows.collect::<Result<_>>()?,
            });
            made += count;
            run += 1;
        }
        estimator.record(contributions).await?;
        if commit + 1 == commits / 2 {
            // What was moved lies there for a week: whoever read the folder instead of the log would count it twice.
            moved = estimator.compact().await?.files;
        }
    }
    let stats = estimator.stats();
    ensure!(
        stats.rows() == rows as u64,
        "{} rows of {rows} were stored",
        stats.rows()
    );
    println!(
        "{}",
        json!({
            "rows": stats.rows(),
            "files": stats.training.objects,
            "moved": moved,
            "version": stats.training.version,
        })
    );
    Ok(())
}

/// Keys over recipes, hardware, two resolutions, both precisions and a few batches.
fn keys() -> Result<Vec<TrainingKey>> {
    let known: Vec<Hardware> = Hardware::all().collect();
    let hardware = HARDWARE.map(|name| {
        let named = |hardware: &&Hardware| hardware_name(**hardware) == name;
        known.iter().find(named).copied()
    });
    let accumulation = Accumulation::all().next().context("an accumulation")?;
    let recipes: Vec<Recipe> = Recipe::all().collect();
    let recipes = recipes
        .iter()
        .step_by(recipes.len().div_ceil(RECIPES).max(1));
    let mut keys = Vec::with_capacity(KEYS);
    for batch_size in BatchSize::all() {
        for recipe in recipes.clone() {
            for hardware in hardware {
                for resolution in HalfMegapixels::all().take(2) {
                    for precision in Precision::ALL {
                        keys.push(TrainingKey {
                            recipe: *recipe,
                            hardware: hardware.context("hardware that was renamed")?,
                            resolution,
                            batch_size,
                            accumulation,
                            precision,
                            quantization: Quantization::ALL[0],
                        });
                        if keys.len() == KEYS {
                            return Ok(keys);
                        }
                    }
                }
            }
        }
    }
    anyhow::bail!("there are only {} keys", keys.len())
}

fn hardware_name(hardware: Hardware) -> String {
    format!("{}x{}", hardware.gpu.slug(), hardware.count)
}

/// A run of a key: times and steps all over three digits, so that medians and percentiles have something to tell apart.
fn row(key: TrainingKey, number: u64, run: u64) -> Result<Row> {
    let drawn = mixed(number << 32 | run);
    let ms = u32::try_from(100 + drawn % 900)?;
    let steps = u32::try_from(20 + (drawn >> 32) % 981)?;
    Ok(Row::new(Key::Training(key), ms, steps)?)
}

/// A number that looks random (SplitMix64, Steele et al. 2014).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
