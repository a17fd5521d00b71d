//! What attempts say about themselves while they run: in the leader's memory only, bounded, and gone with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use stepcast_records::{Hardware, Quantiles};
use stepcast_scheduler::course::{Course, Doing, Heard, Pace};
use stepcast_scheduler::drift::{AS_EXPECTED, Drifts};
use stepcast_scheduler::ids::{Epoch, JobId, WorkerId};

use crate::session::{Phase, Progress};

/// Lines kept of one attempt: what a person scrolls through.
pub const LOG_LINES: usize = 500;

/// Bytes of lines kept of one attempt.
const LOG_BYTES: usize = 64 << 10;

/// Bytes of one line; longer ones are cut.
const LINE_BYTES: usize = 4 << 10;

/// Attempts kept. More than run at once in any cluster this is for; beyond it the oldest is forgotten.
const ATTEMPTS: usize = 4096;

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
    attempts: Mutex<BTreeMap<Epoch, Entry>>,
    drifts: Mutex<Drifts>,
    /// The workers that take longer or less than others of their kind.
    slow: Mutex<Arc<BTreeMap<WorkerId, u32>>>,
}

#[derive(Debug)]
struct Entry {
    job: JobId,
    progress: Option<Progress>,
    /// The step that it goes on from, once its worker has said so.
    from: Option<u64>,
    timing: Option<Timing>,
    lines: VecDeque<String>,
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
        let attempts = self.attempts.lock();
        attempts
            .get(&epoch)
            .is_some_and(|entry| entry.timing.is_some())
    }

    /// Takes the step that an attempt goes on from, by its worker's word: it may be in the log later, or never.
    pub(crate) fn goes_on_from(&self, job: JobId, epoch: Epoch, step: u64) {
        self.with(job, epoch, |entry| entry.from = Some(step));
    }

    /// Takes what is known of an attempt. What an earlier one of its job has shown on the same hardware counts too.
    pub(crate) fn begin(&self, job: JobId, epoch: Epoch, begun: Begun) {
        let earlier = |entry: &Entry| {
            let timing = entry.timing.as_ref().filter(|_| entry.job == job)?;
            (timing.hardware == begun.hardware).then(|| timing.pace.clone())
        };
        let (said, earlier) = {
            let attempts = self.attempts.lock();
            let before = attempts.range(..epoch).rev();
            let said = attempts.get(&epoch).and_then(|entry| entry.from);
            (said, before.map(|(_, entry)| entry).find_map(earlier))
        };
        let mut pace = Pace::begun(begun.at_ms, said.unwrap_or(begun.step));
        if let Some(earlier) = earlier {
            pace = pace.after(&earlier);
        }
        self.with(job, epoch, |entry| {
            entry.timing = Some(Timing {
                worker: begun.worker,
                hardware: begun.hardware,
                course: begun.course,
                pace,
            });
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
        let mut shown = None;
        let left = self.with(job, epoch, |entry| {
            entry.progress = Some(progress);
            let timing = entry.timing.as_mut()?;
            timing.pace.hear(heard(&progress), now_ms);
            let longer = timing
                .course
                .as_ref()
                .and_then(|course| timing.pace.longer(course));
            shown = longer.map(|longer| (timing.worker, timing.hardware.gpu, longer));
            timing.left(now_ms)
        });
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
        let attempts = self.attempts.lock();
        // Who tries things on a copy of the state gives epochs of their own.
        let entry = attempts.get(&epoch).filter(|entry| entry.job == job)?;
        entry.timing.as_ref()?.left(now_ms)
    }

    /// Lines an attempt's trainer printed; gives back what is kept of them.
    pub(crate) fn lines(&self, job: JobId, epoch: Epoch, lines: Vec<String>) -> Vec<String> {
        let from = lines.len().saturating_sub(LOG_LINES);
        let kept: Vec<String> = lines.into_iter().skip(from).map(cut).collect();
        self.with(job, epoch, |entry| {
            entry.lines.extend(kept.iter().cloned());
            let mut bytes: usize = entry.lines.iter().map(String::len).sum();
            while entry.lines.len() > LOG_LINES || bytes > LOG_BYTES {
                bytes -= entry.lines.pop_front().map_or(bytes, |line| line.len());
            }
        });
        kept
    }

    /// What is known about an attempt.
    pub(crate) fn get(&self, epoch: Epoch, now_ms: u64) -> Option<Live> {
        let attempts = self.attempts.lock();
        let entry = attempts.get(&epoch)?;
        Some(Live {
            job: entry.job,
            progress: entry.progress,
            left: entry.timing.as_ref().and_then(|timing| timing.left(now_ms)),
            lines: entry.lines.clone(),
        })
    }

    /// Forgets all but the newest of the attempts that do not run any more.
    pub(crate) fn forget_ended(&self, runs: impl Fn(Epoch) -> bool) {
        let mut attempts = self.attempts.lock();
        let mut surplus = attempts
            .keys()
            .filter(|epoch| !runs(**epoch))
            .count()
            .saturating_sub(ENDED);
        attempts.retain(|epoch, _| {
            let goes = surplus > 0 && !runs(*epoch);
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// Forgets everything: another node leads.
    pub(crate) fn clear(&self) {
        self.attempts.lock().clear();
        *self.drifts.lock() = Drifts::default();
        *self.slow.lock() = Arc::default();
    }

    fn with<T>(&self, job: JobId, epoch: Epoch, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut attempts = self.attempts.lock();
        if attempts.len() >= ATTEMPTS && !attempts.contains_key(&epoch) {
            attempts.pop_first();
        }
        change(attempts.entry(epoch).or_insert_with(|| Entry {
            job,
            progress: None,
            from: None,
            timing: None,
            lines: VecDeque::new(),
        }))
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

fn cut(mut line: String) -> String {
    if line.len() > LINE_BYTES {
        line.truncate(line.floor_char_boundary(LINE_BYTES));
    }
    line
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_in_number_bytes_and_length() {
        let board = LiveBoard::default();
        board.lines(
            JobId(1),
            Epoch(1),
            (0..2000).map(|n| n.to_string()).collect(),
        );
        let lines = board.get(Epoch(1), 0).unwrap().lines;
        assert_eq!(
            (lines.len(), lines.back().unwrap().as_str()),
            (LOG_LINES, "1999")
        );
        let told = board.lines(JobId(1), Epoch(1), vec!["é".repeat(LINE_BYTES); 100]);
        assert_eq!(told[0].len(), LINE_BYTES);
        let bytes: usize = board
            .get(Epoch(1), 0)
            .unwrap()
            .lines
            .iter()
            .map(String::len)
            .sum();
        assert!(bytes <= LOG_BYTES);
    }

    fn training(step: u64) -> Progress {
        Progress {
            step,
            steps_total: 1_000,
            step_ms: None,
            phase: Phase::Training,
        }
    }

    #[test]
    fn an_attempt_that_goes_on_elsewhere_is_timed_by_its_own_steps_and_by_those_before() {
        let board = LiveBoard::default();
        let hardware: Hardware = "h100".parse().unwrap();
        let begun = |at_ms, step| Begun {
            worker: WorkerId(1),
            hardware,
            course: None,
            at_ms,
            step,
        };
        let (job, other) = (JobId(1), JobId(2));
        assert!(!board.is_timed(Epoch(1)));
        assert_eq!(
            board.progress(job, Epoch(1), training(1), 0),
            None,
            "nobody said when it began"
        );
        board.begin(job, Epoch(1), begun(0, 0));
        board.begin(other, Epoch(2), begun(0, 0));
        assert!(board.is_timed(Epoch(1)));
        let mut left = None;
        for step in 1..=101 {
            left = board.progress(job, Epoch(1), training(step), step * 500);
            board.progress(other, Epoch(2), training(step), step * 3_000);
        }
        assert_eq!(left.unwrap().p50, 899 * 500);
        assert_eq!(board.left(job, Epoch(1), 101 * 500), left);
        assert_eq!(board.left(other, Epoch(1), 101 * 500), None);
        assert_eq!(board.get(Epoch(1), 101 * 500).unwrap().left, left);
        board.begin(job, Epoch(7), begun(100_000, 100));
        let again = board.progress(job, Epoch(7), training(100), 160_000);
        assert_eq!(again.unwrap().p50, 900 * 500, "as the attempt before");
        let mut again = None;
        for step in 101..=200 {
            again = board.progress(
                job,
                Epoch(7),
                training(step),
                160_000 + (step - 100) * 1_000,
            );
        }
        let p50 = again.unwrap().p50;
        assert!((700_000..=800_000).contains(&p50), "slower here: {p50}");
    }

    /// What the state says may be older: the word of the attempt's worker is on its way into the log, or has no place there.
    #[test]
    fn what_is_left_goes_by_the_step_that_the_worker_has_said() {
        let begun = |step| Begun {
            worker: WorkerId(1),
            hardware: "h100".parse().unwrap(),
            course: Some(Course {
                step_ms: Some(Quantiles {
                    p10: 450,
                    p50: 500,
                    p90: 550,
                }),
                steps: 1_000,
                ..Course::default()
            }),
            at_ms: 0,
            step,
        };
        let loading = Progress {
            phase: Phase::Loading,
            ..training(0)
        };
        let left = |said: Option<u64>, step| {
            let board = LiveBoard::default();
            if let Some(said) = said {
                board.goes_on_from(JobId(1), Epoch(1), said);
                assert!(!board.is_timed(Epoch(1)));
            }
            board.begin(JobId(1), Epoch(1), begun(step));
            board
                .progress(JobId(1), Epoch(1), loading, 1_000)
                .unwrap()
                .p50
        };
        assert_eq!(left(Some(0), 120), left(None, 0));
        assert_eq!(left(None, 120) + 120 * 500, left(None, 0));
    }

    #[test]
    fn a_worker_whose_attempts_take_longer_than_those_of_others_is_told_as_slow() {
        let board = LiveBoard::default();
        let ms = Quantiles {
            p10: 450,
            p50: 500,
            p90: 550,
        };
        let course = Course {
            step_ms: Some(ms),
            steps: 1_000,
            ..Course::default()
        };
        let slow = WorkerId(3);
        for epoch in 1..=60 {
            let worker = WorkerId(epoch % 4);
            let begun = Begun {
                worker,
                hardware: "h100".parse().unwrap(),
                course: Some(course),
                at_ms: 0,
                step: 0,
            };
            board.begin(JobId(epoch), Epoch(epoch), begun);
            let step_ms = if worker == slow { 750 } else { 500 };
            for step in 1..=80 {
                board.progress(JobId(epoch), Epoch(epoch), training(step), step * step_ms);
            }
        }
        let drifting = board.drifting();
        assert!(drifting[&slow] > 1_150, "{drifting:?}");
        assert!(
            drifting
                .iter()
                .all(|(worker, drift)| *worker == slow || *drift < AS_EXPECTED)
        );
        board.clear();
        assert!(board.drifting().is_empty(), "another node leads");
    }

    #[test]
    fn attempts_are_bounded_and_the_oldest_goes_first() {
        let board = LiveBoard::default();
        for epoch in 0..=ATTEMPTS as u64 {
            board.lines(JobId(epoch), Epoch(epoch), vec!["line".to_owned()]);
        }
        assert!(board.get(Epoch(0), 0).is_none());
        assert!(board.get(Epoch(ATTEMPTS as u64), 0).is_some());
        board.forget_ended(|epoch| epoch == Epoch(9));
        assert_eq!(
            (board.get(Epoch(9), 0).is_some(), board.get(Epoch(10), 0)),
            (true, None)
        );
        assert_eq!(board.attempts.lock().len(), ENDED + 1);
        assert!(board.get(Epoch(ATTEMPTS as u64), 0).is_some());
    }
}
