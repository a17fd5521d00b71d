//! Histograms merge, keep their digits, and read bytes of other ports but no hostile ones.

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
