//! The worker as a process with real trainers: killed with signal 9, cut off from its leader, and faced with a trainer
//! that ignores SIGTERM.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod leader;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use leader::{Event, Leader, PATIENCE, Process, TOKEN, files, workload};
use stepcast_proto::v1;
use v1::attach_request::Report;

/// A trainer that says its number and its settings, and ignores SIGTERM.
const STUBBORN: &str =
    "trap '' TERM\necho pid $$\ncat \"$CONFIG_PATH\"\necho\nwhile :; do sleep 0.05; done\n";

/// A setting with a secret in it.
const BUCKET: &str = r#", "publishing_config": [{"secret_key": "key-of-a-bucket"}]"#;

/// A host with a worker's state folder and a script in place of SimpleTuner.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("trainer.sh"), script).unwrap();
        std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
        Self { folder }
    }

    /// Starts the worker's own program; the token is given only when it is the first time.
    fn start(&self, server: &str, with_token: bool) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stepcast-worker"));
        command
            .args(["run", "--cpu", "--server", server, "--state"])
            .arg(self.state());
        command.arg("--simpletuner-command").arg(format!(
            "/bin/sh {}",
            self.folder.path().join("trainer.sh").display()
        ));
        if with_token {
            command
                .arg("--join-token-file")
                .arg(self.folder.path().join("token"));
        }
        command
            .env("HF_TOKEN", "hf_aSecretOfThisHost123")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Process(command.spawn().unwrap())
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn attempts(&self) -> usize {
        std::fs::read_dir(self.state().join("attempts"))
            .unwrap()
            .count()
    }
}

/// Assigns an attempt and waits until its trainer has said its number; gives that, and all that was printed so far.
async fn run(leader: &mut Leader, epoch: u64) -> (u32, String) {
    leader.attached().await;
    leader
        .assign(epoch, v1::Trainer::Simpletuner, workload(100))
        .await;
    let mut printed = String::new();
    while !printed.contains("webhook_config") {
        if let Event::Report(Report::Log(log)) = leader.next().await {
            printed.extend(log.lines.into_iter().map(|line| line + "\n"));
        }
    }
    let pid = printed
        .lines()
        .find_map(|line| line.strip_prefix("pid "))
        .unwrap();
    (pid.parse().unwrap(), printed)
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Waits until the process is gone and says when that was seen.
async fn gone(pid: u32) -> Instant {
    let until = Instant::now() + PATIENCE;
    while alive(pid) {
        assert!(Instant::now() < until, "process {pid} is still there");
        tokio::task::yield_now().await;
    }
    Instant::now()
}

#[tokio::test]
async fn the_trainer_of_a_killed_worker_ends_and_is_reported_once_by_the_next() {
    let mut leader = Leader::with(10_000, files("")).await;
    let host = Host::new(STUBBORN);
    let first = host.start(&leader.address, true);
    let (pid, _) = run(&mut leader, 11).await;
    first.signal("-KILL");
    gone(pid).await;
    // The token is known by now, and the folder says that this is the same worker.
    let second = host.start(&leader.address, false);
    let ended = leader.ended().await;
    assert_eq!(
        (ended.epoch, ended.job.as_str(), ended.outcome()),
        (11, "jobs/j11", v1::Outcome::WorkerRestarted)
    );
    leader
        .assign(12, v1::Trainer::Simpletuner, workload(100))
        .await;
    leader
        .until(|event| match event {
            Event::Report(Report::Ended(ended)) => panic!("an end was said twice: {ended:?}"),
            Event::Report(Report::Started(started)) => (started.epoch == 12).then_some(()),
            _ => None,
        })
        .await;
    assert_eq!(host.attempts(), 1, "what the first attempt left is removed");
    second.signal("-TERM");
    assert_eq!(leader.ended().await.outcome(), v1::Outcome::Preempted);
    let status = second.ended().await;
    assert!(status.success(), "{status}");
    assert_eq!(host.attempts(), 0);
}

#[tokio::test]
async fn a_cut_off_worker_ends_its_trainer_before_the_lease_ends() {
    let mut leader = Leader::with(4_000, files("")).await;
    let host = Host::new(STUBBORN);
    let _worker = host.start(&leader.address, true);
    let (pid, _) = run(&mut leader, 21).await;
    leader.ways.answers.store(false, Ordering::SeqCst);
    let gone_at = gone(pid).await;
    let granted = leader.ways.granted.lock().unwrap().unwrap();
    let ran_on = gone_at.duration_since(granted);
    assert!(
        ran_on < Duration::from_millis(4_000),
        "the trainer ran {ran_on:?} after the last granted renewal"
    );
    assert_eq!(leader.ended().await.outcome(), v1::Outcome::Preempted);
}

#[tokio::test]
async fn a_trainer_that_ignores_sigterm_is_killed_and_no_secret_leaves_its_log() {
    let mut leader = Leader::with(10_000, files(BUCKET)).await;
    let host = Host::new(&format!("echo $HF_TOKEN\n{STUBBORN}"));
    let _worker = host.start(&leader.address, true);
    let (pid, printed) = run(&mut leader, 31).await;
    for secret in ["hf_aSecretOfThisHost123", "key-of-a-bucket"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert_eq!(
        printed.matches("[redacted]").count(),
        3,
        "the host's, the bucket's and the webhook's: {printed}"
    );
    assert!(printed.contains(&*outputs(host.folder.path())), "{printed}");
    let asked = Instant::now();
    leader.stop(31, 60_000).await;
    let ended = leader.ended().await;
    assert_eq!(ended.outcome(), v1::Outcome::Cancelled);
    // Ten seconds between SIGTERM and SIGKILL, and no waiting for a checkpoint before the first step.
    assert!(
        (10..50).contains(&asked.elapsed().as_secs()),
        "{:?}",
        asked.elapsed()
    );
    assert!(!alive(pid));
    assert!(host.state().join("outputs/j31").is_dir(), "results stay");
}

#[tokio::test]
async fn the_player_posts_to_its_receiver_and_to_no_proxy() {
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stream = folder.path().join("stream.jsonl");
    std::fs::write(&stream, "{\"after_ms\":0,\"body\":{\"type\":\"x\"}}\n").unwrap();
    let mut player = Command::new(env!("CARGO_BIN_EXE_stepcast-worker"));
    player.args(["replay", "--speed", "0", "--stream"]);
    player.arg(&stream).arg("--url");
    player.arg(format!("http://{}/events", receiver.local_addr().unwrap()));
    // A port that nobody listens on.
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        player.env(name, "http://127.0.0.1:9");
    }
    player.env_remove("NO_PROXY").env_remove("no_proxy");
    let _player = Process(player.stdin(Stdio::null()).spawn().unwrap());
    let heard = tokio::time::timeout(PATIENCE, receiver.accept()).await;
    assert!(heard.is_ok_and(|heard| heard.is_ok()));
}

fn outputs(folder: &Path) -> String {
    format!("{}", folder.join("state/outputs/j31").display())
}
