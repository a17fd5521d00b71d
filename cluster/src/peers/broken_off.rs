//! A snapshot whose sender was lost before its end: what has come of it is kept for a while, so that the sender goes on from
//! there and need not begin anew.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::shared::Shared;
use super::snapshots::Receiving;
use crate::consensus::log::Position;

/// Until then the sender comes back or does not: it tries again within half a minute, and may first have to notice that its
/// connection is gone. What is kept takes the memory of the state that it holds.
const KEPT: Duration = Duration::from_secs(90);

/// Which transfer it was. The same entry's snapshot of another node may be written otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) from: u64,
    pub(super) at: Position,
    /// Bytes of the file.
    pub(super) length: u64,
}

/// The beginning of a snapshot.
pub(super) struct Beginning {
    pub(super) transfer: Transfer,
    /// Bytes that have been taken.
    pub(super) taken: u64,
    pub(super) receiving: Box<dyn Receiving>,
}

/// The one that is kept, if any, with a number that tells it from those before.
#[derive(Default)]
pub(super) struct BrokenOff(Mutex<(u64, Option<Beginning>)>);

impl BrokenOff {
    /// What has come of this transfer. Whatever else is kept is of no use any more, and is removed.
    pub(super) fn take(&self, transfer: Transfer) -> Option<Beginning> {
        let kept = self.0.lock().1.take()?;
        if kept.transfer == transfer {
            return Some(kept);
        }
        remove(kept);
        None
    }

    /// Removes what is kept, if it is still this one.
    fn expire(&self, number: u64) {
        let mut kept = self.0.lock();
        if kept.0 == number
            && let Some(expired) = kept.1.take()
        {
            remove(expired);
        }
    }
}

/// Keeps it for its sender until that is back, but not for long. Inside a tokio runtime.
pub(super) fn keep(shared: &Arc<Shared>, beginning: Beginning) {
    let Beginning {
        transfer, taken, ..
    } = beginning;
    let number = {
        let mut kept = shared.broken_off.0.lock();
        kept.0 += 1;
        kept.1 = Some(beginning);
        kept.0
    };
    tracing::info!(
        node = transfer.from,
        index = transfer.at.index,
        taken,
        length = transfer.length,
        "a snapshot has broken off; it goes on from there when its sender is back"
    );
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        sleep(KEPT).await;
        if let Some(shared) = shared.upgrade() {
            shared.broken_off.expire(number);
        }
    });
}

/// Its file is removed where that may block.
fn remove(beginning: Beginning) {
    spawn_blocking(move || drop(beginning));
}
