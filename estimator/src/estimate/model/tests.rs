//! What the model must do on worlds whose rules are known.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::select;
use stepcast_records::hardware::Rated;

use super::fit::Rows;
use super::*;

const FAST: Rated = Rated {
    bf16_tflops: 900.0,
    memory_gb_per_s: 3_000.0,
};
const SLOW: Rated = Rated {
    bf16_tflops: 300.0,
    memory_gb_per_s: 1_000.0,
};

/// A recipe, and one of two GPUs, the slow one a third as quick.
fn parts<'a>(recipe: &str, gpu: &'a str, quantization: &str, batch: f64) -> (Subject, Board<'a>) {
    let (rated, compute) = if gpu == "fast" {
        (FAST, 100.0)
    } else {
        (SLOW, 300.0)
    };
    let subject = Subject::of(&Traits {
        family: recipe,
        recipe,
        method: "lora",
        quantization: [quantization, quantization],
        precision: "bf16",
        checkpointing: ["none", ""],
        settings: [""; SETTINGS],
        batch,
        megapixels: 1.0,
        billions: 4.0,
        host_ms: 200.0,
        ..Traits::default()
    });
    let board = Board {
        gpu,
        gpus: 1.0,
        rated: Some(rated),
        compute_ms: compute * batch,
        own: false,
    };
    (subject, board)
}

/// The same for own hosts or others.
fn owned<'a>(parts: (Subject, Board<'a>), own: bool) -> (Subject, Board<'a>) {
    (parts.0, Board { own, ..parts.1 })
}

/// The point of these two.
fn point(recipe: &str, gpu: &str, quantization: &str, batch: f64) -> Point {
    let (subject, board) = parts(recipe, gpu, quantization, batch);
    subject.on(&board)
}

fn seen(point: Point, ms: f64) -> Observation {
    Observation {
        point,
        ln_ms: ms.ln(),
        weight: 1.0,
        belief: 1.0,
    }
}

/// Recipes that wait for the host, and recipes that are all arithmetic, on both GPUs.
fn world() -> Vec<Observation> {
    let mut world = Vec::new();
    for number in 0..10 {
        let (light, heavy) = (format!("light{number}"), format!("heavy{number}"));
        let factor = 1.0 + 0.02 * f64::from(number);
        for batch in [1.0, 2.0, 4.0] {
            for (gpu, slower) in [("fast", 1.0), ("slow", 3.0)] {
                world.push(seen(point(&light, gpu, "none", batch), 200.0 * factor));
                let ms = 1_000.0 * batch * factor * slower;
                world.push(seen(point(&heavy, gpu, "none", batch), ms));
            }
        }
    }
    world
}

#[test]
fn nothing_is_learnt_from_nothing() {
    assert!(Model::learn(&[]).is_none());
}

#[test]
fn a_share_of_the_arithmetic_is_learnt_per_recipe() {
    let mut world = world();
    // Two new recipes, each on the fast GPU only: batches tell which of them is arithmetic.
    for batch in [1.0, 2.0, 4.0] {
        world.push(seen(point("light", "fast", "none", batch), 210.0));
        world.push(seen(point("heavy", "fast", "none", batch), 1_100.0 * batch));
    }
    let model = Model::learn(&world).expect("a model");
    let on_slow = |recipe, batch| model.predict(&point(recipe, "slow", "none", batch)).ms[1];
    let (light, heavy) = (on_slow("light", 1.0), on_slow("heavy", 4.0));
    assert!((150.0..400.0).contains(&light), "{light}");
    assert!((9_000.0..18_000.0).contains(&heavy), "{heavy}");
}

#[test]
fn one_spill_does_not_change_the_neighbours() {
    let mut world = world();
    let asked = point("heavy3", "slow", "none", 2.0);
    let before = Model::learn(&world).expect("a model").predict(&asked).ms[1];
    world.push(seen(point("heavy3", "slow", "none", 3.0), 9_000.0 * 40.0));
    let after = Model::learn(&world).expect("a model").predict(&asked).ms[1];
    assert!((after / before).ln().abs() < 0.1, "{before} {after}");
}

#[test]
fn one_measurement_more_is_the_posterior_in_closed_form() {
    let mut model = Model::learn(&world()).expect("a model");
    let (asked, neighbour) = (
        point("new", "fast", "none", 2.0),
        point("new", "fast", "none", 4.0),
    );
    let (before, near) = (model.thought(&asked), model.thought(&neighbour));
    let noise = model.noise;
    let error = noise.sqrt();
    model.observe(&Observation {
        point: asked.clone(),
        ln_ms: before.ln_ms + error,
        weight: 1.0,
        belief: 1.0,
    });
    let after = model.thought(&asked);
    let noise =
        noise * (fit::FREEDOM + error * error / (before.variance + noise)) / (fit::FREEDOM + 1.0);
    // A normal prior and one normal measurement: the mean moves by its share.
    let share = before.variance / (before.variance + noise);
    assert!((after.ln_ms - before.ln_ms - share * error).abs() < 0.05 * error);
    assert!(after.variance < before.variance);
    let moved = model.thought(&neighbour).ln_ms - near.ln_ms;
    assert!(moved > 0.0 && moved < 2.0 * error, "{moved}");
    assert_eq!(model.predict(&asked).novelty, Novelty::Known);
}

