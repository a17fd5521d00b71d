//! Which of several possible places is best: by money, by time, or by both.

use stepcast_records::{Hardware, UsdMicros};

use super::forecast::Forecast;
use crate::model::Objective;

/// How good a place is; the smallest is best.
///
/// What is known goes before what is guessed, and a priced worker before one without a price where money counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    is_guess: bool,
    is_unpriced: bool,
    value: u128,
    other: u128,
}

/// The score of GPUs at a price for all of them together.
pub(super) fn score(
    objective: Objective,
    hardware: Hardware,
    forecast: Option<Forecast>,
    price_per_hour: Option<UsdMicros>,
) -> Score {
    let time = forecast.map_or_else(
        || guessed_time(hardware),
        |forecast| forecast.run_ms_p50.into(),
    );
    // Without a price, places are told apart by time alone.
    let price = price_per_hour.map_or(1, |UsdMicros(micros)| u128::from(micros));
    let cost = time.saturating_mul(price);
    let (value, other) = match objective {
        Objective::Cheapest => (cost, time),
        Objective::Fastest => (time, cost),
        Objective::Balanced => (cost.saturating_mul(time), cost),
    };
    Score {
        is_guess: forecast.is_none(),
        is_unpriced: price_per_hour.is_none() && objective != Objective::Fastest,
        value,
        other,
    }
}

/// A measure of time for want of any history: the more its maker rates the hardware at, the less.
fn guessed_time(hardware: Hardware) -> u128 {
    /// Slower than any GPU: a processor is never preferred to one on a guess.
    const UNRATED: f64 = 0.1;
    /// Large enough that no two ratings come out equal.
    const SCALE: f64 = 1e9;
    let tflops = hardware
        .gpu
        .rated()
        .map_or(UNRATED, |rated| rated.bf16_tflops);
    (SCALE / (tflops * f64::from(hardware.count))) as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(
        slug: &str,
        minutes: Option<u64>,
        price: Option<u64>,
    ) -> (Hardware, Option<Forecast>, Option<UsdMicros>) {
        let hardware = slug.parse().expect("a hardware");
        let forecast = minutes.map(|minutes| Forecast {
            run_ms_p50: minutes * 60_000,
            run_ms_p90: minutes * 90_000,
        });
        (hardware, forecast, price.map(UsdMicros))
    }

    fn best(
        objective: Objective,
        places: &[(Hardware, Option<Forecast>, Option<UsdMicros>)],
    ) -> String {
        let scored = places.iter().min_by_key(|(hardware, forecast, price)| {
            score(objective, *hardware, *forecast, *price)
        });
        scored.map_or_else(String::new, |(hardware, ..)| hardware.slug())
    }

    #[test]
    fn each_objective_has_its_own_favourite() {
        let places = [
            place("rtx4090", Some(100), Some(340_000)),
            place("l40s", Some(70), Some(500_000)),
            place("h100", Some(38), Some(2_500_000)),
        ];
        assert_eq!(best(Objective::Cheapest, &places), "rtx4090x1");
        assert_eq!(best(Objective::Fastest, &places), "h100x1");
        assert_eq!(best(Objective::Balanced, &places), "l40sx1");
    }

    #[test]
    fn what_is_known_goes_before_what_is_guessed() {
        let places = [
            place("h200", None, Some(1)),
            place("rtx3060", Some(900), Some(100_000)),
        ];
        for objective in [Objective::Cheapest, Objective::Fastest, Objective::Balanced] {
            assert_eq!(best(objective, &places), "rtx3060x1", "{objective:?}");
        }
    }

    #[test]
    fn without_history_the_rating_decides() {
        let places = [
            place("cpu", None, None),
            place("rtx3060", None, None),
            place("h100x2", None, None),
        ];
        for objective in [Objective::Cheapest, Objective::Fastest, Objective::Balanced] {
            assert_eq!(best(objective, &places), "h100x2", "{objective:?}");
        }
    }
}
