//! Takes what a person has written into a job's files out of what its trainer prints: prompts, captions, paths and names.
//!
//! SimpleTuner prints its settings and those of the data loader at its usual level, and lines are kept for longer than the
//! files are. Words of settings stay, and a data set's name is a number: nobody could tell otherwise what a line is about.

use std::collections::{BTreeSet, HashMap};

use super::path;
use super::spelling::quoted;

/// What stands in a text's place.
const MARK: &str = "[private]";

/// Shorter texts are common words. The others are found by so many bytes of their beginning.
const HEAD_BYTES: usize = 6;

/// A prompt that is printed cut is known by so many bytes of its beginning.
const CUT_BYTES: usize = 16;

/// A text of a job's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    /// A prompt, a caption or a name.
    Words(String),
    /// A path or an address: what lies in it is called as a person has called it.
    Path(String),
    /// What a data set is called, and the how manieth it is.
    DataSet(String, usize),
}

/// The texts of one attempt.
#[derive(Clone, Default)]
pub(super) struct Private {
    by_head: HashMap<[u8; HEAD_BYTES], Vec<Known>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    text: String,
    is_path: bool,
    /// One that has a meaning of its own as well: it is taken out where it stands by itself.
    is_word: bool,
    /// For a data set, the how manieth it is.
    data_set: Option<usize>,
}

impl Private {
    pub(super) fn new(texts: impl IntoIterator<Item = Text>) -> Self {
        let mut all = BTreeSet::new();
        for text in texts {
            let (text, is_path, data_set) = match &text {
                Text::Words(text) => (text.trim(), false, None),
                // `./a/` is printed as `a`, or with what it lies in before it.
                Text::Path(text) => {
                    let text = text.trim().trim_start_matches("./");
                    (text.trim_end_matches('/'), true, None)
                }
                Text::DataSet(name, number) => (name.trim(), false, Some(*number)),
            };
            // One of several lines is printed line by line, or with its line ends written out; what a terminal would obey is
            // not in a line any more.
            let obeyed = |letter: char| letter.is_control() && letter != '\t';
            let lines = text.lines().map(|line| line.trim().replace(obeyed, ""));
            let forms = quoted(text).into_iter().chain(lines);
            all.extend(forms.map(|text| Known {
                is_word: !is_path && text.bytes().all(|letter| letter.is_ascii_lowercase()),
                text,
                is_path,
                data_set,
            }));
        }
        let mut private = Self::default();
        for known in all {
            if let Some(head) = head(known.text.as_bytes()) {
                private.by_head.entry(head).or_default().push(known);
            }
        }
        private
    }

    /// The line without them.
    pub(super) fn clean(&self, line: &str) -> String {
        if self.by_head.is_empty() {
            return line.to_owned();
        }
        let mut clean = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(letter) = rest.chars().next() {
            let before = &line[..line.len() - rest.len()];
            match self.begins(before, rest) {
                (0, _) => {
                    clean.push(letter);
                    rest = &rest[letter.len_utf8()..];
                }
                (bytes, data_set) => {
                    match data_set {
                        Some(number) => clean.push_str(&format!("[data set {number}]")),
                        None => clean.push_str(MARK),
                    }
                    rest = &rest[bytes..];
                }
            }
        }
        clean
    }

    /// How many bytes at the beginning of `rest` are of a text, 0 where none begins; and which data set's name it is.
    fn begins(&self, before: &str, rest: &str) -> (usize, Option<usize>) {
        let known = head(rest.as_bytes()).and_then(|head| self.by_head.get(&head));
        let found = known.into_iter().flatten();
        let found = found.map(|known| (known.found(before, rest), known.data_set));
        found.max().unwrap_or_default()
    }
}

impl Known {
    fn found(&self, before: &str, rest: &str) -> usize {
        if self.is_word && before.ends_with(is_letter) {
            return 0;
        }
        let Some(behind) = rest.strip_prefix(self.text.as_str()) else {
            let same = rest.chars().zip(self.text.chars());
            let same = same.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8());
            let same: usize = same.sum();
            let is_cut = !self.is_path && self.data_set.is_none() && same >= CUT_BYTES;
            return if is_cut { same } else { 0 };
        };
        if self.is_word && behind.starts_with(is_letter) {
            return 0;
        }
        let more = match self.is_path {
            true => path::rest(before, &self.text, behind),
            false => 0,
        };
        self.text.len() + more
    }
}

