//! How often somebody may call, and how much memory their requests may take together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Status;

use crate::access::Caller;
use crate::status;

/// Calls of one caller a second, over a while: SimpleTuner's client asks every two seconds for each job that it shows.
const CALLS_PER_SECOND: u32 = 50;

/// Calls of one caller at once, after a pause.
const CALLS_BURST: u32 = 200;

/// Questions of strangers from one address a second: a token is asked for once in a quarter of an hour.
const STRANGERS_PER_SECOND: u32 = 5;

/// Such questions at once, after a pause: many people may sit behind one address.
const STRANGERS_BURST: u32 = 50;

/// Callers whose calls are counted at once. Beyond it, those whose pause is over are forgotten first.
const COUNTED: usize = 10_000;

/// Bytes of all bodies that are read at once.
const BODIES: usize = 256 << 20;

/// Bytes of bodies are counted by so many.
const UNIT: usize = 1 << 10;

/// Streams of one caller at once: a page or two, and a few jobs that are followed.
const STREAMS_PER_CALLER: usize = 16;

/// Streams at once.
const STREAMS: usize = 2_000;

/// A body that finds no room waits this long for some.
const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// The counters of a server.
pub(crate) struct Limits {
    callers: Mutex<Buckets<CallerKey>>,
    strangers: Mutex<Buckets<Option<IpAddr>>>,
    guesses: Mutex<Buckets<Option<IpAddr>>>,
    streams: Mutex<HashMap<CallerKey, usize>>,
    bodies: Arc<Semaphore>,
}

/// What calls are counted by: a person, or the address of who was not asked for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CallerKey {
    Named(u64),
    Address(Option<IpAddr>),
}

/// How many calls everybody has left, and when that was so.
#[derive(Debug)]
struct Buckets<K> {
    left: HashMap<K, (f64, Instant)>,
    per_second: u32,
    burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            callers: Mutex::new(Buckets::new(CALLS_PER_SECOND, CALLS_BURST)),
            strangers: Mutex::new(Buckets::new(STRANGERS_PER_SECOND, STRANGERS_BURST)),
            guesses: Mutex::new(Buckets::new(STRANGERS_PER_SECOND, STRANGERS_BURST)),
            streams: Mutex::default(),
            bodies: Arc::new(Semaphore::new(BODIES / UNIT)),
        }
    }
}

impl Limits {
    /// One more call of somebody who is known.
    pub(crate) fn caller(&self, caller: &Caller, peer: Option<IpAddr>) -> Result<(), Status> {
        self.callers.lock().take(key(caller, peer), Instant::now())
    }

    /// One more call of somebody who is not.
    pub(crate) fn stranger(&self, peer: Option<IpAddr>) -> Result<(), Status> {
        self.strangers.lock().take(peer, Instant::now())
    }

    /// One more call with a token that is none. Counted apart: behind one address somebody else has a good one.
    pub(crate) fn guess(&self, peer: Option<IpAddr>) -> Result<(), Status> {
        self.guesses.lock().take(peer, Instant::now())
    }

    /// Room for a body, as long as the permit lives.
    pub(crate) async fn body(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.bodies).acquire_many_owned(units);
        match tokio::time::timeout(ROOM_WITHIN, room).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(status::busy(
                "many large requests are being read",
                ROOM_WITHIN,
            )),
        }
    }

    /// One more stream of a caller, as long as the guard lives.
    pub(crate) fn stream(
        self: &Arc<Self>,
        caller: &Caller,
        peer: Option<IpAddr>,
    ) -> Result<OpenStream, Status> {
        let key = key(caller, peer);
        let mut streams = self.streams.lock();
        let all: usize = streams.values().sum();
        let own = streams.get(&key).copied().unwrap_or(0);
        if own >= STREAMS_PER_CALLER || all >= STREAMS {
            return Err(status::busy(
                "too many streams are open: end one first",
                Duration::from_secs(5),
            ));
        }
        streams.insert(key, own + 1);
        Ok(OpenStream(Arc::clone(self), key))
    }
}

/// A stream that is counted.
pub(crate) struct OpenStream(Arc<Limits>, CallerKey);

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut streams = self.0.streams.lock();
        if let Some(own) = streams.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                streams.remove(&self.1);
            }
        }
    }
}

fn key(caller: &Caller, peer: Option<IpAddr>) -> CallerKey {
    match caller.number() {
        Some(number) => CallerKey::Named(number),
        None => CallerKey::Address(peer),
    }
}

impl<K: std::hash::Hash + Eq + Copy> Buckets<K> {
    fn new(per_second: u32, burst: u32) -> Self {
        Self {
            left: HashMap::new(),
            per_second,
            burst,
        }
    }

    fn take(&mut self, key: K, now: Instant) -> Result<(), Status> {
        let (per_second, burst) = (f64::from(self.per_second), f64::from(self.burst));
        if self.left.len() >= COUNTED && !self.left.contains_key(&key) {
            let refilled = Duration::from_secs_f64(burst / per_second);
            self.left.retain(|_, (_, at)| now - *at < refilled);
            if self.left.len() >= COUNTED {
                return Err(status::busy(
                    "too many callers at once",
                    Duration::from_secs(1),
                ));
            }
        }
        let (left, at) = self.left.entry(key).or_insert((burst, now));
        *left = ((now - *at).as_secs_f64().mul_add(per_second, *left)).min(burst);
        *at = now;
        if *left < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - *left) / per_second);
            return Err(status::busy("this is asked too often", wait));
        }
        *left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_back_with_time_and_each_caller_has_its_own() {
        let mut buckets = Buckets::new(2, 3);
        let start = Instant::now();
        let mut take = |key: u8, ms| buckets.take(key, start + Duration::from_millis(ms)).is_ok();
        assert_eq!(
            [take(1, 0), take(1, 0), take(1, 0), take(1, 0)],
            [true, true, true, false]
        );
        assert!(take(2, 0), "another caller's are its own");
        assert_eq!(
            [take(1, 400), take(1, 600), take(1, 700)],
            [false, true, false]
        );
    }

    #[tokio::test]
    async fn streams_are_bounded_and_an_ended_one_makes_room() {
        let limits = Arc::new(Limits::default());
        let open = || limits.stream(&Caller::OPERATOR, None);
        let mut streams: Vec<_> = (0..STREAMS_PER_CALLER)
            .filter_map(|_| open().ok())
            .collect();
        assert_eq!(streams.len(), STREAMS_PER_CALLER);
        assert!(open().is_err());
        streams.pop();
        assert!(open().is_ok());
    }
}
