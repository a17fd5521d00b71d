//! Takes a snapshot when enough has been applied since the last one, and lets the log forget what it covers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::consensus::Handle;
use crate::replica::Replicated;
use crate::snapshot::{Error, Header, Outgoing, Snapshots, Written};

/// A snapshot that could not be written is tried again after this long.
const RETRY_EVERY: Duration = Duration::from_secs(30);

/// Counts what was applied since the last snapshot, and says when that is enough.
#[derive(Debug)]
pub(crate) struct Due {
    entries: AtomicU64,
    bytes: AtomicU64,
    max_entries: u64,
    max_bytes: u64,
    /// The size of the newest snapshot.
    size: AtomicU64,
    enough: Notify,
}

impl Due {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            max_entries: config.snapshot_entries.max(1),
            max_bytes: config.snapshot_bytes.max(1),
            size: AtomicU64::new(0),
            enough: Notify::new(),
        }
    }

    /// This much more was applied.
    pub(crate) fn applied(&self, entries: u64, bytes: u64) {
        let entries = self.entries.fetch_add(entries, Ordering::Relaxed) + entries;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // A large state is written when the log has grown by a good part of it, so that the disk is not busy with
        // snapshots alone; no later than that, since the log is held in memory.
        let size = self.size.load(Ordering::Relaxed);
        let worth = (size / 2).min(self.max_bytes.saturating_mul(2));
        let entries_enough = entries >= self.max_entries && bytes >= worth;
        if entries_enough || bytes >= self.max_bytes.max(worth) {
            self.enough.notify_one();
        }
    }

    /// A snapshot of this size was written.
    pub(crate) fn written(&self, bytes: u64) {
        self.size.store(bytes, Ordering::Relaxed);
    }

    fn restart(&self) {
        self.entries.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }
}

/// Lets snapshots be written until the node stops, and has the stop wait for one that is under way: a thread that writes
/// cannot be broken off, and whoever opens the directory next must find it at rest.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: Mutex<bool>,
}

impl Gate {
    /// Waits for what is under way, and lets nothing in from now on. Blocks.
    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
    }
}

/// Why a snapshot is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The last one is old.
    Time,
    /// Enough was applied since, or somebody asks for the state.
    Enough,
    /// Another node needs one.
    Wanted,
}

/// The task that writes snapshots.
pub(crate) struct Snapshotter<R> {
    pub(crate) replicated: Arc<Replicated>,
    pub(crate) snapshots: Snapshots,
    pub(crate) consensus: Handle<R>,
    pub(crate) due: Arc<Due>,
    pub(crate) every: Duration,
    pub(crate) log_tail_entries: u64,
    /// Held while a snapshot is written.
    pub(crate) gate: Arc<Gate>,
    /// The newest snapshot's entry.
    pub(crate) newest: Arc<AtomicU64>,
}

