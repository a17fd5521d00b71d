//! Which folders of results this worker has made itself, and since when their jobs are over: `made/<job>.json`.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::removal::remove_all;
use super::{AttemptRecord, Error, StateDir, at, list, private_folder, read_json, write_json};
use crate::agent::Epoch;
use crate::chain::chain;

/// A folder of results that this worker has made for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The job's id as the server writes it.
    pub job: String,
    /// The attempt that it was made for.
    pub epoch: Epoch,
    /// The folder, by a path without symbolic links.
    pub path: PathBuf,
    /// Its number in the file system, which tells it from another folder that has taken its place.
    pub inode: u64,
    /// The same of the folder that it lies in, which is another one while a disk is not mounted there. Versions that did not
    /// write it down wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_inode: Option<u64>,
    /// Since when the job is known to be over, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_since_ms: Option<u64>,
}

/// What came of removing a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// Somebody had removed it before.
    Missing,
    /// The folder that it lay in is not there, or another one is: a disk may not be mounted.
    OutOfReach,
    /// Somebody holds a lock on it, for example while it is copied.
    InUse,
    /// What is there is not the folder that was made, or is reached by a symbolic link: it is somebody else's to remove.
    Foreign,
}

impl StateDir {
    /// Makes a job's folder of results, readable by this user only, and remembers that. One that is there already stays as it
    /// is, and whose it is.
    ///
    /// # Errors
    /// When the folder cannot be made, or that cannot be remembered.
    pub fn make_output(&self, folder: &Path, job: &str, epoch: Epoch) -> Result<(), Error> {
        private_folder(folder.parent().unwrap_or(Path::new(".")))?;
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made.map_err(at("make", folder))?,
        }
        let inode = |path: &Path| {
            let data = fs::symlink_metadata(path).map_err(at("look at", path))?;
            Ok::<_, Error>(data.ino())
        };
        let path = folder.canonicalize().map_err(at("find", folder))?;
        self.remember(&Made {
            job: job.to_owned(),
            epoch,
            inode: inode(folder)?,
            parent_inode: path.parent().map(inode).transpose()?,
            path,
            over_since_ms: None,
        })
    }

    /// Writes down what is known of a folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember(&self, made: &Made) -> Result<(), Error> {
        write_json(&self.made_file(&made.job), made)
    }

    /// The folders that were made and not removed, by their jobs. A record that cannot be read is told and left out: what it
    /// was about stays.
    ///
    /// # Errors
    /// When the records cannot be listed.
    pub fn made(&self) -> Result<Vec<Made>, Error> {
        let mut found = Vec::new();
        for path in list(&self.root.join("made"))? {
            match read_json::<Made>(&path, "record of a folder") {
                Ok(made) => found.extend(made),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "a folder of results is not removed")
                }
            }
        }
        found.sort_by(|a, b| a.job.cmp(&b.job));
        Ok(found)
    }

    /// How many folders lie where results go unless the user chose another place, and are not known to be made by this worker:
    /// an older version has made them, or this one while all was to be kept, or a person has put them there. Nothing tells
    /// these apart, so they are never removed.
    ///
    /// # Errors
    /// When the folders or the records cannot be listed.
    pub fn unknown_outputs(&self) -> Result<usize, Error> {
        let made = self.made()?;
        let unknown = |path: &PathBuf| {
            let is_folder = fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
            is_folder && !made.iter().any(|made| made.path == *path)
        };
        let found = list(&self.outputs())?;
        Ok(found.iter().filter(|path| unknown(path)).count())
    }

    /// Whether an attempt of this job is here: it runs, or its end is not acknowledged yet. True as well while what an attempt
    /// was is written down and cannot be read.
    ///
    /// # Errors
    /// When the attempts cannot be listed.
    pub fn has_attempt(&self, job: &str) -> Result<bool, Error> {
        let attempts = list(&self.root.join("attempts"))?;
        Ok(attempts.iter().any(|folder| {
            let record = read_json::<AttemptRecord>(&folder.join("attempt.json"), "attempt");
            record.map_or(true, |record| {
                record.is_some_and(|record| record.job == job)
            })
        }))
    }

    /// Removes a folder of results with all that is in it, if it is the one that was made, and forgets it unless it is in use or
    /// out of reach.
    /// Symbolic links in it are removed and not followed.
    ///
    /// # Errors
    /// When something of it cannot be removed; it is remembered then.
    pub fn remove_output(&self, made: &Made) -> Result<Removal, Error> {
        let removal = remove(made)?;
        if !matches!(removal, Removal::InUse | Removal::OutOfReach) {
            let record = self.made_file(&made.job);
            fs::remove_file(&record).map_err(at("remove", &record))?;
        }
        Ok(removal)
    }

    fn made_file(&self, job: &str) -> PathBuf {
        self.root.join("made").join(format!("{job}.json"))
    }
}

