//! What attempts say about themselves while they run: in the leader's memory only, bounded, and gone with it.

mod lines;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use stepcast_records::{GpuModel, Hardware, Quantiles};
use stepcast_scheduler::course::{Course, Doing, Heard, Pace};
use stepcast_scheduler::drift::{AS_EXPECTED, Drifts};
use stepcast_scheduler::ids::{Epoch, JobId, WorkerId};
use stepcast_scheduler::model::limits::{Bounds, GPUS_PER_WORKER_MAX};

pub use self::lines::LOG_LINES;
use self::lines::Lines;
use crate::session::{Phase, Progress};

/// Attempts that are known: as many as can hold a lease in the largest fleet, and those that have ended. Beyond it the oldest
/// is forgotten.
const ATTEMPTS: usize = Bounds::NEWEST.workers * GPUS_PER_WORKER_MAX + ENDED;

/// Attempts kept after their end, so that their last lines can still be read.
const ENDED: usize = 256;

/// What is known about a running attempt beyond the state.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// Its job.
    pub job: JobId,
    /// How far it is, once it has said so.
    pub progress: Option<Progress>,
    /// How long it still takes, in milliseconds, by what was expected and by what it has shown; `None` while neither says.
    pub left: Option<Quantiles>,
    /// The newest lines its trainer printed, oldest first.
    pub lines: VecDeque<String>,
}

/// All attempts that have said something.
#[derive(Debug, Default)]
pub(crate) struct LiveBoard {
    board: Mutex<Board>,
    drifts: Mutex<Drifts>,
    /// The workers that take longer or less than others of their kind.
    slow: Mutex<Arc<BTreeMap<WorkerId, u32>>>,
}

#[derive(Debug, Default)]
struct Board {
    attempts: BTreeMap<Epoch, Entry>,
    /// The attempts of each job that are among them.
    of_jobs: BTreeSet<(JobId, Epoch)>,
    lines: Lines,
}

#[derive(Debug)]
struct Entry {
    job: JobId,
    progress: Option<Progress>,
    /// The step that it goes on from, once its worker has said so.
    from: Option<u64>,
    timing: Option<Timing>,
}

/// What an attempt's time is told from.
#[derive(Debug)]
struct Timing {
    worker: WorkerId,
    hardware: Hardware,
    course: Option<Course>,
    pace: Pace,
}

/// What is known of an attempt when it is first heard of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    /// The worker that it runs on.
    pub(crate) worker: WorkerId,
    /// Where it runs.
    pub(crate) hardware: Hardware,
    /// What was expected of its job there.
    pub(crate) course: Option<Course>,
    /// When it began, by the board's clock.
    pub(crate) at_ms: u64,
    /// The step from which the state has it go on. What its worker has said counts over that.
    pub(crate) step: u64,
}

impl LiveBoard {
    /// Whether an attempt's time can be told already; where not, [`Self::begin`] comes before its progress.
    pub(crate) fn is_timed(&self, epoch: Epoch) -> bool {
        let board = self.board.lock();
        let entry = board.attempts.get(&epoch);
        entry.is_some_and(|entry| entry.timing.is_some())
    }

    /// Takes the step that an attempt goes on from, by its worker's word: it may be in the log later, or never.
    pub(crate) fn goes_on_from(&self, job: JobId, epoch: Epoch, step: u64) {
        self.board.lock().entry(job, epoch).from = Some(step);
    }

    /// Takes what is known of an attempt. What an earlier one of its job has shown on the same hardware counts too.
    pub(crate) fn begin(&self, job: JobId, epoch: Epoch, begun: Begun) {
        let mut board = self.board.lock();
        let said = board.attempts.get(&epoch).and_then(|entry| entry.from);
        let before = board.of_jobs.range((job, Epoch(0))..(job, epoch)).rev();
        let mut before = before.filter_map(|(_, epoch)| board.attempts.get(epoch)?.timing.as_ref());
        let earlier = before.find(|timing| timing.hardware == begun.hardware);
        let earlier = earlier.map(|timing| timing.pace.clone());
        let mut pace = Pace::begun(begun.at_ms, said.unwrap_or(begun.step));
        if let Some(earlier) = earlier {
            pace = pace.after(&earlier);
        }
        board.entry(job, epoch).timing = Some(Timing {
            worker: begun.worker,
            hardware: begun.hardware,
            course: begun.course,
            pace,
        });
    }

    /// How far an attempt is; gives back how long it still takes.
    pub(crate) fn progress(
        &self,
        job: JobId,
        epoch: Epoch,
        progress: Progress,
        now_ms: u64,
    ) -> Option<Quantiles> {
        let (left, shown) = self.board.lock().progress(job, epoch, progress, now_ms);
        if let Some((worker, gpu, longer)) = shown {
            let (drift, forgotten) = {
                let mut drifts = self.drifts.lock();
                let forgotten = drifts.hear(worker, gpu, epoch, longer);
                (drifts.of(worker), forgotten)
            };
            self.drifts_by(worker, drift);
            if let Some(forgotten) = forgotten {
                self.drifts_by(forgotten, AS_EXPECTED);
            }
        }
        left
    }

