//! The ring with a worker: a job that succeeds, one that is cancelled, and the demo.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Process, Ring, alone, until};

#[test]
fn a_job_runs_to_its_end_and_the_next_estimate_has_learnt() {
    let ring = Ring::start();
    let _worker = ring.worker("0");
    let path = crate::support::example();
    let path = path.to_str().unwrap();
    let estimate = || {
        ring.call(&["estimate", path, "--on", "replay", "--json"])
            .json()["estimates"][0]
            .clone()
    };
    let before = estimate();
    assert_ne!(before["basis"], "EXACT");
    let said = ring.call(&["submit", path, "--yes", "--trainer", "replay", "--wait"]);
    let stdout = said.ok();
    assert!(stdout.contains("running -> succeeded"), "{stdout}");
    let jobs = ring.call(&["jobs", "--json"]).json();
    let job = jobs["jobs"][0].clone();
    assert_eq!(
        (&job["state"], job["attempts"].as_array().unwrap().len()),
        (&"SUCCEEDED".into(), 1)
    );
    let id = job["job"].as_str().unwrap();
    let watched = ring.call(&["job", "watch", id, "--json"]).ok();
    let last: Value = serde_json::from_str(watched.lines().last().unwrap()).unwrap();
    assert_eq!(last["ended"]["state"], "SUCCEEDED");
    until(|| estimate()["basis"] == "EXACT");
    let workers = ring.call(&["workers", "--json"]).json();
    assert_eq!(workers["workers"][0]["gpus"][0]["model"], "replay");
    ring.call(&["workers", "drain", "w1"]).ok();
    assert_eq!(
        ring.call(&["workers", "--json"]).json()["workers"][0]["state"],
        "DRAINING"
    );
    ring.call(&["workers", "resume", "w1"]).ok();
    assert_eq!(
        ring.call(&["workers", "--json"]).json()["workers"][0]["state"],
        "READY"
    );
}

#[test]
fn a_running_job_is_cancelled_and_its_watch_fails() {
    let ring = Ring::start();
    // At the speed of a real run it lasts minutes, so that it is still running when it is cancelled.
    let _worker = ring.worker("1");
    let job = ring.submit(&["--trainer", "replay"]);
    until(|| ring.call(&["job", "show", &job, "--json"]).json()["state"] == "RUNNING");
    ring.call(&["job", "cancel", &job]).ok();
    let stderr = ring.call(&["job", "watch", &job]).refused(1);
    assert!(
        stderr.contains(&format!("error: job {job} cancelled")),
        "{stderr}"
    );
    assert_eq!(
        ring.call(&["job", "show", &job, "--json"]).json()["state"],
        "CANCELLED"
    );
}

#[test]
fn a_job_on_two_hosts_runs_on_both_and_is_over_on_both() {
    let ring = Ring::start();
    let gang = |name: &str, speed: &str| {
        let more = ["--gang-address", "127.0.0.1", "--outputs", "shared"];
        ring.worker_called(name, speed, &more)
    };
    let wishes = ["--trainer", "replay", "--hosts", "2"];
    let _quick = gang("w1", "0");
    let path = crate::support::example();
    let submit = ["submit", path.to_str().unwrap(), "--yes"];
    let stderr = ring.call(&[&submit[..], &wishes].concat()).refused(1);
    assert!(stderr.contains("ask for 1 host"), "{stderr}");
    let _other = gang("w2", "0");
    let job = ring.submit(&wishes);
    let show = |job: &str| ring.call(&["job", "show", job, "--json"]).json();
    until(|| show(&job)["state"] == "SUCCEEDED");
    let attempts = show(&job)["attempts"].clone();
    assert_eq!(attempts.as_array().unwrap().len(), 1, "{attempts}");
    let parts = attempts[0]["parts"].as_array().unwrap();
    let ended = |part: &Value| part["state"] == "ENDED";
    assert!(parts.len() == 2 && parts.iter().all(ended), "{parts:?}");
    let shown = ring.call(&["job", "show", &job]).ok();
    assert!(shown.contains("RANK"), "{shown}");
    let rows = ring.call(&["sql", "SELECT count(*) FROM training_steps", "--csv"]);
    assert_eq!(
        rows.ok().lines().last(),
        Some("0"),
        "no key tells two hosts from one"
    );
}

