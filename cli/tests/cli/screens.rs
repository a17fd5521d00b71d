//! Screens as people see them, pinned as text: `UPDATE=1 cargo test -p stepcast` writes them anew.

use std::path::Path;

use crate::support::{FIGURES, Ring, example};

/// Calls for a terminal of 100 columns and compares what is seen. Each mask is a text that differs from run to run.
fn pin(ring: &Ring, name: &str, arguments: &[&str], masks: &[(&str, &str)]) {
    let mut words = vec!["--columns", "100"];
    words.extend(arguments);
    let said = ring.call(&words);
    let mut seen = format!("$ stepcast {}\n{}", arguments.join(" "), said.stdout);
    if !said.stderr.is_empty() {
        seen.push_str(&format!("---- stderr\n{}", said.stderr));
    }
    let example = example();
    let folder = ring.folder.path().to_str().unwrap();
    for (text, mask) in masks.iter().chain(&[
        (example.to_str().unwrap(), "flux-lora"),
        (folder, "FOLDER"),
        (&*ring.address, "ADDRESS"),
        // What comes next is the command with all that was given, and this was given for the screen alone.
        ("--columns 100 ", ""),
    ]) {
        seen = seen.replace(text, mask);
    }
    let seen = without_times(&seen);
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/screens")
        .join(format!("{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &seen).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        seen,
        pinned,
        "{} is not what is seen; UPDATE=1 writes it anew",
        path.display()
    );
}

/// Takes out ages, days, sizes of disks and milliseconds, which no two runs share.
fn without_times(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n']).map(|word| {
        let bare = word.trim_end();
        let digits = bare.chars().any(|letter| letter.is_ascii_digit());
        let day = bare.len() >= 10
            && bare.as_bytes()[4] == b'-'
            && bare.as_bytes()[..4].iter().all(u8::is_ascii_digit);
        let age = bare.ends_with('s') && bare.len() == 4 && bare.as_bytes()[1] == b'.';
        if digits && day {
            word.replace(bare, "DAY")
        } else if digits && age {
            word.replace(bare, "SECS")
        } else {
            word.to_owned()
        }
    });
    words.collect()
}

#[test]
fn screens_are_as_they_were() {
    let ring = Ring::start();
    let figures = ring.file("figures.csv", FIGURES);
    let path = example();
    let path = path.to_str().unwrap();
    pin(
        &ring,
        "records-import",
        &["records", "import", &figures, "--source", "measured"],
        &[],
    );
    pin(
        &ring,
        "estimate",
        &["estimate", path, "--on", "rtx4090,h100,h100x2"],
        &[],
    );
    pin(&ring, "submit-dry-run", &["submit", path, "--dry-run"], &[]);
    pin(&ring, "workers-none", &["workers"], &[]);
    let job = ring.submit(&[]);
    let masks = [(job.as_str(), "JOB")];
    pin(&ring, "jobs", &["jobs"], &masks);
    pin(&ring, "job-why", &["job", "why", &job], &masks);
    pin(&ring, "job-cancel", &["job", "cancel", &job], &masks);
    pin(&ring, "refusal", &["job", "show", "nosuch"], &[]);
    pin(&ring, "config-show", &["config", "show"], &[]);
}
