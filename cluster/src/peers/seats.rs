//! Who is connected to the port for other nodes, once TLS has shown a certificate or none: how long somebody may say nothing
//! that is heard, and who has to go for the next. A certificate alone is no word: that of a node that was removed is as
//! good to TLS as any other, and so is one that such a node has made.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::greetings::Place;

/// Connections altogether: two from each member, those that ended without a word, and all who have said nothing yet.
const SEATS: usize = 192;

/// Of them such as show no certificate that the log names and have said nothing yet. Who means it speaks within a moment.
const SILENT: usize = 64;

/// Of those again such as come from one address, so that whoever calls from one ends connections of its own only.
const SILENT_OF_ONE_ADDRESS: usize = 8;

/// A connection on which nobody speaks ends after this long: twice what it may take to say who speaks.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// Everybody who is connected, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    seats: Vec<Sitting>,
    numbers: u64,
}

#[derive(Debug)]
struct Sitting {
    number: u64,
    place: Place,
    /// Whether it has shown a certificate that the log names.
    is_member: bool,
    speech: Speech,
}

/// Who has to go for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// There is room.
    Nobody,
    /// Who sits here.
    One(usize),
    /// There is no room, and all speak.
    NobodyCan,
}

/// What is said on a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Speech(Arc<watch::Sender<Said>>);

#[derive(Debug, Default)]
struct Said {
    /// Calls that are heard.
    calls: usize,
    /// Somebody else needs the room.
    is_over: bool,
}

/// A call that is heard, for as long as this is there.
#[derive(Debug)]
pub(super) struct Call(Speech);

/// A place for one connection. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    speech: Speech,
}

