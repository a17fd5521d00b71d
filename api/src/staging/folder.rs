//! A folder as the staging area, local or on a file system that several nodes share: small submissions many in a file (see
//! [`segments`]), and a file for each large one (see [`commit`]).
//!
//! One thread of each process writes and deletes, so that many submissions share their syncs. Other processes do the same
//! in the same folder at the same time; each has its own segments and unfinished files. Whoever puts a submission may have
//! something else done while it is synced, once it is written.

mod batch;
mod commit;
mod gather;
mod moved;
mod segments;
mod spares;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::statvfs;
use stepcast_scheduler::ids::StagingId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::batch::{Disk, batch, is_low};
use self::commit::Refused;
use self::gather::Gather;
use self::segments::{Going, Reader};
pub(super) use self::segments::{SEGMENT_BYTES_MAX, SEGMENTS, in_segment};
pub(super) use self::spares::SPARE;
use super::packed::{PACKED_BYTES_MAX, pack, unpack};
use super::{Behind, Error, Put, Written};
use crate::submission::{Role, StagedFile};

/// Bytes of submissions on their way to the disk; beyond it callers wait. Real ones have some KiB, so this is a good
/// second's worth of the fastest disk.
const WAITING_BYTES: usize = 64 << 20;

/// What each task counts for at least.
const TASK_BYTES: usize = 1 << 10;

/// A local disk says at once how much room it has, one of the network within some round trips.
const SAID_WITHIN: Duration = Duration::from_millis(200);

/// The name of the file that says whose folder it is.
const MARKER: &str = "cluster";

/// The folder, as one process sees it.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    tasks: Sender<Task>,
    room: Arc<Semaphore>,
    segments: Reader,
    /// Where the last look for old submissions ended.
    looked: Mutex<Option<StagingId>>,
    /// Who looks at the disk: one at a time, since a folder of the network may not answer.
    disk: Arc<Semaphore>,
}

struct Task {
    staging: StagingId,
    what: What,
    _room: OwnedSemaphorePermit,
}

enum What {
    Put {
        packed: Vec<u8>,
        written: Written,
        answer: oneshot::Sender<Result<Put, Refused>>,
    },
    Remove {
        /// Only what this process has put itself.
        own: bool,
        answer: oneshot::Sender<Result<(), Refused>>,
    },
}

impl Folder {
    /// Opens the folder, new or old, for at most so many submissions.
    pub(super) fn open(root: &Path, most: usize) -> io::Result<Self> {
        let disk = Disk::open(root, most)?;
        let segments = disk.segments.reader();
        let (tasks, waiting) = channel();
        std::thread::Builder::new()
            .name("staging".to_owned())
            .spawn(move || work(disk, &waiting))?;
        Ok(Self {
            root: root.to_owned(),
            tasks,
            room: Arc::new(Semaphore::new(WAITING_BYTES / TASK_BYTES)),
            segments,
            looked: Mutex::default(),
            disk: Arc::new(Semaphore::new(1)),
        })
    }

    /// Puts a submission, and calls `written` once it is written.
    pub(super) async fn put(
        &self,
        staging: StagingId,
        files: &[StagedFile],
        written: Written,
    ) -> Result<Put, Error> {
        let packed = pack(staging, files);
        let bytes = packed.len();
        let (answer, answered) = oneshot::channel();
        let what = What::Put {
            packed,
            written,
            answer,
        };
        self.send(staging, bytes, what).await?;
        Ok(answered.await.map_err(|_| ended())??)
    }

