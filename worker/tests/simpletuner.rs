//! The worker with a real SimpleTuner, for whoever has one: a run that is recorded, and one that is cancelled.
//!
//! STEPCAST_SIMPLETUNER_COMMAND starts SimpleTuner (`VENV/bin/python …/simpletuner/train.py`), and
//! STEPCAST_SIMPLETUNER_CONFIG is a folder with a `config.json` of an SDXL LoRA at 64 pixels and its
//! `multidatabackend.json`. Without them the test says that it was skipped. A run takes one to two minutes.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod leader;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use leader::{Event, Leader, Process, TOKEN, workload};
use stepcast_proto::v1;
use v1::attach_request::Report;

/// Steps of the run that is recorded.
const STEPS: u64 = 60;

#[tokio::test]
async fn a_real_run_succeeds_and_a_real_run_is_cancelled() {
    let variables = [
        "STEPCAST_SIMPLETUNER_COMMAND",
        "STEPCAST_SIMPLETUNER_CONFIG",
    ]
    .map(std::env::var);
    let [Ok(trainer), Ok(config)] = variables else {
        let said = "skipped: no SimpleTuner (set STEPCAST_SIMPLETUNER_COMMAND and STEPCAST_SIMPLETUNER_CONFIG)";
        // Past the test runner's capture: a skipped test must not look like a passed one.
        writeln!(std::io::stderr(), "{said}").unwrap();
        return;
    };
    let mut leader = Leader::with(30_000, files(Path::new(&config))).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), TOKEN).unwrap();
    let mut worker = Command::new(env!("CARGO_BIN_EXE_stepcast-worker"));
    worker.args([
        "run",
        "--cpu",
        "--server",
        &leader.address,
        "--simpletuner-command",
        &trainer,
    ]);
    worker.arg("--state").arg(folder.path().join("state"));
    worker
        .arg("--join-token-file")
        .arg(folder.path().join("token"));
    let worker = Process(worker.stdin(Stdio::null()).spawn().unwrap());
    leader.attached().await;
    recorded(&mut leader).await;
    let outputs = folder.path().join("state/outputs/j1");
    assert!(
        outputs.join("pytorch_lora_weights.safetensors").is_file(),
        "the result stays"
    );
    cancelled(&mut leader).await;
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
    assert_eq!(
        std::fs::read_dir(folder.path().join("state/attempts"))
            .unwrap()
            .count(),
        0,
        "nothing private is left"
    );
}

async fn recorded(leader: &mut Leader) {
    leader
        .assign(1, v1::Trainer::Simpletuner, tiny(STEPS))
        .await;
    let (mut lines, mut ended, mut samples) = (Vec::new(), None, None);
    while ended.is_none() || samples.is_none() {
        match leader.next().await {
            Event::Report(Report::Log(log)) => lines.extend(log.lines),
            Event::Report(Report::Ended(end)) => {
                let last = &lines[lines.len().saturating_sub(30)..];
                assert_eq!(
                    end.outcome(),
                    v1::Outcome::Succeeded,
                    "{}\n{}",
                    end.detail,
                    last.join("\n")
                );
                ended = Some(end);
            }
            Event::Samples(given) => samples = Some(given),
            _ => {}
        }
    }
    assert_eq!(ended.unwrap().step, STEPS);
    let samples = samples.unwrap().samples;
    let Some(v1::sample::Key::Training(key)) = &samples[0].key else {
        panic!("no training times: {samples:?}")
    };
    let times = stepcast_records::Histogram::from_v2_bytes(&samples[0].histogram_v2).unwrap();
    assert_eq!(key.hardware, "cpux1");
    assert!(times.count() >= 20, "{}", times.count());
    let said = format!(
        "{} clean steps, median {} ms; {} samples",
        times.count(),
        times.quantile(0.5),
        samples.len()
    );
    eprintln!("{said}");
}

async fn cancelled(leader: &mut Leader) {
    leader
        .assign(2, v1::Trainer::Simpletuner, tiny(100_000))
        .await;
    leader
        .until(|event| {
            matches!(event, Event::Report(Report::Progress(at)) if at.step > 0).then_some(())
        })
        .await;
    leader.stop(2, 60_000).await;
    let step = leader.until(|event| {
        if let Event::Report(Report::Checkpointed(at)) = event {
            Some(at.step)
        } else {
            None
        }
    });
    assert!(step.await > 0);
    assert_eq!(leader.ended().await.outcome(), v1::Outcome::Cancelled);
}

fn tiny(steps: u64) -> v1::Workload {
    let mut workload = workload(steps);
    workload.recipe = "sdxl.base-1.0/lora".to_owned();
    workload.datasets[0].half_megapixels = 1;
    let validation = workload.validation.as_mut().unwrap();
    (validation.generations, validation.half_megapixels) = (2, vec![1]);
    workload
}

fn files(config: &Path) -> Vec<v1::JobFile> {
    [
        (v1::FileRole::Config, "config.json"),
        (v1::FileRole::DataLoader, "multidatabackend.json"),
    ]
    .map(|(role, name)| v1::JobFile {
        role: role.into(),
        name: name.to_owned(),
        content: std::fs::read(config.join(name)).unwrap(),
    })
    .into()
}
