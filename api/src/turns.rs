//! Turns at what keeps a processor or much memory for long: few at once, one of each person, and nobody waits for ever.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use stepcast_scheduler::ids::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::{limits, status};

/// Turns of one person at once: fewer than there are, so that there is one for others.
const OF_ONE: usize = 1;

/// How many turns there are, and what who gets none is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Turns at once.
    pub(crate) at_once: usize,
    /// How long one waits for a turn.
    pub(crate) within: Duration,
    /// What keeps who has waited so long for others.
    pub(crate) others: &'static str,
    /// What keeps who has waited so long for themselves.
    pub(crate) own: &'static str,
}

/// Turns at one thing. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    bounds: Bounds,
    room: Arc<Semaphore>,
    /// The turn of each person.
    own: Arc<Mutex<HashMap<UserId, Weak<Semaphore>>>>,
}

/// A turn, as long as this lives.
#[derive(Debug)]
pub(crate) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _room: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new(bounds: Bounds) -> Self {
        debug_assert!(OF_ONE < bounds.at_once, "there is none for others");
        Self {
            bounds,
            room: Arc::new(Semaphore::new(bounds.at_once)),
            own: Arc::default(),
        }
    }

    /// A turn of somebody, if there is one now. Who has no account waits for nobody of their own.
    pub(crate) fn enter_now(&self, who: Option<UserId>) -> Option<Turn> {
        let own = self.own(who).map(Semaphore::try_acquire_owned);
        Some(Turn {
            _own: own.transpose().ok()?,
            _room: Arc::clone(&self.room).try_acquire_owned().ok()?,
        })
    }

    /// A turn of somebody, once there is one.
    ///
    /// # Errors
    /// Others have them all, or they have theirs themselves, for as long as anybody waits.
    pub(crate) async fn enter(&self, who: Option<UserId>) -> Result<Turn, Status> {
        self.enter_within(self.bounds.within, who).await
    }

    async fn enter_within(&self, within: Duration, who: Option<UserId>) -> Result<Turn, Status> {
        let ends = Instant::now() + within;
        let busy = |why| status::busy(why, self.bounds.within);
        // Their own first: who waits for that is in nobody's way.
        let own = match self.own(who) {
            Some(own) => Some(by(ends, own).await.ok_or_else(|| busy(self.bounds.own))?),
            None => None,
        };
        let room = by(ends, Arc::clone(&self.room)).await;
        Ok(Turn {
            _own: own,
            _room: room.ok_or_else(|| busy(self.bounds.others))?,
        })
    }

    fn own(&self, who: Option<UserId>) -> Option<Arc<Semaphore>> {
        who.map(|who| limits::own(&self.own, who, OF_ONE))
    }
}

impl Turn {
    /// Does something in this turn, on a thread of its own and not on those that calls, leases and the log go by.
    ///
    /// # Errors
    /// It was not done to its end.
    pub(crate) async fn aside<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let working = spawn_blocking(move || {
            let _turn = self;
            work()
        });
        working.await
    }
}

async fn by(ends: Instant, turns: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    timeout_at(ends, turns.acquire_owned()).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        at_once: 2,
        within: Duration::from_secs(60),
        others: "others are at it",
        own: "you are at it",
    };

    #[tokio::test]
    async fn one_person_has_one_turn_at_once_and_leaves_one_to_others() {
        let turns = Turns::new(BOUNDS);
        let (greedy, other) = (Some(UserId(1)), Some(UserId(2)));
        let first = turns.enter(greedy).await.expect("a turn");
        assert!(turns.enter_now(greedy).is_none());
        let again = turns.clone();
        let mut again = tokio::spawn(async move { again.enter(greedy).await });
        tokio::task::yield_now().await;
        let of_other = turns.enter_now(other).expect("a turn");
        assert!(turns.enter_now(None).is_none(), "all have no more");
        drop(of_other);
        assert!(turns.enter_now(None).is_some() && !again.is_finished());
        drop(first);
        assert!((&mut again).await.expect("it ends").is_ok());
    }

    #[tokio::test]
    async fn who_gets_no_turn_is_told_for_whom_they_have_waited() {
        let turns = Turns::new(BOUNDS);
        let told = async |who| {
            let turn = turns.enter_within(Duration::ZERO, who).await;
            turn.map_err(|refused| refused.message().to_owned())
        };
        let (one, other, third) = (Some(UserId(1)), Some(UserId(2)), Some(UserId(3)));
        let _first = told(one).await.expect("a turn");
        assert_eq!(told(one).await.err().as_deref(), Some(BOUNDS.own));
        let _second = told(other).await.expect("a turn");
        assert_eq!(told(third).await.err().as_deref(), Some(BOUNDS.others));
        assert_eq!(told(None).await.err().as_deref(), Some(BOUNDS.others));
    }

    #[tokio::test]
    async fn what_is_done_in_a_turn_holds_it_and_no_thread_of_the_runtime() {
        let (turns, who) = (Turns::new(BOUNDS), Some(UserId(1)));
        let turn = turns.enter(who).await.expect("a turn");
        let same = turns.clone();
        let done = turn.aside(move || {
            let is_held = same.enter_now(who).is_none();
            (is_held, std::thread::current().id())
        });
        let (is_held, thread) = done.await.expect("it is done");
        assert!(is_held && thread != std::thread::current().id());
        assert!(turns.enter_now(who).is_some());
    }
}
