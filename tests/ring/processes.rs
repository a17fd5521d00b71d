//! The server and the worker as processes that can be killed and started again on the same folders.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The program under test.
const STEPCAST: &str = env!("CARGO_BIN_EXE_stepcast");

/// A lease's term: short, so that a worker's death is noticed while the test runs, and longer than a server's restart.
const LEASE_SECONDS: &str = "4";

/// A run of some 24 s as written takes about half a second.
const SPEED: &str = "60";

/// How long a process may take to start, to stop, or to hand over its samples.
const PATIENCE: Duration = Duration::from_secs(60);

/// The two processes and their folders. What still runs is killed when this is dropped.
pub(crate) struct Ring {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
    worker: Option<Child>,
}

impl Ring {
    /// Starts both, the worker with a token of its own.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut ring = Self {
            folder,
            port,
            server: None,
            worker: None,
        };
        ring.write_helper();
        ring.revive_server();
        ring.await_server();
        let made = ring.client(&["workers", "token", "create", "pretend", "--json"]);
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        fs::write(ring.path("token"), made["secret"].as_str().unwrap()).unwrap();
        ring.revive();
        ring
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn kill_server(&mut self) {
        kill(&mut self.server);
    }

    pub(crate) fn kill_worker(&mut self) {
        kill(&mut self.worker);
    }

    /// Starts what does not run.
    pub(crate) fn revive(&mut self) {
        self.revive_server();
        if self.worker.is_none() {
            let address = self.address();
            let (token, state, helper) =
                (self.path("token"), self.path("worker"), self.path("helper"));
            let mut command = Command::new(STEPCAST);
            command
                .args([
                    "worker",
                    "--server",
                    &address,
                    "--replay",
                    "2",
                    "--replay-speed",
                    SPEED,
                ])
                .arg("--join-token-file")
                .arg(token)
                .arg("--state")
                .arg(state)
                .arg("--helper")
                .arg(helper);
            self.worker = Some(self.spawn(command, "worker.log"));
        }
    }

    /// Waits until the worker has handed over every sample it has.
    pub(crate) async fn await_recorded(&self) {
        let begun = Instant::now();
        let spool = self.path("worker").join("spool");
        loop {
            let entries = fs::read_dir(&spool).unwrap();
            let waiting: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            if waiting.is_empty() {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "samples stay in the worker's spool: {waiting:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One call of the command line; its standard output.
    pub(crate) fn client(&self, arguments: &[&str]) -> String {
        let output = Command::new(STEPCAST)
            .args(arguments)
            .env("STEPCAST_SERVER", self.address())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "stepcast {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Stops both in the ordinary way.
    pub(crate) fn stop(&mut self) {
        for child in [&mut self.worker, &mut self.server].into_iter().flatten() {
            let pid = rustix::process::Pid::from_child(child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            let begun = Instant::now();
            while child.try_wait().unwrap().is_none() {
                assert!(begun.elapsed() < PATIENCE, "a process does not stop");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        (self.worker, self.server) = (None, None);
    }

    fn revive_server(&mut self) {
        if self.server.is_none() {
            let listen = format!("127.0.0.1:{}", self.port);
            let mut command = Command::new(STEPCAST);
            command
                .args([
                    "server",
                    "--listen",
                    &listen,
                    "--lease-seconds",
                    LEASE_SECONDS,
                    "--data",
                ])
                .arg(self.path("data"));
            self.server = Some(self.spawn(command, "server.log"));
        }
    }

    fn await_server(&self) {
        let begun = Instant::now();
        loop {
            let status = Command::new(STEPCAST)
                .args(["cluster", "status"])
                .env("STEPCAST_SERVER", self.address())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            if status.success() {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the server does not start: {}",
                self.log("server.log")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn spawn(&self, mut command: Command, log: &str) -> Child {
        let log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(log))
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// The helper that the worker starts trainers with: it writes down each start in the attempt's folder, whose name
    /// is the epoch, and becomes the real one.
    fn write_helper(&self) {
        let path = self.path("helper");
        let starts = self.path("starts");
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = replay ]; then echo \"$PWD\" >> '{}'; fi\nexec '{STEPCAST}' \"$@\"\n",
            starts.display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        kill(&mut self.worker);
        kill(&mut self.server);
        if std::thread::panicking() {
            for name in ["server.log", "worker.log"] {
                let log = self.log(name);
                let tail: Vec<&str> = log.lines().rev().take(40).collect();
                println!("the end of {name}:");
                tail.iter().rev().for_each(|line| println!("  {line}"));
            }
        }
    }
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The name of the folder above `run`: the epoch that a trainer was started under.
pub(crate) fn epoch_of(directory: &str) -> &str {
    Path::new(directory)
        .parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .unwrap()
}
