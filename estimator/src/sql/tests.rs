//! Tests of SQL: what it answers, what it refuses, and that nothing it is asked gets out of bounds.

mod bounds;
mod forms;
mod histograms;
mod joins;
mod narrow;
mod nulls;
mod plain;
mod totals;
mod unsaid;
mod wide;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::testing::{contribution, row, training_key, validation_key};
use crate::{Estimator, PriceBook};

async fn estimator() -> Estimator {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    over(&store).await
}

async fn over(store: &Arc<dyn ObjectStore>) -> Estimator {
    let base = url::Url::parse("memory:///bench/").expect("url");
    let estimator =
        Estimator::over(Arc::clone(store), base, PriceBook::default()).expect("estimator");
    for (id, hardware, avg_ms) in [
        (1, "rtx4090", 14_000),
        (2, "rtx4090", 14_200),
        (3, "h100", 5_010),
    ] {
        let rows = vec![
            row(training_key("flux.dev/lora", hardware), avg_ms, 150),
            row(validation_key("flux.dev/lora", hardware), 20_000, 9),
        ];
        estimator
            .record(vec![contribution(id, rows)])
            .await
            .expect("stored");
    }
    estimator
}

fn text(answer: &Answer) -> Vec<String> {
    let cell = |cell: Option<String>| cell.unwrap_or_else(|| "null".into());
    answer
        .cells()
        .into_iter()
        .map(|row| row.into_iter().map(cell).collect::<Vec<_>>().join(" | "))
        .collect()
}

