//! Real servers: one to five `stepcast server` processes on this machine, with their data on the disk that is measured.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use stepcast_proto::v1;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::servers::{Failed, Servers};

/// How a server says that it can be called.
const LISTENING: &str = "listening on ";

/// A server that does not say so in this time has failed.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);

/// A node that joins has caught up and votes by then.
const VOTES_WITHIN: Duration = Duration::from_secs(30);

/// The pause between two looks at who votes.
const LOOK: Duration = Duration::from_millis(50);

/// How long a server may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// Running servers. They end when this is dropped, and with this process, whose end closes their stdin.
pub(crate) struct Nodes {
    /// Where each is called.
    pub(crate) addresses: Vec<String>,
    processes: Vec<Child>,
    folder: PathBuf,
    /// Where later ones join, and the file of the token they show.
    join: Option<(String, PathBuf)>,
}

impl Nodes {
    /// Starts a cluster of so many nodes in an empty folder.
    pub(crate) async fn start(program: &Path, folder: &Path, count: usize) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut nodes = Self {
            addresses: Vec::new(),
            processes: Vec::new(),
            folder: folder.to_owned(),
            join: None,
        };
        nodes.add(program, 1, count).await?;
        if count > 1 {
            let servers = Servers::new(&nodes.addresses, 1)?;
            let token = join_token(&servers).await?;
            let file = folder.join("join.token");
            std::fs::write(&file, &token.token)?;
            nodes.join = Some((token.peer_address, file));
            for number in 2..=count {
                nodes.add(program, number, count).await?;
            }
            all_vote(&servers, count).await?;
        }
        Ok(nodes)
    }

    async fn add(&mut self, program: &Path, number: usize, count: usize) -> anyhow::Result<()> {
        let log = self.folder.join(format!("node{number}.log"));
        let mut command = Command::new(program);
        command
            .arg("server")
            .arg("--with-parent")
            .arg("--data")
            .arg(self.folder.join(format!("node{number}")))
            .args(["--listen", &free_address()?]);
        if count > 1 {
            // What all nodes must reach: a folder here, as a shared one would be elsewhere.
            command
                .args(["--peer-listen", &free_address()?])
                .arg("--staging")
                .arg(self.folder.join("staging"))
                .arg("--store")
                .arg(self.folder.join("store"));
        }
        if let Some((founder, token)) = &self.join {
            command
                .args(["--join", founder])
                .arg("--join-token-file")
                .arg(token);
        }
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

    /// Their processes, in the order of the addresses.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(Child::id).collect()
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

async fn join_token(servers: &Servers) -> anyhow::Result<v1::CreateJoinTokenResponse> {
    let path = "/stepcast.v1.ClusterService/CreateJoinToken";
    let asked = v1::CreateJoinTokenRequest::default();
    let token = servers.call(0, path, None, &asked).await;
    token.map_err(|failed: Failed| anyhow::anyhow!("no token to join with: {failed:?}"))
}

/// Waits until every node votes: until then fewer of them would have to answer.
async fn all_vote(servers: &Servers, count: usize) -> anyhow::Result<()> {
    let asked = v1::GetClusterStatusRequest::default();
    let path = "/stepcast.v1.ClusterService/GetClusterStatus";
    let waiting = async {
        loop {
            let status: Result<v1::GetClusterStatusResponse, _> =
                servers.ask(0, 0, path, &asked).await;
            if status.is_ok_and(|status| status.voters.len() == count) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(VOTES_WITHIN, waiting)
        .await
        .context("not every node has come to vote")
}

/// An address of this host that is free at this moment.
pub(crate) fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
