//! Streams that nobody reads any more.

use std::process::Stdio;

use crate::support::{Ring, example};

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn what_nobody_reads_on_stderr_ends_no_command_and_changes_no_exit_code() {
    let ring = Ring::start();
    let code = |arguments: &[&str]| {
        let mut command = ring.command(arguments);
        command.stdout(Stdio::null()).stderr(unread());
        command.status().unwrap().code()
    };
    assert_eq!(code(&["job", "show", "nosuch"]), Some(3));
    assert_eq!(code(&["nonsense"]), Some(2));
    let path = example();
    let path = path.to_str().unwrap();
    // The plan is told before the job is sent.
    assert_eq!(code(&["submit", path, "--yes"]), Some(0));
    let jobs = ring.call(&["jobs", "--json"]).json();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1);
    // A secret is told behind what is made, and once.
    let mut command = ring.command(&["workers", "token", "create", "w1"]);
    let made = command.stderr(unread()).output().unwrap();
    assert!(made.status.success());
    assert!(!made.stdout.is_empty());
}

#[test]
fn data_that_nobody_reads_is_no_failure() {
    let ring = Ring::start();
    let mut command = ring.command(&["jobs", "--json"]);
    let status = command.stdout(unread()).status().unwrap();
    assert_eq!(status.code(), Some(0));
}
