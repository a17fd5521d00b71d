//! Choice: which hardware is worth a look, and which is beaten by another in both time and cost.

use stepcast_records::{Estimate, Note};

/// Whether each estimate is dominated: another hardware that holds the model is at least as quick and as cheap in the
/// middle, and better in one of the two, loading, caching and saving included. What is left is the frontier of cost against time. A run without a time is
/// dominated by every run that has one; one without a price is dearer than any.
#[must_use]
pub fn dominated(estimates: &[Estimate]) -> Vec<bool> {
    let place = |estimate: &Estimate| {
        let time = estimate.whole_ms().map_or(u64::MAX, |whole| whole.p50);
        let cost = estimate.whole_cost().map_or(u64::MAX, |cost| cost.p50.0);
        (time, cost)
    };
    let fits = |estimate: &&Estimate| {
        let tight =
            |note: &Note| matches!(note, Note::MemoryTight { .. } | Note::MemoryExceeded { .. });
        !estimate.notes.iter().any(tight)
    };
    let rivals: Vec<(u64, u64)> = estimates.iter().filter(fits).map(place).collect();
    let beaten = |estimate: &Estimate| {
        let (time, cost) = place(estimate);
        rivals.iter().any(|&(other_time, other_cost)| {
            other_time <= time && other_cost <= cost && (other_time, other_cost) != (time, cost)
        })
    };
    estimates.iter().map(beaten).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stepcast_records::{Hardware, Quantiles, UsdMicros};

    use super::*;

    fn estimate(hours: u64, dollars_per_hour: Option<u64>) -> Estimate {
        let hardware: Hardware = "h100".parse().expect("hardware");
        let mut estimate = Estimate::unknown(hardware);
        if hours > 0 {
            estimate.run_ms = Some(Quantiles::constant(hours * 3_600_000));
        }
        match dollars_per_hour {
            Some(dollars) => estimate.priced(UsdMicros(dollars * 1_000_000)),
            None => estimate,
        }
    }

    #[test]
    fn only_what_no_other_beats_is_left() {
        let all = [
            estimate(1, Some(8)),
            estimate(4, Some(1)),
            estimate(2, Some(5)),
            estimate(5, Some(1)),
            estimate(0, Some(1)),
            estimate(3, None),
        ];
        assert_eq!(dominated(&all), [false, false, true, true, true, true]);
    }

    #[test]
    fn what_is_paid_for_before_the_steps_counts() {
        let mut dear = estimate(1, Some(8));
        dear.setup_ms = Some(Quantiles::constant(9 * 3_600_000));
        let mut cheap = estimate(2, Some(1));
        assert_eq!(dominated(&[dear.clone(), cheap.clone()]), [true, false]);
        cheap.setup_ms = dear.setup_ms;
        assert_eq!(dominated(&[dear, cheap]), [false, false]);
    }

    #[test]
    fn what_cannot_hold_the_model_beats_nobody() {
        let mut small = estimate(1, Some(1));
        let gpu = small.hardware.gpu;
        small.notes.push(Note::MemoryTight { gpu });
        assert_eq!(dominated(&[small, estimate(2, Some(2))]), [false, false]);
    }

    proptest! {
        #[test]
        fn somebody_is_always_left(all in prop::collection::vec((0u64..9, prop::option::of(0u64..9)), 1..20)) {
            let all: Vec<Estimate> = all.into_iter().map(|(hours, price)| estimate(hours, price)).collect();
            let dominated = dominated(&all);
            prop_assert_eq!(dominated.len(), all.len());
            prop_assert!(dominated.iter().any(|beaten| !beaten));
        }
    }
}
