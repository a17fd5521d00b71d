//! A worker's host on which trainers run as other accounts, for tests that may change users.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test file uses its own part"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use stepcast_proto::v1;
use v1::attach_request::Report;

use crate::leader::{Event, Leader, Process, TOKEN, workload};

/// Two accounts that every Linux has and that run nothing.
pub(crate) const ACCOUNTS: [&str; 2] = ["games", "uucp"];

/// What runs as one of them is killed by whichever worker has it, so one test has them at a time.
static ONE: Mutex<()> = Mutex::new(());

/// A worker's host in a folder that everybody may go through, with the program where everybody may start it.
pub(crate) struct Host {
    pub(crate) root: tempfile::TempDir,
    _one: std::sync::MutexGuard<'static, ()>,
}

impl Host {
    /// Nothing, with the reason, where this user cannot change users or the accounts are not there.
    pub(crate) fn new() -> Option<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: to run something as another account needs root");
            return None;
        }
        // A worker kills whatever runs as one of them.
        if !ACCOUNTS.into_iter().all(is_free) {
            eprintln!(
                "skipped: accounts {ACCOUNTS:?} are not there, or something runs as one of them"
            );
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        fs::copy(
            env!("CARGO_BIN_EXE_stepcast-worker"),
            root.path().join("worker"),
        )
        .unwrap();
        fs::write(root.path().join("token"), format!("{TOKEN}\n")).unwrap();
        fs::set_permissions(root.path().join("token"), Permissions::from_mode(0o600)).unwrap();
        Some(Self { root, _one: one })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub(crate) fn output(&self, job: &str) -> PathBuf {
        self.state().join("outputs").join(job)
    }

    pub(crate) fn command(&self, server: &str, accounts: &str, more: &[&str]) -> Command {
        let mut command = Command::new(self.path("worker"));
        command.args(["run", "--server", server, "--trainer-user", accounts]);
        command.args(more).arg("--state").arg(self.state());
        command.arg("--join-token-file").arg(self.path("token"));
        command.env("XDG_CACHE_HOME", "/var/worker/.cache");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A worker whose trainer is this script.
    pub(crate) fn start(&self, leader: &Leader, accounts: &str, script: &str) -> Process {
        let trainer = self.path("trainer.sh");
        fs::write(&trainer, script).unwrap();
        fs::set_permissions(&trainer, Permissions::from_mode(0o755)).unwrap();
        let trainer = format!("/bin/sh {}", trainer.display());
        let more = ["--cpu", "--simpletuner-command", &trainer];
        Process(
            self.command(&leader.address, accounts, &more)
                .spawn()
                .unwrap(),
        )
    }

    pub(crate) fn secret(&self) -> PathBuf {
        self.state().join("credential.json")
    }
}

/// The number of an account.
pub(crate) fn number(name: &str) -> Option<u32> {
    let told = Command::new("id").args(["-u", name]).output().ok()?;
    String::from_utf8(told.stdout).ok()?.trim().parse().ok()
}

/// Whether there is such an account, and nothing runs as it.
pub(crate) fn is_free(name: &str) -> bool {
    let Some(uid) = number(name) else {
        return false;
    };
    let processes = fs::read_dir("/proc").unwrap();
    !processes
        .filter_map(|process| process.ok()?.metadata().ok())
        .any(|data| data.uid() == uid)
}

/// Runs a script as an account, as its own cron might.
pub(crate) fn as_account(name: &str, script: &str) -> Output {
    let uid = number(name).unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).uid(uid).gid(uid);
    shell.current_dir("/").output().unwrap()
}

/// Runs an attempt to its end and gives what it has printed.
pub(crate) async fn run(leader: &mut Leader, epoch: u64, job: &str) -> (v1::AttemptEnded, String) {
    assign(leader, epoch, job).await;
    let mut printed = String::new();
    loop {
        match leader.next().await {
            Event::Report(Report::Log(log)) => {
                printed.extend(log.lines.into_iter().map(|line| line + "\n"));
            }
            Event::Report(Report::Ended(ended)) => return (ended, printed),
            _ => {}
        }
    }
}

pub(crate) async fn assign(leader: &Leader, epoch: u64, job: &str) {
    let assignment = v1::Assignment {
        job: format!("jobs/{job}"),
        attempt: 1,
        epoch,
        gpus: vec![0],
        trainer: v1::Trainer::Simpletuner.into(),
        workload: Some(workload(100)),
        lease_term_ms: 10_000,
        max_runtime_ms: None,
        gang: None,
        resume_step: 0,
    };
    leader
        .order(v1::attach_response::Order::Assign(Box::new(assignment)))
        .await;
}

/// Waits until a running trainer has printed a line that begins so, and gives the rest of it.
pub(crate) async fn printed(leader: &mut Leader, begins: &str) -> String {
    leader
        .until(|event| match event {
            Event::Report(Report::Log(log)) => log
                .lines
                .iter()
                .find_map(|line| line.strip_prefix(begins).map(str::to_owned)),
            _ => None,
        })
        .await
}

pub(crate) fn mode(path: &Path) -> (u32, u32) {
    let data = fs::symlink_metadata(path).unwrap();
    (data.uid(), data.mode() & 0o777)
}

/// What a job tries, each with a line of what came of it.
pub(crate) fn tries(state: &Path, others: &str) -> String {
    let state = state.display();
    format!(
        r#"
try() {{ if "$@" >/dev/null 2>&1; then echo "REACHED $*"; fi; }}
echo account $(id -un) $USER $LOGNAME uid $(id -u) groups $(id -G)
echo home $HOME tmp $TMPDIR xdg "$XDG_CACHE_HOME"
grep -E 'NoNewPrivs|CapEff|CapPrm|CapAmb' /proc/self/status
umask
for file in {state}/credential.json {state}/instance.json {state}/lock {state}/attempts/*/attempt.json; do try cat $file; done
for folder in {state} {state}/spool {state}/made {state}/attempts {state}/outputs {others}; do try ls $folder; done
for folder in {state} {state}/spool {state}/attempts {state}/outputs {others}; do try touch $folder/planted; done
try ls $(dirname $HOME)
try touch $(dirname $HOME)/planted
try mv {state}/outputs/j1 {state}/outputs/jx
for pid in /proc/[0-9]*; do
    [ "$(stat -c %u $pid)" = 0 ] && try cat $pid/environ
done
echo h > $HOME/mine && echo t > $TMPDIR/mine && cat $SIMPLETUNER_ACCELERATE_SIGNAL_FILE && echo to stderr > /dev/stderr
"#
    )
}

/// A process of an account that nobody guards.
pub(crate) struct Lost(pub(crate) std::process::Child);

impl Lost {
    pub(crate) fn lives(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

pub(crate) fn as_account_later(name: &str, script: &str) -> Lost {
    let uid = number(name).unwrap();
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", script])
        .uid(uid)
        .gid(uid)
        .current_dir("/");
    Lost(shell.stdout(Stdio::piped()).spawn().unwrap())
}

/// What a worker says that does not start.
pub(crate) fn refused(command: &mut Command) -> String {
    let said = command.stderr(Stdio::piped()).output().unwrap();
    assert!(!said.status.success());
    String::from_utf8(said.stderr).unwrap()
}
