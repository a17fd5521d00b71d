//! What is in the segments of every process: found by looking through them, and tidied where a crash has left something.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::io::Errno;
use stepcast_scheduler::ids::StagingId;

use super::super::spares::errno;
use super::index::{Index, Place, SegmentId};
use super::record::{self, HEAD, Head, SLOT};

/// A submission that was deleted while it was read is looked for again so often.
const LOOKS: usize = 3;

/// A segment that its process may still write to, and has not for this long, is taken for one whose process has ended.
pub(super) const ABANDONED: Duration = Duration::from_secs(3_600);

/// What is behind the name of a segment whose process has ended, or was taken for one that has: nobody writes to it.
pub(super) const LEFT: &str = ".left";

/// All segments in a folder, as one process sees them.
#[derive(Debug)]
pub(super) struct Seen {
    path: PathBuf,
    /// The segments of this process.
    writer: u64,
    pub(super) index: Mutex<Index>,
}

/// A segment's file, looked through.
#[derive(Debug, Default)]
struct Content {
    bytes: u64,
    heads: BTreeMap<u32, Head>,
    /// Slots that hold neither a submission nor nothing.
    remains: Vec<u32>,
}

/// The segments in the folder, and whether their processes have left them.
type Listing = BTreeMap<SegmentId, bool>;

impl Seen {
    /// Looks through everything that is there.
    pub(super) fn open(path: &Path, writer: u64) -> io::Result<Self> {
        let seen = Self {
            path: path.to_owned(),
            writer,
            index: Mutex::default(),
        };
        seen.look(true)?;
        Ok(seen)
    }

    /// The file of a segment, under whichever name it has.
    pub(super) fn file(&self, segment: SegmentId, options: &OpenOptions) -> io::Result<File> {
        match options.open(self.path.join(segment.name())) {
            Err(error) if is_gone(&error) => options.open(self.path.join(segment.name() + LEFT)),
            file => file,
        }
    }

    /// The packed submission that `accept` takes, from any of its places; `None` when it has none.
    pub(super) fn read<T>(
        &self,
        staging: StagingId,
        accept: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<Result<T, Damaged>>> {
        for _ in 0..LOOKS {
            let places = self.index.lock().places(staging);
            if places.is_empty() {
                return Ok(None);
            }
            for (place, head) in places {
                let record = self.record(place, head)?;
                if let Some(taken) = record.as_deref().and_then(record::body).and_then(&accept) {
                    return Ok(Some(Ok(taken)));
                }
                if record.is_none() {
                    // Another process has deleted it.
                    self.index.lock().remove(staging, place);
                }
            }
            // It may have been deleted while it was read.
        }
        Ok(Some(Err(Damaged)))
    }

    /// The record in a place, if this is still how it begins.
    fn record(&self, place: Place, head: Head) -> io::Result<Option<Vec<u8>>> {
        let file = match self.file(place.segment, File::options().read(true)) {
            Err(error) if is_gone(&error) => return Ok(None),
            file => file?,
        };
        let mut record = vec![0; record::length(head.bytes)];
        let read = read_some(&file, u64::from(place.slot) * SLOT, &mut record)?;
        record.truncate(read);
        let is_there = record::head(place.segment.seed(), &record) == Some(head);
        Ok(is_there.then_some(record))
    }

    /// Looks for what other processes have written since: in all segments, or only in those that have grown.
    pub(super) fn look(&self, all: bool) -> io::Result<()> {
        let listing = list(&self.path)?;
        self.forget_gone(&listing);
        for segment in listing.keys().filter(|one| one.writer != self.writer) {
            let looked_at = self.index.lock().looked_at(*segment);
            let bytes = match self.file(*segment, File::options().read(true)) {
                Err(error) if is_gone(&error) => continue,
                file => file?.metadata()?.len(),
            };
            if all || looked_at != Some(bytes) {
                self.look_through(*segment)?;
            }
        }
        Ok(())
    }

    /// Looks through all segments, forgets what other processes have deleted from those of this one, and removes what
    /// crashes have left in those that nobody writes any more.
    pub(super) fn tidy(&self, now: SystemTime) -> io::Result<()> {
        let listing = list(&self.path)?;
        self.forget_gone(&listing);
        for (segment, is_left) in &listing {
            let newer = listing.range(*segment..).nth(1);
            let mut is_over =
                *is_left || newer.is_some_and(|(newer, _)| newer.writer == segment.writer);
            if !is_over && segment.writer != self.writer && self.is_abandoned(*segment, now) {
                self.leave(*segment)?;
                is_over = true;
            }
            let remains = self.look_through(*segment)?;
            if !is_over {
                continue;
            }
            self.erase_remains(*segment, &remains)?;
            if self.index.lock().live_in(*segment) == 0 {
                self.unlink(*segment)?;
            }
        }
        Ok(())
    }

    fn forget_gone(&self, listing: &Listing) {
        let mut index = self.index.lock();
        for segment in index.segments() {
            // What this process has begun a moment ago is not in a list from before.
            if segment.writer != self.writer && !listing.contains_key(&segment) {
                index.forget(segment);
            }
        }
    }

    /// Brings what is known of a segment in line with it; the slots in it that hold neither a submission nor nothing.
    fn look_through(&self, segment: SegmentId) -> io::Result<Vec<u32>> {
        let before = self.index.lock().submissions(segment);
        let content = match self.file(segment, File::options().read(true)) {
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            file => look_through(&file?, segment.seed())?,
        };
        let mut index = self.index.lock();
        // What this process writes it knows itself, once it is safe.
        let add = segment.writer != self.writer;
        index.found(segment, &before, content.bytes, &content.heads, add);
        Ok(content.remains)
    }

    fn is_abandoned(&self, segment: SegmentId, now: SystemTime) -> bool {
        let file = self.file(segment, File::options().read(true));
        let modified = file.and_then(|file| file.metadata()?.modified());
        modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age >= ABANDONED))
    }

    /// Has nobody write to a segment whose process seems to have ended. Should it live all the same, it looks after each
    /// write whether the segment still has its name: what it relies on was written before, and is found by whoever looks
    /// through the segment afterwards.
    fn leave(&self, segment: SegmentId) -> io::Result<()> {
        let name = self.path.join(segment.name());
        match std::fs::rename(&name, self.path.join(segment.name() + LEFT)) {
            Err(error) if !is_gone(&error) => Err(error),
            _ => File::open(&self.path)?.sync_all(),
        }
    }

    fn erase_remains(&self, segment: SegmentId, remains: &[u32]) -> io::Result<()> {
        if remains.is_empty() {
            return Ok(());
        }
        let file = match self.file(segment, File::options().write(true)) {
            Err(error) if is_gone(&error) => return Ok(()),
            file => file?,
        };
        for slot in remains {
            erase(&file, *slot, 1)?;
        }
        file.sync_data()
    }

    /// Deletes a segment.
    pub(super) fn unlink(&self, segment: SegmentId) -> io::Result<()> {
        for name in [segment.name(), segment.name() + LEFT] {
            match std::fs::remove_file(self.path.join(name)) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        self.index.lock().forget(segment);
        File::open(&self.path)?.sync_all()
    }
}

