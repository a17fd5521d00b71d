//! What must never be seen, whatever goes wrong: every check has a name, and the first one that fails ends the run.

mod history;
mod log;
mod trainers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use self::history::{Histories, Seen};
pub(crate) use self::log::Logs;
pub(crate) use self::trainers::{Begun, Finish, Trainers};
use crate::kernel::{Kernel, Micros};

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// At most one node leads a term.
    OneLeaderATerm,
    /// Entries of one index and term are the same in every log.
    LogsMatch,
    /// A committed entry is the same on every node and for ever.
    CommittedEntriesAgree,
    /// The state after an entry, and who belongs to the cluster, is the same on every node and in every life of it.
    StatesAgree,
    /// What was acknowledged is there.
    AcknowledgedIsKept,
    /// A request makes at most one job, and is answered with the same one for ever.
    OneRequestOneJob,
    /// A read shows everything that was acknowledged before it, and reads do not go back.
    ReadsAreLinearizable,
    /// A watch has no gap, no repeat and no step back, and shows what happened.
    WatchesAreWhole,
    /// At most one trainer runs on a GPU.
    OneTrainerAGpu,
    /// At most one trainer runs for a job, or one for each part of one gang.
    OneTrainerAJob,
    /// An attempt is begun once.
    AttemptsStartOnce,
    /// A lease ends in the log after its trainer has ended.
    LeasesOutliveTrainers,
    /// What is told of an attempt is told by whoever ran it, and is true.
    OldEpochsAreRefused,
    /// Attempt numbers and epochs only grow, and what is over stays over.
    TerminalIsFinal,
    /// Nothing is recorded twice, and what was acknowledged is recorded.
    ContributionsCountOnce,
    /// The scheduler's own invariants.
    Invariants,
    /// A node starts again from what its own crash has left.
    NodesRestart,
    /// Once nothing fails any more, every job and every change of the members ends, and every node has everything.
    EverythingEnds,
    /// Nothing panics.
    NoPanic,
}

/// A check that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub check: Check,
    /// What was seen.
    pub detail: String,
    /// When, in true microseconds from the start.
    pub at: Micros,
}

/// What happened in a run, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

/// All of them.
pub(crate) struct Checks {
    kernel: Arc<Kernel>,
    inner: Mutex<Inner>,
    pub(crate) logs: Mutex<Logs>,
    pub(crate) trainers: Mutex<Trainers>,
    pub(crate) histories: Mutex<Histories>,
}

#[derive(Default)]
struct Inner {
    violation: Option<Violation>,
    counts: Counts,
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Checks {
    pub(crate) fn new(kernel: &Arc<Kernel>, traced: bool) -> Arc<Self> {
        let inner = Inner {
            lines: traced.then(Vec::new),
            ..Inner::default()
        };
        Arc::new(Self {
            kernel: Arc::clone(kernel),
            inner: Mutex::new(inner),
            logs: Mutex::default(),
            trainers: Mutex::default(),
            histories: Mutex::default(),
        })
    }

    /// Something that must not be.
    pub(crate) fn fail(&self, check: Check, detail: impl fmt::Display) {
        let detail = detail.to_string();
        self.note("violation", || format!("{check:?}: {detail}"));
        let at = self.kernel.now();
        self.inner
            .lock()
            .violation
            .get_or_insert(Violation { check, detail, at });
    }

    /// What `found` says must not be, if it says anything.
    pub(crate) fn judge(&self, found: Option<(Check, String)>) {
        if let Some((check, detail)) = found {
            self.fail(check, detail);
        }
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.inner.lock().violation.clone()
    }

    /// One more of these.
    pub(crate) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&self, what: &'static str, many: u64) {
        *self.inner.lock().counts.0.entry(what).or_default() += many;
    }

    /// Goes into the trace: always into its hash, into its text when somebody wants to read it.
    pub(crate) fn note(&self, what: &'static str, words: impl FnOnce() -> String) {
        let now = self.kernel.now();
        let mut inner = self.inner.lock();
        let mut mixed = inner.hash ^ now.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in what.bytes() {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut inner.lines {
            lines.push(format!(
                "{:>4}.{:06} {what}: {}",
                now / 1_000_000,
                now % 1_000_000,
                words()
            ));
        }
        inner.hash = mixed.rotate_left(17);
    }

    /// Mixes a number into the trace's hash.
    pub(crate) fn mix(&self, number: u64) {
        let mut inner = self.inner.lock();
        inner.hash = (inner.hash ^ number)
            .wrapping_mul(0xff51_afd7_ed55_8ccd)
            .rotate_left(31);
    }

    /// What the run was like.
    pub(crate) fn take(&self) -> (Option<Violation>, Counts, u64, Vec<String>) {
        let mut inner = self.inner.lock();
        (
            inner.violation.clone(),
            std::mem::take(&mut inner.counts),
            inner.hash,
            inner.lines.take().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} does not hold after {}.{:06} s: {}",
            self.check,
            self.at / 1_000_000,
            self.at % 1_000_000,
            self.detail
        )
    }
}
