//! How a server ends: in good order when it is asked once, and at once when it is asked again meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Process, Ring, Said, example, program};

#[test]
fn a_server_that_is_asked_twice_ends_at_once_and_has_what_it_has_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = program(folder.path())
        .args(["server", "--data", "data", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Process)
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(server.0.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    let path = example();
    let submit: Said = program(folder.path())
        .env("STEPCAST_SERVER", address)
        .args(["submit", path.to_str().unwrap(), "--yes"])
        .output()
        .unwrap()
        .into();
    let job = submit.ok().trim().to_owned();

    // Half a request, which the server waits for when it is asked to end.
    let mut half = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
    half.write_all(
        b"POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
          Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
    )
    .unwrap();
    let mut goes_on = [0; 12];
    half.read_exact(&mut goes_on).unwrap();
    assert_eq!(&goes_on, b"HTTP/1.1 100");
    for signal in [Signal::TERM, Signal::INT] {
        kill_process(Pid::from_child(&server.0), signal).unwrap();
    }
    let mut stderr = String::new();
    let mut errors = server.0.stderr.take().unwrap();
    errors.read_to_string(&mut stderr).unwrap();
    assert_eq!(server.0.wait().unwrap().code(), Some(130), "{stderr}");
    let last = stderr.lines().last();
    assert_eq!(
        last,
        Some(
            "error: asked to end a second time, so it ends at once; what was acknowledged is on its disk"
        ),
        "{stderr}"
    );
    Ring::over(folder, &[], &[]).still_has(&job);
}
