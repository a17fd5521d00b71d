//! Deliberate bugs, put in where the world touches the production code: each shows that a check can fail.

use std::fmt;
use std::str::FromStr;

use crate::checks::Check;

macro_rules! mutants {
    ($($name:ident, $text:literal, $doc:literal, [$($check:ident),+];)+) => {
        /// A deliberate bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $(#[doc = $doc] $name,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// What it is called on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What is wrong with it, in one sentence.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $doc,)+ }
            }

            /// The checks that may catch it: whatever else fails first is not the one it is for.
            pub const fn caught_by(self) -> &'static [Check] {
                match self { $(Self::$name => &[$(Check::$check),+],)+ }
            }
        }
    };
}

mutants! {
    AckBeforeSync, "ack-before-sync",
        "A node says that its log is on disk before it is.",
        [CommittedEntriesAgree, AcknowledgedIsKept, ReadsAreLinearizable, StatesAgree, NodesRestart, NoPanic];
    EpochNotChecked, "epoch-not-checked",
        "A leader takes a report on an old epoch for one on the newest.",
        [OldEpochsAreRefused];
    LeaseByWallClock, "lease-by-wall-clock",
        "A leader counts leases by its wall clock, which jumps.",
        [LeasesOutliveTrainers, OneTrainerAJob, OneTrainerAGpu];
    NewLeaderHurries, "new-leader-hurries",
        "A new leader does not give leases a full term.",
        [LeasesOutliveTrainers, OneTrainerAJob, OneTrainerAGpu];
    WorkerClockIsSlow, "worker-clock-is-slow",
        "A worker and its guards count leases by a clock that runs at half the speed.",
        [LeasesOutliveTrainers, OneTrainerAJob, OneTrainerAGpu];
    RequestForgotten, "request-forgotten",
        "A node that begins from a snapshot does not know the requests before it.",
        [OneRequestOneJob];
    AppliedTwice, "applied-twice",
        "A node applies the last entry before its restart a second time.",
        [StatesAgree, TerminalIsFinal, Invariants, ReadsAreLinearizable];
    VoteLost, "vote-lost",
        "A node forgets its newest vote, and the term it was in, when it restarts.",
        [OneLeaderATerm, CommittedEntriesAgree, LogsMatch, NoPanic];
    ReadWithoutQuorum, "read-without-quorum",
        "A node answers reads from its own state without asking the others.",
        [ReadsAreLinearizable, AcknowledgedIsKept];
    WatchGap, "watch-gap",
        "A watch leaves an event out.",
        [WatchesAreWhole];
    GuardSleeps, "guard-sleeps",
        "A guard does not end its trainer at the deadline, so that a worker that hangs lets it run on.",
        [LeasesOutliveTrainers, OneTrainerAJob, OneTrainerAGpu];
    RemovedNodeCounts, "removed-node-counts",
        "A leader takes the acknowledgement of a node that is on its way out for one of a node that votes.",
        [CommittedEntriesAgree, AcknowledgedIsKept, ReadsAreLinearizable, StatesAgree, NoPanic];
    SnapshotWithoutMembers, "snapshot-without-members",
        "A snapshot does not hold who belongs to the cluster.",
        [StatesAgree, OneLeaderATerm, CommittedEntriesAgree, NodesRestart, EverythingEnds, NoPanic];
    SamplesRenamed, "samples-renamed",
        "A worker sends the same samples under a new id when it had no answer.",
        [ContributionsCountOnce];
    PartEndsAll, "part-ends-all",
        "A leader takes the end of one part of a gang for the end of all of its parts.",
        [OldEpochsAreRefused, LeasesOutliveTrainers, OneTrainerAJob, OneTrainerAGpu];
    PartExpiresOthers, "part-expires-others",
        "A leader takes the leases of a gang's other parts for over when one of them starts.",
        [LeasesOutliveTrainers];
    BeginsAgain, "begins-again",
        "A host begins a trainer that has failed once more under the same epoch.",
        [AttemptsStartOnce];
    CancelNotWritten, "cancel-not-written",
        "A node says of what runs that it will be cancelled, and writes nothing of it.",
        [AcknowledgedIsKept];
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|mutant| mutant.name() == text);
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|mutant| mutant.name()).collect();
            format!("there is no such bug; there are: {}", names.join(", "))
        })
    }
}
