//! Orders and windows by columns that a condition makes constant in a part of the rows, against answers worked out by hand.

use super::joins::{answered, several};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_constant_in_some_rows_is_sorted_by() {
    let estimator = several().await;
    let all = "(SELECT DISTINCT hardware FROM training_steps) s";
    let of_flux =
        "(SELECT hardware, recipe, avg_prompt_ms FROM validation WHERE recipe = 'flux.dev/lora') v";
    let flux = "flux.dev/lora";
    let measured = [
        format!("h100x1 | {flux}"),
        format!("rtx4090x1 | {flux}"),
        "b200x1 | null".to_owned(),
    ];
    for join in [
        format!("{all} LEFT JOIN {of_flux} ON v.hardware = s.hardware"),
        format!("{of_flux} RIGHT JOIN {all} ON v.hardware = s.hardware"),
        format!("{all} FULL JOIN {of_flux} ON v.hardware = s.hardware"),
        format!("{all} LEFT JOIN validation v ON v.hardware = s.hardware AND v.recipe = '{flux}'"),
        format!(
            "{all} LEFT JOIN {of_flux} ON v.hardware >= s.hardware AND v.hardware <= s.hardware"
        ),
    ] {
        let ordered =
            format!("SELECT s.hardware, v.recipe FROM {join} ORDER BY v.recipe, s.hardware");
        assert_eq!(answered(&estimator, &ordered).await, measured, "{ordered}");
        let first = format!("{ordered} LIMIT 2");
        assert_eq!(answered(&estimator, &first).await, measured[..2], "{first}");
        let ranked = format!(
            "SELECT h, n FROM (SELECT s.hardware AS h, row_number() OVER (PARTITION BY v.recipe ORDER BY s.hardware) AS n \
             FROM {join}) r ORDER BY h"
        );
        let ranks = ["b200x1 | 1", "h100x1 | 1", "rtx4090x1 | 2"];
        assert_eq!(answered(&estimator, &ranked).await, ranks, "{ranked}");
    }
    let joined = "SELECT v.precision, t.hardware, t.avg_step_ms FROM validation v RIGHT JOIN training_steps t \
                  ON v.hardware = t.hardware AND v.precision = 'fp16' ORDER BY v.precision, t.hardware, t.avg_step_ms";
    assert_eq!(
        answered(&estimator, joined).await,
        [
            "fp16 | h100x1 | 400",
            "fp16 | h100x1 | 500",
            "null | b200x1 | 50",
            "null | rtx4090x1 | 300",
            "null | rtx4090x1 | 1000"
        ]
    );
    for (sets, rows) in [
        (
            "ROLLUP(hardware, precision)",
            &[
                "h100x1 | bf16 | 1",
                "h100x1 | fp16 | 1",
                "h100x1 | null | 2",
                "null | null | 2",
            ][..],
        ),
        (
            "GROUPING SETS ((precision), (hardware))",
            &["h100x1 | null | 2", "null | bf16 | 1", "null | fp16 | 1"],
        ),
    ] {
        let plain = format!(
            "SELECT hardware, precision, count(*) AS n FROM training_steps WHERE hardware = 'h100x1' GROUP BY {sets}"
        );
        let ordered = format!("{plain} ORDER BY hardware, precision");
        assert_eq!(answered(&estimator, &ordered).await, rows, "{ordered}");
        let within = format!("SELECT * FROM ({plain}) r ORDER BY hardware, precision");
        assert_eq!(answered(&estimator, &within).await, rows, "{within}");
    }
}
