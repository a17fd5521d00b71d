//! Histograms of step times: microseconds at two significant digits, in the V2 bytes that every port reads.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram as Hdr;
use hdrhistogram::serialization::{Deserializer as HdrReader, Serializer as _, V2Serializer};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How often each time occurred. Times are kept to within half a per cent.
#[derive(Clone, PartialEq)]
pub struct Histogram(Hdr<u64>);

/// Why a time or a run of bytes was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a finite time between one millisecond and one hour.
    #[error("a recorded time is between one millisecond and one hour")]
    OutOfRange,
    /// More bytes than any histogram of ours has.
    #[error("a histogram has at most {} bytes", Histogram::MAX_V2_BYTES)]
    TooLong,
    /// Too short, or not the header that every histogram of ours has.
    #[error("the bytes do not start with the header of a histogram of step times")]
    Header,
    /// The counts end early, run past the last bucket, are too large or lie outside the range of times.
    #[error("the counts of the histogram are not valid")]
    Counts,
}

/// The shortest time that is recorded.
const MIN_US: u64 = 1_000;
/// The longest time that is recorded.
const MAX_US: u64 = 3_600_000_000;
/// The unit of the buckets, so that short times have their two digits too.
const UNIT_US: u64 = 1;
/// Two digits: an error of half a per cent, well under the noise from run to run.
const SIGNIFICANT_DIGITS: u8 = 2;
/// The most a single bucket may count in bytes from elsewhere; more steps than any run has.
const MAX_BUCKET_COUNT: u64 = 1_000_000_000;

const COOKIE: u32 = 0x1c84_9303 | 0x10;
const HEADER_BYTES: usize = 40;

impl Histogram {
    /// The most bytes a histogram is written in: 3,328 buckets, each at most five bytes long at
    /// counts of a thousand million, and the header.
    pub const MAX_V2_BYTES: usize = 16_700;

    /// A histogram of nothing.
    #[must_use]
    pub fn new() -> Self {
        let buckets = Hdr::new_with_bounds(UNIT_US, MAX_US, SIGNIFICANT_DIGITS);
        Self(buckets.expect("the constant bounds are valid"))
    }

    /// Counts one time.
    ///
    /// # Errors
    /// When it is below a millisecond or above an hour; the histogram stays as it was.
    pub fn record(&mut self, time: Duration) -> Result<(), Error> {
        let micros = u64::try_from(time.as_micros()).map_err(|_| Error::OutOfRange)?;
        self.record_us(micros)
    }

    /// Counts one time in milliseconds.
    ///
    /// # Errors
    /// When it is not finite, below a millisecond or above an hour; the histogram stays as it was.
    pub fn record_ms(&mut self, time_ms: f64) -> Result<(), Error> {
        let micros = (time_ms * 1_000.0).round();
        if !(micros >= MIN_US as f64 && micros <= MAX_US as f64) {
            return Err(Error::OutOfRange);
        }
        self.record_us(micros as u64)
    }

