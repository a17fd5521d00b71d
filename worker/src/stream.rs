//! Streams of webhooks to play instead of a trainer: how they are written down, the shipped ones, and how those are made.
//!
//! A line is `{"after_ms":N,"body":{..}}`, N counted from the line before; `{"after_ms":N,"exit":CODE}` ends the player
//! with that code, and `{"hang":true}` makes it wait until it is killed. A recording's line
//! `{"received":SECONDS,"body":{..}}` is read too.

mod generate;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::generate::{Ending, Script};

/// Longest stream that is read: an hour of steps at 10 a second, with room.
const MAX_LINES: usize = 200_000;

/// The streams inside the program: name, what it shows, and its lines. `generate.rs` writes them.
const SHIPPED: [(&str, &str, &str); 3] = [
    (
        "flux-lora",
        "150 steps, three validations, success",
        include_str!("../streams/flux-lora.jsonl"),
    ),
    (
        "out-of-memory",
        "fails at step 40 as a full GPU does",
        include_str!("../streams/out-of-memory.jsonl"),
    ),
    (
        "stuck",
        "falls silent after 60 steps and never ends",
        include_str!("../streams/stuck.jsonl"),
    ),
];

/// One line of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the line before.
    #[serde(default)]
    pub after_ms: u64,
    /// What is posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Leave with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<u8>,
    /// Wait for a signal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hang: bool,
}

/// A line that is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not parse.
    #[error("line {number} of the stream is not readable")]
    Line {
        /// Counted from 1.
        number: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Too many lines.
    #[error("the stream has more than {MAX_LINES} lines")]
    TooLong,
}

/// The text of a shipped stream.
pub fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED
        .iter()
        .find(|stream| stream.0 == name)
        .map(|stream| stream.2)
}

/// Names of the shipped streams and what they show.
pub fn shipped_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    SHIPPED.iter().map(|stream| (stream.0, stream.1))
}

/// Reads a stream or a recording.
pub fn read(text: &str) -> Result<Vec<Line>, Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Recorded { received: f64, body: Value },
        Ours(Line),
    }
    let mut lines = Vec::new();
    let mut before = None;
    for (at, text) in text
        .lines()
        .enumerate()
        .filter(|(_, text)| !text.trim().is_empty())
    {
        if lines.len() == MAX_LINES {
            return Err(Error::TooLong);
        }
        lines.push(
            match serde_json::from_str(text).map_err(|source| Error::Line {
                number: at + 1,
                source,
            })? {
                Either::Ours(line) => line,
                Either::Recorded { received, body } => {
                    let after = received - before.replace(received).unwrap_or(received);
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "saturates, and is not negative"
                    )]
                    let after_ms = (after.max(0.0) * 1000.0) as u64;
                    Line {
                        after_ms,
                        body: Some(body),
                        exit: None,
                        hang: false,
                    }
                }
            },
        );
    }
    Ok(lines)
}

/// Writes a stream down.
pub fn write(lines: &[Line]) -> String {
    lines
        .iter()
        .filter_map(|line| serde_json::to_string(line).ok())
        .map(|line| line + "\n")
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_a_bad_line_is_named() {
        let text = "{\"received\":10.5,\"body\":{\"a\":1}}\n\n{\"received\":12.0,\"body\":{}}\n{\"after_ms\":7,\"exit\":1}\n{\"hang\":true}\n";
        let lines = read(text).unwrap();
        assert_eq!(
            lines.iter().map(|line| line.after_ms).collect::<Vec<_>>(),
            [0, 1_500, 7, 0]
        );
        assert_eq!((lines[2].exit, lines[3].hang), (Some(1), true));
        assert_eq!(read(&write(&lines)).unwrap(), lines);
        assert!(matches!(read("{}\n["), Err(Error::Line { number: 2, .. })));
    }

    #[test]
    fn the_shipped_streams_are_what_the_generator_writes() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("streams");
        for (name, script) in generate::shipped_scripts() {
            let text = write(&script.lines());
            if std::env::var_os("UPDATE").is_some() {
                // What is compiled in changes with the next build.
                std::fs::write(folder.join(format!("{name}.jsonl")), &text).unwrap();
                continue;
            }
            assert!(
                shipped(name) == Some(text.as_str()),
                "{name} differs; write it again with UPDATE=1"
            );
        }
    }
}
