//! A job watched: its value now, then every event in order, with live progress and lines in between.

use futures::stream::{self, BoxStream};
use stepcast_cluster::{JobUpdate, JobWatch};
use stepcast_proto::v1;
use stepcast_proto::v1::watch_job_response::Update as Told;
use stepcast_scheduler::State;
use stepcast_scheduler::ids::WorkerId;
use stepcast_scheduler::model::{EventKind, Job, JobState};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::context::{Context, closed};
use crate::convert;
use crate::status::Refusal;

/// What a watcher is told, one by one.
pub(super) type Updates = BoxStream<'static, Result<v1::WatchJobResponse, Status>>;

/// The stream of an open watch.
pub(super) fn updates(context: &Context, watch: JobWatch, logs: bool) -> Updates {
    let open = Open {
        closing: context.closing.clone(),
        context: context.clone(),
        watch,
        logs,
        state: JobState::Pending,
        before: None,
    };
    Box::pin(stream::unfold(Some(open), next))
}

struct Open {
    context: Context,
    watch: JobWatch,
    logs: bool,
    /// Where the job stands after the last event that was told.
    state: JobState,
    /// Lines from before the watch, told after the job itself.
    before: Option<v1::LogLines>,
    closing: watch::Receiver<bool>,
}

type Item = Result<v1::WatchJobResponse, Status>;

async fn next(open: Option<Open>) -> Option<(Item, Option<Open>)> {
    let mut open = open?;
    loop {
        if let Some(lines) = open.before.take() {
            return Some((told(Told::Log(lines)), Some(open)));
        }
        let update = tokio::select! {
            update = open.watch.next() => update?,
            status = closed(&mut open.closing) => return Some((Err(status), None)),
        };
        match update {
            JobUpdate::Behind { .. } => return Some((Err(behind()), None)),
            update => {
                if let Some(update) = open.tell(update) {
                    return Some((told(update), Some(open)));
                }
            }
        }
    }
}

impl Open {
    /// An update to the wire, if it is wanted.
    fn tell(&mut self, update: JobUpdate) -> Option<Told> {
        match update {
            JobUpdate::Current { job, .. } => Some(Told::Current(Box::new(self.current(&job)))),
            JobUpdate::Event { event, .. } => {
                let (mut told, state) = convert::event(&event, self.state);
                self.state = state;
                if let EventKind::Placed { worker, .. } = event.kind {
                    told.worker_display_name = self.name(worker);
                }
                Some(Told::Event(told))
            }
            JobUpdate::Progress { epoch, progress } => {
                Some(Told::Progress(convert::live_progress(epoch, progress)))
            }
            JobUpdate::Log { epoch, lines } => self
                .logs
                .then(|| Told::Log(convert::log_lines(epoch, lines))),
            JobUpdate::Behind { .. } => None,
        }
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
            let progress = live
                .as_ref()
                .filter(|_| attempt.is_live())
                .and_then(|live| live.progress);
            current.progress =
                progress.map(|progress| convert::live_progress(attempt.epoch, progress));
            let lines = live.filter(|live| self.logs && !live.lines.is_empty());
            self.before = lines.map(|live| convert::log_lines(attempt.epoch, live.lines));
        }
        current
    }
}

fn told(update: Told) -> Item {
    Ok(v1::WatchJobResponse {
        update: Some(update),
    })
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
