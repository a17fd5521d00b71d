//! A server whose disk is full, or whose object store is away: a clear word each, nothing lost, and no restart.

mod disk;
mod store;

use serde_json::Value;

use crate::support::{Ring, example};

/// How the server says that it is.
fn health(ring: &Ring) -> Value {
    ring.call(&["cluster", "status", "--json"]).json()["health"].clone()
}

/// The jobs that are known, each with its state, in the order of their names.
fn jobs(ring: &Ring) -> Vec<(String, String)> {
    let answer = ring.call(&["jobs", "--json"]).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let jobs = answer["jobs"].as_array().unwrap().iter();
    let mut jobs: Vec<_> = jobs
        .map(|job| (text(&job["job"]), text(&job["state"])))
        .collect();
    jobs.sort();
    jobs
}

/// Estimates the example, which no store is needed for.
fn estimates(ring: &Ring) {
    let path = example();
    let arguments = [
        "estimate",
        path.to_str().unwrap(),
        "--on",
        "rtx4090",
        "--json",
    ];
    let answer = ring.call(&arguments).json();
    assert!(
        answer["estimates"][0]["run_time_s"].is_object(),
        "the shipped figures answer: {answer}"
    );
}
