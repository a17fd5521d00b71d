//! A cluster of several nodes as its operator meets it: real servers that join, lead, die, go and are restored.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use crate::passed_on::passes_changes_on;
use crate::support::{Process, Said, alone, example, program, until};

/// One server of the cluster.
pub(crate) struct Node {
    pub(crate) address: String,
    peers: String,
    metrics: String,
    process: Process,
    /// What it logs, once it has ended.
    log: JoinHandle<String>,
}

/// Servers that share a folder, and calls that go to them.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    nodes: Vec<Node>,
}

/// The places that all nodes share.
const PLACES: [&str; 4] = ["--store", "shared/records", "--staging", "shared/staging"];

fn spawn(folder: &TempDir, data: &str, more: &[&str]) -> Child {
    program(folder.path())
        .args(["server", "--data", data, "--listen", "127.0.0.1:0"])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

impl Node {
    fn start(folder: &TempDir, data: &str, more: &[&str]) -> Self {
        let arguments = [&["--metrics-listen", "127.0.0.1:0"], more].concat();
        let mut process = spawn(folder, data, &arguments);
        // It must not fill a pipe.
        let log = process.stderr.take().unwrap();
        let log = std::thread::spawn(move || std::io::read_to_string(log).unwrap());
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut after = |words: &str| {
            let line = lines.next().expect("it starts").unwrap();
            line.strip_prefix(words).expect(words).to_owned()
        };
        Self {
            address: after("listening on "),
            peers: after("for other nodes on "),
            metrics: after("metrics on http://"),
            process: Process(process),
            log,
        }
    }

    fn probe(&self, path: &str) -> String {
        use std::io::{Read, Write};
        let address = self.metrics.strip_suffix("/metrics").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Cluster {
    pub(crate) fn of(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let founder = Node::start(&folder, "n1", &PLACES);
        let mut cluster = Self {
            folder,
            nodes: vec![founder],
        };
        let made = cluster.ask(&["cluster", "token", "--out", "join.token", "--json"]);
        assert_eq!(made["token"], Value::Null, "it is in the file alone");
        let peers = cluster.nodes[0].peers.clone();
        assert_eq!(made["peer_address"], peers.as_str());
        let join = ["--join", &peers, "--join-token-file", "join.token"];
        for number in 2..=count {
            let data = format!("n{number}");
            let arguments = [&PLACES[..], &join].concat();
            let node = Node::start(&cluster.folder, &data, &arguments);
            cluster.nodes.push(node);
        }
        until(|| cluster.status()["voters"].as_array().unwrap().len() == count);
        cluster
    }

    fn addresses(&self) -> String {
        let all: Vec<&str> = self
            .nodes
            .iter()
            .map(|node| node.address.as_str())
            .collect();
        all.join(",")
    }

    /// A call that may go to any of these servers.
    fn call_at(&self, servers: &str, arguments: &[&str]) -> Said {
        let mut command = program(self.folder.path());
        command.env("STEPCAST_SERVER", servers).args(arguments);
        command.output().unwrap().into()
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Said {
        self.call_at(&self.addresses(), arguments)
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        self.call(arguments).json()
    }

    fn status(&self) -> Value {
        self.ask(&["cluster", "status", "--json"])
    }

    pub(crate) fn leader(&self) -> u64 {
        until(|| self.status()["leader_id"] != 0);
        self.status()["leader_id"].as_u64().unwrap()
    }

    pub(crate) fn node(&self, id: u64) -> &Node {
        &self.nodes[usize::try_from(id).unwrap() - 1]
    }

    pub(crate) fn kill(&mut self, id: u64) {
        let node = &mut self.nodes[usize::try_from(id).unwrap() - 1];
        node.process.0.kill().unwrap();
        node.process.0.wait().unwrap();
    }

    /// Waits until a server has ended by itself: how, and what it has logged.
    pub(crate) fn ended(&mut self, id: u64) -> (Option<i32>, String) {
        let node = &mut self.nodes[usize::try_from(id).unwrap() - 1];
        until(|| node.process.0.try_wait().unwrap().is_some());
        let log = std::mem::replace(&mut node.log, std::thread::spawn(String::new));
        (node.process.0.wait().unwrap().code(), log.join().unwrap())
    }

    fn jobs(&self, servers: &str, more: &[&str]) -> Vec<String> {
        let answer = self
            .call_at(servers, &[&["jobs", "--json"], more].concat())
            .json();
        let jobs = answer["jobs"].as_array().unwrap();
        let id = |job: &Value| job["job"].as_str().unwrap().to_owned();
        jobs.iter().map(id).collect()
    }
}

fn roles(status: &Value) -> Vec<(u64, String, bool)> {
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes
        .map(|node| {
            (
                node["node_id"].as_u64().unwrap(),
                node["role"].as_str().unwrap().to_owned(),
                node["reachable"].as_bool().unwrap(),
            )
        })
        .collect()
}

#[test]
fn three_nodes_take_calls_anywhere_lose_their_leader_and_go_on() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.leader();
    let status = cluster.status();
    assert_eq!(
        (&status["can_lose"], &status["leading"]),
        (&1.into(), &true.into())
    );
    assert!(status["leading_seconds"].is_u64(), "{status}");
    assert_eq!(
        roles(&status)
            .iter()
            .filter(|(_, role, _)| role == "FOLLOWER")
            .count(),
        2
    );

    // A follower knows the way: only one address is given, and it is not the leader's.
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let address = cluster.node(follower).address.clone();
    let path = example();
    let submit = ["submit", path.to_str().unwrap(), "--yes"];
    let job = cluster.call_at(&address, &submit).ok().trim().to_owned();
    assert_eq!(cluster.jobs(&address, &[]), [job.as_str()]);
    until(|| cluster.jobs(&address, &["--stale"]) == [job.as_str()]);
    passes_changes_on(&cluster, &address);
    knows_new_people(&cluster, &address);
    finds_new_teams(&cluster, &address);
    let metrics = cluster.node(follower).probe("/metrics");
    assert!(metrics.contains("stepcast_raft_voters 3\n"), "{metrics}");
    assert!(
        metrics.contains("stepcast_peer_reachable{node=\""),
        "{metrics}"
    );
    assert!(
        metrics.contains("stepcast_object_store_requests_total{operation=\""),
        "{metrics}"
    );
    assert!(cluster.node(follower).probe("/readyz").ends_with("ready\n"));

    let moved = cluster.ask(&["cluster", "transfer", &format!("n{follower}"), "--json"]);
    assert_eq!(moved["leader_id"], follower);
    // Who moved it stands in the audit log.
    let trail = || cluster.ask(&["audit", "--json"]).to_string();
    let moved = format!("leadership/nodes/{follower}");
    let (told, before) = (trail().contains(&moved), trail());
    assert!(told && before.contains("CHANGE_NODES"), "{before}");
    // What is refused was not done, and is not there.
    cluster.call(&["cluster", "remove", "n9"]).refused(3);
    cluster.call(&["cluster", "transfer", "n9"]).refused(3);
    assert!(!trail().contains("nodes/9"), "{}", trail());
    cluster.call(&["cluster", "rotate"]).ok();
    let told = trail();
    assert!(told.contains(r#":"secret""#), "{told}");
    cluster.kill(follower);
    let waiting = ["--state", "pending"];
    assert_eq!(cluster.jobs(&cluster.addresses(), &waiting), [job.as_str()]);
    let next = cluster.leader();
    assert_ne!(next, follower);
    until(|| {
        roles(&cluster.status())
            .iter()
            .any(|(id, _, there)| *id == follower && !there)
    });
    let text = cluster.call(&["cluster", "status", "--columns", "100"]);
    assert!(
        text.stderr
            .contains(&format!("stepcast cluster remove n{follower}")),
        "{}",
        text.stderr
    );
    assert_eq!(cluster.status()["can_lose"], 0);

    // A node that is gone is taken out, and whoever asks again hears the same; one that never was is nothing to take out.
    let gone = format!("n{follower}");
    cluster.call(&["cluster", "remove", &gone]).ok();
    assert!(
        roles(&cluster.status())
            .iter()
            .all(|(id, _, _)| *id != follower)
    );
    cluster.call(&["cluster", "remove", &gone]).ok();
    let never = cluster.call(&["cluster", "remove", "n9"]).refused(3);
    assert!(never.contains("there is no such node"), "{never}");

    // A leader that is to go hands over first.
    let leader = cluster.leader();
    let name = format!("n{leader}");
    cluster.call(&["cluster", "remove", &name]).ok();
    let last = cluster.leader();
    assert_ne!(last, leader);
    // It has nothing left to do, and says so to whoever looks why it is gone.
    let (code, log) = cluster.ended(leader);
    assert_eq!(code, Some(1), "{log}");
    let why = "error: the server has stopped\n  the consensus has ended: this node was removed from the cluster; to take part \
               again it has to join with an empty data directory\n";
    assert!(log.ends_with(why), "{log}");
    let name = format!("n{last}");
    let refused = cluster.call(&["cluster", "remove", &name]).refused(1);
    assert!(refused.contains("the only one that votes"), "{refused}");
    assert_eq!(cluster.jobs(&cluster.node(last).address, &waiting), [job]);
}

/// Who was let in a moment before is known at every node.
fn knows_new_people(cluster: &Cluster, follower: &str) {
    cluster.call(&["org", "create", "acme"]).ok();
    for number in 0..5 {
        let (name, token) = (format!("ada{number}"), format!("ada{number}.token"));
        let people = ["--org", "acme", "--role", "member", "--out", &token];
        cluster
            .call(&[&["user", "create", &name][..], &people].concat())
            .ok();
        cluster
            .call_at(follower, &["--access-token-file", &token, "jobs"])
            .ok();
    }
}

/// What was acknowledged holds at once at every node: a job goes into a team that was made a moment before.
fn finds_new_teams(cluster: &Cluster, follower: &str) {
    let path = example();
    for number in 0..5 {
        let team = format!("new{number}");
        cluster.call(&["teams", "set", &team]).ok();
        let check = ["submit", path.to_str().unwrap(), "--dry-run", "--team"];
        cluster
            .call_at(follower, &[&check[..], &[&team]].concat())
            .ok();
    }
}

#[test]
fn a_backup_is_whole_and_becomes_another_cluster() {
    let cluster = Cluster::of(2);
    let path = example();
    let submit = ["submit", path.to_str().unwrap(), "--yes"];
    let job = cluster.call(&submit).ok().trim().to_owned();
    // Of a follower: any node has everything.
    let follower = if cluster.leader() == 1 { 2 } else { 1 };
    let address = cluster.node(follower).address.clone();
    let made = cluster.call_at(&address, &["cluster", "backup", "b.snapshot", "--json"]);
    let made = made.json();
    let file = cluster.folder.path().join("b.snapshot");
    assert_eq!(made["bytes"], std::fs::metadata(&file).unwrap().len());
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it is its owner's to read");
    // The state has left the cluster: that stands in the audit log.
    let trail = cluster.ask(&["audit", "--json"]).to_string();
    assert!(trail.contains("BACKUP"), "{trail}");
    let again = cluster
        .call(&["cluster", "backup", "b.snapshot"])
        .refused(1);
    assert!(again.contains("is there already"), "{again}");

    let restore = [
        "cluster",
        "restore",
        "--data",
        "other",
        "b.snapshot",
        "--json",
    ];
    let restored = alone(cluster.folder.path(), &restore).json();
    assert_eq!(
        (&restored["jobs"], &restored["jobs_not_over"]),
        (&1.into(), &1.into())
    );
    let taken = alone(cluster.folder.path(), &restore).refused(1);
    assert!(taken.contains("is not empty"), "{taken}");
    // What waits needs its files: neither an empty place is taken for theirs, nor one that is still the old cluster's.
    let refused = |more: &[&str]| {
        let said: Said = spawn(&cluster.folder, "other", more)
            .wait_with_output()
            .unwrap()
            .into();
        said.refused(1)
    };
    let empty = refused(&[]);
    assert!(
        empty.contains("1 job would fail") && empty.contains("--new-staging"),
        "{empty}"
    );
    let foreign = refused(&PLACES);
    assert!(
        foreign.contains("delete the file or object `cluster`"),
        "{foreign}"
    );
    std::fs::remove_file(cluster.folder.path().join("shared/staging/cluster")).unwrap();
    let other = Node::start(&cluster.folder, "other", &PLACES);
    let known = [job];
    assert_eq!(cluster.jobs(&other.address, &[]), known);
    let status = cluster.call_at(&other.address, &["cluster", "status", "--json"]);
    let status = status.json();
    assert!(status["snapshot_bytes"].as_u64() > Some(0), "{status}");
    assert!(status["snapshot_age_seconds"].is_u64(), "{status}");
    assert_eq!(status["voters"].as_array().unwrap().len(), 1);
    assert_ne!(status["cluster_id"], cluster.status()["cluster_id"]);

    let told = ["cluster", "restore", "--data", "anew", "b.snapshot"];
    let told = alone(cluster.folder.path(), &told).stderr;
    let places = "--data anew --store LOCATION --staging LOCATION";
    assert!(told.contains(places), "{told}");
    let anew = Node::start(&cluster.folder, "anew", &["--new-staging"]);
    assert_eq!(cluster.jobs(&anew.address, &[]), known);

    // A byte that is not what was written is found before anything is made of it.
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(cluster.folder.path().join("bad.snapshot"), bytes).unwrap();
    let damaged = ["cluster", "restore", "--data", "third", "bad.snapshot"];
    alone(cluster.folder.path(), &damaged).refused(1);
    assert!(!cluster.folder.path().join("third/node").exists());
}

#[test]
fn a_place_without_the_files_of_a_node_s_jobs_is_refused_though_it_is_its_own() {
    let mut cluster = Cluster::of(1);
    let path = example();
    let submit = ["submit", path.to_str().unwrap(), "--yes"];
    let job = cluster.call(&submit).ok().trim().to_owned();
    cluster.kill(1);
    let shared = cluster.folder.path().join("shared");
    std::fs::create_dir(shared.join("moved")).unwrap();
    std::fs::copy(shared.join("staging/cluster"), shared.join("moved/cluster")).unwrap();
    let places = ["--store", "shared/records", "--staging", "shared/moved"];
    let node = spawn(&cluster.folder, "n1", &places);
    let said = Said::from(node.wait_with_output().unwrap()).refused(1);
    let words = ["none of the files", "1 job would fail", "move all"];
    assert!(words.iter().all(|words| said.contains(words)), "{said}");
    std::fs::remove_dir_all(shared.join("moved")).unwrap();
    std::fs::rename(shared.join("staging"), shared.join("moved")).unwrap();
    let node = Node::start(&cluster.folder, "n1", &places);
    assert_eq!(cluster.jobs(&node.address, &[]), [job]);
}

#[test]
fn who_may_not_join_is_told_why() {
    let cluster = Cluster::of(1);
    let peers = cluster.nodes[0].peers.clone();
    let join = |data: &str, more: &[&str]| -> Said {
        let arguments = [&["--join", &peers], more].concat();
        spawn(&cluster.folder, data, &arguments)
            .wait_with_output()
            .unwrap()
            .into()
    };
    let token = ["--join-token-file", "join.token"];
    let own_places = join("a", &token).refused(2);
    assert!(
        own_places.contains("give --store and --staging"),
        "{own_places}"
    );
    let without = join("b", &PLACES).refused(2);
    assert!(without.contains("needs a join token"), "{without}");
    let elsewhere = ["--store", "shared/records", "--staging", "c/staging"];
    let elsewhere = join("c", &[&token[..], &elsewhere].concat()).refused(1);
    assert!(
        elsewhere.contains("every node needs the same places"),
        "{elsewhere}"
    );
    let no_token = join("d", &[&PLACES[..], &["--token", "nonsense"]].concat()).refused(1);
    assert!(no_token.contains("this is no join token"), "{no_token}");
    let nodes = roles(&cluster.status());
    assert_eq!(nodes, [(1, "LEADER".to_owned(), true)], "nobody came in");

    // A cluster whose one node keeps everything in its own folder says so, to whoever asks for a token and to who comes.
    let hermit = Node::start(&cluster.folder, "hermit", &[]);
    let told = cluster.call_at(
        &hermit.address,
        &["cluster", "token", "--out", "hermit.token"],
    );
    assert!(
        told.stderr.contains("restart its nodes with --store"),
        "{}",
        told.stderr
    );
    let arguments = [
        &PLACES[..],
        &["--join", &hermit.peers, "--join-token-file", "hermit.token"],
    ]
    .concat();
    let refused: Said = spawn(&cluster.folder, "e", &arguments)
        .wait_with_output()
        .unwrap()
        .into();
    let refused = refused.refused(1);
    assert!(
        refused.contains("start it with --store and --staging"),
        "{refused}"
    );
}
