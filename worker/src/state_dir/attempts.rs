//! One private folder an attempt, `attempts/<epoch>`: what it was, how it ended, and its removal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::removal::remove_all;
use super::{Error, StateDir, at, entries, list, private_folder, read_json, write_json};
use crate::agent::{Epoch, Outcome};
use crate::chain::chain;

/// What in an attempt's folder says what it was and how it ended: the worker's own, whoever has the rest.
pub(crate) const ATTEMPT_OWN: [&str; 2] = ["attempt.json", "outcome.json"];

/// What is written down about an attempt before anything of it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The attempt's fencing token.
    pub epoch: Epoch,
    /// The job's id as the server writes it.
    pub job: String,
    /// The random word in the environment of every process of the attempt, by which left-over ones are found.
    pub marker: String,
    /// What else goes with it: the caches of a gang, which lie where all of its hosts reach them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<PathBuf>,
    /// The number of the account that it has, if that is not the worker's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<u32>,
}

/// An attempt's end, on disk before it is reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// The attempt's fencing token.
    pub epoch: Epoch,
    /// The job's id as the server writes it.
    pub job: String,
    /// The verdict.
    pub outcome: Outcome,
    /// Redacted lines saying why.
    pub detail: String,
    /// The last step that was done.
    pub step: u64,
}

/// An attempt folder found at start.
#[derive(Debug)]
pub struct LeftOver {
    /// What it was.
    pub attempt: AttemptRecord,
    /// Its end, if it came that far.
    pub outcome: Option<OutcomeRecord>,
}

impl StateDir {
    /// The attempt's private folder.
    pub fn attempt(&self, epoch: Epoch) -> PathBuf {
        self.root.join("attempts").join(epoch.to_string())
    }

    /// Makes an attempt's folder and writes down what it is.
    pub fn begin_attempt(&self, record: &AttemptRecord) -> Result<PathBuf, Error> {
        let folder = self.attempt(record.epoch);
        private_folder(&folder)?;
        write_json(&folder.join("attempt.json"), record)?;
        Ok(folder)
    }

    /// Puts an attempt's end on disk. Only after this may it be reported.
    pub fn end_attempt(&self, outcome: &OutcomeRecord) -> Result<(), Error> {
        let folder = self.attempt(outcome.epoch);
        private_folder(&folder)?;
        write_json(&folder.join("outcome.json"), outcome)
    }

    /// Removes what an attempt has in its own folder: configuration, training data caches, logs. If it shares something with
    /// other hosts, what it was stays written down until that is gone too, and is given.
    ///
    /// # Errors
    /// The first thing that cannot be removed; the rest is gone all the same, but for what it was.
    pub fn remove_own(&self, epoch: Epoch) -> Result<Option<AttemptRecord>, Error> {
        let folder = self.attempt(epoch);
        let record = read_json::<AttemptRecord>(&folder.join("attempt.json"), "attempt");
        let shares = record.ok().flatten().filter(|one| one.shared.is_some());
        clear(&folder)?;
        if shares.is_none() {
            remove(&folder)?;
        }
        Ok(shares)
    }

    /// Removes everything of an attempt but its outputs: what is its own, and then what it shares with other hosts, which are
    /// to be done with it.
    ///
    /// # Errors
    /// When something of it cannot be removed; what it was stays written down then.
    pub fn remove_attempt(&self, epoch: Epoch) -> Result<(), Error> {
        if let Some(AttemptRecord {
            shared: Some(shared),
            ..
        }) = self.remove_own(epoch)?
        {
            remove(&shared)?;
            remove(&self.attempt(epoch))?;
        }
        Ok(())
    }

    /// The attempts that an earlier process of this worker left behind. Folders without a readable record are removed; those
    /// that cannot be are told and stay until the next start.
    ///
    /// # Errors
    /// When the attempts cannot be listed.
    pub fn left_over(&self) -> Result<Vec<LeftOver>, Error> {
        let mut found = Vec::new();
        for entry in list(&self.root.join("attempts"))? {
            let attempt = read_json::<AttemptRecord>(&entry.join("attempt.json"), "attempt")
                .ok()
                .flatten();
            let outcome = read_json(&entry.join("outcome.json"), "outcome")
                .ok()
                .flatten();
            match attempt {
                Some(attempt) => found.push(LeftOver { attempt, outcome }),
                None => {
                    if let Err(error) = remove(&entry) {
                        let error = chain(&error);
                        tracing::error!(error, "a folder of no attempt stays; remove it by hand");
                    }
                }
            }
        }
        found.sort_by_key(|left| left.attempt.epoch);
        Ok(found)
    }
}

/// Removes what is in an attempt's folder but for what says what it was, if the folder is there: the settings first, which are
/// a person's own. What cannot be removed does not keep the rest.
fn clear(folder: &Path) -> Result<(), Error> {
    let mut parts = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => entries(folder)?,
    };
    parts.retain(|part| !ATTEMPT_OWN.iter().any(|name| part.ends_with(name)));
    parts.sort_by_key(|part| !part.ends_with("config"));
    let removed = parts.iter().map(|part| remove(part));
    removed.fold(Ok(()), Result::and)
}

/// Removes a folder, or a file, if it is there.
fn remove(path: &Path) -> Result<(), Error> {
    remove_all(path).map_err(at("remove", path))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::agent::Failure;

    fn record(epoch: Epoch) -> AttemptRecord {
        AttemptRecord {
            epoch,
            job: "jbbbb".to_owned(),
            marker: "m".to_owned(),
            shared: None,
            account: None,
        }
    }

    #[test]
    fn what_was_left_over_is_found_again_with_its_outcome() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let private = state.begin_attempt(&record(9)).unwrap();
        let mode = fs::metadata(&private).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        state.begin_attempt(&record(4)).unwrap();
        let outcome = OutcomeRecord {
            epoch: 9,
            job: "jbbbb".to_owned(),
            outcome: Outcome::Failed(Failure::OutOfMemory),
            detail: "d".to_owned(),
            step: 12,
        };
        state.end_attempt(&outcome).unwrap();
        fs::create_dir(folder.path().join("attempts/77")).unwrap();
        let left = state.left_over().unwrap();
        assert_eq!(
            left.iter()
                .map(|left| left.attempt.epoch)
                .collect::<Vec<_>>(),
            [4, 9]
        );
        assert_eq!(left[0].outcome, None);
        assert_eq!(left[1].outcome, Some(outcome));
        assert!(
            !state.attempt(77).exists(),
            "a folder that says nothing is removed"
        );
        state.remove_attempt(9).unwrap();
        state.remove_attempt(9).unwrap();
        assert_eq!(state.left_over().unwrap().len(), 1);
    }
}
