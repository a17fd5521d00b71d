//! Contributions that wait on the disk until the server has them, and how old they are.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use stepcast_records::Sample;

use super::{Error, MAX_SPOOLED, SPOOLED_FOR, StateDir, at, list, read_json, write_json};
use crate::chain::chain;

/// Between the first look that finds a contribution too old and the one that deletes it.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Samples of one attempt under a random id, and nothing that leads back to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// 32 hexadecimal digits, drawn at random.
    pub id: String,
    /// What was measured.
    pub samples: Vec<Sample>,
    /// When it was made, in milliseconds since 1970 by the host's clock; 0 where an older version wrote it.
    #[serde(default)]
    pub made_ms: u64,
}

impl Contribution {
    /// What was measured until `now`.
    pub fn new(id: String, samples: Vec<Sample>, now: SystemTime) -> Self {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let made_ms = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        Self {
            id,
            samples,
            made_ms,
        }
    }

    /// When it was made, if it says so.
    fn made(&self) -> Option<SystemTime> {
        let since = (self.made_ms > 0).then_some(Duration::from_millis(self.made_ms))?;
        SystemTime::UNIX_EPOCH.checked_add(since)
    }
}

/// When what waits is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// By the host's clock, which may be wrong.
    pub wall: SystemTime,
    /// By a clock that nobody sets.
    pub at: Instant,
}

impl Look {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            at: Instant::now(),
        }
    }
}

/// Since when files have seemed too old without a break. After a restart the time begins anew.
#[derive(Debug, Default)]
pub(super) struct Late(Mutex<BTreeMap<PathBuf, Instant>>);

impl Late {
    /// Takes down that a file seems too old; whether it has for a day.
    fn is_over(&self, path: &Path, at: Instant) -> bool {
        // The data is whole after any panic: no step in here leaves it half changed.
        let mut late = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *late.entry(path.to_owned()).or_insert_with(|| {
            tracing::warn!(
                "samples seem to have waited for four weeks: they are not sent, and dropped in a day if this host's clock says \
                 so then as well"
            );
            at
        });
        at.saturating_duration_since(since) >= DAY
    }

    fn forget(&self, path: &Path) {
        let mut late = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        late.remove(path);
    }
}

