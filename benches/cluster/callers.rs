//! Callers that submit over gRPC: each waits for its answer, and together they keep to a pace or go as fast as they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tonic::Status;

use crate::board::Board;
use crate::job::Template;
use crate::servers::{Failed, Servers};
use crate::wire::Submitted;

/// Callers that share one connection. etcd's own benchmark is usually run with ten clients on each, and so are both here.
const CALLERS_PER_CONNECTION: usize = 10;

/// A pace that is kept no better than this is not kept: the run ends early.
const LATE: Duration = Duration::from_secs(2);

/// How callers go about it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So many a second together, each at its own moment. Times count from that moment, whenever a caller was free.
    Open(f64),
    /// Each one again as soon as it has its answer.
    Closed,
}

/// Where submissions go, and where their times come together.
pub(crate) struct Load {
    pub(crate) servers: Arc<Servers>,
    pub(crate) board: Arc<Board>,
    template: Template,
    run: u64,
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
    ticket: AtomicU64,
    stop: AtomicBool,
    troubles: Mutex<Troubles>,
}

/// Connections to each server for so many callers.
pub(crate) fn connections(callers: usize) -> usize {
    callers.div_ceil(CALLERS_PER_CONNECTION)
}

impl Load {
    /// Submissions to these servers, on as many connections as that many callers need.
    pub(crate) fn new(
        addresses: &[String],
        callers: usize,
        board: &Arc<Board>,
    ) -> anyhow::Result<Arc<Self>> {
        // Ids of two runs against one cluster must differ; the time of their starts does.
        let run = std::time::UNIX_EPOCH.elapsed()?.as_micros();
        Ok(Arc::new(Self {
            servers: Arc::new(Servers::new(addresses, connections(callers))?),
            board: Arc::clone(board),
            template: Template::new(),
            run: u64::try_from(run)?,
            number: AtomicU64::new(0),
        }))
    }

    /// Bytes of one job's files.
    pub(crate) fn bytes(&self) -> usize {
        self.template.bytes()
    }

    /// Has so many callers submit: `warm_up` counts for nothing, and then `time` is measured.
    pub(crate) async fn go(
        self: &Arc<Self>,
        callers: usize,
        pace: Pace,
        warm_up: Duration,
        time: Duration,
    ) -> anyhow::Result<Troubles> {
        let begun = Instant::now();
        let go = Arc::new(Go {
            load: Arc::clone(self),
            pace,
            begun,
            measured_from: begun + warm_up,
            until: begun + warm_up + time,
            ticket: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            troubles: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            tasks.spawn(Arc::clone(&go).caller(caller));
        }
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(std::mem::take(&mut *go.troubles.lock()))
    }
}

impl Go {
    async fn caller(self: Arc<Self>, caller: usize) {
        while let Some(meant) = self.turn().await {
            let number = self.load.number.fetch_add(1, Ordering::Relaxed);
            let request = self.load.template.request(self.load.run, number);
            let answer: Result<Submitted, Failed> = self
                .load
                .servers
                .call(caller, "/stepcast.v1.JobsService/SubmitJob", None, &request)
                .await;
            let now = Instant::now();
            match answer {
                Ok(submitted) => {
                    let job = submitted.job.unwrap_or_default().name;
                    let counts = (meant >= self.measured_from).then_some(meant);
                    self.load.board.acked(&job, counts, now);
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
        let meant = match self.pace {
            Pace::Closed => now,
            Pace::Open(per_second) => {
                let ticket = self.ticket.fetch_add(1, Ordering::Relaxed);
                self.begun + Duration::from_secs_f64(ticket as f64 / per_second)
            }
        };
        if meant >= self.until {
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