#[test]
fn what_is_further_away_is_less_certain() {
    let model = Model::learn(&world()).expect("a model");
    let width = |point: &Point| {
        let ms = model.predict(point).ms;
        ms[2] / ms[0]
    };
    let known = width(&point("heavy1", "fast", "none", 2.0));
    let new = width(&point("never seen", "fast", "none", 2.0));
    let newer = width(&point("never seen", "unheard of", "nf4", 2.0));
    assert!(known < new && new < newer, "{known} {new} {newer}");
    let novelty = |recipe, gpu| model.predict(&point(recipe, gpu, "none", 1.0)).novelty;
    assert_eq!(novelty("heavy1", "fast"), Novelty::Known);
    assert_eq!(novelty("heavy1", "unheard of"), Novelty::OtherHardware);
    assert_eq!(novelty("never seen", "fast"), Novelty::OtherRecipe);
    assert_eq!(novelty("never seen", "unheard of"), Novelty::New);
}

/// So many light recipes on own hosts with the fast GPU, three times as long as on the others.
fn slow_hosts(recipes: usize) -> Vec<Observation> {
    let each = (0..recipes).map(|number| {
        let ms = 600.0 * (1.0 + 0.02 * number as f64);
        let point = point(&format!("light{number}"), "fast", "none", 1.0);
        seen(point.on_own_host(), ms)
    });
    each.collect()
}

/// How many times as long as on other hosts own ones are said to take.
fn slower(model: &Model, recipe: &str, gpu: &str, batch: f64) -> f64 {
    let there = point(recipe, gpu, "none", batch);
    let (own, others) = (
        model.thought(&there.clone().on_own_host()),
        model.thought(&there),
    );
    assert!((own.own.ln - (own.ln_ms - others.ln_ms)).abs() < 1e-9);
    assert_eq!(others.own.ln, 0.0);
    own.own.ln.exp()
}

#[test]
fn own_hosts_are_slower_where_they_are_waited_for() {
    let mut world = world();
    let before = Model::learn(&world).expect("a model");
    assert_eq!(slower(&before, "light7", "fast", 1.0), 1.0);
    world.extend(slow_hosts(4));
    let model = Model::learn(&world).expect("a model");
    let light = slower(&model, "light7", "fast", 1.0);
    assert!((2.0..3.2).contains(&light), "{light}");
    let heavy = slower(&model, "heavy7", "fast", 4.0);
    assert!((0.9..1.15).contains(&heavy), "{heavy}");
    assert_eq!(
        slower(&model, "light7", "slow", 1.0),
        1.0,
        "nobody knows of that GPU"
    );
    // What was published stays what it was.
    let others = point("light7", "fast", "none", 1.0);
    let moved = model.predict(&others).ms[1] / before.predict(&others).ms[1];
    assert!((moved - 1.0).abs() < 0.1, "{moved}");
    let unknown = |model: &Model| model.predict(&others.clone().on_own_host()).own.variance();
    assert!(unknown(&model) < unknown(&before) / 2.0);
    // One by one, until everything is learnt anew, it comes to nearly the same.
    let mut watching = before;
    for seen in slow_hosts(4) {
        watching.observe(&seen);
    }
    let watched = slower(&watching, "light7", "fast", 1.0);
    assert!((watched / light).ln().abs() < 0.3, "{watched} {light}");
}

#[test]
fn slow_hosts_are_not_taken_for_a_gpu_that_computes_slowly() {
    for recipes in 1..=3 {
        let mut world = world();
        world.extend(slow_hosts(recipes));
        let model = Model::learn(&world).expect("a model");
        let light = slower(&model, "light7", "fast", 1.0);
        assert!((2.0..3.2).contains(&light), "{recipes}: {light}");
        let heavy = slower(&model, "heavy7", "fast", 4.0);
        assert!((0.9..1.15).contains(&heavy), "{recipes}: {heavy}");
    }
}

#[test]
fn one_absurd_record_says_nothing_of_own_hosts_and_many_do() {
    let published = Model::learn(&world()).expect("a model");
    let absurd = |number: usize| {
        let point = point(&format!("light{number}"), "fast", "none", 1.0);
        let mut seen = seen(point.on_own_host(), 200.0 * 1e6);
        seen.belief = published.belief(&seen);
        seen
    };
    assert!(absurd(0).belief < 1e-3);
    assert_eq!(published.belief(&slow_hosts(1)[0]), 1.0);
    let mut told = world();
    told.push(absurd(0));
    let mut watching = published.clone();
    watching.observe(&absurd(0));
    let learnt = Model::learn(&told).expect("a model");
    for model in [learnt, watching] {
        let light = slower(&model, "light7", "fast", 1.0);
        assert!((0.8..1.25).contains(&light), "{light}");
    }
    told.extend(slow_hosts(4).into_iter().skip(1));
    let model = Model::learn(&told).expect("a model");
    let light = slower(&model, "light7", "fast", 1.0);
    assert!((1.8..3.4).contains(&light), "{light}");
}

