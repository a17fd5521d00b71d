//! Reads on their way through Raft: one question for everybody who waits, asked again when it got lost; or none at all
//! where an entry goes the same way.

use std::collections::{BTreeMap, VecDeque};

use super::event::ReadWaiter;
use super::handle::Refused;
use super::log::Position;
use super::peer::{ELECTION_TICKS, Peer, ReadId};

/// A read that got no answer for this many ticks is asked for again: Raft drops such questions in silence.
const AGAIN_TICKS: u64 = 5;

/// Without a leader a read waits for this many ticks: an election takes one to two timeouts.
const PATIENCE_TICKS: u64 = 4 * ELECTION_TICKS as u64;

/// Questions under way at once. Each costs a round of heartbeats, so what comes in meanwhile shares the next one.
const ASKED: usize = 4;

/// All reads of this node that are not safe yet.
pub(super) struct Reads {
    /// Of the newest question.
    last: ReadId,
    /// Not asked for yet, with the tick at which each came.
    waiting: Vec<(u64, ReadWaiter)>,
    /// Asked for, at a tick.
    asked: BTreeMap<ReadId, (u64, Vec<(u64, ReadWaiter)>)>,
    /// Those that need no question.
    riding: VecDeque<Riding>,
}

/// Reads that an entry answers.
#[derive(Debug)]
struct Riding {
    with: Position,
    /// The tick at which it was appended.
    since: u64,
    waiters: Vec<(u64, ReadWaiter)>,
}

impl Reads {
    pub(super) fn new(node: u64, life: u64) -> Self {
        let last = ReadId {
            node,
            life,
            number: 0,
        };
        Self {
            last,
            waiting: Vec::new(),
            asked: BTreeMap::new(),
            riding: VecDeque::new(),
        }
    }

    pub(super) fn add(&mut self, waiter: ReadWaiter, now: u64) {
        self.waiting.push((now, waiter));
    }

    /// One question for all that wait, if it can be asked now.
    pub(super) fn ask(&mut self, peer: &mut Peer, now: u64) -> bool {
        if self.waiting.is_empty() || self.asked.len() >= ASKED {
            return false;
        }
        let read = ReadId {
            number: self.last.number + 1,
            ..self.last
        };
        let asked = peer.read(read);
        if asked {
            self.last = read;
            let waiters = std::mem::take(&mut self.waiting);
            self.asked.insert(read, (now, waiters));
        }
        asked
    }

    /// This entry was just appended by this leader. That a majority takes it in its term says what it would answer to a
    /// question: nobody else leads. So whoever waits now waits for that.
    pub(super) fn ride(&mut self, with: Position, now: u64) {
        if !self.waiting.is_empty() {
            let waiters = std::mem::take(&mut self.waiting);
            self.riding.push_back(Riding {
                with,
                since: now,
                waiters,
            });
        }
    }

    /// What was appended in this term is committed up to here: whose reads are safe, and once what is applied.
    pub(super) fn committed(&mut self, to: Position) -> Option<(u64, Vec<ReadWaiter>)> {
        let riding = self
            .riding
            .pop_front_if(|riding| riding.with.term == to.term && riding.with.index <= to.index)?;
        let waiters = riding.waiters.into_iter().map(|(_, waiter)| waiter);
        Some((riding.with.index, waiters.collect()))
    }

    /// The question is answered: who asked it.
    pub(super) fn answered(&mut self, read: ReadId) -> Option<Vec<ReadWaiter>> {
        let (_, waiters) = self.asked.remove(&read)?;
        Some(waiters.into_iter().map(|(_, waiter)| waiter).collect())
    }

    /// Another node leads, or none: whatever was asked is asked again.
    pub(super) fn leader_changed(&mut self) {
        for (_, waiters) in std::mem::take(&mut self.asked).into_values() {
            self.waiting.extend(waiters);
        }
        for riding in std::mem::take(&mut self.riding) {
            self.waiting.extend(riding.waiters);
        }
    }

    /// Reads whose question got lost, or whose entry takes long, wait to be asked for again; those nobody waits for any more
    /// are dropped, and those that no leader came for are refused.
    pub(super) fn tick(&mut self, leader: Option<u64>, now: u64) {
        while let Some(first) = self.asked.first_entry() {
            if now.saturating_sub(first.get().0) < AGAIN_TICKS {
                break;
            }
            self.waiting.extend(first.remove().1);
        }
        while let Some(riding) = self
            .riding
            .pop_front_if(|riding| now.saturating_sub(riding.since) >= AGAIN_TICKS)
        {
            self.waiting.extend(riding.waiters);
        }
        self.waiting.retain(|(_, waiter)| !waiter.gone());
        if leader.is_some() {
            return;
        }
        let tired = |(since, _): &mut (u64, ReadWaiter)| now - *since >= PATIENCE_TICKS;
        for (_, waiter) in self.waiting.extract_if(.., tired) {
            waiter.answer(Err(Refused::NotLeader { leader: None }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, term: u64) -> Position {
        Position { index, term }
    }

    /// Two reads that ride with an entry of term 3, and who asked for them.
    fn riding() -> (
        Reads,
        Vec<tokio::sync::oneshot::Receiver<Result<(), Refused>>>,
    ) {
        let mut reads = Reads::new(1, 1);
        let asked = (0..2).map(|now| {
            let (waiter, answer) = ReadWaiter::new();
            reads.add(waiter, now);
            answer
        });
        let asked = asked.collect();
        reads.ride(at(7, 3), 2);
        (reads, asked)
    }

    #[test]
    fn a_read_is_safe_once_the_entry_that_it_rides_with_is_committed() {
        let (mut reads, _asked) = riding();
        assert!(reads.committed(at(6, 3)).is_none());
        assert!(reads.committed(at(7, 4)).is_none(), "another term's entry");
        let (index, waiters) = reads.committed(at(8, 3)).expect("both are safe");
        assert_eq!((index, waiters.len()), (7, 2));
        assert!(reads.committed(at(9, 3)).is_none(), "they are told once");
    }

    #[test]
    fn what_rides_is_asked_for_when_another_leads_or_the_entry_takes_long() {
        let (mut reads, _asked) = riding();
        reads.leader_changed();
        assert!(reads.committed(at(7, 3)).is_none());
        assert_eq!(reads.waiting.len(), 2);
        let (mut reads, _asked) = riding();
        reads.tick(Some(1), 1 + AGAIN_TICKS);
        assert!(reads.waiting.is_empty());
        reads.tick(Some(1), 2 + AGAIN_TICKS);
        assert_eq!(reads.waiting.len(), 2);
    }
}
