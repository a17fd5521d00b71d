//! Joins against answers worked out by hand, where the engine's optimizer has answered wrongly.

use stepcast_records::{Precision, Row};

use super::*;

/// Five rows of steps and three of prompts, which differ in recipe, hardware and precision.
pub(super) async fn several() -> Estimator {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let base = url::Url::parse("memory:///bench/").expect("url");
    let estimator = Estimator::over(store, base, PriceBook::default()).expect("estimator");
    let step = |recipe, hardware, precision, ms| {
        let mut key = training_key(recipe, hardware);
        key.precision = precision;
        row(key, ms, 150)
    };
    let prompt = |recipe, hardware, precision, ms| {
        let mut key = validation_key(recipe, hardware);
        key.precision = precision;
        row(key, ms, 9)
    };
    let (flux, sdxl) = ("flux.dev/lora", "sdxl.base-1.0/lora");
    let rows: Vec<Row> = vec![
        step(flux, "rtx4090", Precision::Bf16, 1_000),
        step(flux, "h100", Precision::Fp16, 500),
        step(flux, "h100", Precision::Bf16, 400),
        step(sdxl, "rtx4090", Precision::Bf16, 300),
        step(sdxl, "b200", Precision::Fp16, 50),
        prompt(flux, "rtx4090", Precision::Bf16, 9_000),
        prompt(flux, "h100", Precision::Fp16, 4_000),
        prompt(sdxl, "b200", Precision::Bf16, 900),
    ];
    let stored = estimator.record(vec![contribution(1, rows)]).await;
    stored.expect("stored");
    estimator
}

pub(super) async fn answered(estimator: &Estimator, statement: &str) -> Vec<String> {
    text(&estimator.sql(statement).await.expect(statement))
}

/// Both tables have a column `precision`, and the condition is of the one that the join fills up.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_behind_a_join_is_of_the_table_it_names() {
    let estimator = several().await;
    let joined = "training_steps t RIGHT JOIN validation v ON t.recipe = v.recipe AND t.hardware = v.hardware";
    for (statement, rows) in [
        (
            format!(
                "SELECT v.precision, count(*) FROM {joined} \
                 WHERE t.precision = 'bf16' OR t.precision IS NULL GROUP BY 1 ORDER BY 1"
            ),
            &["bf16 | 1", "fp16 | 1"][..],
        ),
        (
            format!("SELECT count(*), count(v.recipe) FROM {joined} WHERE t.precision = 'bf16'"),
            &["2 | 2"],
        ),
        (
            format!("SELECT v.hardware FROM {joined} AND t.avg_step_ms < 500 WHERE t.hardware IS NULL"),
            &["rtx4090x1"],
        ),
        (
            "SELECT v.hardware FROM (SELECT hardware, count(*) AS n FROM training_steps WHERE avg_step_ms < 100 \
             GROUP BY 1) t RIGHT JOIN validation v ON t.hardware = v.hardware WHERE t.hardware IS NULL ORDER BY 1"
                .to_owned(),
            &["h100x1", "rtx4090x1"],
        ),
        (
            "SELECT t.hardware, v.avg_prompt_ms FROM training_steps t LEFT JOIN validation v \
             ON t.recipe = v.recipe AND t.hardware = v.hardware \
             WHERE t.precision = 'bf16' AND v.precision IS NULL"
                .to_owned(),
            &["rtx4090x1 | null"],
        ),
    ] {
        assert_eq!(answered(&estimator, &statement).await, rows, "{statement}");
    }
}

/// A recipe is unique in `a`, and not in what joins it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_unique_on_one_side_of_a_join_is_not_behind_it() {
    let estimator = several().await;
    for a in [
        "SELECT recipe, avg(avg_prompt_ms) AS p FROM validation GROUP BY recipe",
        "SELECT DISTINCT recipe FROM validation",
    ] {
        let with = format!(
            "WITH a AS ({a}), g AS (SELECT a.recipe, t.hardware, count(*) AS n \
             FROM a JOIN training_steps t ON t.recipe = a.recipe GROUP BY a.recipe, t.hardware)"
        );
        for (statement, rows) in [
            (
                "SELECT split_part(recipe, '.', 1), hardware, n FROM g ORDER BY recipe, hardware",
                &[
                    "flux | h100x1 | 2",
                    "flux | rtx4090x1 | 1",
                    "sdxl | b200x1 | 1",
                    "sdxl | rtx4090x1 | 1",
                ][..],
            ),
            (
                "SELECT count(*) FROM (SELECT DISTINCT recipe FROM g) x",
                &["2"],
            ),
            (
                "SELECT count(*) FROM (SELECT recipe, n FROM g GROUP BY recipe, n) x",
                &["3"],
            ),
            (
                "SELECT count(*) FROM (SELECT v.recipe FROM validation v LEFT JOIN g ON g.recipe = v.recipe) x",
                &["6"],
            ),
            (
                "SELECT n, hardware FROM g ORDER BY recipe DESC, n DESC, hardware LIMIT 3",
                &["1 | b200x1", "1 | rtx4090x1", "2 | h100x1"],
            ),
        ] {
            let whole = format!("{with} {statement}");
            assert_eq!(answered(&estimator, &whole).await, rows, "{whole}");
        }
    }
    // The same within a condition, and with the columns of both sides by one name.
    let within = "SELECT count(*) FROM training_steps WHERE recipe IN (SELECT x.recipe FROM \
         (SELECT recipe FROM validation GROUP BY recipe) x JOIN training_steps t USING (recipe) GROUP BY x.recipe, t.hardware)";
    assert_eq!(answered(&estimator, within).await, ["5"]);
}

/// A hundred thousand groups are handed on in slices of 2.4 MB, each of which counted as all of it.
#[tokio::test(flavor = "multi_thread")]
async fn many_groups_are_sorted_in_the_memory_they_take() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = large(&store, Duration::from_secs(60)).await;
    let statement = "SELECT x, y, count(*) AS n FROM (SELECT DISTINCT avg_step_ms AS x FROM training_steps) a \
         CROSS JOIN (SELECT DISTINCT avg_step_ms AS y FROM training_steps WHERE avg_step_ms <= 100) b \
         GROUP BY x, y ORDER BY n, x DESC, y LIMIT 3 OFFSET 20000";
    let answer = engine
        .run(statement, &store, views())
        .await
        .expect("sorted");
    assert_eq!(text(&answer), ["799 | 1 | 1", "799 | 2 | 1", "799 | 3 | 1"]);
    let whole = statement.replace(" LIMIT 3 OFFSET 20000", "");
    let answer = engine.run(&whole, &store, views()).await.expect("sorted");
    assert!(answer.truncated && answer.rows() == ROWS_MAX);
}
