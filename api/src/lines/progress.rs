//! How far an attempt is, as a line among the trainer's own: not more than a reader wants to scroll past.

use std::time::Duration;

use stepcast_cluster::session::Progress;
use stepcast_records::Quantiles;
use tokio::time::Instant;

use super::OURS;

/// A line at most so often, and at least for each twentieth of the run.
const AT_MOST: Duration = Duration::from_secs(10);

/// Parts of a run that are told of.
const PARTS: u64 = 20;

/// How fast an attempt has been since it was first heard of.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the first step was told of, and which it was.
    first: Option<(Instant, u64)>,
    /// When a line was last made, and for which part of the run.
    said: Option<(Instant, u64)>,
}

impl Pace {
    /// A line, if it is time for one.
    pub(super) fn line(
        &mut self,
        progress: &Progress,
        left: Option<Quantiles>,
        now: Instant,
    ) -> Option<String> {
        let (step, total) = (progress.step, progress.steps_total);
        if total == 0 || step == 0 || step > total {
            return None;
        }
        let (since, first) = *self.first.get_or_insert((now, step));
        let part = step * PARTS / total;
        if let Some((at, told)) = self.said
            && (part == told || (now - at < AT_MOST && step < total))
        {
            return None;
        }
        self.said = Some((now, part));
        let mut line = format!("{OURS} step {step} of {total} ({} %)", step * 100 / total);
        if step > first && step < total {
            let each = (now - since).as_secs_f64() / (step - first) as f64;
            line += &format!(", {each:.2} s a step");
        }
        if let Some(left) = left.filter(|_| step < total) {
            let left = Duration::from_millis(left.p50);
            line += &format!(", about {} left", words(left));
        }
        Some(line)
    }
}

/// A length of time in two parts.
fn words(left: Duration) -> String {
    let seconds = left.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use stepcast_cluster::session::Phase;

    use super::*;

    #[test]
    fn a_run_is_told_of_in_parts_with_what_is_left() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut at = |step: u64, seconds: u64, left_s: Option<u64>| {
            let progress = Progress {
                step,
                steps_total: 1_000,
                step_ms: None,
                phase: Phase::Training,
            };
            let left = left_s.map(|seconds| Quantiles::constant(seconds * 1_000));
            pace.line(&progress, left, start + Duration::from_secs(seconds))
        };
        assert_eq!(
            at(1, 0, None).as_deref(),
            Some("[stepcast] step 1 of 1000 (0 %)")
        );
        assert_eq!(at(49, 48, None), None, "the same twentieth");
        let line = at(101, 200, Some(1_798));
        assert_eq!(
            line.as_deref(),
            Some("[stepcast] step 101 of 1000 (10 %), 2.00 s a step, about 29 min 58 s left")
        );
        assert_eq!(at(151, 201, None), None, "too soon");
        assert_eq!(
            at(1_000, 202, Some(0)).as_deref(),
            Some("[stepcast] step 1000 of 1000 (100 %)")
        );
    }
}
