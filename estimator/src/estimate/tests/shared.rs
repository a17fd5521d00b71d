//! What several GPUs make of a validation.

use super::*;

/// Five prompts on four GPUs: one of them makes two, and their images, while the others make the rest.
#[test]
fn a_validation_takes_as_long_as_the_busiest_gpu() {
    let mut workload = example();
    workload
        .validation
        .as_mut()
        .expect("validation")
        .generations = 15;
    let alone = estimate(&example_records(), &workload, "rtx4090x4");
    workload.sharing.validation_prompts = 5;
    let shared = estimate(&example_records(), &workload, "rtx4090x4");
    let (all, busiest) = (middle(alone.validation_ms), middle(shared.validation_ms));
    assert!((busiest * 5).abs_diff(all * 2) <= 5, "{busiest} of {all}");
    let images = |estimate: &Estimate| {
        let mut phases = estimate.phases.iter();
        let images = phases.find(|phase| phase.kind == PhaseKind::Validate);
        images.expect("images").count
    };
    assert_eq!(images(&alone), images(&shared), "all of them are made");
    let on_one = estimate(&example_records(), &workload, "rtx4090");
    workload.sharing = Sharing::default();
    let as_before = estimate(&example_records(), &workload, "rtx4090");
    assert_eq!(on_one, as_before);
}
