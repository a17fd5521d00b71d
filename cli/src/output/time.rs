//! Times as people read them: two parts for a span, hours and minutes for a moment, three digits for a step.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Local, SecondsFormat, Utc};
use prost_types::{Duration as WireDuration, Timestamp};

/// A span in two parts: `1h 18m`, `4m 02s`, `48s`, `3d 04h`; below ten seconds with one decimal.
pub(crate) fn span(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".to_owned();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite and not negative; saturates"
    )]
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        _ => {
            // Rounded to the smaller part that is shown, so that 59.6 minutes carry into the hour.
            let minutes = (whole + 30) / 60;
            if minutes < 24 * 60 {
                format!("{}h {:02}m", minutes / 60, minutes % 60)
            } else {
                let hours = (whole + 1800) / 3600;
                format!("{}d {:02}h", hours / 24, hours % 24)
            }
        }
    }
}

/// A span where it only has to be told apart from others: `1h 18m`, `46m`, `48s`.
pub(crate) fn rough_span(seconds: f64) -> String {
    if (600.0..3570.0).contains(&seconds) {
        format!("{:.0}m", seconds / 60.0)
    } else {
        span(seconds)
    }
}

/// The same without a space, for a range in brackets: `1h14`, `44m`.
pub(crate) fn short_span(seconds: f64) -> String {
    let text = rough_span(seconds);
    match text.split_once(' ') {
        Some((hours, minutes)) if hours.ends_with('h') => {
            format!("{hours}{}", minutes.trim_end_matches('m'))
        }
        Some((first, second)) => format!("{first}{second}"),
        None => text,
    }
}

/// A step's seconds with three digits that count: `1.42`, `14.0`, `140`, `0.0421`.
pub(crate) fn step(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s < 0.0 => "-".to_owned(),
        s if s >= 100.0 => format!("{s:.0}"),
        s if s >= 10.0 => format!("{s:.1}"),
        s if s >= 0.1 || s == 0.0 => format!("{s:.2}"),
        s => format!("{s:.4}"),
    }
}

/// How long ago, or `-`.
pub(crate) fn age(since: Option<&Timestamp>) -> String {
    since
        .and_then(seconds_since)
        .map_or_else(|| "-".to_owned(), rough_span)
}

/// Seconds from then until now, not below zero.
pub(crate) fn seconds_since(then: &Timestamp) -> Option<f64> {
    let then = system_time(then)?;
    Some(
        SystemTime::now()
            .duration_since(then)
            .unwrap_or(Duration::ZERO)
            .as_secs_f64(),
    )
}

/// Seconds between two moments, not below zero.
pub(crate) fn seconds_between(from: &Timestamp, to: &Timestamp) -> Option<f64> {
    Some(
        system_time(to)?
            .duration_since(system_time(from)?)
            .unwrap_or(Duration::ZERO)
            .as_secs_f64(),
    )
}

/// Seconds of a span on the wire.
pub(crate) fn seconds(span: &WireDuration) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "spans of centuries are not told apart by the microsecond"
    )]
    let whole = span.seconds as f64;
    // One division, so that 1.61 s stays 1.61.
    (whole * 1e9 + f64::from(span.nanos)) / 1e9
}

/// The wall clock here, so many seconds from now: `16:00`, with the day when it is another one.
pub(crate) fn clock_in(seconds: f64) -> String {
    let now = Local::now();
    let then = Duration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|span| chrono::Duration::from_std(span).ok());
    match then.and_then(|span| now.checked_add_signed(span)) {
        Some(then) => clock_of(then, now),
        None => "-".to_owned(),
    }
}

/// The wall clock here at a moment, to the minute: `16:00`, with the day when it is another one.
pub(crate) fn clock_at(at: &Timestamp) -> Option<String> {
    let then = utc(at)?.with_timezone(&Local);
    Some(clock_of(then, Local::now()))
}

fn clock_of(then: DateTime<Local>, now: DateTime<Local>) -> String {
    let days = then.date_naive() - now.date_naive();
    let format = match days.num_days() {
        0 => "%H:%M",
        1..=6 => "%a %H:%M",
        _ => "%Y-%m-%d %H:%M",
    };
    then.format(format).to_string()
}

