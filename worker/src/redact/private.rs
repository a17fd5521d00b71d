//! Takes what a person has written into a job's files out of what its trainer prints: prompts, captions, paths and names.
//!
//! SimpleTuner prints its settings and those of the data loader at its usual level, and lines are kept for longer than the
//! files are. Words of settings stay, and a data set's name is a number: nobody could tell otherwise what a line is about.

use std::collections::{BTreeSet, HashMap};

use super::bucket::Bucket;
use super::path;
use super::spelling::quoted;

/// What stands in a text's place.
const MARK: &str = "[private]";

/// Shorter texts are common words. The others are found by so many bytes of their beginning.
const HEAD_BYTES: usize = 6;

/// A prompt that is printed cut is known by so many bytes of its beginning.
const CUT_BYTES: usize = 16;

/// No path is longer: of one that is, this much is looked for.
const PATH_BYTES: usize = 4096;

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
    by_head: HashMap<[u8; HEAD_BYTES], Alike>,
}

/// Those that begin alike.
#[derive(Clone, Default)]
struct Alike {
    /// What is printed cut as well.
    words: Bucket,
    /// Paths, words that have a meaning of their own and names of data sets, which are printed whole.
    names: Bucket,
}

/// A form of a text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known {
    pub(super) text: String,
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
                    let text = &text[..text.floor_char_boundary(PATH_BYTES)];
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
                is_word: !is_path && is_word(&text),
                text,
                is_path,
                data_set,
            }));
        }
        let mut private = Self::default();
        for known in all {
            if let Some(head) = head(known.text.as_bytes()) {
                let alike = private.by_head.entry(head).or_default();
                match known.is_path || known.is_word || known.data_set.is_some() {
                    true => alike.names.push(known),
                    false => alike.words.push(known),
                }
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
        let Some(alike) = head(rest.as_bytes()).and_then(|head| self.by_head.get(&head)) else {
            return (0, None);
        };
        let whole = alike.words.whole(rest).chain(alike.names.whole(rest));
        let whole = whole.map(|known| (known.found(before, rest), known.data_set));
        let cut = alike.words.alike(rest);
        let cut = if cut >= CUT_BYTES { cut } else { 0 };
        whole.max().unwrap_or_default().max((cut, None))
    }
}

impl Known {
    /// How many bytes of `rest`, which begins with it, are taken out.
    fn found(&self, before: &str, rest: &str) -> usize {
        let behind = &rest[self.text.len()..];
        if self.is_word && (before.ends_with(is_letter) || behind.starts_with(is_letter)) {
            return 0;
        }
        let more = match self.is_path {
            true => path::rest(before, &self.text, behind),
            false => 0,
        };
        self.text.len() + more
    }
}

/// True for what may be an ordinary word. One that is longer is none.
fn is_word(text: &str) -> bool {
    text.len() < CUT_BYTES && text.bytes().all(|letter| letter.is_ascii_lowercase())
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
    fn many_texts_that_begin_alike_are_told_apart() {
        let numbers = (0..20_000).map(|number| format!("a photo of sks person, number {number}"));
        let nested = (6..200).map(|letters| "a".repeat(letters) + "b");
        let paths = ["/data/sks", "/data/sks/a", "/data/sks/a b"].map(str::to_owned);
        let words = numbers.chain(nested).map(Text::Words);
        let private = Private::new(words.chain(paths.map(Text::Path)));
        for (line, clean) in [
            ("a photo of sks person, number 12345!", "[private]!"),
            ("a photo of sks person, number 12 x", "[private] x"),
            ("a photo of sks pers...", "[private]..."),
            ("a photo of", "a photo of"),
            (".aaaaaaab", ".[private]"),
            ("/data/sks/a b/c d.png: no", "[private]: no"),
            ("'/data/sks/a', 'x'", "'[private]', 'x'"),
        ] {
            assert_eq!(private.clean(line), clean);
        }
        // Looking at each text at each place took minutes for such lines.
        let long = "a photo of sks p ".repeat(2_000);
        assert!(private.clean(&long).len() < long.len());
        let letters = "a".repeat(32_768);
        assert!(private.clean(&letters).len() < letters.len());
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
