//! A cluster of real servers and workers: started, asked how it is, and taken apart.

mod members;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stepcast_proto::v1;
use stepcast_tests::random::Random;
use tempfile::TempDir;

use crate::caller::{Server, Servers};
use crate::disk::Disk;
use crate::history::History;
use crate::people::{DRAINED, POOL};
use crate::process::Process;
use crate::proxy::Party;
use crate::trainers::Trainers;
use crate::wires::{Place, Wires};

/// The program under test.
pub(crate) const STEPCAST: &str = env!("CARGO_BIN_EXE_stepcast");

/// A lease's term: short, so that a worker's death is noticed while the test runs, and longer than an election.
pub(crate) const LEASE: Duration = Duration::from_secs(4);

/// A run of some 24 s as written takes about half a second.
pub(crate) const SPEED: &str = "60";

/// Pretend devices of each worker.
const DEVICES: &str = "2";

/// What callers show where anybody could call.
const ACCESS_TOKEN: &str = "people-of-the-cluster-test";

/// How long anything may take that only the cluster itself has to do: far beyond what it takes, for a machine whose disk is
/// busy with other things has been seen to stand still for most of a minute.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at a node.
pub(crate) const LOOK: Duration = Duration::from_millis(25);

/// Names the program of the version before, where it is another one.
const OLDER: &str = "STEPCAST_CLUSTER_OLDER";

/// One server.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) process: Option<Process>,
    /// Whether it belongs to the cluster: it was let in and not taken out.
    pub(crate) member: bool,
    /// Whether it is started as the version before.
    pub(crate) older: bool,
    pub(crate) disk: Option<Disk>,
    data: PathBuf,
    /// Through whom it joined; the founder through nobody.
    joined: Option<String>,
    /// Reaches it past every fault of the network between nodes.
    control: Server,
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) process: Option<Process>,
    labels: Vec<String>,
}

/// The cluster. Everything of it ends when this is dropped; the folder stays after a failure.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// By their numbers, from 1; number 0 is never there.
    pub(crate) nodes: Vec<Node>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) wires: Wires,
    pub(crate) servers: Servers,
    pub(crate) trainers: Arc<Trainers>,
    /// Whether nodes that are let in from now on are of the version before.
    pub(crate) older: bool,
    history: History,
    folder: Option<TempDir>,
    random: Random,
}

impl Cluster {
    /// An empty one.
    pub(crate) async fn new(wires: Wires, history: &History, mut random: Random) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        fs::write(folder.path().join("access"), ACCESS_TOKEN).unwrap();
        let token = wires.needs_access_token().then_some(ACCESS_TOKEN);
        Self {
            nodes: Vec::new(),
            workers: Vec::new(),
            wires,
            servers: Servers::new(token, history.clone()),
            trainers: Trainers::listen().await,
            older: false,
            history: history.clone(),
            folder: Some(folder),
            random: random.fork(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.as_ref().unwrap().path().join(name)
    }

    /// The numbers of nodes that belong to the cluster.
    pub(crate) fn members(&self) -> Vec<usize> {
        let members = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.member);
        members.map(|(number, _)| number + 1).collect()
    }

