//! A statement over one table is planned with fewer rules; within another query it is planned with all of them.

use super::super::guard::Statement;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_statement_answers_what_it_answers_with_all_rules() {
    let estimator = estimator().await;
    for statement in [
        "SELECT 1 + 1 AS n",
        "SELECT DISTINCT hardware FROM training_steps",
        "SELECT DISTINCT ON (hardware) hardware, avg_step_ms FROM training_steps ORDER BY hardware, avg_step_ms",
        "SELECT hardware, avg_step_ms FROM training_steps WHERE avg_step_ms + 0 > 2 * 7000 AND true",
        "SELECT hardware FROM training_steps WHERE 1 = 0",
        "SELECT hardware FROM training_steps WHERE hardware IN ('h100x1', 'b200x1') OR batch_size IS NULL",
        "SELECT hardware, count(DISTINCT avg_step_ms) AS n FROM training_steps GROUP BY hardware HAVING count(*) > 1",
        "SELECT 1 AS one, hardware, max(avg_step_ms) AS most FROM training_steps GROUP BY 1, 2",
        "SELECT avg_step_ms FROM training_steps ORDER BY avg_step_ms DESC, avg_step_ms LIMIT 2 OFFSET 1",
        "SELECT hardware, row_number() OVER (PARTITION BY hardware ORDER BY avg_step_ms) AS n FROM training_steps",
        "SELECT CASE WHEN avg_step_ms / 2 > 3000 THEN avg_step_ms / 2 ELSE 0 END AS half FROM training_steps",
        "SELECT hardware, batch_size, sum(steps_observed) AS n FROM training_steps GROUP BY ROLLUP (hardware, batch_size)",
        "SELECT median(avg_step_ms) AS middle FROM training_steps AS t WHERE t.hardware LIKE 'rtx%'",
    ] {
        let plain = estimator.sql(statement).await.expect(statement);
        let within = format!("SELECT * FROM ({statement}) AS inner_query");
        let within = estimator.sql(&within).await.expect(statement);
        let sorted = |answer: &Answer| {
            let mut rows = text(answer);
            rows.sort_unstable();
            (answer.columns(), rows)
        };
        assert_eq!(sorted(&plain), sorted(&within), "{statement}");
    }
}

#[test]
fn only_one_table_without_a_query_within_is_plain() {
    let is_plain = |statement: &str| match guard::read(statement) {
        Ok(Statement::Query { is_plain, .. }) => is_plain,
        other => panic!("{statement}: {other:?}"),
    };
    for statement in [
        "SELECT 1",
        "SELECT count(*) FROM training_steps WHERE batch_size = 4",
        "EXPLAIN SELECT count(*) FROM training_steps",
    ] {
        assert!(is_plain(statement), "{statement}");
    }
    for statement in [
        "SELECT 1 FROM training_steps a JOIN training_steps b ON a.recipe = b.recipe",
        "SELECT 1 FROM training_steps, validation_prompts",
        "SELECT (SELECT max(batch_size) FROM training_steps)",
        "SELECT 1 FROM training_steps WHERE recipe IN (SELECT recipe FROM validation_prompts)",
        "WITH t AS (SELECT 1) SELECT * FROM t",
        "SELECT 1 UNION SELECT 2",
        "SELECT * FROM (SELECT 1)",
    ] {
        assert!(!is_plain(statement), "{statement}");
    }
}
