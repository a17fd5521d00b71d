//! The parts of a run: what they are, that they add up, and what stands without a time.

use stepcast_records::PhaseKind;

use super::*;

/// Kind, count and middle of every part.
fn parts(estimate: &Estimate) -> Vec<(PhaseKind, u64, Option<u64>)> {
    let parts = estimate.phases.iter();
    let parts = parts.map(|part| (part.kind, part.count, part.ms.map(|ms| ms.p50)));
    parts.collect()
}

#[test]
fn the_parts_of_a_run_add_up_and_each_says_what_it_rests_on() {
    use PhaseKind as Part;
    let mut workload = example();
    workload.checkpoint_every = Some(50);
    let estimate = estimate(&example_records(), &workload, "rtx4090");
    let parts = parts(&estimate);
    let kinds: Vec<_> = parts
        .iter()
        .map(|(kind, count, _)| (*kind, *count))
        .collect();
    let expected = [
        (Part::Start, 1),
        (Part::Load, 1),
        (Part::Quantize, 1),
        (Part::CacheText, 100),
        (Part::CacheLatents, 100),
        (Part::Train, 150),
        (Part::Validate, 9),
        (Part::Checkpoint, 3),
        (Part::Save, 1),
    ];
    assert_eq!(kinds, expected);
    let sum = |is_set_up| {
        let parts = parts
            .iter()
            .filter(|(kind, ..)| kind.is_set_up() == is_set_up);
        parts.filter_map(|(.., ms)| *ms).sum::<u64>()
    };
    assert_eq!(sum(false), middle(estimate.run_ms));
    assert_eq!(sum(true), middle(estimate.setup_ms));
    let basis = |kind| {
        let part = estimate.phases.iter().find(|part| part.kind == kind);
        part.map(|part| (part.basis, part.rows, part.observed))
    };
    assert_eq!(basis(Part::Train), Some((Basis::Exact, 1, 150)));
    assert_eq!(basis(Part::Validate), Some((Basis::Exact, 1, 9)));
    assert_eq!(basis(Part::Load), Some((Basis::Rough, 0, 0)));
}

#[test]
fn steps_stand_by_their_resolution_and_what_nobody_knows_has_no_time() {
    let mut workload = example();
    workload.quantization = Quantization::None;
    workload.datasets.push(Dataset {
        resolution: megapixels(1),
        samples: None,
        ..workload.datasets[0].clone()
    });
    let estimate = estimate(&[], &workload, "h100");
    let parts = parts(&estimate);
    let steps = parts.iter().filter(|(kind, ..)| *kind == PhaseKind::Train);
    assert_eq!(steps.map(|(_, count, _)| *count).sum::<u64>(), 150);
    let caching = |kind| {
        let parts = parts.iter().filter(|(of, ..)| *of == kind);
        parts
            .map(|(_, count, ms)| (*count, ms.is_some()))
            .collect::<Vec<_>>()
    };
    for kind in [PhaseKind::CacheText, PhaseKind::CacheLatents] {
        assert_eq!(caching(kind), [(100, true), (0, false)]);
    }
}

/// Of validation the steps of training know nothing.
#[test]
fn validation_off_the_grid_leaves_the_steps_as_they_were_measured() {
    let mut workload = example();
    let on_grid = estimate(&example_records(), &workload, "rtx4090");
    let validation = workload.validation.as_mut().expect("it validates");
    validation.inference_steps = 22;
    let off_grid = estimate(&example_records(), &workload, "rtx4090");
    assert_eq!(on_grid.basis, Basis::Exact);
    assert_eq!(off_grid.train_ms, on_grid.train_ms);
    let images = |estimate: &Estimate| {
        let mut phases = estimate.phases.iter();
        let images = phases.find(|phase| phase.kind == PhaseKind::Validate);
        images.expect("it validates").basis
    };
    assert_eq!(images(&on_grid), Basis::Exact);
    assert_eq!(images(&off_grid), Basis::Near);
}

/// A record of a family's images elsewhere, a thousand times too long, once and from many.
#[test]
fn one_absurd_record_of_images_says_nothing_of_other_hardware() {
    let workload = example();
    let hour = |count| {
        let key = validation_key("flux.schnell/lora", "rtx3090");
        vec![row(key, 3_600_000, 2); count]
    };
    for on in ["rtx4090", "h100"] {
        let images = |rows: &[Row]| {
            let estimate = estimate(rows, &workload, on);
            estimate.validation_ms.expect("it validates").p50 as f64
        };
        let before = images(&[]);
        let after = images(&hour(1));
        assert!(after / before < 1.2, "{on}: {before} to {after}");
        assert!(
            images(&hour(400)) > 5.0 * before,
            "{on}: that many are right"
        );
    }
}
