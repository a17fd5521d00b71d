//! Who is let in: a person's access token, and one token a worker.

use serde_json::Value;

use crate::support::{Ring, Said, program, until};

/// A worker process that is expected to end by itself.
fn refused_worker(ring: &Ring, state: &str, token: &str) -> Said {
    let arguments = [
        "worker",
        "--replay",
        "1",
        "--state",
        state,
        "--join-token-file",
        token,
    ];
    ring.command(&arguments)
        .env("RUST_LOG", "off")
        .output()
        .unwrap()
        .into()
}

/// The workers' names, each with whether it is there.
fn workers(ring: &Ring) -> Vec<(Value, Value)> {
    let answer = ring.call(&["workers", "--json"]).json();
    let workers = answer["workers"].as_array().unwrap().iter();
    workers
        .map(|worker| (worker["display_name"].clone(), worker["attached"].clone()))
        .collect()
}

#[test]
fn a_person_s_wrong_token_is_refused_and_the_right_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (folder.path().join("right"), folder.path().join("wrong"));
    std::fs::write(&right, "right-0123456789abcdef\n").unwrap();
    std::fs::write(&wrong, "wrong-0123456789abcdef\n").unwrap();
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let ring = Ring::with(&["--access-token-file", right]);
    let job = ring.submit(&["--access-token-file", right]);
    for arguments in [
        &["jobs"][..],
        &["job", "cancel", &job],
        &["jobs", "--access-token-file", wrong],
        &["job", "cancel", &job, "--access-token-file", wrong],
        &["sql", "SELECT 1 AS one", "--access-token-file", wrong],
    ] {
        let stderr = ring.call(arguments).refused(1);
        assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("--access-token-file"),
            "{arguments:?}: {stderr}"
        );
        assert!(
            !stderr.contains("0123456789abcdef"),
            "{arguments:?}: {stderr}"
        );
    }
    let known = ring.call(&["jobs", "--json", "--access-token-file", right]);
    assert_eq!(known.json()["jobs"][0]["state"], "PENDING");
}

#[test]
fn a_worker_s_wrong_token_is_refused() {
    let ring = Ring::start();
    let job = ring.submit(&[]);
    ring.file("wrong.token", "wrong-0123456789abcdef\n");
    let made = ["workers", "token", "create", "w2", "--out", "revoked.token"];
    ring.call(&made).ok();
    ring.call(&["workers", "token", "revoke", "w2"]).ok();
    for token in ["wrong.token", "revoked.token"] {
        let stderr = refused_worker(&ring, "state", token).refused(1);
        assert_eq!(
            stderr,
            "error: the cluster refuses this worker\n  \
             the server does not accept this worker's token (it is unknown, or was revoked); make a new one with \
             `stepcast workers token create NAME` and start the worker with it (--join-token-file)\n"
        );
    }
    let none = ["worker", "--replay", "1", "--state", "none"];
    let none = ring.command(&none).env("RUST_LOG", "off").output();
    let stderr = Said::from(none.unwrap()).refused(1);
    let begins = "error: the worker cannot start\n  this worker has no token yet";
    assert!(stderr.starts_with(begins), "{stderr}");
    assert_eq!(workers(&ring), []);
    assert_eq!(
        ring.call(&["job", "show", &job, "--json"]).json()["state"],
        "PENDING"
    );
}

#[test]
fn variables_tell_a_worker_what_they_tell_a_server() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("STEPCAST_WORKER_PRICE", ""),
        ("STEPCAST_WORKER_OUTPUTS_KEPT", ""),
        ("STEPCAST_GANG_ADDRESS", ""),
        ("STEPCAST_GANG_ENCRYPTED", ""),
        ("STEPCAST_GANG_ENCRYPTED", "1"),
    ] {
        let mut worker = program(folder.path());
        worker.args(["worker", "--replay", "1", "--state", "none"]);
        if !value.is_empty() {
            worker.env("STEPCAST_GANG_ADDRESS", "localhost");
        }
        worker.env(name, value);
        let stderr = Said::from(worker.output().unwrap()).refused(1);
        let words = "this worker has no token yet";
        assert!(stderr.contains(words), "{name}={value}: {stderr}");
    }
}

#[test]
fn the_second_of_two_workers_with_one_token_ends_and_the_first_goes_on() {
    let ring = Ring::start();
    let _first = ring.worker("0");
    let stderr = refused_worker(&ring, "w2", "w1.token").refused(1);
    assert_eq!(
        stderr,
        "error: the cluster refuses this worker\n  \
         the token belongs to worker w1, which runs elsewhere; every worker needs a token of its own: stop the other \
         one, or make a new one with `stepcast workers token create NAME` and start this worker with it \
         (--join-token-file)\n"
    );
    // One state folder is one worker's, too.
    let stderr = refused_worker(&ring, "w1", "w1.token").refused(1);
    assert!(
        stderr.contains("give this one a state folder of its own (--state)"),
        "{stderr}"
    );
    assert_eq!(workers(&ring), [("w1".into(), true.into())]);
    let job = ring.submit(&["--trainer", "replay"]);
    ring.call(&["job", "watch", &job]).ok();
    assert_eq!(
        ring.call(&["job", "show", &job, "--json"]).json()["state"],
        "SUCCEEDED"
    );
}

