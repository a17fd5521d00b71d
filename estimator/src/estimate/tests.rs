//! The estimate as people see it: the policy's example to the letter, and what must hold of every other one.

mod fits;
mod hosts;
mod phases;
mod prices;
mod several;
mod shared;

use proptest::prelude::*;
use stepcast_records::simpletuner::{
    Dataset, Length, OffRecord, Preparation, Sharing, Validation, Workload,
};
use stepcast_records::{
    Basis, FrameClass, HalfMegapixels, Key, PhaseKind, Precision, Quantization, Recipe, Row,
};

use super::*;
use crate::testing::{any_row, hardware, row, training_key, validation_key};

fn megapixels(half: u8) -> HalfMegapixels {
    HalfMegapixels::new(half).expect("bucket")
}

/// 150 steps at 1.0 megapixels and batch 4 with int8, and three passes of three images.
pub(crate) fn example() -> Workload {
    Workload {
        recipe: Recipe::parse("flux.dev/lora").expect("recipe"),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: megapixels(2),
            frames: FrameClass::Single,
            batch_size: 4,
            samples: Some(100),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(150),
        checkpoint_every: None,
        validation: Some(Validation {
            every_steps: Some(75),
            every_epochs: None,
            after_step: 0,
            after_epoch: 0,
            at_start: false,
            baseline: true,
            generations: 3,
            resolutions: vec![megapixels(2)],
            frames: FrameClass::Single,
            inference_steps: 20,
        }),
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing::default(),
    }
}

fn example_records() -> Vec<Row> {
    vec![
        row(training_key("flux.dev/lora", "rtx4090"), 14_000, 150),
        row(validation_key("flux.dev/lora", "rtx4090"), 20_000, 9),
    ]
}

fn index(rows: &[Row]) -> Index {
    let mut index = Index::default();
    index.add(rows);
    index
}

fn estimates(rows: &[Row], workload: &Workload, on: &[&str], offers: &[Offer]) -> Vec<Estimate> {
    let on: Vec<Hardware> = on.iter().map(|name| hardware(name)).collect();
    let ask = Ask {
        workload,
        hardware: &on,
        offers,
        day: "2026-10-02".parse().expect("day"),
    };
    let (index, prices) = (index(rows), PriceBook::shipped());
    let estimates = Evidence::new(&index, &prices).estimate(&ask);
    estimates.expect("estimates")
}

fn estimate(rows: &[Row], workload: &Workload, on: &str) -> Estimate {
    estimates(rows, workload, &[on], &[]).remove(0)
}

fn offer(name: &str, dollars: &str) -> Offer {
    Offer {
        hardware: hardware(name),
        price_per_hour: Some(dollars.parse().expect("price")),
    }
}

fn middle(quantiles: Option<Quantiles>) -> u64 {
    quantiles.expect("a number").p50
}

/// V-EST-1: the privacy policy's own words.
#[test]
fn the_policys_example_to_the_letter() {
    let offers = [offer("rtx4090", "1.08"), offer("rtx4090", "1.20")];
    let estimates = estimates(&example_records(), &example(), &["rtx4090"], &offers);
    let estimate = &estimates[0];
    assert_eq!(middle(estimate.train_ms), 2_100_000);
    assert_eq!(middle(estimate.validation_ms), 180_000);
    assert_eq!(middle(estimate.run_ms), 2_280_000);
    assert_eq!(middle(estimate.step_ms), 14_000);
    assert_eq!(estimate.basis, Basis::Exact);
    assert_eq!((estimate.rows, estimate.observed), (1, 150));
    assert_eq!(estimate.price_usd_micros_per_hour, Some(1_080_000));
    assert_eq!(estimate.cost.map(|cost| cost.p50), Some(UsdMicros(684_000)));
    assert_eq!(estimate.headline(), "~38 minutes, ~$0.68");
    assert!(middle(estimate.setup_ms) > 0, "shown apart");
}

