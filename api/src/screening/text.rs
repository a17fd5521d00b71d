//! Tells a text that is a secret, or holds one among other words, by what it looks like.

use super::{is_value, is_variable, secret_name};

/// How well-known secrets begin, and how many letters follow at least.
pub(super) const SECRET_SHAPES: [(&str, usize); 9] = [
    ("hf_", 20),
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 20),
    ("github_pat_", 20),
    ("r8_", 20),
    ("sk-", 20),
    ("sl.", 40),
    ("scw_", 40),
];

/// The bytes that one of them begins with: a bit for each of ASCII. Most texts are told from secrets by their first.
const SHAPES_BEGIN: u128 = {
    let (mut first, mut index) = (0, 0);
    while index < SECRET_SHAPES.len() {
        first |= 1 << SECRET_SHAPES[index].0.as_bytes()[0];
        index += 1;
    }
    first
};

/// Shorter values among other words are words themselves.
const VALUE_BYTES_MIN: usize = 6;

/// Whether a text is a secret or holds one. Every text of every submission is asked about.
pub(crate) fn is_secret(text: &str) -> bool {
    has_shape(text.trim()) || has_key(text) || has_user(text) || has_words(text)
}

/// Whether a text is written as a list or an object, which SimpleTuner reads as one.
pub(crate) fn is_structure(text: &str) -> bool {
    text.trim_start().starts_with(['[', '{']) && !is_variable(text.trim())
}

fn has_shape(word: &str) -> bool {
    let first = word.bytes().next().filter(u8::is_ascii);
    let may_be = first.is_some_and(|first| SHAPES_BEGIN >> first & 1 == 1);
    may_be
        && SECRET_SHAPES.iter().any(|(prefix, letters)| {
            let rest = word.strip_prefix(prefix);
            rest.is_some_and(|rest| {
                rest.len() >= *letters
                    && rest
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
            })
        })
}

/// Whether a text holds a private key as PEM files do.
fn has_key(text: &str) -> bool {
    const MARK: &str = "PRIVATE KEY-----";
    // Few settings have a space in them, which is quickly seen.
    text.len() >= MARK.len() && text.as_bytes().contains(&b' ') && text.contains(MARK)
}

/// Whether a text holds an address with a password in it, or with a user alone where that is how a token is given.
fn has_user(text: &str) -> bool {
    // Most texts have none, which is quickly seen.
    if !text.contains('@') {
        return false;
    }
    text.match_indices("://").any(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let ends = |char: char| "/?#\"'".contains(char) || char.is_whitespace();
        let authority = rest.split(ends).next().unwrap_or(rest);
        let Some((user, _)) = authority.rsplit_once('@') else {
            return false;
        };
        // The colon of a variable's name parts nothing.
        let user = user.replace("{env:", "${");
        let before = text[..at].to_ascii_lowercase();
        match user.split_once(':') {
            Some((_, word)) => is_value(word),
            None => (before.ends_with("http") || before.ends_with("https")) && is_value(&user),
        }
    })
}

/// Whether one of several words is a secret: by its look, or since the name of one stands before it, as in commands, in
/// the query of an address and in structures that are no JSON.
fn has_words(text: &str) -> bool {
    let joins = |byte: u8| byte.is_ascii_whitespace() || b"=\"'".contains(&byte);
    if !text.bytes().any(joins) {
        return false;
    }
    let structure = is_structure(text);
    let ends = |char: char| char.is_whitespace() || "\"'`,;&?#()[]<>|".contains(char);
    let mut named = false;
    for word in text.split(ends) {
        let word = if structure && !is_variable(word) {
            word.trim_matches(['{', '}', ':'])
        } else {
            word
        };
        if word.is_empty() {
            continue;
        }
        if (named && !word.starts_with('-') && is_word_value(word)) || has_shape(word) {
            return true;
        }
        let pair = word.split_once('=');
        if pair.is_some_and(|(name, value)| {
            (is_named(name) && is_word_value(value)) || has_shape(value)
        }) {
            return true;
        }
        let is_name = word.starts_with("--") || structure;
        named = is_name && (pair.is_none() || word.ends_with('=')) && is_named(word);
    }
    false
}

fn is_word_value(word: &str) -> bool {
    word.len() >= VALUE_BYTES_MIN && is_value(word)
}

/// Whether a word before a value says that it is a secret. Addresses that are signed have names of their own.
fn is_named(name: &str) -> bool {
    let signs = |name: &str| name == "sig" || name.ends_with("signature");
    secret_name(name).is_some() || signs(&name.to_ascii_lowercase())
}
