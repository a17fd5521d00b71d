//! Finds the secrets among the words of a text: by their look, or since the name of one stands before it, as in commands,
//! headers, the query of an address and structures that are no JSON.

use std::ops::Range;

use super::{address, is_structure, is_value, is_variable, name, shape};

/// What a text is, which says how sure one has to be of a secret in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A setting, which may as well be a sentence.
    Setting,
    /// A value that holds a secret for certain.
    Handed,
    /// A line that a program has printed.
    Printed,
}

/// Shorter values among other words are words themselves.
const VALUE_BYTES_MIN: usize = 6;

/// Programs that are called by a name with a dot or slash in it, or without one.
const PROGRAMS: [&str; 8] = [
    "bash", "curl", "env", "export", "python", "python3", "sh", "wget",
];

/// Options that a user and a password follow, parted by a colon.
const USER_OPTIONS: [&str; 3] = ["-u", "--user", "--proxy-user"];

/// Programs that take a password right behind `-p`.
const TAKE_PASSWORDS: [&str; 4] = ["mariadb", "mongo", "mysql", "sshpass"];

/// What says before a secret in a header how it is to be read.
const SCHEMES: [&str; 4] = ["basic", "bearer", "digest", "token"];

/// Whether a text is a secret or holds one. Every text of every submission is asked about.
#[must_use]
pub fn is_in(text: &str) -> bool {
    shape::is_known(text.trim()) || has_key(text) || !within(text, Kind::Setting).is_empty()
}

/// Where in a text its secrets stand, in bytes.
#[must_use]
pub fn within(text: &str, kind: Kind) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    address::add(text, &mut found);
    let joins = |byte: u8| byte.is_ascii_whitespace() || b"=:\"'".contains(&byte);
    if text.bytes().any(joins) {
        let mut walk = Walk::new(text, kind, found);
        walk.walk();
        found = walk.found;
    }
    found
}

/// Whether a text holds a private key as PEM files do.
fn has_key(text: &str) -> bool {
    const MARK: &str = "PRIVATE KEY-----";
    // Few settings have a space in them, which is quickly seen.
    text.len() >= MARK.len() && text.as_bytes().contains(&b' ') && text.contains(MARK)
}

/// What the words so far say of the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Word,
    /// It belongs to an option or a key with the name of a secret.
    Secret,
    /// It belongs to such a name with a colon, which a sentence may have as well.
    AfterColon,
    /// It belongs to the header that lets somebody in,
    Authorization,
    /// and the header has said how it is to be read.
    Authorized,
    /// It follows a scheme, with nothing before that says of what.
    AfterScheme,
    /// It is a user and a password.
    User,
}

struct Walk<'a> {
    text: &'a str,
    kind: Kind,
    is_structure: bool,
    /// Whether a sentence is ruled out.
    is_command: bool,
    /// Whether a program is in it that takes a password right behind `-p`.
    takes_password: bool,
    found: Vec<Range<usize>>,
}

impl<'a> Walk<'a> {
    fn new(text: &'a str, kind: Kind, found: Vec<Range<usize>>) -> Self {
        let is_command = match kind {
            Kind::Setting => is_command(text),
            Kind::Handed => true,
            Kind::Printed => false,
        };
        Self {
            text,
            kind,
            // A line often begins with a mark in brackets.
            is_structure: kind != Kind::Printed && is_structure(text),
            is_command,
            takes_password: is_command
                && TAKE_PASSWORDS.iter().any(|program| text.contains(program)),
            found,
        }
    }

    fn walk(&mut self) {
        let ends = |char: char| char.is_whitespace() || "\"'`,;&?#()[]<>|".contains(char);
        let mut next = Next::Word;
        // The word before, for a colon that stands by itself.
        let mut before = "";
        for word in self.text.split(ends) {
            let word = match self.is_structure && !is_variable(word) {
                true => word.trim_matches(['{', '}']),
                false => word,
            };
            if word.starts_with(':') && next == Next::Word {
                next = self.look_at_colon(before, "");
            }
            let word = word.strip_prefix(':').unwrap_or(word);
            if word.bytes().all(|byte| b"{}".contains(&byte)) {
                continue;
            }
            let announced = !matches!(next, Next::Word | Next::User);
            if announced && SCHEMES.iter().any(|one| word.eq_ignore_ascii_case(one)) {
                if next == Next::Authorization {
                    next = Next::Authorized;
                }
                continue;
            }
            if next == Next::User {
                password(word)
                    .into_iter()
                    .for_each(|secret| self.note(secret));
            } else if self.follows(word, next) || shape::is_known(word) {
                self.note(word);
            }
            next = self.look(word);
            before = word;
        }
    }