#[test]
fn the_middle_is_the_mean_over_steps_and_the_interval_follows_the_rows() {
    let key = training_key("flux.dev/lora", "rtx4090");
    let rows: Vec<Row> = (0..40).map(|_| row(key, 14_000, 150)).collect();
    let calm = estimate(&rows, &example(), "rtx4090");
    let mut mixed = rows.clone();
    mixed.extend((0..40).map(|_| row(key, 28_000, 50)));
    let mixed = estimate(&mixed, &example(), "rtx4090");
    // 40 x 150 steps of 14 s and 40 x 50 of 28 s.
    assert_eq!(middle(mixed.step_ms), 17_500);
    let reach = |estimate: &Estimate| {
        let step = estimate.step_ms.expect("step");
        step.p90 as f64 / step.p10 as f64
    };
    assert!(reach(&calm) < 1.2 && reach(&mixed) > 1.8);
    assert_eq!(mixed.rows, 80);
}

/// Records of exactly a key that are of few steps are drawn to what the model says, and are not from a hundred on.
#[test]
fn few_steps_of_the_key_are_drawn_to_the_model() {
    let key = training_key("flux.dev/lora", "rtx4090");
    let unknown = middle(estimate(&[], &example(), "rtx4090").step_ms) as f64;
    let step = |ms: u32, steps: u32, runs: usize| {
        let rows: Vec<Row> = (0..runs).map(|_| row(key, ms, steps)).collect();
        let estimate = estimate(&rows, &example(), "rtx4090");
        assert_eq!(estimate.basis, Basis::Exact);
        middle(estimate.step_ms) as f64
    };
    let measured = (unknown * 1.3).round();
    let measured_ms = stepcast_records::sample::three_digits(measured as u32);
    let few = step(measured_ms, 20, 1);
    let more = step(measured_ms, 20, 3);
    assert!(few < f64::from(measured_ms) - 1.0, "{few} of {measured_ms}");
    assert!(few < more && more < f64::from(measured_ms), "{few} {more}");
    assert!(few > unknown, "{few} {unknown}");
    assert_eq!(step(measured_ms, 100, 1), f64::from(measured_ms));
    assert_eq!(step(measured_ms, 20, 5), f64::from(measured_ms));
    // What contradicts the model by far is not drawn to it by as large a share.
    let share = |ms: u32| (f64::from(ms) / step(ms, 20, 1)).ln() / (f64::from(ms) / unknown).ln();
    let far = stepcast_records::sample::three_digits((unknown * 8.0) as u32);
    assert!(share(far) < share(measured_ms) / 2.0);
}

#[test]
fn few_records_say_so_and_a_price_of_the_book_is_for_each_gpu() {
    let one = estimate(&example_records(), &example(), "rtx4090");
    assert!(one.notes.contains(&Note::FewRows), "{:?}", one.notes);
    let price = |on| {
        let priced = estimate(&[], &example(), on);
        priced.price_usd_micros_per_hour.expect("price")
    };
    assert_eq!(price("h100x4"), 4 * price("h100"));
    let ask = Ask {
        workload: &example(),
        hardware: &[hardware("rtx4090")],
        offers: &[],
        day: "2026-10-02".parse().expect("day"),
    };
    let index = index(&example_records());
    let unpriced = Evidence::new(&index, PriceBook::none()).estimate(&ask);
    let unpriced = unpriced.expect("estimates").remove(0);
    assert_eq!(unpriced.price_usd_micros_per_hour, None);
    assert!(unpriced.notes.contains(&Note::NoPrice));
    assert_eq!(unpriced.cost, None);
    assert!(!one.notes.contains(&Note::NoPrice));
}

#[test]
fn another_batch_and_accumulation_are_near() {
    let mut other = example();
    other.datasets[0].batch_size = 8;
    other.accumulation = 2;
    let estimate = estimate(&example_records(), &other, "rtx4090");
    assert_eq!(estimate.basis, Basis::Near);
    let from = stepcast_records::BatchSize::new(4).expect("grid");
    assert!(estimate.notes.contains(&Note::BatchScaled { from }));
    assert!(estimate.notes.contains(&Note::AccumulationScaled));
    let ratio = middle(estimate.step_ms) as f64 / 14_000.0;
    assert!((3.6..=4.0).contains(&ratio), "{ratio}");
}

