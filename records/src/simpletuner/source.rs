//! From the bytes of a configuration to its settings, as SimpleTuner's own loaders turn them into options.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::files::{File, Format};
use super::findings::Findings;
use super::form::{NOT_WRAPPED, PAGE_NOTES, PAGE_WRAPPER, without_mark};
use super::json::{Map, Value};
use super::problem::shown;
use super::settings::{Given, Place, Settings};
use super::vocabulary;

/// Where the settings of a file stand,
const ROOT: &str = "$";

/// and where they stand in what SimpleTuner's page writes.
const WRAPPED: &str = "$.config";

/// The setting whose empty text matters: SimpleTuner keeps those of a few (`allow_empty`), and makes images of this one.
const MAY_BE_EMPTY: &str = "validation_prompt";

/// The settings of a configuration; `None` when the file cannot be read at all, with a problem found.
pub(super) fn settings<'a>(file: &File<'a>, found: &mut Findings) -> Option<Settings<'a>> {
    let mut builder = Builder {
        file: file.name,
        settings: Settings::new(file.name),
    };
    match file.format() {
        Format::Json => builder.json(json(file, found)?, found)?,
        Format::Toml => builder.object(ROOT, toml(file, found)?, found),
        Format::Env => builder.env(text(file, found)?, found),
    }
    Some(builder.settings)
}

/// A JSON file, or `None` with a problem found.
pub(super) fn json<'a>(file: &File<'a>, found: &mut Findings) -> Option<Value<'a>> {
    let text = text(file, found)?;
    // serde_json stops at 128 levels of nesting, long before the stack does.
    match serde_json::from_str(text) {
        Ok(value) => Some(value),
        Err(error) => {
            let place = format!("line {}, column {}", error.line(), error.column());
            let (what, hint) = match error.classify() {
                serde_json::error::Category::Eof => {
                    ("the JSON ends too early", "close every bracket and quote")
                }
                _ => (
                    "this is not valid JSON",
                    "look for a missing or superfluous comma or quote just before it",
                ),
            };
            found.problem(file.name, place, what, hint);
            None
        }
    }
}

fn toml<'a>(file: &File<'a>, found: &mut Findings) -> Option<Map<'a>> {
    let text = text(file, found)?;
    match toml::from_str::<Map<'_>>(text) {
        Ok(table) => Some(table),
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let line = text
                .get(..start)
                .map_or(1, |before| before.matches('\n').count() + 1);
            let hint = "write each setting as `name = value`, texts in quotes";
            found.problem(
                file.name,
                format!("line {line}"),
                "this is not valid TOML",
                hint,
            );
            None
        }
    }
}

fn text<'a>(file: &File<'a>, found: &mut Findings) -> Option<&'a str> {
    let length = file.bytes.len();
    if length > File::MAX_BYTES {
        let what = format!(
            "the file has {length} bytes, more than {} are not read",
            File::MAX_BYTES
        );
        found.problem(
            file.name,
            "$",
            what,
            "give the configuration itself, not the data",
        );
        return None;
    }
    match std::str::from_utf8(without_mark(file.bytes)) {
        Ok(text) => Some(text),
        Err(error) => {
            let place = format!("byte {}", error.valid_up_to());
            found.problem(
                file.name,
                place,
                "the file is not UTF-8 text",
                "save it as UTF-8",
            );
            None
        }
    }
}

struct Builder<'a> {
    file: &'a str,
    settings: Settings<'a>,
}

impl<'a> Builder<'a> {
    fn json(&mut self, value: Value<'a>, found: &mut Findings) -> Option<()> {
        let Value::Object(mut settings) = value else {
            let (what, hint) = match value.first().and_then(|entry| entry.get("id")) {
                Some(_) => (
                    "this is a data loader's file, not a configuration",
                    "give the configuration that names it",
                ),
                None => (
                    "the configuration is not a JSON object",
                    "write the settings as {\"name\": value, ...}",
                ),
            };
            found.problem(self.file, "$", what, hint);
            return None;
        };
        if holds_something_else(&settings) {
            let what = "none of the keys is a setting of SimpleTuner's";
            let hint = "give the configuration, not its prompts or its adapter's settings";
            found.problem(self.file, "$", what, hint);
            return None;
        }
        match settings.remove(PAGE_WRAPPER) {
            Some(Value::Object(inner)) if !settings.contains_key(NOT_WRAPPED) => {
                self.object(WRAPPED, inner, found);
            }
            Some(other) => {
                settings.push(Cow::Borrowed(PAGE_WRAPPER), other);
                self.object(ROOT, settings, found);
            }
            None => self.object(ROOT, settings, found),
        }
        Some(())
    }

    fn object(&mut self, parent: &'static str, settings: Map<'a>, found: &mut Findings) {
        for (key, value) in settings {
            let name = plain(&key);
            match vocabulary::setting(name) {
                // The trainer passes over it too.
                None if name == PAGE_NOTES && matches!(value, Value::Object(_)) => {}
                None => {
                    let place = Place::Below(parent, key.clone());
                    self.unknown(name, &place.to_string(), found);
                }
                Some(setting) => {
                    if let Some(given) = given(setting, value) {
                        self.set(setting, given, Place::Below(parent, key));
                    }
                }
            }
            if found.is_full() {
                return;
            }
        }
    }