    pub(super) async fn remove(&self, staging: StagingId, own: bool) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.send(staging, 0, What::Remove { own, answer }).await?;
        answered.await.map_err(|_| ended())??;
        Ok(())
    }

    pub(super) async fn get(&self, staging: StagingId) -> Result<Vec<StagedFile>, Error> {
        let (root, segments) = (self.root.clone(), self.segments.clone());
        blocking(move || get(&root, &segments, staging)).await
    }

    /// Submissions older than `age`, in the order of their ids and going on where the last call has ended.
    pub(super) async fn older_than(
        &self,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<StagingId>, Error> {
        let after = *self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let (root, segments) = (self.root.clone(), self.segments.clone());
        let found = blocking(move || {
            let now = SystemTime::now();
            let before = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
            spares::tidy(&root, now)?;
            let mut found = older_than(&root, age, after, limit, now)?;
            found.extend(segments.put_before(before, after, now, limit)?);
            found.sort_unstable();
            found.dedup();
            found.truncate(limit);
            Ok(found)
        })
        .await?;
        let next = found.last().copied().filter(|_| found.len() >= limit);
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(found)
    }

    /// Gives what a bucket has left here its place in a folder.
    pub(super) async fn adopt(&self) -> Result<(), Error> {
        let root = self.root.clone();
        blocking(move || Ok(moved::adopt(&root)?)).await
    }

    /// Whose folder it is; `None` while nobody has claimed it.
    pub(super) async fn marker(&self) -> Result<Option<String>, Error> {
        let path = self.root.join(MARKER);
        blocking(move || match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        })
        .await
    }

    /// Claims the folder, unless it is somebody's already.
    pub(super) async fn mark(&self, text: String) -> Result<(), Error> {
        let root = self.root.clone();
        blocking(move || Ok(mark(&root, &text)?)).await
    }

    /// Why nothing can be kept at the moment, in one sentence.
    pub(super) async fn trouble(&self) -> Option<&'static str> {
        let (root, disk) = (self.root.clone(), Arc::clone(&self.disk));
        let look = async move {
            let alone = disk.acquire_owned().await.ok()?;
            let looked = spawn_blocking(move || {
                let _alone = alone;
                statvfs(&root)
            });
            looked.await.ok()
        };
        match timeout(SAID_WITHIN, look).await {
            Err(_elapsed) => Some("its folder does not answer"),
            Ok(Some(Ok(disk))) if is_low(&disk) => {
                Some("its disk is nearly full: new jobs are refused until there is room")
            }
            Ok(Some(Err(_refused))) => Some("its folder cannot be looked at"),
            Ok(_) => None,
        }
    }

    async fn send(&self, staging: StagingId, bytes: usize, what: What) -> Result<(), Error> {
        let permits = u32::try_from(bytes.div_ceil(TASK_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits.max(1));
        let task = Task {
            staging,
            what,
            _room: room.await.map_err(|_| ended())?,
        };
        self.tasks.send(task).map_err(|_| ended())
    }
}

/// Does what is waiting, all of it together, until nobody can ask any more.
fn work(mut disk: Disk, waiting: &Receiver<Task>) {
    let mut gather = Gather::default();
    while let Ok(first) = waiting.recv() {
        let tasks = gather.all(first, waiting);
        let (mut coming, mut puts, mut going, mut removes) = (vec![], vec![], vec![], vec![]);
        let mut waiting_for_writes = Vec::new();
        let mut room = Vec::new();
        for task in tasks {
            room.push(task._room);
            let staging = task.staging;
            match task.what {
                What::Put {
                    packed,
                    written,
                    answer,
                } => {
                    coming.push((staging, packed));
                    waiting_for_writes.push(Some(written));
                    puts.push(answer);
                }
                What::Remove { own, answer } => {
                    going.push(Going { staging, own });
                    removes.push(answer);
                }
            }
        }
        let mut call = |index: usize, behind: Behind| {
            if let Some(written) = waiting_for_writes.get_mut(index).and_then(Option::take) {
                written(behind);
            }
        };
        let (put, removed) = batch(&mut disk, coming, &going, &mut call);
        for (index, (answer, put)) in puts.into_iter().zip(put).enumerate() {
            if put.is_ok() {
                call(index, Behind::Unknown);
            }
            // Who does not wait any more needs no answer.
            let _ = answer.send(put);
        }
        for (answer, removed) in removes.into_iter().zip(removed) {
            let _ = answer.send(removed);
        }
    }
    disk.segments.close();
    disk.spares.close();
}

