//! What is said of hardware that cannot hold a run, unless it has held it.

use stepcast_records::{Fit, PhaseKind};

use super::*;

#[test]
fn a_model_that_is_too_large_is_listed_with_a_note() {
    let mut workload = example();
    workload.recipe = Recipe::parse("flux.dev/full+ckpt").expect("recipe");
    workload.quantization = Quantization::None;
    let gpu = |name: &str| hardware(name).gpu;
    let said = |on: &str| {
        let notes = estimate(&[], &workload, on).notes;
        let gpu = gpu(on);
        (
            notes.contains(&Note::MemoryTight { gpu }),
            notes.contains(&Note::MemoryExceeded { gpu }),
        )
    };
    assert_eq!(said("rtx4090"), (false, true));
    assert_eq!(said("h100"), (true, false));
    assert_eq!(said("b200"), (false, false));
    let key = training_key("flux.dev/full+ckpt", "rtx4090");
    let key = stepcast_records::TrainingKey {
        quantization: Quantization::None,
        ..key
    };
    let ran = estimate(&[row(key, 14_000, 150)], &workload, "rtx4090");
    assert_eq!(
        ran.memory.map(|memory| memory.fit),
        Some(Fit::Fits),
        "it has run there"
    );
}

/// A record of the steps says nothing of how that run prepared itself.
#[test]
fn steps_that_have_run_do_not_make_room_for_what_comes_before_them() {
    let mut workload = example();
    workload.recipe = Recipe::parse("sdxl.base-1.0/lora+ckpt").expect("recipe");
    workload.quantization = Quantization::None;
    workload.datasets.truncate(1);
    workload.datasets[0].samples = Some(640);
    workload.preparation.encoded_at_once = Some(64);
    let plan = workload.plan(1).expect("a plan");
    let key = plan.training[0].0.on(hardware("rtx4090"));
    let ran = estimate(&[row(key, 3_500, 200)], &workload, "rtx4090");
    assert_eq!(ran.basis, Basis::Exact);
    let memory = ran.memory.expect("it has memory");
    assert_eq!(
        (memory.fit, memory.phase),
        (Fit::WillNot, PhaseKind::CacheLatents),
        "{memory:?}"
    );
}
