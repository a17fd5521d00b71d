//! Looks ahead, estimates among them: how long one may take, and how many may be taken at once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stepcast_scheduler::ids::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::{limits, status};

/// How long one look ahead may take: what a person waits for, and well within a call's deadline.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// How long one may take that comes beside something else.
const GLANCE_MAX: Duration = Duration::from_millis(500);

/// How long a question waits until others have been answered.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// Looks at once: each keeps a processor busy, which the log needs too.
const AT_ONCE: usize = 2;

/// Looks of one person at once: fewer than there may be, so that there is a turn for others.
const AT_ONCE_OF_ONE: usize = 1;
const _: () = assert!(AT_ONCE_OF_ONE < AT_ONCE);

/// Room for looks ahead. Clones share it.
#[derive(Clone)]
pub(crate) struct Ahead {
    room: Arc<Semaphore>,
    /// The turn of each person.
    turns: Arc<Mutex<HashMap<UserId, Weak<Semaphore>>>>,
}

/// Room for one look, as long as this lives.
pub(super) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _room: OwnedSemaphorePermit,
}

impl Ahead {
    pub(crate) fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(AT_ONCE)),
            turns: Arc::default(),
        }
    }

    /// Room for one look of somebody, if there is any now. Who has no account waits for nobody of their own.
    pub(super) fn enter_now(&self, who: Option<UserId>) -> Option<Turn> {
        let own = self.own(who).map(Semaphore::try_acquire_owned);
        Some(Turn {
            _own: own.transpose().ok()?,
            _room: Arc::clone(&self.room).try_acquire_owned().ok()?,
        })
    }

    /// Room for one look of somebody, once there is any.
    ///
    /// # Errors
    /// Too many others ask, or they do themselves.
    pub(super) async fn enter(&self, who: Option<UserId>) -> Result<Turn, Status> {
        let turn = async {
            // Their own first: who waits for that is in nobody's way.
            let own = match self.own(who) {
                Some(own) => Some(own.acquire_owned().await.ok()?),
                None => None,
            };
            let room = Arc::clone(&self.room).acquire_owned().await.ok()?;
            Some(Turn {
                _own: own,
                _room: room,
            })
        };
        match tokio::time::timeout(WAIT_MAX, turn).await {
            Ok(Some(turn)) => Ok(turn),
            Ok(None) | Err(_) => Err(status::busy(
                "too many ask at the moment what is to come",
                WAIT_MAX,
            )),
        }
    }

    fn own(&self, who: Option<UserId>) -> Option<Arc<Semaphore>> {
        who.map(|who| limits::own(&self.turns, who, AT_ONCE_OF_ONE))
    }
}

/// Which part of the time for a look beside something else has been spent, from now on.
pub(super) fn glanced() -> impl Fn() -> f64 {
    let begun = Instant::now();
    move || begun.elapsed().as_secs_f64() / GLANCE_MAX.as_secs_f64()
}

/// Which part of the time for so many looks has been spent, from now on.
pub(super) fn spent(looks: u32) -> impl Fn() -> f64 {
    let begun = Instant::now();
    move || begun.elapsed().as_secs_f64() / (LOOK_MAX * looks).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_person_asks_once_at_once_and_leaves_a_turn_to_others() {
        let ahead = Ahead::new();
        let (greedy, other) = (Some(UserId(1)), Some(UserId(2)));
        let first = ahead.enter(greedy).await.expect("a turn");
        assert!(ahead.enter_now(greedy).is_none());
        let again = ahead.clone();
        let mut again = tokio::spawn(async move { again.enter(greedy).await });
        tokio::task::yield_now().await;
        let of_other = ahead.enter_now(other).expect("a turn");
        assert!(ahead.enter_now(None).is_none(), "all have no more");
        drop(of_other);
        assert!(ahead.enter_now(None).is_some() && !again.is_finished());
        drop(first);
        assert!((&mut again).await.expect("it ends").is_ok());
    }
}
