//! Callers that submit over gRPC: each waits for its answer, and together they keep to a pace or go as fast as they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tonic::Status;

use crate::board::Board;
use crate::etcd::Put;
use crate::job::Template;
use crate::servers::{Failed, Servers};
use crate::wire::{Submitted, Written};

/// What counts for nothing at the beginning of each measurement.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// Callers that share one connection. etcd's own benchmark is usually run with ten clients on each, and so are both here.
const CALLERS_PER_CONNECTION: usize = 10;

/// A pace that is kept no better than this is not kept: the run ends early.
const LATE: Duration = Duration::from_secs(2);

/// A number of writes that takes longer than this is not waited for.
const GO_THROUGH_WITHIN: Duration = Duration::from_secs(300);

/// How callers go about it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So many a second together, each at its own moment. Times count from that moment, whenever a caller was free.
    Open(f64),
    /// Each one again as soon as it has its answer.
    Closed,
}

/// What is written.
pub(crate) enum Write {
    /// Jobs, submitted to Stepcast.
    Job {
        template: Template,
        /// Tells apart the runs of this program against one cluster.
        run: u64,
    },
    /// A value under a new key each time, put into etcd.
    Put {
        /// Bytes of the value.
        value: usize,
    },
}

/// Where writes go, and where their times come together.
pub(crate) struct Load {
    servers: Servers,
    write: Write,
    pub(crate) board: Arc<Board>,
    number: AtomicU64,
}

/// What did not go as it should.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    /// Submissions that the servers held back.
    pub(crate) held_back: u64,
    /// Submissions that failed.
    pub(crate) failed: u64,
    /// What one of them was told.
    pub(crate) word: Option<String>,
    /// Whether the pace could not be kept at all.
    pub(crate) late: bool,
}

impl Troubles {
    fn held_back(&mut self, status: &Status) {
        self.held_back += 1;
        self.hear(status);
    }

    fn failed(&mut self, status: &Status) {
        self.failed += 1;
        self.hear(status);
    }

    fn hear(&mut self, status: &Status) {
        let word = || format!("{:?}: {}", status.code(), status.message());
        self.word.get_or_insert_with(word);
    }
}

/// One go of many callers.
struct Go {
    load: Arc<Load>,
    pace: Pace,
    begun: Instant,
    measured_from: Instant,
    until: Instant,
    /// How many there are, and which one is the next.
    tickets: u64,
    ticket: AtomicU64,
    stop: AtomicBool,
    troubles: Mutex<Troubles>,
}

/// Connections to each server for so many callers.
pub(crate) fn connections(callers: usize) -> usize {
    callers.div_ceil(CALLERS_PER_CONNECTION)
}

impl Write {
    pub(crate) fn jobs() -> anyhow::Result<Self> {
        // Ids of two runs against one cluster must differ; the times of their starts do.
        let run = std::time::UNIX_EPOCH.elapsed()?.as_micros();
        Ok(Self::Job {
            template: Template::new(),
            run: u64::try_from(run)?,
        })
    }

    /// Writes the `number`th one; what it is called.
    async fn one(&self, servers: &Servers, caller: usize, number: u64) -> Result<String, Failed> {
        match self {
            Self::Job { template, run } => {
                let request = template.request(*run, number);
                let path = "/stepcast.v1.JobsService/SubmitJob";
                let answer: Submitted = servers.call(caller, path, None, &request).await?;
                Ok(answer.job.unwrap_or_default().name)
            }
            Self::Put { value } => {
                let put = Put {
                    key: format!("jobs/{number:027}").into_bytes(),
                    // Bytes that no compression makes shorter: both sides write what they are given.
                    value: (0..*value)
                        .map(|at| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (at % 57)) as u8)
                        .collect(),
                };
                let _written: Written = servers
                    .call(caller, "/etcdserverpb.KV/Put", None, &put)
                    .await?;
                Ok(String::new())
            }
        }
    }
}

impl Load {
    /// These writes to these servers.
    pub(crate) fn new(servers: Servers, write: Write, board: &Arc<Board>) -> Arc<Self> {
        Arc::new(Self {
            servers,
            write,
            board: Arc::clone(board),
            number: AtomicU64::new(0),
        })
    }

    /// How many have been written, and are being written.
    pub(crate) fn writes(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// The server that leads, as far as the callers know.
    pub(crate) fn leader(&self) -> usize {
        self.servers.leader()
    }

    /// Has so many callers write: `warm_up` counts for nothing, and then `time` is measured.
    pub(crate) async fn go(
        self: &Arc<Self>,
        callers: usize,
        pace: Pace,
        warm_up: Duration,
        time: Duration,
    ) -> anyhow::Result<Troubles> {
        let begun = Instant::now();
        let go = Go {
            load: Arc::clone(self),
            pace,
            begun,
            measured_from: begun + warm_up,
            until: begun + warm_up + time,
            tickets: u64::MAX,
            ticket: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            troubles: Mutex::default(),
        };
        go.run(callers).await
    }

    /// Has so many callers write so many together as fast as they can, from the first on.
    pub(crate) async fn go_through(
        self: &Arc<Self>,
        callers: usize,
        writes: u64,
    ) -> anyhow::Result<Troubles> {
        let begun = Instant::now();
        let go = Go {
            load: Arc::clone(self),
            pace: Pace::Closed,
            begun,
            measured_from: begun,
            until: begun + GO_THROUGH_WITHIN,
            tickets: writes,
            ticket: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            troubles: Mutex::default(),
        };
        go.run(callers).await
    }
}

impl Go {
    async fn run(self, callers: usize) -> anyhow::Result<Troubles> {
        let go = Arc::new(self);
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            tasks.spawn(Arc::clone(&go).caller(caller));
        }
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(std::mem::take(&mut *go.troubles.lock()))
    }

    async fn caller(self: Arc<Self>, caller: usize) {
        while let Some(meant) = self.turn().await {
            let number = self.load.number.fetch_add(1, Ordering::Relaxed);
            let written = self
                .load
                .write
                .one(&self.load.servers, caller, number)
                .await;
            let now = Instant::now();
            match written {
                Ok(name) => {
                    let counts = (meant >= self.measured_from).then_some(meant);
                    self.load.board.acked(&name, counts, now);
                }
                Err(Failed::HeldBack(status)) => {
                    self.troubles.lock().held_back(&status);
                    // The queue is full, and will be for as long as everybody goes as fast as they can.
                    if matches!(self.pace, Pace::Closed) {
                        self.stop.store(true, Ordering::Relaxed);
                    }
                }
                Err(Failed::Refused(status)) => {
                    self.troubles.lock().failed(&status);
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// The moment of the next submission, once it has come; none when the time is over.
    async fn turn(&self) -> Option<Instant> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let now = Instant::now();
        let ticket = self.ticket.fetch_add(1, Ordering::Relaxed);
        let meant = match self.pace {
            Pace::Closed => now,
            Pace::Open(per_second) => {
                self.begun + Duration::from_secs_f64(ticket as f64 / per_second)
            }
        };
        if meant >= self.until || ticket >= self.tickets {
            return None;
        }
        if now.saturating_duration_since(meant) > LATE {
            self.troubles.lock().late = true;
            self.stop.store(true, Ordering::Relaxed);
            return None;
        }
        tokio::time::sleep_until(meant.into()).await;
        Some(meant)
    }
}
