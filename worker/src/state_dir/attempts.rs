//! One private folder an attempt, `attempts/<epoch>`: what it was, how it ended, and its removal.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::removal::remove_all;
use super::{Error, StateDir, entries, list, private_folder, read_json, write_json};
use crate::agent::{Epoch, Outcome};
use crate::chain::chain;
use crate::order::is_job_id;

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

/// The numbers of the accounts that these attempts had.
pub(crate) fn accounts_of(left: &[LeftOver]) -> Vec<u32> {
    left.iter().filter_map(|one| one.attempt.account).collect()
}

impl StateDir {
    /// The attempt's private folder.
    pub fn attempt(&self, epoch: Epoch) -> PathBuf {
        self.attempts().join(epoch.to_string())
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
    /// other hosts, or `is_needed` says so, what it was stays written down, and is given.
    ///
    /// # Errors
    /// The first thing that cannot be removed; the rest is gone all the same, but for what it was.
    pub fn remove_own(
        &self,
        epoch: Epoch,
        is_needed: impl FnOnce(&AttemptRecord) -> bool,
    ) -> Result<Option<AttemptRecord>, Error> {
        let folder = self.attempt(epoch);
        let record = read_json::<AttemptRecord>(&folder.join("attempt.json"), "attempt");
        let stays = |one: &AttemptRecord| one.shared.is_some() || is_needed(one);
        let stays = record.ok().flatten().filter(stays);
        clear(&folder)?;
        if stays.is_none() {
            remove_all(&folder)?;
        }
        Ok(stays)
    }

    /// Removes what an attempt shares with other hosts, which are to be done with it.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn remove_shared(&self, attempt: &AttemptRecord) -> Result<(), Error> {
        attempt.shared.as_deref().map_or(Ok(()), remove_all)
    }

    /// Removes everything of an attempt but its outputs: what is its own, and then what it shares with other hosts, which are
    /// to be done with it.
    ///
    /// # Errors
    /// When something of it cannot be removed; what it was stays written down then.
    pub fn remove_attempt(&self, epoch: Epoch) -> Result<(), Error> {
        if let Some(attempt) = self.remove_own(epoch, |_| false)? {
            self.remove_shared(&attempt)?;
            remove_all(&self.attempt(epoch))?;
        }
        Ok(())
    }

    /// The attempts that an earlier process of this worker left behind. What is no attempt's folder, or has no readable record
    /// of it, is removed; what cannot be is told and stays until the next start.
    ///
    /// # Errors
    /// When the attempts cannot be listed.
    pub fn left_over(&self) -> Result<Vec<LeftOver>, Error> {
        let mut found = Vec::new();
        for entry in list(&self.attempts())? {
            if let Some(attempt) = self.attempt_in(&entry) {
                let outcome = read_json(&entry.join("outcome.json"), "outcome");
                let outcome = outcome.ok().flatten();
                found.push(LeftOver { attempt, outcome });
            } else if let Err(error) = remove_all(&entry) {
                let error = chain(&error);
                tracing::error!(error, "a folder of no attempt stays; remove it by hand");
            }
        }
        found.sort_by_key(|left| left.attempt.epoch);
        Ok(found)
    }
}

impl StateDir {
    fn attempts(&self) -> PathBuf {
        self.root.join("attempts")
    }

    /// What attempt this folder says it is of, if it may say so: only what the worker itself has written is believed, since
    /// much is killed and given away by it.
    fn attempt_in(&self, folder: &Path) -> Option<AttemptRecord> {
        let owner = |path: &Path| fs::symlink_metadata(path).ok().map(|data| data.uid());
        let epoch: Epoch = folder.file_name()?.to_str()?.parse().ok()?;
        let is_own = owner(folder)? == owner(&self.attempts())?;
        let record = read_json::<AttemptRecord>(&folder.join("attempt.json"), "attempt");
        let record = record.ok().flatten()?;
        (is_own && record.epoch == epoch && is_job_id(&record.job)).then_some(record)
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
    let removed = parts.iter().map(|part| remove_all(part));
    removed.fold(Ok(()), Result::and)
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

    #[test]
    fn what_the_worker_has_not_written_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let attempts = state.attempts();
        let put = |name: &str, record: &AttemptRecord| {
            fs::create_dir(attempts.join(name)).unwrap();
            write_json(&attempts.join(name).join("attempt.json"), record).unwrap();
        };
        put("trial", &record(4));
        put("5", &record(4));
        for (epoch, job) in [(6, "/etc"), (7, ".."), (8, "")] {
            let job = job.to_owned();
            let record = AttemptRecord {
                job,
                ..record(epoch)
            };
            put(&epoch.to_string(), &record);
        }
        fs::write(attempts.join("file"), "f").unwrap();
        put("9", &record(9));
        if rustix::process::geteuid().is_root() {
            put("10", &record(10));
            std::os::unix::fs::chown(attempts.join("10"), Some(1), None).unwrap();
        }
        let left = state.left_over().unwrap();
        let epochs = left.iter().map(|left| left.attempt.epoch);
        assert_eq!(epochs.collect::<Vec<_>>(), [9]);
        assert_eq!(list(&attempts).unwrap(), [attempts.join("9")]);
    }
}
