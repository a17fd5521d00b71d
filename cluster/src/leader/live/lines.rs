//! The newest lines that trainers have printed: bounded of each attempt, and in bytes of all of them together.

use std::collections::{BTreeMap, VecDeque};

use stepcast_scheduler::ids::Epoch;

/// Lines kept of one attempt: what a person scrolls through.
pub const LOG_LINES: usize = 500;

/// Bytes of lines kept of one attempt.
const LOG_BYTES: usize = 64 << 10;

/// Bytes of one line; longer ones are cut.
const LINE_BYTES: usize = 4 << 10;

/// Bytes of all lines, with what it takes to keep each: those of 4,096 attempts that print as much as they may, and of every
/// attempt of the largest fleet some lines. Beyond it the attempt goes without lines whose newest ones are the oldest.
const ALL_BYTES: usize = 256 << 20;

/// What it takes to keep a line beside its bytes.
const LINE_COST: usize = size_of::<String>();

/// The lines of all attempts.
#[derive(Debug, Default)]
pub(super) struct Lines {
    of: BTreeMap<Epoch, Printed>,
    /// The attempts in the order in which they printed last.
    order: BTreeMap<u64, Epoch>,
    last: u64,
    bytes: usize,
}

/// The lines of one attempt, oldest first.
#[derive(Debug, Default)]
struct Printed {
    lines: VecDeque<String>,
    bytes: usize,
    /// Its place in the order.
    at: u64,
}

impl Lines {
    /// Takes lines of an attempt; gives back what is kept of them.
    pub(super) fn add(&mut self, epoch: Epoch, lines: Vec<String>) -> Vec<String> {
        let from = lines.len().saturating_sub(LOG_LINES);
        let kept: Vec<String> = lines.into_iter().skip(from).map(cut).collect();
        let mut printed = self.take(epoch).unwrap_or_default();
        printed.add(&kept);
        self.last += 1;
        printed.at = self.last;
        self.bytes += printed.room();
        self.order.insert(printed.at, epoch);
        self.of.insert(epoch, printed);
        while self.bytes > ALL_BYTES
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            self.take(*oldest);
        }
        kept
    }

    /// The lines of an attempt that are kept.
    pub(super) fn of(&self, epoch: Epoch) -> VecDeque<String> {
        let printed = self.of.get(&epoch);
        printed.map_or_else(VecDeque::new, |printed| printed.lines.clone())
    }

    /// Forgets those of an attempt.
    pub(super) fn forget(&mut self, epoch: Epoch) {
        self.take(epoch);
    }

    /// Attempts of which there are any.
    #[cfg(test)]
    pub(super) fn attempts(&self) -> usize {
        assert_eq!(self.of.len(), self.order.len());
        self.of.len()
    }

    fn take(&mut self, epoch: Epoch) -> Option<Printed> {
        let printed = self.of.remove(&epoch)?;
        self.order.remove(&printed.at);
        self.bytes -= printed.room();
        Some(printed)
    }
}

impl Printed {
    fn add(&mut self, lines: &[String]) {
        self.lines.extend(lines.iter().cloned());
        self.bytes += lines.iter().map(String::len).sum::<usize>();
        while self.lines.len() > LOG_LINES || self.bytes > LOG_BYTES {
            let gone = self.lines.pop_front();
            self.bytes -= gone.map_or(self.bytes, |line| line.len());
        }
    }

    fn room(&self) -> usize {
        self.bytes + self.lines.len() * LINE_COST
    }
}

fn cut(mut line: String) -> String {
    if line.len() > LINE_BYTES {
        line.truncate(line.floor_char_boundary(LINE_BYTES));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_in_number_bytes_and_length() {
        let mut all = Lines::default();
        let many = (0..2000).map(|n| n.to_string()).collect();
        assert_eq!(all.add(Epoch(1), many).len(), LOG_LINES);
        let lines = all.of(Epoch(1));
        assert_eq!(lines.len(), LOG_LINES);
        assert_eq!(lines.back().map(String::as_str), Some("1999"));
        let told = all.add(Epoch(1), vec!["é".repeat(LINE_BYTES); 100]);
        assert_eq!(told[0].len(), LINE_BYTES);
        let bytes: usize = all.of(Epoch(1)).iter().map(String::len).sum();
        assert!(bytes <= LOG_BYTES);
        all.forget(Epoch(1));
        assert_eq!((all.attempts(), all.bytes), (0, 0));
    }

    #[test]
    fn where_all_are_too_many_who_has_printed_nothing_for_longest_goes_without() {
        let mut all = Lines::default();
        let much = vec!["a".repeat(LINE_BYTES); LOG_BYTES / LINE_BYTES];
        all.add(Epoch(0), much.clone());
        all.add(Epoch(1), much.clone());
        let mut next = 2;
        while all.attempts() == next {
            // One that goes on printing is not among the oldest, however old itself.
            all.add(Epoch(0), vec!["b".to_owned()]);
            all.add(Epoch(next as u64), much.clone());
            next += 1;
        }
        assert!(next > 4_000, "{next}");
        assert!(all.of(Epoch(1)).is_empty() && !all.of(Epoch(2)).is_empty());
        assert_eq!(all.of(Epoch(0)).back().map(String::as_str), Some("b"));
        assert!(all.bytes <= ALL_BYTES);
    }
}
