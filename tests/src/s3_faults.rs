//! A proxy in front of an S3 server that fails as real ones do: answers that get lost, throttling, races that are lost,
//! one write a second per key, credentials that are over.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::moto::free_port;
use crate::random::Random;

/// How a request can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks before the server hears of it.
    LoseRequest,
    /// The server does it and the answer is lost.
    LoseAnswer,
    /// The server does it and says 503.
    DoneBut503,
    /// 503 `SlowDown`, and nothing is done.
    SlowDown,
    /// 429, as R2 says to many writes of one key; nothing is done.
    TooMany,
    /// 412, as after a lost race; nothing is done. Only for conditional writes.
    Precondition,
}

impl Fault {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::LoseRequest,
        Self::LoseAnswer,
        Self::DoneBut503,
        Self::SlowDown,
        Self::TooMany,
        Self::Precondition,
    ];
}

/// The proxy. Its threads end with the process.
#[derive(Debug)]
pub struct S3Faults {
    port: u16,
    rules: Arc<Rules>,
}

#[derive(Debug)]
struct Rules {
    server: u16,
    random: Mutex<Random>,
    permille: AtomicU32,
    expired: AtomicBool,
    one_write_a_second: AtomicBool,
    written: Mutex<HashMap<String, Instant>>,
    requests: AtomicUsize,
    injected: AtomicUsize,
}

impl S3Faults {
    /// A proxy before the server on this port that lets everything through.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn before(server: u16, seed: u64) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let rules = Arc::new(Rules {
            server,
            random: Mutex::new(Random::new(seed)),
            permille: AtomicU32::new(0),
            expired: AtomicBool::new(false),
            one_write_a_second: AtomicBool::new(false),
            written: Mutex::default(),
            requests: AtomicUsize::new(0),
            injected: AtomicUsize::new(0),
        });
        let own = Arc::clone(&rules);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let rules = Arc::clone(&own);
                // A connection that breaks is what a proxy is for.
                thread::spawn(move || drop(serve(&rules, stream)));
            }
        });
        Self { port, rules }
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// From now on so many of a thousand requests fail, in every way in turn.
    pub fn fail(&self, permille: u32) {
        self.rules.permille.store(permille, Ordering::SeqCst);
    }

    /// Whether the credentials are over: everything is refused with 403 `ExpiredToken`.
    pub fn set_expired(&self, expired: bool) {
        self.rules.expired.store(expired, Ordering::SeqCst);
    }

    /// Whether a key takes one write a second and answers others with 429, as R2 does.
    pub fn set_one_write_a_second(&self, limited: bool) {
        self.rules
            .one_write_a_second
            .store(limited, Ordering::SeqCst);
    }

    /// How many requests there were, and how many of them were made to fail.
    #[must_use]
    pub fn counted(&self) -> (usize, usize) {
        (
            self.rules.requests.load(Ordering::SeqCst),
            self.rules.injected.load(Ordering::SeqCst),
        )
    }
}

struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
    method: String,
    key: String,
    conditional: bool,
}

fn serve(rules: &Rules, mut client: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    // The server closes after each answer, so that an answer ends where the connection does.
    let Some(request) = read(&mut reader)? else {
        return Ok(());
    };
    rules.requests.fetch_add(1, Ordering::SeqCst);
    let fault = rules.fault(&request);
    rules
        .injected
        .fetch_add(usize::from(fault.is_some()), Ordering::SeqCst);
    if rules.expired.load(Ordering::SeqCst) {
        return refuse(&mut client, 403, "ExpiredToken");
    }
    match fault {
        Some(Fault::LoseRequest) => Ok(()),
        Some(Fault::SlowDown) => refuse(&mut client, 503, "SlowDown"),
        Some(Fault::TooMany) => refuse(&mut client, 429, "TooManyRequests"),
        Some(Fault::Precondition) => refuse(&mut client, 412, "PreconditionFailed"),
        Some(Fault::LoseAnswer) => pass_on(rules, &request).map(drop),
        Some(Fault::DoneBut503) => {
            pass_on(rules, &request)?;
            refuse(&mut client, 503, "InternalError")
        }
        None => client.write_all(&pass_on(rules, &request)?),
    }
}

impl Rules {
    fn fault(&self, request: &Request) -> Option<Fault> {
        if self.one_write_a_second.load(Ordering::SeqCst) && request.method == "PUT" {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let last = written.insert(request.key.clone(), now);
            if last.is_some_and(|last| now - last < Duration::from_secs(1)) {
                return Some(Fault::TooMany);
            }
        }
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        if random.within(0..1_000) >= u64::from(self.permille.load(Ordering::SeqCst)) {
            return None;
        }
        let fault = *random.pick(&Fault::ALL);
        match fault {
            Fault::Precondition if !request.conditional => Some(Fault::SlowDown),
            fault => Some(fault),
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut head = Vec::new();
    let mut first = String::new();
    let (mut length, mut conditional) = (0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let low = line.to_ascii_lowercase();
        if first.is_empty() {
            first.clone_from(&line);
        }
        if let Some(value) = low.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        conditional |= low.starts_with("if-none-match:") || low.starts_with("if-match:");
        if line == "\r\n" {
            head.extend_from_slice(b"Connection: close\r\n\r\n");
            break;
        }
        if !low.starts_with("connection:") {
            head.extend_from_slice(line.as_bytes());
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split(' ').map(str::to_owned);
    Ok(Some(Request {
        head,
        body,
        method: words.next().unwrap_or_default(),
        key: words.next().unwrap_or_default(),
        conditional,
    }))
}

fn pass_on(rules: &Rules, request: &Request) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(("127.0.0.1", rules.server))?;
    server.write_all(&request.head)?;
    server.write_all(&request.body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

fn refuse(client: &mut TcpStream, status: u16, code: &str) -> std::io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>"
    );
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says `done` to every request and counts them.
    fn server() -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().expect("the same"));
                let _ = read(&mut reader);
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
            }
        });
        (port, asked)
    }

    fn put(port: u16) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream
            .write_all(b"PUT /a/b HTTP/1.1\r\nIf-None-Match: *\r\nContent-Length: 3\r\n\r\nabc")
            .expect("sent");
        let mut answer = String::new();
        // A connection that is broken reads as an empty answer.
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn it_fails_in_every_way_and_counts_it() {
        let (port, asked) = server();
        let proxy = S3Faults::before(port, 7);
        assert!(put(proxy.port()).ends_with("done"));
        proxy.fail(1_000);
        let answers: Vec<String> = (0..60).map(|_| put(proxy.port())).collect();
        for status in ["", "HTTP/1.1 503", "HTTP/1.1 429", "HTTP/1.1 412"] {
            assert!(
                answers
                    .iter()
                    .any(|a| a.starts_with(status) && a.is_empty() == status.is_empty()),
                "{status:?}"
            );
        }
        assert_eq!(proxy.counted(), (61, 60));
        let done = asked.load(Ordering::SeqCst);
        assert!(
            (2..61).contains(&done),
            "some were done and their answers lost: {done}"
        );
    }

    #[test]
    fn a_key_takes_one_write_a_second_and_credentials_can_be_over() {
        let (port, _) = server();
        let proxy = S3Faults::before(port, 7);
        proxy.set_one_write_a_second(true);
        assert!(put(proxy.port()).ends_with("done"));
        assert!(put(proxy.port()).starts_with("HTTP/1.1 429"));
        proxy.set_one_write_a_second(false);
        proxy.set_expired(true);
        assert!(put(proxy.port()).contains("ExpiredToken"));
    }
}