    /// The workers that take longer or less than others of their kind, as [`Drifts::of`] says.
    pub(crate) fn drifting(&self) -> Arc<BTreeMap<WorkerId, u32>> {
        Arc::clone(&self.slow.lock())
    }

    fn drifts_by(&self, worker: WorkerId, drift: u32) {
        let mut slow = self.slow.lock();
        let known = slow.get(&worker).copied().unwrap_or(AS_EXPECTED);
        if known == drift {
            return;
        }
        let slow = Arc::make_mut(&mut slow);
        if drift == AS_EXPECTED {
            slow.remove(&worker);
        } else {
            slow.insert(worker, drift);
        }
    }

    /// How long an attempt of a job still takes.
    pub(crate) fn left(&self, job: JobId, epoch: Epoch, now_ms: u64) -> Option<Quantiles> {
        let board = self.board.lock();
        // Who tries things on a copy of the state gives epochs of their own.
        let entry = board.attempts.get(&epoch);
        let entry = entry.filter(|entry| entry.job == job)?;
        entry.timing.as_ref()?.left(now_ms)
    }

    /// Lines an attempt's trainer printed; gives back what is kept of them.
    pub(crate) fn lines(&self, job: JobId, epoch: Epoch, lines: Vec<String>) -> Vec<String> {
        let mut board = self.board.lock();
        board.entry(job, epoch);
        board.lines.add(epoch, lines)
    }

    /// What is known about an attempt.
    pub(crate) fn get(&self, epoch: Epoch, now_ms: u64) -> Option<Live> {
        let board = self.board.lock();
        let entry = board.attempts.get(&epoch)?;
        Some(Live {
            job: entry.job,
            progress: entry.progress,
            left: entry.timing.as_ref().and_then(|timing| timing.left(now_ms)),
            lines: board.lines.of(epoch),
        })
    }

    /// Forgets all but the newest of the attempts that do not run any more.
    pub(crate) fn forget_ended(&self, runs: impl Fn(Epoch) -> bool) {
        let mut board = self.board.lock();
        let epochs = board.attempts.keys().copied();
        let ended: Vec<Epoch> = epochs.filter(|epoch| !runs(*epoch)).collect();
        let surplus = ended.len().saturating_sub(ENDED);
        ended[..surplus]
            .iter()
            .for_each(|epoch| board.forget(*epoch));
    }

    /// Forgets everything: another node leads.
    pub(crate) fn clear(&self) {
        *self.board.lock() = Board::default();
        *self.drifts.lock() = Drifts::default();
        *self.slow.lock() = Arc::default();
    }
}

impl Board {
    /// What is known of an attempt, which is known from now on.
    fn entry(&mut self, job: JobId, epoch: Epoch) -> &mut Entry {
        if self.attempts.len() >= ATTEMPTS
            && !self.attempts.contains_key(&epoch)
            && let Some(oldest) = self.attempts.keys().next().copied()
        {
            self.forget(oldest);
        }
        self.of_jobs.insert((job, epoch));
        self.attempts.entry(epoch).or_insert(Entry {
            job,
            progress: None,
            from: None,
            timing: None,
        })
    }

    /// How long the attempt still takes, and by how much longer than expected its worker was shown to take.
    fn progress(
        &mut self,
        job: JobId,
        epoch: Epoch,
        progress: Progress,
        now_ms: u64,
    ) -> (Option<Quantiles>, Option<(WorkerId, GpuModel, f64)>) {
        let entry = self.entry(job, epoch);
        entry.progress = Some(progress);
        let Some(timing) = entry.timing.as_mut() else {
            return (None, None);
        };
        timing.pace.hear(heard(&progress), now_ms);
        let course = timing.course.as_ref();
        let longer = course.and_then(|course| timing.pace.longer(course));
        let shown = longer.map(|longer| (timing.worker, timing.hardware.gpu, longer));
        (timing.left(now_ms), shown)
    }

    fn forget(&mut self, epoch: Epoch) {
        if let Some(entry) = self.attempts.remove(&epoch) {
            self.of_jobs.remove(&(entry.job, epoch));
        }
        self.lines.forget(epoch);
    }
}

impl Timing {
    fn left(&self, now_ms: u64) -> Option<Quantiles> {
        self.pace.left(self.course.as_ref(), now_ms)
    }
}

fn heard(progress: &Progress) -> Heard {
    Heard {
        step: progress.step,
        steps: progress.steps_total,
        doing: match progress.phase {
            Phase::Starting | Phase::Caching | Phase::Loading => Doing::SettingUp,
            Phase::Training => Doing::Stepping,
            Phase::Validating => Doing::Validating,
            Phase::Saving => Doing::Saving,
            Phase::Complete => Doing::Done,
        },
    }
}

#[cfg(test)]
mod tests;
