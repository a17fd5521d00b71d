//! Many submissions come and go with two syncs for all of them. Each step is one thing that a crash can fall before.
//!
//! First the files that go lose their names and are wiped, and those that come are written without one. Then all of it is
//! synced, then what was written gets its names, and then the folder is synced. So a name always has a whole file behind
//! it, and who is told that it is there can rely on it.

use std::collections::BTreeMap;
use std::fs::File;

use rustix::fs::{AtFlags, fstatvfs, statat};
use rustix::io::Errno;
use stepcast_scheduler::ids::StagingId;

use super::super::Put;
use super::Disk;
use super::spares::{Spare, write_all};

/// So few files are synced one by one: a sync of the whole file system would wait for what others have written to it.
const ONE_BY_ONE: usize = 3;

/// With less room than this on its disk the staging area takes nothing more.
const RESERVE_BYTES: u64 = 64 << 20;

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
    /// Where it is without its name, until it is gone for good.
    taken: Option<Spare>,
    wiped: Option<File>,
    outcome: Result<(), Refused>,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Unname(usize),
    Wipe(usize),
    Write(usize),
    Sync,
    Name(usize),
    SyncNames,
    Done,
}

/// What became of a batch, in the order it was given.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) coming: Vec<Result<Put, Refused>>,
    pub(super) going: Vec<Result<(), Refused>>,
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
            taken: None,
            wiped: None,
            outcome: Ok(()),
        });
        Self {
            coming: coming.collect(),
            going: going.collect(),
            next: Step::Unname(0),
            named: false,
        }
    }

    /// Does the next step; false when there is none.
    pub(super) fn step(&mut self, disk: &mut Disk) -> bool {
        self.next = match self.next {
            Step::Unname(index) if index < self.going.len() => {
                self.unname(disk, index);
                Step::Unname(index + 1)
            }
            Step::Unname(_) => Step::Wipe(0),
            Step::Wipe(index) if index < self.going.len() => {
                self.wipe(disk, index);
                Step::Wipe(index + 1)
            }
            Step::Wipe(_) => Step::Write(0),
            Step::Write(index) if index < self.coming.len() => {
                self.write(disk, index);
                Step::Write(index + 1)
            }
            Step::Write(_) => Step::Sync,
            Step::Sync => {
                self.sync(disk);
                Step::Name(0)
            }
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

    fn unname(&mut self, disk: &mut Disk, index: usize) {
        let going = &mut self.going[index];
        let spare = disk.spares.new_name();
        let mut unnamed = disk.spares.unname(&disk.root, &going.name, spare);
        // Without the file the answer is the same as without the folder for spare ones, but the file may be there.
        if unnamed == Err(Errno::NOENT) && disk.spares.renew() {
            unnamed = disk.spares.unname(&disk.root, &going.name, spare);
        }
        match unnamed {
            Ok(()) => {
                disk.count = disk.count.saturating_sub(1);
                self.named = true;
                going.taken = Some(spare);
            }
            Err(Errno::NOENT) => {}
            Err(error) => going.outcome = Err(error.into()),
        }
    }

    fn wipe(&mut self, disk: &Disk, index: usize) {
        let going = &mut self.going[index];
        let Some(spare) = going.taken else { return };
        match disk.spares.wipe(spare) {
            Ok(Some(file)) => going.wiped = Some(file),
            Ok(None) => going.taken = None,
            // It has lost its name, and goes with the folder of spare files.
            Err(error) => {
                going.taken = None;
                tracing::warn!(%error, "the files of a submission that is over are deleted later");
            }
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
                disk.count += 1;
                coming.written = Some(written);
            }
            Err(refused) => coming.outcome = Err(refused),
        }
    }

    fn sync(&mut self, disk: &mut Disk) {
        let written = self
            .coming
            .iter()
            .filter_map(|coming| coming.written.as_ref());
        let wiped = self.going.iter().filter_map(|going| going.wiped.as_ref());
        let files: Vec<&File> = written.map(|(_, file)| file).chain(wiped).collect();
        let synced = match files.len() {
            0 => Ok(()),
            1..=ONE_BY_ONE => files.iter().try_for_each(rustix::fs::fsync),
            _ => sync_all(disk, &files),
        };
        for going in &mut self.going {
            match (going.taken, synced) {
                (Some(spare), Ok(())) => disk.spares.keep(spare),
                (Some(spare), Err(_)) => disk.spares.delete(spare),
                (None, _) => {}
            }
        }
        let Err(error) = synced else { return };
        for coming in &mut self.coming {
            // What a failed sync has left in memory looks whole and may not be: it is not used again.
            if let Some((spare, _)) = coming.written.take() {
                disk.forget(spare);
                coming.outcome = Err(error.into());
            }
        }
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
    if disk.is_full() {
        return Err(Refused::Full);
    }
    let room = fstatvfs(&disk.root)?;
    if room.f_bavail.saturating_mul(room.f_frsize) < RESERVE_BYTES {
        return Err(Errno::NOSPC.into());
    }
    let mut spare = disk.spares.take();
    let mut file = disk.spares.file(spare);
    if file.as_ref().is_err_and(|error| *error == Errno::NOENT) && disk.spares.renew() {
        spare = disk.spares.take();
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

/// Everything that was written to the file system of these files is on disk.
#[cfg(target_os = "linux")]
fn sync_all(disk: &Disk, _files: &[&File]) -> Result<(), Errno> {
    rustix::fs::syncfs(&disk.root)
}

#[cfg(not(target_os = "linux"))]
fn sync_all(_disk: &Disk, files: &[&File]) -> Result<(), Errno> {
    files.iter().try_for_each(rustix::fs::fsync)
}
