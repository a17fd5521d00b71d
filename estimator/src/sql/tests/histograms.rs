//! Tests of the functions that read rows as a histogram.

use super::*;

async fn ask(estimator: &Estimator, call: &str) -> String {
    let statement = format!("SELECT {call} AS x FROM training_steps");
    match estimator.sql(&statement).await {
        Ok(answer) => text(&answer).join(", "),
        Err(error) => format!("{error}"),
    }
}

/// Steps of 14,000, 14,200 and 5,010 ms: of 150, 150 and 150.
#[tokio::test(flavor = "multi_thread")]
async fn steps_are_counted_and_not_rows() {
    let estimator = estimator().await;
    let many = vec![row(
        training_key("flux.dev/lora+ckpt", "h100"),
        1_000,
        1_000,
    )];
    estimator
        .record(vec![contribution(9, many)])
        .await
        .expect("stored");
    for (call, answer) in [
        (
            "histogram_quantile(avg_step_ms, steps_observed, 0.5)",
            "1000.0",
        ),
        (
            "histogram_quantile(avg_step_ms, steps_observed, 0.7)",
            "5010.0",
        ),
        (
            "histogram_quantile(avg_step_ms, steps_observed, 0)",
            "1000.0",
        ),
        (
            "histogram_quantile(avg_step_ms, steps_observed, 1)",
            "14200.0",
        ),
        ("histogram_share(avg_step_ms, steps_observed, 999)", "0.0"),
        (
            "round(1450 * histogram_share(avg_step_ms, steps_observed, 5010))",
            "1150.0",
        ),
        ("histogram_share(avg_step_ms, steps_observed, 1e9)", "1.0"),
        // Each row the same, as percentile_cont has it but without a value between two.
        ("histogram_quantile(avg_step_ms, 1, 0.5)", "5010.0"),
        ("histogram_quantile(avg_step_ms, 0, 0.5)", "null"),
        (
            "histogram_quantile(CASE WHEN false THEN 1 END, steps_observed, 0.5)",
            "null",
        ),
    ] {
        assert_eq!(ask(&estimator, call).await, answer, "{call}");
    }
    let groups = "SELECT hardware, histogram_quantile(avg_step_ms, steps_observed, 0.9) AS p90 FROM training_steps \
                  GROUP BY hardware ORDER BY hardware";
    let groups = estimator.sql(groups).await.expect("answer");
    assert_eq!(text(&groups), ["h100x1 | 5010.0", "rtx4090x1 | 14200.0"]);
    // As many as are asked for, whatever floating point numbers make of 0.07 * 100.
    let exact =
        "SELECT histogram_quantile(x, n, 0.07) AS x FROM (VALUES (1, 7), (2, 93)) AS t(x, n)";
    let exact = estimator.sql(exact).await.expect("answer");
    assert_eq!(text(&exact), ["1.0"]);
    let prompts = "SELECT histogram_quantile(avg_prompt_ms, prompts_observed, 0.5) FROM validation";
    let prompts = estimator.sql(prompts).await.expect("answer");
    assert_eq!(text(&prompts), ["20000.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_time_no_number_or_no_share_is_refused_with_a_sentence() {
    let estimator = estimator().await;
    for (call, says) in [
        (
            "histogram_quantile(avg_step_ms, steps_observed, 1.5)",
            "between 0 and 1",
        ),
        (
            "histogram_quantile(avg_step_ms, steps_observed, 'x')",
            "histogram_quantile",
        ),
        (
            "histogram_quantile(avg_step_ms, steps_observed, NULL)",
            "is a number",
        ),
        (
            "histogram_quantile(avg_step_ms, steps_observed, avg_step_ms)",
            "and no column",
        ),
        (
            "histogram_share(avg_step_ms, steps_observed, -1)",
            "a number of milliseconds",
        ),
        (
            "histogram_quantile(-avg_step_ms, steps_observed, 0.5)",
            "none of them negative",
        ),
        (
            "histogram_quantile(avg_step_ms, -steps_observed, 0.5)",
            "none of them negative",
        ),
        (
            "histogram_quantile(0, 9223372036854775807, 0.5)",
            "more than can be counted",
        ),
        ("histogram_quantile(avg_step_ms)", "histogram_quantile"),
    ] {
        let said = ask(&estimator, call).await;
        assert!(said.contains(says), "{call}: {said}");
    }
}

/// Any split of the rows gives the same: what is put together in parts is what is put together at once.
#[test]
fn parts_are_put_together_to_the_same_whole() {
    use datafusion::arrow::array::{ArrayRef, BinaryArray, Float64Array, Int64Array};
    use datafusion::common::ScalarValue;

    let batch = |times: &[f64], steps: &[i64]| -> Vec<ArrayRef> {
        vec![
            Arc::new(Float64Array::from(times.to_vec())),
            Arc::new(Int64Array::from(steps.to_vec())),
        ]
    };
    let mut whole = super::super::histogram::quantile(0.5);
    let all = batch(&[30.0, 10.0, 20.0, 10.0], &[5, 1, 2, 3]);
    whole.update_batch(&all).expect("counted");
    let mut together = super::super::histogram::quantile(0.5);
    for (times, steps) in [(&[30.0, 10.0], &[5, 1]), (&[20.0, 10.0], &[2, 3])] {
        let mut part = super::super::histogram::quantile(0.5);
        part.update_batch(&batch(times, steps)).expect("counted");
        let state = part.state().expect("state");
        let [ScalarValue::Binary(Some(bytes))] = &state[..] else {
            panic!("{state:?}");
        };
        let states: Vec<ArrayRef> = vec![Arc::new(BinaryArray::from_vec(vec![bytes]))];
        together.merge_batch(&states).expect("put together");
    }
    assert_eq!(
        whole.evaluate().expect("whole"),
        ScalarValue::Float64(Some(20.0))
    );
    assert_eq!(
        together.evaluate().expect("parts"),
        ScalarValue::Float64(Some(20.0))
    );
    assert_eq!(whole.size(), together.size());
}
