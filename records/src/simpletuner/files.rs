//! The files of one configuration, as bytes that somebody else has read.

/// One file: the name it has in messages, and its bytes.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// What a person knows the file by. It ends in `.toml` or `.env` when it is not JSON.
    pub name: &'a str,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// A configuration with the files it names; [`references`](super::references) says which those are.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// `config.json`, `config.toml` or `config.env`.
    pub config: File<'a>,
    /// The data loader's file, `data_backend_config`.
    pub data_backend: Option<File<'a>>,
    /// The file of `lycoris_config`.
    pub lycoris: Option<File<'a>>,
    /// The file of `user_prompt_library`.
    pub prompt_library: Option<File<'a>>,
}

/// What a configuration names, each as it is written there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// The data loader's file; SimpleTuner does not start without it.
    pub data_backend: Option<String>,
    /// The LyCORIS settings, when the adapter is one.
    pub lycoris: Option<String>,
    /// The person's own validation prompts.
    pub prompt_library: Option<String>,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Toml,
    Env,
}

impl<'a> File<'a> {
    /// Bytes of one file at most. Real ones have a few kilobytes; a prompt library of thousands fits.
    pub const MAX_BYTES: usize = 1 << 20;

    /// A file with its name and bytes.
    #[must_use]
    pub const fn new(name: &'a str, bytes: &'a [u8]) -> Self {
        Self { name, bytes }
    }

    pub(super) fn format(&self) -> Format {
        let ends_in = |ending: &str| {
            let tail = self.name.len().checked_sub(ending.len());
            tail.and_then(|tail| self.name.get(tail..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(ending))
        };
        if ends_in(".toml") {
            Format::Toml
        } else if ends_in(".env") {
            Format::Env
        } else {
            Format::Json
        }
    }
}
