//! What goes into the log: commands, and the envelope they travel in.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use stepcast_records::UsdMicros;

use crate::accounts::{AccountChange, Actor};
use crate::codec;
use crate::ids::{
    AttemptNumber, Epoch, InstanceId, JobId, RequestId, StagingId, TokenHash, TokenId, WorkerId,
};
use crate::model::{
    FailureReason, Inventory, JobSpec, Label, Member, Outcome, Prices, Secret, TeamName, TeamRules,
};
use crate::policy::Policy;

/// A command as it stands in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// The format it is written in.
    pub version: u16,
    /// The leader's time, in milliseconds since 1970. The state takes the greatest it has seen.
    pub stamp_ms: u64,
    /// The caller's wish: the same id again gives the first reply again.
    pub request_id: Option<RequestId>,
    /// What is to be done.
    pub command: Command,
    /// In whose name, where that is known. Written from format 3 on: what is taken then stands in the audit trail.
    pub actor: Option<Actor>,
}

impl Envelope {
    /// An envelope in the newest format.
    #[must_use]
    pub const fn new(stamp_ms: u64, request_id: Option<RequestId>, command: Command) -> Self {
        Self {
            version: codec::VERSION,
            stamp_ms,
            request_id,
            command,
            actor: None,
        }
    }

    /// The same in somebody's name.
    #[must_use]
    pub const fn by(mut self, actor: Option<Actor>) -> Self {
        self.actor = actor;
        self
    }

    /// The same in the format that every node knows: that of the [`State`](crate::State) that it is proposed to.
    #[must_use]
    pub const fn in_format(mut self, format: u16) -> Self {
        self.version = if format < codec::FIRST {
            codec::FIRST
        } else {
            format
        };
        self
    }
}

