//! A job's folder of results, from the attempt that it is made for until its job has been over for long enough.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod leader;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leader::{Leader, PATIENCE, TOKEN, files, workload};
use stepcast_proto::v1;
use stepcast_worker::config::WorkerConfig;
use stepcast_worker::gpu::Offer;
use stepcast_worker::run_until;
use tokio::sync::Notify;

/// A worker on the processor whose trainer saves something and ends, and whose results go as soon as their job is over.
fn config(leader: &Leader, root: &Path) -> WorkerConfig {
    let helper = vec![env!("CARGO_BIN_EXE_stepcast-worker").into()];
    let servers = vec![leader.address.clone()];
    let mut config = WorkerConfig::replay(servers, root.join("state"), helper);
    config.join_token = Some(TOKEN.to_owned());
    config.offer = Offer::Cpu;
    let trainer = root.join("trainer.sh");
    let weights = root.join("state/outputs/j5/weights");
    std::fs::write(&trainer, format!("echo w > {}\n", weights.display())).unwrap();
    config.simpletuner_command = Some(vec!["/bin/sh".to_owned(), trainer.display().to_string()]);
    config.outputs_kept = Some(Duration::ZERO);
    config
}

#[tokio::test]
async fn results_stay_until_the_leader_says_that_the_job_is_over_and_nothing_else_goes() {
    let mut leader = Leader::with(10_000, files("")).await;
    let root = tempfile::tempdir().unwrap();
    let outputs = root.path().join("state/outputs");
    let others = root.path().join("others");
    for folder in [outputs.join("mine"), others.clone()] {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("precious"), "p").unwrap();
    }
    symlink(&others, outputs.join("elsewhere")).unwrap();

    let stop = Arc::new(Notify::new());
    let start = |config| {
        let asked = Arc::clone(&stop);
        tokio::spawn(run_until(config, async move { asked.notified().await }))
    };
    let worker = start(config(&leader, root.path()));
    leader.attached().await;
    leader
        .assign(5, v1::Trainer::Simpletuner, workload(10))
        .await;
    assert_eq!(leader.ended().await.epoch, 5);
    stop.notify_one();
    worker.await.unwrap().unwrap();
    assert!(outputs.join("j5/weights").exists());

    leader.ways.over.store(true, Ordering::SeqCst);
    let worker = start(config(&leader, root.path()));
    let gone = async {
        while outputs.join("j5").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    stop.notify_one();
    worker.await.unwrap().unwrap();
    assert!(outputs.join("mine/precious").exists() && others.join("precious").exists());
    assert!(outputs.join("elsewhere").is_symlink());
}
