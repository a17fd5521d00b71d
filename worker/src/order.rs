//! What passes between this worker and the leader, in the worker's own words; `session` knows how it is written on the wire.

use std::fmt;

use stepcast_records::simpletuner::Workload;
use zeroize::Zeroizing;

use crate::agent::{Epoch, Outcome, Progress, Why};

/// From the leader.
#[derive(Debug)]
pub enum Order {
    /// Run this attempt.
    Assign(Box<Assignment>),
    /// End an attempt.
    Stop {
        /// Which one.
        epoch: Epoch,
        /// Why.
        why: Why,
        /// How long a checkpoint may take first; 0 for none.
        grace_ms: u64,
    },
    /// The answer to a renewal.
    Renewed {
        /// Its number.
        renewal: u64,
        /// The epochs that still hold their lease.
        epochs: Vec<Epoch>,
        /// How long each lease runs.
        term_ms: u64,
    },
    /// The end of this epoch is in the log, or the leader knows nothing of it any more.
    Acknowledged(Epoch),
    /// Take nothing new, end what runs.
    Drain {
        /// How long each trainer may take to save a checkpoint first; 0 for none.
        grace_ms: u64,
    },
}

/// Whether this is how the server writes a job's id. It becomes a folder's name, so nothing but small letters and digits is let
/// through.
pub(crate) fn is_job_id(id: &str) -> bool {
    let plain = id
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    plain && (1..=64).contains(&id.len())
}

/// One attempt to run.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The attempt's fencing token.
    pub epoch: Epoch,
    /// The job's id as the server writes it.
    pub job: String,
    /// Positions in this worker's list of devices.
    pub devices: Vec<u8>,
    /// What trains.
    pub trainer: TrainerKind,
    /// The job without paths and prompts: what its keys are worked out from.
    pub workload: Workload,
    /// How long its lease runs before the first renewal says so.
    pub lease_term_ms: u64,
    /// Longest time the trainer may run.
    pub max_runtime_ms: Option<u64>,
    /// The step of the job's newest checkpoint as far as the leader knows, 0 for none.
    pub resume_step: u64,
    /// Its place among the hosts of the job, if there are several.
    pub gang: Option<Gang>,
}

/// The place of this host among those that train a job together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gang {
    /// Its number, from 0: that one writes checkpoints and says when the work is complete.
    pub rank: u8,
    /// How many hosts there are, each with as many devices.
    pub hosts: u8,
    /// Where rank 0 waits for the others: a name or an address.
    pub main_host: String,
    /// And its port.
    pub main_port: u16,
    /// The step of the checkpoint that all of them go on from, 0 for none.
    pub resume_step: u64,
}

impl Assignment {
    /// How many processes train together on all hosts, one for each device.
    pub fn processes(&self) -> usize {
        let hosts = self.gang.as_ref().map_or(1, |gang| usize::from(gang.hosts));
        self.devices.len().max(1) * hosts
    }

    /// Whether this is a part of a gang that does not speak for it.
    pub fn is_follower(&self) -> bool {
        self.gang.as_ref().is_some_and(|gang| gang.rank > 0)
    }
}

/// What trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainerKind {
    /// SimpleTuner itself.
    SimpleTuner,
    /// A stream that is played.
    Replay,
}

/// To the leader.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// Renew these leases.
    Renew {
        /// Comes back in the answer.
        renewal: u64,
        /// The epochs.
        epochs: Vec<Epoch>,
    },
    /// The trainer runs.
    Started {
        /// Which attempt.
        epoch: Epoch,
        /// Its job's id as the server writes it.
        job: String,
        /// The step of the checkpoint that it goes on from, 0 for none.
        from: u64,
    },
    /// How far it is.
    Progress(Epoch, Progress),
    /// A checkpoint is complete.
    Checkpointed {
        /// Which attempt.
        epoch: Epoch,
        /// Its job's id as the server writes it.
        job: String,
        /// The checkpoint's step.
        step: u64,
    },
    /// The attempt is over.
    Ended(Ended),
    /// This worker was asked to stop, and is to be given nothing new.
    Leaving,
    /// What the trainer printed, redacted.
    Logs(Epoch, Vec<String>),
}

/// An attempt's end, as it is reported until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which attempt.
    pub epoch: Epoch,
    /// The job's id as the server writes it.
    pub job: String,
    /// The verdict.
    pub outcome: Outcome,
    /// Why, redacted.
    pub detail: String,
    /// The last step that was done.
    pub step: u64,
}

/// One file of a job, as it was submitted.
#[derive(Clone)]
pub struct JobFile {
    /// What it is for.
    pub role: FileRole,
    /// Its name, without folders.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A credential that the job's settings name, for the trainer's environment and nothing else. Overwritten when it is dropped.
#[derive(Clone)]
pub struct Credential {
    /// Such as `hub_token`.
    pub name: String,
    /// What it is.
    pub value: Zeroizing<String>,
}

/// What an attempt is given beside its assignment.
#[derive(Debug, Clone, Default)]
pub struct Handed {
    /// The job's files.
    pub files: Vec<JobFile>,
    /// What stands in them by its name only.
    pub credentials: Vec<Credential>,
}

/// What a job's file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRole {
    /// SimpleTuner's `config.json` (or TOML, or env).
    Config,
    /// The data loader's settings.
    DataLoader,
    /// The LyCORIS settings.
    Lycoris,
    /// The user's validation prompts.
    Prompts,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credential").field(&self.name).finish()
    }
}

/// Contents stay out of logs: they hold prompts and paths.
impl fmt::Debug for JobFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} bytes)", self.role, self.bytes.len())
    }
}
