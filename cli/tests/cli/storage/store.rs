//! An object store that is away, and one that comes later.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use stepcast_records::{Key, Sample};
use stepcast_tests::moto::{Moto, free_port};

use super::{estimates, jobs};
use crate::support::{FIGURES, Ring, until};

/// A server waits ten seconds for its store before it goes on without; the rest is for a busy machine.
const START_MAX: Duration = Duration::from_secs(20);

/// A server whose tables lie in a bucket behind this port.
fn ring(port: u16) -> Ring {
    let environment = [
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
    ];
    let began = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let ring = Ring::over(folder, &["--store", "s3://bench/records"], &environment);
    assert!(began.elapsed() < START_MAX, "{:?}", began.elapsed());
    ring
}

/// What needs the store is refused in the same words each time, and the rest goes on.
fn refuses_what_needs_the_store(ring: &Ring) {
    let file = ring.file("figures.csv", FIGURES);
    for arguments in [
        &["sql", "SELECT count(*) FROM training_steps"][..],
        &["records", "ls"],
        &["records", "import", &file, "--source", "lab"],
    ] {
        let stderr = ring.call(arguments).refused(1);
        assert!(
            stderr.starts_with("error: the benchmark store does not answer\n  hint: "),
            "{arguments:?}: {stderr}"
        );
    }
    estimates(ring);
}

/// The contributions that a worker keeps: ids, and how many rows of each table they come to.
fn spooled(state: &Path) -> (usize, [u64; 2]) {
    let mut rows = [0, 0];
    let files: Vec<_> = fs::read_dir(state.join("spool")).unwrap().collect();
    for file in &files {
        let text = fs::read(file.as_ref().unwrap().path()).unwrap();
        let mut contribution: Value = serde_json::from_slice(&text).unwrap();
        let samples: Vec<Sample> = serde_json::from_value(contribution["samples"].take()).unwrap();
        for row in samples.iter().filter_map(Sample::to_row) {
            rows[usize::from(matches!(row.key, Key::Validation(_)))] += 1;
        }
    }
    (files.len(), rows)
}

/// How many rows a table has.
fn rows(ring: &Ring, table: &str) -> u64 {
    let query = format!("SELECT count(*) AS count FROM {table}");
    let answer = ring.call(&["sql", &query, "--json"]).json();
    answer["rows"][0]["count"].as_u64().unwrap()
}

#[test]
fn a_run_s_samples_wait_for_a_store_that_comes_later() {
    let port = free_port();
    let ring = ring(port);
    refuses_what_needs_the_store(&ring);
    let _worker = ring.worker("0");
    let job = ring.submit(&["--trainer", "replay"]);
    ring.call(&["job", "watch", &job]).ok();
    assert_eq!(jobs(&ring), [(job, "SUCCEEDED".to_owned())]);
    let state = ring.folder.path().join("w1");
    let (contributions, expected) = spooled(&state);
    assert!(contributions > 0 && expected[0] > 0, "{expected:?}");
    refuses_what_needs_the_store(&ring);

    let Some(_moto) = Moto::start_on(port, "bench") else {
        return;
    };
    until(|| spooled(&state).0 == 0);
    let found = ["training_steps", "validation_prompts"].map(|table| rows(&ring, table));
    assert_eq!(found, expected, "each row once");
}

#[test]
fn a_store_that_never_answers_holds_nobody_up() {
    // It takes connections, as far as the system does that by itself, and says nothing on them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let ring = ring(silent.local_addr().unwrap().port());
    let began = Instant::now();
    let stderr = ring.call(&["sql", "SELECT 1 AS one"]).refused(1);
    assert!(
        stderr.contains("the benchmark store does not answer"),
        "{stderr}"
    );
    let job = ring.submit(&[]);
    estimates(&ring);
    assert_eq!(jobs(&ring), [(job, "PENDING".to_owned())]);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_location_that_is_none_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for (location, word) in [
        ("ftp://host/x", "not ftp://"),
        ("s3://", "s3://bucket/prefix"),
    ] {
        let arguments = [
            "server",
            "--data",
            "d",
            "--listen",
            "127.0.0.1:0",
            "--store",
            location,
        ];
        let stderr = crate::support::alone(folder.path(), &arguments).refused(1);
        assert!(
            stderr.starts_with(&format!("error: the store {location} cannot be used\n")),
            "{stderr}"
        );
        assert!(stderr.contains(word), "{stderr}");
    }
}
