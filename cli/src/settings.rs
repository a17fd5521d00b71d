//! Settings and where each one came from: flag, then environment, then file, then default.

use std::fmt;
use std::path::{Path, PathBuf};

use stepcast_worker::servers::PlainText;

use crate::failure::{Exit, Failure};

/// The largest settings file that is read: they are a few lines long.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line.
    Flag,
    /// An environment variable, by name.
    Environment(String),
    /// A file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One setting as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its name in files and in answers; the flag is the same with dashes.
    pub(crate) name: &'static str,
    /// Its value; `None` where there is neither a value nor a default.
    pub(crate) value: Option<String>,
    /// Where the value came from.
    pub(crate) origin: Origin,
}

/// A setting as it may be given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Its name.
    pub(crate) name: &'static str,
    /// The environment variable.
    pub(crate) variable: &'static str,
    /// The default, if there is one.
    pub(crate) default: Option<&'static str>,
    /// What it means; goes into docs/config.md.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the test that writes docs/config.md reads it")
    )]
    pub(crate) doc: &'static str,
}

/// What a person's commands can be told.
pub(crate) const CLIENT: &[Known] = &[
    Known {
        name: "server",
        variable: "STEPCAST_SERVER",
        default: Some("http://127.0.0.1:7070"),
        doc: "The servers to talk to, as `https://HOST:PORT`, or `http://HOST:PORT` on this host, separated by commas. One is enough \
              while it runs: it says where the leader is. With several the others are asked when it is away.",
    },
    Known {
        name: "access_token_file",
        variable: "STEPCAST_ACCESS_TOKEN_FILE",
        default: None,
        doc: "File with the token that the server asks for. The token itself is never a flag.",
    },
    Known {
        name: "ca_file",
        variable: "STEPCAST_CA_FILE",
        default: None,
        doc: "Certificate authority to trust besides the system's, as a PEM file.",
    },
    Known {
        name: "allow_plain_text",
        variable: "STEPCAST_ALLOW_PLAIN_TEXT",
        default: Some("false"),
        doc: "`true` calls servers beyond this host without TLS where their addresses begin with `http://`; only where something \
              else encrypts.",
    },
];

/// What `allow_plain_text` says.
pub(crate) fn plain_text(value: Option<&str>) -> Result<PlainText, Failure> {
    match value.unwrap_or_default() {
        "true" | "1" => Ok(PlainText::Anywhere),
        "false" | "0" | "" => Ok(PlainText::ThisHost),
        other => Err(
            Failure::usage(format!("allow_plain_text `{other}` cannot be used"))
                .detail("write true or false"),
        ),
    }
}

/// A TOML file of settings.
#[derive(Debug, Default)]
pub(crate) struct SettingsFile {
    path: PathBuf,
    values: toml::Table,
}

impl SettingsFile {
    /// Reads a file; one that is not there is empty. A key that nobody knows is refused with the nearest known one.
    pub(crate) fn read(path: &Path, known: &[Known]) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::refused(format!("{} cannot be used", path.display())).detail(why)
        };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(wrong(error.to_string())),
            Ok(meta) if meta.len() > FILE_BYTES_MAX => {
                return Err(wrong("it is larger than any settings file".to_owned()));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let values: toml::Table = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                text[..span.start.min(text.len())].lines().count().max(1)
            });
            wrong(format!("line {line}: {}", error.message()))
        })?;
        for (key, value) in &values {
            if !known.iter().any(|known| known.name == key) {
                let failure = wrong(format!("there is no setting `{key}`"));
                return Err(match nearest(key, known) {
                    Some(name) => failure.hint(format!("did you mean `{name}`?")),
                    None => {
                        let names: Vec<&str> = known.iter().map(|known| known.name).collect();
                        failure.hint(format!("there are {}", names.join(", ")))
                    }
                });
            }
            if !matches!(
                value,
                toml::Value::String(_) | toml::Value::Boolean(_) | toml::Value::Integer(_)
            ) {
                return Err(wrong(format!("`{key}` must be one value")));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            values,
        })
    }

    fn value(&self, name: &str) -> Option<String> {
        self.values.get(name).map(|value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        })
    }
}

