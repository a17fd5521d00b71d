//! How often somebody may call, and how much memory their requests may take together.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use stepcast_scheduler::ids::TokenHash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Status;

use crate::access::Caller;
use crate::status;

mod entries;
mod rooms;
mod streams;

pub(crate) use entries::Entries;
pub(crate) use rooms::{Room, Rooms};
use rooms::{UNIT, Use};
pub(crate) use streams::OpenStream;
use streams::Streams;

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

/// So often they are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// Calls a second of all those together who find no room to be counted by themselves: many addresses may be one host, and
/// must not shut out who comes by another. A server answers so many without noticing.
const OTHERS_PER_SECOND: u32 = 1_000;

/// Bytes of all bodies that are read at once, and as many of workers.
const BODIES: usize = 256 << 20;

/// Bytes of the bodies of one caller that are read at once: nine of the largest submissions. Of one worker, by its token:
/// four of the largest contributions.
const BODIES_PER_CALLER: usize = 32 << 20;

/// Bytes of all large answers that are made and not yet sent, whoever reads them slowly, and as many of workers.
const ANSWERS: usize = 256 << 20;

/// Those of one caller, the small ones too: twice the longest log of a job, which is read before it is made into an answer,
/// and as much again.
const ANSWERS_PER_CALLER: usize = 64 << 20;

/// An answer of no more than this takes nothing of the room of all, so that callers who read nothing keep large answers from
/// others and no more.
const SMALL_ANSWER: usize = 64 << 10;

/// What an answer that waits takes beside its bytes: its call, and its place in the connection.
const WAITING_ANSWER: usize = 4 << 10;

/// How answers use their room.
const ANSWERS_USE: Use = Use {
    most: ANSWERS_PER_CALLER,
    small: SMALL_ANSWER,
    beside: WAITING_ANSWER,
    full: "answers are not being read",
};

/// Streams of one caller at once: a page or two, and a few jobs that are followed.
const STREAMS_PER_CALLER: usize = 16;

/// Streams at once.
const STREAMS: usize = 2_000;

/// Streams that anybody may open of a service, at once: what one answers is 41 kB at most, and three of them wait.
const OPEN_TO_ANYBODY: usize = 256;

/// Statements of one caller that run at once: fewer than a server runs, so that there is a turn for others.
const STATEMENTS_PER_CALLER: usize = 1;
const _: () = assert!(STATEMENTS_PER_CALLER < stepcast_estimator::sql::AT_ONCE);

/// A statement waits this long for another of its caller, as it does for others.
const TURN_WITHIN: Duration = Duration::from_secs(2);

/// The counters of a server.
pub(crate) struct Limits {
    callers: Mutex<Buckets<CallerKey>>,
    strangers: Mutex<Buckets<Option<IpAddr>>>,
    guesses: Mutex<Buckets<Option<IpAddr>>>,
    streams: Arc<Streams>,
    /// Room for the bodies of all people, and what each caller may take of it.
    bodies: Arc<Semaphore>,
    /// Room for those of workers, which stand in nobody's way.
    of_workers: Arc<Semaphore>,
    shares: Mutex<HashMap<CallerKey, Weak<Semaphore>>>,
    workers_shares: Mutex<HashMap<TokenHash, Weak<Semaphore>>>,
    /// Room for large answers, and what each caller may take of it.
    answers: Arc<Semaphore>,
    answers_shares: Mutex<HashMap<CallerKey, Weak<Semaphore>>>,
    /// As much for those to workers, and what each worker may take of it.
    answers_of_workers: Arc<Semaphore>,
    workers_answers_shares: Mutex<HashMap<TokenHash, Weak<Semaphore>>>,
    /// The turn of each caller to have a statement run.
    turns: Mutex<HashMap<CallerKey, Weak<Semaphore>>>,
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
    per_second: f64,
    burst: u32,
    /// The same of those who find no room to be counted by themselves.
    others: (f64, Instant),
    /// When it was last looked whom to forget.
    forgotten: Instant,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            callers: Mutex::new(Buckets::new(CALLS_PER_SECOND, CALLS_BURST)),
            strangers: Mutex::new(Buckets::new(STRANGERS_PER_SECOND, STRANGERS_BURST)),
            guesses: Mutex::new(Buckets::new(STRANGERS_PER_SECOND, STRANGERS_BURST)),
            streams: Streams::new(STREAMS_PER_CALLER, STREAMS),
            bodies: Arc::new(Semaphore::new(BODIES / UNIT)),
            of_workers: Arc::new(Semaphore::new(BODIES / UNIT)),
            shares: Mutex::default(),
            workers_shares: Mutex::default(),
            answers: Arc::new(Semaphore::new(ANSWERS / UNIT)),
            answers_shares: Mutex::default(),
            answers_of_workers: Arc::new(Semaphore::new(ANSWERS / UNIT)),
            workers_answers_shares: Mutex::default(),
            turns: Mutex::default(),
        }
    }
}