#[test]
fn numbers_off_the_grid_are_scaled_and_never_exact() {
    let mut other = example();
    other.datasets[0].batch_size = 5;
    other.off_record = vec![OffRecord::BatchSize];
    let estimate = estimate(&example_records(), &other, "rtx4090");
    assert_eq!(estimate.basis, Basis::Near);
    let ratio = middle(estimate.step_ms) as f64 / 14_000.0;
    assert!((1.2..=1.26).contains(&ratio), "{ratio}");
}

#[test]
fn other_hardware_is_rough_and_slower_where_it_is_rated_lower() {
    let step = |on| {
        let estimate = estimate(&example_records(), &example(), on);
        assert_eq!(estimate.basis, Basis::Rough, "{on}");
        middle(estimate.step_ms)
    };
    assert!(step("rtx3090") > 14_000);
    assert!(step("b200") < step("rtx5090"));
    let scaled = estimate(&example_records(), &example(), "rtx3090");
    let from = hardware("rtx4090");
    assert!(
        scaled.notes.contains(&Note::HardwareScaled { from }),
        "{:?}",
        scaled.notes
    );
}

#[test]
fn the_fastest_gpu_still_waits_for_its_host() {
    let mut key = training_key("sana.sana1.0-600m-512/lora", "t4");
    key.quantization = Quantization::None;
    let mut workload = example();
    workload.recipe = key.recipe;
    workload.quantization = Quantization::None;
    let step = middle(estimate(&[row(key, 900, 100)], &workload, "b200").step_ms);
    assert!((60..900).contains(&step), "{step}");
}

#[test]
fn more_gpus_are_scaled_from_one() {
    let two = estimate(&example_records(), &example(), "rtx4090x2");
    assert_eq!(two.basis, Basis::Rough);
    let step = middle(two.step_ms);
    assert!(step > 13_500 && step < 16_000, "{step}");
}

#[test]
fn published_figures_stand_in_until_there_are_records() {
    let mut workload = example();
    workload.recipe = Recipe::parse("qwen_image.v1.0/lora+ckpt").expect("recipe");
    workload.datasets[0].batch_size = 1;
    workload.validation = None;
    let before = estimate(&[], &workload, "h100");
    assert_eq!(before.basis, Basis::Near);
    assert!(before.notes.contains(&Note::PublishedPrior));
    assert_eq!((before.rows > 0, before.observed), (true, 0));
    let mut key = training_key("qwen_image.v1.0/lora+ckpt", "h100");
    key.batch_size = stepcast_records::BatchSize::new(1).expect("grid");
    let after = estimate(&[row(key, 2_000, 900)], &workload, "h100");
    assert_eq!((after.basis, middle(after.step_ms)), (Basis::Exact, 2_000));
    assert!(!after.notes.contains(&Note::PublishedPrior));
}

#[test]
fn what_nobody_measured_follows_from_the_ratings_and_says_so() {
    let mut workload = example();
    workload.recipe = Recipe::parse("sd2x.2.1/full").expect("recipe");
    let rated = estimate(&[], &workload, "a100-80");
    assert_eq!((rated.basis, rated.rows), (Basis::Rough, 0));
    assert!(rated.notes.contains(&Note::RatedOnly));
    assert!(rated.notes.contains(&Note::ValidationDerived));
}

#[test]
fn a_processor_has_no_ratings_so_nothing_is_said() {
    let mut workload = example();
    workload.recipe = Recipe::parse("sd2x.2.1/full").expect("recipe");
    let unknown = estimate(&[], &workload, "cpu");
    assert_eq!((unknown.basis, unknown.run_ms), (Basis::None, None));
    assert_eq!(unknown.headline(), "no history");
    assert!(unknown.notes.contains(&Note::ValidationUnknown));
}

