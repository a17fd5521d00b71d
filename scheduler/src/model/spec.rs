//! What a person asks for: the work, where it may run, what it may cost, and how eager they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stepcast_records::simpletuner::{Missing, OutOfBounds, Preparation, Sharing, Workload};
use stepcast_records::{GpuModel, Hardware, UsdMicros};

use super::limits::{ALLOW_MAX, LABELS_MAX, PRIORITIES, QUEUE_AGE_MAX_MS, RETRIES_MAX};
use super::{Label, Terms, gpu_numbers};
use crate::ids::StagingId;

/// A job as it was submitted. No file, no path, no prompt and no secret is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What its owner calls it.
    pub name: Option<Label>,
    /// What is trained.
    pub workload: Workload,
    /// GPUs on each of its hosts, all of one model: 1, 2, 4 or 8.
    pub gpu_count: u8,
    /// GPU models it may run on; empty for any GPU. Only a job that names `cpu` runs without a GPU.
    #[serde(with = "gpu_numbers")]
    pub allow: Vec<GpuModel>,
    /// Least memory of each GPU in GiB; 0 for no wish.
    pub min_memory_gib: u16,
    /// Labels a worker must carry.
    pub labels: BTreeMap<Label, Label>,
    /// What to choose hardware by.
    pub objective: Objective,
    /// Most that all its GPUs on all its hosts together may cost an hour, in even parts: no host may cost more than its own. A
    /// worker without a price is then out of the question.
    pub max_price_per_hour: Option<UsdMicros>,
    /// Most that all its attempts together may cost. A worker without a price is then out of the question.
    pub max_cost: Option<UsdMicros>,
    /// Longest time of one attempt in milliseconds.
    pub max_runtime_ms: Option<u64>,
    /// -10 to 10; higher goes first.
    pub priority: i8,
    /// How often it is tried again after a failure of its own.
    pub retry_limit: u8,
    /// Where its files are, until it is over.
    pub staging: StagingId,
    /// What runs it.
    pub trainer: TrainerKind,
    /// For whom, when and how firmly. Written behind the command or the job that it is in, from format 3 on.
    #[serde(skip)]
    pub terms: Terms,
}

/// What a job's hardware is chosen by.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Objective {
    /// The least money.
    Cheapest,
    /// The least time.
    Fastest,
    /// The least product of both: a third more money only for a third less time.
    #[default]
    Balanced,
}

/// The program that does the training.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum TrainerKind {
    /// SimpleTuner itself.
    #[default]
    SimpleTuner,
    /// A player of recorded streams, on pretend hardware only.
    Replay,
}

/// What is wrong with a job as it was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not a count that a hardware profile has.
    #[error("a job takes 1, 2, 4 or 8 GPUs")]
    GpuCount,
    /// Too many models are listed.
    #[error("a job lists at most 64 GPU models")]
    Allow,
    /// Too many labels.
    #[error("a job names at most 16 labels")]
    Labels,
    /// Outside the range.
    #[error("a priority is from -10 to 10")]
    Priority,
    /// More than the most.
    #[error("a job is retried at most 10 times")]
    RetryLimit,
    /// A limit that nothing can keep.
    #[error("a limit on price, cost or time is greater than zero")]
    ZeroLimit,
    /// A limit on cost that leaves nothing to go on with.
    #[error("it has cost as much as that already: set a higher limit on cost, or none")]
    Spent,
    /// Recordings on real hardware, or training on pretend hardware.
    #[error("a replay runs on replay hardware only, and nothing else does")]
    ReplayHardware,
    /// No worker could ever satisfy two of its wishes at once.
    #[error("its wishes contradict each other: {what}")]
    Contradiction {
        /// What cannot be.
        what: &'static str,
    },
    /// More credentials than a configuration has places for, or two with one name.
    #[error("a job needs at most 32 credentials, each with a name of its own")]
    Credentials,
    /// More hosts than a job may have.
    #[error("a job runs on 1 to 16 hosts")]
    Hosts,
    /// A task outside of its array.
    #[error("an array has 1 to 1,000 tasks, and at least one of them runs at a time")]
    Array,
    /// What was asked for is over already.
    #[error("it would have to be done by a time that is past")]
    Past,
    /// Later than anything may wait.
    #[error("a job waits at most 30 days: it has to begin before they are over")]
    TooLate,
    /// The workload is none that a real run asks for.
    #[error("the workload is out of bounds: {0}")]
    Workload(OutOfBounds),
}

impl JobSpec {
    /// Whether there is a part of it that logs before format 3 have no place for: its terms, how it prepares and shares
    /// itself, the later classes of clips, and the later reasons to stay off the record.
    pub(crate) fn is_behind(&self) -> bool {
        self.terms != Terms::default() || self.workload != self.estimated_before_format_3()
    }

    /// Its workload as logs before format 3 can hold it. What is lost makes its estimate better and changes nothing of what
    /// is run.
    pub(crate) fn estimated_before_format_3(&self) -> Workload {
        Workload {
            preparation: Preparation::default(),
            sharing: Sharing::default(),
            ..self.workload.in_first_words()
        }
    }

