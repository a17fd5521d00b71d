//! Finds secrets in a submission. What can be handed to the worker in memory is taken out of it (`credentials`), and what
//! is found after that is refused before anything is written anywhere: files of a submission lie on the server's disk
//! until their job is over, and a secret must not.

#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::FieldViolation;

pub(crate) use self::text::{is_secret, is_structure};
use crate::status::Refusal;
use crate::submission::{Role, StagedFile};

/// Names of settings that hold a secret, by their letters alone: in a configuration their words may be joined in any way.
/// In the order of their letters.
const SECRET_NAMES: [(&str, &str); 37] = [
    ("accesskey", "access_key"),
    ("accesskeyid", "access_key_id"),
    ("accesstoken", "access_token"),
    ("accountkey", "account_key"),
    ("apikey", "api_key"),
    ("apitoken", "api_token"),
    ("applicationkey", "application_key"),
    ("appsecret", "app_secret"),
    ("authorization", "authorization"),
    ("authtoken", "auth_token"),
    ("awsaccesskeyid", "aws_access_key_id"),
    ("awssecretaccesskey", "aws_secret_access_key"),
    ("awssessiontoken", "aws_session_token"),
    ("bearertoken", "bearer_token"),
    ("clientsecret", "client_secret"),
    ("connectionstring", "connection_string"),
    ("credential", "credential"),
    ("hftoken", "hf_token"),
    ("hubtoken", "hub_token"),
    ("huggingfacehubtoken", "huggingface_hub_token"),
    ("huggingfacetoken", "huggingface_token"),
    ("passwd", "passwd"),
    ("password", "password"),
    ("privatekey", "private_key"),
    ("pushtohubtoken", "push_to_hub_token"),
    ("refreshtoken", "refresh_token"),
    ("requestheaders", "request_headers"),
    ("sastoken", "sas_token"),
    ("secret", "secret"),
    ("secretaccesskey", "secret_access_key"),
    ("secretkey", "secret_key"),
    ("sessiontoken", "session_token"),
    ("token", "token"),
    ("uploadtoken", "upload_token"),
    ("wandbapikey", "wandb_api_key"),
    ("wandbkey", "wandb_key"),
    ("webhooksecret", "webhook_secret"),
];

/// Letters of the longest of them.
const SECRET_NAME_LETTERS_MAX: usize = 19;

/// The letters that one of them begins with, and those that one ends with: a bit for each of the alphabet. Most settings
/// are told from secrets by these two.
const ENDS: (u32, u32) = {
    let (mut first, mut last, mut index) = (0, 0, 0);
    while index < SECRET_NAMES.len() {
        let name = SECRET_NAMES[index].0.as_bytes();
        first |= 1 << (name[0] - b'a');
        last |= 1 << (name[name.len() - 1] - b'a');
        index += 1;
    }
    (first, last)
};

/// Parts of a name that say the same wherever they stand in it, as SimpleTuner's own list has them: their letters, and the
/// name in the words of the list above.
const SECRET_PARTS: [(&str, &str); 7] = [
    ("secret", "secret"),
    ("password", "password"),
    ("passwd", "passwd"),
    ("credential", "credential"),
    ("accesskey", "access_key"),
    ("apikey", "api_key"),
    ("privatekey", "private_key"),
];

/// Secrets told at once; the rest is found when these are gone.
const TOLD: usize = 20;

/// Values nested deeper than this are no setting.
const DEPTH_MAX: usize = 32;

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
        if (self.named && is_value(text)) || is_secret(text) {
            self.screen.note(self.place.to_string());
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            // There is no other place to put what should have been a name.
            if key.len() > SECRET_NAME_LETTERS_MAX && is_secret(&key) {
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
                || value.split_whitespace().any(is_secret)
            {
                self.note(format!("line {}", index + 1));
            }
        }
    }

    /// Whether a key is the name of a secret. In a library of prompts a key is the name of a prompt, whatever it says.
    fn names_secret(&self, key: &str) -> bool {
        self.file.role != Role::Prompts && secret_name(key).is_some()
    }

    fn note(&mut self, path: String) {
        self.found.push((self.file.name.clone(), path));
    }

    fn is_full(&self) -> bool {
        self.found.len() >= TOLD
    }
}

/// The secret that a setting of this name holds, in the words of the list.
pub(crate) fn secret_name(key: &str) -> Option<&'static str> {
    whole_name(key).or_else(|| name_by_part(key))
}

/// The secret that a name tells by one of its words.
fn name_by_part(key: &str) -> Option<&'static str> {
    let bytes = key.as_bytes();
    // `webshart_hf_token` and `hfToken` are about one token, `token` within a word is about something else.
    if let Some(at) = bytes.len().checked_sub("token".len())
        && bytes[at..].eq_ignore_ascii_case(b"token")
        && (bytes[at] == b'T' || at == 0 || !bytes[at - 1].is_ascii_alphanumeric())
    {
        return Some("token");
    }
    let begins = |at: usize, part: &str| {
        let letters = bytes[at..]
            .iter()
            .filter(|byte| byte.is_ascii_alphanumeric());
        letters
            .map(u8::to_ascii_lowercase)
            .take(part.len())
            .eq(part.bytes())
    };
    (0..bytes.len()).find_map(|at| {
        // All of them begin with one of these.
        if !b"spcaSPCA".contains(&bytes[at]) {
            return None;
        }
        let part = SECRET_PARTS.iter().find(|(part, _)| begins(at, part));
        part.map(|(_, name)| *name)
    })
}

/// The secret that a name tells as a whole.
fn whole_name(key: &str) -> Option<&'static str> {
    let letters = || key.bytes().filter(u8::is_ascii_alphanumeric);
    let is_end = |ends: u32, letter: Option<u8>| {
        letter.is_some_and(|letter| {
            letter.is_ascii_alphabetic() && ends >> (letter.to_ascii_lowercase() - b'a') & 1 == 1
        })
    };
    if !is_end(ENDS.0, letters().next()) || !is_end(ENDS.1, letters().next_back()) {
        return None;
    }
    let mut name = [0; SECRET_NAME_LETTERS_MAX];
    let mut length = 0;
    for letter in letters() {
        // What is longer is none of the names.
        *name.get_mut(length)? = letter.to_ascii_lowercase();
        length += 1;
    }
    let name = &name[..length];
    let at = SECRET_NAMES.binary_search_by(|(known, _)| known.as_bytes().cmp(name));
    at.ok().map(|at| SECRET_NAMES[at].1)
}

/// Whether a setting with a secret's name is set at all: words that switch it off are no secret, and neither is the name
/// of a variable that holds one.
pub(crate) fn is_value(text: &str) -> bool {
    let text = text.trim();
    let off = ["", "none", "null", "false", "true"].contains(&text.to_ascii_lowercase().as_str());
    !off && !is_variable(text)
}

/// The same of a number: those that switch something on or off are no secret.
pub(crate) fn is_number_value(number: i128) -> bool {
    !(-1..=1).contains(&number)
}

/// Whether a text is nothing but the name of a variable, such as `$HF_TOKEN`, `${HF_TOKEN}` or `{env:HF_TOKEN}`.
fn is_variable(text: &str) -> bool {
    let braced = |begin: &str| text.strip_prefix(begin)?.strip_suffix('}');
    let name = braced("{env:").or_else(|| braced("${"));
    let name = name.or_else(|| text.strip_prefix('$'));
    name.is_some_and(|name| {
        let letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        !name.is_empty() && name.bytes().all(letter)
    })
}

fn shown(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(48).collect()
}
