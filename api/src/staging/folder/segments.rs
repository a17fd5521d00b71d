//! Small submissions, many in a file: a segment. Each is put behind the last one with one sync for all that came together,
//! and each is deleted by itself, as a hole in the file; a segment with nothing left in it is deleted as a whole.
//!
//! A process writes to segments of its own, one after the other, and never to the same place twice. So any process may
//! read and delete in any segment at any time: what it takes for a submission's place is that submission's or nothing.
//! A process that starts begins a segment of its own and finds the others' by looking through them. Nothing but the bytes
//! in the segments says what is there: there is no list that could disagree with them after a crash.

mod index;
mod look;
mod record;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod whole;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;
use stepcast_scheduler::ids::StagingId;

use self::index::{Place, SegmentId};
use self::look::{Damaged, Seen, erase, is_gone};
use self::record::{Head, SLOT};
pub(in super::super) use self::whole::in_segment;
use super::super::{Behind, private_dir};
use super::spares::errno;

/// The folder of the segments below the staging area.
pub(in super::super) const SEGMENTS: &str = "segments";

/// A larger submission gets a file of its own: in a segment it would only be copied around.
pub(super) const SMALL_BYTES_MAX: usize = 64 << 10;

/// A segment that is as long takes nothing more: a thousand usual submissions, so that making and deleting files does not
/// count, and few enough that a last job that runs for weeks holds no large file.
const SEGMENT_BYTES: u64 = 4 << 20;

/// No segment is as long: the last submission in it may end behind what it takes.
pub(in super::super) const SEGMENT_BYTES_MAX: u64 = 2 * SEGMENT_BYTES;

/// What other processes have written is looked for this often, when there is something to delete: it may be there twice.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The segments of a folder, with the one that this process writes.
#[derive(Debug)]
pub(super) struct Segments {
    path: PathBuf,
    folder: File,
    writer: u64,
    made: u32,
    open: Option<Open>,
    seen: Arc<Seen>,
    looked: Instant,
}

/// The segment that is written.
#[derive(Debug)]
struct Open {
    id: SegmentId,
    file: File,
    inode: u64,
    slots: u32,
    /// Whether something in it was deleted that is not yet so on disk.
    erased: bool,
}

/// A submission that is to be deleted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Going {
    pub(super) staging: StagingId,
    /// Only what this process has put itself.
    pub(super) own: bool,
}

/// What readers need of it.
#[derive(Debug, Clone)]
pub(super) struct Reader(Arc<Seen>);