/// What is to be done. Their order is part of the format: new ones are added at the end, with a new version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Put a job into the queue.
    SubmitJob {
        /// What is asked for.
        spec: Box<JobSpec>,
    },
    /// End a job: at once if it waits, and when its worker confirms if it runs.
    CancelJob {
        /// Which.
        job: JobId,
    },
    /// Let a new worker in.
    CreateWorkerToken {
        /// What it will be called; no two tokens have the same name.
        name: Label,
        /// The hash of its secret.
        hash: TokenHash,
    },
    /// Take a token back: its worker is given nothing more and what it runs is stopped.
    RevokeWorkerToken {
        /// Which.
        token: TokenId,
    },
    /// A worker says who it is and what it offers. It may say so again at any time.
    RegisterWorker {
        /// The hash of the secret it showed.
        token_hash: TokenHash,
        /// Its state folder.
        instance: InstanceId,
        /// What it offers.
        inventory: Inventory,
    },
    /// Give a worker nothing new.
    DrainWorker {
        /// Which.
        worker: WorkerId,
        /// Whether to stop what runs there as well, to go on elsewhere from its newest checkpoint.
        stop_running: bool,
    },
    /// Give a drained worker work again.
    ResumeWorker {
        /// Which.
        worker: WorkerId,
    },
    /// A worker was not heard of for a whole lease, or has said that it stops. Its leases end with what it runs, or by
    /// [`Command::ExpireLeases`], each in its own time.
    LoseWorker {
        /// Which.
        worker: WorkerId,
        /// The instance that was not heard of; another one that came since is not meant.
        instance: InstanceId,
    },
    /// Run these jobs there. Each is checked again, and dropped alone if it does not hold any more.
    Place {
        /// At most [`Epoch::PLACEMENTS_MAX`].
        placements: Vec<Placement>,
    },
    /// The worker says that the trainer runs.
    StartAttempt {
        /// Whose attempt.
        job: JobId,
        /// Which.
        epoch: Epoch,
    },
    /// The worker says that a checkpoint is complete.
    Checkpoint {
        /// Whose attempt.
        job: JobId,
        /// Which.
        epoch: Epoch,
        /// The checkpoint's step.
        step: u64,
    },
    /// The worker says that an attempt is over.
    EndAttempt {
        /// Whose attempt.
        job: JobId,
        /// Which.
        epoch: Epoch,
        /// How.
        outcome: Outcome,
        /// The last step that was done.
        step: u64,
        /// Redacted words about the end. Troubleshooting data: its tail is kept, as long as the job is.
        detail: String,
    },
    /// The leader says that these leases were not renewed.
    ExpireLeases {
        /// At most [`crate::model::limits::EXPIRED_MAX`]; those that are over already are left alone.
        expired: Vec<(JobId, Epoch)>,
    },
    /// End and forget what is older than it may be. Proposed while [`crate::State::is_sweep_due`].
    Sweep,
    /// From here on a node must know at least this format.
    Barrier {
        /// The format.
        version: u16,
    },
    /// Make a team, or give one other rules.
    SetTeam {
        /// Which. A part's other half is there before it.
        name: TeamName,
        /// What it is due and what it may from here on.
        rules: TeamRules,
    },
    /// Forget a team that has no part and no job that is not over.
    RemoveTeam {
        /// Which.
        name: TeamName,
    },
    /// A job may cost what it costs.
    ApproveJob {
        /// Which.
        job: JobId,
        /// The number of the job's newest event that the caller knew; refused if there is a newer one. It is written behind
        /// everything else, and nothing where anything may be approved.
        #[serde(skip)]
        seq: Option<u64>,
    },
    /// Ask for something else: while a job waits, all but its work and its files may be changed.
    UpdateJob {
        /// Which.
        job: JobId,
        /// What is asked for from here on. Its work, its files and its place in an array stay as they are.
        spec: Box<JobSpec>,
        /// The number of the job's newest event that the caller knew; refused if there is a newer one.
        seq: Option<u64>,
    },
    /// Put a sweep into the queue: jobs that differ in their files alone.
    SubmitArray {
        /// What is asked for, for each of them. Its own files are not looked at.
        spec: Box<JobSpec>,
        /// The files of each task: 1 to [`crate::model::limits::ARRAY_MAX`].
        tasks: Vec<StagingId>,
        /// How many may hold GPUs at the same time; 0 for all.
        parallel: u32,
    },
    /// End every job of an array that is not over.
    CancelArray {
        /// Its first job.
        array: JobId,
    },
    /// Take GPUs back. Each is looked at again, and left alone if it may not be disturbed any more.
    Preempt {
        /// At most [`crate::model::limits::PREEMPTIONS_PER_COMMAND`].
        preemptions: Vec<Preemption>,
    },
    /// Decide by another policy from here on.
    SetPolicy {
        /// The policy.
        policy: Policy,
    },
    /// Change who may use the cluster. It stands in the audit trail, whoever does it.
    Account {
        /// What is changed.
        change: AccountChange,
    },
    /// The leader holds the credentials of a waiting job again.
    GiveCredentials {
        /// Which.
        job: JobId,
    },
    /// The leader does not hold the credentials of these waiting jobs: they were in the memory of one that is gone. Those
    /// that do not wait, or need none, are left alone.
    MissCredentials {
        /// At most [`crate::model::limits::EXPIRED_MAX`].
        jobs: Vec<JobId>,
    },
    /// The worker of one part of a gang says that its trainer runs. The attempt has begun when all of them do.
    StartPart {
        /// Whose attempt.
        job: JobId,
        /// Which.
        epoch: Epoch,
        /// Whose part.
        worker: WorkerId,
    },
    /// The worker of one part of a gang says that it is over. The others are stopped if it was no success, or the first.
    EndPart {
        /// Whose attempt.
        job: JobId,
        /// Which.
        epoch: Epoch,
        /// Whose part.
        worker: WorkerId,
        /// How.
        outcome: Outcome,
        /// The last step that was done.
        step: u64,
        /// Redacted words about the end, as of [`Command::EndAttempt`].
        detail: String,
    },
    /// The leader says that the leases of these parts of gangs were not renewed.
    ExpireParts {
        /// At most [`crate::model::limits::EXPIRED_MAX`]; those that are over already are left alone.
        expired: Vec<(JobId, Epoch, WorkerId)>,
    },
    /// The same as [`Command::UpdateJob`], with what the caller has asked for beside what came of it: the same wish gives
    /// another result when the job is another one by then, and is the same request nevertheless.
    ReviseJob {
        /// Which.
        job: JobId,
        /// What is asked for from here on. Its work, its files and its place in an array stay as they are.
        spec: Box<JobSpec>,
        /// The number of the job's newest event that all of this was made of; refused if there is a newer one.
        seq: u64,
        /// A hash of the caller's own words: by it and the job alone the same request is known again.
        asked: u64,
    },
    /// Say whose jobs may run in a team from here on. What is in it already stays.
    SetTeamMembers {
        /// Which.
        name: TeamName,
        /// At most [`crate::model::limits::TEAM_MEMBERS_MAX`]; none for everybody.
        only: BTreeSet<Member>,
    },
    /// The leader says what the operator's book of prices says now. From here on it counts for workers that say no price of
    /// their own; what runs keeps the price that it was placed at.
    SetPrices {
        /// All of them.
        prices: Prices,
    },
    /// The worker says which step an attempt goes on from, where that is another than that of the job's newest checkpoint:
    /// on its host there is an older one only, or none, or one that nobody was told of.
    GoOnFrom {
        /// Whose attempt.
        job: JobId,
        /// Which.
        epoch: Epoch,
        /// The step, 0 for none.
        step: u64,
    },
    /// The leader says who belongs to the cluster, from its first entry of format 3 on and whenever that has changed. Where
    /// somebody has gone, or nobody has said so before, a new secret of the nodes counts from here on.
    NoteNodes {
        /// The entry of the log that this is as of.
        as_of: u64,
        /// Everybody, each with whether it votes.
        votes: BTreeMap<u64, bool>,
        /// The secret, should one be needed.
        secret: Secret,
    },
    /// Have another secret of the nodes count from here on.
    RenewSecret {
        /// The secret.
        secret: Secret,
    },
}

