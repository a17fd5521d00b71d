//! When each lease ends: only in the leader's memory, by its monotonic clock. Pure; the duty around it asks and proposes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stepcast_scheduler::ids::{Epoch, JobId, WorkerId};

/// A new leader waits this much longer than one term. The leader before it renews only what is confirmed to have been asked
/// while it led, so this covers no more than an order that was long on its way, and clocks that do not run alike.
const HANDOVER: Duration = Duration::from_secs(4);

/// An expiry whose proposal got lost is proposed again after this long.
const PROPOSE_AGAIN: Duration = Duration::from_secs(5);

/// One live attempt, or a part of a gang, as the state has it: each part has a lease of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    /// The attempt's fencing token.
    pub(crate) epoch: Epoch,
    /// Its job.
    pub(crate) job: JobId,
    /// Who runs it.
    pub(crate) worker: WorkerId,
    /// The rank of the part, if it is one of several.
    pub(crate) rank: Option<u8>,
}

impl Held {
    /// Whether it speaks for the attempt: of a gang only the first part writes checkpoints and tells how far it is.
    pub(crate) fn is_first(self) -> bool {
        self.rank.unwrap_or(0) == 0
    }
}

/// The leader's table of leases.
#[derive(Debug)]
pub(crate) struct Leases {
    term: Duration,
    table: BTreeMap<(Epoch, WorkerId), Lease>,
    /// When each worker with leases asked last to keep any.
    heard: BTreeMap<WorkerId, Duration>,
}

#[derive(Debug)]
struct Lease {
    held: Held,
    ends: Duration,
    /// When its expiry was last proposed. From then on it is not renewed: the entry may be in the log already.
    expiry_proposed: Option<Duration>,
}

impl Leases {
    /// The table of a node that leads from `now` on, when these attempts are live: another leader may have renewed them.
    pub(crate) fn new(term: Duration, live: &[Held], now: Duration) -> Self {
        let mut leases = Self {
            term,
            table: BTreeMap::new(),
            heard: BTreeMap::new(),
        };
        leases.grant_for(live, now + term + HANDOVER);
        leases
    }

    /// Brings the table in line with the live attempts: those it does not know get one full term, those that are over
    /// are forgotten.
    pub(crate) fn align(&mut self, live: &[Held], now: Duration) {
        let known: BTreeSet<_> = live.iter().map(|held| (held.epoch, held.worker)).collect();
        self.table.retain(|key, _| known.contains(key));
        let holders: BTreeSet<WorkerId> = live.iter().map(|held| held.worker).collect();
        self.heard.retain(|worker, _| holders.contains(worker));
        self.grant(live, now);
    }

    /// Gives those of the live attempts that it does not know one full term.
    pub(crate) fn grant(&mut self, live: &[Held], now: Duration) {
        self.grant_for(live, now + self.term);
    }

    fn grant_for(&mut self, live: &[Held], ends: Duration) {
        for held in live {
            let key = (held.epoch, held.worker);
            self.table.entry(key).or_insert(Lease {
                held: *held,
                ends,
                expiry_proposed: None,
            });
        }
    }

    /// The lease of an attempt, or of its part, that a worker holds.
    pub(crate) fn held(&self, epoch: Epoch, worker: WorkerId) -> Option<Held> {
        self.table.get(&(epoch, worker)).map(|lease| lease.held)
    }

    /// Whether anybody holds a lease of an attempt.
    pub(crate) fn is_held(&self, epoch: Epoch) -> bool {
        let all = (epoch, WorkerId(0))..=(epoch, WorkerId(u64::MAX));
        self.table.range(all).next().is_some()
    }

    /// A worker asks to keep its leases. Gives back those epochs that the state still has (`live`) and the table renews;
    /// the others it has lost.
    pub(crate) fn renew(
        &mut self,
        worker: WorkerId,
        epochs: &[Epoch],
        live: &[Held],
        now: Duration,
    ) -> Vec<Epoch> {
        self.heard.insert(worker, now);
        let mut renewed = Vec::with_capacity(live.len());
        for epoch in epochs
            .iter()
            .filter(|epoch| live.iter().any(|held| held.epoch == **epoch))
        {
            let Some(lease) = self.table.get_mut(&(*epoch, worker)) else {
                continue;
            };
            if lease.expiry_proposed.is_none() && lease.ends > now {
                lease.ends = lease.ends.max(now + self.term);
                renewed.push(*epoch);
            }
        }
        renewed
    }

    /// Leases that have ended and whose expiry is to be proposed now.
    pub(crate) fn expired(&mut self, now: Duration) -> Vec<Held> {
        let mut expired = Vec::new();
        for lease in self.table.values_mut() {
            let due = lease
                .expiry_proposed
                .is_none_or(|at| now >= at + PROPOSE_AGAIN);
            if lease.ends <= now && due {
                lease.expiry_proposed = Some(now);
                expired.push(lease.held);
            }
        }
        expired
    }

