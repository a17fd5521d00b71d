//! A word that is in nothing else, and the search for it in every spelling.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::process::Child;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// The word.
#[derive(Clone)]
pub(super) struct Canary(String);

impl Canary {
    /// Another one each time.
    pub(super) fn new() -> Self {
        let number = RandomState::new().build_hasher().finish();
        Self(format!("cnry{number:016x}"))
    }

    pub(super) fn word(&self) -> &str {
        &self.0
    }

    /// The word in a text that says where it stood, with letters round it that are written otherwise in an address.
    pub(super) fn with(&self, what: &str) -> String {
        format!("{}+/{what}", self.0)
    }
}

/// What was searched, and where the word was found.
pub(super) struct Searched {
    /// Each spelling of each word.
    spellings: Vec<Vec<u8>>,
    looked_at: usize,
    bytes: u64,
    found: Vec<String>,
}

impl Searched {
    pub(super) fn new(canary: Canary) -> Self {
        let mut searched = Self {
            spellings: Vec::new(),
            looked_at: 0,
            bytes: 0,
            found: Vec::new(),
        };
        searched.look_for(&canary.0);
        searched
    }

    /// Looks for another word as well.
    pub(super) fn look_for(&mut self, word: &str) {
        let bytes = word.as_bytes();
        let hex = bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let percent = bytes
            .iter()
            .map(|byte| format!("%{byte:02X}"))
            .collect::<String>();
        let wide = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.spellings.extend([
            bytes.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            percent.to_lowercase().into_bytes(),
            percent.into_bytes(),
            wide,
        ]);
        // In base64 it depends on what stands before; what all endings have in common is looked for.
        for lead in 0..3 {
            let padded = [&vec![b'x'; lead][..], bytes].concat();
            for text in [STANDARD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
                let from = (lead * 8_usize).div_ceil(6);
                let until = padded.len() * 8 / 6;
                self.spellings.push(text.as_bytes()[from..until].to_vec());
            }
        }
    }

    /// Every file below a folder, and its name.
    pub(super) fn folder(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            self.text("a name", &path.display().to_string());
            if path.is_dir() {
                self.folder(&path);
            } else {
                let bytes = fs::read(&path).unwrap();
                self.bytes(&path.display().to_string(), &bytes);
            }
        }
    }

    pub(super) fn text(&mut self, place: &str, text: &str) {
        self.bytes(place, text.as_bytes());
    }

    pub(super) fn bytes(&mut self, place: &str, bytes: &[u8]) {
        self.looked_at += 1;
        self.bytes += bytes.len() as u64;
        for spelling in &self.spellings {
            if let Some(at) = position(bytes, spelling) {
                let from = at.saturating_sub(80);
                let near = String::from_utf8_lossy(&bytes[from..(at + 60).min(bytes.len())]);
                self.found.push(format!("{place}: …{near}…"));
            }
        }
    }

    /// Whether the word is somewhere.
    pub(super) fn found_something(&self) -> bool {
        !self.found.is_empty()
    }

    /// Nothing was found, in enough to say so.
    #[track_caller]
    pub(super) fn conclude(self) {
        assert!(self.found.is_empty(), "{}", self.found.join("\n"));
        assert!(
            self.looked_at > 50 && self.bytes > 100_000,
            "only {} places with {} bytes were looked at",
            self.looked_at,
            self.bytes
        );
        eprintln!("{} places, {} bytes", self.looked_at, self.bytes);
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        let at = from + at;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// Asks a process to end, and waits until it has.
pub(super) fn end(process: &mut Child) {
    let id = rustix::process::Pid::from_child(process);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    process.wait().unwrap();
}