impl StateDir {
    /// Keeps samples until the server has them. The oldest go when too many wait.
    pub fn spool(&self, contribution: &Contribution) -> Result<(), Error> {
        let folder = self.root.join("spool");
        let mut waiting = list(&folder)?;
        if waiting.len() >= MAX_SPOOLED {
            waiting.sort_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok());
            for path in &waiting[..=waiting.len() - MAX_SPOOLED] {
                fs::remove_file(path).map_err(at("remove", path))?;
                self.late.forget(path);
            }
        }
        write_json(
            &folder.join(format!("{}.json", contribution.id)),
            contribution,
        )
    }

    /// The files of the contributions that wait.
    pub fn spooled(&self) -> Result<Vec<PathBuf>, Error> {
        list(&self.root.join("spool"))
    }

    /// One that waits; `None` if it is gone or is not to be sent. What cannot be read is deleted, since it can never be sent, and
    /// so is what is older than [`SPOOLED_FOR`], since it might be counted twice: that by two looks a day apart, as a clock that
    /// is wrong is often set right by then.
    pub fn read_spooled(&self, path: &Path, look: Look) -> Result<Option<Contribution>, Error> {
        let written = match fs::metadata(path).and_then(|data| data.modified()) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.late.forget(path);
                return Ok(None);
            }
            Err(error) => return Err(at("read", path)(error)),
        };
        match read_json::<Contribution>(path, "contribution") {
            Ok(Some(contribution)) => {
                let made = contribution.made().unwrap_or(written);
                if look.wall.duration_since(made).unwrap_or_default() <= SPOOLED_FOR {
                    self.late.forget(path);
                    return Ok(Some(contribution));
                }
                if !self.late.is_over(path, look.at) {
                    return Ok(None);
                }
                tracing::warn!(
                    "samples have waited for four weeks and are dropped: nobody knows any more whether the server has them"
                );
            }
            Err(error @ Error::Format { .. }) => {
                tracing::warn!(error = chain(&error), "a spooled contribution is dropped");
            }
            gone_or_unread => return gone_or_unread,
        }
        fs::remove_file(path).map_err(at("remove", path))?;
        self.late.forget(path);
        Ok(None)
    }

    /// How many contributions wait.
    pub fn spooled_count(&self) -> Result<usize, Error> {
        Ok(self.spooled()?.len())
    }

    /// Forgets a contribution that the server has.
    pub fn unspool(&self, id: &str) -> Result<(), Error> {
        let path = self.root.join("spool").join(format!("{id}.json"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(at("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_contribution_waits_until_it_is_taken_and_a_torn_file_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let contribution = Contribution {
            id: "0a".to_owned(),
            ..Contribution::default()
        };
        state.spool(&contribution).unwrap();
        fs::write(folder.path().join("spool/torn.json"), b"{\"id\":").unwrap();
        fs::write(folder.path().join("spool/half.tmp"), b"{").unwrap();
        let now = Look::now();
        let waiting = || -> Vec<Contribution> {
            let paths = state.spooled().unwrap();
            let read = |path: &PathBuf| state.read_spooled(path, now).unwrap();
            paths.iter().filter_map(read).collect()
        };
        assert_eq!(waiting(), [contribution]);
        assert!(!folder.path().join("spool/torn.json").exists());
        state.unspool("0a").unwrap();
        assert_eq!(waiting(), []);
        let gone = folder.path().join("spool/0a.json");
        assert_eq!(state.read_spooled(&gone, now).unwrap(), None);
    }

    /// As files of an older version are, which say no time themselves.
    fn aged(state: &StateDir, contribution: &Contribution, age: Duration) -> PathBuf {
        state.spool(contribution).unwrap();
        let path = state
            .root
            .join("spool")
            .join(format!("{}.json", contribution.id));
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    }

    fn contribution(id: &str) -> Contribution {
        Contribution {
            id: id.to_owned(),
            ..Contribution::default()
        }
    }

    fn later(look: Look, by: Duration) -> Look {
        Look {
            at: look.at + by,
            wall: look.wall + by,
        }
    }

    #[test]
    fn what_the_server_may_have_and_have_forgotten_is_not_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let young = aged(&state, &contribution("0a"), SPOOLED_FOR - 2 * DAY);
        let old = aged(&state, &contribution("0b"), SPOOLED_FOR + DAY);
        let now = Look::now();
        assert!(state.read_spooled(&young, now).unwrap().is_some());
        assert_eq!(state.read_spooled(&old, now).unwrap(), None);
        assert!(old.exists(), "the clock may be wrong");
        assert_eq!(state.read_spooled(&old, later(now, DAY)).unwrap(), None);
        assert_eq!(state.spooled().unwrap(), [young]);
    }

    #[test]
    fn a_clock_that_is_wrong_for_a_while_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let path = aged(&state, &contribution("0a"), Duration::ZERO);
        let now = Look::now();
        let ahead = Look {
            wall: now.wall + 2 * SPOOLED_FOR,
            ..now
        };
        assert_eq!(state.read_spooled(&path, ahead).unwrap(), None);
        assert!(state.read_spooled(&path, now).unwrap().is_some());
        // What it said the first time counts no more.
        let again = later(ahead, DAY);
        assert_eq!(state.read_spooled(&path, again).unwrap(), None);
        assert!(path.exists());
    }

    /// One that was held in memory, or whose folder was copied, is as old as what was measured.
    #[test]
    fn a_contribution_says_itself_when_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let now = Look::now();
        let at = |age| Contribution {
            made_ms: Contribution::new(String::new(), Vec::new(), now.wall - age).made_ms,
            ..contribution("0a")
        };
        let path = aged(&state, &at(SPOOLED_FOR + DAY), Duration::ZERO);
        assert_eq!(state.read_spooled(&path, now).unwrap(), None);
        let path = aged(&state, &at(DAY), SPOOLED_FOR + DAY);
        assert!(state.read_spooled(&path, now).unwrap().is_some());
        fs::write(&path, br#"{"id":"0a","samples":[]}"#).unwrap();
        let older = state.read_spooled(&path, now).unwrap();
        assert_eq!(older, Some(contribution("0a")), "of an older version");
    }
}
