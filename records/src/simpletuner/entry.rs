//! One entry of a data loader's file, read key by key.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::findings::Findings;
use super::json::{Map, Value};
use super::note::Note;
use super::problem::{below, shown};
use super::vocabulary;

/// An object of the file with the place where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) file: &'a str,
    /// Such as `$[1]` or `$[1].video`; the position among the entries is counted from 0 here.
    pub(super) path: &'a str,
    pub(super) keys: &'a Map<'a>,
}

impl<'a> Entry<'a> {
    /// Adds a problem at a key.
    pub(super) fn problem(
        &self,
        key: &str,
        what: impl Into<String>,
        hint: impl Into<String>,
        found: &mut Findings,
    ) {
        found.problem(self.file, below(self.path, key), what, hint);
    }

    /// The value of a key; `None` for a missing one and for `null`.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value<'a>> {
        self.keys
            .get(key)
            .filter(|value| !matches!(value, Value::Null))
    }

    /// A text or number as text; `None` when missing, empty, or with a problem found.
    pub(super) fn text(&self, key: &str, found: &mut Findings) -> Option<Cow<'a, str>> {
        match self.get(key)? {
            Value::String(text) if text.trim().is_empty() => None,
            Value::String(text) => Some(Cow::Borrowed(text.trim())),
            Value::Number(number) => Some(Cow::Owned(number.to_string())),
            _ => {
                self.problem(
                    key,
                    "one text or number belongs here",
                    "write a single value",
                    found,
                );
                None
            }
        }
    }

    /// A whole number; `None` when missing, empty, or with a problem found.
    pub(super) fn whole(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
        found: &mut Findings,
    ) -> Option<u64> {
        let text = self.text(key, found)?;
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let hint = format!(
                "write a whole number from {} to {}",
                range.start(),
                range.end()
            );
            self.problem(
                key,
                format!("{} is not possible here", shown(&text)),
                hint,
                found,
            );
        }
        number
    }

    /// A whole number that may be written with a point, as Python writes one that it has reckoned with: SimpleTuner cuts off
    /// what is behind it. `None` when missing, empty, or with a problem found.
    pub(super) fn cut(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
        found: &mut Findings,
    ) -> Option<u64> {
        /// Above this not every whole number can be told from the next.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if let Value::Number(number) = self.get(key)?
            && let (None, Some(float)) = (number.as_u64(), number.as_f64())
            && float.fract() == 0.0
            && (0.0..EXACT).contains(&float)
            && range.contains(&(float as u64))
        {
            return Some(float as u64);
        }
        self.whole(key, range, found)
    }

    /// Whether a key is on, as Python takes it: any text but an empty one would be.
    pub(super) fn flag(&self, key: &str, found: &mut Findings) -> bool {
        match self.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(on)) => *on,
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => {
                let said = text.trim().to_ascii_lowercase();
                if said == "false" || said == "no" || said == "0" {
                    let what = format!("SimpleTuner takes the text {} for true", shown(text));
                    self.problem(key, what, "write true or false without quotes", found);
                }
                !said.is_empty()
            }
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(object)) => !object.is_empty(),
        }
    }

    /// Finds slips among the keys and notes keys that SimpleTuner does not read.
    pub(super) fn check_keys(&self, number: usize, found: &mut Findings) {
        for key in self.keys.keys() {
            if vocabulary::is_dataset_key(key) || found.is_full() {
                continue;
            }
            match found.search(|| vocabulary::nearest_dataset_key(key)) {
                Some(nearest) => {
                    let what = format!("SimpleTuner does not read the key {}", shown(key));
                    self.problem(key, what, format!("did you mean {nearest}?"), found);
                }
                None => found.note(Note::UnreadKeys { entry: number + 1 }),
            }
        }
    }
}
