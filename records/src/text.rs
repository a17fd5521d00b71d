//! Reading a closed vocabulary from text, without ever repeating that text in an error.

use std::fmt;

use serde::de::{self, Visitor};

/// A serde visitor that accepts only text which `parse` knows.
pub(crate) struct FromText<P> {
    expected: &'static str,
    parse: P,
}

impl<P> FromText<P> {
    /// A visitor that reads `expected`.
    pub(crate) const fn new(expected: &'static str, parse: P) -> Self {
        Self { expected, parse }
    }
}

impl<T, P: Fn(&str) -> Option<T>> Visitor<'_> for FromText<P> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        // The unknown text may be anything, even a secret: it stays out of the message.
        let expected = self.expected;
        (self.parse)(text).ok_or_else(|| E::custom(format_args!("not {expected}")))
    }
}