/// Letters that make another word of a word: `person` and `personal`. What is joined by `_` or a number may be a name still.
fn is_letter(letter: char) -> bool {
    letter.is_ascii_alphabetic()
}

fn head(text: &[u8]) -> Option<[u8; HEAD_BYTES]> {
    text.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private() -> Private {
        Private::new([
            Text::Words("my daughter anna's \"red\" hat, smiling\nin the garden".to_owned()),
            Text::Words("sks".to_owned()),
            Text::DataSet("anna-at-home".to_owned(), 2),
            Text::Path("./home/anna/photos/".to_owned()),
        ])
    }

    #[test]
    fn a_text_is_found_as_it_is_quoted_and_cut() {
        let private = private();
        for (line, clean) in [
            (
                r#"prompts=['', 'my daughter anna\'s "red" hat, smiling\nin the garden']"#,
                "prompts=['', '[private]']",
            ),
            (
                r#"{"p": "my daughter anna's \"red\" hat, smiling\nin the garden"}"#,
                r#"{"p": "[private]"}"#,
            ),
            (
                "Caption: my daughter anna's \"red...",
                "Caption: [private]...",
            ),
            ("in the garden", "[private]"),
            ("my daughter", "my daughter"),
            ("(id=anna-at-home) 7 files", "(id=[data set 2]) 7 files"),
            ("sks", "sks"),
        ] {
            assert_eq!(private.clean(line), clean);
        }
    }

    #[test]
    fn an_ordinary_word_is_taken_out_where_it_stands_by_itself() {
        let private = Private::new([
            Text::Words("person".to_owned()),
            Text::DataSet("images".to_owned(), 1),
            Text::Words("lisameier".to_owned()),
            Text::Words("Lisa-7".to_owned()),
        ]);
        for (line, clean) in [
            ("personal, persons", "personal, persons"),
            ("a person.", "a [private]."),
            ("Collected 20 images", "Collected 20 [data set 1]"),
            ("lisameier_2.png, lisameier3", "[private]_2.png, [private]3"),
            ("xLisa-7x", "x[private]x"),
        ] {
            assert_eq!(private.clean(line), clean);
        }
    }

    #[test]
    fn a_text_is_found_as_python_escapes_it() {
        let private = Private::new([
            Text::Words("my daughter\u{a0}anna smith in the garden".to_owned()),
            Text::Words("日本\u{3000}語 花子さんの写真".to_owned()),
            Text::Words("family 👨\u{200d}👩 anna's hat".to_owned()),
            Text::Path("/data/anna\u{a0}smith".to_owned()),
            Text::Words("odd\u{7} anna smith".to_owned()),
        ]);
        for (line, clean) in [
            (
                r"['my daughter\xa0anna smith in the garden']",
                "['[private]']",
            ),
            (r"['日本\u3000語 花子さんの写真']", "['[private]']"),
            (
                "['my daughter\u{a0}anna smith in the garden']",
                "['[private]']",
            ),
            (r#"["family 👨\u200d👩 anna's hat"]"#, r#"["[private]"]"#),
            (r"['family 👨\u200d👩 anna\'s hat']", "['[private]']"),
            (r"'/data/anna\xa0smith/Lisa Meier', 1", "'[private]', 1"),
            (r"'odd\x07 anna smith'", "'[private]'"),
            ("odd anna smith", "[private]"),
        ] {
            assert_eq!(private.clean(line), clean);
        }
    }

    #[test]
    fn a_path_is_taken_out_with_what_lies_in_it() {
        let private = private();
        for (line, clean) in [
            (
                "{'instance_data_dir': '/home/anna/photos', 'id': 'a'}",
                "{'instance_data_dir': '/[private]', 'id': 'a'}",
            ),
            (
                "cannot open /home/anna/photos/lake/é.png: truncated",
                "cannot open /[private]: truncated",
            ),
            ("/home/anna/elsewhere", "/home/anna/elsewhere"),
        ] {
            assert_eq!(private.clean(line), clean);
        }
        assert_eq!(
            Private::default().clean("/home/anna/photos"),
            "/home/anna/photos"
        );
    }
}
