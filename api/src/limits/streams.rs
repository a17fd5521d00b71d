//! Streams that are open: so many of one caller, and so many of all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::Status;

use super::CallerKey;
use crate::status;

/// What is open of each caller, and how much may be.
#[derive(Debug)]
pub(super) struct Streams {
    open: Mutex<HashMap<CallerKey, usize>>,
    of_caller: usize,
    of_all: usize,
}

impl Streams {
    pub(super) fn new(of_caller: usize, of_all: usize) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            of_caller,
            of_all,
        })
    }

    /// One more, as long as the guard lives.
    pub(super) fn open(self: &Arc<Self>, key: CallerKey) -> Result<OpenStream, Status> {
        let mut open = self.open.lock();
        let all: usize = open.values().sum();
        let own = open.get(&key).copied().unwrap_or(0);
        if own >= self.of_caller || all >= self.of_all {
            return Err(status::busy(
                "too many streams are open: end one first",
                Duration::from_secs(5),
            ));
        }
        open.insert(key, own + 1);
        Ok(OpenStream(Arc::clone(self), key))
    }
}

/// A stream that is counted.
#[derive(Debug)]
pub(crate) struct OpenStream(Arc<Streams>, CallerKey);

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.0.open.lock();
        if let Some(own) = open.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.1);
            }
        }
    }
}