/// Now, by this host's clock: seconds since 1970.
pub(crate) fn now_seconds() -> i64 {
    Utc::now().timestamp()
}

/// The wall clock here at a moment, to the second: `14:42:11`.
pub(crate) fn clock(at: Option<&Timestamp>) -> String {
    match at.and_then(utc) {
        Some(at) => at.with_timezone(&Local).format("%H:%M:%S").to_string(),
        None => Local::now().format("%H:%M:%S").to_string(),
    }
}

/// A moment with its day, here: `2026-11-26 14:42`.
pub(crate) fn day_and_clock(at: Option<&Timestamp>) -> String {
    at.and_then(utc).map_or_else(
        || "-".to_owned(),
        |at| {
            at.with_timezone(&Local)
                .format("%Y-%m-%d %H:%M")
                .to_string()
        },
    )
}

/// The same to the second: `2026-11-26 14:42:11`.
pub(crate) fn day_and_second(at: Option<&Timestamp>) -> String {
    at.and_then(utc).map_or_else(
        || "-".to_owned(),
        |at| {
            at.with_timezone(&Local)
                .format("%Y-%m-%d %H:%M:%S")
                .to_string()
        },
    )
}

/// A day that was noted without a time of day, in UTC: `2026-11-26`.
pub(crate) fn utc_day(at: Option<&Timestamp>) -> String {
    at.and_then(utc)
        .map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%d").to_string())
}

/// A moment for programs: RFC 3339 in UTC with milliseconds.
pub(crate) fn rfc3339(at: &Timestamp) -> Option<String> {
    utc(at).map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn utc(at: &Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?)
}

fn system_time(at: &Timestamp) -> Option<SystemTime> {
    let seconds = u64::try_from(at.seconds).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, u32::try_from(at.nanos).ok()?))
}

/// Reads a span that a person wrote: `90s`, `45m`, `2h`, `1h30m`, `1d`.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no span of time; write one such as 45m or 2h or 1h30m");
    let mut total: u64 = 0;
    let mut digits = String::new();
    for letter in text.trim().chars() {
        let unit = match letter {
            '0'..='9' => {
                digits.push(letter);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            ' ' => continue,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_no_number| wrong())?;
        digits.clear();
        total = count
            .checked_mul(unit)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
    }
    if !digits.is_empty() || total == 0 {
        Err(wrong())
    } else {
        Ok(Duration::from_secs(total))
    }
}

/// Reads a moment that a person wrote: `18:00` for the next time that the clock says so here, a time in RFC 3339, or a span
/// from now such as `2h`.
pub(crate) fn parse_moment(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "`{text}` is no moment; write one such as 18:00, 2026-12-01T18:00:00Z, or 2h for two hours from now"
        )
    };
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(wire_moment(at.with_timezone(&Utc)));
    }
    if let Ok(clock) = chrono::NaiveTime::parse_from_str(text, "%H:%M") {
        let now = Local::now();
        let days = [now.date_naive(), now.date_naive() + chrono::Days::new(1)];
        let at = days
            .iter()
            .filter_map(|day| day.and_time(clock).and_local_timezone(Local).earliest());
        let next = at.filter(|at| *at > now).min();
        return next
            .map(|at| wire_moment(at.with_timezone(&Utc)))
            .ok_or_else(wrong);
    }
    let span = parse_span(text).map_err(|_no_span| wrong())?;
    let span = chrono::Duration::from_std(span).map_err(|_too_long| wrong())?;
    let at = Utc::now().checked_add_signed(span).ok_or_else(wrong)?;
    Ok(wire_moment(at))
}

