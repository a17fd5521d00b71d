//! How many contributions a worker may hand over: one for each attempt that it was given. Else one worker's token would be
//! enough to write into the records of all whatever it likes.
//!
//! Held in memory alone, as a number: which samples are of which attempt nobody can tell, and an id is forgotten as soon as
//! what has it is stored.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use stepcast_scheduler::ids::{Epoch, TokenHash};

/// What a worker has to begin with: its attempts may have been of another leader, and a contribution may come twice.
const TO_BEGIN_WITH: u32 = 16;

/// A worker that has used its own up may hand over one more each time that this has passed, so that what waits on its disk
/// gets away in the end.
const ONE_MORE_EVERY: Duration = Duration::from_secs(60 * 60);

/// Contributions that a worker has not used, at most.
const UNUSED_MAX: u32 = 512;

/// Contributions of a worker that were paid for and not stored, at most: a worker tries some more of those that wait when some
/// are refused, and what is forgotten is paid for once more.
const UNSURE_MAX: usize = 256;

/// Attempts of a worker that are remembered, so that none counts twice: twice as many as it may run at once.
const ATTEMPTS_MAX: usize = 512;

/// Workers that are remembered. With more of them all begin anew.
const WORKERS_MAX: usize = 16_384;

/// What each worker may still hand over.
#[derive(Debug, Default)]
pub(crate) struct Credits(Mutex<HashMap<TokenHash, Credit>>);

#[derive(Debug)]
struct Credit {
    given: BTreeSet<Epoch>,
    /// Attempts up to this one have been counted, if they are not remembered any more.
    counted: Epoch,
    left: u32,
    /// What was paid for and is not known to be stored, the latest last: who tries it again does not pay twice.
    unsure: VecDeque<[u8; 16]>,
    /// When the last one was added because time has passed.
    added: Instant,
}

impl Credits {
    /// The worker holds these attempts: each allows one contribution, however often it is told.
    pub(crate) fn given(
        &self,
        worker: TokenHash,
        attempts: impl IntoIterator<Item = Epoch>,
        now: Instant,
    ) {
        self.with(worker, now, |credit| {
            for epoch in attempts {
                if epoch > credit.counted && credit.given.insert(epoch) {
                    credit.left = (credit.left + 1).min(UNUSED_MAX);
                }
            }
            while credit.given.len() > ATTEMPTS_MAX {
                // Epochs grow: the least is the one that began first.
                credit.counted = credit.given.pop_first().unwrap_or(credit.counted);
            }
        });
    }

    /// Takes one contribution off, or says when the next one may come. Those that were tried last cost nothing again
    /// until they are [`Self::stored`]: a store that does not answer uses nothing up.
    pub(crate) fn take(
        &self,
        worker: TokenHash,
        contribution: [u8; 16],
        now: Instant,
    ) -> Result<(), Duration> {
        self.with(worker, now, |credit| {
            if credit.unsure.contains(&contribution) {
                return Ok(());
            }
            let Some(left) = credit.left.checked_sub(1) else {
                return Err(ONE_MORE_EVERY.saturating_sub(now.duration_since(credit.added)));
            };
            credit.left = left;
            if credit.unsure.len() == UNSURE_MAX {
                credit.unsure.pop_front();
            }
            credit.unsure.push_back(contribution);
            Ok(())
        })
    }

    /// This one, which was tried, is stored.
    pub(crate) fn stored(&self, worker: TokenHash, contribution: [u8; 16], now: Instant) {
        self.with(worker, now, |credit| {
            credit.unsure.retain(|unsure| *unsure != contribution);
        });
    }

