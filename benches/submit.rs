//! How many submissions a second one node takes with every one of them on disk, and how long each waits.
//!
//! `cargo bench -p stepcast-benches --bench submit -- [DIR [SECONDS]]`: DIR says which disk is measured.
#![expect(clippy::print_stdout, reason = "it is what a person runs it for")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use stepcast_benches::{Latencies, ports, spec, wide};
use stepcast_cluster::{Config, Handle, Node, ProposeError};
use stepcast_scheduler::ids::{RequestId, StagingId};
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::{Command, Rejection};

/// Who submits at the same time, each waiting for its reply before the next.
const PROPOSERS: [usize; 3] = [1, 64, 512];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let below = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    println!("proposers  submits/s    p50 ms    p99 ms    max ms");
    for proposers in PROPOSERS {
        let dir = below.join(format!(
            "stepcast-submit-rate-{}-{proposers}",
            std::process::id()
        ));
        let node = Node::start(Config::new(&dir), ports())?;
        node.leading().await;
        let took = measure(&node, proposers, Duration::from_secs(seconds)).await?;
        node.shutdown().await;
        std::fs::remove_dir_all(&dir)?;
        println!(
            "{proposers:>9}  {:>9.0}  {:>8.2}  {:>8.2}  {:>8.2}",
            took.rate(),
            took.ms(0.5),
            took.ms(0.99),
            took.ms(1.0)
        );
    }
    Ok(())
}

/// The time of every submission that was acknowledged within `time`.
async fn measure(
    node: &Handle,
    proposers: usize,
    time: Duration,
) -> Result<Latencies, Box<dyn Error>> {
    let template = Arc::new(spec().ok_or("the recipe is gone from the registry")?);
    let next = Arc::new(AtomicU64::new(1));
    let begun = Instant::now();
    let proposing = (0..proposers).map(|_| {
        let (node, template, next) = (node.clone(), Arc::clone(&template), Arc::clone(&next));
        tokio::spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < time {
                let id = wide(next.fetch_add(1, Ordering::Relaxed));
                let spec = JobSpec {
                    staging: StagingId(id),
                    ..JobSpec::clone(&template)
                };
                let command = Command::SubmitJob {
                    spec: Box::new(spec),
                };
                let from = Instant::now();
                match node.propose(command, Some(RequestId(id))).await {
                    Ok(_) => took.push(from.elapsed()),
                    // The queue's bound is reached before the time is over: what was measured until then counts.
                    Err(ProposeError::Rejected(Rejection::Full { .. })) => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(took)
        })
    });
    let all: Result<Vec<_>, _> = try_join_all(proposing).await?.into_iter().collect();
    Ok(Latencies::new(
        all?.into_iter().flatten().collect(),
        begun.elapsed(),
    ))
}
