//! What a person asks for besides the work and the hardware: for whom, when, with whom together, and how firmly.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stepcast_records::UsdMicros;

use super::Label;
use super::limits::{CREDENTIALS_MAX, HOSTS_MAX, LABELS_MAX};
use super::spec::SpecError;
use crate::ids::{JobId, OrgId, TeamId, UserId};

/// The terms of a job. The default of everything is a job as every log before format 3 has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Who pays for it, and whose share it runs in.
    pub team: TeamId,
    /// When it may run at the earliest, by stamp.
    pub not_before_ms: Option<u64>,
    /// When its owner wants it done, by stamp. It is a wish: a job that is late still runs.
    pub finish_by_ms: Option<u64>,
    /// Labels that a worker must not carry.
    pub avoid: BTreeMap<Label, Label>,
    /// Jobs with the same key never run on one worker at the same time.
    pub spread: Option<Label>,
    /// How long an attempt is left in peace before its GPUs may be taken back, in milliseconds.
    pub min_run_ms: Option<u64>,
    /// How often its GPUs may be taken back for other jobs.
    pub preemptions_max: Option<u8>,
    /// What nine in ten such runs cost at most where it would run, as the estimate said when it was submitted or changed.
    pub expected_cost: Option<UsdMicros>,
    /// Which part of an array it is.
    pub array: Option<ArrayPart>,
    /// Whose it is, where that is asked for.
    pub owner: Option<Owner>,
    /// What the credentials are called that its configuration needs. Their values are in no log, snapshot or file. Written
    /// behind everything else, where there are any.
    #[serde(skip)]
    pub credentials: Vec<Label>,
    /// On how many hosts it runs at once beyond the first. Written behind the credentials, where there are any.
    #[serde(skip)]
    pub more_hosts: u8,
}

/// Whose a job is: two numbers, which say nothing by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The organisation.
    pub org: OrgId,
    /// Who in it.
    pub user: UserId,
}

/// One task of an array: jobs that were submitted together and differ in their files alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayPart {
    /// The first job of the array, by which it is called.
    pub array: JobId,
    /// Which task, from 0.
    pub index: u32,
    /// How many tasks there are.
    pub of: u32,
    /// How many of them may hold GPUs at the same time.
    pub parallel: u32,
}

impl Terms {
    /// Whether everything is within its bounds and nothing contradicts anything else.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn check(&self, labels: &BTreeMap<Label, Label>) -> Result<(), SpecError> {
        let both = |(key, value): (&Label, &Label)| labels.get(key) == Some(value);
        let empty_window = match (self.not_before_ms, self.finish_by_ms) {
            (Some(from), Some(to)) => from >= to,
            _ => false,
        };
        let part = |part: ArrayPart| part.index < part.of && part.parallel > 0;
        match () {
            () if self.avoid.len() > LABELS_MAX => Err(SpecError::Labels),
            () if self.avoid.iter().any(both) => Err(SpecError::Contradiction {
                what: "a worker cannot both carry a label and not carry it",
            }),
            () if empty_window => Err(SpecError::Contradiction {
                what: "it would have to be done before it may begin",
            }),
            () if !self.array.is_none_or(part) => Err(SpecError::Array),
            () if !self.names_credentials_well() => Err(SpecError::Credentials),
            () if self.more_hosts >= HOSTS_MAX => Err(SpecError::Hosts),
            () => Ok(()),
        }
    }

    /// Whether there are not too many credentials, and no two with the same name.
    fn names_credentials_well(&self) -> bool {
        let names = &self.credentials;
        let twice = names
            .iter()
            .enumerate()
            .any(|(at, name)| names[..at].contains(name));
        names.len() <= CREDENTIALS_MAX && !twice
    }
}
