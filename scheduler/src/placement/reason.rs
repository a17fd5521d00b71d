//! Why a job does not run on a worker, or nowhere: a closed list, each with its tier, its name and what clears it.

use std::fmt;

/// Why not. Their order is that in which lines are shown; of several GPU models on one worker the last applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The worker's token was revoked: it leaves.
    Revoked,
    /// The worker cannot run the job's trainer.
    NoTrainer,
    /// A label the job asks for is missing or another.
    MissingLabel,
    /// The job has a price cap or a budget, and the worker has no price.
    NoPrice,
    /// It costs more an hour than the job allows.
    TooDear,
    /// What is left of the job's budget would be gone almost at once.
    BudgetTooSmall,
    /// Its GPUs are of models that the job does not allow.
    OtherGpu,
    /// Its GPUs have less memory than the job asks for.
    TooLittleMemory,
    /// It has not that many GPUs of one model.
    TooFewGpus,
    /// The job's budget is spent.
    BudgetSpent,
    /// The job waits before it is tried again.
    WaitsForRetry,
    /// The worker was not heard of.
    Lost,
    /// The worker takes nothing new.
    Draining,
    /// Its GPUs are in use.
    GpusBusy,
    /// Its free GPUs are kept for a job that has waited long enough.
    Reserved,
    /// A job ahead takes its free GPUs now.
    TakenNow,
    /// Nothing is against it.
    Free,
}

/// How far a job is from running. The first that applies is the headline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// No worker of the cluster could ever hold it.
    Never,
    /// It may not run yet, wherever.
    Held,
    /// A worker could hold it, and is busy, draining or lost.
    Capacity,
    /// Other jobs come first.
    Order,
    /// Nothing is in its way: it starts with the next look at the queue.
    New,
}

impl Reason {
    /// The tier it belongs to.
    #[must_use]
    pub const fn tier(self) -> Tier {
        match self {
            Self::Revoked
            | Self::NoTrainer
            | Self::MissingLabel
            | Self::NoPrice
            | Self::TooDear
            | Self::BudgetTooSmall
            | Self::OtherGpu
            | Self::TooLittleMemory
            | Self::TooFewGpus => Tier::Never,
            Self::BudgetSpent | Self::WaitsForRetry => Tier::Held,
            Self::Lost | Self::Draining | Self::GpusBusy => Tier::Capacity,
            Self::Reserved | Self::TakenNow => Tier::Order,
            Self::Free => Tier::New,
        }
    }

    /// Its stable name, such as `GPUS_BUSY`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Revoked => "REVOKED",
            Self::NoTrainer => "NO_TRAINER",
            Self::MissingLabel => "MISSING_LABEL",
            Self::NoPrice => "NO_PRICE",
            Self::TooDear => "TOO_DEAR",
            Self::BudgetTooSmall => "BUDGET_TOO_SMALL",
            Self::OtherGpu => "OTHER_GPU",
            Self::TooLittleMemory => "TOO_LITTLE_MEMORY",
            Self::TooFewGpus => "TOO_FEW_GPUS",
            Self::BudgetSpent => "BUDGET_SPENT",
            Self::WaitsForRetry => "WAITS_FOR_RETRY",
            Self::Lost => "LOST",
            Self::Draining => "DRAINING",
            Self::GpusBusy => "GPUS_BUSY",
            Self::Reserved => "RESERVED",
            Self::TakenNow => "TAKEN_NOW",
            Self::Free => "FREE",
        }
    }

    /// What clears it, said to the job's owner; empty where there is nothing to clear.
    #[must_use]
    pub const fn clears(self) -> &'static str {
        match self {
            Self::Revoked => "another worker, or a new token for this one",
            Self::NoTrainer => "a worker that offers the job's trainer",
            Self::MissingLabel => "a worker with the job's labels, or fewer labels",
            Self::NoPrice => "a price on the worker, or no price cap and no budget",
            Self::TooDear => "a higher price cap, or a cheaper worker",
            Self::BudgetTooSmall => "a larger budget, or a cheaper worker",
            Self::OtherGpu => "allowing this GPU model",
            Self::TooLittleMemory => "asking for less GPU memory",
            Self::TooFewGpus => "asking for fewer GPUs",
            Self::BudgetSpent => "a larger budget",
            Self::WaitsForRetry => "time",
            Self::Lost => "the worker's return",
            Self::Draining => "the worker's resumption",
            Self::GpusBusy => "the end of what runs there",
            Self::Reserved | Self::TakenNow => "the start of the jobs ahead",
            Self::Free => "",
        }
    }
}

impl Tier {
    /// Its stable name, such as `CAPACITY`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Never => "NEVER",
            Self::Held => "HELD",
            Self::Capacity => "CAPACITY",
            Self::Order => "ORDER",
            Self::New => "NEW",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Revoked => "revoked",
            Self::NoTrainer => "no trainer",
            Self::MissingLabel => "other labels",
            Self::NoPrice => "no price",
            Self::TooDear => "too dear",
            Self::BudgetTooSmall => "budget too small",
            Self::OtherGpu => "other GPU",
            Self::TooLittleMemory => "too little memory",
            Self::TooFewGpus => "too few GPUs",
            Self::BudgetSpent => "budget spent",
            Self::WaitsForRetry => "waits for retry",
            Self::Lost => "lost",
            Self::Draining => "draining",
            Self::GpusBusy => "GPUs busy",
            Self::Reserved => "GPUs reserved",
            Self::TakenNow => "GPUs taken now",
            Self::Free => "free",
        })
    }
}
