//! A day of the calendar, counted, because prices hold from one day to another.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// A day in UTC, as days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

/// The text is not a day such as `2026-10-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a day as 2026-10-01, from 1970 on")]
pub struct NotADay;

impl Day {
    /// The day it is now.
    #[must_use]
    pub fn today() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = since.map_or(0, |since| since.as_millis());
        Self::of_ms(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// The day of a moment, in milliseconds since 1970.
    #[must_use]
    pub fn of_ms(ms: u64) -> Self {
        let days = ms / 1_000 / DAY_S;
        Self(i32::try_from(days).unwrap_or(i32::MAX))
    }

    /// The first millisecond of the day since 1970.
    #[must_use]
    pub fn start_ms(self) -> i64 {
        i64::from(self.0) * 86_400_000
    }

    /// The day of the Gregorian calendar, or `None` when there is none such.
    #[must_use]
    pub fn from_date(year: i32, month: u32, day: u32) -> Option<Self> {
        let days = i64::from(days_of_month(year, month)?);
        if !(1970..=9999).contains(&year) || !(1..=days).contains(&i64::from(day)) {
            return None;
        }
        let years = i64::from(year) - 1970;
        let before = i64::from(year) - 1;
        let leap_days =
            before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
        let months = (1..month).filter_map(|month| days_of_month(year, month));
        let days =
            years * 365 + leap_days + months.map(i64::from).sum::<i64>() + i64::from(day) - 1;
        i32::try_from(days).ok().map(Self)
    }
}

fn days_of_month(year: i32, month: u32) -> Option<u32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    Some(match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    })
}

impl fmt::Display for Day {
    /// Writes the day as it is read, such as `2026-10-01`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut year, mut days) = (1970, self.0);
        let year_days = |year| {
            if days_of_month(year, 2) == Some(29) {
                366
            } else {
                365
            }
        };
        while days >= year_days(year) {
            days -= year_days(year);
            year += 1;
        }
        let mut month = 1;
        while let Some(length) =
            days_of_month(year, month).and_then(|length| i32::try_from(length).ok())
            && days >= length
        {
            days -= length;
            month += 1;
        }
        write!(f, "{year:04}-{month:02}-{:02}", days + 1)
    }
}

impl FromStr for Day {
    type Err = NotADay;

    fn from_str(text: &str) -> Result<Self, NotADay> {
        let shaped = text.len() == 10 && text.is_ascii();
        let mut parts = text.split('-');
        let mut next = |length| {
            let part = parts.next().filter(|part| part.len() == length)?;
            part.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| part.parse().ok())?
        };
        let date = (next(4), next(2), next(2));
        let (true, (Some(year), Some(month), Some(day))) = (shaped, date) else {
            return Err(NotADay);
        };
        let year = i32::try_from(year).map_err(|_| NotADay)?;
        Self::from_date(year, month, day).ok_or(NotADay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_through_leap_years() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1970-12-31", 364),
            ("1972-02-29", 789),
            ("2000-03-01", 11_017),
            ("2026-10-01", 20_727),
            ("2100-03-01", 47_541),
        ] {
            assert_eq!(text.parse(), Ok(Day(days)), "{text}");
            assert_eq!(Day(days).to_string(), text);
            let ms = Day(days).start_ms() as u64;
            assert_eq!(Day::of_ms(ms), Day(days));
            assert_eq!(Day::of_ms(ms + 86_399_999), Day(days));
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in [
            "",
            "2026-2-01",
            "2025-02-29",
            "2100-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-10-32",
            "2026-10-01x",
            "+026-10-01",
            "1969-12-31",
        ] {
            assert_eq!(text.parse::<Day>(), Err(NotADay), "{text}");
        }
    }

    #[test]
    fn today_is_after_this_was_written() {
        assert!(Day::today() > Day::from_date(2026, 1, 1).expect("day"));
    }
}