fn get(root: &Path, segments: &Reader, staging: StagingId) -> Result<Vec<StagedFile>, Error> {
    let in_segment = || match segments.read(staging, |packed| unpack(staging, packed))? {
        Some(Ok(files)) => Ok(Some(files)),
        Some(Err(_damaged)) => Err(Error::Damaged),
        None => Ok(None),
    };
    if let Some(files) = in_segment()? {
        return Ok(files);
    }
    match read(&root.join(staging.to_string()), staging) {
        // Another process may have put it since this one has looked.
        Err(Error::Missing) => {
            segments.look()?;
            match in_segment()? {
                Some(files) => Ok(files),
                None => moved::get(root, staging),
            }
        }
        files => files,
    }
}

/// Reads the file of a large submission.
fn read(path: &Path, staging: StagingId) -> Result<Vec<StagedFile>, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing),
        file => file?,
    };
    if file.metadata()?.is_dir() {
        return Ok(read_folder(path)?);
    }
    let mut packed = Vec::new();
    file.take(PACKED_BYTES_MAX as u64)
        .read_to_end(&mut packed)?;
    unpack(staging, &packed).ok_or(Error::Damaged)
}

/// The files of a submission as version 0.1 kept them: a folder, and each file named by its role.
fn read_folder(path: &Path) -> io::Result<Vec<StagedFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let read = Role::ALL.into_iter().find_map(|role| {
            let name = name.to_str()?.strip_prefix(role.slug())?;
            Some((role, name.strip_prefix('-')?.to_owned()))
        });
        let Some((role, name)) = read else { continue };
        let content = std::fs::read(entry.path())?;
        files.push(StagedFile {
            role,
            name,
            content,
        });
    }
    files.sort_by_key(|file| file.role);
    Ok(files)
}

/// The ids of all submissions with a file of their own, in any order.
fn ids(root: &Path) -> io::Result<Vec<StagingId>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(root)? {
        ids.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<StagingId>().ok()),
        );
    }
    Ok(ids)
}

fn count(root: &Path) -> io::Result<usize> {
    ids(root).map(|ids| ids.len())
}

fn older_than(
    root: &Path,
    age: Duration,
    after: Option<StagingId>,
    limit: usize,
    now: SystemTime,
) -> io::Result<Vec<StagingId>> {
    let is_old = |staging: &StagingId| {
        // What is gone by now is not old, and a file from the future is as old as nothing.
        let metadata = std::fs::metadata(root.join(staging.to_string()));
        let modified = metadata.and_then(|metadata| metadata.modified());
        modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|passed| passed >= age))
    };
    let mut ids = ids(root)?;
    ids.retain(|id| after.is_none_or(|after| *id > after));
    ids.sort_unstable();
    Ok(ids.into_iter().filter(is_old).take(limit).collect())
}

/// Writes the marker whole or not at all; the first of several wins.
fn mark(root: &Path, text: &str) -> io::Result<()> {
    let mut unfinished = tempfile_in(root)?;
    unfinished.0.write_all(text.as_bytes())?;
    unfinished.0.sync_all()?;
    let linked = std::fs::hard_link(&unfinished.1, root.join(MARKER));
    std::fs::remove_file(&unfinished.1)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(root)?.sync_all(),
    }
}

fn tempfile_in(root: &Path) -> io::Result<(File, PathBuf)> {
    let path = root.join(format!("{MARKER}.{:016x}.part", rand::random::<u64>()));
    Ok((File::create_new(&path)?, path))
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(act).await.map_err(|_| ended())?
}

/// The thread is gone, which only a panic of its own can do.
fn ended() -> Error {
    Error::Io(io::Error::other("the staging thread has ended"))
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Full,
            Refused::System(error) => Self::Io(error.into()),
        }
    }
}
