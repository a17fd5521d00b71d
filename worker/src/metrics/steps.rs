//! Times of training steps in fixed buckets.

use std::time::Duration;

use stepcast_records::metrics::{Exposition, Metric};

/// Upper ends in milliseconds: from a small model on a large GPU to a video that takes minutes a step.
const ENDS_MS: [u64; 12] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000,
];

/// One histogram.
#[derive(Debug, Default)]
pub(super) struct Steps {
    buckets: [u64; ENDS_MS.len()],
    count: u64,
    sum: Duration,
}

impl Steps {
    pub(super) fn add(&mut self, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if let Some(bucket) = self
            .buckets
            .get_mut(ENDS_MS.partition_point(|end| *end < ms))
        {
            *bucket += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// Its lines, with these labels on each.
    pub(super) fn write(&self, text: &mut Exposition, metric: &Metric, labels: &str) {
        let ends = ENDS_MS.iter().map(|end_ms| *end_ms as f64 / 1e3);
        let buckets = ends.zip(self.buckets);
        text.buckets(metric, labels, buckets, self.count, self.sum.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_took_no_longer() {
        let mut steps = Steps::default();
        for ms in [40, 50, 51, 7_200_000] {
            steps.add(Duration::from_millis(ms));
        }
        let metric = Metric::histogram("s", "Steps.");
        let mut text = Exposition::default();
        steps.write(&mut text, &metric, "gpu=\"h100\"");
        let text = text.into_text();
        for line in [
            "s_bucket{gpu=\"h100\",le=\"0.05\"} 2",
            "s_bucket{gpu=\"h100\",le=\"0.1\"} 3",
            "s_bucket{gpu=\"h100\",le=\"1800\"} 3",
            "s_bucket{gpu=\"h100\",le=\"+Inf\"} 4",
            "s_sum{gpu=\"h100\"} 7200.141",
            "s_count{gpu=\"h100\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{}", text);
        }
    }
}
