//! A short text that a person chose: the only free text of a user in a job, deleted with it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text of 1 to [`Label::CHARS_MAX`] printable characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// The text is no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a label has 1 to 64 printable characters and no space at either end")]
pub struct Error;

impl Label {
    /// Longest label in characters: a line of a table. The privacy policy promises no more.
    pub const CHARS_MAX: usize = 64;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        let fits = (1..=Self::CHARS_MAX).contains(&text.chars().count());
        let plain = text.trim() == text && !text.chars().any(char::is_control);
        if fits && plain {
            Ok(Self(text))
        } else {
            Err(Error)
        }
    }
}

impl FromStr for Label {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::try_from(text.to_owned())
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short_and_printable() {
        assert!("flux-cats".parse::<Label>().is_ok());
        assert!("é".repeat(64).parse::<Label>().is_ok());
        for text in ["", " a", "a ", "a\nb", "a\u{1b}[0m", &"é".repeat(65)] {
            assert_eq!(text.parse::<Label>(), Err(Error), "{text:?}");
        }
    }
}
