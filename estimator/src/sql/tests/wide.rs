//! Sums, differences and products of columns that do not fit into the 32 bits of the columns themselves.

use stepcast_records::Row;

use super::joins::answered;
use super::*;

/// Two rows: of a model of videos with steps of 50,000 ms, and of one with the longest that a row may have.
async fn long() -> Estimator {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let base = url::Url::parse("memory:///bench/").expect("url");
    let estimator = Estimator::over(store, base, PriceBook::default()).expect("estimator");
    let rows: Vec<Row> = vec![
        row(training_key("flux.dev/lora", "l40s"), 50_000, 1_000),
        row(training_key("flux.dev/lora", "h100"), 3_000_000, 1_000),
    ];
    let stored = estimator.record(vec![contribution(1, rows)]).await;
    stored.expect("stored");
    estimator
}

#[tokio::test(flavor = "multi_thread")]
async fn products_of_columns_do_not_wrap() {
    let estimator = long().await;
    for (statement, rows) in [
        (
            "SELECT sum(avg_step_ms*avg_step_ms)/count(*) FROM training_steps WHERE hardware = 'l40sx1'",
            &["2500000000"][..],
        ),
        (
            "SELECT sum(avg_step_ms*steps_observed)/sum(steps_observed) FROM training_steps",
            &["1525000"],
        ),
        (
            "SELECT avg_step_ms*steps_observed - steps_observed FROM training_steps ORDER BY avg_step_ms * steps_observed",
            &["49999000", "2999999000"],
        ),
        (
            "SELECT avg_step_ms*steps_observed, count(*) FROM training_steps GROUP BY avg_step_ms*steps_observed \
             HAVING max(avg_step_ms*steps_observed) > 2147483647 ORDER BY avg_step_ms*steps_observed",
            &["3000000000 | 1"],
        ),
        (
            "SELECT hardware FROM training_steps WHERE avg_step_ms*steps_observed > 2147483647",
            &["h100x1"],
        ),
        (
            "SELECT a.avg_step_ms*b.avg_step_ms FROM training_steps a JOIN training_steps b \
             ON a.avg_step_ms*a.steps_observed = b.avg_step_ms*b.steps_observed WHERE a.hardware = 'h100x1'",
            &["9000000000000"],
        ),
        (
            "SELECT hardware FROM training_steps t WHERE EXISTS (SELECT 1 FROM training_steps o \
             WHERE o.avg_step_ms*o.steps_observed > t.avg_step_ms*t.steps_observed)",
            &["l40sx1"],
        ),
        (
            "SELECT most*most FROM (SELECT max(avg_step_ms+steps_observed) AS most FROM training_steps)",
            &["9006001000000"],
        ),
        (
            "SELECT DISTINCT sum(avg_step_ms*steps_observed) OVER () FROM training_steps",
            &["3050000000"],
        ),
    ] {
        assert_eq!(answered(&estimator, statement).await, rows, "{statement}");
        let within = format!("SELECT * FROM ({statement}) AS q");
        let mut within = answered(&estimator, &within).await;
        within.sort_unstable_by_key(String::len);
        assert_eq!(within, rows, "{statement}");
    }
}

/// A column is called what it would be called without ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_product_keeps_its_name() {
    let estimator = long().await;
    let statement = "SELECT avg_step_ms*steps_observed, max(avg_step_ms+batch_size), 2*batch_size*gradient_accumulation_steps FROM training_steps GROUP BY 1, 3";
    let answer = estimator.sql(statement).await.expect(statement);
    let columns: Vec<_> = answer.columns().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        columns,
        [
            "training_steps.avg_step_ms * training_steps.steps_observed",
            "max(training_steps.avg_step_ms + training_steps.batch_size)",
            "Int64(2) * training_steps.batch_size * training_steps.gradient_accumulation_steps",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_sign_gets_one_by_a_difference() {
    let estimator = long().await;
    let ranks = "rank() OVER (ORDER BY avg_step_ms) AS up, row_number() OVER (ORDER BY avg_step_ms DESC) AS down";
    for (statement, rows) in [
        (
            format!("SELECT up - down FROM (SELECT {ranks} FROM training_steps) r ORDER BY 1"),
            &["-1", "1"][..],
        ),
        (
            format!("SELECT count(*) FROM (SELECT {ranks} FROM training_steps) r WHERE up - down < 0"),
            &["1"],
        ),
        (
            "SELECT rank() OVER (ORDER BY avg_step_ms) - 2 AS d FROM training_steps ORDER BY d".to_owned(),
            &["-1", "0"],
        ),
        (
            "SELECT sum(steps_observed) - sum(avg_step_ms), sum(steps_observed) - 3000 FROM training_steps".to_owned(),
            &["-3048000 | -1000"],
        ),
        (
            "SELECT (SELECT max(avg_step_ms) FROM training_steps WHERE hardware = 'l40sx1') - max(avg_step_ms) \
             FROM training_steps"
                .to_owned(),
            &["-2950000"],
        ),
    ] {
        assert_eq!(answered(&estimator, &statement).await, rows, "{statement}");
    }
    let told =
        estimator.sql("SELECT rank() OVER (ORDER BY avg_step_ms) - 1 AS d FROM training_steps");
    let kind = told.await.expect("answered").batches[0]
        .schema()
        .field(0)
        .data_type()
        .clone();
    assert_eq!(kind, datafusion::arrow::datatypes::DataType::Int64);
}
