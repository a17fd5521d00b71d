//! Real servers: one to five `stepcast server` processes on this machine, with their data on the disk that is measured.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How a server says that it can be called.
const LISTENING: &str = "listening on ";

/// A server that does not say so in this time has failed.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);

/// How long a server may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// Running servers. They end when this is dropped, and with this process, whose end closes their stdin.
pub(crate) struct Nodes {
    /// Where each is called.
    pub(crate) addresses: Vec<String>,
    processes: Vec<Child>,
    folder: PathBuf,
}

impl Nodes {
    /// Starts a cluster of so many nodes in an empty folder.
    pub(crate) async fn start(program: &Path, folder: &Path, count: usize) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut nodes = Self {
            addresses: Vec::new(),
            processes: Vec::new(),
            folder: folder.to_owned(),
        };
        for number in 1..=count {
            nodes.add(program, number).await?;
        }
        Ok(nodes)
    }

    async fn add(&mut self, program: &Path, number: usize) -> anyhow::Result<()> {
        let log = self.folder.join(format!("node{number}.log"));
        let mut command = Command::new(program);
        command
            .arg("server")
            .arg("--with-parent")
            .arg("--data")
            .arg(self.folder.join(format!("node{number}")))
            .args(["--listen", &free_address()?]);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let stdout = process.stdout.take().context("a server has an output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(LISTENS_WITHIN, lines.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            bail!("node {number} does not start; see {}", log.display());
        };
        let address = line
            .strip_prefix(LISTENING)
            .with_context(|| format!("node {number} says `{line}`"))?;
        self.addresses.push(address.trim().to_owned());
        self.processes.push(process);
        Ok(())
    }

    /// Ends them in order and removes what they kept.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            drop(process.stdin.take());
        }
        for process in &mut self.processes {
            if tokio::time::timeout(ENDS_WITHIN, process.wait())
                .await
                .is_err()
            {
                process.kill().await?;
            }
        }
        std::fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}

/// An address of this host that is free at this moment.
pub(crate) fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
