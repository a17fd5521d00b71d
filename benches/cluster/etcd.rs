//! The same durable write against etcd: three members on the same disk, the same callers, one round after the other.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use tokio::process::{Child, Command};

use crate::board::{Board, Tally};
use crate::callers::{Load, Pace, WARM_UP, Write, connections};
use crate::job;
use crate::nodes::{Nodes, free_address};
use crate::processor::Meter;
use crate::row;
use crate::servers::Servers;

/// Debian's package `etcd-server`.
const PROGRAM: &str = "etcd";

/// Members that have not agreed on a leader in this time have failed.
const LEADS_WITHIN: Duration = Duration::from_secs(20);

/// The pause between two questions for a leader.
const PAUSE: Duration = Duration::from_millis(100);

/// From so many callers on, as many submissions as puts are wanted.
const BAR_FROM: usize = 64;

/// How many submissions and how many puts a second, and the first by the second.
#[derive(Debug, Args)]
pub(crate) struct Etcd {
    /// Callers, one figure for each
    #[arg(long, value_delimiter = ',', default_value = "1,64,1000")]
    callers: Vec<usize>,
    /// Rounds; every other one begins with etcd
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Members and nodes
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Stepcast's nodes, if they are to be fewer than etcd's members
    #[arg(long)]
    own_nodes: Option<usize>,
    /// Bytes of a value; as many as a submission takes in our log unless given
    #[arg(long)]
    value_bytes: Option<usize>,
}

/// The answer of `Maintenance.Status`, as far as it is of use: who answers, and who leads.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// Of `ResponseHeader`.
#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// `StatusRequest` has no fields.
#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

/// Of `PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Put {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

impl Etcd {
    pub(crate) async fn run(&self, program: &Path, data: &Path) -> anyhow::Result<()> {
        let entry = job::entry_bytes()?;
        let value = self.value_bytes.unwrap_or(entry);
        println!(
            "{} nodes and members; a submission is {entry} bytes in our log, a value {value} bytes in etcd",
            self.nodes
        );
        println!(
            "{:<8} {:>6} {:>10} {:>8} {:>8} {:>10} {:>8} {:>8} {:>7}",
            "callers",
            "round",
            "submits/s",
            "p50 ms",
            "p99 ms",
            "puts/s",
            "p50 ms",
            "p99 ms",
            "ratio"
        );
        let mut rows = Vec::new();
        for callers in &self.callers {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..self.rounds {
                // Whoever goes second on a busy machine is not always the same.
                if round % 2 == 1 {
                    theirs.push(self.puts(&data.join("etcd"), *callers, value).await?);
                    ours.push(self.submits(program, &data.join("nodes"), *callers).await?);
                } else {
                    ours.push(self.submits(program, &data.join("nodes"), *callers).await?);
                    theirs.push(self.puts(&data.join("etcd"), *callers, value).await?);
                }
                if let (Some(ours), Some(theirs)) = (ours.last(), theirs.last()) {
                    line(&callers.to_string(), &(round + 1).to_string(), ours, theirs);
                }
            }
            let (ours, theirs) = (Tally::together(&ours), Tally::together(&theirs));
            line(&callers.to_string(), "all", &ours, &theirs);
            rows.push((*callers, ours, theirs));
        }
        for (callers, ours, theirs) in rows {
            let ratio = ours.acked_per_second() / theirs.acked_per_second();
            let figure = format!(
                "{ratio:.2} ({:.0}/s, p99 {:.1} ms, {:.0} µs; etcd {:.0}/s, p99 {:.1} ms, {:.0} µs)",
                ours.acked_per_second(),
                ours.acked.ms(0.99),
                ours.spent.us(),
                theirs.acked_per_second(),
                theirs.acked.ms(0.99),
                theirs.spent.us()
            );
            println!(
                "{callers} callers, processor time each: a submission {}",
                ours.spent.words()
            );
            println!(
                "{callers} callers, processor time each: a put {}",
                theirs.spent.words()
            );
            let question =
                format!("submissions by etcd's puts of {value} bytes, {callers} callers");
            // One caller waits for the disk here as there.
            let bar = (callers >= BAR_FROM).then_some(("1.0 or more", ratio >= 1.0));
            row(&question, &figure, bar);
        }
        Ok(())
    }

