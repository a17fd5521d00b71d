//! Room in memory for what is read and answered: of a caller's own share, and of what all have together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::status;

/// Bytes are counted by so many.
pub(super) const UNIT: usize = 1 << 10;

/// What finds no room waits this long for some, where it waits.
const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// What a worker sends takes nothing of the room of all as long as it is no more than this: what it registers with, and what
/// it asks for the files of a job with, so that neither waits for the samples of others.
pub(super) const WORKERS_SMALL: usize = 16 << 10;

/// Room for what one caller sends or is answered.
#[derive(Debug, Clone)]
pub(crate) struct Rooms {
    share: Option<Arc<Semaphore>>,
    all: Arc<Semaphore>,
    uses: Use,
}

/// How room is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    /// One thing takes no more of it than this, in bytes, however large it is.
    pub(super) most: usize,
    /// One of no more bytes than this takes nothing of the room of all.
    pub(super) small: usize,
    /// Bytes that one takes beside its own.
    pub(super) beside: usize,
    /// What is said where there is none.
    pub(super) full: &'static str,
}

impl Use {
    /// What is sent, which is taken piece by piece.
    pub(super) const BODIES: Self = Self {
        most: usize::MAX,
        small: 0,
        beside: 0,
        full: "many large requests are being read",
    };

    /// What workers send.
    pub(super) const OF_WORKERS: Self = Self {
        small: WORKERS_SMALL,
        ..Self::BODIES
    };
}

/// Room that something takes, as long as this lives.
#[derive(Debug)]
pub(crate) struct Room {
    share: Option<OwnedSemaphorePermit>,
    all: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// This room and other room for the same thing.
    pub(crate) fn add(&mut self, more: Self) {
        add(&mut self.share, more.share);
        add(&mut self.all, more.all);
    }
}

fn add(room: &mut Option<OwnedSemaphorePermit>, more: Option<OwnedSemaphorePermit>) {
    match (room, more) {
        (Some(room), Some(more)) => room.merge(more),
        (none, more) => *none = none.take().or(more),
    }
}

impl Rooms {
    /// Room of a share, if the caller has one, and of what all have.
    pub(super) fn new(share: Option<Arc<Semaphore>>, all: &Arc<Semaphore>, uses: Use) -> Self {
        Self {
            share,
            all: Arc::clone(all),
            uses,
        }
    }

    /// Room for so many bytes, of the caller's own share first: who waits for that is in nobody's way.
    pub(crate) async fn wait(&self, bytes: usize) -> Result<Room, Status> {
        let units = self.units(bytes);
        let taken = async {
            let share = match self.share.clone() {
                Some(share) => Some(share.acquire_many_owned(units).await?),
                None => None,
            };
            let all = match self.of_all(bytes) {
                Some(all) => Some(all.acquire_many_owned(units).await?),
                None => None,
            };
            Ok::<_, AcquireError>(Room { share, all })
        };
        match tokio::time::timeout(ROOM_WITHIN, taken).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(self.full()),
        }
    }

    /// Room for so many bytes if there is some now.
    pub(crate) fn take(&self, bytes: usize) -> Result<Room, Status> {
        self.take_after(0, bytes)
    }

    /// The same for a piece of something, of which so many bytes have come before.
    pub(crate) fn take_after(&self, before: usize, bytes: usize) -> Result<Room, Status> {
        let units = self.units(bytes);
        let take = |room: Option<Arc<Semaphore>>| {
            let taken = room.map(|room| room.try_acquire_many_owned(units));
            taken.transpose().map_err(|_none| self.full())
        };
        Ok(Room {
            share: take(self.share.clone())?,
            all: take(self.of_all(before.saturating_add(bytes)))?,
        })
    }

    /// The room of all, if so many bytes take some of it.
    fn of_all(&self, bytes: usize) -> Option<Arc<Semaphore>> {
        (bytes > self.uses.small).then(|| Arc::clone(&self.all))
    }

    fn units(&self, bytes: usize) -> u32 {
        let bytes = bytes.saturating_add(self.uses.beside).min(self.uses.most);
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
    }

    fn full(&self) -> Status {
        status::busy(self.uses.full, ROOM_WITHIN)
    }
}