#[test]
fn the_pretend_device_and_real_ones_never_mix() {
    let on_replay = |ms| row(training_key("flux.dev/lora", "replay"), ms, 150);
    let mut workload = example();
    workload.validation = None;
    let made_up = estimate(&example_records(), &workload, "replay");
    assert_eq!(middle(made_up.step_ms), 1_000);
    assert!(made_up.notes.contains(&Note::Replay));
    let played = estimate(&[on_replay(40)], &workload, "replay");
    assert_eq!((played.basis, middle(played.step_ms)), (Basis::Exact, 40));
    assert!(played.notes.contains(&Note::Replay));
    let real = estimate(&[on_replay(40)], &example(), "rtx4090");
    assert!(!real.notes.contains(&Note::Replay));
    assert!(middle(real.step_ms) > 1_000);
    let cpu = [row(training_key("flux.dev/lora", "cpu"), 90_000, 150)];
    let real_again = estimate(&cpu, &example(), "rtx4090");
    assert_eq!(real.step_ms, real_again.step_ms);
}

#[test]
fn without_a_list_the_cheapest_comes_first() {
    let offers = [Offer {
        hardware: hardware("rtxa6000x2"),
        price_per_hour: None,
    }];
    let listed = estimates(&example_records(), &example(), &[], &offers);
    let cost = |estimate: &Estimate| estimate.whole_cost().map(|cost| cost.p50);
    assert!(
        listed.is_sorted_by_key(Estimate::will_not_fit),
        "what does not fit is behind"
    );
    for fits in [true, false] {
        let part = listed.iter().filter(|one| one.will_not_fit() != fits);
        let priced: Vec<UsdMicros> = part.filter_map(cost).collect();
        assert!(priced.is_sorted() && priced.len() >= 3, "{priced:?}");
    }
    for name in ["rtx4090", "rtxa6000x2", "h100"] {
        let found = listed
            .iter()
            .any(|estimate| estimate.hardware == hardware(name));
        assert!(found, "{name}");
    }
}

#[test]
fn a_run_that_fits_none_of_the_gpus_that_were_named_is_an_error() {
    let mut workload = example();
    workload.context_parallel = 4;
    workload.off_record = vec![OffRecord::Sharding];
    let (index, prices) = (Index::default(), PriceBook::shipped());
    let evidence = Evidence::new(&index, &prices);
    let on = [hardware("h100x2")];
    let ask = Ask {
        workload: &workload,
        hardware: &on,
        offers: &[],
        day: "2026-10-02".parse().expect("day"),
    };
    assert!(matches!(evidence.estimate(&ask), Err(Missing::Gpus { .. })));
    assert!(evidence.forecast(&workload, on[0]).is_none());
    // Of several, those that it fits are answered.
    let on = [hardware("h100x2"), hardware("h100x8"), hardware("h100x4")];
    let ask = Ask {
        hardware: &on,
        ..ask
    };
    let fitting = evidence.estimate(&ask).expect("estimates");
    let fitting: Vec<Hardware> = fitting.iter().map(|one| one.hardware).collect();
    assert_eq!(fitting, on[1..]);
}

#[test]
fn a_forecast_is_the_run_and_the_set_up() {
    let (index, prices) = (index(&example_records()), PriceBook::shipped());
    let evidence = Evidence::new(&index, &prices);
    let whole = evidence
        .forecast(&example(), hardware("rtx4090"))
        .expect("forecast");
    let estimate = estimate(&example_records(), &example(), "rtx4090");
    assert_eq!(whole.p50, 2_280_000 + middle(estimate.setup_ms));
}

