//! Needs against published peaks, each left out in its turn, and what is said of GPUs.

use stepcast_records::{BatchSize, Family, HalfMegapixels, TrainingShape};

use super::step::Step;
use super::*;
use crate::testing::training_key;

fn shape(recipe: &str, batch: u16, quantization: Quantization) -> TrainingShape {
    let mut shape = training_key(recipe, "h100").shape();
    shape.batch_size = BatchSize::new(batch).expect("grid");
    shape.quantization = quantization;
    shape
}

fn on(shape: &TrainingShape, gpu: GpuModel) -> Memory {
    let step = Step::from(*shape);
    let steps = Needs {
        each: vec![(Some(step), step.need())],
    };
    steps.on(gpu, |_| false).expect("it has memory")
}

fn fit(shape: &TrainingShape, gpu: &str) -> Fit {
    on(shape, gpu.parse().expect("gpu")).fit
}

#[test]
fn the_formula_alone_is_near_published_peaks() {
    for (recipe, quantization, published) in [
        ("qwen_image.v1.0/lora+ckpt", Quantization::None, 41.0),
        ("qwen_image.v1.0/lora+ckpt", Quantization::Int8, 24.1),
        ("zlab_i1.3b/lora+ckpt", Quantization::None, 7.8),
        ("sdxl.base-1.0/lycoris+ckpt", Quantization::None, 6.5),
    ] {
        let ratio = Step::from(shape(recipe, 1, quantization)).formula_gib() / published;
        assert!(
            (0.6..1.6).contains(&ratio),
            "{recipe} {quantization}: {ratio}"
        );
    }
}

/// Each published peak, told from the others of its family, or by the formula where it is the only one.
#[test]
fn a_peak_that_is_left_out_lies_within_its_interval_as_often_as_that_says() {
    let mut errors = Vec::new();
    let (mut inside, mut below) = (0, 0);
    for family in Family::all() {
        let known = published::of(family);
        for left_out in known {
            let Some(peak) = left_out.peak_gib else {
                continue;
            };
            let others = known.iter().filter(|other| other.shape != left_out.shape);
            let others: Vec<_> = others.copied().collect();
            let need = Step::from(left_out.shape).by(&others, 0.0);
            errors.push((peak / need.p50).ln().abs());
            inside += usize::from((need.p10..=need.p90).contains(&peak));
            below += usize::from(peak <= need.p90);
        }
    }
    errors.sort_by(f64::total_cmp);
    let count = errors.len();
    let share = |of: usize| of as f64 / count as f64;
    let (median, p90) = (errors[count / 2], errors[count * 9 / 10]);
    let said = format!(
        "{count} peaks: median {median:.3}, p90 {p90:.3}, inside {:.2}, below p90 {:.2}",
        share(inside),
        share(below)
    );
    assert!(count > 80 && median < 0.15, "{said}");
    assert!((0.75..=0.95).contains(&share(inside)), "{said}");
    assert!(share(below) >= 0.85, "{said}");
}

#[test]
fn what_was_published_not_to_fit_will_not_and_what_has_fitted_does() {
    let qwen = shape("qwen_image.v1.0/lora", 1, Quantization::None);
    assert_eq!(
        fit(&qwen, "h100"),
        Fit::WillNot,
        "it was tried on as much memory"
    );
    assert_eq!(
        fit(&qwen, "rtx4090"),
        Fit::WillNot,
        "less is not enough either"
    );
    let more = shape("qwen_image.v1.0/lora", 4, Quantization::None);
    assert_eq!(fit(&more, "h100"), Fit::WillNot, "nor for more");
    let checkpointed = shape("qwen_image.v1.0/lora+ckpt", 1, Quantization::None);
    assert_eq!(
        fit(&checkpointed, "l40s"),
        Fit::Fits,
        "published to take 41 GiB"
    );
    assert_eq!(fit(&checkpointed, "rtx4090"), Fit::WillNot, "41 GiB in 24");
    let memory = on(&checkpointed, "rtx4090".parse().expect("gpu"));
    assert_eq!(memory.basis, Basis::Exact);
    assert!(
        (40 * 1_024..43 * 1_024).contains(&memory.need_mib_p50),
        "{memory:?}"
    );
    let small = shape("sdxl.base-1.0/lycoris+ckpt", 1, Quantization::Int8);
    assert_eq!(fit(&small, "rtx3090"), Fit::Fits);
}

#[test]
fn a_lycoris_adapter_may_take_more_than_a_published_one() {
    let lokr = shape("sdxl.base-1.0/lycoris", 1, Quantization::None);
    let memory = on(&lokr, "h100".parse().expect("gpu"));
    assert_eq!(memory.basis, Basis::Exact);
    let measured_mib = 17_200 * 1_024 / 1_000;
    assert!(memory.need_mib_p90 >= measured_mib, "{memory:?}");
    assert_eq!(fit(&lokr, "rtx4090"), Fit::Fits);
    let int8 = shape("sdxl.base-1.0/lycoris", 1, Quantization::Int8);
    assert_eq!(
        fit(&int8, "rtx4080"),
        Fit::MayNot,
        "13.7 GiB published, of 16"
    );
}

/// Also far from whatever was published, and for batches that no record has.
#[test]
fn more_samples_and_larger_ones_never_need_less_nor_fit_sooner() {
    let gpus = ["rtx4080", "rtx4090", "l40s", "h100", "h200"];
    let gpus = gpus.map(|gpu| gpu.parse::<GpuModel>().expect("gpu"));
    let batches = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 129, 1_000];
    let sizes = [1, 2, 3, 4, 6, 8, 16, 32];
    let mut compared = 0;
    for family in Family::all() {
        let flavour = family.flavours().next().expect("it has one");
        for (method, quantization) in [
            ("lora", Quantization::None),
            ("lora+ckpt", Quantization::Int8),
            ("lycoris+ckpt", Quantization::None),
            ("full+ckpt", Quantization::None),
        ] {
            let recipe = format!("{family}.{flavour}/{method}");
            let step = |size, batch: u16| {
                let mut shape = shape(&recipe, 1, quantization);
                shape.resolution = HalfMegapixels::new(size).expect("a bucket");
                shape.batch_size = BatchSize::nearest(u32::from(batch));
                let samples = f64::from(batch);
                Step { shape, samples }
            };
            let by_batch = sizes.map(|size| batches.map(|batch| step(size, batch)).to_vec());
            let by_size = batches.map(|batch| sizes.map(|size| step(size, batch)).to_vec());
            for row in by_batch.iter().chain(&by_size) {
                for gpu in gpus {
                    let on = |step: &Step| {
                        let each = vec![(Some(*step), step.need())];
                        Needs { each }.on(gpu, |_| false).expect("it has memory")
                    };
                    let all: Vec<Memory> = row.iter().map(on).collect();
                    for (pair, steps) in all.windows(2).zip(row.windows(2)) {
                        let [less, more] = [pair[0], pair[1]];
                        let grows = less.need_mib_p50 <= more.need_mib_p50 && less.fit <= more.fit;
                        assert!(grows, "{recipe} {gpu}: {steps:?}\n{less:?}\n{more:?}");
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 100_000, "{compared}");
}
