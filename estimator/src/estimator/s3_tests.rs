//! Tests of the doors over an S3 server: several writers, readers of what they wrote, and a server that goes away.

use stepcast_tests::moto::Moto;
use tokio::time::timeout;

use super::*;
use crate::Mapping;
use crate::import::TRAINING_HEADER;
use crate::testing::{contribution, moto, row, training_key};

async fn open(port: u16) -> Estimator {
    let estimator = Estimator::open(moto::config(port), PriceBook::default())
        .await
        .expect("opened");
    assert_eq!(estimator.stats().trouble, None);
    estimator
}

fn batch(ids: std::ops::Range<u8>) -> Vec<Contribution> {
    let run = |id: u8| {
        contribution(
            id,
            vec![row(
                training_key("flux.dev/lora", "rtx4090"),
                100 + u32::from(id),
                150,
            )],
        )
    };
    ids.map(run).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_store_holds_the_history() {
    let Some(mut server) = Moto::start(moto::BUCKET) else {
        return;
    };
    let writers = [
        open(server.port()).await,
        open(server.port()).await,
        open(server.port()).await,
    ];
    let mut tasks = Vec::new();
    for (number, writer) in (0u8..).zip(writers) {
        tasks.push(tokio::spawn(async move {
            // Each batch overlaps the next writer's, as after a change of the leader.
            for round in 0..3 {
                let from = number * 6 + round * 2;
                while let Err(error) = writer.record(batch(from..from + 8)).await {
                    assert!(matches!(error, Error::Contended { .. }), "{error:?}");
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    let estimator = open(server.port()).await;
    assert_eq!(
        estimator.stats().training.rows,
        24,
        "ids 0 to 23, each once"
    );
    let answer = estimator
        .sql("SELECT count(*), count(DISTINCT avg_step_ms) FROM training_steps")
        .await;
    assert_eq!(
        answer.expect("answer").cells(),
        [[Some("24".to_owned()), Some("24".to_owned())]]
    );
    let csv = format!("{TRAINING_HEADER}\nflux.dev/lora,h100,1.0,4,1,bf16,int8,5000,150\n");
    let imported = estimator
        .import("lab", Mapping::Records, csv.as_bytes())
        .await
        .expect("imported");
    assert_eq!(imported.stored, 1);
    assert_eq!(estimator.sources().await.expect("list").len(), 1);

    server.stop();
    let lost = timeout(Duration::from_secs(90), estimator.record(batch(30..31)))
        .await
        .expect("in time");
    let error = lost.expect_err("gone");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(
        estimator.stats().training.rows,
        25,
        "what was known stays known"
    );
    assert!(estimator.stats().trouble.is_some());
}
