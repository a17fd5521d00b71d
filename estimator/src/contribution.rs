//! What a run gives to the history: rows under a random id that is never stored beside them.

use std::fmt;

use stepcast_records::{Key, Row, Sample, sample};

use crate::error::Error;
use crate::table::Kind;

/// The rows of one run, under an id that makes recording them twice the same as once.
///
/// The id is drawn at random by the worker. It is written into the table's log, not into any row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// 128 random bits.
    pub id: [u8; 16],
    /// At most one row is stored per key; rows of the same key are merged first.
    pub rows: Vec<Row>,
}

impl Contribution {
    /// What may be stored of a run's samples. A sample with too few times is left out.
    #[must_use]
    pub fn of_samples(id: [u8; 16], samples: &[Sample]) -> Self {
        Self {
            id,
            rows: samples.iter().filter_map(Sample::to_row).collect(),
        }
    }

    /// Whether there are rows of this table in it.
    pub(crate) fn has_rows(&self, kind: Kind) -> bool {
        self.rows.iter().any(|row| Kind::of(&row.key) == kind)
    }
}

/// Whether there are rows of this table in any of them.
pub(crate) fn has_rows(contributions: &[Contribution], kind: Kind) -> bool {
    contributions.iter().any(|one| one.has_rows(kind))
}

/// What a commit did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Committed {
    /// Contributions that were stored now.
    pub stored: usize,
    /// Contributions that had been stored before, or that held no rows.
    pub skipped: usize,
    /// Rows that were stored now.
    pub rows: usize,
}

/// What a commit did where it may have failed in part.
#[derive(Debug, Default)]
pub struct Recorded {
    /// What it stored. With a failure a contribution may count as stored of which one table has taken its part.
    pub committed: Committed,
    /// Ids of the contributions that are in the store as a whole, also from an earlier call.
    pub kept: Vec<[u8; 16]>,
    /// Why not all of them are.
    pub failure: Option<Error>,
}

/// An id as it is written in the log of a table: 32 hexadecimal digits.
pub(crate) struct HexId<'a>(pub(crate) &'a [u8; 16]);

impl fmt::Display for HexId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The id written as 32 hexadecimal digits, or `None` for any other text.
pub(crate) fn parse_id(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits
        .then(|| u128::from_str_radix(text, 16).ok())??
        .to_be_bytes()
        .into()
}

/// The rows sorted by key, those of the same key merged into one.
pub(crate) fn merged(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_unstable();
    rows.chunk_by(|a, b| a.key == b.key).map(together).collect()
}

/// Rows of one key as one: the mean over all of them, the count clipped as ever, once they are all counted.
fn together(rows: &[Row]) -> Row {
    let first = rows[0];
    if rows.len() == 1 {
        return first;
    }
    let count: u64 = rows.iter().map(|row| u64::from(row.count)).sum();
    let total = rows
        .iter()
        .map(|row| u64::from(row.avg_ms) * u64::from(row.count));
    let total: u64 = total.sum();
    let mean = u32::try_from((total + count / 2) / count.max(1)).unwrap_or(first.avg_ms);
    let max = match first.key {
        Key::Training(_) => sample::TRAINING_COUNT_MAX,
        Key::Validation(_) => sample::VALIDATION_COUNT_MAX,
    };
    let count = u32::try_from(count).unwrap_or(u32::MAX).min(max);
    // A mean of means lies between them and a clipped count in bounds, so the row is valid.
    Row::new(first.key, sample::three_digits(mean), count).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{training_key, validation_key};

    #[test]
    fn an_id_survives_its_text() {
        let id: [u8; 16] = std::array::from_fn(|index| index as u8 * 17);
        assert_eq!(HexId(&id).to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(parse_id("00112233445566778899aabbccddeeff"), Some(id));
        for other in [
            "",
            "0011",
            "zz112233445566778899aabbccddeeff",
            "+0112233445566778899aabbccddeeff",
        ] {
            assert_eq!(parse_id(other), None, "{other:?}");
        }
    }

    #[test]
    fn rows_of_one_key_become_one() {
        let key = training_key("flux.dev/lora", "rtx4090");
        let other = validation_key("flux.dev/lora", "rtx4090");
        let row = |key: Key, avg_ms, count| Row::new(key, avg_ms, count).expect("row");
        let rows = vec![
            row(key.into(), 2_000, 900),
            row(other.into(), 20_000, 9),
            row(key.into(), 1_000, 300),
        ];
        assert_eq!(
            merged(rows),
            [row(key.into(), 1_750, 1_000), row(other.into(), 20_000, 9)]
        );
        // Each counts by its own number, however many come before it.
        let rows = [1_000, 1_000, 1_000, 2_000].map(|ms| row(key.into(), ms, 1_000));
        assert_eq!(merged(rows.to_vec()), [row(key.into(), 1_250, 1_000)]);
    }
}
