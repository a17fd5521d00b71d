//! What keeps a configuration from being read: where it stands, what is wrong there and what to do.

use std::fmt;

/// One thing that is wrong, in words for the person who wrote the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Where in the file, such as `$.validation_resolution` or `$[1].repeats`, or a line and column.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub hint: String,
}

/// All problems of a configuration, in the order in which they were found; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

/// Characters of a person's own text that a message repeats at most.
const MAX_SHOWN_CHARS: usize = 48;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            path,
            what,
            hint,
        } = self;
        write!(f, "{file} {path}: {what}; {hint}")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// A person's own text, fit for a message: quoted, without control characters, not longer than a glance.
pub(super) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars
        .by_ref()
        .take(MAX_SHOWN_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let more = if chars.next().is_some() { "…" } else { "" };
    format!("`{head}{more}`")
}

/// The path of a key below another path.
pub(super) fn below(parent: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !key.is_empty() && key.len() <= MAX_SHOWN_CHARS && key.chars().all(plain) {
        format!("{parent}.{key}")
    } else {
        format!("{parent}[{}]", shown(key))
    }
}
