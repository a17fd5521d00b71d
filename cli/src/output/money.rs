//! Money as people read it: dollars to the cent, counts with commas.

/// Millionths of a dollar in one cent.
const MICROS_PER_CENT: u64 = 10_000;

/// Dollars to the cent, rounded to the nearest: `$3.10`, `$1,204.00`; what is less than half a cent but not nothing
/// says so.
pub(crate) fn dollars(usd_micros: u64) -> String {
    let cents = usd_micros / MICROS_PER_CENT
        + u64::from(usd_micros % MICROS_PER_CENT >= MICROS_PER_CENT / 2);
    if cents == 0 && usd_micros > 0 {
        return "<$0.01".to_owned();
    }
    format!("${}.{:02}", count(cents / 100), cents % 100)
}

/// A price with the digits that tell small ones apart, rounded to the nearest: `$0.3400`.
pub(crate) fn per_hour(usd_micros: u64) -> String {
    let parts = usd_micros.saturating_add(50) / 100;
    format!("${}.{:04}", count(parts / 10_000), parts % 10_000)
}

/// A number with commas: `18,211`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 run`, `12 runs`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Reads dollars that a person wrote into millionths.
pub(crate) fn parse_dollars(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no amount of dollars; write one such as 5 or 2.50");
    let dollars: f64 = text
        .trim()
        .trim_start_matches('$')
        .parse()
        .map_err(|_no_number| wrong())?;
    if !(0.0..=1e9).contains(&dollars) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the bounds just checked"
    )]
    Ok((dollars * 1e6).round() as u64)
}

/// Bytes in two or three digits: `118 kB`.
pub(crate) fn bytes(number: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = number as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if value < 9.95 && unit != "B" {
                format!("{value:.1} {unit}")
            } else {
                format!("{value:.0} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_rounded_to_the_cent() {
        let texts: Vec<String> = [680_000, 684_999, 685_000, 0, 4_999, 1_204_000_000]
            .into_iter()
            .map(dollars)
            .collect();
        assert_eq!(
            texts,
            ["$0.68", "$0.68", "$0.69", "$0.00", "<$0.01", "$1,204.00"]
        );
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!(
            [0, 999, 1000, 18_211, 1_234_567].map(count),
            ["0", "999", "1,000", "18,211", "1,234,567"]
        );
        assert_eq!(counted(1, "run", "runs"), "1 run");
    }

    #[test]
    fn dollars_are_read_and_bounded() {
        assert_eq!(parse_dollars("$2.50"), Ok(2_500_000));
        assert!(parse_dollars("-1").is_err());
        assert!(parse_dollars("five").is_err());
        assert!(parse_dollars("NaN").is_err());
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!(
            [12, 1_234, 118_000, 1_200_000].map(bytes),
            ["12 B", "1.2 kB", "118 kB", "1.2 MB"]
        );
    }
}
