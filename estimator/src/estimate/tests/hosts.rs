//! Whose host it was: published figures are of other people's machines, and light models wait for the host.

use stepcast_records::BatchSize;

use super::*;
use crate::estimate::learned::{observe, shipped};

const LORA: &str = "sdxl.base-1.0/lora";
const LOKR: &str = "sdxl.base-1.0/lycoris";
/// All arithmetic at batch 4.
const HEAVY: &str = "qwen_image.v1.0/lora+ckpt";

/// A run of so many images a step.
fn asked(recipe: &str, batch: u32) -> Workload {
    let mut workload = example();
    workload.recipe = Recipe::parse(recipe).expect("recipe");
    workload.quantization = Quantization::None;
    workload.datasets[0].batch_size = batch;
    workload
}

/// A record of such a step.
fn record(recipe: &str, on: &str, batch: u32, ms: u32) -> Row {
    let mut key = training_key(recipe, on);
    key.batch_size = BatchSize::new(batch).expect("grid");
    key.quantization = Quantization::None;
    row(key, ms, 140)
}

/// Records, and what was learnt from them; the published figures alone where there are none.
struct Known {
    index: Index,
    model: Option<Model>,
}

impl Known {
    fn of(rows: &[Row]) -> Self {
        let index = index(rows);
        let model = (!rows.is_empty()).then(|| learn(&index)).flatten();
        Self { index, model }
    }

    fn says(&self, recipe: &str, batch: u32, on: &str) -> Estimate {
        let workload = asked(recipe, batch);
        let ask = Ask {
            workload: &workload,
            hardware: &[hardware(on)],
            offers: &[],
            day: "2026-10-02".parse().expect("day"),
        };
        let evidence = Evidence::new(&self.index, PriceBook::none()).learned(self.model.as_ref());
        evidence.estimate(&ask).expect("estimates").remove(0)
    }

    /// A step in milliseconds, with how far its p90 is from p10 as a logarithm.
    fn step(&self, recipe: &str, batch: u32, on: &str) -> (f64, f64) {
        let step = self.says(recipe, batch, on).step_ms.expect("a number");
        (step.p50 as f64, (step.p90 as f64 / step.p10 as f64).ln())
    }
}

#[test]
fn published_figures_say_less_where_the_host_is_waited_for() {
    let nobody = Known::of(&[]);
    let published = nobody.step(LOKR, 1, "h100").1;
    assert!(
        published > nobody.step(HEAVY, 1, "h100").1 + 0.1,
        "{published}"
    );
    // A record of this installation's own is of its own hosts.
    let own = Known::of(&[record(LOKR, "h100", 1, 1_510)]);
    let own = own.step(LOKR, 1, "h100").1;
    assert!(own < published - 0.1, "{own} {published}");
}

/// The runs of `benches/README.md`, "On a real GPU": 1.49 s where 0.45 s was said, while the GPU was busy for 0.2 s.
#[test]
fn a_slow_host_shows_in_what_else_it_is_asked() {
    let slow = record(LORA, "h100", 1, 1_490);
    let (nobody, one) = (Known::of(&[]), Known::of(&[slow]));
    let moved =
        |recipe, batch, on| one.step(recipe, batch, on).0 / nobody.step(recipe, batch, on).0;
    // Another recipe, although a figure of exactly that is published.
    let lokr = moved(LOKR, 1, "h100");
    assert!((2.0..3.4).contains(&lokr), "{lokr}");
    let p90 = one.says(LOKR, 1, "h100").step_ms.expect("a number").p90;
    assert!(
        p90 > 1_800,
        "one record does not tell a host from a recipe: {p90}"
    );
    // Four times the images are four times the arithmetic and not four times the host: 1.49 s there too.
    let four = one.says(LORA, 4, "h100").step_ms.expect("a number");
    assert!(
        (four.p10..=four.p90).contains(&1_490) && four.p50 < 1_800,
        "{four:?}"
    );
    // An image of 20 steps took 14.4 s; as if all of the step were the GPU's it would take 22 s.
    let image = one
        .says(LORA, 1, "h100")
        .validation_ms
        .expect("derived")
        .p50
        / 9;
    assert!((10_000..21_500).contains(&image), "{image}");
    // The same for a whole model, which is carried from another recipe.
    let whole = moved("sdxl.base-1.0/full", 4, "h100");
    assert!((1.5..3.4).contains(&whole), "{whole}");
    let heavy = moved(HEAVY, 4, "h100");
    assert!((0.95..1.25).contains(&heavy), "{heavy}");
    let elsewhere = moved(LOKR, 1, "l40s");
    assert!((0.95..1.1).contains(&elsewhere), "{elsewhere}");
    // A second recipe's record says that it is the host.
    let two = Known::of(&[slow, record("flux.dev/lora", "h100", 1, 1_500)]);
    assert!(two.step(LOKR, 1, "h100").1 < one.step(LOKR, 1, "h100").1);
}

/// What a step takes beyond its arithmetic need not be the host, which no GPU makes quicker.
#[test]
fn a_slow_gpu_says_no_more_of_others_than_of_itself() {
    let nobody = Known::of(&[]);
    for (recipe, on, times) in [
        (HEAVY, "rtx3090", 1.5),
        (HEAVY, "a100-80", 1.5),
        ("sd3.medium/lora+ckpt", "rtx3090", 1.25),
        ("flux.dev/lora+ckpt", "rtx3090", 2.0),
        ("flux.dev/lora+ckpt", "rtx3090", 0.6),
    ] {
        let before = nobody.step(recipe, 4, on).0;
        // As rows have it, to three digits.
        let ms = before * times;
        let digit = 10_f64.powf(ms.log10().floor() - 2.0);
        let ms = ((ms / digit).round() * digit).round() as u32;
        let one = Known::of(&[record(recipe, on, 4, ms)]);
        let moved = |on| one.step(recipe, 4, on).0 / nobody.step(recipe, 4, on).0;
        for other in ["rtx4090", "l40s", "a100-80", "h100", "h200", "b200"] {
            let moved = moved(other);
            let (least, most) = (f64::min(times, 1.0), f64::max(times, 1.0));
            assert!(
                (least * 0.95..=most * 1.05).contains(&moved),
                "{recipe} on {on} x {times}: {other} x {moved}"
            );
        }
    }
}