/// What is there is not what was put.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Damaged;

/// Has these slots hold nothing, and gives their blocks back where the file system can.
pub(super) fn erase(file: &File, slot: u32, slots: u32) -> Result<(), Errno> {
    let (at, bytes) = (u64::from(slot) * SLOT, u64::from(slots) * SLOT);
    match punch(file, at, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => overwrite(file, at, bytes),
        punched => punched,
    }
}

/// Whether the file system has holes.
#[cfg(test)]
pub(super) fn punches(file: &File) -> bool {
    punch(file, 1 << 40, SLOT).is_ok()
}

/// Writes zeros, for file systems that have no holes.
pub(super) fn overwrite(file: &File, at: u64, bytes: u64) -> Result<(), Errno> {
    let zeros = vec![0; usize::try_from(bytes).map_err(|_| Errno::FBIG)?];
    file.write_all_at(&zeros, at).map_err(|error| errno(&error))
}

#[cfg(target_os = "linux")]
fn punch(file: &File, at: u64, bytes: u64) -> Result<(), Errno> {
    use rustix::fs::FallocateFlags;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, at, bytes)
}

#[cfg(not(target_os = "linux"))]
fn punch(_file: &File, _at: u64, _bytes: u64) -> Result<(), Errno> {
    Err(Errno::OPNOTSUPP)
}

fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let (name, is_left) = match name.strip_suffix(LEFT) {
            Some(name) => (name, true),
            None => (name, false),
        };
        listing.extend(SegmentId::parse(name).map(|segment| (segment, is_left)));
    }
    Ok(listing)
}

fn look_through(file: &File, seed: u64) -> io::Result<Content> {
    let mut content = Content {
        bytes: file.metadata()?.len(),
        ..Content::default()
    };
    let slots = u32::try_from(content.bytes.div_ceil(SLOT)).unwrap_or(u32::MAX);
    let mut slot = 0;
    let mut buffer = vec![0; SLOT as usize];
    while slot < slots {
        let at = u64::from(slot) * SLOT;
        let read = read_some(file, at, &mut buffer[..HEAD])?;
        match record::head(seed, &buffer[..read]) {
            // What does not end within the file was not written whole.
            Some(head) if slot.saturating_add(head.slots()) <= slots => {
                content.heads.insert(slot, head);
                slot += head.slots();
            }
            _ => {
                let read = read_some(file, at, &mut buffer)?;
                if buffer[..read].iter().any(|byte| *byte != 0) {
                    content.remains.push(slot);
                }
                slot += 1;
            }
        }
    }
    Ok(content)
}

fn read_some(file: &File, at: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
