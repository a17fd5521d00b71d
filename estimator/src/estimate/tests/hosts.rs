//! Whose host it was: published figures are of other people's machines, and light models wait for the host.

use super::*;

/// A LoRA of one image a step that does not validate.
fn asked(recipe: &str) -> Workload {
    let mut workload = example();
    workload.recipe = Recipe::parse(recipe).expect("recipe");
    workload.quantization = Quantization::None;
    workload.datasets[0].batch_size = 1;
    workload.validation = None;
    workload
}

/// How far p90 is from p10, as a logarithm.
fn width(rows: &[Row], recipe: &str) -> f64 {
    let estimate = estimate(rows, &asked(recipe), "h100");
    let step = estimate.step_ms.expect("a number");
    (step.p90 as f64 / step.p10 as f64).ln()
}

#[test]
fn published_figures_say_less_where_the_host_is_waited_for() {
    let (light, heavy) = ("sdxl.base-1.0/lycoris", "qwen_image.v1.0/lora+ckpt");
    let published = width(&[], light);
    assert!(published > width(&[], heavy) + 0.1, "{published}");
    // A record of this installation's own is of its own hosts.
    let mut key = training_key(light, "h100");
    key.batch_size = stepcast_records::BatchSize::new(1).expect("grid");
    key.quantization = Quantization::None;
    let own = width(&[row(key, 1_510, 140)], light);
    assert!(own < published - 0.1, "{own} {published}");
}
