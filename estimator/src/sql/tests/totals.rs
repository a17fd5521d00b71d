//! Conditions on what makes a row of no rows, against answers worked out by hand.

use super::joins::{answered, several};

/// There are five rows of steps, with 1,000 ms at most, and three of prompts.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_names_no_column_leaves_out_totals() {
    let estimator = several().await;
    let few = "(SELECT count(*) FROM training_steps) > 1000";
    let enough = "(SELECT count(*) FROM training_steps) > 4";
    let total = "SELECT avg(avg_step_ms) AS m, count(*) AS n FROM training_steps";
    let rolled = "SELECT precision, count(*) AS n FROM training_steps GROUP BY ROLLUP(precision)";
    for (statement, rows) in [
        (format!("{total} HAVING {few}"), &[][..]),
        (format!("{total} HAVING {enough}"), &["450.0 | 5"]),
        (format!("SELECT n FROM ({total}) a WHERE {few}"), &[]),
        (format!("SELECT n FROM ({total}) a WHERE {enough}"), &["5"]),
        (format!("SELECT n FROM ({total}) a WHERE NOT {enough}"), &[]),
        (
            format!("WITH a AS ({total}) SELECT n FROM a WHERE {few}"),
            &[],
        ),
        (
            format!("SELECT n FROM ({total} LIMIT 1) a WHERE {few}"),
            &[],
        ),
        // A column that is nothing but a value is none.
        (
            "SELECT z, n FROM (SELECT 1000 AS z, count(*) AS n FROM training_steps) a \
             WHERE (SELECT count(*) FROM validation) > z"
                .to_owned(),
            &[],
        ),
        (
            format!("SELECT count(*) FROM (SELECT 1 AS one FROM ({total}) a) b WHERE {few}"),
            &["0"],
        ),
        (
            "SELECT c FROM (SELECT count(*) AS c FROM validation) a \
             WHERE 0 = (SELECT max(avg_step_ms) FROM training_steps)"
                .to_owned(),
            &[],
        ),
        (
            format!("SELECT a.n, v.hardware FROM ({total}) a, validation v WHERE {few}"),
            &[],
        ),
        (
            format!("SELECT a.n, b.n FROM ({total}) a JOIN ({total}) b ON a.n = b.n AND {few}"),
            &[],
        ),
        (
            format!(
                "SELECT a.n, b.n FROM ({total}) a LEFT JOIN ({total}) b ON a.n = b.n AND {few}"
            ),
            &["5 | null"],
        ),
        (
            "SELECT * FROM (SELECT 'steps' AS what, count(*) AS n FROM training_steps UNION ALL \
             SELECT 'prompts', count(*) FROM validation) a WHERE what = 'steps'"
                .to_owned(),
            &["steps | 5"],
        ),
        (
            "SELECT x.n FROM (SELECT 'h100x1' AS hardware, count(*) AS n FROM training_steps WHERE hardware = 'h100x1') x \
             JOIN (SELECT DISTINCT hardware FROM validation) v ON v.hardware = x.hardware WHERE x.hardware = 'l40sx1'"
                .to_owned(),
            &[],
        ),
        (
            "SELECT * FROM (SELECT 7 AS c, hardware, count(*) AS n FROM training_steps GROUP BY CUBE(hardware)) a \
             WHERE c = 8"
                .to_owned(),
            &[],
        ),
        (
            "SELECT 'x' AS k, count(*) FROM training_steps WHERE avg_step_ms > 9000 GROUP BY k".to_owned(),
            &[],
        ),
        (format!("{rolled} HAVING {few}"), &[]),
        (
            format!("{rolled} HAVING {enough} ORDER BY n"),
            &["fp16 | 2", "bf16 | 3", "null | 5"],
        ),
        (
            format!(
                "SELECT hardware, count(*) FROM training_steps GROUP BY GROUPING SETS ((hardware), ()) HAVING {few}"
            ),
            &[],
        ),
        (
            format!(
                "SELECT n FROM ({total}) a WHERE EXISTS (SELECT 1 FROM validation WHERE {few})"
            ),
            &[],
        ),
        (
            format!(
                "SELECT hardware FROM validation v WHERE (SELECT count(*) FROM training_steps t \
                     WHERE t.hardware = v.hardware AND {enough}) > 1 ORDER BY 1"
            ),
            &["h100x1", "rtx4090x1"],
        ),
    ] {
        assert_eq!(answered(&estimator, &statement).await, rows, "{statement}");
    }
}
