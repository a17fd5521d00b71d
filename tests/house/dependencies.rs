//! Crates are storeys: which of ours may import which, and what some of them must never link.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::workspace::{self, CRATES};

/// Which of our crates each one may name as a dependency (ARCHITECTURE.md, code map).
const ALLOWED: [(&str, &[&str]); 11] = [
    ("records", &[]),
    ("scheduler", &["records"]),
    ("proto", &[]),
    ("estimator", &["records"]),
    ("cluster", &["records", "scheduler", "estimator", "proto"]),
    ("worker", &["records", "proto"]),
    (
        "api",
        &["records", "scheduler", "estimator", "cluster", "proto"],
    ),
    (
        "cli",
        &[
            "records",
            "scheduler",
            "estimator",
            "cluster",
            "worker",
            "api",
            "proto",
        ],
    ),
    ("tests", &[]),
    // Whole clusters in one thread: it links what is simulated, and no SQL engine.
    (
        "tests/simulation",
        &["records", "scheduler", "cluster", "worker"],
    ),
    (
        "benches",
        &[
            "records",
            "scheduler",
            "estimator",
            "cluster",
            "worker",
            "api",
            "proto",
        ],
    ),
];

/// Everything the core may link besides `records`: no clock, randomness, thread, file, socket or environment.
const SCHEDULER_MAY_NAME: [&str; 6] = [
    "postcard",
    "serde",
    "sha2",
    "stepcast-records",
    "thiserror",
    "xxhash-rust",
];

/// Crates of ours that know a user, an organisation, a job, an attempt or a worker.
const KNOW_IDENTITIES: [&str; 5] = [
    "stepcast-scheduler",
    "stepcast-cluster",
    "stepcast-worker",
    "stepcast-api",
    "stepcast-proto",
];

#[test]
fn no_crate_imports_upwards() {
    for (folder, allowed) in ALLOWED {
        for (name, _) in named(folder, "dependencies") {
            let Some(ours) = name.strip_prefix("stepcast-") else {
                continue;
            };
            assert!(
                allowed.contains(&ours),
                "{folder} must not depend on {ours}"
            );
        }
    }
}

#[test]
fn the_core_names_nothing_that_has_a_clock_or_a_socket() {
    let named: Vec<String> = named("scheduler", "dependencies").into_keys().collect();
    for name in named {
        assert!(
            SCHEDULER_MAY_NAME.contains(&name.as_str()),
            "scheduler must not depend on {name}"
        );
    }
}

#[test]
fn records_and_the_estimator_know_no_identity() {
    let graph = Graph::read();
    for name in ["stepcast-records", "stepcast-estimator"] {
        let reached = graph.reached_from(name);
        for knows in KNOW_IDENTITIES {
            assert!(
                !reached.contains(knows),
                "{name} reaches {knows}, which knows who somebody is"
            );
        }
    }
}

#[test]
fn a_worker_links_no_sql_engine() {
    let graph = Graph::read();
    let reached = graph.reached_from("stepcast-worker");
    assert!(reached.contains("tonic"), "the graph is read wrongly");
    for name in ["datafusion", "deltalake", "parquet", "raft"] {
        assert!(!reached.contains(name), "stepcast-worker links {name}");
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for folder in CRATES {
        let manifest = workspace::manifest(folder);
        let workspace = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool);
        assert_eq!(
            workspace,
            Some(true),
            "{folder}/Cargo.toml needs [lints] workspace = true"
        );
    }
}

#[test]
fn every_version_stands_in_the_workspace_manifest() {
    for folder in CRATES {
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in named(folder, table) {
                let inherited = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                assert!(inherited, "{folder} names a version of {name} itself");
            }
        }
    }
}

/// `distributed/` is built by nobody unasked, so only this sees that its lock no longer fits.
#[test]
fn the_lock_of_what_is_built_apart_follows_ours() {
    let (ours, apart) = (locked("Cargo.lock"), locked("distributed/Cargo.lock"));
    for folder in ["records", "estimator"] {
        let needs: BTreeSet<String> = named(folder, "dependencies").into_keys().collect();
        let (_, has) = &apart[&format!("stepcast-{folder}")];
        assert_eq!(
            &needs, has,
            "{folder} has other dependencies: cargo update --workspace --manifest-path distributed/Cargo.toml"
        );
    }
    for name in [
        "arrow",
        "datafusion",
        "deltalake",
        "object_store",
        "parquet",
    ] {
        assert_eq!(
            ours[name].0, apart[name].0,
            "{name}: cargo update --manifest-path distributed/Cargo.toml {name} --precise, as in Cargo.lock"
        );
    }
}

/// The packages of a lock: the version and the names of what each depends on.
fn locked(file: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = workspace::read(Path::new(file));
    let lock: toml::Value = toml::from_str(&text).unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    let packages = packages.map(|package| {
        let names = package.get("dependencies").and_then(toml::Value::as_array);
        // A name that is there in two versions is followed by one.
        let names = names.into_iter().flatten().map(|name| {
            let name = name.as_str().unwrap().split(' ').next();
            name.unwrap().to_owned()
        });
        let text = |field: &str| package[field].as_str().unwrap().to_owned();
        (text("name"), (text("version"), names.collect()))
    });
    packages.collect()
}

fn named(folder: &str, table: &str) -> BTreeMap<String, toml::Value> {
    let manifest = workspace::manifest(folder);
    let table = manifest
        .get(table)
        .and_then(toml::Value::as_table)
        .cloned()
        .unwrap_or_default();
    table.into_iter().collect()
}

/// Who links whom, dev-dependencies left out.
struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    fn read() -> Self {
        let arguments = [
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
        ];
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
            .current_dir(workspace::root())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let names: BTreeMap<&str, &str> = packages
            .iter()
            .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
            .collect();
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array().unwrap() {
            let links = node["deps"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dep| is_linked(dep));
            let links = links.map(|dep| names[dep["pkg"].as_str().unwrap()].to_owned());
            graph
                .entry(names[node["id"].as_str().unwrap()].to_owned())
                .or_default()
                .extend(links);
        }
        Self(graph)
    }

    fn reached_from<'a>(&'a self, name: &'a str) -> BTreeSet<&'a str> {
        let (mut reached, mut open) = (BTreeSet::new(), vec![name]);
        while let Some(next) = open.pop() {
            let links = self.0.get(next).into_iter().flatten();
            open.extend(
                links
                    .map(String::as_str)
                    .filter(|link| reached.insert(*link)),
            );
        }
        reached
    }
}

/// Whether a dependency is part of the program: `kind` is null for a normal one.
fn is_linked(dependency: &serde_json::Value) -> bool {
    dependency["dep_kinds"]
        .as_array()
        .unwrap()
        .iter()
        .any(|kind| kind["kind"].is_null())
}
