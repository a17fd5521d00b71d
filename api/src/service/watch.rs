//! A job watched: its value now, then every event in order, with live progress and lines in between.

use std::collections::VecDeque;

use futures::stream::{self, BoxStream};
use stepcast_cluster::{JobUpdate, JobWatch};
use stepcast_proto::v1;
use stepcast_proto::v1::watch_job_response::Update as Told;
use stepcast_scheduler::State;
use stepcast_scheduler::ids::{Epoch, WorkerId};
use stepcast_scheduler::model::{EventKind, Job, JobEvent, JobState};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::context::{Context, closed};
use crate::freshness::Freshness;
use crate::status::{self, Refusal};
use crate::{convert, redirect};

/// What a watcher is told, one by one.
pub(crate) type Updates = BoxStream<'static, Result<v1::WatchJobResponse, Status>>;

/// The stream of an open watch. A live one ends when this node does not lead any more, since only the leader hears of
/// progress.
pub(super) fn updates(
    context: &Context,
    watch: JobWatch,
    request: &v1::WatchJobRequest,
    freshness: Freshness,
) -> Updates {
    let open = Open {
        closing: context.closing.clone(),
        context: context.clone(),
        watch,
        logs: request.logs,
        live: freshness == Freshness::Live,
        seq: request.after_seq,
        state: JobState::Pending,
        waiting: VecDeque::new(),
    };
    Box::pin(stream::unfold(Some(open), next))
}

struct Open {
    context: Context,
    watch: JobWatch,
    logs: bool,
    live: bool,
    /// Number of the newest event that the watcher knows.
    seq: u64,
    /// Where the job stands after the last event that was told.
    state: JobState,
    /// What is to be told before anything else.
    waiting: VecDeque<v1::WatchJobResponse>,
    closing: watch::Receiver<bool>,
}

type Item = Result<v1::WatchJobResponse, Status>;

async fn next(open: Option<Open>) -> Option<(Item, Option<Open>)> {
    let mut open = open?;
    loop {
        if let Some(told) = open.waiting.pop_front() {
            return Some((Ok(told), Some(open)));
        }
        let handle = &open.context.handle;
        let update = tokio::select! {
            biased;
            update = open.watch.next() => update?,
            status = closed(&mut open.closing) => return Some((Err(status), None)),
            () = handle.deposed(), if open.live => {
                let status = status::not_leader(handle.status().leader);
                return Some((Err(redirect::told(status, handle)), None));
            }
        };
        if let Err(status) = open.take(update) {
            return Some((Err(status), None));
        }
    }
}

impl Open {
    /// An update as it goes to the watcher, if it is wanted.
    fn take(&mut self, update: JobUpdate) -> Result<(), Status> {
        let told = match update {
            JobUpdate::Current { seq, job } if self.seq > seq => {
                return Err(ahead(&job, self.seq, seq));
            }
            JobUpdate::Current { seq, job } => {
                self.missed(&job);
                self.seq = seq;
                let current = self.current(&job);
                Told::Current(Box::new(current))
            }
            JobUpdate::Event { event, .. } => self.event(&event),
            JobUpdate::Progress {
                epoch,
                progress,
                left,
            } => Told::Progress(convert::live_progress(epoch, progress, left)),
            JobUpdate::Log { epoch, lines } if self.logs => {
                Told::Log(convert::log_lines(epoch, lines))
            }
            JobUpdate::Log { .. } => return Ok(()),
            JobUpdate::Behind { .. } => return Err(behind()),
        };
        let before = matches!(told, Told::Current(_)).then(|| self.lines_before(&told));
        self.tell(told);
        if let Some(lines) = before.flatten() {
            self.tell(Told::Log(lines));
        }
        Ok(())
    }

    fn tell(&mut self, update: Told) {
        self.waiting.push_back(v1::WatchJobResponse {
            seq: self.seq,
            update: Some(update),
        });
    }

    fn event(&mut self, event: &JobEvent) -> Told {
        let (mut told, state) = convert::event(event, self.state);
        (self.state, self.seq) = (state, event.seq);
        if let EventKind::Placed { worker, .. } = event.kind {
            told.worker_display_name = self.name(worker);
        }
        Told::Event(told)
    }

    /// Tells what the watcher has missed since its watch before. One that has had none begins with the job as it is.
    fn missed(&mut self, job: &Job) {
        let known = self.seq;
        for event in job.events.iter().filter(|_| known > 0) {
            let told = self.event(event);
            if event.seq > known {
                self.tell(told);
            }
        }
    }

    /// Lines from before the watch, told after the job itself.
    fn lines_before(&self, told: &Told) -> Option<v1::LogLines> {
        let Told::Current(job) = told else {
            return None;
        };
        let epoch = Epoch(job.attempts.last().filter(|_| self.logs)?.epoch);
        let live = self.context.handle.live(epoch)?;
        (!live.lines.is_empty()).then(|| convert::log_lines(epoch, live.lines))
    }

    fn name(&self, worker: WorkerId) -> String {
        let name = |state: &State| state.worker(worker).map(|worker| worker.name.to_string());
        self.context.handle.read_stale(name).unwrap_or_default()
    }

    fn current(&mut self, job: &Job) -> v1::Job {
        self.state = job.state;
        let handle = &self.context.handle;
        let now_ms = handle.now_ms();
        let mut current = handle.read_stale(|state| convert::job(job, state, now_ms));
        if let Some(attempt) = job.attempts.last() {
            let live = handle.live(attempt.epoch);
            let live = live.filter(|_| attempt.is_live());
            current.progress = live.and_then(|live| {
                let progress = live.progress?;
                Some(convert::live_progress(attempt.epoch, progress, live.left))
            });
        }
        current
    }
}

/// This node knows less of the job than the watcher does, though it has asked the others.
fn ahead(job: &Job, known: u64, newest: u64) -> Status {
    let message = format!(
        "this watch goes on after event {known} of the job, and its newest event is {newest}"
    );
    Refusal::new(Code::FailedPrecondition, "WATCH_AHEAD", message)
        .with("job", job.id)
        .hint("was the cluster restored from a backup, or is this another one? watch again from the beginning")
        .into()
}

fn behind() -> Status {
    Refusal::new(
        Code::Aborted,
        "WATCH_BEHIND",
        "this watch was read too slowly to be kept",
    )
    .hint("watch again: it goes on from the job as it is")
    .retry(std::time::Duration::ZERO)
    .into()
}