/// The value of one setting: the flag, or else the environment, or else the file, or else the default.
pub(crate) fn resolve(known: &Known, flag: Option<String>, file: &SettingsFile) -> Setting {
    let environment = || {
        std::env::var(known.variable)
            .ok()
            .filter(|value| !value.is_empty())
    };
    let (value, origin) = if let Some(value) = flag {
        (Some(value), Origin::Flag)
    } else if let Some(value) = environment() {
        (Some(value), Origin::Environment(known.variable.to_owned()))
    } else if let Some(value) = file.value(known.name) {
        (Some(value), Origin::File(file.path.clone()))
    } else {
        (known.default.map(str::to_owned), Origin::Default)
    };
    Setting {
        name: known.name,
        value,
        origin,
    }
}

/// Where a person's settings lie: `$XDG_CONFIG_HOME/stepcast/config.toml`.
pub(crate) fn client_file() -> Option<PathBuf> {
    let folder = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base =
        folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")))?;
    Some(base.join("stepcast").join("config.toml"))
}

/// Reads a file that holds one secret.
pub(crate) fn secret(path: &Path) -> Result<String, Failure> {
    let wrong = |why: String| {
        Failure::new(Exit::Refused, format!("{} cannot be read", path.display())).detail(why)
    };
    let meta = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if meta.len() > FILE_BYTES_MAX {
        return Err(wrong("it is too large to be a token".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.chars().all(|letter| letter.is_ascii_graphic()) {
        return Err(wrong("it must hold one token and nothing else".to_owned()));
    }
    Ok(token.to_owned())
}

/// The known name that is fewest letters away, if it is near at all.
fn nearest<'known>(key: &str, known: &'known [Known]) -> Option<&'known str> {
    let distances = known
        .iter()
        .map(|known| (distance(key, known.name), known.name));
    distances
        .min()
        .filter(|(distance, _)| *distance <= 1 + key.len() / 3)
        .map(|(_, name)| name)
}

/// Letters to change, add or take away.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in right.iter().enumerate() {
            let change = corner + usize::from(letter != *other);
            corner = row[column + 1];
            row[column + 1] = change.min(corner + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).expect("write");
        (dir, path)
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let (_dir, path) = file("server = \"http://a:1\"\n");
        let read = SettingsFile::read(&path, CLIENT).expect("read");
        let known = Known {
            variable: "STEPCAST_TEST_NO_SUCH_VARIABLE",
            ..CLIENT[0]
        };
        let flag = resolve(&known, Some("http://b:2".to_owned()), &read);
        assert_eq!(
            (flag.value.as_deref(), flag.origin),
            (Some("http://b:2"), Origin::Flag)
        );
        let from_file = resolve(&known, None, &read);
        assert_eq!(
            (from_file.value.as_deref(), from_file.origin),
            (Some("http://a:1"), Origin::File(path))
        );
        let nothing = resolve(&known, None, &SettingsFile::default());
        assert_eq!(
            (nothing.value.as_deref(), nothing.origin),
            (Some("http://127.0.0.1:7070"), Origin::Default)
        );
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known() {
        let (_dir, path) = file("servr = \"http://a:1\"\n");
        let failure = SettingsFile::read(&path, CLIENT).expect_err("refused");
        assert_eq!(failure.details, ["there is no setting `servr`"]);
        assert_eq!(failure.hint.as_deref(), Some("did you mean `server`?"));
        let (_dir, path) = file("nonsense = 1\n");
        let failure = SettingsFile::read(&path, CLIENT).expect_err("refused");
        assert_eq!(
            failure.hint.as_deref(),
            Some("there are server, access_token_file, ca_file, allow_plain_text")
        );
    }

    #[test]
    fn a_broken_file_names_its_line() {
        let (_dir, path) = file("\nserver = \n");
        let failure = SettingsFile::read(&path, CLIENT).expect_err("refused");
        assert!(failure.details[0].starts_with("line 2: "), "{failure:?}");
    }

    #[test]
    fn a_secret_is_one_word() {
        let (_dir, path) = file("  abc\n");
        assert_eq!(secret(&path).expect("token"), "abc");
        std::fs::write(&path, "a b").expect("write");
        assert!(secret(&path).is_err());
    }
}