fn remove(made: &Made) -> Result<Removal, Error> {
    let path = &made.path;
    let folder = match open(path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return not_found(made),
        // A symbolic link, or no folder.
        Err(error) if is_other(&error) => return Ok(Removal::Foreign),
        Err(error) => return Err(at("open", path)(error)),
    };
    let inode = folder.metadata().map_err(at("look at", path))?.ino();
    if inode != made.inode || path.canonicalize().map_err(at("find", path))? != *path {
        return Ok(Removal::Foreign);
    }
    // Where the file system has no such locks, nobody can hold one.
    if let Err(TryLockError::WouldBlock) = folder.try_lock() {
        return Ok(Removal::InUse);
    }
    remove_all(path)?;
    Ok(Removal::Removed)
}

/// What it means that a folder is not there: it was removed only if what it lay in still is.
fn not_found(made: &Made) -> Result<Removal, Error> {
    let parent = made.path.parent().unwrap_or(Path::new("/"));
    match fs::symlink_metadata(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Removal::OutOfReach),
        Err(error) => Err(at("look at", parent)(error)),
        Ok(data) if made.parent_inode.is_some_and(|inode| inode != data.ino()) => {
            Ok(Removal::OutOfReach)
        }
        Ok(_) => Ok(Removal::Missing),
    }
}

/// The folder itself, not one that a symbolic link in its place leads to.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

