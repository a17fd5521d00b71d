//! Every webhook recorded from real SimpleTuner runs, played over HTTP into the agent: how does each run end?
//!
//! The recordings are not part of this repository. They are looked for in the folder named by STEPCAST_RECORDINGS, else
//! in `shared/simpletuner-cpu/recordings` beside it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stepcast_records::{
    Accumulation, BatchSize, GpuModel, HalfMegapixels, Hardware, InferenceSteps, Precision,
    Quantization, Recipe, TrainingShape, ValidationShape,
};
use stepcast_worker::agent::{
    Agent, Assigned, End, Exit, ExitStatus, Failure, Input, Outcome, Output, Why,
};
use stepcast_worker::guard::{Guard, Status};
use stepcast_worker::redact::Redactor;
use stepcast_worker::reduce::{Measures, Pass, Reducer};
use stepcast_worker::replay::TOKEN_VARIABLE;
use stepcast_worker::webhook::Receiver;
use tokio::sync::mpsc;

/// Name, the exit code its run had, whether it was being cancelled, the verdict, its last step, words of the detail.
struct Case(&'static str, u8, bool, Outcome, u64, &'static str);

const CASES: [Case; 11] = [
    Case("ok-cli", 0, false, Outcome::Succeeded, 30, ""),
    Case("ok-direct", 0, false, Outcome::Succeeded, 20, ""),
    Case("resume", 0, false, Outcome::Succeeded, 40, ""),
    Case(
        "sigint-direct",
        0,
        false,
        Outcome::Failed(Failure::TrainerError),
        17,
        "interrupted",
    ),
    Case(
        "sigterm-direct",
        143,
        false,
        Outcome::Failed(Failure::TrainerError),
        50,
        "exited with 143",
    ),
    Case(
        "sigterm-direct",
        143,
        true,
        Outcome::Cancelled,
        50,
        "cancelled",
    ),
    Case(
        "sigterm-cli",
        143,
        false,
        Outcome::Failed(Failure::TrainerError),
        173,
        "exited with 143",
    ),
    Case(
        "sigterm-cli",
        143,
        true,
        Outcome::Cancelled,
        173,
        "cancelled",
    ),
    Case(
        "bad-model",
        1,
        false,
        Outcome::Failed(Failure::TrainerError),
        0,
        "OSError",
    ),
    Case(
        "bad-dataset",
        1,
        false,
        Outcome::Failed(Failure::TrainerError),
        0,
        "FileNotFoundError",
    ),
    Case(
        "bad-optimizer-webhook-arg",
        1,
        false,
        Outcome::Failed(Failure::ConfigInvalid),
        0,
        "Optimizer",
    ),
];

#[tokio::test]
async fn every_recorded_run_ends_as_it_did() {
    let Some(folder) = recordings() else {
        // Past the test runner's capture: a skipped test must not look like a passed one.
        let said = "skipped: no recordings (set STEPCAST_RECORDINGS to their folder)";
        writeln!(std::io::stderr(), "{said}").unwrap();
        return;
    };
    for Case(name, exit, cancelled, outcome, step, words) in CASES {
        let end = play(&folder.join(format!("{name}.jsonl")), exit, cancelled).await;
        assert_eq!(
            (end.outcome, end.step),
            (outcome, step),
            "{name}: {}",
            end.detail
        );
        assert!(end.detail.contains(words), "{name}: {}", end.detail);
        let counts: Vec<u64> = end
            .samples
            .iter()
            .map(|sample| sample.histogram.count())
            .collect();
        match name {
            // Four validations of two prompts: the base model's is left out, one gap each, the first warms up.
            "ok-cli" => assert_eq!(counts, [2], "no twenty clean steps, but two prompts"),
            "sigterm-cli" => {
                let histogram = &end.samples[0].histogram;
                // 173 steps less the warm-up and each epoch's first, at the times the run showed.
                assert!(
                    (100..=163).contains(&histogram.count()),
                    "{}",
                    histogram.count()
                );
                assert!(
                    (100.0..400.0).contains(&histogram.quantile(0.5)),
                    "{}",
                    histogram.quantile(0.5)
                );
            }
            "sigterm-direct" => assert!(counts.len() <= 1),
            _ => assert_eq!(counts, Vec::<u64>::new(), "{name}"),
        }
    }
}