impl Limits {
    /// One more call of somebody who is known.
    pub(crate) fn caller(&self, caller: &Caller, peer: Option<IpAddr>) -> Result<(), Status> {
        let taken = self.callers.lock().take(key(caller, peer), Instant::now());
        taken.map_err(too_often)
    }

    /// One more call of somebody who is not.
    pub(crate) fn stranger(&self, peer: Option<IpAddr>) -> Result<(), Status> {
        let key = peer.map(counted);
        let taken = self.strangers.lock().take(key, Instant::now());
        taken.map_err(too_often)
    }

    /// One more call with a token that is none. Counted apart: behind one address somebody else has a good one.
    pub(crate) fn guess(&self, peer: Option<IpAddr>) -> Result<(), Status> {
        let key = peer.map(counted);
        let taken = self.guesses.lock().take(key, Instant::now());
        taken.map_err(too_often)
    }

    /// Room for the bodies of a caller.
    pub(crate) fn rooms(&self, caller: &Caller, peer: Option<IpAddr>) -> Rooms {
        let share = own(&self.shares, key(caller, peer), BODIES_PER_CALLER / UNIT);
        Rooms::new(Some(share), &self.bodies, Use::BODIES)
    }

    /// Room for what a caller is answered.
    pub(crate) fn rooms_for_answers(&self, caller: &Caller, peer: Option<IpAddr>) -> Rooms {
        let key = key(caller, peer);
        let share = own(&self.answers_shares, key, ANSWERS_PER_CALLER / UNIT);
        Rooms::new(Some(share), &self.answers, ANSWERS_USE)
    }

    /// Room for what a program is answered that is not counted by itself.
    pub(crate) fn rooms_for_answers_of_program(&self) -> Rooms {
        Rooms::new(None, &self.answers, ANSWERS_USE)
    }

    /// A caller's turn to have a statement run, as long as the permit lives.
    pub(crate) async fn turn(
        &self,
        caller: &Caller,
        peer: Option<IpAddr>,
    ) -> Result<OwnedSemaphorePermit, Status> {
        let turn = own(&self.turns, key(caller, peer), STATEMENTS_PER_CALLER);
        match tokio::time::timeout(TURN_WITHIN, turn.acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(status::busy(
                "another statement of yours is still running",
                TURN_WITHIN,
            )),
        }
    }

    /// Room for the bodies of a program that is not counted by itself.
    pub(crate) fn rooms_of_program(&self) -> Rooms {
        Rooms::new(None, &self.bodies, Use::BODIES)
    }

    /// Room for the bodies of the worker with this token.
    pub(crate) fn rooms_of_worker(&self, token: TokenHash) -> Rooms {
        let share = own(&self.workers_shares, token, BODIES_PER_CALLER / UNIT);
        Rooms::new(Some(share), &self.of_workers, Use::OF_WORKERS)
    }

