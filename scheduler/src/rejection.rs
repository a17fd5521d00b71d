//! Why a command was refused: data with a stable name, since a refusal changes nothing and breaks nothing.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, InstanceId, TokenId, WorkerId};
use crate::model::spec::SpecError;
use crate::model::{JobState, Label, TeamName};

/// A command was refused, and nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such job, or it has been forgotten.
    #[error("there is no such job")]
    NoSuchJob,
    /// There is no such worker.
    #[error("there is no such worker")]
    NoSuchWorker,
    /// There is no such token.
    #[error("there is no such token")]
    NoSuchToken,
    /// The job as it was submitted is outside its bounds.
    #[error("the job cannot be taken: {0}")]
    InvalidSpec(SpecError),
    /// What a worker offers is outside its bounds.
    #[error("the worker cannot be taken: {why}")]
    InvalidInventory {
        /// What is wrong.
        why: &'static str,
    },
    /// The request id was used for another command.
    #[error("this request id was used for something else")]
    RequestIdReused,
    /// Another unfinished job has these files.
    #[error("the uploaded files belong to another job")]
    StagingInUse,
    /// The job is over, and not because it was cancelled.
    #[error("the job is over already")]
    JobOver {
        /// How.
        state: JobState,
    },
    /// The epoch is not that of the job's newest attempt: the caller speaks of the past.
    #[error("epoch {given} is out of date")]
    StaleEpoch {
        /// The epoch that was named.
        given: Epoch,
        /// That of the newest attempt, if there is any.
        newest: Option<Epoch>,
    },
    /// The attempt is over.
    #[error("the attempt with epoch {epoch} is over")]
    AttemptOver {
        /// Which.
        epoch: Epoch,
    },
    /// The attempt is on several hosts and this is none of them, or it is on one host and has no parts.
    #[error("the attempt has no such part")]
    NoSuchPart,
    /// Nobody may come with this token.
    #[error("the token is not valid")]
    InvalidToken,
    /// A second worker came with the token of one that takes part.
    #[error("the token belongs to worker {name}, which runs elsewhere")]
    TokenInUse {
        /// The worker that has it.
        worker: WorkerId,
        /// Its name.
        name: Label,
        /// The state folder it runs on.
        instance: InstanceId,
    },
    /// There is a token with this name already.
    #[error("there is a worker token named {name} already")]
    NameTaken {
        /// The name.
        name: Label,
        /// The token that has it.
        token: TokenId,
    },
    /// There is a token with this hash already.
    #[error("the token exists already")]
    TokenExists,
    /// GPUs that run something are missing or other ones than before.
    #[error("GPUs that are in use have changed: wait until what runs there is over")]
    GpusInUse,
    /// Another instance has taken the worker's place, or it was removed.
    #[error("another process has taken the worker's place")]
    StaleInstance,
    /// A bound is reached.
    #[error("there are too many {what} already")]
    Full {
        /// Of what.
        what: &'static str,
    },
    /// Whoever submits has as many jobs that are not over as one person may have.
    #[error("one person may have {max} jobs that are not over, and {unfinished} of yours are not")]
    YoursFull {
        /// Those that they have.
        unfinished: usize,
        /// Most there may be.
        max: usize,
    },
    /// Too many requests of the last day are remembered to take another: try later.
    #[error("too many requests were made within a day")]
    Busy,
    /// More in one command than fits.
    #[error("the command holds too many {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// The command is not newer than what was applied.
    #[error("the entry is not newer than what was applied")]
    OutOfOrder,
    /// There is no such team.
    #[error("there is no team {name}")]
    NoSuchTeam {
        /// What it was called.
        name: String,
    },
    /// A team has parts or jobs, or is the one that is always there.
    #[error("the team stays: {why}")]
    TeamInUse {
        /// What keeps it.
        why: &'static str,
    },
    /// A team's rules are outside their bounds.
    #[error("the team cannot be set: {why}")]
    InvalidTeam {
        /// What is wrong.
        why: &'static str,
    },
    /// The team is for others.
    #[error("team {team} is not open to whom the job belongs to")]
    NotInTeam {
        /// The team.
        team: TeamName,
    },
    /// The job asks for more GPUs than its team may ever use.
    #[error("the job asks for {asked} GPUs, and team {team} may use {quota} at a time")]
    OverQuota {
        /// The team.
        team: TeamName,
        /// What it may use.
        quota: u32,
        /// What the job asks for.
        asked: u32,
    },
    /// The job's priority is higher than its team's may be.
    #[error("jobs of team {team} have a priority of {max} at most")]
    AbovePriority {
        /// The team.
        team: TeamName,
        /// The highest.
        max: i8,
    },
    /// Only a job that waits can be changed.
    #[error("the job does not wait any more: only what waits can be changed")]
    NotWaiting,
    /// The job has changed since the caller has seen it.
    #[error("the job has changed in the meantime")]
    Changed,
    /// A sweep of more tasks than one command may bring, or of none.
    #[error("an array has 1 to {max} tasks, and this one has {asked}: submit it in parts")]
    ArraySize {
        /// Most there may be.
        max: u32,
        /// How many there are.
        asked: u32,
    },
    /// A policy with a number outside of its bounds.
    #[error("the policy cannot be set: one of its numbers is out of bounds")]
    InvalidPolicy,
    /// There is no such organisation.
    #[error("there is no such organisation")]
    NoSuchOrg,
    /// There is nobody with this id.
    #[error("there is no such user")]
    NoSuchUser,
    /// Who asks may not do that to them.
    #[error(
        "only who rules over them may do that: an owner, an admin for all but owners, or an operator"
    )]
    NotAllowed,
    /// Operators belong to no organisation, and everybody else to one.
    #[error("an operator belongs to no organisation, and everybody else belongs to one")]
    RoleElsewhere,
    /// Nobody would be left who could let others in.
    #[error("an organisation keeps its last owner, and a cluster its last operator")]
    LastOne,
    /// Somebody or some organisation is called that already.
    #[error("{name} is taken")]
    AccountNameTaken {
        /// The name.
        name: Label,
    },
    /// The cluster is for one organisation, and there is one or was one.
    #[error(
        "this server is for one organisation, and there is one, or there was one and jobs have been submitted"
    )]
    SecondOrg,
    /// Some node does not know yet what this command asks for.
    #[error("not every node knows this command yet: it can be used once all are upgraded")]
    NotYet,
}

