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
use tonic::{Code, Status};
use tonic_types::FieldViolation;

use crate::status::Refusal;
use crate::submission::{Role, StagedFile};

/// Names of settings that hold a secret, by their letters alone: in a configuration their words may be joined in any way.
/// In the order of their letters.
const SECRET_NAMES: [(&str, &str); 33] = [
    ("accesskey", "access_key"),
    ("accesskeyid", "access_key_id"),
    ("accesstoken", "access_token"),
    ("accountkey", "account_key"),
    ("apikey", "api_key"),
    ("applicationkey", "application_key"),
    ("appsecret", "app_secret"),
    ("authorization", "authorization"),
    ("authtoken", "auth_token"),
    ("awsaccesskeyid", "aws_access_key_id"),
    ("awssecretaccesskey", "aws_secret_access_key"),
    ("awssessiontoken", "aws_session_token"),
    ("clientsecret", "client_secret"),
    ("connectionstring", "connection_string"),
    ("hftoken", "hf_token"),
    ("hubtoken", "hub_token"),
    ("huggingfacehubtoken", "huggingface_hub_token"),
    ("huggingfacetoken", "huggingface_token"),
    ("passwd", "passwd"),
    ("password", "password"),
    ("privatekey", "private_key"),
    ("pushtohubtoken", "push_to_hub_token"),
    ("refreshtoken", "refresh_token"),
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

/// How well-known secrets begin, and how many letters follow at least.
const SECRET_SHAPES: [(&str, usize); 9] = [
    ("hf_", 20),
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 20),
    ("github_pat_", 20),
    ("r8_", 20),
    ("sk-", 20),
    ("sl.", 40),
    ("scw_", 40),
];

/// The bytes that one of them begins with: a bit for each of ASCII. Most texts are told from secrets by their first.
const SHAPES_BEGIN: u128 = {
    let (mut first, mut index) = (0, 0);
    while index < SECRET_SHAPES.len() {
        first |= 1 << SECRET_SHAPES[index].0.as_bytes()[0];
        index += 1;
    }
    first
};

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

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
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

/// Whether a text is a secret, by what it looks like. Every text of every submission is asked about.
pub(crate) fn is_secret(text: &str) -> bool {
    let word = text.trim();
    let first = word.bytes().next().filter(u8::is_ascii);
    let may_be = first.is_some_and(|first| SHAPES_BEGIN >> first & 1 == 1);
    let shaped = may_be
        && SECRET_SHAPES.iter().any(|(prefix, letters)| {
            let rest = word.strip_prefix(prefix);
            rest.is_some_and(|rest| {
                rest.len() >= *letters
                    && rest
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
            })
        });
    shaped || has_key(text) || has_password(text)
}

/// Whether a text holds a private key as PEM files do.
fn has_key(text: &str) -> bool {
    const MARK: &str = "PRIVATE KEY-----";
    // Few settings have a space in them, which is quickly seen.
    text.len() >= MARK.len() && text.as_bytes().contains(&b' ') && text.contains(MARK)
}

/// Whether a text is an address with a password in it.
fn has_password(text: &str) -> bool {
    // Most texts have none, which is quickly seen.
    if !text.contains('@') {
        return false;
    }
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit_once('@').is_some_and(|(user, _)| {
        user.split_once(':')
            .is_some_and(|(_, word)| !word.is_empty())
    })
}

fn shown(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(48).collect()
}
