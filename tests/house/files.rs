//! How files look: their first line, their length, and words that have no place in them.

use std::path::Path;

use crate::workspace;

/// Files longer than [`LINES_MAX`], with the most lines each may have. The list may only shrink.
const LONG: [(&str, usize); 0] = [];

/// Beyond this a file is more than one thing; tables of facts may be longer.
const LINES_MAX: usize = 500;

/// Registries are tables of facts, one line each.
const TABLES: [&str; 2] = [
    "records/src/recipe/registry.rs",
    "records/src/hardware/registry.rs",
];

/// Only the edges speak the wire's language.
const EDGES: [&str; 7] = [
    "api/",
    "worker/",
    "cli/",
    "tests/",
    "benches/",
    // The edge towards other nodes.
    "cluster/src/peers",
    "cluster/src/peers.rs",
];

#[test]
fn every_file_says_what_it_is_for() {
    for path in workspace::files("rs") {
        let text = workspace::read(&path);
        let first = text.lines().next().unwrap_or_default();
        let says = first
            .strip_prefix("//! ")
            .is_some_and(|says| says.len() > 12);
        assert!(
            says,
            "{}: the first line is its purpose in a `//!` sentence",
            path.display()
        );
    }
}

#[test]
fn no_file_is_too_long() {
    for path in workspace::files("rs") {
        let lines = workspace::read(&path).lines().count();
        let name = path.to_str().unwrap();
        let most = LONG
            .iter()
            .find(|(long, _)| *long == name)
            .map_or(LINES_MAX, |(_, most)| *most);
        let table = TABLES.contains(&name);
        assert!(
            table || lines <= most,
            "{name} has {lines} lines; {most} are the most"
        );
    }
}

#[test]
fn the_wire_is_named_only_at_the_edges() {
    for path in workspace::files("rs") {
        let edge = EDGES.iter().any(|edge| path.starts_with(edge)) || path.starts_with("proto");
        assert!(
            edge || !workspace::read(&path).contains("stepcast_proto"),
            "{} names the wire",
            path.display()
        );
    }
}

#[test]
fn nothing_is_left_unfinished_in_silence() {
    // Written in parts, so that this file does not find itself.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["todo", "!("],
        ["unimpl", "emented!("],
    ]
    .map(|w| w.concat());
    for path in workspace::files("rs") {
        for (number, line) in workspace::read(&path).lines().enumerate() {
            let found = words.iter().find(|word| line.contains(word.as_str()));
            assert!(
                found.is_none(),
                "{}:{}: {}",
                path.display(),
                number + 1,
                line.trim()
            );
        }
    }
}

#[test]
fn no_path_of_a_developer_s_machine_is_in_the_sources() {
    let homes = [["/ro", "ot/"], ["/wo", "rk/"]].map(|home| home.concat());
    for extension in ["rs", "toml", "proto", "csv", "json", "txt", "md"] {
        for path in workspace::files_or_none(extension) {
            let text = workspace::read(&path);
            let found = homes.iter().find(|home| text.contains(home.as_str()));
            assert!(
                found.is_none(),
                "{} names {}",
                path.display(),
                found.unwrap()
            );
        }
    }
}

#[test]
fn every_bench_is_in_the_table() {
    let table = workspace::read(Path::new("benches/README.md"));
    for path in workspace::files("rs") {
        let Ok(name) = path.strip_prefix("benches") else {
            continue;
        };
        let alone = name.components().count() == 1;
        let name = name.file_stem().unwrap().to_str().unwrap();
        assert!(
            !alone || table.contains(&format!("`{name}`")),
            "benches/README.md does not name {name}"
        );
    }
}