fn recordings() -> Option<PathBuf> {
    let named = std::env::var_os("STEPCAST_RECORDINGS").map(PathBuf::from);
    let beside =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/simpletuner-cpu/recordings");
    named.or(Some(beside)).filter(|folder| folder.is_dir())
}

/// Plays one recording through the player, a guard and the receiver into an agent.
async fn play(recording: &Path, exit: u8, cancelled: bool) -> End {
    let (sender, mut inputs) = mpsc::channel(4_096);
    let receiver = Receiver::start(1, "token".to_owned(), Redactor::default(), sender)
        .await
        .unwrap();
    let binary = OsString::from(env!("CARGO_BIN_EXE_stepcast-worker"));
    let mut player: Vec<OsString> = vec![
        binary.clone(),
        "replay".into(),
        "--stream".into(),
        recording.into(),
    ];
    for argument in [
        "--url",
        &receiver.url(),
        "--speed",
        "0",
        "--exit",
        &exit.to_string(),
    ] {
        player.push(argument.into());
    }
    let environment = [(TOKEN_VARIABLE.into(), "token".into())];
    let guard_command = [binary, "guard".into()];
    let mut agent = running_agent();
    let mut guard = Guard::start(
        &guard_command,
        &player,
        Path::new("/"),
        &environment,
        Duration::from_secs(600),
    )
    .await
    .unwrap();
    let mut output = guard.take_output().unwrap();
    tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::sink()).await });
    guard.deadline(Duration::from_secs(600)).await;
    let status = loop {
        tokio::select! {
            biased;
            Some(input) = inputs.recv() => drop(agent.handle(input, 1)),
            status = guard.status() => match status {
                Status::Ended(status) => break status,
                other => panic!("{other:?}"),
            },
        }
    };
    assert_eq!(status, ExitStatus::Code(exit.into()));
    while let Ok(input) = inputs.try_recv() {
        agent.handle(input, 1);
    }
    assert_eq!(
        receiver
            .counts()
            .malformed
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
    if cancelled {
        agent.handle(
            Input::Stop {
                epoch: 1,
                why: Why::Cancelled,
                grace_ms: 0,
            },
            1,
        );
    }
    let exit = Exit {
        status,
        tail: Vec::new(),
    };
    let ends = agent
        .handle(Input::Exited { epoch: 1, exit }, 1)
        .into_iter();
    let mut ends = ends.filter_map(|output| {
        if let Output::End(1, end) = output {
            Some(*end)
        } else {
            None
        }
    });
    ends.next().unwrap()
}

fn running_agent() -> Agent {
    let training = TrainingShape {
        recipe: Recipe::all().next().unwrap(),
        resolution: HalfMegapixels::MIN,
        batch_size: BatchSize::new(1).unwrap(),
        accumulation: Accumulation::new(1).unwrap(),
        precision: Precision::Bf16,
        quantization: Quantization::None,
    };
    let validation = ValidationShape {
        recipe: training.recipe,
        resolution: training.resolution,
        inference_steps: InferenceSteps::new(4).unwrap(),
        precision: training.precision,
        quantization: training.quantization,
    };
    let measures = Measures::new(
        &[training],
        &[validation],
        Pass {
            images: 2,
            prompts: 0,
        },
        Some(Hardware::one(GpuModel::REPLAY)),
    );
    let assigned = Assigned {
        epoch: 1,
        job: "j".to_owned(),
        lease_term_ms: 600_000,
        max_runtime_ms: None,
        is_gang: false,
        is_follower: false,
        fewer_steps: None,
        epochs: None,
        reducer: Reducer::new(measures),
    };
    let mut agent = Agent::default();
    agent.handle(Input::Assigned(Box::new(assigned)), 0);
    agent.handle(
        Input::Renewed {
            renewal: 0,
            epochs: vec![1],
            term_ms: 600_000,
        },
        0,
    );
    agent.handle(Input::Launched { epoch: 1, from: 0 }, 0);
    agent
}
