//! Money and time as people read them, computed in integers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An amount of money in millionths of a US dollar.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UsdMicros(pub u64);

/// The text is not a plain decimal number of dollars with at most six digits after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write an amount as dollars with at most six digits after the point, such as 1.08")]
pub struct Error;

/// The most that an hour on one GPU may cost: a hundred times what the dearest one is listed at. What is above it is a slip
/// of the hand.
pub const GPU_HOUR_MAX: UsdMicros = UsdMicros(1_000_000_000);

const MS_PER_MINUTE: u64 = 60_000;
const MS_PER_HOUR: u128 = 3_600_000;
const MICROS_PER_CENT: u64 = 10_000;
const MICROS_PER_DOLLAR: u64 = 1_000_000;

/// What so many milliseconds cost at a price per hour, rounded half up to a millionth of a dollar.
///
/// An amount that does not fit becomes the largest there is.
#[must_use]
pub fn cost(time_ms: u64, price_per_hour: UsdMicros) -> UsdMicros {
    let micros = u128::from(time_ms) * u128::from(price_per_hour.0);
    let micros = (micros + MS_PER_HOUR / 2) / MS_PER_HOUR;
    UsdMicros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// A time as an estimate says it: `<1 minute`, `~38 minutes` below two hours, then `~2 h 05 min`.
///
/// Minutes are rounded half up.
#[must_use]
pub fn display_duration(time_ms: u64) -> String {
    if time_ms < MS_PER_MINUTE {
        return "<1 minute".to_owned();
    }
    match time_ms.saturating_add(MS_PER_MINUTE / 2) / MS_PER_MINUTE {
        1 => "~1 minute".to_owned(),
        minutes @ ..120 => format!("~{minutes} minutes"),
        minutes => format!("~{} h {:02} min", minutes / 60, minutes % 60),
    }
}

/// An amount as an estimate says it: `~$0.68`, rounded half up to the cent.
#[must_use]
pub fn display_cost(amount: UsdMicros) -> String {
    format!("~{amount}")
}

impl fmt::Display for UsdMicros {
    /// Dollars and cents, rounded half up: `$0.68`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents = self.0.saturating_add(MICROS_PER_CENT / 2) / MICROS_PER_CENT;
        f.pad(&format!("${}.{:02}", cents / 100, cents % 100))
    }
}

impl FromStr for UsdMicros {
    type Err = Error;

    /// Reads dollars as a plain decimal number, exactly.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (dollars, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !plain(dollars) || !plain(fraction) || fraction.len() > 6 {
            return Err(Error);
        }
        let dollars: u64 = dollars.parse().map_err(|_| Error)?;
        let micros: u64 = format!("{fraction:0<6}").parse().map_err(|_| Error)?;
        let whole = dollars.checked_mul(MICROS_PER_DOLLAR).ok_or(Error)?;
        whole.checked_add(micros).map(Self).ok_or(Error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_an_estimate_says_them() {
        for (seconds, text) in [
            (0, "<1 minute"),
            (59, "<1 minute"),
            (60, "~1 minute"),
            (89, "~1 minute"),
            (90, "~2 minutes"),
            (2_249, "~37 minutes"),
            (2_250, "~38 minutes"),
            (2_280, "~38 minutes"),
            (2_309, "~38 minutes"),
            (2_310, "~39 minutes"),
            (7_169, "~119 minutes"),
            (7_170, "~2 h 00 min"),
            (7_500, "~2 h 05 min"),
            (360_000, "~100 h 00 min"),
        ] {
            assert_eq!(display_duration(seconds * 1_000), text, "{seconds} s");
        }
        assert_eq!(display_duration(59_999), "<1 minute");
        assert!(display_duration(u64::MAX).starts_with('~'));
    }

    #[test]
    fn costs_as_an_estimate_says_them() {
        for (micros, text) in [
            (0, "~$0.00"),
            (4_999, "~$0.00"),
            (5_000, "~$0.01"),
            (674_999, "~$0.67"),
            (675_000, "~$0.68"),
            (684_000, "~$0.68"),
            (684_999, "~$0.68"),
            (685_000, "~$0.69"),
            (1_000_000, "~$1.00"),
            (1_234_567_890, "~$1234.57"),
        ] {
            assert_eq!(display_cost(UsdMicros(micros)), text, "{micros}");
        }
    }

    #[test]
    fn dollars_are_read_exactly() {
        for (text, micros) in [
            ("1.08", Ok(1_080_000)),
            ("0.000001", Ok(1)),
            ("2", Ok(2_000_000)),
            ("0.0000001", Err(Error)),
            ("", Err(Error)),
            ("1.", Err(Error)),
            (".5", Err(Error)),
            ("-1", Err(Error)),
            ("1e3", Err(Error)),
            ("$1", Err(Error)),
            ("99999999999999999999", Err(Error)),
            ("18446744073710", Err(Error)),
        ] {
            assert_eq!(text.parse(), micros.map(UsdMicros), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_longer_run_never_costs_less(a in 0u64..1 << 40, b in 0u64..1 << 40, price in 0u64..1 << 40) {
            let (short, long) = (a.min(b), a.max(b));
            let price = UsdMicros(price);
            prop_assert!(cost(short, price) <= cost(long, price));
        }

        #[test]
        fn costs_of_parts_add_up_to_the_whole(a in 0u64..1 << 40, b in 0u64..1 << 40, price in 0u64..1 << 40) {
            let price = UsdMicros(price);
            let parts = cost(a, price).0 + cost(b, price).0;
            prop_assert!(parts.abs_diff(cost(a + b, price).0) <= 1);
        }
    }
}
