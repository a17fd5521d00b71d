//! The guard against real processes: trainers that ignore SIGTERM, hide in sessions of their own, or outlive the worker.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stepcast_worker::agent::ExitStatus;
use stepcast_worker::guard::{Guard, Status};
use tokio::io::{AsyncBufReadExt, Lines};

/// How long a thing that must happen may take on a busy machine before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A deadline that no test comes near.
const LONG: Duration = Duration::from_secs(600);

fn guard_command() -> Vec<OsString> {
    vec![env!("CARGO_BIN_EXE_stepcast-worker").into(), "guard".into()]
}

async fn start(
    script: &str,
) -> (
    Guard,
    Lines<tokio::io::BufReader<tokio::process::ChildStderr>>,
) {
    let trainer: Vec<OsString> = vec!["/bin/sh".into(), "-c".into(), script.into()];
    let environment = vec![("PATH".into(), std::env::var_os("PATH").unwrap())];
    let mut guard = Guard::start(
        &guard_command(),
        &trainer,
        Path::new("/"),
        &environment,
        LONG,
    )
    .await
    .unwrap();
    let output = tokio::io::BufReader::new(guard.take_output().unwrap()).lines();
    (guard, output)
}

async fn status(guard: &mut Guard) -> Status {
    tokio::time::timeout(PATIENCE, guard.status())
        .await
        .unwrap()
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Waits until the process is gone, and fails if it never is.
fn wait_until_gone(pid: u32) {
    let until = Instant::now() + PATIENCE;
    while alive(pid) {
        assert!(Instant::now() < until, "process {pid} is still there");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn the_exit_code_and_the_output_come_through() {
    let (mut guard, mut output) = start("echo one; echo two >&2; exit 3").await;
    assert_eq!(output.next_line().await.unwrap().as_deref(), Some("one"));
    assert_eq!(output.next_line().await.unwrap().as_deref(), Some("two"));
    assert_eq!(status(&mut guard).await, Status::Ended(ExitStatus::Code(3)));
    assert_eq!(output.next_line().await.unwrap(), None);
    guard.wait().await;
}

#[tokio::test]
async fn a_trainer_has_nothing_open_that_its_worker_was_started_with() {
    let held = tempfile::NamedTempFile::new().unwrap();
    let with = format!("exec 9<{}; exec \"$0\" \"$@\"", held.path().display());
    let shell = ["/bin/sh", "-c", &with].map(OsString::from);
    let guard = [&shell[..], &guard_command()].concat();
    let script = "[ -e /proc/$$/fd/9 ] && echo open; echo end";
    let trainer = ["/bin/sh", "-c", script].map(OsString::from);
    let started = Guard::start(&guard, &trainer, Path::new("/"), &[], LONG).await;
    let mut guard = started.unwrap();
    let output = tokio::io::BufReader::new(guard.take_output().unwrap());
    let said = output.lines().next_line().await.unwrap();
    assert_eq!(said.as_deref(), Some("end"));
    assert_eq!(status(&mut guard).await, Status::Ended(ExitStatus::Code(0)));
}

#[tokio::test]
async fn a_trainer_that_cannot_start_is_named() {
    let trainer: Vec<OsString> = vec!["/no/such/trainer".into()];
    let failed = Guard::start(&guard_command(), &trainer, Path::new("/"), &[], LONG).await;
    assert!(failed.unwrap_err().to_string().contains("No such file"));
}

#[tokio::test]
async fn sigterm_reaches_a_grandchild_in_a_session_of_its_own() {
    let script = "setsid sh -c 'trap \"echo saved; exit 0\" TERM; echo $$; while :; do sleep 0.05; done' & wait; wait";
    let (mut guard, mut output) = start(script).await;
    let grandchild: u32 = output.next_line().await.unwrap().unwrap().parse().unwrap();
    assert!(alive(grandchild));
    guard.terminate().await;
    // The shell also prints what became of its own child.
    while output
        .next_line()
        .await
        .unwrap()
        .expect("it must say that it saved")
        != "saved"
    {}
    assert_eq!(
        status(&mut guard).await,
        Status::Ended(ExitStatus::Signal(15))
    );
    wait_until_gone(grandchild);
}

#[tokio::test]
async fn nothing_is_left_when_the_first_process_ends_alone() {
    let script = "setsid sh -c 'trap \"\" TERM HUP; echo $$; while :; do sleep 0.05; done' & read -r _ </dev/null; exit 0";
    let (mut guard, mut output) = start(&format!("{script} ")).await;
    // The first process ends at once; the hidden one may print before it is found, or never get that far.
    let hidden = output.next_line().await.unwrap();
    assert_eq!(status(&mut guard).await, Status::Ended(ExitStatus::Code(0)));
    if let Some(pid) = hidden {
        wait_until_gone(pid.parse().unwrap());
    }
}

#[tokio::test]
async fn kill_ends_what_ignores_sigterm_and_reparents() {
    // Both ignore SIGTERM; the second one's parent is gone, so it belongs to the guard.
    let script = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.05; done' &) ; while :; do sleep 0.05; done";
    let (mut guard, mut output) = start(script).await;
    let orphan: u32 = output.next_line().await.unwrap().unwrap().parse().unwrap();
    guard.terminate().await;
    guard.kill().await;
    assert_eq!(
        status(&mut guard).await,
        Status::Ended(ExitStatus::Signal(9))
    );
    wait_until_gone(orphan);
    wait_until_gone(guard.trainer_pid());
}

#[tokio::test]
async fn kill_ends_a_trainer_whose_first_thread_has_ended() {
    if Command::new("python3").arg("-V").output().is_err() {
        eprintln!("not tried: there is no python3");
        return;
    }
    let script = include_str!("first_thread_ends.py").replace('"', "\\\"");
    let (mut guard, mut output) = start(&format!("exec python3 -c \"{script}\"")).await;
    assert!(output.next_line().await.unwrap().is_some(), "its number");
    guard.kill().await;
    assert_eq!(
        status(&mut guard).await,
        Status::Ended(ExitStatus::Signal(9))
    );
    guard.wait().await;
}

#[tokio::test]
async fn a_passed_deadline_kills_and_a_renewed_one_does_not() {
    let (mut guard, mut output) = start("echo $$; while :; do sleep 0.05; done").await;
    let trainer: u32 = output.next_line().await.unwrap().unwrap().parse().unwrap();
    guard.deadline(LONG).await;
    guard.deadline(Duration::from_millis(1)).await;
    assert_eq!(
        status(&mut guard).await,
        Status::Ended(ExitStatus::Signal(9))
    );
    wait_until_gone(trainer);
    let (mut guard, mut output) = start("echo up; read -r _ </dev/null; exit 5").await;
    output.next_line().await.unwrap();
    guard.deadline(LONG).await;
    assert_eq!(status(&mut guard).await, Status::Ended(ExitStatus::Code(5)));
}

#[test]
fn the_trainer_ends_with_a_worker_that_is_killed() {
    let mut guard = spawn_piped(
        "setsid sh -c 'echo $$; while :; do sleep 0.05; done' & while :; do sleep 0.05; done",
    );
    let hidden: u32 = first_line(guard.stderr.take().unwrap()).parse().unwrap();
    // What the kernel does to the pipe when the worker is killed with signal 9.
    drop(guard.stdin.take());
    guard.wait().unwrap();
    wait_until_gone(hidden);
}

fn spawn_piped(script: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepcast-worker"));
    command.args(["guard", "--", "/bin/sh", "-c", script]);
    let mut guard = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = guard.stdin.as_mut().unwrap();
    stdin.write_all(b"deadline 600000\n").unwrap();
    guard
}

fn first_line(pipe: impl std::io::Read) -> String {
    let mut line = String::new();
    BufReader::new(pipe).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[tokio::test]
async fn a_trainer_whose_time_is_over_when_it_is_started_does_not_live() {
    let trainer: Vec<OsString> = ["/bin/sh", "-c", "while :; do sleep 0.05; done"]
        .map(OsString::from)
        .into();
    let environment = vec![("PATH".into(), std::env::var_os("PATH").unwrap())];
    let over = Duration::ZERO;
    let mut guard = Guard::start(
        &guard_command(),
        &trainer,
        Path::new("/"),
        &environment,
        over,
    )
    .await
    .unwrap();
    assert_eq!(
        status(&mut guard).await,
        Status::Ended(ExitStatus::Signal(9))
    );
}

#[test]
fn nothing_is_started_before_it_is_said_how_long_it_may_run() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepcast-worker"));
    command.args(["guard", "--", "/bin/sh", "-c", "echo it runs >&2"]);
    let said = command.stdin(Stdio::null()).output().unwrap();
    assert!(!said.status.success());
    assert_eq!(String::from_utf8_lossy(&said.stderr), "");
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("failed "));
}
