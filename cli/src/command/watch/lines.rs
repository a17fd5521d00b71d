//! The lines of a trainer that were shown, so that a stream that was opened again shows none of them a second time.

use std::collections::VecDeque;

use stepcast_proto::v1::LogLines;

/// A server holds no more lines of an attempt than these, and a stream that is opened again begins with all of them.
const KEPT_MAX: usize = 500;

/// The last lines that were shown of one attempt.
#[derive(Debug, Default)]
pub(super) struct Lines {
    epoch: u64,
    last: VecDeque<String>,
    /// Whether what comes next is what the server still holds.
    reopened: bool,
}

impl Lines {
    /// The stream has begun anew.
    pub(super) fn reopened(&mut self) {
        self.reopened = true;
    }

    /// Something came that are no lines, so none are told again any more.
    pub(super) fn others(&mut self) {
        self.reopened = false;
    }

    /// Those of the lines that were not shown before, which are shown from now on.
    pub(super) fn take<'log>(&mut self, log: &'log LogLines) -> &'log [String] {
        if self.epoch != log.epoch {
            self.epoch = log.epoch;
            self.last.clear();
        }
        let again = std::mem::take(&mut self.reopened);
        let known = if again { self.known(&log.lines) } else { 0 };
        let new = &log.lines[known..];
        self.last.extend(new.iter().cloned());
        let extra = self.last.len().saturating_sub(KEPT_MAX);
        self.last.drain(..extra);
        new
    }

    /// How long the longest beginning of the lines is that is the end of what was shown.
    fn known(&self, lines: &[String]) -> usize {
        let longest = lines.len().min(self.last.len());
        let ends_so = |count: &usize| {
            self.last
                .iter()
                .rev()
                .take(*count)
                .rev()
                .eq(&lines[..*count])
        };
        (0..=longest).rev().find(ends_so).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(epoch: u64, numbers: std::ops::Range<usize>) -> LogLines {
        LogLines {
            epoch,
            lines: numbers.map(|number| format!("step {number}")).collect(),
        }
    }

    #[test]
    fn lines_that_a_new_stream_begins_with_are_new_once() {
        let mut lines = Lines::default();
        lines.reopened();
        assert_eq!(lines.take(&log(1, 0..4)).len(), 4);
        assert_eq!(lines.take(&log(1, 4..6)).len(), 2);
        lines.reopened();
        assert_eq!(lines.take(&log(1, 2..8)), ["step 6", "step 7"]);
        lines.reopened();
        assert!(lines.take(&log(1, 0..8)).is_empty());
        // A server that holds only what came since.
        lines.reopened();
        assert_eq!(lines.take(&log(1, 8..10)).len(), 2);
    }

    #[test]
    fn a_line_that_comes_twice_on_one_stream_is_shown_twice() {
        let mut lines = Lines::default();
        for _ in 0..2 {
            assert_eq!(lines.take(&log(1, 0..1)).len(), 1);
        }
        lines.reopened();
        lines.others();
        assert_eq!(lines.take(&log(1, 0..1)).len(), 1);
        lines.reopened();
        assert_eq!(lines.take(&log(2, 0..1)).len(), 1, "of another attempt");
    }

    #[test]
    fn so_many_are_kept_as_a_server_holds() {
        let mut lines = Lines::default();
        for start in 0..3 {
            lines.take(&log(1, start * 400..(start + 1) * 400));
        }
        assert_eq!(lines.last.len(), KEPT_MAX);
        lines.reopened();
        assert_eq!(lines.take(&log(1, 701..1_201)), ["step 1200"]);
    }
}
