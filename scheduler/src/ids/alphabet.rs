//! Numbers as short words: no vowels, no hyphens, nothing that reads like another letter, and neighbours look unlike.

/// Without vowels no word comes out, least of all one that a client takes for a test's id.
const LETTERS: &[u8; 27] = b"23456789bcdfghjkmnpqrstvwxz";
const BASE: u128 = 27;
/// Fewer letters are hard to tell from a typing mistake.
const LENGTH_MIN: u32 = 4;
/// The fractional part of the golden ratio in 64 bits: multiples of it are spread evenly.
const GOLDEN: u128 = 0x9e37_79b9_7f4a_7c15;

/// Writes a number, every number differently: the smallest 531,441 with four letters, the next with five.
pub(super) fn write(number: u64) -> String {
    let mut length = LENGTH_MIN;
    let mut rest = u128::from(number);
    while rest >= BASE.pow(length) {
        rest -= BASE.pow(length);
        length += 1;
    }
    let mut value = rest * step(length) % BASE.pow(length);
    let mut letters = Vec::new();
    for _ in 0..length {
        letters.push(char::from(LETTERS[(value % BASE) as usize]));
        value /= BASE;
    }
    letters.iter().rev().collect()
}

/// Reads what [`write`] writes; `None` for anything else.
pub(super) fn read(text: &str) -> Option<u64> {
    let length = u32::try_from(text.len()).ok()?;
    // Fourteen letters hold every 64-bit number.
    if !(LENGTH_MIN..=14).contains(&length) {
        return None;
    }
    let mut value = 0;
    for letter in text.bytes() {
        let digit = LETTERS.iter().position(|&known| known == letter)?;
        value = value * BASE + digit as u128;
    }
    let size = BASE.pow(length);
    let shorter: u128 = (LENGTH_MIN..length).map(|length| BASE.pow(length)).sum();
    u64::try_from(shorter + multiply(value, inverse(step(length), size), size)).ok()
}

/// The step between neighbours: near the golden part of the range, below 2^60 so that products fit, and no multiple
/// of 3, so that it can be undone.
const fn step(length: u32) -> u128 {
    let step = (((BASE.pow(length) >> 10) * (GOLDEN >> 10)) >> 44) & ((1 << 60) - 1);
    if step.is_multiple_of(3) {
        step + 1
    } else {
        step
    }
}

/// The number that undoes a multiplication by `step` modulo a power of 3, by Euclid's algorithm.
fn inverse(step: u128, size: u128) -> u128 {
    let (mut r, mut next_r) = (size as i128, step as i128);
    let (mut t, mut next_t) = (0_i128, 1_i128);
    while next_r != 0 {
        let quotient = r / next_r;
        (r, next_r) = (next_r, r - quotient * next_r);
        (t, next_t) = (next_t, t - quotient * next_t);
    }
    t.rem_euclid(size as i128) as u128
}

/// The product modulo `size` of two numbers below it, in halves since both may have 67 bits.
const fn multiply(a: u128, b: u128, size: u128) -> u128 {
    let high = a * (b >> 32) % size;
    ((high << 32) + a * (b & 0xffff_ffff)) % size
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_look_unlike_and_stay_short() {
        let words: Vec<String> = (1..=4).map(write).collect();
        assert_eq!(words, ["mnpq", "8bdf", "tz45", "gmrt"]);
        assert_eq!(write(531_440).len(), 4);
        assert_eq!(write(531_441).len(), 5);
    }

    #[test]
    fn small_numbers_are_all_different() {
        let words: std::collections::BTreeSet<String> = (0..100_000).map(write).collect();
        assert_eq!(words.len(), 100_000);
    }

    #[test]
    fn other_texts_are_no_numbers() {
        for text in ["", "222", "test", "2222222222222222", "22-2", "ÄÖ"] {
            assert_eq!(read(text), None, "{text}");
        }
        let beyond = (0..27)
            .filter(|&i| read(&format!("zzzzzzzzzzzzz{}", char::from(LETTERS[i]))).is_none());
        assert!(
            beyond.count() > 0,
            "fourteen letters reach further than 64 bits"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64) {
            prop_assert_eq!(read(&write(number)), Some(number));
            prop_assert_eq!(read(&write(number % 2_000_000)), Some(number % 2_000_000));
        }
    }
}
