//! The times in webhooks: RFC 3339 to milliseconds since 1970.

/// Milliseconds since 1970 of an RFC 3339 time such as `2026-08-22T10:00:00.123456+00:00`.
pub(super) fn utc_ms(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = clock_ms(time)?;
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let size = clock_ms(&format!("{}:00", zone.get(1..)?))?;
            if zone.starts_with('-') { -size } else { size }
        }
    };
    Some(days_from_civil(year, month, day) * 86_400_000 + seconds - offset)
}

/// Milliseconds of `hh:mm:ss[.fraction]`.
fn clock_ms(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    let ranges =
        (0..=24).contains(&hours) && (0..60).contains(&minutes) && (0.0..61.0).contains(&seconds);
    #[expect(clippy::cast_possible_truncation, reason = "below 61,000")]
    ranges.then(|| (hours * 60 + minutes) * 60_000 + (seconds * 1000.0).round() as i64)
}

/// Days since 1970-01-01 in the Gregorian calendar (years counted from March, in eras of 400).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The RFC 3339 form, with microseconds and offset as Python writes it, of milliseconds since 1970.
pub(crate) fn format_utc(utc_ms: i64) -> String {
    let (days, ms) = (utc_ms.div_euclid(86_400_000), utc_ms.rem_euclid(86_400_000));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}000+00:00",
        ms % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_any_offset_and_nonsense_is_not() {
        assert_eq!(utc_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            utc_ms("2000-03-01T01:00:00.25+01:00"),
            Some(951_868_800_250)
        );
        assert_eq!(utc_ms("2024-02-29 23:59:59-00:00"), Some(1_709_251_199_000));
        for bad in [
            "",
            "2026-13-01T00:00:00Z",
            "2026-01-01",
            "2026-01-01T99:00:00Z",
            "x-y-zT1:2:3Z",
            "2026-01-01T00:00:00+é",
        ] {
            assert_eq!(utc_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_written_time_is_read_back() {
        for ms in [
            0,
            951_868_799_999,
            951_868_800_250,
            1_709_251_199_000,
            1_767_258_000_001,
            4_102_444_799_999,
        ] {
            assert_eq!(utc_ms(&format_utc(ms)), Some(ms), "{}", format_utc(ms));
        }
        assert_eq!(
            format_utc(951_782_400_000),
            "2000-02-29T00:00:00.000000+00:00"
        );
    }
}