    /// Room for what the worker with this token is answered.
    pub(crate) fn rooms_for_answers_of_worker(&self, token: TokenHash) -> Rooms {
        let share = own(
            &self.workers_answers_shares,
            token,
            ANSWERS_PER_CALLER / UNIT,
        );
        Rooms::new(Some(share), &self.answers_of_workers, ANSWERS_USE)
    }

    /// One more stream of a caller, as long as the guard lives.
    pub(crate) fn stream(
        &self,
        caller: &Caller,
        peer: Option<IpAddr>,
    ) -> Result<OpenStream, Status> {
        self.streams.open(key(caller, peer))
    }
}

/// The counters of one service that anybody may call.
pub(crate) struct Asked {
    calls: Mutex<Buckets<Option<IpAddr>>>,
    streams: Arc<Streams>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            calls: Mutex::new(Buckets::new(STRANGERS_PER_SECOND, STRANGERS_BURST)),
            streams: Streams::new(STREAMS_PER_CALLER, OPEN_TO_ANYBODY),
        }
    }
}

impl Asked {
    /// One more call, and the stream that it opens if it has one.
    pub(crate) fn call(
        &self,
        peer: Option<IpAddr>,
        has_stream: bool,
    ) -> Result<Option<OpenStream>, Status> {
        let address = peer.map(counted);
        let taken = self.calls.lock().take(address, Instant::now());
        taken.map_err(too_often)?;
        let key = CallerKey::Address(address);
        has_stream.then(|| self.streams.open(key)).transpose()
    }
}

/// What a caller has of its own. Who uses nothing of it has none.
pub(crate) fn own<K: Hash + Eq>(
    all: &Mutex<HashMap<K, Weak<Semaphore>>>,
    key: K,
    permits: usize,
) -> Arc<Semaphore> {
    let mut all = all.lock();
    let known = all.get(&key).and_then(Weak::upgrade);
    known.unwrap_or_else(|| {
        all.retain(|_, used| used.strong_count() > 0);
        let new = Arc::new(Semaphore::new(permits));
        all.insert(key, Arc::downgrade(&new));
        new
    })
}

fn key(caller: &Caller, peer: Option<IpAddr>) -> CallerKey {
    match caller.number() {
        Some(number) => CallerKey::Named(number),
        None => CallerKey::Address(peer.map(counted)),
    }
}

/// What an address is counted as: one host has as many of IPv6 as it likes, in one network of 64 bits.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

impl<K: Hash + Eq + Copy> Buckets<K> {
    fn new(per_second: impl Into<f64>, burst: u32) -> Self {
        let now = Instant::now();
        Self {
            left: HashMap::new(),
            per_second: per_second.into(),
            burst,
            others: (f64::from(OTHERS_PER_SECOND), now),
            forgotten: now,
        }
    }

    fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        let (per_second, burst) = (self.per_second, f64::from(self.burst));
        let full = |left: &HashMap<K, _>| left.len() >= COUNTED && !left.contains_key(&key);
        if full(&self.left) && now - self.forgotten >= FORGET_EVERY {
            let refilled = Duration::from_secs_f64(burst / per_second);
            self.left.retain(|_, (_, at)| now - *at < refilled);
            self.forgotten = now;
        }
        if full(&self.left) {
            let of_others = f64::from(OTHERS_PER_SECOND);
            return take(&mut self.others, of_others, of_others, now);
        }
        let left = self.left.entry(key).or_insert((burst, now));
        take(left, per_second, burst, now)
    }
}

/// The refusal of one more call before so much time has passed.
fn too_often(wait: Duration) -> Status {
    status::busy("this is asked too often", wait)
}

