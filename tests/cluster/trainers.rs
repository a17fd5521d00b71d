//! When each trainer was there, told by the kernel: it holds a connection to the test for as long as it lives.
//!
//! The worker starts its trainers through a script that connects, says which attempt it is, waits until that is written
//! down, and becomes the real program. The connection ends with the last process that has it, however that ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One trainer.
#[derive(Debug, Clone)]
pub(crate) struct Trainer {
    /// The number of the worker that started it.
    pub(crate) worker: usize,
    /// The fencing token that it was started under.
    pub(crate) epoch: u64,
    pub(crate) start: Instant,
    /// When it was gone; `None` while it lives.
    pub(crate) end: Option<Instant>,
}

/// All trainers there were.
#[derive(Debug)]
pub(crate) struct Trainers {
    port: u16,
    all: Mutex<Vec<Trainer>>,
    changes: watch::Sender<u64>,
}

impl Trainers {
    pub(crate) async fn listen() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let trainers = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            all: Mutex::default(),
            changes: watch::channel(0).0,
        });
        let all = Arc::clone(&trainers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&all).live(stream));
            }
        });
        trainers
    }

    /// Writes the script that a worker starts trainers with.
    pub(crate) fn write_helper(&self, path: &Path, worker: usize, program: &str) {
        let script = format!(
            "#!/usr/bin/env bash\n\
             if [ \"$1\" = replay ]; then\n\
             \x20 exec 9<>/dev/tcp/127.0.0.1/{} || exit 97\n\
             \x20 echo \"{worker} $(basename \"$(dirname \"$PWD\")\")\" >&9\n\
             \x20 read -r -u 9 _ || exit 97\n\
             fi\n\
             exec '{program}' \"$@\"\n",
            self.port
        );
        fs::write(path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }

    /// Everybody until now.
    pub(crate) fn all(&self) -> Vec<Trainer> {
        self.all.lock().unwrap().clone()
    }

    /// Waits until some trainer makes it so.
    pub(crate) async fn until<T>(
        &self,
        limit: Duration,
        so: impl Fn(&[Trainer]) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                if let Some(found) = so(&self.all.lock().unwrap()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(limit, wait).await.ok()
    }

    async fn live(self: Arc<Self>, mut stream: TcpStream) {
        let (reads, mut writes) = stream.split();
        let mut reads = BufReader::new(reads);
        let mut line = String::new();
        // One that was killed before it could say who it is has not become a trainer.
        if reads.read_line(&mut line).await.is_err() {
            return;
        }
        let words = line.trim().split_once(' ');
        let Some((worker, epoch)) =
            words.and_then(|(worker, epoch)| Some((worker.parse().ok()?, epoch.parse().ok()?)))
        else {
            return;
        };
        let place = self.change(|all| {
            all.push(Trainer {
                worker,
                epoch,
                start: Instant::now(),
                end: None,
            });
            all.len() - 1
        });
        let mut rest = Vec::new();
        if writes.write_all(b"go\n").await.is_ok() {
            drop(reads.read_to_end(&mut rest).await);
        }
        self.change(|all| all[place].end = Some(Instant::now()));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Trainer>) -> T) -> T {
        let changed = change(&mut self.all.lock().unwrap());
        self.changes.send_modify(|count| *count += 1);
        changed
    }
}