/// An engine over twenty thousand rows in one object.
pub(super) async fn large(
    store: &Arc<dyn ObjectStore>,
    time_max: Duration,
) -> (Engine, impl Fn() -> Vec<View>) {
    let rows: Vec<_> = (0..20_000)
        .map(|n| row(training_key("flux.dev/lora", "h100"), 1 + n % 999, 150))
        .collect();
    let file = crate::table::plain_file(crate::table::Kind::Training, rows).expect("file");
    let bytes = file.len() as u64;
    store
        .put(&"training_steps/one.parquet".into(), file.into())
        .await
        .expect("put");
    let engine = Engine {
        time_max,
        ..Engine::new()
    };
    let view = move || View {
        kind: crate::table::Kind::Training,
        files: vec![crate::table::DataFile {
            path: "one.parquet".into(),
            bytes,
        }],
    };
    (engine, move || vec![view()])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_and_says_what_it_read() {
    let estimator = estimator().await;
    let answer = estimator
        .sql("SELECT hardware, count(*) AS runs, avg(avg_step_ms) AS ms FROM training_steps GROUP BY 1 ORDER BY ms")
        .await
        .expect("answer");
    assert_eq!(
        text(&answer),
        ["h100x1 | 1 | 5010.0", "rtx4090x1 | 2 | 14100.0"]
    );
    let names: Vec<_> = answer.columns().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["hardware", "runs", "ms"]);
    assert_eq!((answer.rows(), answer.truncated), (2, false));
    assert_eq!((answer.objects_read, answer.objects), (3, 6));
    assert!(answer.bytes_read > 0 && answer.elapsed > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_people_write() {
    let estimator = estimator().await;
    for (statement, first) in [
        ("select 1", "1"),
        ("SELECT count(*) FROM validation_prompts;", "3"),
        ("SELECT count(*) FROM Validation", "3"),
        (
            "DESCRIBE validation",
            "recipe | text | model family, flavour and method, such as flux.dev/lora; +ckpt with gradient checkpointing, @81f for clips of up to 81 frames",
        ),
        (
            "SELECT median(avg_step_ms) FROM training_steps WHERE hardware = 'rtx4090x1'",
            "14100",
        ),
        (
            "SELECT round(approx_percentile_cont(avg_step_ms, 0.9) / 1000, 1) FROM training_steps",
            "14",
        ),
        (
            "SELECT count(*) FROM training_steps WHERE resolution_mp = 1.0 AND recipe LIKE 'flux%'",
            "3",
        ),
        (
            "WITH t AS (SELECT * FROM training_steps) SELECT count(*) FROM t JOIN t AS u ON t.hardware = u.hardware",
            "5",
        ),
        (
            "SELECT hardware FROM training_steps WHERE avg_step_ms = (SELECT min(avg_step_ms) FROM training_steps)",
            "h100x1",
        ),
        (
            "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY avg_step_ms) AS n FROM training_steps)",
            "3",
        ),
        (
            "SELECT hardware FROM training_steps UNION SELECT hardware FROM validation_prompts ORDER BY 1",
            "h100x1",
        ),
        (
            "SELECT upper(split_part(recipe, '/', 2)) FROM training_steps LIMIT 1",
            "LORA",
        ),
        (
            "SHOW TABLES",
            "training_steps | step times: one row per run and kind of step, without any trace of who ran it",
        ),
    ] {
        let answer = estimator
            .sql(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        let lines = text(&answer);
        let found = lines[0].strip_suffix(".0").unwrap_or(&lines[0]);
        assert!(found.starts_with(first), "{statement}: {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_are_described() {
    let estimator = estimator().await;
    for statement in [
        "DESCRIBE training_steps",
        "SHOW COLUMNS FROM training_steps",
    ] {
        let lines = text(&estimator.sql(statement).await.expect(statement));
        assert_eq!(lines.len(), 9, "{lines:?}");
        assert!(
            lines[7].starts_with("avg_step_ms | integer | mean time of one optimizer step"),
            "{lines:?}"
        );
    }
    for table in tables() {
        assert!(!table.description.is_empty());
        assert!(
            table
                .columns
                .iter()
                .all(|column| !column.description.is_empty()),
            "{table:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_the_plan_and_no_place_outside() {
    let estimator = estimator().await;
    for verb in ["EXPLAIN", "EXPLAIN ANALYZE"] {
        let statement =
            format!("{verb} SELECT count(*) FROM training_steps WHERE hardware = 'h100x1'");
        let plan = text(&estimator.sql(&statement).await.expect("plan")).join("\n");
        assert!(plan.contains("DataSourceExec"), "{plan}");
        assert!(
            !plan.contains("bench"),
            "the store's own prefix stays inside: {plan}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_history_has_tables_too() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let base = url::Url::parse("memory:///bench/").expect("url");
    let estimator = Estimator::over(store, base, PriceBook::default()).expect("estimator");
    let answer = estimator
        .sql("SELECT recipe, avg_step_ms FROM training_steps")
        .await
        .expect("answer");
    assert_eq!((answer.rows(), answer.columns().len()), (0, 2));
    let answer = estimator
        .sql("SELECT count(*) FROM training_steps")
        .await
        .expect("answer");
    assert_eq!(text(&answer), ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_the_nearest_name() {
    let estimator = estimator().await;
    for (statement, message, hint) in [
        (
            "SELECT * FROM trainig_steps",
            "there is no table `trainig_steps`",
            "did you mean `training_steps`?",
        ),
        (
            "SELECT * FROM jobs",
            "there is no table `jobs`",
            "the tables are training_steps and validation_prompts",
        ),
        (
            "SELECT avg_step FROM training_steps",
            "there is no column `avg_step`",
            "did you mean `avg_step_ms`?",
        ),
        (
            "SELECT mediann(avg_step_ms) FROM training_steps",
            "there is no function `mediann` here",
            "did you mean `median`?",
        ),
        (
            "DESCRIBE validation_prompt",
            "there is no table `validation_prompt`",
            "did you mean `validation_prompts`?",
        ),
    ] {
        let error = estimator.sql(statement).await.expect_err(statement);
        assert_eq!(
            (error.to_string().as_str(), error.hint()),
            (message, Some(hint)),
            "{statement}"
        );
    }
    let error = estimator.sql("SELEC 1").await.expect_err("no SQL");
    assert!(
        error
            .to_string()
            .starts_with("the statement cannot be read: "),
        "{error}"
    );
    assert!(estimator.sql("").await.is_err());
    for (statement, message) in [
        ("SELECT 1 / 0", "Divide by zero error"),
        (
            "SELECT CAST(recipe AS INT) FROM training_steps",
            "Cannot cast string 'flux.dev/lora' to value of Int32 type",
        ),
    ] {
        let error = estimator.sql(statement).await.expect_err(statement);
        assert_eq!(error.to_string(), message, "{statement}");
    }
    let error = estimator
        .sql("SELECT recipe FROM training_steps t JOIN training_steps u ON t.recipe = u.recipe")
        .await;
    assert!(error.expect_err("ambiguous").to_string().contains("recipe"));
}

/// Everything that would write, leave the two tables, or reach a file.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_reading_is_allowed() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let estimator = over(&store).await;
    let folder = tempfile::tempdir().expect("folder");
    let secret = folder.path().join("secret.csv");
    std::fs::write(&secret, "canary\n1\n").expect("file");
    let secret = secret.display();
    let before = objects(&store).await;
    for statement in [
        format!("SELECT * FROM '{secret}'"),
        format!("SELECT * FROM \"{secret}\""),
        "SELECT * FROM 's3://bucket/file.parquet'".into(),
        format!("SELECT * FROM read_csv('{secret}')"),
        "SELECT * FROM read_parquet('/etc/passwd')".into(),
        format!("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{secret}'"),
        format!("COPY (SELECT 1) TO '{secret}.out'"),
        format!("COPY training_steps TO '{secret}.out' STORED AS CSV"),
        "INSERT INTO training_steps VALUES (1)".into(),
        "DELETE FROM training_steps".into(),
        "UPDATE training_steps SET batch_size = 1".into(),
        "TRUNCATE TABLE training_steps".into(),
        "DROP TABLE training_steps".into(),
        "CREATE TABLE x AS SELECT 1".into(),
        "CREATE VIEW x AS SELECT 1".into(),
        "CREATE SCHEMA x".into(),
        "CREATE DATABASE x".into(),
        "CREATE FUNCTION f() RETURNS INT RETURN 1".into(),
        "SELECT 1 INTO x".into(),
        "SET datafusion.execution.batch_size = 1".into(),
        "RESET datafusion.execution.batch_size".into(),
        "SHOW ALL".into(),
        "PREPARE p AS SELECT 1".into(),
        "EXECUTE p".into(),
        "BEGIN".into(),
        "EXPLAIN INSERT INTO training_steps VALUES (1)".into(),
        format!("EXPLAIN ANALYZE COPY training_steps TO '{secret}.out'"),
        "SELECT 1; SELECT 2".into(),
        "SELECT 1; DROP TABLE training_steps".into(),
        "WITH x AS (INSERT INTO training_steps VALUES (1)) SELECT 1".into(),
        "SELECT * FROM generate_series(1, 10)".into(),
        "SELECT * FROM range(1, 10)".into(),
        "SELECT * FROM unnest([1, 2, 3])".into(),
        "SELECT * FROM information_schema.tables".into(),
        "SELECT * FROM information_schema.df_settings".into(),
        "SELECT * FROM datafusion.public.training_steps".into(),
        "SELECT input_file_name() FROM training_steps".into(),
        "SELECT version()".into(),
        "SELECT * FROM training_steps FOR UPDATE".into(),
        "SELECT $1".into(),
        "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
            .into(),
        "VACUUM".into(),
        "CALL f()".into(),
        "KILL 1".into(),
    ] {
        let error = estimator.sql(&statement).await.expect_err(&statement);
        assert!(
            matches!(error, Error::Refused { .. } | Error::Query { .. }),
            "{statement}: {error:?}"
        );
        assert!(
            !error.to_string().contains("canary"),
            "{statement}: {error}"
        );
    }
    assert_eq!(objects(&store).await, before, "nothing was written");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("folder").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        text(
            &estimator
                .sql("SELECT count(*) FROM training_steps")
                .await
                .expect("answer")
        ),
        ["3"]
    );
}

async fn objects(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    use futures::TryStreamExt;
    let all: Vec<_> = store.list(None).try_collect().await.expect("list");
    let mut names: Vec<String> = all
        .into_iter()
        .map(|object| object.location.to_string())
        .collect();
    names.sort_unstable();
    names
}