    /// A later setting of the same name wins, as on a command line.
    fn set(&mut self, name: &'static str, given: Given<'a>, place: Place<'a>) {
        let is_false = matches!(&given, Given::Text(text) if text.eq_ignore_ascii_case("false"));
        if is_false {
            self.settings.ignore_false(name);
            return;
        }
        let given = match given {
            Given::Text(text) if text.eq_ignore_ascii_case("true") => Given::True,
            other => other,
        };
        self.settings.set(canonical(name), given, place);
    }

    fn unknown(&self, name: &str, path: &str, found: &mut Findings) {
        let what = format!("SimpleTuner 4.10.1 has no setting {}", shown(name));
        let hint = match vocabulary::nearest_setting(name) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "remove it, or look the name up in SimpleTuner's OPTIONS document".to_owned(),
        };
        found.problem(self.file, path, what, hint);
    }

    fn env(&mut self, text: &'a str, found: &mut Findings) {
        let mut variables: BTreeMap<&str, Cow<'a, str>> = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let line = line.strip_prefix("export ").unwrap_or(line);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                let place = format!("line {}", number + 1);
                found.problem(
                    self.file,
                    place,
                    "this is no assignment",
                    "write NAME=value",
                );
                continue;
            };
            let value = unquoted(value.trim());
            match name.trim().strip_suffix('+') {
                Some(name) => {
                    let list = variables.entry(name.trim()).or_default();
                    *list = format!("{list} {value}").into();
                }
                None => {
                    variables.insert(name.trim(), value.into());
                }
            }
        }
        for (name, value) in variables {
            self.variable(name, trimmed(value), found);
        }
    }

    fn variable(&mut self, name: &'a str, value: Cow<'a, str>, found: &mut Findings) {
        match vocabulary::setting_of_variable(name) {
            Some(named) => match vocabulary::setting(named) {
                Some(setting) => {
                    if !value.is_empty() {
                        self.set(setting, Given::Text(value), Place::Whole(name));
                    }
                }
                None => self.unknown(named, name, found),
            },
            None if name == "TRAINER_EXTRA_ARGS" => self.arguments(&value, found),
            None => {
                // The file may set variables of other programs, so only a slip is a problem.
                if let Some(nearest) = found.search(|| vocabulary::nearest_variable(name)) {
                    let what = "SimpleTuner does not read this variable";
                    found.problem(
                        self.file,
                        shown(name),
                        what,
                        format!("did you mean {nearest}?"),
                    );
                }
            }
        }
    }

    fn arguments(&mut self, line: &str, found: &mut Findings) {
        const PLACE: &str = "TRAINER_EXTRA_ARGS";
        let mut words = line.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--") else {
                continue;
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Given::Text(unquoted(value).to_owned().into())),
                None => match words.next_if(|next| !next.starts_with("--")) {
                    Some(value) => (option, Given::Text(unquoted(value).to_owned().into())),
                    None => (option, Given::True),
                },
            };
            match vocabulary::setting(name) {
                Some(setting) => self.set(setting, value, Place::Whole(PLACE)),
                None => self.unknown(name, PLACE, found),
            }
        }
    }
}

/// Whether an object has keys, and none that is a setting or a slip of one.
fn holds_something_else(settings: &Map<'_>) -> bool {
    /// Keys that are looked at: a configuration has a setting among its first ones.
    const LOOKED_AT: usize = 32;
    let is_setting = |key: &str| {
        let name = plain(key);
        name == PAGE_WRAPPER
            || vocabulary::setting(name).is_some()
            || vocabulary::nearest_setting(name).is_some()
    };
    !settings.is_empty() && !settings.keys().take(LOOKED_AT).any(is_setting)
}

/// The value as an option would carry it; `None` for what SimpleTuner leaves out.
fn given<'a>(setting: &str, value: Value<'a>) -> Option<Given<'a>> {
    match value {
        Value::Null => None,
        Value::Bool(true) => Some(Given::True),
        Value::Bool(false) => Some(Given::False),
        Value::Number(number) => Some(Given::Text(number.to_string().into())),
        Value::String(text) => {
            let text = trimmed(text);
            (!text.is_empty() || setting == MAY_BE_EMPTY).then_some(Given::Text(text))
        }
        structure @ (Value::Array(_) | Value::Object(_)) => Some(Given::Structure(structure)),
    }
}

/// The name under which an older or second name of a setting is kept.
fn canonical(name: &'static str) -> &'static str {
    match name {
        "validation_steps" => "validation_step_interval",
        "checkpointing_steps" => "checkpoint_step_interval",
        "save_total_limit" => "checkpoints_total_limit",
        "fused_qkv_projections" => "fuse_qkv_projections",
        other => other,
    }
}

/// A key as a setting's name: people write it as an option too.
fn plain(key: &str) -> &str {
    key.trim().trim_start_matches('-')
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

fn unquoted(value: &str) -> &str {
    let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}
