//! Connections that have shown no good token yet: so many of one address, and the eldest makes room for the next.
//!
//! Nobody knows of a connection whether it is an honest one before its first call, and many people and workers may come by
//! one address. So none that comes is turned away for those that are there: who means it shows a token at once and is no
//! stranger from then on, and who only holds connections open loses them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::limits::counted;

/// So often it is told that there are too many connections, at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Who is a stranger on a port.
pub(super) struct Strangers {
    known: Mutex<Known>,
    of_address: usize,
}

/// What is known of them.
#[derive(Default)]
struct Known {
    /// All of them by their number, the eldest first.
    all: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    /// Their numbers by address.
    of: HashMap<IpAddr, BTreeSet<u64>>,
    next: u64,
    told: Option<Instant>,
}

impl Strangers {
    /// At most so many of one address.
    pub(super) fn new(of_address: usize) -> Arc<Self> {
        Arc::new(Self {
            known: Mutex::default(),
            of_address,
        })
    }

    /// One more, from this address. Where that has too many, its eldest is closed.
    pub(super) fn enter(self: &Arc<Self>, from: SocketAddr) -> Entered {
        let address = counted(from.ip());
        let (close, told) = oneshot::channel();
        let mut known = self.known.lock();
        let own = known.of.get(&address);
        let eldest = own.filter(|own| own.len() >= self.of_address);
        if let Some(eldest) = eldest.and_then(|own| own.first().copied()) {
            known.close(eldest);
            if known.is_told() {
                tracing::warn!(
                    %address,
                    connections = self.of_address,
                    "one address holds many connections on which no token was shown: its eldest are closed"
                );
            }
        }
        let number = known.next;
        known.next += 1;
        known.all.insert(number, (address, close));
        known.of.entry(address).or_default().insert(number);
        drop(known);
        Entered {
            standing: Standing(Arc::new(Place {
                strangers: Arc::clone(self),
                number,
                is_known: AtomicBool::new(false),
                let_in: Mutex::new(Instant::now()),
            })),
            told: Some(told),
        }
    }

    /// Closes the eldest of all: there is no room for another connection.
    pub(super) fn make_room(&self) {
        let mut known = self.known.lock();
        let eldest = known.all.first_key_value().map(|(number, _)| *number);
        if let Some(eldest) = eldest {
            known.close(eldest);
        }
        if known.is_told() {
            tracing::warn!(
                "there is no room for another connection: those that have shown no token are closed, the eldest first, and \
                 without one of these the next waits until another ends"
            );
        }
    }
}

impl Known {
    fn forget(&mut self, number: u64) -> Option<oneshot::Sender<()>> {
        let (address, close) = self.all.remove(&number)?;
        if let Some(own) = self.of.get_mut(&address) {
            own.remove(&number);
            if own.is_empty() {
                self.of.remove(&address);
            }
        }
        Some(close)
    }

    fn close(&mut self, number: u64) {
        if let Some(close) = self.forget(number) {
            // One that has ended meanwhile need not be told.
            let _ = close.send(());
        }
    }

    /// Whether it is to be told now.
    fn is_told(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.told.is_none_or(|told| now - told >= TOLD_EVERY);
        if is_due {
            self.told = Some(now);
        }
        is_due
    }
}

/// A connection that has come in, for as long as it is there.
pub(super) struct Entered {
    pub(super) standing: Standing,
    /// Told something when it is to close, and nothing any more when it is no stranger's.
    pub(super) told: Option<oneshot::Receiver<()>>,
}

impl Entered {
    /// Done when it is to close.
    pub(super) async fn closed(&mut self) {
        if let Some(told) = &mut self.told
            && told.await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // One that has ended is no stranger's either.
        self.standing.known();
    }
}

/// What has been let in on a connection.
#[derive(Clone)]
pub(crate) struct Standing(Arc<Place>);

struct Place {
    strangers: Arc<Strangers>,
    number: u64,
    is_known: AtomicBool,
    /// When a call without a token was let in last, or the connection came.
    let_in: Mutex<Instant>,
}

impl Standing {
    /// A good token was shown on it.
    pub(crate) fn known(&self) {
        if !self.0.is_known.swap(true, Ordering::Relaxed) {
            self.0.strangers.known.lock().forget(self.0.number);
        }
    }

    /// A call was let in on it that needs no token.
    pub(crate) fn let_in(&self) {
        *self.0.let_in.lock() = Instant::now();
    }

    /// When such a call was let in last, or else when the connection came.
    pub(super) fn last(&self) -> Instant {
        *self.0.let_in.lock()
    }
}
