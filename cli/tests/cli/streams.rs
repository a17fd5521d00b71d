//! Streams that nobody reads or writes any more, and Ctrl-C where something is waited for.

use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Process, Ring, example, program};

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

#[test]
fn who_does_not_wait_for_an_answer_is_told_how_to_find_out() {
    const ID: &str = "00112233445566778899aabbccddeeff";
    let folder = tempfile::tempdir().unwrap();
    // It reads, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let submit = program(folder.path())
        .args(["submit", example().to_str().unwrap(), "--json"])
        .args(["--request-id", ID, "--server", &address])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut submit = Process(submit);
    let (mut caller, _) = silent.accept().unwrap();
    let (mut sent, mut part) = (Vec::new(), [0; 4096]);
    while !sent.windows(ID.len()).any(|part| part == ID.as_bytes()) {
        let read = caller.read(&mut part).unwrap();
        assert_ne!(read, 0, "it sends the id");
        sent.extend_from_slice(&part[..read]);
    }
    kill_process(Pid::from_child(&submit.0), Signal::INT).unwrap();
    assert_eq!(submit.0.wait().unwrap().code(), Some(5));
    let mut told = String::new();
    let mut stderr = submit.0.stderr.take().unwrap();
    stderr.read_to_string(&mut told).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let hint = told["error"]["hint"].as_str().unwrap();
    assert!(hint.ends_with(&format!("--request-id {ID}")), "{hint}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_query_that_is_still_written_is_given_up_by_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let asking = program(folder.path())
        .args(["sql", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut asking = Process(asking);
    let id = Pid::from_child(&asking.0);
    // It listens for the signal, and has begun to read or is about to.
    let status = format!("/proc/{}/status", asking.0.id());
    crate::support::until(|| {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
        caught & (1 << (Signal::INT.as_raw() - 1)) != 0
    });
    kill_process(id, Signal::INT).unwrap();
    let mut code = None;
    crate::support::until(|| {
        code = asking.0.try_wait().unwrap().map(|status| status.code());
        code.is_some()
    });
    assert_eq!(code, Some(Some(130)));
}