/// Takes one of what is left, with what has come back since, or says how long until there is one.
fn take(
    (left, at): &mut (f64, Instant),
    per_second: f64,
    burst: f64,
    now: Instant,
) -> Result<(), Duration> {
    *left = ((now - *at).as_secs_f64().mul_add(per_second, *left)).min(burst);
    *at = now;
    if *left < 1.0 {
        return Err(Duration::from_secs_f64((1.0 - *left) / per_second));
    }
    *left -= 1.0;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::rooms::WORKERS_SMALL;
    use super::*;

    #[test]
    fn calls_come_back_with_time_and_each_caller_has_its_own() {
        let mut buckets = Buckets::new(2_u32, 3);
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

    #[tokio::test]
    async fn no_caller_takes_the_room_of_all() {
        let limits = Limits::default();
        let address = |last| Some(IpAddr::from([127, 0, 0, last]));
        let rooms = |last| limits.rooms(&Caller::ANYBODY, address(last));
        let large = BODIES_PER_CALLER / 4;
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(rooms(1).wait(large).await.expect("a share"));
        }
        // It waits for its own, and is in nobody's way meanwhile.
        let more = rooms(1);
        let mut waiting = tokio::spawn(async move { more.wait(large).await });
        tokio::task::yield_now().await;
        assert!(rooms(1).take(1).is_err());
        assert!(rooms(2).wait(large).await.is_ok() && rooms(2).take(large).is_ok());
        assert!(!waiting.is_finished());
        held.pop();
        held.push((&mut waiting).await.expect("it ends").expect("a share"));
        assert!(rooms(1).take(1).is_err());
        drop(held);
        drop(rooms(3));
        assert_eq!(limits.shares.lock().len(), 1, "who sends nothing has none");
        let all = limits.rooms_of_program();
        assert!(all.take(BODIES).is_ok() && all.take(BODIES + 1).is_err());
    }

    #[test]
    fn no_worker_takes_the_room_of_all_and_what_is_small_needs_none_of_it() {
        let limits = Limits::default();
        let rooms = |worker| limits.rooms_of_worker(TokenHash([worker; 32]));
        let mut held = Vec::new();
        for worker in 0..8 {
            held.push(rooms(worker).take(BODIES_PER_CALLER).expect("a share"));
            assert!(rooms(worker).take(1).is_err());
        }
        let late = rooms(8);
        assert!(late.take(BODIES_PER_CALLER).is_err(), "all have no more");
        let small = late.take(WORKERS_SMALL).expect("what is small");
        assert!(
            late.take_after(WORKERS_SMALL, 1).is_err(),
            "a piece of more"
        );
        drop(small);
        held.pop();
        assert!(late.take(BODIES_PER_CALLER).is_ok());
    }

    #[tokio::test]
    async fn one_statement_of_a_caller_runs_at_once_and_those_of_others_beside_it() {
        let limits = Arc::new(Limits::default());
        let address = |last| Some(IpAddr::from([127, 0, 0, last]));
        let first = limits.turn(&Caller::ANYBODY, address(1)).await;
        let same = Arc::clone(&limits);
        let same = async move { same.turn(&Caller::ANYBODY, address(1)).await };
        let mut same = tokio::spawn(same);
        tokio::task::yield_now().await;
        let other = limits.turn(&Caller::ANYBODY, address(2)).await;
        assert!(other.is_ok() && !same.is_finished());
        drop(first);
        assert!((&mut same).await.expect("it ends").is_ok());
    }

    #[test]
    fn many_addresses_of_one_host_shut_nobody_out() {
        let mut buckets = Buckets::new(STRANGERS_PER_SECOND, STRANGERS_BURST);
        let now = Instant::now();
        for address in 0..COUNTED {
            buckets.take(address, now).expect("counted by itself");
        }
        buckets.take(COUNTED, now).expect("counted with the others");
        let asked = (0..2 * OTHERS_PER_SECOND as usize).map(|other| COUNTED + other);
        let taken = asked.filter(|other| buckets.take(*other, now).is_ok());
        assert_eq!(taken.count(), OTHERS_PER_SECOND as usize - 1);
        assert!(
            buckets.take(0, now).is_ok(),
            "who is known is counted alone"
        );
        let later = now + Duration::from_secs(11);
        assert!(buckets.take(COUNTED, later).is_ok());
        assert_eq!(buckets.left.len(), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_stranger() {
        let of = |text: &str| counted(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8:0:0:ffff::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