impl Seats {
    /// Takes one more in. Where there is no room one has to go on which nobody speaks: of the strangers from the same address
    /// the oldest, or else the oldest stranger, or else the oldest of all. Nothing where all speak.
    pub(super) fn take(self: &Arc<Self>, from: IpAddr, is_member: bool) -> Option<Seat> {
        let place = Place::of(from);
        let mut taken = self.lock();
        match taken.who_goes(place, is_member) {
            Goes::Nobody => {}
            Goes::One(at) => taken.seats.remove(at).speech.end(),
            Goes::NobodyCan => return None,
        }
        taken.numbers += 1;
        let (number, speech) = (taken.numbers, Speech::default());
        taken.seats.push(Sitting {
            number,
            place,
            is_member,
            speech: speech.clone(),
        });
        Some(Seat {
            seats: Arc::clone(self),
            number,
            speech,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn who_goes(&self, place: Place, is_member: bool) -> Goes {
        let silent = self.seats.iter().enumerate();
        let silent = silent.filter(|(_, sitting)| sitting.speech.is_silent());
        let strangers = silent.clone().filter(|(_, sitting)| !sitting.is_member);
        let same = strangers.clone().filter(|(_, of)| of.place == place);
        let oldest = if !is_member && same.clone().count() >= SILENT_OF_ONE_ADDRESS {
            same.map(|(at, _)| at).next()
        } else if self.seats.len() >= SEATS || !is_member && strangers.clone().count() >= SILENT {
            strangers.chain(silent).map(|(at, _)| at).next()
        } else {
            return Goes::Nobody;
        };
        oldest.map_or(Goes::NobodyCan, Goes::One)
    }
}

impl Speech {
    /// Somebody is heard from now on.
    pub(super) fn begin(&self) -> Call {
        self.0.send_modify(|said| said.calls += 1);
        Call(self.clone())
    }

    fn end(&self) {
        self.0.send_modify(|said| said.is_over = true);
    }

    fn is_silent(&self) -> bool {
        self.0.borrow().calls == 0
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.0.send_modify(|said| said.calls -= 1);
    }
}

impl Seat {
    /// Where it is told that somebody on it is heard.
    pub(super) fn speech(&self) -> Speech {
        self.speech.clone()
    }

    /// Waits until it is over: another one needs the room, or nobody has spoken for too long.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        self.over_after(SILENT_FOR)
    }

    fn over_after(&self, silent_for: Duration) -> impl Future<Output = ()> + Send + 'static {
        let mut said = self.speech.0.subscribe();
        // With the half that is waited for at hand, waiting for it does not fail.
        let speech = self.speech.clone();
        async move {
            loop {
                let _ = said.wait_for(|said| said.is_over || said.calls == 0).await;
                let heard = said.wait_for(|said| said.is_over || said.calls > 0);
                if timeout(silent_for, heard).await.is_err() || speech.0.borrow().is_over {
                    return;
                }
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.seats.retain(|sitting| sitting.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn numbered(number: u32) -> IpAddr {
        IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 | number))
    }

    fn is_over(seat: &Seat) -> bool {
        seat.speech.0.borrow().is_over
    }

    fn taken(seats: &Seats) -> usize {
        seats.lock().seats.len()
    }

    #[test]
    fn who_says_nothing_from_one_address_ends_connections_of_its_own_only() {
        let seats = Arc::<Seats>::default();
        let joining = seats.take(address("10.0.0.3"), false).expect("room");
        let member = seats.take(address("10.0.0.9"), true).expect("room");
        let mut silent = Vec::new();
        for _ in 0..1_000 {
            silent.push(seats.take(address("10.0.0.9"), false).expect("room"));
        }
        let left = silent.iter().filter(|seat| !is_over(seat)).count();
        assert_eq!(left, SILENT_OF_ONE_ADDRESS);
        assert!(silent[..992].iter().all(is_over));
        assert!(!is_over(&joining) && !is_over(&member));
        assert_eq!(taken(&seats), 2 + SILENT_OF_ONE_ADDRESS);
        drop((silent, joining, member));
        assert_eq!(taken(&seats), 0);
    }

    #[test]
    fn of_many_addresses_the_oldest_who_says_nothing_goes_and_nobody_who_is_heard() {
        let seats = Arc::<Seats>::default();
        let heard = seats.take(numbered(0), false).expect("room");
        let call = heard.speech().begin();
        let member = seats.take(numbered(1), true).expect("room");
        let mut silent = Vec::new();
        for caller in 2..2_000 {
            silent.push(seats.take(numbered(caller), false).expect("room"));
        }
        assert!(!is_over(&heard) && !is_over(&member));
        let left = silent.iter().filter(|seat| !is_over(seat)).count();
        assert_eq!(left, SILENT);
        // For who has come last there is room still, and for members beside all of them.
        assert!(
            silent[silent.len() - SILENT..]
                .iter()
                .all(|seat| !is_over(seat))
        );
        let mut members = vec![member];
        while taken(&seats) < SEATS {
            members.push(seats.take(numbered(1), true).expect("room"));
        }
        let calls: Vec<Call> = members.iter().map(|seat| seat.speech().begin()).collect();
        let more = seats.take(numbered(1), true).expect("room of a stranger");
        assert_eq!(taken(&seats), SEATS);
        assert!(!members.iter().any(is_over) && !is_over(&more));
        drop(call);
        // Whom nobody hears any more is a stranger like all the others, and the oldest.
        let _more = seats.take(numbered(1), true).expect("room of a stranger");
        assert!(is_over(&heard));
        drop(calls);
    }

    #[test]
    fn where_all_are_heard_there_is_no_room() {
        let seats = Arc::<Seats>::default();
        let members: Vec<Seat> = (0..SEATS)
            .map(|_| seats.take(numbered(1), true).expect("room"))
            .collect();
        let mut calls: Vec<Call> = members.iter().map(|seat| seat.speech().begin()).collect();
        assert!(seats.take(numbered(2), true).is_none());
        assert!(seats.take(numbered(2), false).is_none());
        calls.pop();
        assert!(seats.take(numbered(2), true).is_some());
        assert!(is_over(&members[SEATS - 1]));
    }

    #[tokio::test]
    async fn a_connection_ends_when_nobody_is_heard_on_it_or_another_needs_its_room() {
        let seats = Arc::<Seats>::default();
        let seat = seats.take(numbered(1), true).expect("room");
        let mut over = Box::pin(seat.over_after(Duration::ZERO));
        let call = seat.speech().begin();
        assert_eq!((&mut over).now_or_never(), None);
        let beside = seat.speech().begin();
        drop(call);
        assert_eq!((&mut over).now_or_never(), None);
        drop(beside);
        over.await;
        // However long it may be silent otherwise.
        let over = seat.over_after(Duration::MAX);
        seat.speech.end();
        over.await;
    }
}
