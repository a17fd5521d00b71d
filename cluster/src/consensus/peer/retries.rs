//! When a snapshot that has not reached a follower is sent again: later each time, and told by ticks alone.

use std::collections::BTreeMap;

/// Ticks between a failed transfer and the next try, 1 s of the driver's; twice as many each time, up to the second, 30 s.
/// What fails for a moment is soon over, and a full disk costs a transfer every half a minute.
pub(super) const AGAIN_AFTER: (u64, u64) = (20, 600);

/// Followers that a snapshot has not reached.
#[derive(Debug, Default)]
pub(super) struct Retries {
    now: u64,
    /// By node; never more than there are members.
    failed: BTreeMap<u64, Failed>,
}

#[derive(Debug, Default)]
struct Failed {
    /// How often in a row.
    times: u32,
    /// When Raft is to hear of the last time.
    due: Option<u64>,
}

impl Retries {
    /// A transfer to this node has begun: what was to be told of an earlier one is no news any more.
    pub(super) fn begun(&mut self, node: u64) {
        if let Some(failed) = self.failed.get_mut(&node) {
            failed.due = None;
        }
    }

    /// A transfer to this node has failed.
    pub(super) fn failed(&mut self, node: u64) {
        let failed = self.failed.entry(node).or_default();
        let pause = AGAIN_AFTER.0 << failed.times;
        // No longer than it takes to get to the bound.
        failed.times = (failed.times + 1).min(u8::BITS);
        failed.due = Some(self.now + pause.min(AGAIN_AFTER.1));
    }

    /// A transfer to this node has ended well.
    pub(super) fn arrived(&mut self, node: u64) {
        self.failed.remove(&node);
    }

    /// There is a connection to this node again, which may have been all that was missing: no longer than the first time.
    pub(super) fn reached(&mut self, node: u64) {
        if let Some(failed) = self.failed.get_mut(&node) {
            failed.times = 0;
            failed.due = failed.due.map(|due| due.min(self.now + AGAIN_AFTER.0));
        }
    }

    /// This node leads no more, or in another term: whoever follows is known anew.
    pub(super) fn clear(&mut self) {
        self.failed.clear();
    }

    /// A tick has passed. Says for whom the wait is over.
    pub(super) fn tick(&mut self) -> Vec<u64> {
        self.now += 1;
        let now = self.now;
        let waiting = self.failed.iter_mut();
        waiting
            .filter_map(|(node, failed)| failed.due.take_if(|due| *due <= now).map(|_| *node))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks until this node's turn comes.
    fn ticks(retries: &mut Retries, node: u64) -> u64 {
        let waits = |ticks: &u64| *ticks < 10_000 && !retries.tick().contains(&node);
        (1..).take_while(waits).count() as u64 + 1
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_begins_anew_once_one_has_arrived() {
        let mut retries = Retries::default();
        let mut waits = Vec::new();
        for _ in 0..100 {
            retries.failed(2);
            waits.push(ticks(&mut retries, 2));
        }
        assert_eq!(waits[..7], [20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(waits[99], 600);
        retries.arrived(2);
        retries.failed(2);
        assert_eq!(ticks(&mut retries, 2), 20);
    }

    #[test]
    fn a_node_that_is_reached_again_waits_no_longer_than_the_first_time() {
        let mut retries = Retries::default();
        for _ in 0..6 {
            retries.failed(2);
        }
        retries.failed(3);
        retries.reached(2);
        let due: Vec<Vec<u64>> = (0..20).map(|_| retries.tick()).collect();
        assert!(due[..19].iter().all(Vec::is_empty));
        assert_eq!(due[19], [2, 3]);
    }

    #[test]
    fn a_transfer_that_has_begun_since_is_told_nothing_of_the_one_before() {
        let mut retries = Retries::default();
        retries.failed(2);
        retries.begun(2);
        assert!((0..1_000).all(|_| retries.tick().is_empty()));
        retries.failed(2);
        retries.clear();
        assert!((0..1_000).all(|_| retries.tick().is_empty()));
    }
}
