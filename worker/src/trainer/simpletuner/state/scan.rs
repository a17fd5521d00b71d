//! Reads a text of JSON for the few members that matter and keeps nothing else of it, however large it is.

use std::io::{self, Read};

/// Brackets in each other at most, as serde_json takes them.
const DEPTH_MAX: usize = 127;

/// Bytes at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Longest name, and longest number, that is looked at.
const WORD_BYTES: usize = 32;

/// What an object says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Whether it has a step.
    pub(super) has_step: bool,
    /// The number of its epoch, as it stands there.
    pub(super) epoch: Option<String>,
    /// Whether it has no members.
    pub(super) is_empty: bool,
    /// Where its last bracket is, in bytes.
    pub(super) end: u64,
}

/// Reads a text to its end. Nothing where it is no object, as far as that is looked at: names, numbers and texts may hold what
/// they like.
///
/// # Errors
/// When it cannot be read.
pub(super) fn scan(mut text: impl Read) -> io::Result<Option<Scanned>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut scan = Scan::default();
    loop {
        let read = match text.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return Ok(scan.scanned());
        }
        for byte in chunk.iter().take(read) {
            if scan.byte(*byte).is_none() {
                return Ok(None);
            }
        }
    }
}

/// What may come next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    /// The object itself.
    #[default]
    Object,
    /// The name of a member, or the end of an object that has none.
    FirstName,
    /// The name of a member.
    Name,
    /// What stands between a name and its value.
    Colon,
    /// A value, or the end of a list that has none.
    FirstValue,
    /// A value.
    Value,
    /// The next one, or the end.
    Behind,
    /// More of a text, which may be a name.
    Text { is_name: bool, is_escaped: bool },
    /// More of a number, or of `true`, `false` or `null`.
    Word,
    /// Nothing more.
    End,
}

#[derive(Debug, Default)]
struct Scan {
    next: Next,
    /// Whether what is open is an object or a list, the outermost first.
    open: Vec<bool>,
    /// The beginning of the last name of the object's own.
    name: Vec<u8>,
    /// The beginning of its value, if that is a word.
    word: Vec<u8>,
    at: u64,
    end: u64,
    members: bool,
    has_step: bool,
    epoch: Option<String>,
}

impl Scan {
    fn scanned(self) -> Option<Scanned> {
        (self.next == Next::End).then_some(Scanned {
            has_step: self.has_step,
            epoch: self.epoch,
            is_empty: !self.members,
            end: self.end,
        })
    }

