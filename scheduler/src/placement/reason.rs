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
    /// It carries a label that the job keeps away from.
    Avoided,
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
    /// It takes part in no gang: its operator has not said where other hosts reach it.
    NoGangs,
    /// There are fewer hosts like it than the job needs at once.
    TooFewHosts,
    /// The job's budget is spent.
    BudgetSpent,
    /// The job waits before it is tried again.
    WaitsForRetry,
    /// The job is not to begin yet.
    NotBefore,
    /// Somebody has to approve what it costs first.
    AwaitingApproval,
    /// The credentials that its configuration needs have to be given again.
    AwaitingCredentials,
    /// As many tasks of its array run as may at a time.
    ArrayFull,
    /// Its team uses as many GPUs as it may.
    QuotaFull,
    /// Its team has not enough money left for it.
    TeamBudget,
    /// The worker was not heard of.
    Lost,
    /// The worker takes nothing new.
    Draining,
    /// It could not start the job before, and others could take it.
    FailedThere,
    /// The job would begin anew there, and is done sooner where its checkpoint is.
    CheckpointElsewhere,
    /// A job with the same key runs there.
    KeyTaken,
    /// It has enough free, and too few others take new work.
    OthersAway,
    /// It has enough free, and too few others do.
    OthersBusy,
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
            | Self::Avoided
            | Self::NoPrice
            | Self::TooDear
            | Self::BudgetTooSmall
            | Self::OtherGpu
            | Self::TooLittleMemory
            | Self::TooFewGpus
            | Self::NoGangs
            | Self::TooFewHosts => Tier::Never,
            Self::BudgetSpent
            | Self::WaitsForRetry
            | Self::NotBefore
            | Self::AwaitingApproval
            | Self::AwaitingCredentials
            | Self::ArrayFull
            | Self::QuotaFull
            | Self::TeamBudget => Tier::Held,
            Self::Lost
            | Self::Draining
            | Self::FailedThere
            | Self::CheckpointElsewhere
            | Self::KeyTaken
            | Self::OthersAway
            | Self::OthersBusy
            | Self::GpusBusy => Tier::Capacity,
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
            Self::Avoided => "AVOIDED",
            Self::NoPrice => "NO_PRICE",
            Self::TooDear => "TOO_DEAR",
            Self::BudgetTooSmall => "BUDGET_TOO_SMALL",
            Self::OtherGpu => "OTHER_GPU",
            Self::TooLittleMemory => "TOO_LITTLE_MEMORY",
            Self::TooFewGpus => "TOO_FEW_GPUS",
            Self::NoGangs => "NO_GANGS",
            Self::TooFewHosts => "TOO_FEW_HOSTS",
            Self::BudgetSpent => "BUDGET_SPENT",
            Self::WaitsForRetry => "WAITS_FOR_RETRY",
            Self::NotBefore => "NOT_BEFORE",
            Self::AwaitingApproval => "AWAITING_APPROVAL",
            Self::AwaitingCredentials => "AWAITING_CREDENTIALS",
            Self::ArrayFull => "ARRAY_FULL",
            Self::QuotaFull => "QUOTA_FULL",
            Self::TeamBudget => "TEAM_BUDGET",
            Self::Lost => "LOST",
            Self::Draining => "DRAINING",
            Self::FailedThere => "FAILED_THERE",
            Self::CheckpointElsewhere => "CHECKPOINT_ELSEWHERE",
            Self::KeyTaken => "KEY_TAKEN",
            Self::OthersAway => "OTHERS_AWAY",
            Self::OthersBusy => "OTHERS_BUSY",
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
            Self::Avoided => "a worker without that label, or not keeping away from it",
            Self::NoPrice => "a price for its GPUs, or no price cap and no budget",
            Self::TooDear => "a higher price cap, or a cheaper worker",
            Self::BudgetTooSmall => "a larger budget, or a cheaper worker",
            Self::OtherGpu => "allowing this GPU model",
            Self::TooLittleMemory => "asking for less GPU memory",
            Self::TooFewGpus => "asking for fewer GPUs",
            Self::NoGangs => "a restart of the worker with --gang-address",
            Self::TooFewHosts => "more such workers, or asking for fewer hosts",
            Self::OthersAway => "the return or resumption of the others",
            Self::FailedThere => "free GPUs on another worker",
            Self::CheckpointElsewhere => "free GPUs where its checkpoint is, or time",
            Self::OthersBusy => "the end of what runs on the others",
            Self::BudgetSpent => "a larger budget",
            Self::WaitsForRetry | Self::NotBefore => "time",
            Self::AwaitingApproval => "somebody's approval, or a lower cost limit",
            Self::AwaitingCredentials => "giving them again",
            Self::ArrayFull => "the end of another task of the array",
            Self::QuotaFull => "the end of what its team runs, or a larger quota",
            Self::TeamBudget => "a larger budget, or the next period",
            Self::Lost => "the worker's return",
            Self::Draining => "the worker's resumption",
            Self::KeyTaken | Self::GpusBusy => "the end of what runs there",
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
            Self::Avoided => "a label to avoid",
            Self::NoPrice => "no price",
            Self::TooDear => "too dear",
            Self::BudgetTooSmall => "budget too small",
            Self::OtherGpu => "other GPU",
            Self::TooLittleMemory => "too little memory",
            Self::TooFewGpus => "too few GPUs",
            Self::NoGangs => "takes part in no gang",
            Self::TooFewHosts => "too few hosts",
            Self::BudgetSpent => "budget spent",
            Self::WaitsForRetry => "waits for retry",
            Self::NotBefore => "not before its time",
            Self::AwaitingApproval => "awaiting approval",
            Self::AwaitingCredentials => "awaiting credentials",
            Self::ArrayFull => "array at its limit",
            Self::QuotaFull => "team's quota in use",
            Self::TeamBudget => "team's budget too small",
            Self::Lost => "lost",
            Self::Draining => "draining",
            Self::FailedThere => "failed to start there",
            Self::CheckpointElsewhere => "has its checkpoint elsewhere",
            Self::KeyTaken => "another of its kind runs there",
            Self::OthersAway => "other hosts away",
            Self::OthersBusy => "other hosts busy",
            Self::GpusBusy => "GPUs busy",
            Self::Reserved => "GPUs reserved",
            Self::TakenNow => "GPUs taken now",
            Self::Free => "free",
        })
    }
}