impl Segments {
    /// Opens the folder of segments in this staging area, new or old.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let path = root.join(SEGMENTS);
        private_dir(true).create(&path)?;
        let writer = rand::random();
        Ok(Self {
            seen: Arc::new(Seen::open(&path, writer)?),
            folder: File::open(&path)?,
            path,
            writer,
            made: 0,
            open: None,
            looked: Instant::now(),
        })
    }

    /// What readers need.
    pub(super) fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.seen))
    }

    /// Submissions in all segments.
    pub(super) fn count(&self) -> usize {
        self.seen.index.lock().len()
    }

    /// Whether this process has put this submission and it is there, as `accept` finds it. What another process has put is
    /// not relied on: that process may still take it back, for a request that came to nothing there.
    pub(super) fn has_put(&self, staging: StagingId, accept: impl Fn(&[u8]) -> bool) -> bool {
        let places = self.seen.index.lock().places(staging);
        let is_own = |place: Place| place.segment.writer == self.writer;
        places.iter().any(|(place, _)| is_own(*place))
            && matches!(
                self.seen
                    .read(staging, |packed| accept(packed).then_some(())),
                Ok(Some(Ok(())))
            )
    }

    /// Puts packed submissions; all of them are on disk when it returns, or none counts. `written` is told the number of
    /// each as soon as it is written and found, which is before it is on disk.
    pub(super) fn put(
        &mut self,
        coming: &[(StagingId, &[u8])],
        written: &mut dyn FnMut(usize, Behind),
    ) -> Result<(), Errno> {
        let mut rest = coming;
        while !rest.is_empty() {
            let room = SEGMENT_BYTES / SLOT;
            let mut slots = self.open.as_ref().map_or(0, |open| u64::from(open.slots));
            let fits = rest.iter().take_while(|(_, packed)| {
                let before = slots;
                slots += u64::from(record::slots(length(packed)));
                before < room
            });
            let (now, later) = rest.split_at(fits.count());
            if now.is_empty() {
                self.seal();
                continue;
            }
            let first = coming.len() - rest.len();
            self.write(now, &mut |index, behind| written(first + index, behind))?;
            rest = later;
        }
        Ok(())
    }

    /// Deletes submissions wherever they are, or what this process has put of them; which of them were there.
    /// [`Self::sync`] has it on disk.
    pub(super) fn remove(&mut self, going: &[Going]) -> Result<Vec<bool>, Errno> {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.seen.look(false).map_err(|error| errno(&error))?;
        }
        let mut places: BTreeMap<SegmentId, Vec<(Place, Head)>> = BTreeMap::new();
        let mut there = Vec::with_capacity(going.len());
        {
            let mut index = self.seen.index.lock();
            for going in going {
                let taken = index.take(going.staging, going.own.then_some(self.writer));
                there.push(!taken.is_empty());
                for (place, head) in taken {
                    places.entry(place.segment).or_default().push((place, head));
                }
            }
        }
        let mut outcome = Ok(there);
        for (segment, mut places) in places {
            places.sort_unstable_by_key(|(place, _)| *place);
            if let Err(error) = self.erase(segment, &places) {
                // They are still there, so they are known again, and whoever asked is told.
                let mut index = self.seen.index.lock();
                for (place, head) in places {
                    index.insert(place, head);
                }
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Looks for submissions that other processes have put, where nothing else has helped.
    pub(super) fn look(&self) -> Result<(), Errno> {
        self.seen.look(true).map_err(|error| errno(&error))
    }

    /// What was deleted is so on disk.
    pub(super) fn sync(&mut self) -> Result<(), Errno> {
        if let Some(open) = self.open.as_mut().filter(|open| open.erased) {
            rustix::fs::fdatasync(&open.file)?;
            open.erased = false;
        }
        Ok(())
    }

    /// Counts anew what is there.
    pub(super) fn recount(&self) {
        if let Err(error) = self.seen.tidy(SystemTime::now()) {
            tracing::warn!(%error, "the segments of the staging area could not be looked through");
        }
    }

    /// The end of the process: a segment without submissions goes with it.
    pub(super) fn close(&mut self) {
        self.seal();
    }

    /// Writes to the open segment, or to a new one, and syncs it.
    fn write(
        &mut self,
        coming: &[(StagingId, &[u8])],
        written: &mut dyn FnMut(usize, Behind),
    ) -> Result<(), Errno> {
        let put_ms = ms(SystemTime::now());
        let mut told = false;
        // Once more when another process took this one for ended and has taken the segment's name away.
        for _ in 0..2 {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.begin()?,
            };
            let mut bytes = Vec::new();
            let mut heads = Vec::with_capacity(coming.len());
            for (staging, packed) in coming {
                let slot = open.slots + slots(&bytes);
                let head = Head {
                    staging: *staging,
                    put_ms,
                    bytes: length(packed),
                };
                record::add(&mut bytes, open.id.seed(), put_ms, packed);
                let segment = open.id;
                heads.push((Place { segment, slot }, head));
            }
            let at = u64::from(open.slots) * SLOT;
            let wrote = open.file.write_all_at(&bytes, at);
            let mut wrote = wrote.map_err(|error| errno(&error));
            if wrote.is_ok() && self.is_named(&open) {
                self.know(&heads);
                if !std::mem::replace(&mut told, true) {
                    let last = coming.len() - 1;
                    (0..last).for_each(|index| written(index, Behind::More));
                    written(last, Behind::Nothing);
                }
                wrote = rustix::fs::fdatasync(&open.file);
                if wrote.is_ok() && self.is_named(&open) {
                    open.erased = false;
                    open.slots += slots(&bytes);
                    self.open = Some(open);
                    return Ok(());
                }
                self.forget(&heads);
            }
            if let Err(error) = wrote {
                // What a failed sync has left in memory looks whole and may not be. It is not read, and nothing more is
                // written behind it.
                let _ = erase(&open.file, open.slots, slots(&bytes));
                return Err(error);
            }
        }
        Err(Errno::STALE)
    }

    /// These are there.
    fn know(&self, heads: &[(Place, Head)]) {
        let mut index = self.seen.index.lock();
        for (place, head) in heads {
            index.insert(*place, *head);
        }
    }

    /// These are not there after all.
    fn forget(&self, heads: &[(Place, Head)]) {
        let mut index = self.seen.index.lock();
        for (place, head) in heads {
            index.remove(head.staging, *place);
        }
    }

    fn begin(&mut self) -> Result<Open, Errno> {
        self.made += 1;
        let id = SegmentId {
            writer: self.writer,
            number: self.made,
        };
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(self.path.join(id.name()));
        let file = file.map_err(|error| errno(&error))?;
        rustix::fs::fsync(&self.folder)?;
        let inode = rustix::fs::fstat(&file)?.st_ino;
        Ok(Open {
            id,
            file,
            inode,
            slots: 0,
            erased: false,
        })
    }

    fn is_named(&self, open: &Open) -> bool {
        let named = statat(&self.folder, open.id.name(), AtFlags::SYMLINK_NOFOLLOW);
        named.is_ok_and(|named| named.st_ino == open.inode)
    }

    /// Nothing more goes into the open segment.
    fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.erased {
            // Whoever had it deleted is told by the next one's sync; should this fail, a later look finds the rest.
            let _ = rustix::fs::fdatasync(&open.file);
        }
        if self.seen.index.lock().live_in(open.id) == 0
            && let Err(error) = self.unlink(open.id)
        {
            tracing::warn!(%error, "an empty segment of the staging area is deleted later");
        }
    }

    /// Deletes what is in these places of a segment, or the segment if nothing else is in it.
    fn erase(&mut self, segment: SegmentId, places: &[(Place, Head)]) -> Result<(), Errno> {
        if let Some(open) = self.open.as_mut().filter(|open| open.id == segment) {
            open.erased = true;
            return erase_places(&open.file, places);
        }
        let is_own = segment.writer == self.writer;
        if is_own && self.seen.index.lock().live_in(segment) == 0 {
            return self.unlink(segment);
        }
        match self.seen.file(segment, File::options().write(true)) {
            // Another process has deleted all of it.
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(errno(&error)),
            Ok(file) => {
                erase_places(&file, places)?;
                rustix::fs::fdatasync(&file)
            }
        }
    }

    fn unlink(&self, segment: SegmentId) -> Result<(), Errno> {
        self.seen.unlink(segment).map_err(|error| errno(&error))
    }
}

