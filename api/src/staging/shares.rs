//! How much of the staging area the files of one person's jobs take. It is counted in the memory of the leader, which takes
//! all submissions and deletes the files of jobs that are over: a new one begins anew, and knows nothing of those before.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stepcast_scheduler::ids::{StagingId, UserId};

use crate::submission::StagedFile;

/// Bytes of the files of one person's jobs that are not over: three hundred of the largest submissions, or ten kilobytes for
/// each of as many jobs as one person may have.
pub(super) const OF_ONE_BYTES: usize = 1 << 30;

/// What a submission takes on a disk beside what its files hold.
const BESIDE: usize = 256;

/// So long after it was counted a submission has come to something, or to nothing and its files are deleted: that of one
/// whose caller broke off is left to the sweep, which deletes what is an hour old, every few minutes.
const SETTLED: Duration = Duration::from_secs(3_900);

/// What is not needed any more and was deleted by somebody else is looked for this often, since all is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The shares of everybody.
pub(super) struct Shares {
    counted: Mutex<Counted>,
    of_one: usize,
    settled: Duration,
}

#[derive(Default)]
struct Counted {
    of: BTreeMap<StagingId, Share>,
    people: BTreeMap<UserId, Person>,
}

#[derive(Clone, Copy, Default)]
struct Person {
    bytes: usize,
    looked: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Share {
    whose: UserId,
    bytes: usize,
    since: Instant,
}

/// There is no room in somebody's share; what one person may have, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full(pub(super) usize);

impl Shares {
    /// Shares of so many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        Self {
            counted: Mutex::default(),
            of_one: bytes,
            settled: SETTLED,
        }
    }

    /// Counts these submissions, all of them or none, and gives back those that were not counted before.
    pub(super) fn take(
        &self,
        whose: UserId,
        asked: &[(StagingId, usize)],
        is_needed: &dyn Fn(&StagingId) -> bool,
    ) -> Result<Vec<StagingId>, Full> {
        let take = || self.counted.lock().take(whose, asked, self.of_one);
        if let Some(new) = take() {
            return Ok(new);
        }
        self.forget_unneeded(whose, is_needed);
        take().ok_or(Full(self.of_one))
    }

    /// The files of a submission are not there, or not any more.
    pub(super) fn give_back(&self, of: StagingId) {
        self.counted.lock().give_back(of);
    }

    /// Forgets what of somebody's was counted a while ago and is deleted by now, or will be by a sweep: by another leader, or as
    /// nothing has come of it.
    fn forget_unneeded(&self, whose: UserId, is_needed: &dyn Fn(&StagingId) -> bool) {
        let old: Vec<StagingId> = {
            let mut counted = self.counted.lock();
            let person = counted.people.entry(whose).or_default();
            if person.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
                return;
            }
            person.looked = Some(Instant::now());
            let theirs = counted.of.iter().filter(|(_, share)| share.whose == whose);
            let old = theirs.filter(|(_, share)| share.since.elapsed() >= self.settled);
            old.map(|(of, _)| *of).collect()
        };
        // The state is asked without the lock: whoever holds the state may wait for it.
        for of in old.into_iter().filter(|of| !is_needed(of)) {
            self.give_back(of);
        }
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let people = self.counted.lock().people.len();
        f.debug_tuple("Shares").field(&people).finish()
    }
}

impl Counted {
    fn take(
        &mut self,
        whose: UserId,
        asked: &[(StagingId, usize)],
        of_one: usize,
    ) -> Option<Vec<StagingId>> {
        let new = asked.iter().filter(|(of, _)| !self.of.contains_key(of));
        let new: Vec<(StagingId, usize)> = new.copied().collect();
        let more: usize = new.iter().map(|(_, bytes)| bytes).sum();
        let theirs = self.people.get(&whose).map_or(0, |person| person.bytes);
        if theirs + more > of_one {
            return None;
        }
        if more > 0 {
            self.people.entry(whose).or_default().bytes += more;
        }
        let since = Instant::now();
        for (of, bytes) in &new {
            let bytes = *bytes;
            let share = Share {
                whose,
                bytes,
                since,
            };
            self.of.insert(*of, share);
        }
        Some(new.into_iter().map(|(of, _)| of).collect())
    }

    fn give_back(&mut self, of: StagingId) {
        let Some(share) = self.of.remove(&of) else {
            return;
        };
        if let Some(person) = self.people.get_mut(&share.whose) {
            person.bytes -= share.bytes;
            if person.bytes == 0 {
                self.people.remove(&share.whose);
            }
        }
    }
}

/// What the files of a submission take.
pub(super) fn bytes(files: &[StagedFile]) -> usize {
    let each = files
        .iter()
        .map(|file| file.name.len() + file.content.len());
    each.sum::<usize>() + BESIDE
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: UserId = UserId(1);
    const BEN: UserId = UserId(2);

    fn place(n: u8) -> StagingId {
        StagingId([n; 16])
    }

    #[test]
    fn a_share_is_taken_as_a_whole_and_once_for_each_submission() {
        let shares = Shares::of(100);
        let take = |whose, asked: &[(StagingId, usize)]| shares.take(whose, asked, &|_| true);
        assert_eq!(take(ADA, &[(place(1), 60)]), Ok(vec![place(1)]));
        assert_eq!(take(ADA, &[(place(2), 20), (place(3), 21)]), Err(Full(100)));
        assert_eq!(take(BEN, &[(place(3), 100)]), Ok(vec![place(3)]));
        // The same again is there already.
        let more = take(ADA, &[(place(1), 60), (place(2), 40)]);
        assert_eq!(more, Ok(vec![place(2)]));
        shares.give_back(place(1));
        shares.give_back(place(1));
        assert_eq!(take(ADA, &[(place(4), 61)]), Err(Full(100)));
        assert_eq!(take(ADA, &[(place(4), 60)]), Ok(vec![place(4)]));
        for n in [2, 3, 4] {
            shares.give_back(place(n));
        }
        assert!(shares.counted.lock().people.is_empty());
    }

    #[test]
    fn what_is_left_to_the_sweep_counts_until_it_is_deleted() {
        let config = stepcast_cluster::Config::new("data");
        assert!(SETTLED > config.staging_grace + 2 * config.sweep_every);
    }

    #[test]
    fn what_another_leader_has_deleted_is_forgotten_once_there_is_no_room() {
        let shares = Shares {
            settled: Duration::ZERO,
            ..Shares::of(100)
        };
        let take = |n, bytes| shares.take(ADA, &[(place(n), bytes)], &|of| *of == place(1));
        assert!(take(1, 50).is_ok() && take(2, 50).is_ok());
        assert_eq!(take(3, 50), Ok(vec![place(3)]), "the second is gone");
        assert_eq!(take(4, 1), Err(Full(100)), "all is looked at now and then");
        let young = Shares::of(100);
        assert!(young.take(ADA, &[(place(1), 100)], &|_| false).is_ok());
        let more = young.take(ADA, &[(place(2), 1)], &|_| false);
        assert_eq!(more, Err(Full(100)), "it may be on its way");
    }
}
