//! Every way in which a program may write a value that it knows: as it is, encoded, or within quotes.

/// What stands in an address as it is.
const PLAIN: &[u8] = b"-._~";

/// All spellings of a value that differ from one another.
pub(super) fn spellings(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let reversed: String = value.chars().rev().collect();
    let mut all = vec![value.to_owned(), hex.to_uppercase(), hex, reversed];
    all.extend(quoted(value));
    for also in ["", "/"] {
        for blank in ["%20", "+"] {
            let upper = percent(bytes, also.as_bytes(), blank, |byte| format!("%{byte:02X}"));
            let lower = percent(bytes, also.as_bytes(), blank, |byte| format!("%{byte:02x}"));
            all.extend([upper, lower]);
        }
    }
    // Base64 depends on where in a longer text the value starts; the letters common to all endings are looked for.
    for lead in 0..3 {
        let mut padded = vec![0; lead];
        padded.extend_from_slice(bytes);
        let text = base64(&padded);
        let from = (lead * 8).div_ceil(6);
        let until = padded.len() * 8 / 6;
        all.push(text[from..until].to_owned());
        all.push(text[from..until].replace('+', "-").replace('/', "_"));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// A value percent-encoded: libraries differ in whether a slash stays, in how a blank is written, and in the letters of
/// the digits.
fn percent(bytes: &[u8], also: &[u8], blank: &str, digits: fn(u8) -> String) -> String {
    let letter = |byte: &u8| match *byte {
        b' ' => blank.to_owned(),
        byte if byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) || also.contains(&byte) => {
            char::from(byte).to_string()
        }
        byte => digits(byte),
    };
    bytes.iter().map(letter).collect()
}

/// A value as JSON, Python and a shell write it between quotes.
pub(super) fn quoted(value: &str) -> Vec<String> {
    let json = serde_json::to_string(value).unwrap_or_default();
    let json = json
        .get(1..json.len().saturating_sub(1))
        .unwrap_or_default()
        .to_owned();
    let escaped = |char: char| {
        let mut units = [0; 2];
        let units = char.encode_utf16(&mut units).iter();
        units.map(|unit| format!("\\u{unit:04x}")).collect()
    };
    let ascii = |text: &str| -> String {
        let letter = |char: char| match char.is_ascii() {
            true => char.to_string(),
            false => escaped(char),
        };
        text.chars().map(letter).collect()
    };
    let lines = value
        .replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
        .replace('\t', "\\t");
    let python: String = lines.chars().map(in_python).collect();
    let shell = ["'\"'\"'", "'\\''"].map(|quote| value.replace('\'', quote));
    let mut all = vec![ascii(&json), json];
    for text in [lines, python] {
        all.extend([text.replace('\'', "\\'"), text]);
    }
    all.extend(shell);
    all
}

/// A letter as Python's `repr` writes it: what cannot be seen, such as a no-break space, by its number.
fn in_python(char: char) -> String {
    // Rust's own escapes are for the same letters; behind another one, an accent is written as it is.
    let seen = match char.is_ascii() {
        true => !char.is_ascii_control(),
        false => format!("a{char}").escape_debug().count() == 2,
    };
    match u32::from(char) {
        _ if seen => char.to_string(),
        number @ ..0x100 => format!("\\x{number:02x}"),
        number @ ..0x1_0000 => format!("\\u{number:04x}"),
        number => format!("\\U{number:08x}"),
    }
}

/// Without the padding at the end.
pub(super) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(
                LETTERS[(word >> (18 - 6 * place) & 63) as usize],
            ));
        }
    }
    text
}
