//! What attempts say about themselves while they run: in the leader's memory only, bounded, and gone with it.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use stepcast_scheduler::ids::{Epoch, JobId};

use crate::session::Progress;

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
    /// The newest lines its trainer printed, oldest first.
    pub lines: VecDeque<String>,
}

/// All attempts that have said something.
#[derive(Debug, Default)]
pub(crate) struct LiveBoard {
    attempts: Mutex<BTreeMap<Epoch, Live>>,
}

impl LiveBoard {
    /// How far an attempt is.
    pub(crate) fn progress(&self, job: JobId, epoch: Epoch, progress: Progress) {
        self.with(job, epoch, |live| live.progress = Some(progress));
    }

    /// Lines an attempt's trainer printed; gives back what is kept of them.
    pub(crate) fn lines(&self, job: JobId, epoch: Epoch, lines: Vec<String>) -> Vec<String> {
        let from = lines.len().saturating_sub(LOG_LINES);
        let kept: Vec<String> = lines.into_iter().skip(from).map(cut).collect();
        self.with(job, epoch, |live| {
            live.lines.extend(kept.iter().cloned());
            let mut bytes: usize = live.lines.iter().map(String::len).sum();
            while live.lines.len() > LOG_LINES || bytes > LOG_BYTES {
                bytes -= live.lines.pop_front().map_or(bytes, |line| line.len());
            }
        });
        kept
    }

    /// What is known about an attempt.
    pub(crate) fn get(&self, epoch: Epoch) -> Option<Live> {
        self.attempts.lock().get(&epoch).cloned()
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
    }

    fn with(&self, job: JobId, epoch: Epoch, change: impl FnOnce(&mut Live)) {
        let mut attempts = self.attempts.lock();
        if attempts.len() >= ATTEMPTS && !attempts.contains_key(&epoch) {
            attempts.pop_first();
        }
        change(attempts.entry(epoch).or_insert_with(|| Live {
            job,
            progress: None,
            lines: VecDeque::new(),
        }));
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
        let lines = board.get(Epoch(1)).unwrap().lines;
        assert_eq!(
            (lines.len(), lines.back().unwrap().as_str()),
            (LOG_LINES, "1999")
        );
        let told = board.lines(JobId(1), Epoch(1), vec!["é".repeat(LINE_BYTES); 100]);
        assert_eq!(told[0].len(), LINE_BYTES);
        let bytes: usize = board
            .get(Epoch(1))
            .unwrap()
            .lines
            .iter()
            .map(String::len)
            .sum();
        assert!(bytes <= LOG_BYTES);
    }

    #[test]
    fn attempts_are_bounded_and_the_oldest_goes_first() {
        let board = LiveBoard::default();
        for epoch in 0..=ATTEMPTS as u64 {
            board.lines(JobId(epoch), Epoch(epoch), vec!["line".to_owned()]);
        }
        assert!(board.get(Epoch(0)).is_none());
        assert!(board.get(Epoch(ATTEMPTS as u64)).is_some());
        board.forget_ended(|epoch| epoch == Epoch(9));
        assert_eq!(
            (board.get(Epoch(9)).is_some(), board.get(Epoch(10))),
            (true, None)
        );
        assert_eq!(board.attempts.lock().len(), ENDED + 1);
        assert!(board.get(Epoch(ATTEMPTS as u64)).is_some());
    }
}
