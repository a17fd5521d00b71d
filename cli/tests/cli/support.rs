//! Servers, workers and calls of the program, each a process of its own that ends with its test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A process that does not outlive its test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server with its folder, and calls that go to it.
pub(crate) struct Ring {
    pub(crate) folder: TempDir,
    pub(crate) address: String,
    server: Process,
}

/// What one call came to.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// The call succeeded; its stdout.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// The call succeeded and answered in JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// The call ended with this code; its stderr.
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// The program, with nothing of this machine's environment and settings.
pub(crate) fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepcast"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LANG", "C.UTF-8")
        .env("TZ", "UTC")
        .env("HOME", folder)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// Calls the program without any server.
pub(crate) fn alone(folder: &Path, arguments: &[&str]) -> Said {
    program(folder).args(arguments).output().unwrap().into()
}

/// The example that the program ships.
pub(crate) fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/flux-lora")
}

/// Figures of exactly the example's keys, so that an estimate does not depend on how far the ladder reaches.
pub(crate) const FIGURES: &str = "\
recipe,hardware,resolution_mp,batch_size,gradient_accumulation_steps,precision,quantization,avg_step_ms,steps_observed
flux.dev/lora+ckpt,rtx4090,1.0,4,1,bf16,int8,14000,200
flux.dev/lora+ckpt,h100,1.0,4,1,bf16,int8,4200,200
";

impl Ring {
    /// A server on a port of its own.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// The same with more arguments.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::over(tempfile::tempdir().unwrap(), arguments, &[])
    }

    /// The same in a folder that is there already, and with more in its environment.
    pub(crate) fn over(
        folder: TempDir,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let mut server = program(folder.path())
            .args(["server", "--data", "data", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Process)
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap()
            .to_owned();
        Self {
            folder,
            address,
            server,
        }
    }

    /// A call, not yet started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = program(self.folder.path());
        command
            .env("STEPCAST_SERVER", &self.address)
            .args(arguments);
        command
    }

    /// The processes in which the server runs statements.
    #[cfg(target_os = "linux")]
    pub(crate) fn sql_processes(&self) -> Vec<i32> {
        let server = format!("PPid:\t{}\n", self.server.0.id());
        let all = std::fs::read_dir("/proc").unwrap();
        let ids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let is_one = |id: &i32| {
            let of = |what| std::fs::read_to_string(format!("/proc/{id}/{what}"));
            // One that has ended has no command line any more.
            let called = of("cmdline").is_ok_and(|called| called.ends_with("sql-process\0"));
            called && of("status").is_ok_and(|status| status.contains(&server))
        };
        ids.filter(is_one).collect()
    }

    /// Calls the program.
    pub(crate) fn call(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// Writes a file into the folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Submits the example; the job's id.
    pub(crate) fn submit(&self, more: &[&str]) -> String {
        let path = example();
        let mut arguments = vec!["submit", path.to_str().unwrap(), "--yes"];
        arguments.extend(more);
        self.call(&arguments).ok().trim().to_owned()
    }

    /// A waiting job is as it was, and the server answers.
    pub(crate) fn still_has(&self, job: &str) {
        let shown = self.call(&["job", "show", job, "--json"]).json();
        assert_eq!(shown["state"], "PENDING", "{shown}");
        let status = self.call(&["cluster", "status", "--json"]).json();
        assert_eq!(status["health"], "SERVING", "{status}");
    }

    /// Starts a worker with one pretend device, and waits until it is there.
    pub(crate) fn worker(&self, speed: &str) -> Process {
        self.worker_called("w1", speed, &[])
    }

    /// The same under a name, with more arguments.
    pub(crate) fn worker_called(&self, name: &str, speed: &str, more: &[&str]) -> Process {
        let token = format!("{name}.token");
        self.call(&["workers", "token", "create", name, "--out", &token])
            .ok();
        let arguments = [
            "worker",
            "--replay",
            "1",
            "--replay-speed",
            speed,
            "--state",
            name,
            "--join-token-file",
            &token,
        ];
        let worker = self
            .command(&[&arguments, more].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Process)
            .unwrap();
        let is_there =
            |worker: &Value| worker["display_name"] == name && worker["attached"] == true;
        until(|| {
            let workers = self.call(&["workers", "--json"]).json();
            workers["workers"].as_array().unwrap().iter().any(is_there)
        });
        worker
    }
}

/// Asks again and again until it is so; a minute is far longer than anything here takes.
#[track_caller]
pub(crate) fn until(mut so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !so() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it did not come about within a minute"
        );
        std::thread::yield_now();
    }
}

/// Asks in HTTP/1.1, with a connection of its own: the status and the body.
pub(crate) fn http(
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&str>,
) -> (u16, String) {
    let rest = address.strip_prefix("http://").unwrap();
    let (host, begin) = rest.split_once('/').unwrap_or((rest, ""));
    let path = if path.is_empty() {
        format!("/{begin}")
    } else {
        path.to_owned()
    };
    let mut stream = TcpStream::connect(host).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let token = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    let length = body.map_or_else(String::new, |body| {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        )
    });
    let body = body.unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{token}{length}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|number| number.parse().ok());
    (status.unwrap_or(0), body.to_owned())
}