#[test]
fn hosts_that_are_as_published_keep_what_is_said() {
    let nobody = Known::of(&[]);
    let usual = Known::of(&[record(LORA, "h100", 1, 448), record(LOKR, "h100", 1, 600)]);
    for (recipe, batch, on) in [
        (HEAVY, 1, "h100"),
        ("flux.dev/lora", 1, "h100"),
        (LOKR, 1, "l40s"),
    ] {
        let (before, wide) = nobody.step(recipe, batch, on);
        let (after, known) = usual.step(recipe, batch, on);
        assert!(
            (after / before).ln().abs() < 0.05,
            "{recipe}: {before} {after}"
        );
        assert!(known <= wide, "{recipe}: {wide} {known}");
    }
}

#[test]
fn a_published_figure_among_the_records_is_of_nobody_s_own_host() {
    let unknown = |rows: &[Row]| {
        let model = learn(&index(rows)).expect("a model");
        let key = training_key("flux.dev/lora", "h100");
        let point = point_of(&key.shape(), key.hardware, true);
        model.predict(&point).own.variance()
    };
    let nobody = unknown(&[]);
    // Twice the weight of the figures moves the shares of host and arithmetic, and this with them, by a fifth.
    let figures = unknown(&published::shipped_rows()) / nobody;
    assert!((0.8..1.25).contains(&figures), "{figures}");
    let own = unknown(&[record(LORA, "h100", 1, 450)]) / nobody;
    assert!(own < 0.51, "{own}");
}

#[test]
fn an_absurd_record_leaves_other_recipes_alone() {
    let nobody = Known::of(&[]);
    for ms in [18_000, 3_600_000] {
        let absurd = Known::of(&[record(LORA, "h100", 1, ms)]);
        for (recipe, on) in [(LOKR, "h100"), (HEAVY, "h100"), (LOKR, "l40s")] {
            let (before, after) = (nobody.step(recipe, 1, on).0, absurd.step(recipe, 1, on).0);
            assert!(
                (after / before).ln().abs() < 0.25,
                "{recipe}: {before} {after}"
            );
        }
    }
}

/// Rows are taken in one by one until everything is learnt anew, which is exact.
#[test]
fn what_is_not_known_of_a_host_is_the_same_right_after_a_record_and_once_it_is_learnt() {
    for (recipe, batch, ms) in [
        ("flux.dev/lora", 1, 1_390),
        (HEAVY, 4, 4_300),
        (LORA, 1, 1_490),
    ] {
        let rows = [record(recipe, "h100", batch, ms)];
        let records = index(&rows);
        let mut watching = shipped().expect("a model").clone();
        observe(&mut watching, &records, &rows);
        let learnt = learn(&records).expect("a model");
        let unknown = |model: &Model| {
            let mut key = training_key("sdxl.base-1.0/lora+ckpt", "h100");
            key.quantization = Quantization::None;
            let point = point_of(&key.shape(), key.hardware, true);
            model.predict(&point).own.variance()
        };
        let (soon, exactly) = (unknown(&watching), unknown(&learnt));
        assert!(
            (0.6..1.5).contains(&(soon / exactly)),
            "{recipe}: {soon} {exactly}"
        );
    }
}

/// Eight runs that agree and one that took seven hundred times as long.
#[test]
fn one_absurd_run_does_not_carry_away_a_key_that_others_know() {
    let known = |absurd: usize| {
        let runs = std::iter::repeat_n((5_000, 140), 8);
        let absurd = std::iter::repeat_n((3_600_000, 1_000), absurd);
        let key = training_key("flux.dev/lora", "rtx4090");
        let rows = runs.chain(absurd);
        let rows: Vec<Row> = rows.map(|(ms, steps)| row(key, ms, steps)).collect();
        let estimate = estimate(&rows, &example(), "rtx4090");
        assert_eq!(estimate.basis, Basis::Exact);
        estimate.step_ms.expect("it is known")
    };
    assert_eq!(known(0).p50, 5_000);
    let one = known(1);
    assert_eq!(one.p50, 5_000);
    assert!(one.p10 > 3_000 && one.p90 < 8_000, "{one:?}");
    assert!(known(9).p50 > 100_000, "most say so");
}

/// What waits for the host does not wait longer for more samples. Neighbours on the grid rest on different figures, so that
/// a few per cent may be between them.
#[test]
fn a_batch_off_the_grid_takes_hardly_less_than_a_smaller_one() {
    for (recipe, on) in [
        ("sdxl.base-1.0/lora", "h100"),
        ("sd1x.1.5/lora", "b200"),
        (HEAVY, "rtx4090"),
    ] {
        let step = |batch| {
            let estimate = estimate(&[], &asked(recipe, batch), on);
            estimate.step_ms.expect("it is known").p50 as f64
        };
        for pair in (4..=16).map(step).collect::<Vec<_>>().windows(2) {
            assert!(pair[0] <= 1.05 * pair[1], "{recipe} {on}: {pair:?}");
        }
    }
}
