//! How many webhooks one worker can take: real-shaped events over loopback HTTP from so many trainers at once.
//!
//! `cargo bench -p stepcast-benches --bench webhooks -- [TRAINERS] [SECONDS]`
//!
//! Each trainer is one connection that posts its next event when the last is answered, as SimpleTuner does (SimpleTuner
//! opens a new connection each time; `--fresh` as a third word does so too). All go through one attempt's receiver into
//! the pure agent, whose step count at the end says whether any was lost.
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::time::{Duration, Instant};

use stepcast_worker::agent::{Agent, Assigned, Input, Output};
use stepcast_worker::redact::Redactor;
use stepcast_worker::reduce::{Measures, NoSample, Reducer};
use stepcast_worker::webhook::Receiver;
use tokio::sync::mpsc;

/// A lease that outlasts the measurement.
const TERM_MS: u64 = 3_600_000;

/// Inputs that wait for the agent, as in the worker itself.
const INPUTS: usize = 4_096;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let trainers: u64 = words.next().map_or(Ok(4), |word| word.parse())?;
    let seconds: u64 = words.next().map_or(Ok(5), |word| word.parse())?;
    let fresh = words.next().is_some_and(|word| word == "--fresh");
    let (sender, inputs) = mpsc::channel(INPUTS);
    let mut receivers = Vec::new();
    for epoch in 1..=trainers {
        receivers.push(
            Receiver::start(
                epoch,
                "token".to_owned(),
                Redactor::default(),
                sender.clone(),
            )
            .await?,
        );
    }
    drop(sender);
    let counting = tokio::spawn(count(inputs, trainers));
    let until = Instant::now() + Duration::from_secs(seconds);
    let posting: Vec<_> = receivers
        .iter()
        .map(|receiver| tokio::spawn(post(receiver.url(), until, fresh)))
        .collect();
    let mut times = Vec::new();
    for trainer in posting {
        times.append(&mut trainer.await??);
    }
    drop(receivers);
    let (events, steps) = counting.await?;
    times.sort_unstable();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let posted = times.len();
    println!(
        "{posted} events of {trainers} trainers in {seconds} s: {} a second",
        posted as u64 / seconds.max(1)
    );
    println!("answered after p50 {:?}, p99 {:?}", at(50), at(99));
    println!("taken by the agent: {events} events, last steps add up to {steps}");
    anyhow::ensure!(events == posted && steps == posted as u64, "some were lost");
    Ok(())
}

/// Posts steps one after the other and gives how long each answer took.
async fn post(url: String, until: Instant, fresh: bool) -> anyhow::Result<Vec<Duration>> {
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(usize::from(!fresh))
        .build()?;
    let mut times = Vec::new();
    while Instant::now() < until {
        let body = event(times.len() + 1);
        let from = Instant::now();
        let answer = client
            .post(&url)
            .header("X-API-Key", "token")
            .body(body)
            .send()
            .await?;
        anyhow::ensure!(
            answer.status().is_success(),
            "the receiver answered {}",
            answer.status()
        );
        times.push(from.elapsed());
    }
    Ok(times)
}

/// A step as SimpleTuner sends it: about a kilobyte, most of which nobody needs.
fn event(step: usize) -> String {
    format!(
        r#"{{"type":"training.status","title":"Running","severity":"info","job_id":"a1","timestamp":"2026-08-22T10:00:00.123456+00:00","data":{{"status":"running","final_epoch":3,"lr":0.0001,"global_step":{step},"global_resume_step":0,"first_epoch":1,"current_epoch":1,"steps_remaining_at_start":1000,"total_num_steps":100000000}},"progress":{{"current":{step},"total":100000000,"percent":12.0,"eta_seconds":1408.2,"metrics":{{"loss":0.41,"learning_rate":0.0001,"epoch":1,"effective_batch_size":4.0,"total_batch_size":4.0,"iteration_step_time_seconds":1.61,"step_speed_seconds":1.61,"seconds_per_step":1.61,"iterations_per_minute_5m":37.4,"iterations_per_minute_15m":37.4,"iterations_per_minute_30m":37.4,"iterations_per_minute_60m":37.4,"iterations_per_minute_overall":36.9,"steps_per_second":0.615,"grad_norm":0.08}}}}}}"#
    )
}

/// Feeds the agent until every receiver is gone; gives the events it took and the sum of the attempts' last steps.
async fn count(mut inputs: mpsc::Receiver<Input>, trainers: u64) -> (usize, u64) {
    let mut agent = Agent::default();
    for epoch in 1..=trainers {
        start(&mut agent, epoch);
    }
    let mut events = 0;
    while let Some(input) = inputs.recv().await {
        events += 1;
        agent.handle(input, 1);
    }
    let mut steps = 0;
    for epoch in 1..=trainers {
        let exit = stepcast_worker::agent::Exit {
            status: stepcast_worker::agent::ExitStatus::Code(0),
            tail: Vec::new(),
        };
        for output in agent.handle(Input::Exited { epoch, exit }, 1) {
            if let Output::End(_, end) = output {
                steps += end.step;
            }
        }
    }
    (events, steps)
}

fn start(agent: &mut Agent, epoch: u64) {
    let reducer = Reducer::new(Measures::nothing(NoSample::NoKey));
    let assigned = Assigned {
        epoch,
        job: epoch.to_string(),
        lease_term_ms: TERM_MS,
        max_runtime_ms: None,
        is_gang: false,
        is_follower: false,
        fewer_steps: None,
        epochs: None,
        reducer,
    };
    let asked = agent.handle(Input::Assigned(Box::new(assigned)), 0);
    for output in asked {
        if let Output::Renew { renewal, epochs } = output {
            agent.handle(
                Input::Renewed {
                    renewal,
                    epochs,
                    term_ms: TERM_MS,
                },
                0,
            );
        }
    }
    agent.handle(Input::Launched { epoch, from: 0 }, 0);
}
