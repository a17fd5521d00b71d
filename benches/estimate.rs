//! How long does an estimate take? Builds an index of 100,000 cells and prints p50 and p99 of one run on 20
//! hardwares: `cargo bench -p stepcast-benches --bench estimate`.
#![expect(clippy::print_stdout, reason = "an example prints its table")]

use std::error::Error;
use std::time::Instant;

use stepcast_estimator::{Ask, Day, Evidence, Index, PriceBook};
use stepcast_records::simpletuner::{Dataset, Length, Validation, Workload};
use stepcast_records::{
    Accumulation, BatchSize, FrameClass, HalfMegapixels, Hardware, Key, Method, Precision,
    Quantization, Recipe, Row, TrainingKey,
};

/// The index holds so many cells.
const CELLS: usize = 100_000;
/// An estimate is asked for so many hardwares.
const HARDWARE: usize = 20;
/// Each kind of question is asked so often.
const ROUNDS: usize = 2_000;

fn main() -> Result<(), Box<dyn Error>> {
    let hardware: Vec<Hardware> = Hardware::all()
        .filter(|hardware| hardware.gpu.is_gpu() && hardware.count == 1)
        .take(HARDWARE)
        .collect();
    let index = index(&hardware)?;
    let prices = PriceBook::shipped();
    let evidence = Evidence::new(&index, &prices);
    println!("{} cells, {} hardwares\n", index.cells(), hardware.len());
    println!(
        "{:<34}{:>10}{:>10}",
        "ONE RUN, EVERY HARDWARE", "P50", "P99"
    );
    for (what, recipe, batch_size) in [
        ("records of the key", "sdxl.base-1.0/lora", 4),
        ("records of another batch", "sdxl.base-1.0/lora", 5),
        (
            "records of relatives, a wide family",
            "wan.t2v-480p-14b-2.1/lycoris+ckpt",
            4,
        ),
        ("ratings alone", "heartmula.3b/full", 4),
    ] {
        let workload = workload(recipe, batch_size)?;
        let ask = Ask {
            workload: &workload,
            hardware: &hardware,
            offers: &[],
            day: Day::today(),
        };
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let estimates = evidence.estimate(&ask)?;
            times.push(start.elapsed());
            assert_eq!(estimates.len(), hardware.len());
        }
        times.sort();
        let (p50, p99) = (times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
        println!(
            "{what:<34}{:>7} µs{:>7} µs",
            p50.as_micros(),
            p99.as_micros()
        );
    }
    Ok(())
}

/// Cells of recipes in turn, on every hardware, over resolutions and batches; the last families stay empty.
fn index(hardware: &[Hardware]) -> Result<Index, Box<dyn Error>> {
    let grid = "the grid holds it";
    let recipes = Recipe::all().filter(|recipe| recipe.method() == Method::Lora);
    let recipes: Vec<Recipe> = recipes
        .filter(|r| r.family().name() != "heartmula")
        .collect();
    let mut rows = Vec::with_capacity(CELLS);
    'all: for round in 0.. {
        let resolution = HalfMegapixels::new(1 + round / 4).ok_or(grid)?;
        let batch_size = BatchSize::new(1u32 << (round % 4)).ok_or(grid)?;
        for &recipe in &recipes {
            for &hardware in hardware {
                let key = TrainingKey {
                    recipe,
                    hardware,
                    resolution,
                    batch_size,
                    accumulation: Accumulation::new(1).ok_or(grid)?,
                    precision: Precision::Bf16,
                    quantization: Quantization::None,
                };
                rows.push(Row::new(Key::Training(key), 900, 100)?);
                if rows.len() == CELLS {
                    break 'all;
                }
            }
        }
    }
    let mut index = Index::default();
    index.add(&rows);
    Ok(index)
}

fn workload(recipe: &str, batch_size: u32) -> Result<Workload, Box<dyn Error>> {
    let megapixel = HalfMegapixels::new(2).ok_or("a bucket")?;
    let recipe = Recipe::parse(recipe).ok_or("a recipe")?;
    Ok(Workload {
        recipe,
        precision: Precision::Bf16,
        quantization: Quantization::None,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: HalfMegapixels::new(1).ok_or("a bucket")?,
            frames: FrameClass::Single,
            batch_size,
            samples: Some(1_000),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(1_000),
        checkpoint_every: Some(500),
        validation: Some(Validation {
            every_steps: Some(100),
            every_epochs: None,
            after_step: 0,
            after_epoch: 0,
            at_start: false,
            baseline: true,
            generations: 4,
            resolutions: vec![megapixel],
            frames: FrameClass::Single,
            inference_steps: 20,
        }),
        off_record: Vec::new(),
    })
}