    /// Whether a word is what the words before it have announced.
    fn follows(&self, word: &str, next: Next) -> bool {
        match next {
            Next::Word | Next::User => false,
            Next::Secret => !word.starts_with('-') && self.is_joined(word),
            Next::AfterColon | Next::Authorization => self.is_named_by_colon(word),
            Next::Authorized => is_word_value(word),
            Next::AfterScheme if self.is_command => is_word_value(word),
            Next::AfterScheme => word.len() >= 12 && shape::is_random(word),
        }
    }

    /// Finds what stands in one word together with its name, and says what the next word is.
    fn look(&mut self, word: &'a str) -> Next {
        let pair = word.split_once('=');
        if let Some((name, value)) = pair
            && ((is_named(name) && self.is_joined(value)) || shape::is_known(value))
        {
            self.note(value);
        }
        let is_name = word.starts_with("--") || self.is_structure;
        let by_option = is_name && (pair.is_none() || word.ends_with('='));
        if by_option && is_named(word.trim_end_matches([':', '='])) {
            return Next::Secret;
        }
        if self.is_command {
            self.look_at_options(word, pair);
        }
        if pair.is_none()
            && let Some((name, value)) = word.split_once(':')
            && !value.starts_with("//")
        {
            return self.look_at_colon(name, value);
        }
        if !self.is_command {
            return match word.eq_ignore_ascii_case("bearer") {
                true => Next::AfterScheme,
                false => Next::Word,
            };
        }
        if USER_OPTIONS.contains(&word) {
            return Next::User;
        }
        match ["basic", "bearer"]
            .iter()
            .any(|one| word.eq_ignore_ascii_case(one))
        {
            true => Next::AfterScheme,
            false => Next::Word,
        }
    }

    /// Finds a password that stands in one word with its option.
    fn look_at_options(&mut self, word: &'a str, pair: Option<(&str, &'a str)>) {
        let of_user = match pair {
            Some((name, value)) if USER_OPTIONS.contains(&name) => password(value),
            Some(_) => None,
            None => word.strip_prefix("-u").and_then(password),
        };
        let alone = word
            .strip_prefix("-p")
            .filter(|value| is_word_value(value) && self.takes_password);
        of_user
            .or(alone)
            .into_iter()
            .for_each(|secret| self.note(secret));
    }

    fn look_at_colon(&mut self, before: &'a str, value: &'a str) -> Next {
        if shape::is_known(value) {
            self.note(value);
        }
        if !is_named(before) {
            return Next::Word;
        }
        if !value.is_empty() {
            if self.is_named_by_colon(value) {
                self.note(value);
            }
            return Next::Word;
        }
        match name(before) {
            Some("authorization") => Next::Authorization,
            _ => Next::AfterColon,
        }
    }

    fn is_joined(&self, value: &str) -> bool {
        match self.kind {
            Kind::Setting | Kind::Handed => is_word_value(value),
            Kind::Printed => shape::is_random(value),
        }
    }

    /// Whether a value behind a name and a colon is a secret: in a sentence only one that nobody would write as a word.
    fn is_named_by_colon(&self, value: &str) -> bool {
        match self.is_command {
            true => is_word_value(value),
            false => shape::is_random(value),
        }
    }

    /// Takes a part of the text down by where it stands.
    fn note(&mut self, part: &str) {
        let from = part.as_ptr().addr() - self.text.as_ptr().addr();
        self.found.push(from..from + part.len());
    }
}

/// Whether a text calls a program: it begins with one, or has an option.
fn is_command(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else {
        return false;
    };
    let program = first.rsplit('/').next().unwrap_or(first);
    let is_option = |word: &str| {
        let letters = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        letters.is_some_and(|letters| letters.starts_with(|char: char| char.is_ascii_alphabetic()))
    };
    let ends = [".sh", ".py"];
    first.contains('/') && !first.contains("://")
        || ends.iter().any(|end| program.ends_with(end))
        || PROGRAMS.contains(&program)
        || is_option(first)
        || words.any(is_option)
}

/// The password of a word that is a user and one. Two numbers are those of a user and a group.
fn password(word: &str) -> Option<&str> {
    let (user, password) = word.split_once(':')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_one = is_word_value(password) && !(is_number(user) && is_number(password));
    is_one.then_some(password)
}

fn is_word_value(word: &str) -> bool {
    word.len() >= VALUE_BYTES_MIN && is_value(word)
}

/// Whether a word before a value says that it is a secret. Addresses that are signed have names of their own.
fn is_named(word: &str) -> bool {
    let signs = |name: &str| name == "sig" || name.ends_with("signature");
    name(word).is_some() || signs(&word.to_ascii_lowercase())
}
