//! A number that fades: half of it is left after each half-life. Integers alone, so that every node has the same.

use serde::{Deserialize, Serialize};

/// How long it takes until half of what a team has used is forgotten: a week, so that who used much lately waits, and
/// who used much last month does not.
pub const HALF_LIFE_MS: u64 = 7 * 24 * 3_600_000;

/// Two to the power of minus a half, a quarter, an eighth and so on, in units of 2^-32.
const ROOTS: [u64; 16] = [
    3_037_000_500,
    3_611_622_603,
    3_938_502_376,
    4_112_874_773,
    4_202_935_003,
    4_248_701_965,
    4_271_771_996,
    4_283_353_945,
    4_289_156_690,
    4_292_061_010,
    4_293_513_907,
    4_294_240_540,
    4_294_603_903,
    4_294_785_595,
    4_294_876_445,
    4_294_921_870,
];

/// An amount as it was at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decayed {
    amount: u64,
    at_ms: u64,
}

impl Decayed {
    /// What is left of it at `now_ms`.
    #[must_use]
    pub fn at(self, now_ms: u64) -> u64 {
        let age_ms = now_ms.saturating_sub(self.at_ms);
        let halves = u32::try_from(age_ms / HALF_LIFE_MS).unwrap_or(u32::MAX);
        let whole = self.amount.checked_shr(halves).unwrap_or(0);
        // The rest of a half-life as a binary fraction, a bit for each root.
        let rest = (u128::from(age_ms % HALF_LIFE_MS) << ROOTS.len()) / u128::from(HALF_LIFE_MS);
        let mut left = u128::from(whole);
        for (place, root) in (0..).zip(ROOTS) {
            if rest >> (ROOTS.len() - 1 - place) & 1 == 1 {
                left = (left * u128::from(root)) >> 32;
            }
        }
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    /// Adds to it at `now_ms`.
    pub fn add(&mut self, amount: u64, now_ms: u64) {
        *self = Self {
            amount: self.at(now_ms).saturating_add(amount),
            at_ms: now_ms.max(self.at_ms),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_it_is_left_after_a_week() {
        let mut used = Decayed::default();
        used.add(1_000_000_000, 5);
        assert_eq!(used.at(5), 1_000_000_000);
        assert_eq!(used.at(5 + HALF_LIFE_MS), 500_000_000);
        assert_eq!(used.at(5 + 3 * HALF_LIFE_MS), 125_000_000);
        assert_eq!(used.at(u64::MAX), 0);
        for days in [1_u32, 2, 3, 5, 9, 20] {
            let exact = 1e9 * 0.5_f64.powf(f64::from(days) / 7.0);
            let day_ms = u64::from(days) * 24 * 3_600_000;
            let left = used.at(5 + day_ms) as f64;
            assert!((left / exact - 1.0).abs() < 1e-4, "{days}: {left} {exact}");
        }
    }

    #[test]
    fn what_is_added_later_weighs_more() {
        let mut used = Decayed::default();
        used.add(100, 0);
        used.add(100, HALF_LIFE_MS);
        assert_eq!(used.at(HALF_LIFE_MS), 150);
        // A clock that was behind changes nothing about what is there.
        used.add(0, 0);
        assert_eq!(used.at(HALF_LIFE_MS), 150);
    }
}
