//! What the staging thread does with submissions that come and go together: the small ones share a segment, the large ones
//! have a file each.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{StatVfs, fstatvfs};
use rustix::io::Errno;
use stepcast_scheduler::ids::StagingId;

use super::super::packed::unpack;
use super::super::{Behind, Put, private_dir};
use super::commit::{Commit, Outcome, Refused};
use super::count;
use super::segments::{Going, SMALL_BYTES_MAX, Segments};
use super::spares::{self, Spare, Spares};

/// A folder that looks full is counted anew this often at most: others may have deleted from it.
pub(super) const COUNT_AGAIN: Duration = Duration::from_secs(1);

/// With less room than this on its disk the staging area takes nothing more.
const RESERVE_BYTES: u64 = 64 << 20;

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) root: File,
    pub(super) path: PathBuf,
    pub(super) segments: Segments,
    pub(super) spares: Spares,
    /// Files of submissions when they were last counted, and what this process has added and removed since.
    pub(super) files: usize,
    most: usize,
    pub(super) counted: Instant,
}

impl Disk {
    /// Opens the folder, new or old, for at most so many submissions.
    pub(super) fn open(root: &Path, most: usize) -> io::Result<Self> {
        private_dir(true).create(root)?;
        spares::tidy(root, SystemTime::now())?;
        Ok(Self {
            root: File::open(root)?,
            path: root.to_owned(),
            segments: Segments::open(root)?,
            spares: Spares::open(root)?,
            files: count(root)?,
            most,
            counted: Instant::now(),
        })
    }

    /// Deletes what was written and got no name.
    pub(super) fn forget(&mut self, spare: Spare) {
        self.spares.delete(spare);
        self.files = self.files.saturating_sub(1);
    }

    /// Refuses one more than so many that are about to come when there are as many submissions as there may be, by all
    /// processes together.
    pub(super) fn has_place(&mut self, coming: usize) -> Result<(), Refused> {
        if self.count() + coming >= self.most && self.counted.elapsed() >= COUNT_AGAIN {
            self.recount();
        }
        if self.count() + coming >= self.most {
            return Err(Refused::Full);
        }
        Ok(())
    }

    /// Refuses when the disk is full.
    pub(super) fn has_room(&self) -> Result<(), Refused> {
        match is_low(&fstatvfs(&self.root)?) {
            true => Err(Errno::NOSPC.into()),
            false => Ok(()),
        }
    }

    /// Counts what is there by all processes.
    pub(super) fn recount(&mut self) {
        self.counted = Instant::now();
        self.files = count(&self.path).unwrap_or(self.files);
        self.segments.recount();
    }

    /// Submissions by all processes together, as far as is known.
    pub(super) fn count(&self) -> usize {
        self.files + self.segments.count()
    }
}

/// Whether a disk has so little room that nothing more is taken.
pub(super) const fn is_low(disk: &StatVfs) -> bool {
    disk.f_bavail.saturating_mul(disk.f_frsize) < RESERVE_BYTES
}

pub(super) type Outcomes = (Vec<Result<Put, Refused>>, Vec<Result<(), Refused>>);

/// What became of submissions that come and go, in their order. `written` is told the places of those that are written in
/// a segment and not synced yet, and what comes behind each.
pub(super) fn batch(
    disk: &mut Disk,
    coming: Vec<(StagingId, Vec<u8>)>,
    going: &[Going],
    written: &mut dyn FnMut(usize, Behind),
) -> Outcomes {
    let mut removed = remove(disk, going);
    let is_small: Vec<bool> = coming
        .iter()
        .map(|(_, packed)| packed.len() <= SMALL_BYTES_MAX)
        .collect();
    let places = is_small.iter().enumerate();
    let places: Vec<usize> = places
        .filter_map(|(place, is_small)| is_small.then_some(place))
        .collect();
    let (small, large): (Vec<_>, Vec<_>) = coming
        .into_iter()
        .partition(|(_, packed)| packed.len() <= SMALL_BYTES_MAX);
    let mut small_written = |index: usize, behind| written(places[index], behind);
    let mut small = put_small(disk, &small, &mut small_written).into_iter();
    let mut large = match large.is_empty() {
        true => Vec::new(),
        false => commit(disk, large, Vec::new()).coming,
    }
    .into_iter();
    let put = is_small.into_iter();
    let put = put.filter_map(|is_small| if is_small { small.next() } else { large.next() });
    let put = put.collect();
    if let Err(error) = disk.segments.sync() {
        for removed in removed.iter_mut().filter(|removed| removed.is_ok()) {
            *removed = Err(error.into());
        }
    }
    (put, removed)
}