/// An attempt whose GPUs are taken back. It goes on later, from its newest checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preemption {
    /// Whose attempt.
    pub job: JobId,
    /// Which.
    pub epoch: Epoch,
    /// For which job. The same job: to go on where it fares better.
    pub for_job: Option<JobId>,
}

impl Command {
    /// The format that a log must have reached before this may stand in it.
    #[must_use]
    pub fn needs(&self) -> u16 {
        match self {
            Self::SubmitJob { spec } if !spec.is_behind() => codec::FIRST,
            Self::RegisterWorker { inventory, .. }
                if inventory.address.is_some() || inventory.outputs.is_some() =>
            {
                3
            }
            Self::Place { placements } if placements.iter().any(Placement::is_gang) => 3,
            Self::EndAttempt {
                outcome: Outcome::Failed(FailureReason::LeaseLost | FailureReason::CredentialsGone),
                ..
            } => 3,
            Self::SubmitJob { .. }
            | Self::SetTeam { .. }
            | Self::RemoveTeam { .. }
            | Self::ApproveJob { .. }
            | Self::UpdateJob { .. }
            | Self::SubmitArray { .. }
            | Self::CancelArray { .. }
            | Self::Preempt { .. }
            | Self::SetPolicy { .. }
            | Self::Account { .. }
            | Self::GiveCredentials { .. }
            | Self::MissCredentials { .. }
            | Self::StartPart { .. }
            | Self::EndPart { .. }
            | Self::ExpireParts { .. }
            | Self::ReviseJob { .. }
            | Self::SetTeamMembers { .. }
            | Self::SetPrices { .. }
            | Self::GoOnFrom { .. }
            | Self::NoteNodes { .. }
            | Self::RenewSecret { .. } => 3,
            Self::CancelJob { .. }
            | Self::CreateWorkerToken { .. }
            | Self::RevokeWorkerToken { .. }
            | Self::RegisterWorker { .. }
            | Self::DrainWorker { .. }
            | Self::ResumeWorker { .. }
            | Self::LoseWorker { .. }
            | Self::Place { .. }
            | Self::StartAttempt { .. }
            | Self::Checkpoint { .. }
            | Self::EndAttempt { .. }
            | Self::ExpireLeases { .. }
            | Self::Sweep
            | Self::Barrier { .. } => codec::FIRST,
        }
    }