/// Why one placement of many was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dropped {
    /// The job is not waiting any more, or its attempt has another number.
    JobMoved,
    /// The job waits for a retry, or its budget is spent.
    JobHeld,
    /// The worker is gone, lost or draining.
    WorkerGone,
    /// A GPU is in use.
    GpuBusy,
    /// The GPUs are not what the job asks for.
    Unfit,
    /// A limit of its team, its array or the job itself is reached.
    Limited,
    /// The attempt may not be disturbed: it is over, was asked to stop already, or is too young, or its job was disturbed
    /// often enough.
    Settled,
}

impl Rejection {
    /// Its stable name, such as `STALE_EPOCH`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSuchJob => "NO_SUCH_JOB",
            Self::NoSuchWorker => "NO_SUCH_WORKER",
            Self::NoSuchToken => "NO_SUCH_TOKEN",
            Self::InvalidSpec(_) => "INVALID_SPEC",
            Self::InvalidInventory { .. } => "INVALID_INVENTORY",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::StagingInUse => "STAGING_IN_USE",
            Self::JobOver { .. } => "JOB_OVER",
            Self::StaleEpoch { .. } => "STALE_EPOCH",
            Self::AttemptOver { .. } => "ATTEMPT_OVER",
            Self::NoSuchPart => "NO_SUCH_PART",
            Self::InvalidToken => "INVALID_TOKEN",
            Self::TokenInUse { .. } => "TOKEN_IN_USE",
            Self::NameTaken { .. } => "NAME_TAKEN",
            Self::TokenExists => "TOKEN_EXISTS",
            Self::GpusInUse => "GPUS_IN_USE",
            Self::StaleInstance => "STALE_INSTANCE",
            Self::Full { .. } => "FULL",
            Self::YoursFull { .. } => "YOURS_FULL",
            Self::Busy => "BUSY",
            Self::TooMany { .. } => "TOO_MANY",
            Self::OutOfOrder => "OUT_OF_ORDER",
            Self::NoSuchTeam { .. } => "NO_SUCH_TEAM",
            Self::TeamInUse { .. } => "TEAM_IN_USE",
            Self::InvalidTeam { .. } => "INVALID_TEAM",
            Self::NotInTeam { .. } => "NOT_IN_TEAM",
            Self::OverQuota { .. } => "OVER_QUOTA",
            Self::AbovePriority { .. } => "ABOVE_PRIORITY",
            Self::NotWaiting => "NOT_WAITING",
            Self::Changed => "CHANGED",
            Self::ArraySize { .. } => "ARRAY_SIZE",
            Self::InvalidPolicy => "INVALID_POLICY",
            Self::NoSuchOrg => "NO_SUCH_ORG",
            Self::NoSuchUser => "NO_SUCH_USER",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::RoleElsewhere => "ROLE_ELSEWHERE",
            Self::LastOne => "LAST_ONE",
            Self::AccountNameTaken { .. } => "ACCOUNT_NAME_TAKEN",
            Self::SecondOrg => "SINGLE_TENANT",
            Self::NotYet => "NOT_YET",
        }
    }
}
