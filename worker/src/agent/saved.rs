//! The newest checkpoint of an attempt, and when the leader is told of it.

/// How long it takes until one more checkpoint may be told. Each is an entry of the cluster's log, a trainer needs longer to
/// write one, and whatever a job runs can say as many as it likes.
const EVERY_MS: u64 = 5_000;

/// How many may be told at once, after as long a time without: short runs save every few steps.
const AT_ONCE: u64 = 16;

/// What is known of an attempt's checkpoints. Steps only grow: an older one is worth nothing.
#[derive(Debug, Default)]
pub(super) struct Saved {
    newest: u64,
    told: u64,
    /// What has been told is paid for by then.
    paid_ms: u64,
}

impl Saved {
    /// A checkpoint of this step is complete.
    pub(super) fn complete(&mut self, step: u64) {
        self.newest = self.newest.max(step);
    }

    /// The step to tell now; `None` if there is none, or it has to wait.
    pub(super) fn due(&mut self, now: u64) -> Option<u64> {
        if self.next_wake()? > now {
            return None;
        }
        self.paid_ms = self.paid_ms.max(now).saturating_add(EVERY_MS);
        self.at_once()
    }

    /// The step to tell before nothing more can be told.
    pub(super) fn at_once(&mut self) -> Option<u64> {
        let untold = self.newest > self.told;
        self.told = self.newest;
        untold.then_some(self.newest)
    }

    /// The step to tell to a leader that may know of none.
    pub(super) fn again(&mut self) -> Option<u64> {
        self.told = self.newest;
        (self.newest > 0).then_some(self.newest)
    }

    /// When there is one to tell.
    pub(super) fn next_wake(&self) -> Option<u64> {
        let at = self.paid_ms.saturating_sub((AT_ONCE - 1) * EVERY_MS);
        (self.newest > self.told).then_some(at)
    }
}
