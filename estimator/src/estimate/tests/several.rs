//! Runs of several data sets, and what a record of one size says of others.

use stepcast_records::{BatchSize, Fit};

use super::*;

/// Two data sets of these sizes, in half megapixels, and validation at one megapixel.
fn two(recipe: &str, sizes: [u8; 2]) -> Workload {
    let mut workload = example();
    workload.recipe = Recipe::parse(recipe).expect("recipe");
    workload.datasets = sizes
        .map(|size| Dataset {
            resolution: megapixels(size),
            ..workload.datasets[0].clone()
        })
        .to_vec();
    workload
}

#[test]
fn which_data_set_comes_first_changes_nothing() {
    for recipe in [
        "flux.dev/lora",
        "sdxl.base-1.0/lora",
        "auraflow.v0.3/lora",
        "sd3.medium/lora",
    ] {
        for on in ["h100", "l40s", "rtx4090"] {
            let said = |sizes| {
                let said = estimate(&[], &two(recipe, sizes), on);
                assert!(said.validation_ms.is_some());
                (said.step_ms, said.validation_ms, said.memory)
            };
            assert_eq!(said([1, 5]), said([5, 1]), "{recipe} on {on}");
        }
    }
}

/// A batch that has run has found room, and so have smaller ones and smaller images.
#[test]
fn what_asks_for_less_than_a_record_fits_too() {
    let mut key = training_key("flux.dev/lora+ckpt", "rtx4090");
    key.quantization = Quantization::None;
    key.batch_size = BatchSize::new(8).expect("grid");
    let record = row(key, 9_000, 400);
    let memory = |rows: &[Row], batch, size| {
        let mut workload = example();
        workload.recipe = key.recipe;
        workload.quantization = Quantization::None;
        let dataset = &mut workload.datasets[0];
        dataset.batch_size = batch;
        dataset.samples = Some(10_000);
        dataset.resolution = megapixels(size);
        let memory = estimate(rows, &workload, "rtx4090").memory;
        memory.expect("it has memory")
    };
    for batch in [1, 2, 4, 5, 6, 8] {
        let said = memory(&[record], batch, 2);
        assert_eq!(said.fit, Fit::Fits, "{batch}: {said:?}");
        assert!(said.need_mib_p50 <= said.gpu_mib, "{batch}: {said:?}");
    }
    assert_eq!(memory(&[record], 8, 1).fit, Fit::Fits);
    // The grid's nearest batch is 12 for the one and 128 for the other, and neither has run.
    for (on_grid, batch) in [(12, 13), (128, 1_000)] {
        key.batch_size = BatchSize::new(on_grid).expect("grid");
        let rows = [row(key, 90_000, 400)];
        assert_eq!(memory(&rows, on_grid, 2).fit, Fit::Fits);
        assert_eq!(memory(&rows, batch, 2), memory(&[], batch, 2), "{batch}");
    }
    assert_ne!(memory(&[], 6, 2).fit, Fit::Fits);
    assert_ne!(memory(&[record], 16, 2).fit, Fit::Fits);
    assert_ne!(memory(&[record], 8, 4).fit, Fit::Fits);
}
