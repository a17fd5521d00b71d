//! The open sessions of workers and the orders on their way to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use stepcast_scheduler::ids::{Epoch, InstanceId, WorkerId};
use tokio::sync::mpsc;

use crate::session::{Order, Parting};

/// Orders on their way to one worker. It runs a few attempts at a time, so a full queue means that nobody reads it.
const ORDERS: usize = 256;

/// The sessions this leader has.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_number: u64,
    open: BTreeMap<WorkerId, Open>,
    /// Since when each worker that was seen has had no session.
    away: BTreeMap<WorkerId, Duration>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    instance: InstanceId,
    /// It was asked to stop, and is given nothing new.
    is_leaving: bool,
    orders: mpsc::Sender<Order>,
    told: Told,
}

/// What a session has been told, so that looking again tells it nothing twice.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Attempts assigned in this session.
    pub(crate) assigned: BTreeSet<Epoch>,
    /// Attempts stopped in this session.
    pub(crate) stopped: BTreeSet<Epoch>,
}

impl Told {
    /// Forgets attempts that are over, so that this stays as small as what runs.
    pub(crate) fn forget_all_but(&mut self, is_wanted: impl Fn(&Epoch) -> bool) {
        self.assigned.retain(&is_wanted);
        self.stopped.retain(&is_wanted);
    }
}

impl Sessions {
    /// Opens a session; one that the worker had before is told to go.
    pub(crate) fn open(
        &self,
        worker: WorkerId,
        instance: InstanceId,
        is_leaving: bool,
    ) -> (u64, mpsc::Receiver<Order>) {
        let (orders, received) = mpsc::channel(ORDERS);
        let mut inner = self.inner.lock();
        inner.last_number += 1;
        let number = inner.last_number;
        inner.away.remove(&worker);
        let before = inner.open.insert(
            worker,
            Open {
                number,
                instance,
                is_leaving,
                orders,
                told: Told::default(),
            },
        );
        if let Some(before) = before {
            // A full queue has no room for a farewell; its end says enough.
            let _ = before.orders.try_send(Order::Shutdown(Parting::Replaced));
        }
        (number, received)
    }

    /// Closes a session, unless a later one has taken its place.
    pub(crate) fn close(&self, worker: WorkerId, number: u64, now: Duration) {
        let mut inner = self.inner.lock();
        if inner
            .open
            .get(&worker)
            .is_some_and(|open| open.number == number)
        {
            inner.open.remove(&worker);
            inner.away.insert(worker, now);
        }
    }

    /// Notes that the worker of this very session leaves. False if the session is over.
    pub(crate) fn leave(&self, worker: WorkerId, number: u64) -> bool {
        let mut inner = self.inner.lock();
        let open = inner.open.get_mut(&worker);
        let open = open.filter(|open| open.number == number);
        open.map(|open| open.is_leaving = true).is_some()
    }

    /// Whether the worker has a session, and has not said that it leaves.
    pub(crate) fn stays(&self, worker: WorkerId) -> bool {
        let inner = self.inner.lock();
        let open = inner.open.get(&worker);
        open.is_some_and(|open| !open.is_leaving)
    }

    /// Whether the worker's session was opened by another process than the one that is registered now.
    pub(crate) fn is_of_another(&self, worker: WorkerId, instance: InstanceId) -> bool {
        self.inner
            .lock()
            .open
            .get(&worker)
            .is_some_and(|open| open.instance != instance)
    }

    /// Sends a worker away, if it is there.
    pub(crate) fn part(&self, worker: WorkerId, parting: Parting, now: Duration) {
        let mut inner = self.inner.lock();
        if let Some(open) = inner.open.remove(&worker) {
            inner.away.insert(worker, now);
            // A full queue has no room for a farewell; its end says enough.
            let _ = open.orders.try_send(Order::Shutdown(parting));
        }
    }

    /// Sends orders decided by looking at what the session was told before. False if the worker has no session, or had
    /// to be cut off.
    pub(crate) fn tell(
        &self,
        worker: WorkerId,
        decide: impl FnOnce(&mut Told) -> Vec<Order>,
        now: Duration,
    ) -> bool {
        self.tell_if(worker, |_| true, decide, now)
    }

    /// The same, but only to this very session: a later one of the same worker has not asked.
    pub(crate) fn tell_session(
        &self,
        worker: WorkerId,
        number: u64,
        decide: impl FnOnce(&mut Told) -> Vec<Order>,
        now: Duration,
    ) -> bool {
        self.tell_if(worker, |open| open == number, decide, now)
    }

    fn tell_if(
        &self,
        worker: WorkerId,
        is_meant: impl FnOnce(u64) -> bool,
        decide: impl FnOnce(&mut Told) -> Vec<Order>,
        now: Duration,
    ) -> bool {
        let mut inner = self.inner.lock();
        let Some(open) = inner
            .open
            .get_mut(&worker)
            .filter(|open| is_meant(open.number))
        else {
            return false;
        };
        let orders = decide(&mut open.told);
        if orders
            .into_iter()
            .all(|order| open.orders.try_send(order).is_ok())
        {
            return true;
        }
        // Nothing is lost: what matters is told again in the next session.
        tracing::warn!(worker = %worker, "a worker does not read its orders; its session is closed");
        inner.open.remove(&worker);
        inner.away.insert(worker, now);
        false
    }