impl<R: Send + 'static> Snapshotter<R> {
    /// Runs until it is aborted.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let reason = self.reason().await;
            if !self.write(reason).await {
                return;
            }
        }
    }

    /// Waits for a reason to write one; nothing is written if nothing was applied.
    async fn reason(&self) -> Reason {
        tokio::select! {
            () = tokio::time::sleep(self.every) => Reason::Time,
            () = self.due.enough.notified() => Reason::Enough,
            () = self.consensus.snapshot_wanted() => Reason::Wanted,
        }
    }

    /// Writes one, or waits for a while if that cannot be. False if it was broken off.
    async fn write(self: &Arc<Self>, reason: Reason) -> bool {
        let this = Arc::clone(self);
        match spawn_blocking(move || this.take(reason)).await {
            Ok(Ok(())) => {
                // Whoever asked for one while this was written asks again if it does not do.
                let _ = self.consensus.snapshot_wanted().now_or_never();
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no snapshot was written"
                );
                tokio::time::sleep(RETRY_EVERY).await;
                self.due.enough.notify_one();
            }
            Err(stopped) => {
                tracing::warn!(%stopped, "a snapshot was broken off");
                return false;
            }
        }
        true
    }

    /// The file of a snapshot with everything in it that this node has applied. Blocks.
    pub(crate) fn take_to_send(&self) -> Result<Outgoing, Error> {
        for _ in 0..2 {
            let applied = self.replicated.read_at(|_, _, at| at.index);
            self.take(Reason::Enough)?;
            if let Some(at) = self.snapshots.newest_at()?
                && at.index >= applied
                && let Some(outgoing) = self.snapshots.open_at(at)?
            {
                return Ok(outgoing);
            }
            // There is none yet, or it has turned out to be damaged: another one is needed.
            self.newest.store(0, Ordering::Release);
        }
        Err(Error::Closed)
    }

    /// Writes a snapshot of the state as it is now, unless there is one. Another node that waits for a snapshot could not be
    /// sent that one, so it is written once more. Blocks.
    fn take(&self, reason: Reason) -> Result<(), Error> {
        let closed = self.gate.closed.lock();
        if *closed {
            return Ok(());
        }
        let newest = self.newest.load(Ordering::Acquire);
        // Under the lock only the view is taken, so that the log does not wait for the disk.
        let taken = self.replicated.read_at(|state, members, at| {
            (at.index > newest || reason == Reason::Wanted).then(|| {
                self.due.restart();
                let members = members.clone();
                (Header { at, members }, state.view())
            })
        });
        let Some((header, view)) = taken else {
            return Ok(());
        };
        let Header { at, members } = header.clone();
        let Written { bytes, older } = self.snapshots.write(&header, &view)?;
        self.due.written(bytes);
        self.newest.fetch_max(at.index, Ordering::AcqRel);
        self.consensus.snapshot_taken(at, members);
        tracing::debug!(index = at.index, bytes, "snapshot written");
        if let Some(older) = older {
            self.consensus
                .compact(self.forgettable(reason, at.index, older));
        }
        Ok(())
    }

    /// How far the log is forgotten, with snapshots of these two entries on disk. A tail is kept for those who are behind, but
    /// not for ever: where little is written it would be that of years, with what was deleted since.
    fn forgettable(&self, reason: Reason, newest: u64, older: u64) -> u64 {
        match reason {
            Reason::Time => older,
            Reason::Enough | Reason::Wanted => {
                older.min(newest.saturating_sub(self.log_tail_entries))
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use stepcast_scheduler::State;

    use super::*;
    use crate::consensus::log::{Loaded, Position};
    use crate::consensus::{Bare, Begin, Committed, Machine, Role};
    use crate::members::Members;

    struct Nothing;

    impl Machine for Nothing {
        type Reply = ();

        fn apply(&mut self, _: &[Committed], _: &mut Vec<()>) -> Result<(), String> {
            Ok(())
        }

        fn members(&mut self, _: &Members, _: Position) {}

        fn install(&mut self, _: Position, _: &Members) -> Result<(), String> {
            Ok(())
        }

        fn advanced(&mut self, _: Position) {}

        fn role(&mut self, _: Role) {}
    }

    #[tokio::test]
    async fn who_asks_while_one_is_written_gets_that_one() {
        let begin = Begin {
            id: 1,
            loaded: Loaded::new_cluster(),
            applied: 1,
            members: Members::founder(1),
            snapshot: None,
        };
        let (_bare, consensus) = Bare::new(begin, 1, Nothing).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let at = Position { index: 9, term: 1 };
        let snapshotter = Arc::new(Snapshotter {
            replicated: Arc::new(Replicated::new(State::new(), Members::founder(1), at)),
            snapshots: Snapshots::open(dir.path()).unwrap(),
            consensus: consensus.clone(),
            due: Arc::new(Due::new(&Config::new(dir.path().to_path_buf()))),
            every: Duration::from_secs(3_600),
            log_tail_entries: 5,
            gate: Arc::default(),
            newest: Arc::default(),
        });
        consensus.want_snapshot();
        assert_eq!(snapshotter.reason().await, Reason::Wanted);
        // It takes a while, and the node asks again at every heartbeat.
        consensus.want_snapshot();
        assert!(snapshotter.write(Reason::Wanted).await);
        assert_eq!(snapshotter.snapshots.newest_at().unwrap(), Some(at));
        assert_eq!(snapshotter.reason().now_or_never(), None);
        consensus.want_snapshot();
        assert_eq!(
            snapshotter.reason().await,
            Reason::Wanted,
            "this one does not do"
        );
        for (reason, to) in [
            (Reason::Time, 90),
            (Reason::Enough, 90),
            (Reason::Wanted, 90),
        ] {
            assert_eq!(snapshotter.forgettable(reason, 100, 90), to, "{reason:?}");
        }
        // A dozen entries a day are in the tail for a year otherwise.
        for (reason, to) in [
            (Reason::Time, 98),
            (Reason::Enough, 95),
            (Reason::Wanted, 95),
        ] {
            assert_eq!(snapshotter.forgettable(reason, 100, 98), to, "{reason:?}");
        }
    }
}
