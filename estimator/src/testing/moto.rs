//! A local S3 server (moto), where it is installed: a real client against real conditional writes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::StoreConfig;

/// A server with one empty bucket. It ends when this is dropped.
pub(crate) struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    /// Starts one, or says on standard error that there is none.
    pub(crate) fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let started = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            eprintln!("skipped: moto_server is not installed (pip install 'moto[server]')");
            return None;
        };
        let mut moto = Self { process, port };
        for _ in 0..600 {
            if moto
                .request("PUT /bench")
                .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
            {
                return Some(moto);
            }
            if moto.process.try_wait().expect("process").is_some() {
                eprintln!("skipped: moto_server does not start here");
                return None;
            }
            // A starting server tells nobody when it is ready.
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("moto_server does not answer");
    }

    /// How to reach the bucket.
    pub(crate) fn config(&self) -> StoreConfig {
        let mut config = StoreConfig::at("s3://bench/records");
        config.s3.endpoint = Some(format!("http://127.0.0.1:{}", self.port));
        config.s3.region = Some("us-east-1".into());
        config.s3.access_key_id = Some("testing".into());
        config.s3.secret_access_key = Some("testing".into());
        config.s3.allow_http = true;
        config
    }

    /// Ends the server, as if the network to it were cut.
    pub(crate) fn stop(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    fn request(&self, line: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let request = format!(
            "{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Both fail only when the server has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
