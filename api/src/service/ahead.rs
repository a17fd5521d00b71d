//! Looks ahead, estimates among them: how long one may take, and how many may be taken at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::status;

/// How long one look ahead may take: what a person waits for, and well within a call's deadline.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// How long one may take that comes beside something else.
const GLANCE_MAX: Duration = Duration::from_millis(500);

/// How long a question waits until others have been answered.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// Looks at once: each keeps a processor busy, which the log needs too.
const AT_ONCE: usize = 2;

/// Room for looks ahead. Clones share it.
#[derive(Clone)]
pub(crate) struct Ahead(Arc<Semaphore>);

impl Ahead {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Room for one look, if there is any now.
    pub(super) fn enter_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }

    /// Room for one look, once there is any.
    ///
    /// # Errors
    /// Too many others ask.
    pub(super) async fn enter(&self) -> Result<OwnedSemaphorePermit, Status> {
        let room = Arc::clone(&self.0).acquire_owned();
        match tokio::time::timeout(WAIT_MAX, room).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) | Err(_) => Err(status::busy(
                "too many ask at the moment what is to come",
                WAIT_MAX,
            )),
        }
    }
}

/// Which part of the time for a look beside something else has been spent, from now on.
pub(super) fn glanced() -> impl Fn() -> f64 {
    let begun = Instant::now();
    move || begun.elapsed().as_secs_f64() / GLANCE_MAX.as_secs_f64()
}

/// Which part of the time for so many looks has been spent, from now on.
pub(super) fn spent(looks: u32) -> impl Fn() -> f64 {
    let begun = Instant::now();
    move || begun.elapsed().as_secs_f64() / (LOOK_MAX * looks).as_secs_f64()
}