#[test]
fn a_job_on_two_hosts_is_cancelled_on_both() {
    let ring = Ring::start();
    let more = ["--gang-address", "127.0.0.1:4000", "--outputs", "shared"];
    let _workers = ["w1", "w2"].map(|name| ring.worker_called(name, "1", &more));
    let job = ring.submit(&["--trainer", "replay", "--hosts", "2"]);
    let show = || ring.call(&["job", "show", &job, "--json"]).json();
    until(|| show()["attempts"][0]["state"] == "RUNNING");
    ring.call(&["job", "cancel", &job]).ok();
    until(|| show()["state"] == "CANCELLED");
    let workers = ring.call(&["workers", "--json"]).json();
    let workers = workers["workers"].as_array().unwrap();
    assert!(
        workers.iter().all(|worker| worker["gpus"][0]["job"] == ""),
        "{workers:?}"
    );
}

#[test]
fn the_demo_tells_the_whole_ring_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // What this host's real server, worker and people are told is not for it.
    let set = tempfile::tempdir().unwrap();
    std::fs::create_dir(set.path().join("stepcast")).unwrap();
    let file = set.path().join("stepcast/config.toml");
    std::fs::write(file, "ca_file = \"nosuch.pem\"\n").unwrap();
    let mut demo = crate::support::program(folder.path());
    let told = demo
        .env("TMPDIR", folder.path())
        .env("XDG_CONFIG_HOME", set.path())
        .env("STEPCAST_STORE", folder.path().join("store"))
        .env("STEPCAST_WORKER_OUTPUTS", folder.path().join("outputs"))
        .env("STEPCAST_ACCESS_TOKEN_FILE", "nosuch.token")
        .env("STEPCAST_JOIN", "127.0.0.1:1")
        .arg("demo")
        .output()
        .unwrap();
    let told: crate::support::Said = told.into();
    let story = told.ok();
    for fact in [
        "1. A server",
        "succeeded: 150 steps",
        "after: ",
        "Next: stepcast dev",
    ] {
        assert!(story.contains(fact), "{fact}: {story}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_worker_without_a_token_is_told_how_to_get_one() {
    let ring = Ring::start();
    let stderr = alone(
        ring.folder.path(),
        &[
            "worker",
            "--replay",
            "1",
            "--state",
            "w",
            "--server",
            &ring.address,
        ],
    )
    .refused(1);
    assert!(stderr.contains("stepcast workers token create"), "{stderr}");
}

#[test]
fn waiting_for_a_job_to_be_cancelled_succeeds_when_it_is() {
    let ring = Ring::start();
    let waiting = ring.submit(&["--trainer", "replay"]);
    ring.call(&["job", "cancel", &waiting, "--wait"]).ok();
    // Slow enough to be there still.
    let _worker = ring.worker("0.01");
    let running = ring.submit(&["--trainer", "replay"]);
    let state = |id: &str| ring.call(&["job", "show", id, "--json"]).json()["state"].clone();
    until(|| state(&running) == "RUNNING");
    ring.call(&["job", "cancel", &running, "--wait"]).ok();
    assert_eq!(state(&running), "CANCELLED");
    // Whoever watches it for its own sake is told that it has not succeeded.
    ring.call(&["job", "watch", &running]).refused(1);
}

#[test]
fn who_watches_is_told_that_the_server_is_gone() {
    let ring = Ring::start();
    let job = ring.submit(&[]);
    let mut watch = ring
        .command(&["job", "watch", &job])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Process)
        .unwrap();
    let mut line = String::new();
    let mut told = BufReader::new(watch.0.stdout.take().unwrap());
    told.read_line(&mut line).unwrap();
    assert!(line.ends_with("is pending\n"), "{line}");
    let address = ring.address.clone();
    drop(ring);
    line.clear();
    let mut told = BufReader::new(watch.0.stderr.take().unwrap());
    told.read_line(&mut line).unwrap();
    assert_eq!(
        line,
        format!("no server answers at {address}; it is asked again\n")
    );
}