fn any_workload() -> impl Strategy<Value = Workload> {
    let recipes: Vec<Recipe> = Recipe::all().collect();
    let resolutions: Vec<HalfMegapixels> = HalfMegapixels::all().collect();
    let resolution = prop::sample::select(resolutions);
    let batch = prop_oneof![1u32..=8, 1u32..=Workload::MAX_BATCH];
    let samples = prop::option::of(1u64..=Workload::MAX_SAMPLES);
    let dataset = (
        resolution.clone(),
        batch.clone(),
        samples,
        0u32..=1_000_000,
        any::<bool>(),
    );
    let dataset = dataset.prop_map(
        |(resolution, batch_size, samples, repeats, padded)| Dataset {
            resolution,
            frames: FrameClass::Single,
            batch_size,
            samples,
            repeats,
            padded,
        },
    );
    let steps = (1u64..=Workload::MAX_STEPS).prop_map(Length::Steps);
    let epochs = (1u32..=Workload::MAX_EPOCHS).prop_map(Length::Epochs);
    (
        prop::sample::select(recipes),
        prop::sample::select(Quantization::ALL.to_vec()),
        batch,
        prop::collection::vec(dataset, 1..4),
        prop_oneof![steps, epochs],
        prop::option::of(resolution),
        1u32..=1_000,
        1u32..=100_000,
    )
        .prop_map(
            |(
                recipe,
                quantization,
                accumulation,
                datasets,
                length,
                images,
                inference_steps,
                generations,
            )| {
                let mut workload = example();
                workload.recipe = recipe;
                workload.quantization = quantization;
                workload.accumulation = accumulation;
                workload.datasets = datasets;
                workload.length = length;
                let validation = workload.validation.as_mut().expect("validation");
                validation.resolutions = images.into_iter().collect();
                validation.inference_steps = inference_steps;
                validation.generations = generations;
                workload
            },
        )
}

fn is_ordered(quantiles: Option<Quantiles>) -> bool {
    quantiles.is_none_or(|q| q.p10 <= q.p50 && q.p50 <= q.p90)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_run_on_any_hardware_is_estimated_or_refused(
        workload in any_workload(),
        rows in prop::collection::vec(any_row(), 0..40),
        on in prop::sample::select(Hardware::all().collect::<Vec<_>>()),
    ) {
        let (index, prices) = (index(&rows), PriceBook::shipped());
        let evidence = Evidence::new(&index, &prices);
        let day = "2026-10-02".parse().expect("day");
        let ask = Ask { workload: &workload, hardware: &[on], offers: &[], day };
        if let Ok(estimates) = evidence.estimate(&ask) {
            let estimate = &estimates[0];
            for quantiles in [
                estimate.step_ms,
                estimate.train_ms,
                estimate.validation_ms,
                estimate.run_ms,
                estimate.setup_ms,
            ] {
                prop_assert!(is_ordered(quantiles), "{quantiles:?}");
            }
            prop_assert_eq!(estimate.run_ms.is_some(), estimate.basis != Basis::None);
        }
        // A list never fails to answer on what remains.
        let _ = evidence.estimate(&Ask { hardware: &[], ..ask });
    }

    #[test]
    fn a_record_of_the_key_makes_the_estimate_exact(
        rows in prop::collection::vec(any_row(), 0..60),
        avg_ms in 1u32..1_000,
        on in prop::sample::select(Hardware::all().collect::<Vec<_>>()),
    ) {
        let mut workload = example();
        workload.validation = None;
        let mut key = training_key("flux.dev/lora", "rtx4090");
        key.hardware = on;
        let mut rows = rows;
        rows.retain(|row| row.key != Key::Training(key));
        let before = estimate(&rows, &workload, &on.slug());
        prop_assert!(before.basis > Basis::Exact, "no rung above the exact one");
        rows.push(row(key, avg_ms, 100));
        let after = estimate(&rows, &workload, &on.slug());
        prop_assert_eq!(after.basis, Basis::Exact);
        prop_assert_eq!(middle(after.step_ms), u64::from(avg_ms));
        prop_assert_eq!((after.rows, after.observed), (1, 100));
    }

    #[test]
    fn twice_the_steps_take_twice_as_long(steps in 1u64..1_000_000) {
        let run = |steps| {
            let mut workload = example();
            workload.validation = None;
            workload.length = Length::Steps(steps);
            middle(estimate(&[], &workload, "h100").run_ms)
        };
        prop_assert!(run(2 * steps).abs_diff(2 * run(steps)) <= 2);
    }
}