    /// The job that it hands in or changes, of which a part is written behind the command.
    pub(crate) fn spec(&self) -> Option<&JobSpec> {
        match self {
            Self::SubmitJob { spec }
            | Self::UpdateJob { spec, .. }
            | Self::ReviseJob { spec, .. }
            | Self::SubmitArray { spec, .. } => Some(spec),
            _ => None,
        }
    }

    /// The same as a log of this format can hold it, where it differs in nothing but how well a run is estimated, by which
    /// word an end is called, or whether it is known which workers share their results. Else it still [`Self::needs`] another one.
    #[must_use]
    pub fn for_format(mut self, format: u16) -> Self {
        if let (Self::SubmitJob { spec }, ..3) = (&mut self, format) {
            spec.workload = spec.estimated_before_format_3();
        }
        if let (Self::EndAttempt { outcome, .. }, ..3) = (&mut self, format)
            && let Outcome::Failed(FailureReason::LeaseLost | FailureReason::CredentialsGone) =
                outcome
        {
            *outcome = Outcome::Failed(FailureReason::Preempted);
        }
        if let (Self::RegisterWorker { inventory, .. }, ..3) = (&mut self, format) {
            inventory.outputs = None;
        }
        self
    }

    /// The same, to be filled in.
    pub(crate) fn spec_mut(&mut self) -> Option<&mut JobSpec> {
        match self {
            Self::SubmitJob { spec }
            | Self::UpdateJob { spec, .. }
            | Self::ReviseJob { spec, .. }
            | Self::SubmitArray { spec, .. } => Some(spec),
            _ => None,
        }
    }
}

/// A job paired with a worker's GPUs, or with those of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Which job.
    pub job: JobId,
    /// The number its attempt would have, so that a placement proposed twice takes effect once.
    pub attempt: AttemptNumber,
    /// Whose GPUs: of several hosts, those of rank 0.
    pub worker: WorkerId,
    /// Which of them, by position, ascending.
    pub gpus: Vec<u8>,
    /// What is expected.
    pub note: PlacementNote,
    /// The GPUs of the other hosts, by rank from 1. Written behind the command, where there are any.
    #[serde(skip)]
    pub others: Vec<Seat>,
}

/// GPUs of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Whose GPUs.
    pub worker: WorkerId,
    /// Which of them, by position, ascending.
    pub gpus: Vec<u8>,
}

impl Placement {
    /// Whether it is on several hosts.
    #[must_use]
    pub const fn is_gang(&self) -> bool {
        !self.others.is_empty()
    }

    /// Its workers and their GPUs, by rank.
    pub fn seats(&self) -> impl Iterator<Item = (WorkerId, &[u8])> {
        let first = (self.worker, self.gpus.as_slice());
        let others = self.others.iter();
        std::iter::once(first).chain(others.map(|seat| (seat.worker, seat.gpus.as_slice())))
    }
}

/// What was expected of an attempt when it was placed. Nothing is decided by it afterwards but when GPUs may be free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementNote {
    /// Half of such runs take at most this long, in milliseconds.
    pub run_ms_p50: Option<u64>,
    /// Nine in ten such runs take at most this long, in milliseconds.
    pub run_ms_p90: Option<u64>,
    /// What half of such runs cost at most.
    pub cost_p50: Option<UsdMicros>,
}