    /// Closes every session of this leader.
    pub(crate) fn close_all(&self, parting: Parting) {
        let open = std::mem::take(&mut self.inner.lock().open);
        for session in open.into_values() {
            let _ = session.orders.try_send(Order::Shutdown(parting));
        }
    }

    /// Workers with an open session.
    pub(crate) fn attached(&self) -> Vec<WorkerId> {
        self.inner.lock().open.keys().copied().collect()
    }

    /// How many sessions are open.
    pub(crate) fn count(&self) -> usize {
        self.inner.lock().open.len()
    }

    /// Which of these workers have had no session for `term`, or have one and leave. One that was never seen counts from
    /// the first time it is asked for.
    pub(crate) fn away_for(
        &self,
        workers: &[WorkerId],
        term: Duration,
        now: Duration,
    ) -> Vec<WorkerId> {
        let mut inner = self.inner.lock();
        let asked: BTreeSet<WorkerId> = workers.iter().copied().collect();
        inner.away.retain(|worker, _| asked.contains(worker));
        let mut away = Vec::new();
        for worker in asked {
            if let Some(open) = inner.open.get(&worker) {
                away.extend(open.is_leaving.then_some(worker));
                continue;
            }
            let since = *inner.away.entry(worker).or_insert(now);
            if now >= since + term {
                away.push(worker);
            }
        }
        away
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const WORKER: WorkerId = WorkerId(7);
    const INSTANCE: InstanceId = InstanceId([7; 16]);

    #[test]
    fn a_second_session_replaces_the_first_and_a_late_close_of_the_first_does_nothing() {
        let sessions = Sessions::default();
        let (first, mut first_orders) = sessions.open(WORKER, INSTANCE, false);
        let (_, _second_orders) = sessions.open(WORKER, INSTANCE, false);
        assert!(matches!(
            first_orders.try_recv(),
            Ok(Order::Shutdown(Parting::Replaced))
        ));
        sessions.close(WORKER, first, NOW);
        assert_eq!(sessions.attached(), [WORKER]);
    }

    #[test]
    fn a_worker_that_is_sent_away_hears_why_and_counts_as_away() {
        let sessions = Sessions::default();
        let (_, mut orders) = sessions.open(WORKER, INSTANCE, false);
        assert!(sessions.is_of_another(WORKER, InstanceId([8; 16])));
        assert!(!sessions.is_of_another(WORKER, INSTANCE));
        sessions.part(WORKER, Parting::Revoked, NOW);
        assert!(matches!(
            orders.try_recv(),
            Ok(Order::Shutdown(Parting::Revoked))
        ));
        assert!(matches!(
            orders.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        ));
        assert_eq!(
            sessions.away_for(
                &[WORKER],
                Duration::from_secs(1),
                NOW + Duration::from_secs(1)
            ),
            [WORKER]
        );
    }

    #[test]
    fn a_worker_that_does_not_read_is_cut_off() {
        let sessions = Sessions::default();
        let (_, _orders) = sessions.open(WORKER, INSTANCE, false);
        let tell = || {
            sessions.tell(
                WORKER,
                |_| vec![Order::Acknowledged { epoch: Epoch(1) }],
                NOW,
            )
        };
        assert_eq!((0..ORDERS).filter(|_| tell()).count(), ORDERS);
        assert!(!tell());
        assert_eq!(sessions.count(), 0);
    }

    #[test]
    fn a_worker_counts_as_away_after_a_term_without_a_session() {
        let sessions = Sessions::default();
        let term = Duration::from_secs(30);
        assert_eq!(sessions.away_for(&[WORKER], term, NOW), []);
        assert_eq!(sessions.away_for(&[WORKER], term, NOW + term), [WORKER]);
        let (number, _orders) = sessions.open(WORKER, INSTANCE, false);
        assert_eq!(sessions.away_for(&[WORKER], term, NOW + 2 * term), []);
        sessions.close(WORKER, number, NOW + 3 * term);
        assert_eq!(sessions.away_for(&[WORKER], term, NOW + 3 * term), []);
        assert_eq!(sessions.away_for(&[WORKER], term, NOW + 4 * term), [WORKER]);
    }

    #[test]
    fn a_worker_that_leaves_counts_as_away_at_once_and_keeps_its_session() {
        let sessions = Sessions::default();
        let term = Duration::from_secs(30);
        let (first, _orders) = sessions.open(WORKER, INSTANCE, false);
        let (number, _orders) = sessions.open(WORKER, INSTANCE, false);
        assert!(!sessions.leave(WORKER, first), "it has a later session");
        assert_eq!(sessions.away_for(&[WORKER], term, NOW), []);
        assert!(sessions.stays(WORKER));
        assert!(sessions.leave(WORKER, number));
        assert_eq!(sessions.away_for(&[WORKER], term, NOW), [WORKER]);
        assert_eq!(sessions.attached(), [WORKER]);
        assert!(!sessions.stays(WORKER));
        let (_, _orders) = sessions.open(WORKER, INSTANCE, true);
        assert!(!sessions.stays(WORKER), "it says so in a new session too");
        let (_, _orders) = sessions.open(WORKER, INSTANCE, false);
        assert!(sessions.stays(WORKER), "it was started again");
    }
}