impl Reader {
    /// What `unpack` makes of a submission; `None` when there is none.
    pub(super) fn read<T>(
        &self,
        staging: StagingId,
        unpack: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<Result<T, Damaged>>> {
        self.0.read(staging, unpack)
    }

    /// Looks for what other processes have put.
    pub(super) fn look(&self) -> io::Result<()> {
        self.0.look(true)
    }

    /// Looks through everything, removes what crashes have left, and says which submissions after this one were put before
    /// a moment, in the order of their ids.
    pub(super) fn put_before(
        &self,
        before: SystemTime,
        after: Option<StagingId>,
        now: SystemTime,
        limit: usize,
    ) -> io::Result<Vec<StagingId>> {
        self.0.tidy(now)?;
        let before_ms = ms(before);
        let index = self.0.index.lock();
        let old = index
            .after(after)
            .filter(|(_, put_ms)| *put_ms <= before_ms);
        Ok(old.map(|(staging, _)| staging).take(limit).collect())
    }
}

/// Erases what lies side by side in one go.
fn erase_places(file: &File, places: &[(Place, Head)]) -> Result<(), Errno> {
    let mut run: Option<(u32, u32)> = None;
    for (place, head) in places {
        run = match run {
            Some((from, to)) if to == place.slot => Some((from, to + head.slots())),
            other => {
                if let Some((from, to)) = other {
                    erase(file, from, to - from)?;
                }
                Some((place.slot, place.slot + head.slots()))
            }
        };
    }
    match run {
        Some((from, to)) => erase(file, from, to - from),
        None => Ok(()),
    }
}

/// Milliseconds since 1970.
fn ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// A submission in a segment is small.
fn length(packed: &[u8]) -> u32 {
    u32::try_from(packed.len()).unwrap_or(u32::MAX)
}

fn slots(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len() as u64 / SLOT).unwrap_or(u32::MAX)
}
