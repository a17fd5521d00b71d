//! The workspace as the rules see it: its folders, manifests and sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Every crate's folder, lowest storey first.
pub(crate) const CRATES: [&str; 11] = [
    "records",
    "scheduler",
    "proto",
    "estimator",
    "cluster",
    "worker",
    "api",
    "cli",
    "tests",
    "tests/simulation",
    "benches",
];

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A crate's manifest.
pub(crate) fn manifest(folder: &str) -> toml::Table {
    let path = root().join(folder).join("Cargo.toml");
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .parse()
        .unwrap()
}

/// Every file of ours with this extension, as paths relative to the root; there must be some.
pub(crate) fn files(extension: &str) -> Vec<PathBuf> {
    let found = files_or_none(extension);
    assert!(
        !found.is_empty(),
        "there are no {extension} files: is this the workspace?"
    );
    found
}

/// The same where there need not be any.
pub(crate) fn files_or_none(extension: &str) -> Vec<PathBuf> {
    let root = root();
    let mut found = Vec::new();
    for folder in CRATES {
        collect(&root.join(folder), extension, &mut found);
    }
    found
        .iter()
        .map(|path| path.strip_prefix(&root).unwrap().to_owned())
        .collect()
}

/// A file's text.
pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}