    /// Counts all that another histogram counts.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same constant bounds, so the addition cannot fail.
        let added = self.0.add(&other.0);
        debug_assert!(added.is_ok(), "histograms of one shape always add up");
    }

    /// The time in milliseconds that this share (0 to 1) of all counted times does not exceed; 0 when empty.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        let upper_edge = self.0.value_at_quantile(share.clamp(0.0, 1.0));
        self.0.median_equivalent(upper_edge) as f64 / 1_000.0
    }

    /// The mean in milliseconds; 0 when empty.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        self.0.mean() / 1_000.0
    }

    /// The mean in milliseconds of the times up to `limit_ms`, and how many these are.
    #[must_use]
    pub fn mean_ms_up_to(&self, limit_ms: f64) -> Option<(f64, u64)> {
        let mut sum_us = 0.0;
        let mut count = 0;
        for (middle_us, times) in self.buckets() {
            if middle_us as f64 <= limit_ms * 1_000.0 {
                sum_us += middle_us as f64 * times as f64;
                count += times;
            }
        }
        (count > 0).then(|| (sum_us / count as f64 / 1_000.0, count))
    }

    /// How many times were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every bucket that counts anything: its middle in microseconds, and its count, shortest time first.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let recorded = self.0.iter_recorded();
        recorded.map(|step| {
            let middle = self.0.median_equivalent(step.value_iterated_to());
            (middle, step.count_at_value())
        })
    }

    /// The bytes of the V2 encoding, without compression.
    #[must_use]
    pub fn to_v2_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written = V2Serializer::new().serialize(&self.0, &mut bytes);
        debug_assert!(written.is_ok(), "writing to memory does not fail");
        bytes
    }

    /// Reads the bytes of the V2 encoding, from any port that uses our unit, range and digits.
    ///
    /// Nothing is allocated for bytes that fail a check: their length, the exact header, and every count are
    /// looked at first.
    ///
    /// # Errors
    /// When any of these checks fails.
    pub fn from_v2_bytes(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > Self::MAX_V2_BYTES {
            return Err(Error::TooLong);
        }
        let (header, counts) = bytes.split_at_checked(HEADER_BYTES).ok_or(Error::Header)?;
        let payload_length = u32::try_from(counts.len()).map_err(|_| Error::TooLong)?;
        if header != expected_header(payload_length) {
            return Err(Error::Header);
        }
        check_counts(counts)?;
        let read = HdrReader::new().deserialize(&mut &bytes[..]);
        let read: Hdr<u64> = read.map_err(|_| Error::Counts)?;
        let longest = read.lowest_equivalent(read.max());
        let inside = read.is_empty() || (read.min() >= MIN_US && longest <= MAX_US);
        inside.then_some(Self(read)).ok_or(Error::Counts)
    }

    fn record_us(&mut self, micros: u64) -> Result<(), Error> {
        if !(MIN_US..=MAX_US).contains(&micros) {
            return Err(Error::OutOfRange);
        }
        self.0.record(micros).map_err(|_| Error::OutOfRange)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The header that a histogram of our bounds has: cookie, length of the counts, no offset, digits, unit,
/// longest time, and a conversion ratio of one, all big-endian.
fn expected_header(payload_length: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&COOKIE.to_be_bytes());
    header[4..8].copy_from_slice(&payload_length.to_be_bytes());
    header[12..16].copy_from_slice(&u32::from(SIGNIFICANT_DIGITS).to_be_bytes());
    header[16..24].copy_from_slice(&UNIT_US.to_be_bytes());
    header[24..32].copy_from_slice(&MAX_US.to_be_bytes());
    header[32..40].copy_from_slice(&1.0_f64.to_be_bytes());
    header
}

/// Walks the counts (zigzag LEB128 numbers; a negative one skips that many empty buckets) without storing any.
fn check_counts(mut bytes: &[u8]) -> Result<(), Error> {
    let buckets = Histogram::new().0.distinct_values() as u64;
    let mut position: u64 = 0;
    while !bytes.is_empty() {
        let (encoded, rest) = split_number(bytes).ok_or(Error::Counts)?;
        bytes = rest;
        let magnitude = (encoded >> 1) + (encoded & 1);
        let skips = encoded & 1 == 1;
        if magnitude > if skips { buckets } else { MAX_BUCKET_COUNT } {
            return Err(Error::Counts);
        }
        position += if skips { magnitude } else { 1 };
        if position > buckets {
            return Err(Error::Counts);
        }
    }
    Ok(())
}

/// One number of at most nine bytes: seven bits a byte, lowest first, the ninth byte whole.
fn split_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (index, &byte) in bytes.iter().enumerate().take(9) {
        if index == 8 {
            return Some((number | u64::from(byte) << 56, &bytes[9..]));
        }
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[index + 1..]));
        }
    }
    None
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, p50) = (self.count(), self.quantile(0.5));
        write!(f, "Histogram({count} times, p50 {p50} ms)")
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_v2_bytes())
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(V2Bytes)
    }
}

struct V2Bytes;

impl<'de> Visitor<'de> for V2Bytes {
    type Value = Histogram;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the V2 bytes of a histogram")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Histogram, E> {
        Histogram::from_v2_bytes(bytes).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Histogram, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = numbers.next_element()? {
            if bytes.len() == Histogram::MAX_V2_BYTES {
                return Err(de::Error::custom(Error::TooLong));
            }
            bytes.push(byte);
        }
        self.visit_bytes(&bytes)
    }
}
