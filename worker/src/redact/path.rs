//! How far a printed path goes: names of files have blanks, brackets and apostrophes as well.
//!
//! What a line means is worth less than a name in it, so where it cannot be told, more is taken.

/// What a path ends before that goes on otherwise than into a folder.
const ENDS: &str = "'\"`,;()[]{}<>|";

/// What may stand round a path.
const QUOTES: [char; 3] = ['\'', '"', '`'];

/// Letters before a path that are looked at for the quote that it stands in.
const BEFORE_CHARS: usize = 64;

/// How names of files end that SimpleTuner reads and writes.
const EXTENSIONS: [&str; 40] = [
    "png",
    "jpg",
    "jpeg",
    "webp",
    "gif",
    "bmp",
    "tif",
    "tiff",
    "avif",
    "jxl",
    "heic",
    "heif",
    "svg",
    "mp4",
    "mov",
    "avi",
    "mkv",
    "webm",
    "mpg",
    "mpeg",
    "mp3",
    "wav",
    "flac",
    "ogg",
    "m4a",
    "aac",
    "txt",
    "caption",
    "json",
    "jsonl",
    "csv",
    "parquet",
    "toml",
    "yaml",
    "yml",
    "safetensors",
    "npz",
    "pt",
    "pth",
    "ckpt",
];

/// How many bytes behind a known path belong to it. `before` is what stands before it in the line.
pub(super) fn rest(before: &str, path: &str, behind: &str) -> usize {
    let is_address = path.starts_with("http://") || path.starts_with("https://");
    if is_address || !behind.starts_with('/') {
        let end = |letter: char| letter.is_whitespace() || ENDS.contains(letter);
        return behind.find(end).unwrap_or(behind.len());
    }
    let quoted = quote(before).and_then(|(quote, escaped)| closing(behind, quote, escaped));
    quoted.unwrap_or_else(|| extension(behind).unwrap_or(behind.len()))
}

/// The quote that the word at the end of this began with, and whether a backslash stands before it.
fn quote(before: &str) -> Option<(char, bool)> {
    for (at, letter) in before.char_indices().rev().take(BEFORE_CHARS) {
        if QUOTES.contains(&letter) {
            return Some((letter, before[..at].ends_with('\\')));
        }
        if letter.is_whitespace() {
            return None;
        }
    }
    None
}

/// Where the quote is closed: an apostrophe in a name is none.
fn closing(behind: &str, quote: char, escaped: bool) -> Option<usize> {
    let places = behind.match_indices(quote).map(|(at, _)| at);
    let mut places = places
        .filter(|at| behind[..*at].ends_with('\\') == escaped)
        .peekable();
    while let Some(at) = places.next() {
        let next = behind[at + quote.len_utf8()..].chars().next();
        // `James' bed.png'`: the one behind it does not open anything.
        let is_within = |next: char| {
            next.is_alphanumeric() || places.peek().is_some_and(|then| closes(behind, *then))
        };
        if !next.is_some_and(is_within) {
            return Some(at - usize::from(escaped));
        }
    }
    None
}

/// True for a quote that stands right behind a word.
fn closes(text: &str, at: usize) -> bool {
    let before = text[..at].trim_end_matches('\\').chars().next_back();
    before.is_some_and(|letter| !letter.is_whitespace() && !"([{<=,:".contains(letter))
}

/// The end of the last name of a file.
fn extension(behind: &str) -> Option<usize> {
    for (at, _) in behind.rmatch_indices('.') {
        let tail = &behind[at + 1..];
        let length = tail
            .find(|letter: char| !letter.is_alphanumeric())
            .unwrap_or(tail.len());
        let name = &tail[..length];
        if EXTENSIONS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
        {
            return Some(at + 1 + length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stays of a line in which `/data/anna smith` is known.
    fn left(line: &str) -> String {
        let known = "/data/anna smith";
        let at = line.find(known).unwrap_or_default();
        let (before, from) = line.split_at(at);
        let behind = &from[known.len()..];
        format!("{before}*{}", &behind[rest(before, known, behind)..])
    }

    #[test]
    fn names_of_files_go_to_their_ends() {
        for (line, expected) in [
            (
                "Encountered error opening image /data/anna smith/Lisa Meier naked 3.jpg: cannot identify",
                "Encountered error opening image *: cannot identify",
            ),
            (
                "Image /data/anna smith/passport (Lisa Meier).png too small",
                "Image * too small",
            ),
            (
                "Error processing file /data/anna smith/lisa's bed.PNG. Reason: x",
                "Error processing file *. Reason: x",
            ),
            (
                "Image /data/anna smith/v1.5 of Lisa Meier.png copy.png too small",
                "Image * too small",
            ),
            ("scanning /data/anna smith/Lisa Meier", "scanning *"),
            ("scanning /data/anna smith, 7 files", "scanning *, 7 files"),
        ] {
            assert_eq!(left(line), expected);
        }
    }

    #[test]
    fn a_quoted_path_goes_to_its_quote() {
        for (line, expected) in [
            (
                "{'instance_data_dir': '/data/anna smith', 'caption_strategy': 'x'}",
                "{'instance_data_dir': '*', 'caption_strategy': 'x'}",
            ),
            (
                "{'dir': '/data/anna smith/Lisa, Meier (2)', 'caption_strategy': 'x'}",
                "{'dir': '*', 'caption_strategy': 'x'}",
            ),
            (
                "cannot open '/data/anna smith/lisa's bed' at all",
                "cannot open '*' at all",
            ),
            (
                "cannot open '/data/anna smith/James' bed', no",
                "cannot open '*', no",
            ),
            (
                r#"cannot open "/data/anna smith/lisa's bed" at "x""#,
                r#"cannot open "*" at "x""#,
            ),
            (
                "open('/data/anna smith/Lisa (James') bed.x'): no",
                "open('*'): no",
            ),
            (r"['/data/anna smith/lisa\'s bed', 'x']", "['*', 'x']"),
            (
                r#""{\"dir\": \"/data/anna smith/Lisa Meier\", \"x\": 1}""#,
                r#""{\"dir\": \"*\", \"x\": 1}""#,
            ),
            (
                "['file:///data/anna smith/Lisa Meier', 'x']",
                "['file://*', 'x']",
            ),
        ] {
            assert_eq!(left(line), expected);
        }
    }
}