    /// Submissions without a worker: every one is on disk on two nodes and waits in the queue.
    async fn submits(
        &self,
        program: &Path,
        folder: &Path,
        callers: usize,
    ) -> anyhow::Result<Tally> {
        let nodes = Nodes::start(program, folder, self.own_nodes.unwrap_or(self.nodes)).await?;
        let servers = Servers::new(&nodes.addresses, connections(callers))?;
        let tally = self
            .measure(servers, &nodes.pids(), callers, Write::jobs()?)
            .await?;
        nodes.stop().await?;
        Ok(tally)
    }

    async fn puts(&self, folder: &Path, callers: usize, value: usize) -> anyhow::Result<Tally> {
        let members = Members::start(folder, self.nodes).await?;
        let servers = Servers::new(&members.addresses, connections(callers))?;
        servers.set_leader(members.leader(&servers).await?);
        let tally = self
            .measure(servers, &members.pids(), callers, Write::Put { value })
            .await?;
        members.stop().await?;
        Ok(tally)
    }

    async fn measure(
        &self,
        servers: Servers,
        pids: &[u32],
        callers: usize,
        write: Write,
    ) -> anyhow::Result<Tally> {
        let board = Arc::new(Board::of_answers());
        let load = Load::new(servers, write, &board);
        let time = Duration::from_secs(self.seconds);
        let meter = Meter::begin(pids, load.writes())?;
        let troubles = load.go(callers, Pace::Closed, WARM_UP, time).await?;
        let spent = meter.end(load.leader(), load.writes())?;
        if troubles.failed > 0 {
            bail!("{}", troubles.word.unwrap_or_default());
        }
        if troubles.held_back > 0 {
            println!(
                "  the queue was full before the time was over; what was measured until then counts"
            );
        }
        Ok(Tally {
            spent,
            ..board.take()
        })
    }
}

fn line(callers: &str, round: &str, ours: &Tally, theirs: &Tally) {
    println!(
        "{callers:<8} {round:>6} {:>10.0} {:>8.2} {:>8.2} {:>10.0} {:>8.2} {:>8.2} {:>7.2}",
        ours.acked_per_second(),
        ours.acked.ms(0.5),
        ours.acked.ms(0.99),
        theirs.acked_per_second(),
        theirs.acked.ms(0.5),
        theirs.acked.ms(0.99),
        ours.acked_per_second() / theirs.acked_per_second()
    );
}

/// Running members of an etcd cluster.
struct Members {
    addresses: Vec<String>,
    processes: Vec<Child>,
    folder: std::path::PathBuf,
}

impl Members {
    /// Starts members with etcd's own defaults: every put is synced to disk before it is answered.
    async fn start(folder: &Path, count: usize) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let addresses: Vec<(String, String)> = (0..count)
            .map(|_| {
                let url = || anyhow::Ok(format!("http://{}", free_address()?));
                anyhow::Ok((url()?, url()?))
            })
            .collect::<Result<_, _>>()?;
        let cluster: Vec<String> = addresses
            .iter()
            .enumerate()
            .map(|(number, (_, peer))| format!("m{number}={peer}"))
            .collect();
        let mut members = Self {
            addresses: Vec::new(),
            processes: Vec::new(),
            folder: folder.to_owned(),
        };
        for (number, (client, peer)) in addresses.into_iter().enumerate() {
            let name = format!("m{number}");
            let process = Command::new(PROGRAM)
                .args(["--name", &name, "--data-dir"])
                .arg(folder.join(&name))
                .args(["--listen-client-urls", &client])
                .args(["--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer])
                .args(["--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &cluster.join(",")])
                .args(["--log-level", "error", "--logger", "zap"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(folder.join(format!("{name}.log")))?)
                .kill_on_drop(true)
                .spawn()
                .context("etcd cannot be started; it is in Debian's package etcd-server")?;
            members.processes.push(process);
            members.addresses.push(client);
        }
        Ok(members)
    }

    /// Which of them leads: puts go there, since another member would only pass them on.
    async fn leader(&self, servers: &Servers) -> anyhow::Result<usize> {
        let begun = Instant::now();
        while begun.elapsed() < LEADS_WITHIN {
            for number in 0..self.addresses.len() {
                let asked: Result<Status, _> = servers
                    .ask(number, 0, "/etcdserverpb.Maintenance/Status", &Nothing {})
                    .await;
                let Ok(status) = asked else { continue };
                let own = status.header.unwrap_or_default().member_id;
                if own != 0 && own == status.leader {
                    return Ok(number);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("etcd has no leader; see {}", self.folder.display())
    }

    fn pids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(Child::id).collect()
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.kill().await?;
        }
        std::fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}
