//! `stepcast dev`: a cluster on one machine that runs a job and leaves nothing running, and what cannot be run.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Process, Said, example, program};

/// Starts three of them; their addresses, and what reads what they go on saying, which must not fill a pipe.
fn three_nodes(folder: &Path, listen: &str, more: &[&str]) -> (Process, String, JoinHandle<usize>) {
    let mut dev = program(folder)
        .args(["dev", "--nodes", "3", "--listen", listen])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map(Process)
        .unwrap();
    let mut lines = BufReader::new(dev.0.stderr.take().unwrap()).lines();
    let addresses = loop {
        let line = lines.next().expect("it starts").unwrap();
        if let Some((_, rest)) = line.split_once("3 servers, one cluster, on ") {
            let (addresses, _) = rest.split_once(", data in ").unwrap();
            break addresses.replace(", ", ",");
        }
    };
    let saying = std::thread::spawn(move || lines.map_while(Result::ok).count());
    (dev, addresses, saying)
}

/// An address whose port and all others that three nodes take from it on are free: they are to have the same ones when they
/// are started again.
fn six_free_ports() -> String {
    // Below those that the system gives to whoever asks for any.
    let first = 20_000 + (std::process::id() % 300) as u16 * 30;
    let free = |port: &u16| {
        let mut ports = [0, 1, 10, 11, 20, 21].iter().map(|more| port + more);
        ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    let port = (first..first + 3_000).step_by(30).find(free).unwrap();
    format!("127.0.0.1:{port}")
}

#[test]
fn three_nodes_go_on_in_their_folder() {
    let (folder, listen) = (tempfile::tempdir().unwrap(), six_free_ports());
    let mut job = String::new();
    for time in 1..=2 {
        let (mut dev, addresses, saying) = three_nodes(folder.path(), &listen, &["--no-worker"]);
        let call = |arguments: &[&str]| -> Said {
            let mut command = program(folder.path());
            command.env("STEPCAST_SERVER", &addresses).args(arguments);
            command.output().unwrap().into()
        };
        if time == 1 {
            let path = example();
            job = call(&["submit", path.to_str().unwrap(), "--yes"]).ok();
        } else {
            let shown = call(&["job", "show", job.trim(), "--json"]).json();
            assert_eq!(shown["state"], "PENDING");
        }
        kill_process(Pid::from_child(&dev.0), Signal::INT).unwrap();
        assert_eq!(dev.0.wait().unwrap().code(), Some(130));
        saying.join().unwrap();
    }
}

#[test]
fn three_nodes_on_one_machine_run_a_job_and_end_together() {
    let folder = tempfile::tempdir().unwrap();
    let replay = ["--replay", "1", "--replay-speed", "0"];
    let (mut dev, addresses, saying) = three_nodes(folder.path(), "127.0.0.1:0", &replay);
    let call = |arguments: &[&str]| -> Said {
        let mut command = program(folder.path());
        command.env("STEPCAST_SERVER", &addresses).args(arguments);
        command.output().unwrap().into()
    };
    let status = call(&["cluster", "status", "--json"]).json();
    assert_eq!(status["voters"].as_array().unwrap().len(), 3);
    let path = example();
    let path = path.to_str().unwrap();
    let run = ["submit", path, "--yes", "--trainer", "replay", "--wait"];
    let told = call(&run).ok();
    assert!(told.contains("running -> succeeded"), "{told}");

    kill_process(Pid::from_child(&dev.0), Signal::INT).unwrap();
    assert_eq!(dev.0.wait().unwrap().code(), Some(130));
    for address in addresses.split(',') {
        let address = address.strip_prefix("http://").unwrap();
        assert!(TcpStream::connect(address).is_err(), "{address} is open");
    }
    saying.join().unwrap();
}

#[test]
fn what_cannot_be_run_is_told_once_and_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str]| -> Said {
        let mut command = program(folder.path());
        command.arg("dev").args(arguments).output().unwrap().into()
    };
    let nowhere = said(&["--listen", "nowhere"]);
    assert_eq!(nowhere.code, 2);
    let told = "error: listen `nowhere` cannot be used";
    assert_eq!(
        nowhere.stderr.matches(told).count(),
        1,
        "{}",
        nowhere.stderr
    );
    for nodes in ["0", "2", "4", "7"] {
        let said = said(&["--nodes", nodes]);
        assert_eq!(said.code, 2, "{nodes}");
        assert!(said.stderr.contains("write 1, 3 or 5"), "{}", said.stderr);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
