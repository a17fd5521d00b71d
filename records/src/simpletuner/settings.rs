//! The settings of a configuration, read with SimpleTuner's rules for flags, numbers and choices.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;

use super::findings::Findings;
use super::json::Value;
use super::note::Note;
use super::problem::{below, shown};
use super::vocabulary::{self, Words};

/// A setting's value, as an option would carry it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given<'a> {
    True,
    False,
    Text(Cow<'a, str>),
    Structure(Value<'a>),
}

/// Where a value stands; written out only when there is something to say of it.
#[derive(Debug, Clone)]
pub(super) enum Place<'a> {
    /// This key of the object there.
    Below(&'static str, Cow<'a, str>),
    /// What has one name.
    Whole(&'a str),
}

/// A value and where it stands.
#[derive(Debug, Clone)]
struct Setting<'a> {
    given: Given<'a>,
    place: Place<'a>,
}

/// Settings of a usual configuration at most, so that there is room for all from the start.
const USUAL: usize = 56;

/// How a text begins that stands for a secret: who submits has written the secret itself.
const TAKEN_OUT: &str = "{env:STEPCAST_CREDENTIAL_";

/// All settings of one file by name.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    file: &'a str,
    given: HashMap<&'static str, Setting<'a>, Words>,
    /// Settings with the text `"false"`, which SimpleTuner drops.
    ignored_false: Vec<&'static str>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(parent, key) => f.write_str(&below(parent, key)),
            Self::Whole(name) => f.write_str(name),
        }
    }
}

impl<'a> Settings<'a> {
    /// None yet, of this file.
    pub(super) fn new(file: &'a str) -> Self {
        Self {
            file,
            given: HashMap::with_capacity_and_hasher(USUAL, Words::default()),
            ignored_false: Vec::new(),
        }
    }

    /// Gives a setting its value, whatever it had before.
    pub(super) fn set(&mut self, name: &'static str, given: Given<'a>, place: Place<'a>) {
        self.given.insert(name, Setting { given, place });
    }

    /// Notes the text `"false"` of a setting.
    pub(super) fn ignore_false(&mut self, name: &'static str) {
        self.ignored_false.push(name);
    }

    /// The file's name.
    pub(super) fn file(&self) -> &str {
        self.file
    }

    /// Where a setting stands, or would stand.
    pub(super) fn path(&self, name: &str) -> String {
        self.given
            .get(name)
            .map_or_else(|| format!("$.{name}"), |setting| setting.place.to_string())
    }

    /// Adds a problem at a setting.
    pub(super) fn problem(
        &self,
        name: &str,
        what: impl Into<String>,
        hint: impl Into<String>,
        found: &mut Findings,
    ) {
        found.problem(self.file, self.path(name), what, hint);
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
    pub(super) fn given(&self, name: &str) -> Option<&Given<'a>> {
        self.given.get(name).map(|setting| &setting.given)
    }

    /// Whether a flag is on that matters and is on unless it is given.
    pub(super) fn flag_on(&self, name: &'static str, found: &mut Findings) -> bool {
        match (self.given(name), self.ignored_false.contains(&name)) {
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

    /// Whether one of the words for "no" is given: the text `"false"` is one here, for a setting that SimpleTuner looks at
    /// before it drops that.
    pub(super) fn is_denied(&self, name: &'static str) -> bool {
        self.ignored_false.contains(&name)
            || match self.given(name) {
                Some(Given::False) => true,
                Some(Given::Text(text)) => {
                    let words = ["0", "no", "none", "off"];
                    words.iter().any(|word| text.eq_ignore_ascii_case(word))
                }
                _ => false,
            }
    }

    /// A whole number; `None` when it is not given, or with a problem found.
    pub(super) fn whole(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        found: &mut Findings,
    ) -> Option<u64> {
        if self.given(name) == Some(&Given::False) {
            let what = "false stands where a number belongs";
            self.problem(name, what, "write the number, or remove the setting", found);
            return None;
        }
        let text = self.text(name, found)?;
        let number = text.strip_prefix('+').unwrap_or(text).parse().ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let hint = format!(
                "write a whole number from {} to {}",
                range.start(),
                range.end()
            );
            self.problem(
                name,
                format!("{} is not possible here", shown(text)),
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
    pub(super) fn text(&self, name: &str, found: &mut Findings) -> Option<&str> {
        match self.given(name)? {
            Given::Text(text) if is_none(text) => None,
            Given::Text(text) if text.contains(TAKEN_OUT) => {
                let what = "it holds a secret, which is taken out before anything is read";
                self.problem(name, what, "write the value without the secret", found);
                None
            }
            Given::Text(text) if is_of_environment(text) => {
                let what = "the value comes from the environment, which is not known here";
                self.problem(name, what, "write the value itself", found);
                None
            }
            Given::Text(text) => Some(text),
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
        chosen(vocabulary::choices(name)?, text)
    }

    /// Finds every setting whose value is not one of its choices.
    pub(super) fn check_choices(&self, found: &mut Findings) {
        let mut wrong = Vec::new();
        for (&name, setting) in &self.given {
            let Some(choices) = vocabulary::choices(name) else {
                continue;
            };
            if let Given::Text(text) = &setting.given
                && !is_none(text)
                && chosen(choices, text).is_none()
            {
                wrong.push((name, choices, text));
            }
        }
        wrong.sort_unstable();
        for (name, choices, text) in wrong {
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

/// The choice that a text is, in whatever case it is written.
fn chosen(choices: &'static [&'static str], text: &str) -> Option<&'static str> {
    let mut choices = choices.iter().copied();
    choices.find(|choice| choice.eq_ignore_ascii_case(text))
}

/// Whether a text names a variable. Few texts have a brace, and only those are looked through.
fn is_of_environment(text: &str) -> bool {
    text.contains('{') && (text.contains("{env:") || text.contains("${"))
}

/// Whether SimpleTuner takes a text for "not set".
fn is_none(text: &str) -> bool {
    text.eq_ignore_ascii_case("none") || text.eq_ignore_ascii_case("null")
}