fn is_other(error: &io::Error) -> bool {
    let codes = [rustix::io::Errno::LOOP, rustix::io::Errno::NOTDIR];
    codes
        .iter()
        .any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Place {
        root: tempfile::TempDir,
        state: StateDir,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let state = StateDir::open(&root.path().join("state")).unwrap();
            Self { root, state }
        }

        fn folder(&self) -> PathBuf {
            self.root
                .path()
                .canonicalize()
                .unwrap()
                .join("outputs/jcats")
        }

        /// Made for a job, with a checkpoint in it.
        fn made(&self) -> Made {
            self.state.make_output(&self.folder(), "jcats", 7).unwrap();
            fs::create_dir(self.folder().join("checkpoint-10")).unwrap();
            fs::write(self.folder().join("checkpoint-10/weights"), "w").unwrap();
            self.state.made().unwrap().remove(0)
        }

        /// A folder of somebody's, with a file in it.
        fn others(&self) -> PathBuf {
            let others = self.root.path().join("others");
            fs::create_dir(&others).unwrap();
            fs::write(others.join("precious"), "p").unwrap();
            others
        }
    }

    #[test]
    fn what_was_made_is_removed_with_all_that_is_in_it_and_links_are_not_followed() {
        let place = Place::new();
        let made = place.made();
        assert_eq!((made.job.as_str(), made.epoch), ("jcats", 7));
        let others = place.others();
        symlink(&others, place.folder().join("link")).unwrap();
        symlink(others.join("precious"), place.folder().join("file")).unwrap();
        let removal = place.state.remove_output(&made).unwrap();
        assert_eq!(removal, Removal::Removed);
        assert!(!place.folder().exists() && others.join("precious").exists());
        assert!(place.folder().parent().unwrap().exists());
        assert_eq!(place.state.made().unwrap(), []);
    }

    #[test]
    fn what_was_there_before_is_nobody_s_to_remove() {
        let place = Place::new();
        fs::create_dir_all(place.folder()).unwrap();
        place
            .state
            .make_output(&place.folder(), "jcats", 7)
            .unwrap();
        assert_eq!(place.state.made().unwrap(), []);
        // Neither is what an operator has put elsewhere.
        fs::remove_dir(place.folder()).unwrap();
        symlink(place.others(), place.folder()).unwrap();
        place
            .state
            .make_output(&place.folder(), "jcats", 8)
            .unwrap();
        assert_eq!(place.state.made().unwrap(), []);
    }

    #[test]
    fn what_nobody_is_known_to_have_made_is_counted() {
        let place = Place::new();
        let outputs = place.state.outputs();
        let folder = |job: &str| fs::create_dir(outputs.join(job)).unwrap();
        assert_eq!(place.state.unknown_outputs().unwrap(), 0);
        ["jolder", "mine"].into_iter().for_each(folder);
        fs::write(outputs.join("notes"), "n").unwrap();
        symlink(place.others(), outputs.join("link")).unwrap();
        place
            .state
            .make_output(&outputs.join("jcats"), "jcats", 7)
            .unwrap();
        assert_eq!(place.state.unknown_outputs().unwrap(), 2);
    }

    #[test]
    fn what_has_taken_its_place_stays() {
        let link = |place: &Place| symlink(place.others(), place.folder()).unwrap();
        let file = |place: &Place| fs::write(place.folder(), "f").unwrap();
        let folder = |place: &Place| {
            // While the first one is there, so that its number is not given again.
            fs::create_dir(place.folder().with_extension("new")).unwrap();
            fs::rename(
                place.folder().with_extension("old"),
                place.root.path().join("moved"),
            )
            .unwrap();
            fs::rename(place.folder().with_extension("new"), place.folder()).unwrap();
        };
        let puts: [&dyn Fn(&Place); 3] = [&link, &file, &folder];
        for put in puts {
            let place = Place::new();
            let made = place.made();
            fs::rename(place.folder(), place.folder().with_extension("old")).unwrap();
            put(&place);
            assert_eq!(place.state.remove_output(&made).unwrap(), Removal::Foreign);
            assert!(fs::symlink_metadata(place.folder()).is_ok());
            assert_eq!(place.state.made().unwrap(), [], "it is not looked at again");
        }
    }

    #[test]
    fn the_way_to_it_may_not_lead_over_a_link() {
        let place = Place::new();
        let made = place.made();
        let outputs = place.folder().parent().unwrap().to_owned();
        fs::rename(&outputs, place.root.path().join("larger")).unwrap();
        symlink(place.root.path().join("larger"), &outputs).unwrap();
        assert_eq!(place.state.remove_output(&made).unwrap(), Removal::Foreign);
        assert!(place.folder().join("checkpoint-10/weights").exists());
    }

    #[test]
    fn what_is_locked_stays_until_it_is_not() {
        let place = Place::new();
        let made = place.made();
        let copying = File::open(place.folder()).unwrap();
        copying.lock_shared().unwrap();
        assert_eq!(place.state.remove_output(&made).unwrap(), Removal::InUse);
        drop(copying);
        assert_eq!(place.state.remove_output(&made).unwrap(), Removal::Removed);
        fs::create_dir(place.root.path().join("other")).unwrap();
        assert_eq!(place.state.made().unwrap(), []);
    }

    #[test]
    fn what_somebody_has_removed_is_forgotten() {
        let place = Place::new();
        let made = place.made();
        fs::remove_dir_all(place.folder()).unwrap();
        assert_eq!(place.state.remove_output(&made).unwrap(), Removal::Missing);
        assert_eq!(place.state.made().unwrap(), []);
    }

    /// As while a disk is not mounted: nothing is there, or the empty folder that it is mounted on.
    #[test]
    fn what_is_out_of_reach_is_remembered() {
        let place = Place::new();
        let made = place.made();
        let outputs = place.folder().parent().unwrap().to_owned();
        let away = place.root.path().join("away");
        fs::rename(&outputs, &away).unwrap();
        let remove = || place.state.remove_output(&made).unwrap();
        assert_eq!(remove(), Removal::OutOfReach);
        fs::create_dir(&outputs).unwrap();
        assert_eq!(remove(), Removal::OutOfReach);
        assert_eq!(place.state.made().unwrap().first(), Some(&made));
        fs::remove_dir(&outputs).unwrap();
        fs::rename(&away, &outputs).unwrap();
        assert_eq!(remove(), Removal::Removed);
        assert!(!place.folder().exists() && outputs.exists());
        assert_eq!(place.state.made().unwrap(), []);
    }

    #[test]
    fn what_an_older_version_has_written_down_is_read() {
        let text = r#"{"job":"jcats","epoch":7,"path":"/o/jcats","inode":3}"#;
        let made: Made = serde_json::from_str(text).unwrap();
        assert_eq!((made.inode, made.parent_inode), (3, None));
    }

    #[test]
    fn an_attempt_of_the_job_is_known_until_it_is_removed() {
        let place = Place::new();
        let record = AttemptRecord {
            epoch: 7,
            job: "jcats".to_owned(),
            marker: "m".to_owned(),
            shared: None,
            account: None,
        };
        assert!(!place.state.has_attempt("jcats").unwrap());
        place.state.begin_attempt(&record).unwrap();
        assert!(place.state.has_attempt("jcats").unwrap());
        assert!(!place.state.has_attempt("jdogs").unwrap());
        place.state.remove_attempt(7).unwrap();
        private_folder(&place.state.attempt(8)).unwrap();
        assert!(
            !place.state.has_attempt("jdogs").unwrap(),
            "a folder that says nothing is of no job"
        );
        fs::write(place.state.attempt(8).join("attempt.json"), "{").unwrap();
        assert!(place.state.has_attempt("jdogs").unwrap());
    }
}
