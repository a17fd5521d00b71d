//! Records that nobody measured, the same on every machine: keys all over the grids, and rows that spread as real ones.

use std::collections::BTreeSet;

use stepcast_records::{
    Accumulation, BatchSize, HalfMegapixels, Hardware, Key, Precision, Quantization, Recipe, Row,
    TrainingKey, sample,
};

/// So many different keys, in their order. Up to some millions.
#[must_use]
pub fn keys(count: usize) -> Vec<TrainingKey> {
    let recipes: Vec<Recipe> = Recipe::all().collect();
    let hardware: Vec<Hardware> = Hardware::all()
        .filter(|hardware| hardware.gpu.is_gpu())
        .collect();
    let resolutions: Vec<HalfMegapixels> = HalfMegapixels::all().take(24).collect();
    let batches: Vec<BatchSize> = BatchSize::all().collect();
    let accumulations: Vec<Accumulation> = Accumulation::all().collect();
    let mut keys = BTreeSet::new();
    let mut number = 0;
    while keys.len() < count {
        let mut random = mixed(number);
        number += 1;
        let mut below = |most: usize| {
            let drawn = random % most as u64;
            random /= most as u64;
            drawn as usize
        };
        keys.insert(TrainingKey {
            recipe: recipes[below(recipes.len())],
            hardware: hardware[below(hardware.len())],
            resolution: resolutions[below(resolutions.len())],
            batch_size: batches[below(batches.len())],
            accumulation: accumulations[below(accumulations.len())],
            precision: Precision::ALL[below(Precision::ALL.len())],
            quantization: Quantization::ALL[below(Quantization::ALL.len())],
        });
    }
    keys.into_iter().collect()
}

/// One run's row of a key: the key's own time, some five per cent up or down, over as many steps as any run has.
#[must_use]
pub fn row(key: TrainingKey, run: u64) -> Option<Row> {
    let shape = u64::from(key.recipe.id()) << 32 | u64::from(key.hardware.id());
    let work = u64::from(key.resolution.get()) * u64::from(u32::from(key.batch_size));
    let base = 300 + mixed(shape) % 900 + work * 20;
    let drawn = mixed(mixed(shape ^ work << 20) ^ run);
    let ms = base * (950 + drawn % 101) / 1_000;
    let ms = u32::try_from(ms)
        .unwrap_or(1)
        .clamp(1, sample::AVERAGE_MS_MAX);
    let steps = 20 + (drawn >> 32) % 981;
    let steps = u32::try_from(steps).unwrap_or(20);
    Row::new(Key::Training(key), sample::three_digits(ms), steps).ok()
}

/// A number that looks random (SplitMix64, Steele et al. 2014).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