    /// The holders of these leases that have not been heard of for a whole term: what they held must not be given to them
    /// again. One that renews others has let a lease go by itself.
    pub(crate) fn silent(&self, expired: &[Held], now: Duration) -> BTreeSet<WorkerId> {
        let silent = |worker: &WorkerId| {
            let heard = self.heard.get(worker);
            heard.is_none_or(|at| now >= *at + self.term)
        };
        let holders = expired.iter().map(|held| held.worker);
        holders.filter(silent).collect()
    }

    /// When the next lease will be to be ended.
    pub(crate) fn next_end(&self) -> Option<Duration> {
        let due = |lease: &Lease| match lease.expiry_proposed {
            Some(at) => at + PROPOSE_AGAIN,
            None => lease.ends,
        };
        self.table.values().map(due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_secs(30);

    fn held(epoch: u64, worker: u64) -> Held {
        Held {
            epoch: Epoch(epoch),
            job: JobId(epoch + 100),
            worker: WorkerId(worker),
            rank: None,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_unrenewed_lease_expires_after_its_term_and_a_renewed_one_does_not() {
        let mut leases = Leases::new(TERM, &[], at(0));
        leases.align(&[held(1, 7), held(2, 7)], at(10));
        assert_eq!(
            leases.renew(WorkerId(7), &[Epoch(1)], &[held(1, 7)], at(30)),
            [Epoch(1)]
        );
        assert_eq!(leases.expired(at(39)), []);
        assert_eq!(leases.expired(at(40)), [held(2, 7)]);
        assert_eq!(
            leases.expired(at(59)),
            [held(2, 7)],
            "proposed again while it is live"
        );
        assert_eq!(leases.expired(at(60)), [held(1, 7)]);
    }

    #[test]
    fn a_new_leader_gives_what_it_finds_a_full_term_and_the_handover() {
        let mut leases = Leases::new(TERM, &[held(1, 7)], at(100));
        assert_eq!(leases.expired(at(133)), []);
        assert_eq!(leases.expired(at(134)), [held(1, 7)]);
    }

    #[test]
    fn a_lease_is_renewed_only_for_its_worker_and_only_before_its_end() {
        let mut leases = Leases::new(TERM, &[], at(0));
        let live = [held(1, 7), held(2, 8)];
        leases.align(&live, at(1));
        assert_eq!(
            leases.renew(WorkerId(7), &[Epoch(1), Epoch(2), Epoch(3)], &live, at(2)),
            [Epoch(1)]
        );
        assert_eq!(
            leases.renew(WorkerId(8), &[Epoch(2)], &live[..1], at(3)),
            [],
            "the state has ended it"
        );
        assert_eq!(leases.expired(at(40)).len(), 2);
        assert_eq!(leases.renew(WorkerId(8), &[Epoch(2)], &live, at(40)), []);
    }

    #[test]
    fn a_holder_is_silent_if_it_has_renewed_nothing_for_a_term() {
        let both = [held(1, 7), held(2, 7)];
        let mut leases = Leases::new(TERM, &[], at(0));
        leases.align(&both, at(10));
        assert_eq!(leases.next_end(), Some(at(40)));
        // It has let go of the first, or has never had it.
        leases.renew(WorkerId(7), &[Epoch(2)], &both, at(30));
        assert_eq!(leases.next_end(), Some(at(40)));
        let expired = leases.expired(at(40));
        assert_eq!(expired.len(), 1);
        assert_eq!(leases.silent(&expired, at(40)), BTreeSet::new());
        assert_eq!(leases.next_end(), Some(at(45)), "it is proposed again");
        leases.align(&both[1..], at(41));
        assert_eq!(leases.next_end(), Some(at(60)));
        let expired = leases.expired(at(60));
        assert_eq!(leases.silent(&expired, at(60)), [WorkerId(7)].into());
    }

    #[test]
    fn an_attempt_that_is_over_is_forgotten() {
        let mut leases = Leases::new(TERM, &[], at(0));
        leases.align(&[held(1, 7)], at(1));
        leases.align(&[], at(2));
        assert_eq!(leases.held(Epoch(1), WorkerId(7)), None);
        assert_eq!(leases.expired(at(99)), []);
    }

    #[test]
    fn each_part_of_a_gang_is_renewed_by_its_own_worker() {
        let part = |worker, rank| Held {
            rank: Some(rank),
            ..held(1, worker)
        };
        let both = [part(7, 0), part(8, 1)];
        let mut leases = Leases::new(TERM, &[], at(0));
        leases.align(&both, at(0));
        assert_eq!(
            leases.renew(WorkerId(7), &[Epoch(1)], &both[..1], at(20)),
            [Epoch(1)]
        );
        assert_eq!(leases.expired(at(30)), [both[1]]);
        assert_eq!(leases.silent(&both[1..], at(30)), [WorkerId(8)].into());
        leases.align(&both[..1], at(31));
        assert!(leases.is_held(Epoch(1)) && leases.held(Epoch(1), WorkerId(8)).is_none());
        assert_eq!(leases.expired(at(50)), [both[0]]);
    }
}