    pub(crate) fn node(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number - 1]
    }

    /// Everybody that a node speaks with, besides itself.
    pub(crate) fn others(&self, number: usize) -> Vec<Party> {
        let nodes = self.members().into_iter().filter(|other| *other != number);
        let workers = (0..self.workers.len()).map(Party::Worker);
        let people = [Party::People].into_iter();
        nodes
            .map(Party::Node)
            .chain(workers)
            .chain(people)
            .collect()
    }

    /// Starts a node's process if it does not run.
    pub(crate) fn start_node(&mut self, number: usize) {
        let node = &self.nodes[number - 1];
        if node.process.is_some() || !node.member {
            return;
        }
        let process = Process::start(self.node_command(number), &self.log(&format!("n{number}")));
        self.wires.is_process(Party::Node(number), process.id());
        self.node(number).process = Some(process);
    }

    fn node_command(&self, number: usize) -> Command {
        let node = &self.nodes[number - 1];
        let place = &node.place;
        let other = std::env::var(OLDER).ok().filter(|_| node.older);
        let program = other.as_deref().unwrap_or(STEPCAST);
        let mut command = match &place.namespace {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, program]);
                command
            }
            None => Command::new(program),
        };
        let lease = LEASE.as_secs().to_string();
        command
            .args([
                "server",
                "--listen",
                &place.listen,
                "--lease-seconds",
                &lease,
            ])
            .arg("--data")
            .arg(&node.data)
            .arg("--store")
            .arg(self.path("store"));
        command
            .args(["--peer-listen", &place.peer_listen])
            .args(["--peer-address", &place.peer_address])
            .args(["--client-address", &place.client_address])
            .arg("--staging")
            .arg(self.path("staging"));
        if let Some(peer) = &node.joined {
            let token = self.path(&format!("join{number}"));
            command
                .args(["--join", peer, "--join-token-file"])
                .arg(token);
        }
        if node.older && other.is_none() {
            let before = stepcast_cluster::LOG_FORMAT - 1;
            command.args(["--hold-format", &before.to_string()]);
        }
        if self.wires.needs_access_token() {
            let file = self.path("access");
            command
                .arg("--allow-plain-text")
                .arg("--access-token-file")
                .arg(file);
        }
        command
    }

    /// Starts so many workers for jobs, and one more that is only drained and resumed.
    pub(crate) async fn hire(&mut self, workers: usize) {
        let label = format!("{}={}", POOL.0, POOL.1);
        for number in 0..=workers {
            let last = number == workers;
            let name = if last {
                DRAINED.to_owned()
            } else {
                format!("w{number}")
            };
            let begun = Instant::now();
            let made = loop {
                let leader = self.await_leader().await;
                let mut server = self.node(leader).control.clone();
                let request = v1::CreateWorkerTokenRequest {
                    display_name: name.clone(),
                };
                match server.workers.create_worker_token(request).await {
                    Ok(made) => break made.into_inner(),
                    Err(status) => assert!(begun.elapsed() < PATIENCE, "{status:?}"),
                }
                tokio::time::sleep(LOOK).await;
            };
            fs::write(self.path(&format!("token{number}")), made.secret).unwrap();
            let helper = self.path(&format!("helper{number}"));
            self.trainers.write_helper(&helper, number, STEPCAST);
            let labels = if last {
                Vec::new()
            } else {
                vec![label.clone()]
            };
            self.workers.push(Worker {
                process: None,
                labels,
            });
            self.start_worker(number);
        }
    }

    /// Starts a worker's process if it does not run.
    pub(crate) fn start_worker(&mut self, number: usize) {
        if self.workers[number].process.is_some() {
            return;
        }
        let mut command = Command::new(STEPCAST);
        let servers = self.servers.addresses().join(",");
        command
            .args([
                "worker",
                "--server",
                &servers,
                "--replay",
                DEVICES,
                "--replay-speed",
                SPEED,
            ])
            .arg("--join-token-file")
            .arg(self.path(&format!("token{number}")))
            .arg("--state")
            .arg(self.worker_state(number))
            .arg("--helper")
            .arg(self.path(&format!("helper{number}")))
            // Between network namespaces nobody else listens.
            .env("STEPCAST_ALLOW_PLAIN_TEXT", "true");
        for label in &self.workers[number].labels {
            command.args(["--label", label]);
        }
        let process = Process::start(command, &self.log(&format!("w{number}")));
        self.wires.is_process(Party::Worker(number), process.id());
        self.workers[number].process = Some(process);
    }

    fn worker_state(&self, number: usize) -> PathBuf {
        self.path(&format!("w{number}"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.path("log").join(format!("{name}.log"))
    }

    /// The last line that a node has said.
    pub(crate) fn last_word(&self, number: usize) -> String {
        let said = fs::read_to_string(self.log(&format!("n{number}"))).unwrap();
        said.lines().last().unwrap_or_default().to_owned()
    }

    /// Where the nodes' logs end now.
    pub(crate) fn logs(&self) -> Logs {
        let logs = (1..=self.nodes.len()).map(|number| self.log(&format!("n{number}")));
        Logs(
            logs.map(|log| {
                let bytes = fs::metadata(&log).map_or(0, |log| log.len());
                (log, bytes)
            })
            .collect(),
        )
    }

    /// How a node sees the cluster, asked past every fault of the network; `None` if it does not answer.
    pub(crate) async fn status(&self, number: usize) -> Option<v1::GetClusterStatusResponse> {
        let node = &self.nodes[number - 1];
        node.process.as_ref()?;
        let mut control = node.control.clone();
        let call = control
            .cluster
            .get_cluster_status(v1::GetClusterStatusRequest {});
        let answer = tokio::time::timeout(Duration::from_secs(1), call).await;
        Some(answer.ok()?.ok()?.into_inner())
    }

    /// Waits until no worker has samples left to hand over.
    pub(crate) async fn until_recorded(&self) {
        let begun = Instant::now();
        for number in 0..self.workers.len() {
            let spool = self.worker_state(number).join("spool");
            while fs::read_dir(&spool).unwrap().next().is_some() {
                assert!(
                    begun.elapsed() < PATIENCE,
                    "samples stay in {}",
                    spool.display()
                );
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// One call of the command line, to whoever leads; its standard output.
    pub(crate) async fn command_line(&self, arguments: &[&str]) -> String {
        let leader = self.await_leader().await;
        let output = Command::new(STEPCAST)
            .args(arguments)
            .env("STEPCAST_SERVER", &self.nodes[leader - 1].control.address)
            .env("STEPCAST_ACCESS_TOKEN_FILE", self.path("access"))
            .env("STEPCAST_ALLOW_PLAIN_TEXT", "true")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "stepcast {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Stops everything in the ordinary way, workers first.
    pub(crate) async fn stop(&mut self) {
        let workers = self.workers.iter_mut().map(|worker| &mut worker.process);
        let nodes = self.nodes.iter_mut().map(|node| &mut node.process);
        for process in workers.chain(nodes).filter_map(Option::take) {
            process.stop().await;
        }
    }

    /// Keeps the folder for whoever looks into a failure.
    pub(crate) fn keep(&mut self) -> PathBuf {
        match self.folder.take() {
            Some(folder) => folder.keep(),
            None => PathBuf::new(),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Who waits for a frozen disk cannot even be killed.
        for disk in self.nodes.iter().filter_map(|node| node.disk.as_ref()) {
            disk.thaw();
        }
        for process in self.workers.iter_mut().map(|worker| &mut worker.process) {
            process.take();
        }
        for process in self.nodes.iter_mut().map(|node| &mut node.process) {
            process.take();
        }
        if std::thread::panicking() {
            let folder = self.keep();
            println!("everything of it is in {}", folder.display());
            tails(&folder.join("log"));
        }
    }
}

/// Logs, and how long each was at one moment.
#[derive(Debug)]
pub(crate) struct Logs(Vec<(PathBuf, u64)>);

impl Logs {
    /// Prints what has come to them since.
    pub(crate) fn tell(&self) {
        for (path, known) in &self.0 {
            let log = fs::read(path).unwrap_or_default();
            let news = log.get(*known as usize..).unwrap_or_default();
            println!("  {}:", path.display());
            let news = String::from_utf8_lossy(news);
            news.lines().for_each(|line| println!("    {line}"));
        }
    }
}

/// The end of each process's log.
fn tails(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let log = fs::read(entry.path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let tail: Vec<&str> = log.lines().rev().take(12).collect();
        println!("the end of {}:", entry.file_name().to_string_lossy());
        tail.iter().rev().for_each(|line| println!("  {line}"));
    }
}