    /// A job on one GPU of any model with the default of everything.
    #[must_use]
    pub fn new(workload: Workload, staging: StagingId) -> Self {
        Self {
            name: None,
            workload,
            gpu_count: 1,
            allow: Vec::new(),
            min_memory_gib: 0,
            labels: BTreeMap::new(),
            objective: Objective::default(),
            max_price_per_hour: None,
            max_cost: None,
            max_runtime_ms: None,
            priority: 0,
            retry_limit: 3,
            staging,
            trainer: TrainerKind::default(),
            terms: Terms::default(),
        }
    }

    /// On how many hosts it runs at once, with [`Self::gpu_count`] GPUs on each.
    #[must_use]
    pub const fn hosts(&self) -> u8 {
        self.terms.more_hosts.saturating_add(1)
    }

    /// How many GPUs it takes on all its hosts: how many processes train together.
    #[must_use]
    pub const fn gpus(&self) -> u8 {
        self.gpu_count.saturating_mul(self.hosts())
    }

    /// Whether SimpleTuner can train it on its GPUs, as far as is known: it counts a data set of unknown size itself.
    #[must_use]
    pub fn can_train(&self) -> bool {
        matches!(
            self.workload.plan(self.gpus()),
            Ok(_) | Err(Missing::Samples { .. })
        )
    }

    /// The most GPUs a host below what it asks for, and at most so many, that it can be trained on.
    #[must_use]
    pub fn fewer_gpus(&self, most: usize) -> Option<u8> {
        let fewer = Hardware::COUNTS.into_iter().rev();
        let mut fewer =
            fewer.filter(|count| *count < self.gpu_count && usize::from(*count) <= most);
        let mut other = self.clone();
        fewer.find(|count| {
            other.gpu_count = *count;
            other.can_train()
        })
    }

    /// Whether everything is within its bounds.
    ///
    /// # Errors
    /// The first thing that is not.
    pub fn check(&self) -> Result<(), SpecError> {
        let limits = [
            self.max_price_per_hour.map(|UsdMicros(micros)| micros),
            self.max_cost.map(|UsdMicros(micros)| micros),
            self.max_runtime_ms,
        ];
        let replays = self.trainer == TrainerKind::Replay;
        match () {
            () if !Hardware::COUNTS.contains(&self.gpu_count) => Err(SpecError::GpuCount),
            () if self.allow.len() > ALLOW_MAX => Err(SpecError::Allow),
            () if self.labels.len() > LABELS_MAX => Err(SpecError::Labels),
            () if !PRIORITIES.contains(&self.priority) => Err(SpecError::Priority),
            () if self.retry_limit > RETRIES_MAX => Err(SpecError::RetryLimit),
            () if limits.contains(&Some(0)) => Err(SpecError::ZeroLimit),
            () if self.allow.iter().any(|gpu| gpu.is_replay() != replays) => {
                Err(SpecError::ReplayHardware)
            }
            () => self
                .terms
                .check(&self.labels)
                .and_then(|()| self.workload.check().map_err(SpecError::Workload)),
        }
    }

    /// Whether no worker, whatever it offers, and no time could satisfy it. Looked at when a job comes, from format 3 on;
    /// a job that came before is kept.
    ///
    /// # Errors
    /// What cannot be.
    pub fn check_sense(&self, now_ms: u64) -> Result<(), SpecError> {
        self.makes_sense(now_ms, now_ms, None)
    }

    /// The same of what a job that came into the queue at `queued_ms` is to ask for instead of what it asks for now. By when
    /// it was wished to be done may be past by then: it still runs, and everything else about it may change.
    ///
    /// # Errors
    /// What cannot be.
    pub fn check_change(&self, was: &Self, queued_ms: u64, now_ms: u64) -> Result<(), SpecError> {
        self.makes_sense(queued_ms, now_ms, was.terms.finish_by_ms)
    }

    fn makes_sense(
        &self,
        queued_ms: u64,
        now_ms: u64,
        wished_ms: Option<u64>,
    ) -> Result<(), SpecError> {
        let enough = |gpu: &GpuModel| !gpu.is_gpu() || gpu.memory_gib() >= self.min_memory_gib;
        let small = !self.allow.is_empty() && !self.allow.iter().any(enough);
        let finish_by_ms = self.terms.finish_by_ms;
        let past = finish_by_ms != wished_ms && finish_by_ms.is_some_and(|ms| ms <= now_ms);
        // At the end of its time in the queue it fails, and does not begin.
        let over_ms = queued_ms.saturating_add(QUEUE_AGE_MAX_MS);
        let late = self.terms.not_before_ms.is_some_and(|ms| ms >= over_ms);
        match () {
            () if small => Err(SpecError::Contradiction {
                what: "no GPU model that it allows has as much memory as it asks for",
            }),
            () if past => Err(SpecError::Past),
            () if late => Err(SpecError::TooLate),
            () => Ok(()),
        }
    }
}
