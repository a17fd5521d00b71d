//! How long something takes, counted in fixed buckets that many threads can add to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stepcast_records::metrics::{Exposition, Metric};

/// Upper ends in microseconds: from an entry that is applied in memory to a disk that stalls.
const BUCKETS_US: [u64; 13] = [
    10, 50, 100, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000,
];

/// Upper ends in microseconds for what people wait for: from a moment to a day.
const WAITS_US: [u64; BUCKETS_US.len()] = [
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    7_200_000_000,
    28_800_000_000,
    86_400_000_000,
];

/// Upper ends in millionths for how often something is another thing: from a tenth to ten times.
const RATIOS: [u64; BUCKETS_US.len()] = [
    100_000, 250_000, 500_000, 700_000, 800_000, 900_000, 1_000_000, 1_100_000, 1_250_000,
    1_500_000, 2_000_000, 4_000_000, 10_000_000,
];

/// One histogram.
#[derive(Debug)]
pub(super) struct Durations {
    ends_us: &'static [u64; BUCKETS_US.len()],
    buckets: [AtomicU64; BUCKETS_US.len()],
    count: AtomicU64,
    sum_ns: AtomicU64,
}

impl Default for Durations {
    fn default() -> Self {
        Self::of(&BUCKETS_US)
    }
}

impl Durations {
    /// A histogram of waits.
    pub(super) fn waits() -> Self {
        Self::of(&WAITS_US)
    }

    /// A histogram of ratios: a second stands for 1.
    pub(super) fn ratios() -> Self {
        Self::of(&RATIOS)
    }

    fn of(ends_us: &'static [u64; BUCKETS_US.len()]) -> Self {
        Self {
            ends_us,
            buckets: Default::default(),
            count: AtomicU64::new(0),
            sum_ns: AtomicU64::new(0),
        }
    }

    pub(super) fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self
            .buckets
            .get(self.ends_us.partition_point(|end| *end < micros))
        {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(
            u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// Its lines, with these labels on each; nothing was counted, nothing is written.
    pub(super) fn write(&self, text: &mut Exposition, metric: &Metric, labels: &str) {
        let count = self.count.load(Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let ends = self.ends_us.iter().map(|end_us| *end_us as f64 / 1e6);
        let inside = self
            .buckets
            .iter()
            .map(|inside| inside.load(Ordering::Relaxed));
        let sum = self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9;
        text.buckets(metric, labels, ends.zip(inside), count, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: Metric = Metric::histogram("r", "Ratios.");
    const D: Metric = Metric::histogram("d", "Durations.");

    #[test]
    fn what_takes_as_long_as_expected_is_counted_at_one() {
        let metrics = crate::metrics::Metrics::default();
        let second = Duration::from_secs(1);
        metrics.ran(90 * second, 90 * second);
        metrics.ran(second, Duration::ZERO);
        metrics.ran(Duration::MAX, second);
        let mut text = Exposition::default();
        metrics.estimate_errors.write(&mut text, &R, "");
        let text = text.into_text();
        let has = |line: &str| text.lines().any(|l| l == line);
        assert!(has("r_bucket{le=\"0.9\"} 0"), "{}", text);
        assert!(has("r_bucket{le=\"1\"} 1"), "{}", text);
        assert!(has("r_sum 1000001"), "{}", text);
        assert!(has("r_count 2"), "{}", text);
    }

    #[test]
    fn buckets_count_everything_up_to_their_end() {
        let durations = Durations::default();
        for micros in [3, 10, 11, 60_000_000] {
            durations.add(Duration::from_micros(micros));
        }
        let mut text = Exposition::default();
        durations.write(&mut text, &D, "command=\"place\"");
        let text = text.into_text();
        let has = |line: &str| text.lines().any(|l| l == line);
        assert!(
            has("d_bucket{command=\"place\",le=\"0.00001\"} 2"),
            "{}",
            text
        );
        assert!(has("d_bucket{command=\"place\",le=\"10\"} 3"), "{}", text);
        assert!(has("d_bucket{command=\"place\",le=\"+Inf\"} 4"), "{}", text);
        assert!(has("d_sum{command=\"place\"} 60.000024"), "{}", text);
        assert!(has("d_count{command=\"place\"} 4"), "{}", text);
    }
}