#[test]
fn no_secret_is_made_that_its_file_cannot_keep() {
    let ring = Ring::start();
    ring.file("kept.token", "another\n");
    let told = |name: &str| {
        let answer = ring.call(&["workers", "token", "list", "--json"]).json();
        let tokens = answer["tokens"].as_array().unwrap().clone();
        tokens.iter().any(|token| token["display_name"] == name)
    };
    for file in ["kept.token", "no/such/folder/w1.token"] {
        let create = ["workers", "token", "create", "w1", "--out", file];
        let stderr = ring.call(&create).refused(1);
        assert!(stderr.contains("cannot be written"), "{stderr}");
        assert!(!told("w1"), "the server has made a token for {file}");
        let stderr = ring.call(&["cluster", "token", "--out", file]).refused(1);
        assert!(stderr.contains("cannot be written"), "{stderr}");
    }
    let kept = std::fs::read_to_string(ring.folder.path().join("kept.token")).unwrap();
    assert_eq!(kept, "another\n");
    let create = ["workers", "token", "create", "w1", "--out", "w1.token"];
    ring.call(&create).ok();
    assert!(told("w1"));
    // A second token of the same name is refused, and nothing is left of its file.
    let create = ["workers", "token", "create", "w1", "--out", "second.token"];
    ring.call(&create).refused(1);
    assert!(!ring.folder.path().join("second.token").exists());
}

#[test]
fn who_is_let_in_on_loopback_is_told_that_nobody_else_reaches_it() {
    let ring = Ring::start();
    let address = &ring.address;
    // People are of the newest format, which a new log reaches in a moment.
    until(|| ring.call(&["org", "create", "cats"]).code == 0);
    let here = format!("{address} is reached from this host alone");
    for (arguments, next) in [
        (
            &["user", "create", "ana", "--out", "ana.token"][..],
            format!(
                "stepcast --server {address} --access-token-file ana.token jobs    (where ana is"
            ),
        ),
        (
            &["token", "create", "ana"],
            format!("stepcast --server {address} --access-token-file FILE jobs    (where ana is"),
        ),
        (
            &["workers", "token", "create", "gpu1", "--out", "gpu1.token"],
            format!(
                "stepcast worker --server {address} --join-token-file gpu1.token    (on the GPU host"
            ),
        ),
    ] {
        let said = ring.call(arguments);
        assert_eq!(said.code, 0, "{}", said.stderr);
        for words in [&next, &here] {
            assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
        }
    }
    let first = ring
        .call(&["user", "create", "bo", "--role", "operator"])
        .refused(1);
    assert!(first.contains("--listen"), "{first}");
}

#[test]
fn a_token_says_when_it_ends_and_a_removal_how_many_jobs_it_cancels() {
    let ring = Ring::start();
    until(|| ring.call(&["org", "create", "cats"]).code == 0);
    ring.call(&["user", "create", "ana", "--out", "ana.token"])
        .ok();
    let made = |arguments: &[&str]| {
        let said = ring.call(&[&["token", "create"], arguments].concat());
        assert_eq!(said.code, 0, "{}", said.stderr);
        let ends = said.stderr.split_once(" made, good until ");
        let ends = ends.and_then(|(_, rest)| rest.split_whitespace().next());
        ends.map(str::to_owned)
    };
    let ends = made(&["ana", "--days", "1", "--out", "day.token"]);
    assert!(ends.is_some());
    // What it makes ends with it, whatever is asked for.
    let by = ["--access-token-file", "day.token"];
    assert_eq!(made(&[&by[..], &["--days", "7"]].concat()), ends);
    assert_eq!(made(&["--access-token-file", "ana.token"]), None);
    let tokens = ring.call(&["token", "ls", "ana", "--json"]).json();
    let tokens = tokens["tokens"].as_array().unwrap().iter();
    let ending: Vec<bool> = tokens
        .map(|token| token["expire_time"].is_string())
        .collect();
    assert_eq!(ending.iter().filter(|ends| **ends).count(), 2, "{ending:?}");
    ring.submit(&by);
    ring.submit(&by);
    let removed = ring.call(&["user", "remove", "ana"]);
    let words = "ana is shut out, and 2 jobs of theirs are cancelled";
    assert!(removed.stderr.contains(words), "{}", removed.stderr);
    let removed = ring.call(&["org", "remove", "cats", "--json"]).json();
    assert!(removed["cancelled_jobs"].is_u64(), "{removed}");
}
