//! When a certificate ends, as it says itself: the few bytes of X.509 (RFC 5280, 4.1) that lead there.

use std::fmt;

/// The end of a certificate's time, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    year: i64,
    month: i64,
    day: i64,
    /// Of that day.
    seconds: i64,
}

const SEQUENCE: u8 = 0x30;
/// What a version stands in, where there is one.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl End {
    /// That of a certificate, which is DER; nothing if it says none in the form that the standard asks for.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = of_kind(certificate, SEQUENCE)?;
        let (mut rest, _) = of_kind(certificate, SEQUENCE)?;
        if rest.first() == Some(&VERSION) {
            rest = element(rest)?.2;
        }
        // Its number, how it is signed, and by whom.
        for _ in 0..3 {
            rest = element(rest)?.2;
        }
        let (validity, _) = of_kind(rest, SEQUENCE)?;
        let (_, _, end) = element(validity)?;
        let (kind, text, _) = element(end)?;
        Self::read(kind, std::str::from_utf8(text).ok()?)
    }

    fn read(kind: u8, text: &str) -> Option<Self> {
        let text = text.strip_suffix('Z')?;
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (year, rest) = match (kind, text.len()) {
            (UTC_TIME, 12) => {
                let (year, rest) = text.split_at(2);
                let year: i64 = year.parse().ok()?;
                (year + if year < 50 { 2_000 } else { 1_900 }, rest)
            }
            (GENERALIZED_TIME, 14) => {
                let (year, rest) = text.split_at(4);
                (year.parse().ok()?, rest)
            }
            _ => return None,
        };
        let number = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
        let (month, day) = (number(0)?, number(2)?);
        let fits = (1..=12).contains(&month) && (1..=31).contains(&day);
        fits.then_some(Self {
            year,
            month,
            day,
            seconds: number(4)? * 3_600 + number(6)? * 60 + number(8)?,
        })
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        // Years that begin in March have the day that is there every fourth time at their end: a day's number in its year is
        // then 153 days for five months, and leap years are counted as they are behind.
        let year = self.year - i64::from(self.month < 3);
        let month = (self.month + 9) % 12;
        let days = 365 * year + year / 4 - year / 100 + year / 400;
        let day = (153 * month + 2) / 5 + self.day - 1;
        // From the first of March of the year 0.
        (days + day - 719_468) * 86_400 + self.seconds
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            year, month, day, ..
        } = self;
        let (hour, minute) = (self.seconds / 3_600, self.seconds / 60 % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

/// An element of this kind, and what follows it.
fn of_kind(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (kind, content, rest) = element(bytes)?;
    (kind == wanted).then_some((content, rest))
}

/// The first element of DER: its kind, what is in it, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (length, bytes) = match usize::from(first) {
        length @ 0..=0x7f => (length, bytes),
        // 0x80 has no length; beyond it so many bytes of one follow. More than four are no certificate's.
        many @ 0x81..=0x84 => {
            let (length, bytes) = bytes.split_at_checked(many - 0x80)?;
            let length = length
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, bytes)
        }
        _ => return None,
    };
    let (content, rest) = bytes.split_at_checked(length)?;
    Some((kind, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_says_when_it_ends() {
        for (date, seconds, said) in [
            ((2026, 11, 28), 1_795_824_000, "2026-11-28 00:00 UTC"),
            ((2024, 2, 29), 1_709_164_800, "2024-02-29 00:00 UTC"),
            ((1999, 12, 31), 946_598_400, "1999-12-31 00:00 UTC"),
            ((2124, 1, 1), 4_859_740_800, "2124-01-01 00:00 UTC"),
            ((2100, 3, 1), 4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            let mut parameters = CertificateParams::default();
            parameters.not_before = date_time_ymd(1990, 1, 1);
            parameters.not_after = date_time_ymd(date.0, date.1, date.2);
            let key = KeyPair::generate().expect("a key");
            let made = parameters.self_signed(&key).expect("a certificate");
            let end = End::of(made.der()).expect("an end");
            assert_eq!(
                (end.unix_seconds(), end.to_string().as_str()),
                (seconds, said)
            );
            // None of its beginnings is one, and none is a fault.
            for cut in 0..made.der().len() {
                assert_eq!(End::of(&made.der()[..cut]), None);
            }
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for (kind, text) in [
            (UTC_TIME, "261128120000"),
            (UTC_TIME, "2611281200Z"),
            (UTC_TIME, "26112812000éZ"),
            (UTC_TIME, "261328120000Z"),
            (GENERALIZED_TIME, "20261100120000Z"),
            (0x16, "20261128120000Z"),
        ] {
            assert_eq!(End::read(kind, text), None, "{text}");
        }
    }
}
