//! IN and NOT IN where something is NULL, against answers worked out by hand. The rows are those of `joins`: steps of 1,000,
//! 500, 400, 300 and 50 ms, and prompts of 9,000, 4,000 and 900 ms.

use super::joins::{answered, several};
use super::*;

pub(super) async fn counts(questions: &[(&str, &str)]) {
    let estimator = several().await;
    for (condition, rows) in questions {
        let statement = format!("SELECT count(*) FROM training_steps t WHERE {condition}");
        assert_eq!(
            answered(&estimator, &statement).await,
            [*rows],
            "{statement}"
        );
        // The same where the rows come from a query, which is planned with all rules.
        let within = format!(
            "WITH t AS (SELECT avg_step_ms, hardware FROM training_steps) SELECT count(*) FROM t WHERE {condition}"
        );
        assert_eq!(answered(&estimator, &within).await, [*rows], "{within}");
        let counted = format!("SELECT count(*) FILTER (WHERE {condition}) FROM training_steps t");
        if !condition.contains("SELECT") {
            assert_eq!(answered(&estimator, &counted).await, [*rows], "{counted}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lists_on_one_column_know_null() {
    counts(&[
        (
            "nullif(avg_step_ms, 50) NOT IN (300) OR nullif(avg_step_ms, 50) NOT IN (400)",
            "4",
        ),
        (
            "avg_step_ms NOT IN (NULL, 300) OR avg_step_ms NOT IN (400, 500)",
            "3",
        ),
        (
            "(nullif(avg_step_ms, 50) IN (300, 400, 500, 1000) AND nullif(avg_step_ms, 50) IN (1, 2, 3, 4, 5)) IS NULL",
            "1",
        ),
        (
            "NOT (nullif(avg_step_ms, 50) IN (300, 400) AND nullif(avg_step_ms, 50) IN (500, 1000))",
            "4",
        ),
        (
            "avg_step_ms NOT IN (300, 50, NULL) AND avg_step_ms IN (NULL, 400, NULL, 400)",
            "0",
        ),
        (
            "CASE WHEN nullif(avg_step_ms, 50) IN (300, 400) THEN nullif(avg_step_ms, 50) IN (500, 600) END IS NULL",
            "3",
        ),
        // What is right as it is.
        ("avg_step_ms IN (300, 400, 500) AND avg_step_ms IN (400, 500, 600, 700)", "2"),
        ("avg_step_ms NOT IN (300, 400) AND avg_step_ms NOT IN (500)", "2"),
        ("nullif(avg_step_ms, 50) = 300 OR nullif(avg_step_ms, 50) IN (400, 500)", "3"),
    ])
    .await;
    let estimator = several().await;
    // A list that is written as equations.
    let statement = "WITH t AS (SELECT nullif(avg_step_ms, 50) AS m FROM training_steps) SELECT count(*) FROM t \
         WHERE ((m = 300 OR m = 400) AND (m = 500 OR m = 1000)) IS NULL";
    assert_eq!(answered(&estimator, statement).await, ["1"]);
    let statement = "SELECT ROW_NUMBER() OVER (ORDER BY x), x, n FROM (SELECT nullif(avg_step_ms, 50) NOT IN (300, 400) OR \
         nullif(avg_step_ms, 50) NOT IN (400, 500) AS x, count(*) AS n FROM training_steps GROUP BY 1) g ORDER BY 2";
    assert_eq!(
        answered(&estimator, statement).await,
        ["1 | false | 1", "2 | true | 3", "3 | null | 1"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_in_a_condition_knows_null() {
    counts(&[
        (
            "t.avg_step_ms NOT IN (SELECT nullif(v.avg_prompt_ms, 900) FROM validation v)",
            "0",
        ),
        (
            "t.avg_step_ms NOT IN (SELECT nullif(v.avg_prompt_ms, 900) FROM validation v) OR t.avg_step_ms = 77",
            "0",
        ),
        (
            "(t.avg_step_ms IN (SELECT nullif(v.avg_prompt_ms, 900) FROM validation v)) IS NULL",
            "5",
        ),
        (
            "(nullif(t.avg_step_ms, 50) IN (SELECT avg_step_ms + 100 FROM training_steps)) IS NULL",
            "1",
        ),
        (
            "(nullif(t.avg_step_ms, 50) IN (SELECT avg_prompt_ms FROM validation WHERE avg_prompt_ms < 0)) IS NULL",
            "0",
        ),
        (
            "nullif(t.avg_step_ms, 50) NOT IN (SELECT avg_prompt_ms FROM validation WHERE avg_prompt_ms < 0) OR 1 = 0",
            "5",
        ),
        ("nullif(t.avg_step_ms, 50) NOT IN (SELECT v.avg_prompt_ms FROM validation v)", "4"),
        ("NOT (nullif(t.avg_step_ms, 50) IN (SELECT v.avg_prompt_ms FROM validation v))", "4"),
        (
            "CASE WHEN t.avg_step_ms > 400 THEN t.avg_step_ms END NOT IN (SELECT v.avg_prompt_ms FROM validation v)",
            "2",
        ),
        ("t.avg_step_ms + nullif(t.avg_step_ms, 50) NOT IN (SELECT v.avg_prompt_ms FROM validation v)", "4"),
        ("t.avg_step_ms + 1 NOT IN (SELECT v.avg_prompt_ms FROM validation v)", "5"),
        ("nullif(t.avg_step_ms, 50) IN (SELECT v.avg_prompt_ms - 3500 FROM validation v)", "1"),
        ("NULL NOT IN (SELECT avg_prompt_ms FROM validation)", "0"),
        ("NULL NOT IN (SELECT avg_prompt_ms FROM validation WHERE avg_prompt_ms < 0)", "5"),
        // Of each row's own hardware: 9,000 is NULL, and both rows of that hardware are not known to be out.
        (
            "t.avg_step_ms NOT IN (SELECT nullif(v.avg_prompt_ms, 9000) FROM validation v WHERE v.hardware = t.hardware)",
            "3",
        ),
        (
            "t.avg_step_ms NOT IN (SELECT nullif(v.avg_prompt_ms, 9000) FROM validation v \
             WHERE v.avg_prompt_ms > t.avg_step_ms * 10)",
            "1",
        ),
        (
            "nullif(t.avg_step_ms, 1000) NOT IN (SELECT v.avg_prompt_ms FROM validation v \
             WHERE v.avg_prompt_ms > t.avg_step_ms * 10)",
            "5",
        ),
        (
            "NOT (t.avg_step_ms IN (SELECT nullif(v.avg_prompt_ms, 9000) FROM validation v WHERE v.hardware = t.hardware))",
            "3",
        ),
        (
            "CASE WHEN t.avg_step_ms IN (SELECT nullif(v.avg_prompt_ms, 900) FROM validation v) THEN 1 \
             WHEN t.avg_step_ms NOT IN (SELECT nullif(v.avg_prompt_ms, 900) FROM validation v) THEN 2 ELSE 3 END = 3",
            "5",
        ),
        (
            "t.avg_step_ms NOT IN ((SELECT nullif(v.avg_prompt_ms, 900) FROM validation v)) OR t.avg_step_ms = 77",
            "0",
        ),
        // Both tables have the column, and it is the row's.
        (
            "nullif(avg_step_ms, 77) NOT IN (SELECT nullif(avg_step_ms, 78) FROM training_steps \
             WHERE hardware = 'h100x1') OR t.avg_step_ms = 77",
            "3",
        ),
        (
            "t.hardware NOT IN (SELECT hardware FROM validation WHERE hardware < 'h') OR t.avg_step_ms = 50",
            "5",
        ),
        (
            "t.avg_step_ms NOT IN (SELECT nullif(avg_step_ms, 77) FROM training_steps WHERE avg_step_ms NOT IN \
             (SELECT nullif(avg_step_ms, 78) FROM training_steps WHERE hardware = 'h100x1') OR avg_step_ms = 77) \
             OR t.avg_step_ms = 77",
            "2",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_would_move_out_of_a_query_is_refused_with_what_to_write() {
    let estimator = several().await;
    let rows = "SELECT count(*) FROM training_steps t WHERE";
    for (condition, said, hint) in [
        (
            "0 IN (SELECT count(*) FROM validation v WHERE v.hardware = t.hardware)",
            "put rows together",
            "in parentheses",
        ),
        (
            "t.avg_step_ms NOT IN (SELECT max(v.avg_prompt_ms) FROM validation v WHERE v.hardware = t.hardware)",
            "put rows together",
            "in parentheses",
        ),
        (
            "EXISTS (SELECT max(v.avg_prompt_ms) FROM validation v WHERE v.hardware = t.hardware)",
            "put rows together",
            "in parentheses",
        ),
        (
            "t.avg_step_ms IN (SELECT v.avg_prompt_ms FROM validation v WHERE v.hardware = t.hardware ORDER BY 1 LIMIT 1)",
            "LIMIT",
            "row_number",
        ),
        (
            "EXISTS (SELECT 1 FROM validation v WHERE v.hardware = t.hardware OFFSET 1)",
            "LIMIT",
            "row_number",
        ),
    ] {
        let error = estimator.sql(&format!("{rows} {condition}")).await;
        let error = error.expect_err(condition);
        assert!(
            matches!(error, Error::Query { .. }),
            "{condition}: {error:?}"
        );
        assert!(error.to_string().contains(said), "{condition}: {error}");
        let told = error.hint().unwrap_or_default();
        assert!(told.contains(hint), "{condition}: {told}");
    }
    let error = estimator
        .sql("SELECT avg_step_ms IN (SELECT avg_prompt_ms FROM validation) FROM training_steps")
        .await
        .expect_err("it stands in the list");
    let told = error.hint().unwrap_or_default();
    assert!(told.contains("work in WHERE and HAVING"), "{error:?}");
    let limited =
        format!("{rows} EXISTS (SELECT 1 FROM validation v WHERE v.hardware = t.hardware LIMIT 1)");
    assert_eq!(answered(&estimator, &limited).await, ["5"]);
}
