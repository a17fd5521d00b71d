//! A local S3 server (moto) with real conditional writes, where it is installed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A starting server is asked so often, ten times a second, before it counts as broken.
const ASKED: usize = 600;

/// A server with one empty bucket. It ends when this is dropped.
#[derive(Debug)]
pub struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    /// Starts one with a bucket of this name on a free port, or says in one line that there is none.
    #[must_use]
    pub fn start(bucket: &str) -> Option<Self> {
        Self::start_on(free_port(), bucket)
    }

    /// The same on a given port.
    #[must_use]
    pub fn start_on(port: u16, bucket: &str) -> Option<Self> {
        let started = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            eprintln!("skipped: moto_server is not installed (pip install 'moto[server]')");
            return None;
        };
        let mut moto = Self { process, port };
        for _ in 0..ASKED {
            let made = ask(port, &format!("PUT /{bucket}"));
            if made.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Some(moto);
            }
            if moto.process.try_wait().is_ok_and(|ended| ended.is_some()) {
                eprintln!("skipped: moto_server does not start here");
                return None;
            }
            // A starting server tells nobody when it is ready.
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("skipped: moto_server does not answer here");
        None
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server, as if the network to it were cut.
    pub fn stop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nobody listens on.
///
/// # Panics
/// When the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a free port").port()
}

fn ask(port: u16, line: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let end = "Host: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    write!(stream, "{line} HTTP/1.1\r\n{end}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
