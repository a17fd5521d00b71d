//! Histograms of step times: microseconds at two significant digits, in the V2 bytes that every port reads.

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The six recordings of [`FROM_PYTHON`]: microseconds and how often.
    const RECORDED: [(u64, u64); 6] = [
        (1_000, 1),
        (1_250_000, 40),
        (1_253_000, 7),
        (1_300_000, 3),
        (14_000_000, 150),
        (3_599_999_999, 2),
    ];

    /// The same recordings as Python's `hdrhistogram` 0.10.8 writes them: `HdrHistogram(1, 3600000000, 2)`,
    /// its `encode()` with base64 and zlib taken off. The same package was given [`Histogram::to_v2_bytes`]
    /// (wrapped back in zlib and base64) and read the same count, quantiles and extremes from it.
    const FROM_PYTHON: &str = "1c8493130000000f0000000000000002000000000000000100000000d693a4003ff0000000000000\
                               f30702b9145e0906eb06ac02ff0f04";

    fn from_hex(text: &str) -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16);
        pairs.map(|pair| byte(pair).expect("hex")).collect()
    }

    fn recorded(times: impl IntoIterator<Item = (u64, u64)>) -> Histogram {
        let mut histogram = Histogram::new();
        for (micros, repeats) in times {
            for _ in 0..repeats {
                histogram
                    .record(Duration::from_micros(micros))
                    .expect("in range");
            }
        }
        histogram
    }

    /// Any header of the right form, with a payload of our choice.
    fn with_payload(payload: &[u8]) -> Vec<u8> {
        let mut bytes = expected_header(payload.len() as u32).to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn bytes_of_another_port_are_read_and_written_alike() {
        let python = from_hex(FROM_PYTHON);
        let ours = recorded(RECORDED);
        assert_eq!(ours.to_v2_bytes(), python);
        let read = Histogram::from_v2_bytes(&python).expect("readable");
        assert_eq!(read, ours);
        assert_eq!(read.count(), 203);
        assert!((read.quantile(0.5) - 14_000.0).abs() < 14_000.0 * 0.005);
        // Python says 46102.60355665024 ms.
        assert!((read.mean_ms() - 46_102.603_556_650_24).abs() < 1e-6);
    }

    #[test]
    fn times_outside_the_range_are_refused() {
        let mut histogram = Histogram::new();
        for time_ms in [0.999, 0.0, -5.0, f64::NAN, f64::INFINITY, 3_600_001.0] {
            assert_eq!(
                histogram.record_ms(time_ms),
                Err(Error::OutOfRange),
                "{time_ms}"
            );
        }
        assert_eq!(histogram.record(Duration::MAX), Err(Error::OutOfRange));
        assert!(histogram.is_empty());
        for time_ms in [1.0, 3_600_000.0] {
            assert_eq!(histogram.record_ms(time_ms), Ok(()));
        }
        let bytes = histogram.to_v2_bytes();
        assert_eq!(Histogram::from_v2_bytes(&bytes), Ok(histogram));
    }

    #[test]
    fn an_empty_histogram_travels_too() {
        let empty = Histogram::new();
        assert_eq!(
            Histogram::from_v2_bytes(&empty.to_v2_bytes()),
            Ok(empty.clone())
        );
        assert_eq!(
            (empty.quantile(0.5), empty.mean_ms(), empty.count()),
            (0.0, 0.0, 0)
        );
    }

    #[test]
    fn the_bound_on_bytes_holds_the_fullest_histogram() {
        let buckets = Histogram::new().0.distinct_values();
        let fullest = HEADER_BYTES + buckets * 5;
        assert!(fullest <= Histogram::MAX_V2_BYTES, "{fullest} bytes");
    }

    #[test]
    fn absurd_headers_and_counts_are_refused() {
        let good = recorded(RECORDED).to_v2_bytes();
        for (position, byte) in [
            (0, 0x1d),
            (7, 0x10),
            (11, 1),
            (15, 3),
            (23, 2),
            (24, 1),
            (32, 0x40),
        ] {
            let mut bytes = good.clone();
            bytes[position] = byte;
            assert_eq!(
                Histogram::from_v2_bytes(&bytes),
                Err(Error::Header),
                "byte {position}"
            );
        }
        assert_eq!(Histogram::from_v2_bytes(&good[..39]), Err(Error::Header));
        assert_eq!(Histogram::from_v2_bytes(&[]), Err(Error::Header));
        let long = vec![0; Histogram::MAX_V2_BYTES + 1];
        assert_eq!(Histogram::from_v2_bytes(&long), Err(Error::TooLong));
        let most_negative = [0xff; 9];
        let too_many_zeros = [0xff, 0xff, 0x03];
        let too_large_a_count = [0xf3, 0x07, 0xfe, 0xff, 0xff, 0xff, 0x0f];
        let below_a_millisecond = [0x02];
        let unfinished = [0xf3];
        for payload in [
            &most_negative[..],
            &too_many_zeros,
            &too_large_a_count,
            &below_a_millisecond,
            &unfinished,
        ] {
            let bytes = with_payload(payload);
            assert_eq!(
                Histogram::from_v2_bytes(&bytes),
                Err(Error::Counts),
                "{payload:x?}"
            );
        }
    }

    #[test]
    fn a_count_above_an_hour_is_refused() {
        let last = Histogram::new().0.distinct_values() as u64 - 1;
        let zeros = last * 2 - 1;
        let low = (zeros & 0x7f) as u8 | 0x80;
        let bytes = with_payload(&[low, (zeros >> 7) as u8, 0x02]);
        assert_eq!(Histogram::from_v2_bytes(&bytes), Err(Error::Counts));
    }

    #[test]
    fn json_keeps_a_histogram() {
        let histogram = recorded(RECORDED);
        let json = serde_json::to_string(&histogram).expect("json");
        assert_eq!(
            serde_json::from_str::<Histogram>(&json).expect("json"),
            histogram
        );
        assert!(serde_json::from_str::<Histogram>("[1,2,3]").is_err());
        assert!(serde_json::from_str::<Histogram>("[256]").is_err());
    }

    fn times() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(MIN_US..=MAX_US, 1..60)
    }

    proptest! {
        #[test]
        fn merging_is_associative_and_loses_nothing(a in times(), b in times(), c in times()) {
            let [a, b, c] = [a, b, c].map(|times| recorded(times.into_iter().map(|t| (t, 1))));
            let mut left = a.clone();
            left.merge(&b);
            left.merge(&c);
            let mut tail = b.clone();
            tail.merge(&c);
            let mut right = tail;
            right.merge(&a);
            prop_assert_eq!(&left, &right);
            prop_assert_eq!(left.count(), a.count() + b.count() + c.count());
        }

        #[test]
        fn a_quantile_is_right_within_its_digits(mut times in times(), share in 0.0f64..=1.0) {
            let histogram = recorded(times.iter().map(|t| (*t, 1)));
            times.sort_unstable();
            let rank = ((share * times.len() as f64).ceil() as usize).max(1);
            let exact_ms = times[rank - 1] as f64 / 1_000.0;
            let error = (histogram.quantile(share) - exact_ms).abs() / exact_ms;
            prop_assert!(error <= 0.005, "{error}");
        }

        #[test]
        fn bytes_bring_back_the_same_histogram(times in times()) {
            let histogram = recorded(times.into_iter().map(|t| (t, 1)));
            let read = Histogram::from_v2_bytes(&histogram.to_v2_bytes());
            prop_assert_eq!(read, Ok(histogram));
        }

        #[test]
        fn hostile_counts_never_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(read) = Histogram::from_v2_bytes(&with_payload(&payload)) {
                prop_assert!(read.is_empty() || read.quantile(0.0) >= 1.0);
                prop_assert!(read.quantile(1.0) <= 3_620_000.0);
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Histogram::from_v2_bytes(&bytes).is_err());
        }

        #[test]
        fn damaged_bytes_never_panic(times in times(), position in 0usize..400, byte in any::<u8>()) {
            let mut bytes = recorded(times.into_iter().map(|t| (t, 1))).to_v2_bytes();
            let position = position % bytes.len();
            bytes[position] = byte;
            if let Ok(read) = Histogram::from_v2_bytes(&bytes) {
                prop_assert!(read.quantile(1.0) <= 3_620_000.0);
            }
        }
    }
}