/// Deletes submissions wherever they are.
fn remove(disk: &mut Disk, going: &[Going]) -> Vec<Result<(), Refused>> {
    if going.is_empty() {
        return Vec::new();
    }
    let there = match disk.segments.remove(going) {
        Ok(there) => there,
        Err(error) => return vec![Err(error.into()); going.len()],
    };
    let mut outcome: Vec<Result<(), Refused>> = vec![Ok(()); going.len()];
    let rest = |there: &[bool]| -> Vec<usize> {
        let missing = there.iter().enumerate().filter(|(_, there)| !**there);
        missing.map(|(index, _)| index).collect()
    };
    let missing = rest(&there);
    let ids = missing.iter().map(|index| going[*index].staging).collect();
    let mut elsewhere = Vec::new();
    for (index, removed) in missing.iter().zip(commit(disk, Vec::new(), ids).going) {
        match removed {
            Ok(true) => {}
            Ok(false) if going[*index].own => {}
            Ok(false) => elsewhere.push(going[*index]),
            Err(refused) => outcome[*index] = Err(refused),
        }
    }
    // What is nowhere may have been put by another process since this one has looked.
    if !elsewhere.is_empty()
        && let Err(error) = disk
            .segments
            .look()
            .and_then(|()| disk.segments.remove(&elsewhere))
    {
        return vec![Err(error.into()); going.len()];
    }
    outcome
}

/// Puts small submissions into a segment.
fn put_small(
    disk: &mut Disk,
    coming: &[(StagingId, Vec<u8>)],
    written: &mut dyn FnMut(usize, Behind),
) -> Vec<Result<Put, Refused>> {
    let mut outcome = Vec::new();
    let mut new: Vec<(StagingId, &[u8])> = Vec::new();
    let mut places = Vec::new();
    let room = match coming.is_empty() {
        true => return outcome,
        false => disk.has_room(),
    };
    for (staging, packed) in coming {
        let is_whole = |found: &[u8]| unpack(*staging, found).is_some();
        let twice = new.iter().any(|(earlier, _)| earlier == staging);
        outcome.push(if twice || disk.segments.has_put(*staging, is_whole) {
            Ok(Put::There)
        } else {
            room.and_then(|()| disk.has_place(new.len()))
                .map(|()| Put::New)
        });
        if outcome.last() == Some(&Ok(Put::New)) {
            places.push(outcome.len() - 1);
            new.push((*staging, packed));
        }
    }
    let mut new_written = |index: usize, behind| written(places[index], behind);
    let put = disk.segments.put(&new, &mut new_written);
    if let Err(error) = put {
        // What is there from before is there; whatever came with the others is not certain.
        for outcome in outcome.iter_mut().filter(|outcome| outcome.is_ok()) {
            *outcome = Err(error.into());
        }
    }
    outcome
}

/// Has submissions with a file each come and go.
pub(super) fn commit(
    disk: &mut Disk,
    coming: Vec<(StagingId, Vec<u8>)>,
    going: Vec<StagingId>,
) -> Outcome {
    let mut commit = Commit::new(coming, going);
    while commit.step(disk) {}
    commit.outcome()
}
