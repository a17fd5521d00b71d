//! Finds secrets in a submission. What can be handed to the worker in memory is taken out of it (`credentials`), and what
//! is found after that is refused before anything is written anywhere: files of a submission lie on the server's disk
//! until their job is over, and a secret must not.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;
use stepcast_records::secret::{self, is_number_value, is_structure, is_value};
use tonic::{Code, Status};
use tonic_types::FieldViolation;

use crate::status::Refusal;
use crate::submission::{Role, StagedFile};

/// Secrets told at once; the rest is found when these are gone.
const TOLD: usize = 20;

/// Values nested deeper than this are not looked at: no JSON that is read has more levels.
const DEPTH_MAX: usize = 128;

/// A secret that was found: its file, and its place in it. It is not repeated itself.
pub(crate) type Found = Vec<(String, String)>;

/// Refuses a submission in whose files secrets were found, and says where they stand.
pub(crate) fn refuse(found: &Found) -> Result<(), Status> {
    let Some((first_file, first_path)) = found.first() else {
        return Ok(());
    };
    let message =
        format!("{first_file} {first_path} holds a secret that cannot be taken out of it");
    let fields = found.iter().take(TOLD).map(|(file, path)| {
        FieldViolation::new(format!("{file} {path}"), "this is a secret; take it out")
    });
    Err(Refusal::new(Code::InvalidArgument, "SECRET_IN_CONFIG", message)
        .hint("in config.json, in TOML and in the data loader it is handed to the worker in memory; or set it in the environment of the worker (HF_TOKEN, AWS_SECRET_ACCESS_KEY, WANDB_API_KEY)")
        .fields(fields.collect())
        .into())
}

/// Adds what looks like a secret in a file to those found in others, until there are enough to tell.
pub(crate) fn find(file: &StagedFile, found: &mut Found) {
    let Ok(text) = std::str::from_utf8(&file.content) else {
        return;
    };
    let before = found.len();
    let mut screen = Screen { file, found };
    let name = file.name.to_ascii_lowercase();
    let read = if name.ends_with(".toml") {
        toml::from_str::<Value>(text).is_ok_and(|value| screen.walk(value).is_ok())
    } else if name.ends_with(".env") {
        false
    } else {
        let mut json = serde_json::Deserializer::from_str(text);
        screen.walk(&mut json).is_ok() && json.end().is_ok()
    };
    // What is not JSON or TOML is read line by line; whether it is a configuration is the reader's question.
    if !read {
        screen.found.truncate(before);
        screen.lines(text);
    }
}

struct Screen<'a> {
    file: &'a StagedFile,
    found: &'a mut Found,
}

/// Where a value stands, from the file's root; written out only when there is something to say of it.
enum Place<'a> {
    Root,
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("$"),
            Self::Key(parent, key) => write!(f, "{parent}.{}", shown(key)),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A look at one value and everything in it, as it is read: no copy of it is made.
struct Look<'a, 'b> {
    screen: &'a mut Screen<'b>,
    place: &'a Place<'a>,
    /// Whether its key is the name of a secret.
    named: bool,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Look<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        if self.depth > DEPTH_MAX || self.screen.is_full() {
            return IgnoredAny::deserialize(value).map(drop);
        }
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let before = self.screen.found.len();
        if is_structure(text) && self.depth < DEPTH_MAX {
            let mut json = serde_json::Deserializer::from_str(text);
            let inner = Look {
                screen: &mut *self.screen,
                place: self.place,
                named: self.named,
                depth: self.depth + 1,
            };
            if inner.deserialize(&mut json).is_ok() && json.end().is_ok() {
                return Ok(());
            }
            self.screen.found.truncate(before);
        }
        if (self.named && is_value(text)) || secret::is_in(text) {
            self.screen.note(self.place.to_string());
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            // There is no other place to put what should have been a name.
            if secret::is_in(&key) {
                self.screen.note(self.place.to_string());
            }
            map.next_value_seed(Look {
                named: self.named || self.screen.names_secret(&key),
                place: &Place::Key(self.place, &key),
                screen: self.screen,
                depth: self.depth + 1,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let mut index = 0;
        while values
            .next_element_seed(Look {
                named: self.named,
                place: &Place::Index(self.place, index),
                screen: self.screen,
                depth: self.depth + 1,
            })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.visit_number(is_number_value(number.into()));
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.visit_number(is_number_value(number.into()));
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.visit_number(number.abs() > 1.0);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

impl Look<'_, '_> {
    fn visit_number(self, is_value: bool) {
        if self.named && is_value {
            self.screen.note(self.place.to_string());
        }
    }
}

/// A key, borrowed where nothing in it is escaped.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(key: D) -> Result<Self, D::Error> {
        key.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}

impl Screen<'_> {
    fn walk<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        Look {
            screen: self,
            place: &Place::Root,
            named: false,
            depth: 0,
        }
        .deserialize(value)
    }

    fn lines(&mut self, text: &str) {
        for (index, line) in text.lines().enumerate() {
            if self.is_full() {
                return;
            }
            let line = line
                .trim()
                .trim_start_matches("export ")
                .trim_end_matches(',');
            let (key, value) = line.split_once(['=', ':']).unwrap_or(("", line));
            let value = value.trim().trim_matches(['"', '\'']);
            if (self.names_secret(key) && is_value(value))
                || secret::is_in(value)
                || value.split_whitespace().any(secret::is_in)
            {
                self.note(format!("line {}", index + 1));
            }
        }
    }

    /// Whether a key is the name of a secret. In a library of prompts a key is the name of a prompt, whatever it says.
    fn names_secret(&self, key: &str) -> bool {
        self.file.role != Role::Prompts && secret::name(key).is_some()
    }

    fn note(&mut self, path: String) {
        self.found.push((self.file.name.clone(), path));
    }

    fn is_full(&self) -> bool {
        self.found.len() >= TOLD
    }
}

fn shown(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(48).collect()
}
