//! The settings of a configuration, read with SimpleTuner's rules for flags, numbers and choices.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use serde_json::Value;

use super::findings::Findings;
use super::note::Note;
use super::problem::shown;
use super::vocabulary;

/// A setting's value, as an option would carry it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given {
    True,
    False,
    Text(String),
    Structure(Value),
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) given: Given,
    pub(super) path: String,
}

/// All settings of one file by name.
#[derive(Debug)]
pub(super) struct Settings {
    file: String,
    given: HashMap<String, Setting>,
    /// Settings with the text `"false"`, which SimpleTuner drops.
    ignored_false: HashSet<String>,
}

impl Settings {
    pub(super) fn new(
        file: &str,
        given: HashMap<String, Setting>,
        ignored_false: HashSet<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            given,
            ignored_false,
        }
    }

    /// The file's name.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Where a setting stands, or would stand.
    pub(super) fn path(&self, name: &str) -> String {
        self.given
            .get(name)
            .map_or_else(|| format!("$.{name}"), |setting| setting.path.clone())
    }

    /// Adds a problem at a setting.
    pub(super) fn problem(
        &self,
        name: &str,
        what: impl Into<String>,
        hint: impl Into<String>,
        found: &mut Findings,
    ) {
        found.problem(&self.file, self.path(name), what, hint);
    }

    /// Whether a setting is given with anything but "no".
    pub(super) fn has(&self, name: &str) -> bool {
        match self.given.get(name).map(|setting| &setting.given) {
            None | Some(Given::False) => false,
            Some(Given::Text(text)) => !is_none(text),
            Some(Given::Structure(Value::Array(list))) => !list.is_empty(),
            Some(Given::Structure(Value::Object(object))) => !object.is_empty(),
            Some(Given::True | Given::Structure(_)) => true,
        }
    }

    /// The value of a setting, whatever its form.
    pub(super) fn given(&self, name: &str) -> Option<&Given> {
        self.given.get(name).map(|setting| &setting.given)
    }

    /// Whether a flag is on that matters and is on unless it is given.
    pub(super) fn flag_on(&self, name: &'static str, found: &mut Findings) -> bool {
        match (self.given(name), self.ignored_false.contains(name)) {
            (None, true) => found.note(Note::TextFalseIgnored(name)),
            (None, false) => found.assumed(name, "true"),
            (Some(_), _) => {}
        }
        self.flag(name, true, found)
    }

    /// Whether a flag is on.
    pub(super) fn flag(&self, name: &'static str, default: bool, found: &mut Findings) -> bool {
        match self.given(name) {
            None => default,
            Some(Given::True) => true,
            Some(Given::False) => false,
            Some(Given::Text(text)) => match text.to_ascii_lowercase().as_str() {
                "1" | "yes" | "y" | "on" => true,
                "0" | "no" | "n" | "off" | "none" => false,
                _ => {
                    let what = format!("{} is neither true nor false", shown(text));
                    self.problem(name, what, "write true or false", found);
                    default
                }
            },
            Some(Given::Structure(_)) => {
                self.problem(
                    name,
                    "a list or object stands where true or false belongs",
                    "write true or false",
                    found,
                );
                default
            }
        }
    }

    /// A whole number; `None` when it is not given, or with a problem found.
    pub(super) fn whole(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        found: &mut Findings,
    ) -> Option<u64> {
        let text = self.text(name, found)?;
        let number = text.strip_prefix('+').unwrap_or(&text).parse().ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let hint = format!(
                "write a whole number from {} to {}",
                range.start(),
                range.end()
            );
            self.problem(
                name,
                format!("{} is not possible here", shown(&text)),
                hint,
                found,
            );
        }
        number
    }

    /// A whole number, or its default with a note; `None` with a problem found.
    pub(super) fn whole_or(
        &self,
        name: &'static str,
        default: (u64, &'static str),
        range: RangeInclusive<u64>,
        found: &mut Findings,
    ) -> Option<u64> {
        if self.given.contains_key(name) {
            return self.whole(name, range, found);
        }
        found.assumed(name, default.1);
        Some(default.0)
    }

    /// A text; `None` when it is not given, means nothing, or with a problem found.
    pub(super) fn text(&self, name: &str, found: &mut Findings) -> Option<String> {
        match self.given(name)? {
            Given::Text(text) if is_none(text) => None,
            Given::Text(text) if text.contains("{env:") || text.contains("${") => {
                let what = "the value comes from the environment, which is not known here";
                self.problem(name, what, "write the value itself", found);
                None
            }
            Given::Text(text) => Some(text.clone()),
            Given::False => None,
            Given::True => {
                self.problem(
                    name,
                    "true stands where a value belongs",
                    "write the value, or remove the setting",
                    found,
                );
                None
            }
            Given::Structure(_) => {
                let what = "a list or object stands where one value belongs";
                self.problem(name, what, "write a single text or number", found);
                None
            }
        }
    }

    /// One of a closed list of values, in any letter case; `None` when not given or when it is none of them, which
    /// [`Self::check_choices`] finds for all settings at once.
    pub(super) fn choice(&self, name: &str) -> Option<&'static str> {
        let Given::Text(text) = self.given(name)? else {
            return None;
        };
        let mut choices = vocabulary::choices(name)?.iter().copied();
        choices.find(|choice| choice.eq_ignore_ascii_case(text))
    }

    /// Finds every setting whose value is not one of its choices.
    pub(super) fn check_choices(&self, found: &mut Findings) {
        let mut names: Vec<_> = vocabulary::settings_with_choices().collect();
        names.sort_unstable();
        for (name, choices) in names {
            let Some(Given::Text(text)) = self.given(name) else {
                continue;
            };
            if is_none(text) || self.choice(name).is_some() {
                continue;
            }
            let hint = match vocabulary::nearest(text, choices.iter().copied()) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None if choices.len() <= 12 => format!("write one of {}", choices.join(", ")),
                None => format!(
                    "SimpleTuner 4.10.1 knows {} values, such as {}",
                    choices.len(),
                    choices[0]
                ),
            };
            self.problem(
                name,
                format!("{} is no value of {name}", shown(text)),
                hint,
                found,
            );
        }
    }
}

/// Whether SimpleTuner takes a text for "not set".
fn is_none(text: &str) -> bool {
    text.eq_ignore_ascii_case("none") || text.eq_ignore_ascii_case("null")
}
