//! A job is followed by the command line and by server-sent events from its beginning to its end, while the node that tells
//! of it dies.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

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
    let nodes = nodes.map(|id| cluster.node(id).address.clone());
    let addresses = nodes.join(",");
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
    let following = std::thread::spawn(move || follow(&nodes, &job));

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
    // The first event, that it was submitted, is in what a watch begins with.
    let story = [
        "PLACED",
        "STARTED",
        "CHECKPOINTED",
        "CHECKPOINTED",
        "ATTEMPT_ENDED",
        "SUCCEEDED",
    ];
    let story: Vec<_> = (2..).zip(story.map(str::to_owned)).collect();
    assert_eq!(told, story);
    assert_eq!(following.join().unwrap(), story, "as server-sent events");
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

/// Follows a job by server-sent events, at one node after the other: the number and the kind of each.
fn follow(nodes: &[String], job: &str) -> Vec<(u64, String)> {
    // It knows that the job was submitted.
    let (mut told, mut last) = (Vec::new(), 1);
    for node in nodes.iter().cycle() {
        std::thread::sleep(Duration::from_millis(50));
        let host = node.strip_prefix("http://").unwrap();
        let Ok(mut stream) = TcpStream::connect(host) else {
            continue;
        };
        let asked = write!(
            stream,
            "GET /v1/jobs/{job}/watch HTTP/1.0\r\nHost: {host}\r\nLast-Event-ID: {last}\r\n\r\n"
        );
        let (mut name, mut number) = (String::new(), last);
        // What is cut off goes on at the next one.
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            match line.split_once(": ") {
                Some(("event", of)) => of.clone_into(&mut name),
                Some(("id", id)) => number = id.parse().unwrap(),
                Some(("data", text)) => {
                    last = number;
                    if name == "event" {
                        let event: Value = serde_json::from_str(text).unwrap();
                        let kind = event["kind"].as_str().unwrap().to_owned();
                        told.push((event["seq"].as_u64().unwrap(), kind));
                    }
                }
                _ => {}
            }
        }
        if asked.is_ok() && told.last().is_some_and(|(_, kind)| kind == "SUCCEEDED") {
            break;
        }
    }
    told
}
