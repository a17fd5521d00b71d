//! What a process tells of itself, in the text format that Prometheus reads.
//!
//! The format is version 0.0.4 of the text exposition formats (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::{self, Display, Write};

/// Something that is measured: its name, how its numbers move, and what they mean, for whoever looks at them.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

impl Metric {
    /// What only grows while the process runs.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::of(name, "counter", help)
    }

    /// What stands now.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::of(name, "gauge", help)
    }

    /// How often it was at most how much.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::of(name, "histogram", help)
    }

    const fn of(name: &'static str, kind: &'static str, help: &'static str) -> Self {
        Self { name, kind, help }
    }
}

/// Metrics as text, one after the other.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// With a metric, whose values follow.
    pub fn begin(&mut self, metric: &Metric) {
        let Metric { name, kind, help } = metric;
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// With a value of the metric that was begun. Labels are such as `table="validation_prompts"`, separated by commas, and
    /// their values need no escapes; none are `""`.
    pub fn value(&mut self, metric: &Metric, labels: &str, value: impl Display) {
        self.part(metric, "", labels, value);
    }

    /// With a metric that has one value.
    pub fn one(&mut self, metric: &Metric, value: impl Display) {
        self.begin(metric);
        self.value(metric, "", value);
    }

    /// With the buckets of a histogram that was begun: where each ends and how many are in it alone, the first ends first;
    /// then how many there are in all, beyond the last end too, and their sum.
    pub fn buckets(
        &mut self,
        metric: &Metric,
        labels: &str,
        buckets: impl IntoIterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (end, inside) in buckets {
            below += inside;
            let labels = format!("{labels}{comma}le=\"{end}\"");
            self.part(metric, "_bucket", &labels, below);
        }
        let all = format!("{labels}{comma}le=\"+Inf\"");
        self.part(metric, "_bucket", &all, count);
        self.part(metric, "_sum", labels, sum);
        self.part(metric, "_count", labels, count);
    }

    /// All of it.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }

    fn part(&mut self, metric: &Metric, part: &str, labels: &str, value: impl Display) {
        let name = metric.name;
        match labels {
            "" => self.line(format_args!("{name}{part} {value}")),
            labels => self.line(format_args!("{name}{part}{{{labels}}} {value}")),
        }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_says_what_it_means_and_its_buckets_add_up() {
        const STEPS: Metric = Metric::histogram("steps_seconds", "Times of steps.");
        const OPEN: Metric = Metric::gauge("open", "Whether it is open.");
        let mut text = Exposition::default();
        text.one(&OPEN, 1);
        text.begin(&STEPS);
        text.buckets(&STEPS, "gpu=\"h100\"", [(0.05, 2), (0.1, 3)], 6, 1.5);
        let expected = "# HELP open Whether it is open.\n\
            # TYPE open gauge\n\
            open 1\n\
            # HELP steps_seconds Times of steps.\n\
            # TYPE steps_seconds histogram\n\
            steps_seconds_bucket{gpu=\"h100\",le=\"0.05\"} 2\n\
            steps_seconds_bucket{gpu=\"h100\",le=\"0.1\"} 5\n\
            steps_seconds_bucket{gpu=\"h100\",le=\"+Inf\"} 6\n\
            steps_seconds_sum{gpu=\"h100\"} 1.5\n\
            steps_seconds_count{gpu=\"h100\"} 6\n";
        assert_eq!(text.into_text(), expected);
    }
}
