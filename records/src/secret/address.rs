//! Addresses that are secrets: with a password in them, or with a path that nobody else knows.

use std::ops::Range;

use super::is_value;

/// Where services take messages from whoever knows the path, in small letters.
const HOOKS: [&str; 5] = [
    "://api.telegram.org/bot",
    "://hooks.slack.com/",
    "://discord.com/api/webhooks/",
    "://discordapp.com/api/webhooks/",
    ".webhook.office.com/",
];

/// Adds where in a text the secrets of addresses stand.
pub(super) fn add(text: &str, found: &mut Vec<Range<usize>>) {
    // Most texts have none, which is quickly seen.
    if !text.contains("://") {
        return;
    }
    passwords(text, found);
    let small = text.to_ascii_lowercase();
    let ends = |char: char| "\"'<>`,;)]}".contains(char) || char.is_whitespace();
    for hook in HOOKS {
        let mut from = 0;
        while let Some(at) = small[from..].find(hook) {
            from += at + hook.len();
            let path = text[from..].split(ends).next().unwrap_or_default();
            let until = from + path.len();
            if is_value(path) {
                found.push(from..until);
            }
            // All of the path is found, whatever stands in it.
            from = until;
        }
    }
}

/// A password, or a user alone where that is how a token is given.
fn passwords(text: &str, found: &mut Vec<Range<usize>>) {
    for (at, mark) in text.match_indices("://") {
        let from = at + mark.len();
        let rest = &text[from..];
        let ends = |char: char| "/?#\"'".contains(char) || char.is_whitespace();
        let authority = rest.split(ends).next().unwrap_or(rest);
        let Some((user, _)) = authority.rsplit_once('@') else {
            continue;
        };
        let until = from + user.len();
        // The colon of a variable's name parts nothing.
        let colon = user.replace("{env:", "{env_").find(':');
        let secret = match colon {
            Some(colon) => from + colon + 1..until,
            None if is_http(&text.as_bytes()[..at]) => from..until,
            None => continue,
        };
        if is_value(&text[secret.clone()]) {
            found.push(secret);
        }
    }
}

/// Whether what stands before `://` ends in the name of the protocol.
fn is_http(before: &[u8]) -> bool {
    ["http", "https"].iter().any(|name| {
        let end = before.len().checked_sub(name.len());
        end.is_some_and(|end| before[end..].eq_ignore_ascii_case(name.as_bytes()))
    })
}
