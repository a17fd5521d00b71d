//! How much a planner finds out in one look: about lines that it has not seen, and about lines that it knows by forecasts
//! which are not the newest.
//!
//! Whoever looks holds the state meanwhile, and the log waits. What is not found out yet is left for the next look: a line
//! that was not seen has no turn, and the first of the queue are seen first; a line that is known by older forecasts has
//! its turn by those.

use stepcast_records::GpuModel;

use super::Scene;
use super::queue::{LineId, Queue};
use crate::placement::pool::Pool;
use crate::state::{Line, State};

/// Lines of waiting jobs whose forecasts are asked for in one look, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// Of those that were not seen yet.
    pub new: usize,
    /// Of those that were seen with other forecasts.
    pub again: usize,
}

/// For each line that may be asked about, so many that need not be are passed: that takes a moment too.
const PASSED: usize = 64;

impl Portion {
    /// Everything at once.
    pub const ALL: Self = Self {
        new: usize::MAX,
        again: usize::MAX,
    };

    /// What one look has time for: the forecasts of a line take from ten microseconds to a millisecond, and what comes
    /// into the queue is not to wait for what has been there for long.
    pub const OF_A_LOOK: Self = Self {
        new: 256,
        again: 64,
    };
}

/// How far lines have been looked through for older forecasts.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The newest forecasts.
    forecasts: Option<u64>,
    next: LineId,
    /// Lines that were passed since the forecasts have changed.
    passed: usize,
}

impl Round {
    /// Begins once more.
    pub(super) const fn restart(&mut self) {
        self.passed = 0;
    }
}

impl Queue {
    /// Finds out a portion of what is not known, or not by the newest forecasts.
    pub(super) fn find_out(&mut self, scene: Scene<'_>, pool: &Pool, models: &[GpuModel]) {
        self.due.go_on(scene.now_ms, &self.known);
        let mut new = 0;
        for _ in 0..scene.portion.new.saturating_mul(PASSED) {
            if new == scene.portion.new {
                break;
            }
            let Some((_, _, line)) = self.unseen.pop_first() else {
                break;
            };
            if self.is_new(scene.state, line) {
                self.insert(scene, pool, models, line);
                new += 1;
            }
        }
        if self.round.forecasts != scene.version {
            self.round.forecasts = scene.version;
            self.round.restart();
        }
        let mut again = 0;
        for _ in 0..scene.portion.again.saturating_mul(PASSED) {
            if again == scene.portion.again || self.round.passed >= self.known.len() {
                break;
            }
            let id = self.round.next;
            self.round.passed += 1;
            self.round.next = (id + 1) % self.known.len() as LineId;
            let known = self.known[id as usize].as_ref();
            if let Some(old) = known.filter(|known| known.forecasts != scene.version) {
                let line = old.line;
                self.remove(id);
                self.insert(scene, pool, models, line);
                again += 1;
            }
        }
    }

    /// The lines that a portion would ask about: those that were not seen, and those that are known by older forecasts.
    pub(super) fn next_lines(&self, state: &State, portion: Portion) -> Vec<Line> {
        let new = self.unseen.iter().map(|(_, _, line)| *line);
        let new = new.take(portion.new.saturating_mul(PASSED));
        let new = new.filter(|line| self.is_new(state, *line));
        let ahead = self.known.len() - self.round.passed.min(self.known.len());
        let ids = (0..ahead.min(portion.again.saturating_mul(PASSED)))
            .map(|step| (self.round.next as usize + step) % self.known.len());
        let known = ids.filter_map(|id| self.known[id].as_ref());
        let old = known.filter(|known| known.forecasts != self.round.forecasts);
        let old = old.take(portion.again).map(|known| known.line);
        new.take(portion.new).chain(old).collect()
    }

    /// Whether a line is still there and was not seen under another first job.
    fn is_new(&self, state: &State, line: Line) -> bool {
        !self.by_line.contains_key(&line) && state.line(line).is_some()
    }

    /// Whether there are lines that were not seen, or that may be known by older forecasts.
    pub(in crate::placement) fn is_behind(&self) -> bool {
        !self.unseen.is_empty() || self.round.passed < self.known.len()
    }
}