/// Reads a moment that is over and that a person wrote: `14:30` for the last time that the clock said so here, a day and a
/// time here such as `2026-11-27 14:30`, a time in RFC 3339, or a span such as `2h` for so long ago.
pub(crate) fn parse_past(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "`{text}` is no moment; write one such as 14:30, 2026-11-27 14:30, 2026-11-27T14:30:00Z, or 2h for two hours ago"
        )
    };
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(wire_moment(at.with_timezone(&Utc)));
    }
    let here = |at: chrono::NaiveDateTime| at.and_local_timezone(Local).earliest();
    for format in ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"] {
        if let Ok(at) = chrono::NaiveDateTime::parse_from_str(text, format) {
            let at = here(at).ok_or_else(wrong)?;
            return Ok(wire_moment(at.with_timezone(&Utc)));
        }
    }
    if let Ok(clock) = chrono::NaiveTime::parse_from_str(text, "%H:%M") {
        let now = Local::now();
        let days = [now.date_naive(), now.date_naive() - chrono::Days::new(1)];
        let at = days.iter().filter_map(|day| here(day.and_time(clock)));
        let last = at.filter(|at| *at <= now).max();
        return last
            .map(|at| wire_moment(at.with_timezone(&Utc)))
            .ok_or_else(wrong);
    }
    let span = parse_span(text).map_err(|_no_span| wrong())?;
    let span = chrono::Duration::from_std(span).map_err(|_too_long| wrong())?;
    let at = Utc::now().checked_sub_signed(span).ok_or_else(wrong)?;
    Ok(wire_moment(at))
}

fn wire_moment(at: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: at.timestamp(),
        nanos: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_that_are_over_are_read_in_four_ways() {
        let at = parse_past("2026-12-01T18:00:00Z").expect("a time");
        assert_eq!(at.seconds, 1_796_148_000);
        let at = parse_past("2026-12-01 18:00").expect("a time here");
        assert_eq!(day_and_second(Some(&at)), "2026-12-01 18:00:00");
        let now = Utc::now().timestamp();
        let clock = parse_past("18:00").expect("a clock time").seconds;
        assert!(clock <= Utc::now().timestamp() && clock > now - 26 * 3_600);
        let span = parse_past("2h").expect("a span").seconds;
        assert!(span >= now - 7_200 && span <= Utc::now().timestamp() - 7_200);
        for text in ["", "yesterday", "2026-12-01", "25:00"] {
            assert!(parse_past(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_read_in_three_ways() {
        let at = parse_moment("2026-12-01T18:00:00Z").expect("a time");
        assert_eq!(at.seconds, 1_796_148_000);
        let now = Utc::now().timestamp();
        let clock = parse_moment("18:00").expect("a clock time").seconds;
        assert!(clock > now && clock <= now + 25 * 3_600);
        let span = parse_moment("2h").expect("a span").seconds;
        assert!((now + 7_200..now + 7_300).contains(&span));
        for wrong in ["", "soon", "25:00", "-2h"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_have_two_parts() {
        let cases = [
            (0.04, "0.0s"),
            (3.25, "3.2s"),
            (9.96, "10s"),
            (48.0, "48s"),
            (59.6, "1m 00s"),
            (242.0, "4m 02s"),
            (2280.0, "38m 00s"),
            (3599.0, "59m 59s"),
            (4680.0, "1h 18m"),
            (86_399.0, "1d 00h"),
            (273_600.0, "3d 04h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text, "{seconds}");
        }
        assert_eq!(span(f64::NAN), "-");
        assert_eq!(rough_span(2280.0), "38m");
        assert_eq!(short_span(4680.0), "1h18");
        assert_eq!(short_span(242.0), "4m02s");
        assert_eq!(short_span(2640.0), "44m");
    }

    #[test]
    fn steps_have_three_digits_that_count() {
        let texts: Vec<String> = [1.4159, 14.0, 140.2, 0.0421, 0.62]
            .into_iter()
            .map(step)
            .collect();
        assert_eq!(texts, ["1.42", "14.0", "140", "0.0421", "0.62"]);
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        assert_eq!(parse_span("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_span("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "5", "h", "1x", "0m", "99999999999999999999d"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments_for_programs_are_in_utc() {
        let at = Timestamp {
            seconds: 1_768_780_800,
            nanos: 5_000_000,
        };
        assert_eq!(rfc3339(&at).as_deref(), Some("2026-01-19T00:00:00.005Z"));
    }
}
