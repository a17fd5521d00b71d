//! Whatever a worker contributes as a histogram: it is refused, or read as what it is written as afterwards.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepcast_records::Histogram;

fuzz_target!(|data: &[u8]| {
    if let Ok(histogram) = Histogram::from_v2_bytes(data) {
        let written = histogram.to_v2_bytes();
        let again = Histogram::from_v2_bytes(&written).expect("what was written");
        assert_eq!(again.to_v2_bytes(), written);
        let counted: u64 = histogram.buckets().map(|(_, count)| count).sum();
        assert_eq!(counted, histogram.count());
        if !histogram.is_empty() {
            assert!(histogram.quantile(0.5) <= histogram.quantile(0.9));
        }
        let mut doubled = Histogram::new();
        doubled.merge(&histogram);
        doubled.merge(&histogram);
        assert_eq!(doubled.count(), 2 * histogram.count());
    }
});
