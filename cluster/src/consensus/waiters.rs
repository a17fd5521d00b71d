//! Who waits for which entry: answers are matched by index and term, never by order alone.

use std::collections::VecDeque;

use super::log::Position;

/// Waiters in the order of their entries' indices.
#[derive(Debug)]
pub(super) struct Waiters<W> {
    waiting: VecDeque<(Position, W)>,
}

/// What became of the entries up to one that was applied.
#[derive(Debug)]
pub(super) struct Matched<W> {
    /// The one who waits for exactly this entry.
    pub(super) mine: Option<W>,
    /// Those whose entries were replaced by others: their outcome is not known here.
    pub(super) lost: Vec<W>,
}

impl<W> Waiters<W> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }

    /// These wait for `first` and the entries after it, all of the same term. Gives back those whose place in the log
    /// this takes.
    pub(super) fn appended(&mut self, first: Position, waiters: Vec<W>) -> Vec<W> {
        let mut lost = Vec::new();
        while self
            .waiting
            .back()
            .is_some_and(|(at, _)| at.index >= first.index)
        {
            lost.extend(self.waiting.pop_back().map(|(_, waiter)| waiter));
        }
        let positions = (first.index..).map(|index| Position {
            index,
            term: first.term,
        });
        self.waiting.extend(positions.zip(waiters));
        lost
    }

    /// This entry has been applied.
    pub(super) fn applied(&mut self, entry: Position) -> Matched<W> {
        let mut matched = Matched {
            mine: None,
            lost: Vec::new(),
        };
        while self
            .waiting
            .front()
            .is_some_and(|(at, _)| at.index <= entry.index)
        {
            if let Some((at, waiter)) = self.waiting.pop_front() {
                if at == entry {
                    matched.mine = Some(waiter);
                } else {
                    matched.lost.push(waiter);
                }
            }
        }
        matched
    }

    /// Everybody, as this node no longer leads.
    pub(super) fn take_all(&mut self) -> Vec<W> {
        self.waiting.drain(..).map(|(_, waiter)| waiter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, term: u64) -> Position {
        Position { index, term }
    }

    #[test]
    fn only_the_same_index_and_term_is_an_answer() {
        let mut waiters = Waiters::new();
        assert!(waiters.appended(at(5, 2), vec!["five", "six"]).is_empty());
        assert_eq!(waiters.applied(at(4, 2)).mine, None);
        assert_eq!(waiters.applied(at(5, 2)).mine, Some("five"));
        let replaced = waiters.applied(at(6, 3));
        assert_eq!((replaced.mine, replaced.lost), (None, vec!["six"]));
    }

    #[test]
    fn a_replaced_tail_is_lost() {
        let mut waiters = Waiters::new();
        waiters.appended(at(5, 2), vec!["old five", "old six"]);
        assert_eq!(waiters.appended(at(6, 4), vec!["new six"]), ["old six"]);
        assert_eq!(waiters.applied(at(6, 4)).lost, ["old five"]);
        assert!(waiters.take_all().is_empty());
    }
}