    fn with<T>(&self, worker: TokenHash, now: Instant, work: impl FnOnce(&mut Credit) -> T) -> T {
        // A credit is whole after any panic: no step in here leaves one half changed.
        let mut credits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if credits.len() >= WORKERS_MAX && !credits.contains_key(&worker) {
            credits.clear();
        }
        let credit = credits.entry(worker).or_insert_with(|| Credit {
            given: BTreeSet::new(),
            counted: Epoch(0),
            left: TO_BEGIN_WITH,
            unsure: VecDeque::new(),
            added: now,
        });
        let hours = now.duration_since(credit.added).as_secs() / ONE_MORE_EVERY.as_secs();
        let hours = u32::try_from(hours).unwrap_or(u32::MAX);
        if hours > 0 {
            credit.added += ONE_MORE_EVERY * hours;
            // What comes with time alone is never more than there is to begin with.
            if credit.left < TO_BEGIN_WITH {
                credit.left = credit.left.saturating_add(hours).min(TO_BEGIN_WITH);
            }
        }
        work(credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: TokenHash = TokenHash([1; 32]);
    const HONEST: TokenHash = TokenHash([2; 32]);

    /// How many are taken one after the other.
    fn taken(credits: &Credits, worker: TokenHash, now: Instant) -> usize {
        let ids = (0..10_000u128).map(u128::to_le_bytes);
        ids.take_while(|id| {
            let taken = credits.take(worker, *id, now).is_ok();
            credits.stored(worker, *id, now);
            taken
        })
        .count()
    }

    #[test]
    fn a_worker_hands_over_as_many_as_it_was_given_attempts_and_some() {
        let (credits, now) = (Credits::default(), Instant::now());
        assert_eq!(taken(&credits, EVIL, now), TO_BEGIN_WITH as usize);
        // An attempt that is asked for again and again is one.
        for _ in 0..100 {
            credits.given(EVIL, [Epoch(7), Epoch(9)], now);
        }
        assert_eq!(taken(&credits, EVIL, now), 2);
        assert_eq!(credits.take(EVIL, [1; 16], now), Err(ONE_MORE_EVERY));
        // Nobody else has less for it.
        credits.given(HONEST, (1..41).map(Epoch), now);
        assert_eq!(taken(&credits, HONEST, now), 40 + TO_BEGIN_WITH as usize);
    }

    #[test]
    fn what_waits_gets_away_in_the_end_and_nothing_is_saved_up_without_bound() {
        let (credits, start) = (Credits::default(), Instant::now());
        taken(&credits, EVIL, start);
        let soon = start + ONE_MORE_EVERY / 4;
        assert_eq!(
            credits.take(EVIL, [1; 16], soon),
            Err(ONE_MORE_EVERY / 4 * 3)
        );
        assert_eq!(taken(&credits, EVIL, start + ONE_MORE_EVERY), 1);
        assert_eq!(taken(&credits, EVIL, start + ONE_MORE_EVERY * 3), 2);
        let late = start + ONE_MORE_EVERY * 1_000;
        assert_eq!(taken(&credits, EVIL, late), TO_BEGIN_WITH as usize);
        credits.given(EVIL, (1..100_000).map(Epoch), late);
        assert_eq!(taken(&credits, EVIL, late), UNUSED_MAX as usize);
        // One that still runs and is remembered no more was counted.
        credits.given(EVIL, [Epoch(1)], late);
        assert_eq!(taken(&credits, EVIL, late), 0);
    }

    #[test]
    fn what_is_tried_again_since_nobody_has_said_that_it_is_stored_costs_nothing_more() {
        let (credits, now) = (Credits::default(), Instant::now());
        for number in 0..100 {
            let id = [1 + number % 3; 16];
            assert_eq!(credits.take(HONEST, id, now), Ok(()));
        }
        credits.stored(HONEST, [3; 16], now);
        assert_eq!(credits.take(HONEST, [2; 16], now), Ok(()));
        // Three have cost something.
        assert_eq!(taken(&credits, HONEST, now), TO_BEGIN_WITH as usize - 3);
        credits.given(HONEST, (1..1_000).map(Epoch), now);
        for number in 0..UNUSED_MAX as u128 {
            assert_eq!(credits.take(HONEST, number.to_be_bytes(), now), Ok(()));
        }
        let held = credits.0.lock().expect("whole")[&HONEST].unsure.len();
        assert_eq!(held, UNSURE_MAX);
    }

    #[test]
    fn no_more_workers_are_remembered_than_there_is_room_for() {
        let (credits, now) = (Credits::default(), Instant::now());
        for worker in 0..2 * WORKERS_MAX as u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&worker.to_le_bytes());
            credits.given(TokenHash(hash), [Epoch(1)], now);
        }
        assert!(credits.0.lock().expect("whole").len() <= WORKERS_MAX);
    }
}
