//! Submissions with a file each come and go with few syncs for all of them. Each step is one thing that a crash can fall
//! before.
//!
//! First the files that go are deleted, and those that come are written without a name. Then these are synced, then they
//! get their names, and then the folder is synced. So a name always has a whole file behind it, and who is told that it is
//! there can rely on it.

use std::collections::BTreeMap;
use std::fs::File;

use rustix::fs::{AtFlags, statat, unlinkat};
use rustix::io::Errno;
use stepcast_scheduler::ids::StagingId;

use super::super::Put;
use super::batch::Disk;
use super::spares::{Spare, errno, write_all};

/// Why a submission was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are as many as there may be.
    Full,
    /// The operating system refuses.
    System(Errno),
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

/// One batch.
#[derive(Debug)]
pub(super) struct Commit {
    coming: Vec<Coming>,
    going: Vec<Going>,
    next: Step,
    named: bool,
}

#[derive(Debug)]
struct Coming {
    name: String,
    packed: Vec<u8>,
    /// Where it was written.
    written: Option<(Spare, File)>,
    /// An earlier one of the same batch with the same id: what becomes of it becomes of this one.
    same_as: Option<usize>,
    outcome: Result<Put, Refused>,
}

#[derive(Debug)]
struct Going {
    name: String,
    /// Whether it was there.
    outcome: Result<bool, Refused>,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Delete(usize),
    Write(usize),
    Sync(usize),
    Name(usize),
    SyncNames,
    Done,
}

/// What became of a batch, in the order it was given.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) coming: Vec<Result<Put, Refused>>,
    /// Whether each was there.
    pub(super) going: Vec<Result<bool, Refused>>,
}

impl Commit {
    pub(super) fn new(coming: Vec<(StagingId, Vec<u8>)>, going: Vec<StagingId>) -> Self {
        let mut first = BTreeMap::new();
        let coming = coming.into_iter().enumerate();
        let coming = coming.map(|(index, (staging, packed))| Coming {
            name: staging.to_string(),
            packed,
            written: None,
            same_as: Some(*first.entry(staging).or_insert(index)).filter(|first| *first != index),
            outcome: Ok(Put::New),
        });
        let going = going.into_iter().map(|staging| Going {
            name: staging.to_string(),
            outcome: Ok(false),
        });
        Self {
            coming: coming.collect(),
            going: going.collect(),
            next: Step::Delete(0),
            named: false,
        }
    }

    /// Does the next step; false when there is none.
    pub(super) fn step(&mut self, disk: &mut Disk) -> bool {
        self.next = match self.next {
            Step::Delete(index) if index < self.going.len() => {
                self.delete(disk, index);
                Step::Delete(index + 1)
            }
            Step::Delete(_) => Step::Write(0),
            Step::Write(index) if index < self.coming.len() => {
                self.write(disk, index);
                Step::Write(index + 1)
            }
            Step::Write(_) => Step::Sync(0),
            Step::Sync(index) if index < self.coming.len() => {
                self.sync(disk, index);
                Step::Sync(index + 1)
            }
            Step::Sync(_) => Step::Name(0),
            Step::Name(index) if index < self.coming.len() => {
                self.name(disk, index);
                Step::Name(index + 1)
            }
            Step::Name(_) => Step::SyncNames,
            Step::SyncNames => {
                self.sync_names(disk);
                Step::Done
            }
            Step::Done => return false,
        };
        true
    }

    /// What became of everything, once all steps are done.
    pub(super) fn outcome(self) -> Outcome {
        let outcome = |file: &Coming| match file.same_as {
            Some(first) => self.coming[first].outcome.map(|_| Put::There),
            None => file.outcome,
        };
        Outcome {
            coming: self.coming.iter().map(outcome).collect(),
            going: self.going.into_iter().map(|file| file.outcome).collect(),
        }
    }

    fn delete(&mut self, disk: &mut Disk, index: usize) {
        let going = &mut self.going[index];
        let deleted = match unlinkat(&disk.root, &going.name, AtFlags::empty()) {
            // Version 0.1 kept a folder for each submission.
            Err(Errno::ISDIR) => {
                std::fs::remove_dir_all(disk.path.join(&going.name)).map_err(|error| errno(&error))
            }
            other => other,
        };
        match deleted {
            Ok(()) => {
                disk.files = disk.files.saturating_sub(1);
                self.named = true;
                going.outcome = Ok(true);
            }
            Err(Errno::NOENT) => {}
            Err(error) => going.outcome = Err(error.into()),
        }
    }

    fn write(&mut self, disk: &mut Disk, index: usize) {
        let coming = &mut self.coming[index];
        if coming.same_as.is_some() {
            return;
        }
        if statat(&disk.root, &coming.name, AtFlags::empty()).is_ok() {
            coming.outcome = Ok(Put::There);
            // Another process may have named it a moment ago; after the sync of the folder it is safe for this one too.
            self.named = true;
            return;
        }
        match write(disk, &coming.packed) {
            Ok(written) => {
                disk.files += 1;
                coming.written = Some(written);
            }
            Err(refused) => coming.outcome = Err(refused),
        }
    }

    fn sync(&mut self, disk: &mut Disk, index: usize) {
        let coming = &mut self.coming[index];
        let Some((_, file)) = &coming.written else {
            return;
        };
        let Err(error) = rustix::fs::fsync(file) else {
            return;
        };
        // What a failed sync has left in memory looks whole and may not be: it gets no name.
        if let Some((spare, _)) = coming.written.take() {
            disk.forget(spare);
        }
        coming.outcome = Err(error.into());
    }

    fn name(&mut self, disk: &mut Disk, index: usize) {
        let coming = &mut self.coming[index];
        let Some((spare, _)) = coming.written.take() else {
            return;
        };
        match disk.spares.name(spare, &disk.root, &coming.name) {
            Ok(()) => self.named = true,
            Err(error) => {
                disk.forget(spare);
                coming.outcome = Err(error.into());
            }
        }
    }

    fn sync_names(&mut self, disk: &Disk) {
        if !self.named {
            return;
        }
        if let Err(error) = rustix::fs::fsync(&disk.root) {
            for coming in self
                .coming
                .iter_mut()
                .filter(|coming| coming.outcome.is_ok())
            {
                coming.outcome = Err(error.into());
            }
            for going in self.going.iter_mut().filter(|going| going.outcome.is_ok()) {
                going.outcome = Err(error.into());
            }
        }
    }
}

fn write(disk: &mut Disk, packed: &[u8]) -> Result<(Spare, File), Refused> {
    disk.has_place(0)?;
    disk.has_room()?;
    let mut spare = disk.spares.new_name();
    let mut file = disk.spares.file(spare);
    if file.as_ref().is_err_and(|error| *error == Errno::NOENT) && disk.spares.renew() {
        spare = disk.spares.new_name();
        file = disk.spares.file(spare);
    }
    let file = file?;
    match write_all(&file, packed) {
        Ok(()) => Ok((spare, file)),
        Err(error) => {
            // What could not be finished takes no room, least of all on a full disk.
            disk.spares.delete(spare);
            Err(error.into())
        }
    }
}
