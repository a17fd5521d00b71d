//! Tests of the forms that a query may have: what the engine would make gigabytes of, ignore, or answer wrongly.

use super::*;

async fn refused(estimator: &Estimator, statement: &str) -> String {
    let started = std::time::Instant::now();
    let error = estimator.sql(statement).await.expect_err(statement);
    assert!(
        matches!(error, Error::Refused { .. } | Error::Query { .. }),
        "{statement}: {error:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(5), "{statement}");
    error.to_string()
}

/// Queries each of which reads the one before, of some first one.
fn levels(count: usize, first: &str, next: &str) -> String {
    let mut statement = format!("WITH a0 AS ({first})");
    for level in 1..=count {
        let next = next.replace("PREV", &format!("a{}", level - 1));
        statement += &format!(", a{level} AS ({next})");
    }
    statement
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grows_while_it_is_planned_is_refused() {
    let estimator = estimator().await;
    let column = "SELECT avg_step_ms AS x FROM training_steps";
    let doubled = |count| {
        levels(count, column, "SELECT x + x AS x FROM PREV")
            + &format!(" SELECT x FROM a{count} WHERE x > 0 LIMIT 1")
    };
    let exists = |count| {
        let inner = "EXISTS (SELECT 1 WHERE ".repeat(count);
        format!("SELECT 1 WHERE {inner}true{}", ")".repeat(count))
    };
    let wide = ["recipe"; 12].join(", ");
    for statement in [
        doubled(26),
        exists(22),
        "WITH \"A0\" AS (SELECT 1 AS y FROM training_steps), a0 AS (SELECT 1), \"A1\" AS (SELECT p.y FROM \"A0\" p, \
         \"A0\" q, \"A0\" r), a1 AS (SELECT 1) SELECT count(*) FROM \"A1\" a, \"A1\" b, \"A1\" c, \"A1\" d, \"A1\" e, \"A1\" f"
            .into(),
        "SELECT CAST(NULL AS DECIMAL(38, 0)[2000000000]) AS x".into(),
        "SELECT CAST(NULL AS BIGINT[1000000000][1000]) AS x FROM training_steps".into(),
        "SELECT CAST(recipe AS STRUCT<a INT>) FROM training_steps".into(),
        "SELECT [avg_step_ms, avg_step_ms] FROM training_steps".into(),
        "SELECT {'a': 1}, MAP {'a': 1}".into(),
        "SELECT unnest([1, 2])".into(),
        "SELECT overlay(recipe placing recipe from 1 for 0) FROM training_steps".into(),
        "SELECT extract(year FROM DATE '2026-01-01')".into(),
        format!("SELECT concat({wide}) FROM training_steps"),
        "SELECT 1 FROM training_steps GROUP BY CUBE (recipe, hardware, precision, quantization, batch_size, \
         avg_step_ms, steps_observed)"
            .into(),
        "SELECT 1 FROM training_steps GROUP BY ROLLUP (recipe, hardware, precision), CUBE (quantization, batch_size, \
         avg_step_ms, steps_observed, resolution_mp)"
            .into(),
        format!(
            "SELECT count(*) FROM {}",
            (0..20)
                .map(|n| format!("(VALUES (1), (2)) t{n}(x)"))
                .collect::<Vec<_>>()
                .join(" CROSS JOIN ")
        ),
    ] {
        refused(&estimator, &statement).await;
    }
    // As much as people write is understood.
    let answer = estimator.sql(&doubled(4)).await.expect("four levels");
    assert_eq!(answer.rows(), 1);
    for statement in [
        "SELECT hardware, grouping(hardware), count(*) FROM training_steps GROUP BY CUBE (hardware, precision)",
        "SELECT concat(recipe, ' on ', hardware), CAST(avg_step_ms AS DOUBLE) / 1000, avg_step_ms::TEXT AS written, \
         CAST(avg_step_ms AS DECIMAL(10, 2)) AS exact FROM training_steps",
        "WITH \"Slow\" AS (SELECT hardware AS h FROM training_steps) SELECT s.h FROM \"Slow\" s JOIN \"Slow\" t ON s.h = t.h",
        "SELECT substring(recipe FROM 1 FOR 4), trim(recipe), recipe ILIKE 'f%', floor(avg_step_ms / 7.0) FROM training_steps",
    ] {
        estimator.sql(statement).await.expect(statement);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_would_ignore_is_refused() {
    let estimator = estimator().await;
    for statement in [
        "SELECT count(*) FROM training_steps WHERE hardware SIMILAR TO 'h100%'",
        "SELECT hardware FROM training_steps EXCEPT ALL SELECT hardware FROM validation",
        "SELECT hardware FROM training_steps INTERSECT ALL SELECT hardware FROM validation",
        "SELECT avg_step_ms ^ 2 FROM training_steps",
        "SELECT t.hardware, x.n FROM training_steps t CROSS JOIN LATERAL (SELECT count(*) AS n FROM validation v \
         WHERE v.hardware = t.hardware) x",
        "SELECT count(*) FROM training_steps TABLESAMPLE (10)",
        "SELECT count(*) FROM training_steps TABLESAMPLE BERNOULLI (1 PERCENT)",
        "SELECT hardware, count(*) FROM training_steps GROUP BY hardware WITH ROLLUP",
        "SELECT hardware, count(*) FROM training_steps GROUP BY hardware WITH TOTALS",
        "SELECT count(*) FROM training_steps PREWHERE avg_step_ms < 0",
        "SELECT count(*) FROM training_steps CONNECT BY 1 = 1",
        "SELECT count(*) FROM training_steps WITH (NOLOCK)",
        "SELECT count(*) FROM training_steps PARTITION (p0)",
        "SELECT * ILIKE 'rec%' FROM training_steps",
        "SELECT t.* ILIKE 'rec%' FROM training_steps t",
        "FROM training_steps",
        "FROM training_steps SELECT recipe",
        "SELECT CAST(avg_step_ms AS VARCHAR(1)) FROM training_steps",
        "SELECT avg_step_ms::CHAR(1) FROM training_steps",
        "SELECT histogram_quantile(DISTINCT avg_step_ms, steps_observed, 0.5) FROM training_steps",
    ] {
        refused(&estimator, statement).await;
    }
    // In quotation marks a name is as it is written, and there is no such table.
    let why = refused(&estimator, "SELECT 1 FROM \"Training_Steps\"").await;
    assert!(why.contains("there is no table"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_within_one_another_answer_what_they_say() {
    let estimator = estimator().await;
    let ask = async |statement: &str| {
        let answer = estimator.sql(statement).await.expect(statement);
        text(&answer)
    };
    for (statement, answer) in [
        (
            "SELECT x FROM (SELECT x + x AS x FROM (SELECT x + x AS x FROM (SELECT 1 AS x) AS a) AS b) AS c",
            "4",
        ),
        (
            "SELECT x FROM (SELECT x + x AS x FROM (SELECT x + x AS x FROM (SELECT 1 AS x)))",
            "4",
        ),
        (
            "SELECT max(x) FROM (SELECT x + x AS x FROM (SELECT x + x AS x FROM (SELECT avg_step_ms AS x FROM \
             training_steps WHERE hardware = 'h100x1')))",
            "20040",
        ),
        ("SELECT * FROM (SELECT 1 AS one)", "1"),
    ] {
        assert_eq!(ask(statement).await, [answer], "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_cannot_be_computed_is_told_as_that() {
    let estimator = estimator().await;
    for condition in [
        "CAST(recipe AS INT) = 1",
        "10 / (batch_size - batch_size) = 1",
    ] {
        let statement = format!("SELECT count(*) FROM training_steps WHERE {condition}");
        refused(&estimator, &statement).await;
    }
    let other = "SELECT a.recipe FROM training_steps a WHERE a.hardware = b.hardware";
    let why = refused(&estimator, other).await;
    assert!(why.contains("`b.hardware`"), "{why}");
}
