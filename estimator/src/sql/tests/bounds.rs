//! Tests of SQL's bounds: time, memory, answers, statements at once, and what only looks small.

use std::time::{Duration, Instant};

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::super::*;
use super::{estimator, large, objects, over, text};

/// Statements that cost an unguarded engine minutes or gigabytes.
#[tokio::test(flavor = "multi_thread")]
async fn what_looks_small_and_is_not_is_refused_before_it_is_planned() {
    let estimator = estimator().await;
    let doubled = |count: usize, first: &str, step: &str| {
        let mut statement = format!("WITH t0 AS ({first})");
        for index in 1..=count {
            statement += &format!(
                ", t{index} AS ({})",
                step.replace("PREV", &format!("t{}", index - 1))
            );
        }
        statement + &format!(" SELECT * FROM t{count}")
    };
    let nested = |open: &str, close: &str, count| {
        format!(
            "SELECT {}1{} FROM training_steps",
            str::repeat(open, count),
            str::repeat(close, count)
        )
    };
    for statement in [
        "SELECT count(*) FROM (SELECT unnest(range(1, 20000000)))".to_owned(),
        "SELECT repeat('x', 200000000)".into(),
        "SELECT lpad('x', 200000000, 'y')".into(),
        "SELECT array_repeat(1, 100000000)".into(),
        "SELECT replace('aaaaaaaaaa', 'a', 'aaaaaaaaaa')".into(),
        "SELECT string_agg(recipe, ',') FROM training_steps".into(),
        doubled(
            60,
            "SELECT 1 AS x",
            "SELECT a.x FROM PREV a CROSS JOIN PREV b",
        ),
        doubled(40, "SELECT 'xxxxxxxx' AS x", "SELECT x || x AS x FROM PREV"),
        doubled(
            40,
            "SELECT 'xxxxxxxx' AS x",
            "SELECT concat(x, x) AS x FROM PREV",
        ),
        format!("SELECT {}", ["'x'"; 40].join(" || ")),
        format!("SELECT 1{}", " + 1".repeat(1_900)),
        nested("(", ")", 1_500),
        nested("abs(", ")", 700),
        nested("- ", "", 1_500),
        nested("CASE WHEN true THEN ", " END", 200),
        format!(
            "SELECT 1 FROM training_steps{}",
            ", training_steps".repeat(40)
        ),
        format!(
            "SELECT 1{}",
            " UNION ALL SELECT 1 FROM training_steps".repeat(30)
        ),
        format!(
            "{}SELECT 1{}",
            "SELECT * FROM (".repeat(200),
            ")".repeat(200)
        ),
        format!("SELECT '{}'", "x".repeat(7_000)),
        format!("SELECT 1 -- {}", "x".repeat(STATEMENT_BYTES_MAX)),
    ] {
        let started = Instant::now();
        let error = estimator.sql(&statement).await.expect_err(&statement);
        let refused = matches!(error, Error::Refused { .. } | Error::Query { .. });
        assert!(
            refused,
            "{}: {error:?}",
            &statement[..statement.len().min(80)]
        );
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{}",
            &statement[..statement.len().min(80)]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_stopped_and_the_next_one_runs() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = large(&store, Duration::from_millis(700)).await;
    // Each takes a turn of its own, and none may keep it: more of them than there are turns, of every way to join.
    for runaway in [
        "SELECT count(*) FROM training_steps a, training_steps b, training_steps c, training_steps d",
        "SELECT count(*) FROM training_steps a, training_steps b WHERE a.avg_step_ms * b.avg_step_ms = 7",
        "SELECT count(*) FROM training_steps a, training_steps b, training_steps c \
         WHERE a.avg_step_ms + b.avg_step_ms + c.avg_step_ms = 7",
        "SELECT count(*) FROM training_steps a JOIN training_steps b USING (precision) \
         JOIN training_steps c USING (precision)",
        "SELECT count(*) FROM training_steps a JOIN training_steps b ON a.avg_step_ms >= b.avg_step_ms \
         JOIN training_steps c ON b.avg_step_ms >= c.avg_step_ms",
        "EXPLAIN ANALYZE SELECT count(*) FROM training_steps a, training_steps b, training_steps c",
    ] {
        let error = engine.run(runaway, &store, views()).await;
        assert!(
            matches!(error, Err(Error::TimedOut(_) | Error::OutOfMemory)),
            "{runaway}: {error:?}"
        );
        // It stops as soon as it looks up: its turn comes back, for which the slowest machine has time enough.
        let all = engine.turns.acquire_many(AT_ONCE as u32);
        let all = timeout(Duration::from_secs(120), all).await;
        assert!(all.is_ok(), "{runaway}: it still runs");
    }
    let answer = engine
        .run("SELECT count(*) FROM training_steps", &store, views())
        .await
        .expect("answer");
    assert_eq!(text(&answer), ["20000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_so_is_the_answer() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = large(&store, Duration::from_secs(60)).await;
    let sorted = "SELECT a.recipe, a.hardware, b.recipe, b.hardware, a.avg_step_ms * b.avg_step_ms AS x \
                  FROM training_steps a CROSS JOIN training_steps b ORDER BY x";
    let error = engine
        .run(sorted, &store, views())
        .await
        .expect_err("too much");
    assert!(matches!(error, Error::OutOfMemory), "{error:?}");
    // What windows look at is held whole.
    for windows in [
        "SELECT max(s) FROM (SELECT sum(a.avg_step_ms) OVER () AS s FROM training_steps a CROSS JOIN training_steps b) w",
        "SELECT max(s) FROM (SELECT count(*) OVER (PARTITION BY a.recipe) AS s FROM training_steps a, training_steps b) w",
    ] {
        let error = engine.run(windows, &store, views()).await;
        assert!(matches!(error, Err(Error::OutOfMemory)), "{error:?}");
    }
    let few = "SELECT max(s) FROM (SELECT sum(avg_step_ms) OVER () AS s FROM training_steps) w";
    engine.run(few, &store, views()).await.expect("an answer");
    let all = engine
        .run("SELECT avg_step_ms FROM training_steps", &store, views())
        .await
        .expect("answer");
    assert_eq!((all.rows(), all.truncated), (ROWS_MAX, true));
    let wide = engine
        .run(
            "SELECT * FROM training_steps a CROSS JOIN training_steps b",
            &store,
            views(),
        )
        .await;
    let wide = wide.expect("answer");
    let bytes: usize = wide
        .batches
        .iter()
        .map(|batch| batch.get_array_memory_size())
        .sum();
    assert!(wide.truncated && bytes < 2 * ANSWER_BYTES_MAX, "{bytes}");
}

/// A hundred columns of sixteen kilobytes are views of one text to the engine.
fn long_texts(columns: usize) -> String {
    let mut text = format!("SELECT '{}' AS x FROM training_steps", "x".repeat(250));
    for _ in 0..6 {
        text = format!("SELECT x || x AS x FROM ({text}) AS t");
    }
    let columns: Vec<_> = (0..columns).map(|at| format!("x a{at}")).collect();
    format!("SELECT {} FROM ({text}) AS t LIMIT 100", columns.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_cut_before_the_row_that_is_too_much() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = large(&store, Duration::from_secs(60)).await;
    let answer = engine.run(&long_texts(100), &store, views()).await;
    let answer = answer.expect("an answer");
    // Each row is 100 times 16,000 bytes.
    assert_eq!((answer.rows(), answer.truncated), (1, true));
    let one = engine.run(&long_texts(200), &store, views()).await;
    let one = one.expect_err("a row is larger than an answer");
    assert!(one.to_string().contains("one row takes more than"), "{one}");
}

/// What sorts hands out its rows in slices of what it has sorted.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_counted_once_whatever_they_are_slices_of() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = large(&store, Duration::from_secs(60)).await;
    let columns = |count, of: &str| -> String {
        let columns: Vec<_> = (1..=count)
            .map(|at| of.replace('N', &at.to_string()))
            .collect();
        columns.join(", ")
    };
    let sorted = format!(
        "SELECT {} FROM (SELECT * FROM training_steps LIMIT 9000) x ORDER BY 1 LIMIT 9000",
        columns(10, "avg_step_ms * N AS cN")
    );
    let answer = engine.run(&sorted, &store, views()).await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.rows(), answer.truncated), (9_000, false));
    // Six megabytes of rows, twenty times.
    let windows = format!(
        "SELECT max(s), {} FROM (SELECT sum(c1) OVER (PARTITION BY c1) s, t.* FROM (SELECT {} FROM \
         (SELECT * FROM training_steps LIMIT 19999) u) t) w",
        columns(40, "max(cN)"),
        columns(40, "avg_step_ms * N AS cN")
    );
    let answer = engine.run(&windows, &store, views()).await;
    assert_eq!(answer.expect("an answer").rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_run_at_once() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = large(&store, Duration::from_secs(60)).await;
    let turns = Arc::clone(&engine.turns)
        .acquire_many_owned(AT_ONCE as u32)
        .await
        .expect("turns");
    let error = engine
        .run("SELECT 1", &store, views())
        .await
        .expect_err("no turn left");
    assert!(
        matches!(error, Error::Busy) && error.is_transient(),
        "{error:?}"
    );
    drop(turns);
    engine
        .run("SELECT 1", &store, views())
        .await
        .expect("a turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_gone_keeps_no_turn() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = large(&store, Duration::from_secs(600)).await;
    let endless = "SELECT count(*) FROM training_steps a, training_steps b, training_steps c, training_steps d";
    for _ in 0..2 * AT_ONCE {
        let asked = timeout(
            Duration::from_millis(300),
            engine.run(endless, &store, views()),
        );
        assert!(asked.await.is_err(), "it cannot have been answered");
    }
    // Far less than the time that a statement may take.
    let all = engine.turns.acquire_many(AT_ONCE as u32);
    let all = timeout(Duration::from_secs(120), all).await;
    assert!(all.is_ok(), "it still runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_gone_is_no_answer() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let estimator = over(&store).await;
    let names = objects(&store).await;
    let lost = names
        .iter()
        .find(|name| name.starts_with("bench/training_steps/") && name.ends_with(".parquet"));
    store
        .delete(&lost.expect("file").as_str().into())
        .await
        .expect("deleted");
    let statement = "SELECT count(avg_step_ms) FROM training_steps";
    let error = estimator.sql(statement).await.expect_err("lost");
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    // It is found then, and the next statement does without it.
    let answer = estimator.sql(statement).await.expect("the others");
    assert_eq!(text(&answer), ["2"]);
    assert_eq!(estimator.stats().training.refused_objects, 1);
}
