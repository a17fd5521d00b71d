//! The worker's folder: its lock, its credential, one private folder an attempt, and samples waiting to be taken.
//!
//! `lock` · `instance.json` · `credential.json` · `attempts/<epoch>/{attempt.json,outcome.json,run/}` · `spool/<contribution>.json` ·
//! `made/<job>.json` · `outputs/<job>/`. A file is there whole or not at all: it is written beside its place, synced, and renamed.

mod attempts;
mod made;
mod removal;
mod spooled;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::attempts::{ATTEMPT_OWN, accounts_of};
pub use self::attempts::{AttemptRecord, LeftOver, OutcomeRecord};
pub use self::made::{Made, Removal};
pub(crate) use self::removal::remove_all;
pub use self::spooled::{Contribution, Look};
use crate::account::Ids;
use crate::random;

/// Contributions kept while no server takes them. Each is a few kilobytes; more than this says the server is gone for
/// good, and the oldest are the least useful.
pub const MAX_SPOOLED: usize = 4_096;

/// How long a contribution waits. The server knows for 30 days which ones it has, so a later one might be counted twice.
pub const SPOOLED_FOR: Duration = Duration::from_secs(28 * 24 * 60 * 60);

/// The worker's own folder, locked for this process.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    _lock: File,
    /// Contributions that seem to have waited for too long.
    late: spooled::Late,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another worker process has it.
    #[error("another worker already uses {0}; give this one a state folder of its own (--state)")]
    Locked(PathBuf),
    /// The operating system refused something.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is not readable as this version's {what}")]
    Format {
        /// What was expected.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Where it fails.
        #[source]
        source: serde_json::Error,
    },
}

/// Who this worker is to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The worker's id.
    pub worker: String,
    /// The secret that proves it.
    pub secret: String,
}

impl StateDir {
    /// Opens or makes the folder (0700) and locks it for as long as the value lives.
    pub fn open(root: &Path) -> Result<Self, Error> {
        for folder in ["", "attempts", "spool", "made", "outputs"] {
            private_folder(&root.join(folder))?;
        }
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let lock = lock.map_err(at("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Error::Locked(root.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(at("lock", &path)(source)),
        }
        let root = root.canonicalize().map_err(at("find", root))?;
        for folder in [root.clone(), root.join("spool"), root.join("made")] {
            remove_unfinished(&folder)?;
        }
        Ok(Self {
            root,
            _lock: lock,
            late: spooled::Late::default(),
        })
    }

    /// The folder's own name, drawn once: 32 hexadecimal digits that tell two workers with one token apart.
    pub fn instance(&self) -> Result<String, Error> {
        let path = self.root.join("instance.json");
        if let Some(instance) = read_json::<String>(&path, "instance")? {
            return Ok(instance);
        }
        let instance = random::token().map_err(at("draw a name for", &path))?;
        write_json(&path, &instance)?;
        Ok(instance)
    }

    /// Whether a worker with this folder has registered before.
    pub fn has_credential(root: &Path) -> bool {
        root.join("credential.json").exists()
    }

    /// The stored credential, if this worker has registered before.
    pub fn credential(&self) -> Result<Option<Credential>, Error> {
        read_json(&self.root.join("credential.json"), "credential")
    }

    /// Stores the credential, readable by this user only.
    pub fn store_credential(&self, credential: &Credential) -> Result<(), Error> {
        write_json(&self.root.join("credential.json"), credential)
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the job's results go unless the user chose another folder.
    pub fn outputs(&self) -> PathBuf {
        self.root.join("outputs")
    }
}

/// Makes a folder that only this user can enter.
pub fn private_folder(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(at("make", path))
}

/// Writes a file that only this user can read; it appears whole or not at all, also after a power cut.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_for(None, path, bytes)
}

/// The same for another account, which has it before it appears. The folder has to be the worker's own, since names in it are
/// followed.
pub(crate) fn write_for(account: Option<&Ids>, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let beside = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .map_err(at("write", &beside))?;
    let given = |file: &File| match account {
        Some(ids) => std::os::unix::fs::fchown(file, Some(ids.uid), Some(ids.gid)),
        None => Ok(()),
    };
    let written = file.write_all(bytes).and_then(|()| given(&file));
    if let Err(error) = written.and_then(|()| file.sync_all()) {
        // On a full disk even what is half written takes room from what comes next.
        let _gone = fs::remove_file(&beside);
        return Err(at("write", &beside)(error));
    }
    fs::rename(&beside, path).map_err(at("write", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at("sync", folder))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value);
    write_private(
        path,
        &bytes.map_err(|source| Error::Format {
            what: "file",
            path: path.to_owned(),
            source,
        })?,
    )
}

fn read_json<T: for<'a> Deserialize<'a>>(
    path: &Path,
    what: &'static str,
) -> Result<Option<T>, Error> {
    match fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(source) => Err(Error::Format {
                what,
                path: path.to_owned(),
                source,
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}

/// What a process that was killed had not finished writing: nobody was promised anything of it.
fn remove_unfinished(folder: &Path) -> Result<(), Error> {
    for path in entries(folder)?.iter().filter(|path| is_unfinished(path)) {
        remove_all(path)?;
    }
    Ok(())
}

/// The entries of a folder but for half-written files.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = entries(folder)?;
    paths.retain(|path| !is_unfinished(path));
    Ok(paths)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(at("list", folder))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<io::Result<_>>().map_err(at("list", folder))
}

fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "tmp")
}

/// Makes an error of what the operating system says of a path.
pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_process_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::open(folder.path()).unwrap();
        assert!(matches!(
            StateDir::open(folder.path()),
            Err(Error::Locked(_))
        ));
        drop(first);
        StateDir::open(folder.path()).unwrap();
    }

    #[test]
    fn what_a_killed_process_had_not_finished_writing_is_gone_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        drop(StateDir::open(folder.path()).unwrap());
        let unfinished = [
            folder.path().join("credential.tmp"),
            folder.path().join("spool").join("00.tmp"),
        ];
        for path in &unfinished {
            fs::write(path, "{\"id\":").unwrap();
        }
        let trial = folder.path().join("made/trial.tmp");
        fs::create_dir_all(trial.join("planted")).unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert!(unfinished.iter().all(|path| !path.exists()) && !trial.exists());
        assert_eq!(state.spooled().unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_credential_is_for_this_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert_eq!(state.credential().unwrap(), None);
        assert_eq!(state.instance().unwrap(), state.instance().unwrap());
        assert_eq!(state.instance().unwrap().len(), 32);
        let credential = Credential {
            worker: "w2".to_owned(),
            secret: "s".to_owned(),
        };
        state.store_credential(&credential).unwrap();
        assert_eq!(state.credential().unwrap(), Some(credential));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("credential.json")), 0o600);
    }
}
