//! Comparisons with what is cast to a type that does not hold every value, against answers worked out by hand. The rows are
//! those of `joins`: steps of 1,000, 500, 400, 300 and 50 ms.

use super::joins::{answered, several};
use super::nulls::counts;

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_null_and_compared_as_that() {
    counts(&[
        ("TRY_CAST(avg_step_ms AS TINYINT) >= 40", "1"),
        ("40 <= TRY_CAST(avg_step_ms AS TINYINT)", "1"),
        ("NOT (TRY_CAST(avg_step_ms AS TINYINT) < 40)", "1"),
        ("(TRY_CAST(avg_step_ms AS TINYINT) < 40) IS NULL", "4"),
        ("TRY_CAST(avg_step_ms AS TINYINT) <> 7", "1"),
        ("TRY_CAST(avg_step_ms AS TINYINT) IN (50, 100)", "1"),
        ("TRY_CAST(avg_step_ms AS TINYINT) NOT IN (7, 8)", "1"),
        ("TRY_CAST(avg_step_ms AS TINYINT) BETWEEN 1 AND 127", "1"),
        (
            "CASE WHEN TRY_CAST(avg_step_ms AS TINYINT) > 0 THEN 1 END = 1",
            "1",
        ),
        ("TRY_CAST(avg_step_ms AS DECIMAL(4, 1)) > 60", "3"),
        ("TRY_CAST(avg_step_ms * 100 AS SMALLINT) > 0", "2"),
        // What fits, or is no number.
        ("TRY_CAST(avg_step_ms AS SMALLINT) >= 300", "4"),
        ("CAST(avg_step_ms AS BIGINT) > 300", "3"),
        ("CAST(avg_step_ms AS DECIMAL(12, 2)) = 400", "1"),
        ("CAST(avg_step_ms AS TEXT) = '400'", "1"),
        ("TRY_CAST(hardware AS INT) IS NULL", "5"),
    ])
    .await;
    let estimator = several().await;
    for statement in [
        "SELECT count(*) FROM training_steps WHERE CAST(avg_step_ms AS TINYINT) > 50",
        "SELECT CAST(avg_step_ms AS TINYINT) FROM training_steps",
    ] {
        let error = estimator.sql(statement).await.expect_err(statement);
        assert!(error.to_string().contains("Int8"), "{statement}: {error}");
    }
    let grouped = "SELECT TRY_CAST(avg_step_ms AS TINYINT) >= 40 AS is_long, count(*), \
                   count(TRY_CAST(avg_step_ms AS TINYINT)) FROM training_steps GROUP BY 1 ORDER BY 2";
    let answer = answered(&estimator, grouped).await;
    assert_eq!(answer, ["true | 1 | 1", "null | 4 | 0"]);
}