    /// Takes one more; nothing where it may not come there.
    fn byte(&mut self, byte: u8) -> Option<()> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.next {
            Next::Text {
                is_name,
                is_escaped,
            } => self.text(byte, is_name, is_escaped),
            Next::Word if byte.is_ascii_alphanumeric() || b"+-.".contains(&byte) => {
                keep(&mut self.word, byte);
            }
            Next::Word => {
                self.word_ends();
                return self.byte(byte);
            }
            _ if is_space => {}
            Next::Object if byte == b'{' => self.opens(true)?,
            Next::FirstName if byte == b'}' => self.closes(true)?,
            Next::FirstName | Next::Name if byte == b'"' => self.begins_text(true),
            Next::Colon if byte == b':' => self.next = Next::Value,
            Next::FirstValue if byte == b']' => self.closes(false)?,
            Next::FirstValue | Next::Value => self.value(byte)?,
            Next::Behind if byte == b',' => {
                let is_object = *self.open.last()?;
                self.next = if is_object { Next::Name } else { Next::Value };
            }
            Next::Behind if byte == b'}' => self.closes(true)?,
            Next::Behind if byte == b']' => self.closes(false)?,
            _ => return None,
        }
        self.at += 1;
        Some(())
    }

    fn text(&mut self, byte: u8, is_name: bool, is_escaped: bool) {
        self.next = match byte {
            b'"' if !is_escaped && is_name => self.name_ends(),
            b'"' if !is_escaped => Next::Behind,
            _ => {
                if is_name && self.open.len() == 1 {
                    keep(&mut self.name, byte);
                }
                let is_escaped = byte == b'\\' && !is_escaped;
                Next::Text {
                    is_name,
                    is_escaped,
                }
            }
        };
    }

    fn begins_text(&mut self, is_name: bool) {
        if is_name && self.open.len() == 1 {
            self.name.clear();
            self.members = true;
        }
        self.next = Next::Text {
            is_name,
            is_escaped: false,
        };
    }

    fn name_ends(&mut self) -> Next {
        self.has_step |= self.open.len() == 1 && self.name == b"global_step";
        Next::Colon
    }

    fn value(&mut self, byte: u8) -> Option<()> {
        match byte {
            b'{' => self.opens(true)?,
            b'[' => self.opens(false)?,
            b'"' => self.begins_text(false),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.word.clear();
                keep(&mut self.word, byte);
                self.next = Next::Word;
            }
            _ => return None,
        }
        Some(())
    }

    fn word_ends(&mut self) {
        if self.open.len() == 1 && self.name == b"current_epoch" {
            let word = String::from_utf8_lossy(&self.word).into_owned();
            let is_number = word.parse::<serde_json::Number>().is_ok();
            self.epoch = is_number.then_some(word);
        }
        self.next = Next::Behind;
    }

    fn opens(&mut self, is_object: bool) -> Option<()> {
        if self.open.len() == DEPTH_MAX {
            return None;
        }
        self.open.push(is_object);
        self.next = match is_object {
            true => Next::FirstName,
            false => Next::FirstValue,
        };
        Some(())
    }

    fn closes(&mut self, is_object: bool) -> Option<()> {
        if self.open.pop()? != is_object {
            return None;
        }
        self.next = Next::Behind;
        if self.open.is_empty() {
            (self.next, self.end) = (Next::End, self.at);
        }
        Some(())
    }
}

/// One byte more than is looked at says that there are more.
fn keep(beginning: &mut Vec<u8>, byte: u8) {
    if beginning.len() <= WORD_BYTES {
        beginning.push(byte);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    fn scanned(text: &str) -> Option<Scanned> {
        scan(text.as_bytes()).unwrap()
    }

    #[test]
    fn it_says_what_a_reader_of_the_whole_says() {
        let deep = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"a": {open}{close}}}"#)
        };
        let texts = [
            "{}",
            " { } \n",
            r#"{"global_step": 19, "epoch": 1}"#,
            r#"{"a": {"global_step": 1}, "b": ["global_step", {"global_step": []}]}"#,
            r#"{"a\\": "\\\"}", "current_epoch": 3, "seen": {"/data/\"1\".png": -1.5e+3}}"#,
            r#"{"current_epoch":"3"}"#,
            r#"{"current_epoch":null,"x":[true,false,null,[],{}]}"#,
            r#"{"current_epoch": 2.5}"#,
            "[]",
            "{",
            "",
            "1",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[1}}"#,
            r#"{"a":1}]"#,
            r#"{"a":1} {}"#,
            r#"{,"a":1}"#,
            r#"{"a":1"#,
            r#"{"a":"1}"#,
            &deep(126),
            &deep(127),
        ];
        for text in texts {
            let whole = serde_json::from_str::<Map<String, Value>>(text).ok();
            let number = |value: &Value| value.is_number().then(|| value.to_string());
            let expected = whole.map(|state| Scanned {
                has_step: state.contains_key("global_step"),
                epoch: state.get("current_epoch").and_then(number),
                is_empty: state.is_empty(),
                end: u64::try_from(text.rfind('}').unwrap()).unwrap(),
            });
            assert_eq!(scanned(text), expected, "{text}");
        }
    }

    #[test]
    fn nothing_is_kept_of_what_is_long() {
        let mut scan = Scan::default();
        let long = "x".repeat(1 << 20);
        let numbers = "1".repeat(1 << 20);
        for byte in format!(r#"{{"{long}": {numbers}, "b": "{long}", "c": ["#).bytes() {
            scan.byte(byte).unwrap();
        }
        assert!(scan.name.capacity() + scan.word.capacity() <= 4 * WORD_BYTES);
        let deeper = (0..1 << 20).find(|_| scan.byte(b'[').is_none());
        assert!(deeper.is_some() && scan.open.len() <= DEPTH_MAX);
    }
}