/// Rows, targets, prior variances and noises of a small linear problem.
fn problem(seed: &[f64]) -> (Rows, Vec<f64>, Vec<f64>, Vec<f64>) {
    let count = seed.len() / 4;
    let slopes = seed.chunks(4).take(count).enumerate().map(|(row, values)| {
        vec![
            (0, 1.0),
            (1 + row as u32 % 3, values[0]),
            (4 + row as u32 % 5, values[1]),
        ]
    });
    let rows = Rows {
        slopes: slopes.collect(),
        features: 9,
    };
    let targets = seed.chunks(4).map(|values| values[2]).collect();
    let noises = seed.chunks(4).map(|values| 0.1 + values[3].abs()).collect();
    (rows, targets, vec![0.7; 9], noises)
}

proptest! {
    #[test]
    fn a_question_in_two_halves_has_the_same_answer(
        recipe in "(light|heavy)[0-9]{1,2}", gpu in select(vec!["fast", "slow", "new"]), batch in 0.5f64..64.0, own: bool,
    ) {
        static MODEL: LazyLock<Model> = LazyLock::new(|| {
            let mut world = world();
            world.extend(slow_hosts(3));
            Model::learn(&world).expect("a model")
        });
        let (subject, board) = owned(parts(&recipe, gpu, "none", batch), own);
        let halves = MODEL.predict_on(&subject, MODEL.begin(&subject), &board);
        let whole = MODEL.predict(&subject.on(&board));
        for (a, b) in halves.ms.iter().zip(whole.ms) {
            prop_assert!((a / b).ln().abs() < 1e-9, "{a} {b}");
        }
        prop_assert_eq!(halves.novelty, whole.novelty);
    }

    #[test]
    fn both_ways_to_solve_agree(seed in prop::collection::vec(-2.0f64..2.0, 48)) {
        let (rows, targets, priors, noises) = problem(&seed);
        let exact = exact::solve(&rows, &targets, &priors, &noises).expect("solved");
        let large = large::solve(&rows, &targets, &priors, &noises, &[0.0; 9]);
        for (a, b) in exact.effects.iter().zip(&large.effects) {
            prop_assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
        for (a, b) in exact.variances.iter().zip(&large.variances) {
            prop_assert!(*b <= a + 1e-9, "knowing the others cannot make an effect less certain");
        }
    }

    #[test]
    fn leaving_out_in_closed_form_is_leaving_out(seed in prop::collection::vec(-2.0f64..2.0, 48), out in 0usize..12) {
        let (rows, targets, priors, noises) = problem(&seed);
        let points: Vec<Point> = (0..12).map(|n| point(&format!("r{n}"), "fast", "none", 1.0)).collect();
        let points: Vec<&Point> = points.iter().collect();
        let all = exact::left_out(&rows, &targets, &priors, &noises, 0.3, &points);
        let keep = |values: &[f64]| -> Vec<f64> {
            values.iter().enumerate().filter(|(n, _)| *n != out).map(|(_, v)| *v).collect()
        };
        let without = Rows {
            slopes: rows.slopes.iter().enumerate().filter(|(n, _)| *n != out).map(|(_, s)| s.clone()).collect(),
            features: 9,
        };
        let kept_noises = keep(&noises);
        let solved = exact::solve(&without, &keep(&targets), &priors, &kept_noises).expect("solved");
        let certainty = large::variances(&without, &priors, &kept_noises);
        let slopes = &rows.slopes[out];
        let said: f64 = slopes.iter().map(|&(place, slope)| slope * solved.effects[place as usize]).sum();
        let variance: f64 = slopes.iter().map(|&(place, slope)| slope * slope * certainty[place as usize]).sum();
        let variance = variance + 0.3;
        let error = (targets[out] - said) / variance.sqrt();
        prop_assert!((all[out].error() - error).abs() < 1e-3, "{} {error}", all[out].error());
    }

    #[test]
    fn any_question_has_a_sound_answer(batch in 0.0f64..1e6, recipe in "[a-z]{0,3}", gpu in "[a-z]{0,3}") {
        static MODEL: LazyLock<Model> = LazyLock::new(|| Model::learn(&world()[..8]).expect("a model"));
        let model = &*MODEL;
        let answer = model.predict(&point(&recipe, &gpu, "int8", batch));
        prop_assert!(answer.ms.iter().all(|ms| ms.is_finite() && *ms > 0.0));
        prop_assert!(answer.ms[0] <= answer.ms[1] && answer.ms[1] <= answer.ms[2]);
        prop_assert!(answer.variance.is_finite() && answer.variance > 0.0);
    }
}
