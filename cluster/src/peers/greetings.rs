//! Who is greeting on the port for other nodes: how many at once, how many from one address, and who has to go for the
//! next. Whoever says nothing keeps nobody else from being heard.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// TLS greetings at once. A member's takes milliseconds.
const GREETINGS: usize = 256;

/// Of one address, so that whoever calls from one ends greetings of its own only. A node has two connections to another.
const OF_ONE_ADDRESS: usize = 16;

/// That greetings were ended for others is said this often at most.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// The greetings that are under way, the oldest first, each with what ends it.
#[derive(Debug)]
pub(super) struct Greetings<E> {
    under_way: Vec<(u64, Place, E)>,
    begun: u64,
    said: Option<Instant>,
}

/// Addresses that one caller may well have at once: an IPv4 address, or a network of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64);

impl<E> Default for Greetings<E> {
    fn default() -> Self {
        Self {
            under_way: Vec::new(),
            begun: 0,
            said: None,
        }
    }
}

impl<E> Greetings<E> {
    /// Takes one more in; `ends` gets its number and makes what ends it. Where there is no room the oldest one of the
    /// same address has to go, or else the oldest of all: it is handed back to be ended.
    pub(super) fn begin(&mut self, from: IpAddr, ends: impl FnOnce(u64) -> E) -> Option<E> {
        let place = Place::of(from);
        let of_it = self.under_way.iter().filter(|(_, at, _)| *at == place);
        let goes = if of_it.count() >= OF_ONE_ADDRESS {
            self.under_way.iter().position(|(_, at, _)| *at == place)
        } else {
            (self.under_way.len() >= GREETINGS).then_some(0)
        };
        let gone = goes.map(|at| self.under_way.remove(at).2);
        self.begun += 1;
        let number = self.begun;
        self.under_way.push((number, place, ends(number)));
        gone
    }

    /// One is over.
    pub(super) fn end(&mut self, number: u64) {
        self.under_way.retain(|(of, ..)| *of != number);
    }

    /// Whether it is time to say once more that greetings are ended for others.
    pub(super) fn is_said(&mut self, now: Instant) -> bool {
        let again = |said: Instant| now.duration_since(said) >= SAID_AGAIN;
        let is_time = self.said.is_none_or(again);
        if is_time {
            self.said = Some(now);
        }
        is_time
    }
}

impl Place {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(u32::from(address))),
            // The first 64 bits are a network's, and never all zero where the others are an IPv4 address's.
            IpAddr::V6(address) => Self((u128::from(address) >> 64) as u64 | 1 << 63),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn who_says_nothing_from_one_address_ends_greetings_of_its_own_only() {
        let mut greetings = Greetings::default();
        let member = address("10.0.0.2");
        assert_eq!(greetings.begin(member, |number| number), None);
        for silent in 0..1_000u64 {
            let gone = greetings.begin(address("10.0.0.9"), |number| number);
            let full = silent >= OF_ONE_ADDRESS as u64;
            assert_eq!(gone, full.then(|| silent + 2 - OF_ONE_ADDRESS as u64));
        }
        // One after the other out of a network of IPv6 is one caller too, and IPv4 is itself in either dress.
        for silent in 0..100 {
            greetings.begin(address(&format!("2001:db8::{silent:x}")), |number| number);
            greetings.begin(address("::ffff:10.0.0.9"), |number| number);
        }
        assert_eq!(greetings.under_way.len(), 1 + 2 * OF_ONE_ADDRESS);
        assert_eq!(greetings.under_way[0].0, 1, "the member is heard out");
        greetings.end(1);
        assert!(greetings.under_way.iter().all(|(number, ..)| *number != 1));
    }

    #[test]
    fn of_many_addresses_the_oldest_goes_and_the_number_is_bounded() {
        let mut greetings = Greetings::default();
        for caller in 0..2_000u32 {
            let from = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 | caller));
            let gone = greetings.begin(from, |number| number);
            let full = caller as usize >= GREETINGS;
            assert_eq!(gone, full.then(|| u64::from(caller) + 1 - GREETINGS as u64));
        }
        assert_eq!(greetings.under_way.len(), GREETINGS);
        let now = Instant::now();
        assert!(greetings.is_said(now));
        assert!(!greetings.is_said(now + SAID_AGAIN / 2));
        assert!(greetings.is_said(now + SAID_AGAIN));
    }
}
