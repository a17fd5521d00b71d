//! A job is followed by the command line from its beginning to its end while the node that tells of it dies.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::nodes::Cluster;
use crate::support::{Process, example, program};

#[test]
fn a_watch_tells_each_event_once_though_the_leader_dies() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.leader();
    // The leader is asked first, so that the stream ends with it.
    let mut nodes = [1, 2, 3];
    nodes.sort_by_key(|id| *id != leader);
    let addresses = nodes.iter().map(|id| cluster.node(*id).address.clone());
    let addresses = addresses.collect::<Vec<_>>().join(",");
    let path = example();
    let path = path.to_str().unwrap();
    let submit = ["submit", path, "--yes", "--trainer", "replay"];
    let job = cluster.call(&submit).ok().trim().to_owned();
    let mut watch = start(&cluster, &addresses, &["job", "watch", &job, "--json"]);
    let mut lines = BufReader::new(watch.0.stdout.take().unwrap()).lines();
    let mut next = || -> Option<Value> {
        let line = lines.next()?.unwrap();
        Some(serde_json::from_str(&line).unwrap())
    };
    assert_eq!(next().unwrap()["current"]["state"], "PENDING");

    let token = ["workers", "token", "create", "w1", "--out", "w1.token"];
    cluster.call(&token).ok();
    let worker = [
        "worker",
        "--replay",
        "1",
        "--replay-speed",
        "20",
        "--state",
        "w1",
        "--join-token-file",
        "w1.token",
    ];
    let _worker = start(&cluster, &addresses, &worker);
    let (mut told, mut ended) = (Vec::new(), Value::Null);
    while let Some(line) = next() {
        if let Some(event) = line.get("event") {
            let kind = event["kind"].as_str().unwrap().to_owned();
            if kind == "STARTED" {
                cluster.kill(leader);
            }
            told.push((event["seq"].as_u64().unwrap(), kind));
        }
        if let Some(job) = line.get("ended") {
            ended = job.clone();
        }
    }
    assert!(watch.0.wait().unwrap().success(), "{told:?}");
    // Its first event, that it was submitted, is in what the watch began with.
    let numbers = told.iter().map(|(seq, _)| *seq);
    assert!(numbers.eq(2..2 + told.len() as u64), "{told:?}");
    let kinds: Vec<&str> = told.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "PLACED",
            "STARTED",
            "CHECKPOINTED",
            "CHECKPOINTED",
            "ATTEMPT_ENDED",
            "SUCCEEDED"
        ]
    );
    assert_eq!(ended["state"], "SUCCEEDED");
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1);
    assert_ne!(cluster.leader(), leader);
}

fn start(cluster: &Cluster, servers: &str, arguments: &[&str]) -> Process {
    let mut command = program(cluster.folder.path());
    command
        .env("STEPCAST_SERVER", servers)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Process(command.spawn().unwrap())
}
