//! How well-known secrets begin, and what others look like.

use super::is_value;

/// How well-known secrets begin, and how many letters follow at least: Hugging Face, AWS, Google, GitHub, Slack, OpenAI,
/// Replicate, Dropbox, and our own of workers and people.
pub const PREFIXES: [(&str, usize); 18] = [
    ("hf_", 20),
    ("api_org_", 30),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 30),
    ("ghp_", 20),
    ("gho_", 20),
    ("github_pat_", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("sk-", 20),
    ("sk_", 32),
    ("r8_", 20),
    ("sl.", 40),
    ("scw_", 40),
    ("scr1_", 40),
    ("sca1_", 40),
    ("sco1_", 40),
];

/// The bytes that one of them begins with: a bit for each of ASCII. Most texts are told from secrets by their first.
const BEGIN: u128 = {
    let (mut first, mut index) = (0, 0);
    while index < PREFIXES.len() {
        first |= 1 << PREFIXES[index].0.as_bytes()[0];
        index += 1;
    }
    first
};

/// Bytes of a word that nobody would write but as a secret, at least.
const RANDOM_BYTES_MIN: usize = 8;

/// Whether a word is one of the well-known secrets.
pub(super) fn is_known(word: &str) -> bool {
    let first = word.bytes().next().filter(u8::is_ascii);
    let may_be = first.is_some_and(|first| BEGIN >> first & 1 == 1);
    may_be
        && PREFIXES.iter().any(|(prefix, letters)| {
            let rest = word.strip_prefix(prefix);
            rest.is_some_and(|rest| {
                rest.len() >= *letters
                    && rest
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
            })
        })
}

/// Whether a word looks drawn and not written: letters and digits mixed. `mid-19th-century` is a word that has both.
pub(super) fn is_random(word: &str) -> bool {
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    let both_cases = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    word.len() >= RANDOM_BYTES_MIN
        && is_value(word)
        && word.bytes().all(|byte| byte.is_ascii_graphic())
        && has(u8::is_ascii_alphabetic)
        && has(u8::is_ascii_digit)
        && (both_cases || !word.contains('-'))
}
