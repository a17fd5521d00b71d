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
