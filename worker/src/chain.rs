//! An error with its causes in one line: the first of them seldom says why.

use std::error::Error;

/// The error's words and those of its causes, from the outermost to the innermost, separated by colons.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
