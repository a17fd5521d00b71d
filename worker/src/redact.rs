//! Takes secrets, and what else of a job's files is a person's own, out of what a trainer prints, before a line is kept, sent or
//! shown.
//!
//! Known values (from the environment the trainer gets, and its webhook token) are found in plain, base64, hexadecimal
//! and percent-encoded form and as JSON, Python and a shell quote them, also with colour codes in between; unknown ones by
//! the look of well-known tokens, of e-mail addresses and of passwords in other addresses, and by the name of a secret
//! before them. Lines are joined before they get here, so a value cut by a pipe's chunk border is whole again.

mod bucket;
mod path;
mod private;
mod spelling;

use stepcast_records::secret::{self, Kind, PREFIXES};
use zeroize::Zeroize;

use self::private::Private;
pub(crate) use self::private::Text;
use self::spelling::spellings;

/// What stands in a secret's place.
const MARK: &str = "[redacted]";

/// How it begins: its end may be taken for what follows.
const MARK_BEGINS: &str = "[redacted";

/// Shorter values are words such as `true`: taking them out would only garble the log.
const MIN_SECRET_BYTES: usize = 6;

/// Parts of a name that make its value a secret, by their letters alone: words are joined in any way.
const SECRET_NAMES: [&str; 9] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "APIKEY",
    "ACCESSKEY",
    "CREDENTIAL",
    "PRIVATEKEY",
    "AUTHORIZATION",
];

/// Letters that must follow a prefix for it to be a token.
const TOKEN_TAIL: usize = 12;

/// Removes the secrets of one attempt from text.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Every spelling of every known value, longest first.
    known: Vec<String>,
    private: Private,
}

/// No value that it knows is shown.
impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

/// It knows values for as long as its attempt runs, and no longer.
impl Drop for Redactor {
    fn drop(&mut self) {
        self.known.iter_mut().for_each(Zeroize::zeroize);
    }
}

impl Redactor {
    /// Knows the secret values among these environment variables and in them, and the extra ones.
    pub fn new<'a>(
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
        extra: &[&str],
    ) -> Self {
        let mut values = extra.to_vec();
        for (name, value) in environment {
            if secret_name(name) {
                values.push(value);
            } else {
                // `HTTPS_PROXY` does not say that it holds a password.
                let held = secret::within(value, Kind::Setting).into_iter();
                values.extend(held.map(|range| &value[range]));
            }
        }
        let values = values.into_iter().map(str::trim);
        let mut known: Vec<String> = values
            .filter(|value| value.len() >= MIN_SECRET_BYTES)
            .flat_map(forms)
            .collect();
        known.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        known.dedup();
        Self {
            known,
            private: Private::default(),
        }
    }

    /// Knows these texts too.
    #[must_use]
    pub(crate) fn with_private(mut self, texts: impl IntoIterator<Item = Text>) -> Self {
        self.private = Private::new(texts);
        self
    }

    /// The line without colour codes, secrets and private texts.
    pub fn clean(&self, line: &str) -> String {
        let mut line = without_escapes(line);
        for value in &self.known {
            if line.contains(value.as_str()) {
                line = line.replace(value.as_str(), MARK);
            }
        }
        mask_words(&without_named(&self.private.clean(&line)))
    }
}

/// The line without passwords in addresses, and without what stands behind the name of a secret and looks like one.
fn without_named(line: &str) -> String {
    let mut found = secret::within(line, Kind::Printed);
    found.sort_by_key(|range| range.start);
    let mut clean = String::with_capacity(line.len());
    let mut from = 0;
    for range in found {
        if range.start >= from && !line[range.clone()].starts_with(MARK_BEGINS) {
            clean.push_str(&line[from..range.start]);
            clean.push_str(MARK);
            from = range.end;
        }
    }
    clean.push_str(&line[from..]);
    clean
}

/// True when a variable, a setting or a header of this name holds a secret.
pub fn secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    SECRET_NAMES.iter().any(|part| letters.contains(part))
        || name.ends_with("_KEY")
        || name.ends_with("-KEY")
}

/// What of a value is looked for. One of several lines is printed line by line, or with its line ends written out; what
/// stands round a PEM is the same for all and says nothing.
fn forms(value: &str) -> Vec<String> {
    let mut forms = spellings(value);
    // What is printed may be one secret of a command or a signed address.
    let told = secret::within(value, Kind::Handed).into_iter();
    let told = told.map(|range| value[range].trim());
    forms.extend(
        told.filter(|word| word.len() >= MIN_SECRET_BYTES)
            .flat_map(spellings),
    );
    if value.contains('\n') {
        forms.push(value.replace('\r', "\\r").replace('\n', "\\n"));
        let lines = value.lines().map(str::trim);
        let telling =
            lines.filter(|line| line.len() >= MIN_SECRET_BYTES && !line.starts_with("-----"));
        forms.extend(telling.map(str::to_owned));
    }
    forms
}

/// Drops terminal escape sequences and other control characters but tabs.
fn without_escapes(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => match chars.peek() {
                Some('[') => {
                    chars.next();
                    while chars
                        .next()
                        .is_some_and(|next| !('@'..='~').contains(&next))
                    {}
                }
                Some(']') => {
                    while chars
                        .next()
                        .is_some_and(|next| next != '\u{7}' && next != '\u{1b}')
                    {
                    }
                }
                _ => drop(chars.next()),
            },
            '\t' => clean.push(char),
            _ if char.is_control() => {}
            _ => clean.push(char),
        }
    }
    clean
}

/// Masks words that look like tokens or e-mail addresses.
fn mask_words(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(token_letter) {
        let (before, from) = rest.split_at(start);
        masked.push_str(before);
        let end = from.find(|char| !token_letter(char)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        masked.push_str(&mask_word(word));
        rest = after;
    }
    masked.push_str(rest);
    masked
}

fn token_letter(char: char) -> bool {
    char.is_ascii_alphanumeric() || "_-.@+".contains(char)
}

fn mask_word(word: &str) -> String {
    if let Some((name, host)) = word.split_once('@')
        && !name.is_empty()
        && host.contains('.')
        && !host.ends_with('.')
    {
        return MARK.to_owned();
    }
    for (prefix, _) in PREFIXES {
        // Where one is no token, none is that begins within it and ends with it.
        let mut none_before = 0;
        for (at, _) in word.match_indices(prefix) {
            let starts_word = word[..at]
                .chars()
                .next_back()
                .is_none_or(|before| !before.is_ascii_alphanumeric());
            if !starts_word || at + prefix.len() < none_before {
                continue;
            }
            let tail = &word[at + prefix.len()..];
            let length = tail
                .find(|char: char| !char.is_ascii_alphanumeric() && !"_-".contains(char))
                .unwrap_or(tail.len());
            let looks_random = tail[..length]
                .chars()
                .any(|char| char.is_ascii_digit() || char.is_ascii_uppercase());
            if length >= TOKEN_TAIL && looks_random {
                return format!("{}{MARK}{}", &word[..at], &tail[length..]);
            }
            none_before = at + prefix.len() + length;
        }
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::spelling::base64;
    use super::*;

    const TOKEN: &str = "hf_AbCdEfGhIjKlMnOpQrStUv012345";

    fn redactor() -> Redactor {
        Redactor::new(
            [
                ("HF_TOKEN", TOKEN),
                ("HOME", "/home/anyone"),
                ("MY_SECRET", "p@ss w0rd/!"),
            ],
            &["webhook-token-1"],
        )
    }

    #[test]
    fn a_known_value_is_found_in_every_spelling() {
        let hex: String = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect();
        let reversed: String = TOKEN.chars().rev().collect();
        let coloured = format!("{}\u{1b}[31m{}\u{1b}[0m", &TOKEN[..9], &TOKEN[9..]);
        let embedded = base64(format!("x{TOKEN}yz").as_bytes());
        for text in [
            TOKEN.to_owned(),
            hex,
            reversed,
            coloured,
            base64(TOKEN.as_bytes()),
            embedded,
        ] {
            let clean = redactor().clean(&format!("value='{text}',"));
            assert!(clean.contains(MARK), "{text} -> {clean}");
            assert!(!clean.contains(&TOKEN[6..14]), "{clean}");
        }
        assert_eq!(
            redactor().clean("url?x=p%40ss%20w0rd%2F%21&y"),
            "url?x=[redacted]&y"
        );
        assert_eq!(redactor().clean("key webhook-token-1."), "key [redacted].");
    }

    #[test]
    fn a_known_value_is_found_as_libraries_and_quotes_write_it() {
        let aws = "canary/zq8+Xw\\7Rt2";
        let odd = "canary\"q\\uo te'é";
        let redactor = Redactor::new([], &[aws, odd]);
        for text in [
            "canary/zq8%2BXw%5C7Rt2",
            "canary%2fzq8%2bXw%5c7Rt2",
            "canary/zq8+Xw\\\\7Rt2",
            "canary\\\"q\\\\uo te'é",
            "canary\\\"q\\\\uo te'\\u00e9",
            "canary\"q\\\\uo te\\'é",
            "canary\"q\\uo te'\"'\"'é",
            "canary%22q%5Cuo+te%27%C3%A9",
        ] {
            assert_eq!(redactor.clean(&format!("<{text}>")), "<[redacted]>");
        }
        let spaced = Redactor::new([], &["pass\u{a0}phrase\u{e0061}1"]);
        assert_eq!(spaced.clean(r"'pass\xa0phrase\U000e00611'"), "'[redacted]'");
    }

    #[test]
    fn a_password_in_any_address_is_taken_out() {
        let variables = [
            ("HTTPS_PROXY", "http://u:canaryproxy@proxy:3128"),
            ("DATABASE_URL", "postgres://u:canarydb@db/x"),
        ];
        let redactor = Redactor::new(variables, &[]);
        assert_eq!(redactor.clean("tried canaryproxy"), "tried [redacted]");
        assert_eq!(redactor.clean("canarydb?"), "[redacted]?");
        let nobody = Redactor::default();
        for (_, address) in variables {
            let clean = nobody.clean(&format!("env {address} is set"));
            assert!(!clean.contains("canary"), "{clean}");
            assert!(clean.contains("://u:[redacted]@"), "{clean}");
        }
        // What was taken out already stays as it is.
        let twice = nobody.clean(&nobody.clean("https://hooks.slack.com/services/T0/canary x"));
        assert_eq!(twice, "https://hooks.slack.com/[redacted] x");
    }

    #[test]
    fn what_stands_behind_the_name_of_a_secret_is_taken_out() {
        let nobody = Redactor::default();
        for (line, clean) in [
            (
                "arg post_upload_script curl -H 'Authorization: Bearer canary1X9zq8' https://x",
                "arg post_upload_script curl -H 'Authorization: Bearer [redacted]' https://x",
            ),
            ("X-Api-Key: canary1X9zq8", "X-Api-Key: [redacted]"),
            ("{'token': 'canary1X9zq8'}", "{'token': '[redacted]'}"),
            ("token xoxb-canary-1X9zq8", "token [redacted]"),
            ("as scr1_0123456789abcdef", "as [redacted]"),
            ("a secret: garden", "a secret: garden"),
        ] {
            assert_eq!(nobody.clean(line), clean);
        }
    }

    #[test]
    fn a_value_of_several_lines_is_found_line_by_line() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\r\nhkiG9w0BAQEFAASC\nBKcwgg==\n-----END PRIVATE KEY-----";
        let redactor = Redactor::new([("GCS_PRIVATE_KEY", pem)], &[]);
        let lines: Vec<String> = pem.lines().map(|line| redactor.clean(line)).collect();
        assert_eq!(lines[1..4], [MARK, MARK, MARK]);
        assert_eq!(lines[0], "-----BEGIN PRIVATE KEY-----");
        let written = pem.replace('\r', "\\r").replace('\n', "\\n");
        assert_eq!(redactor.clean(&format!("k='{written}'")), "k='[redacted]'");
    }

    #[test]
    fn a_secret_within_a_value_is_found_by_itself() {
        let handed = [
            "up.sh --token canary-1 --seed 1234567",
            "AWS_SECRET_ACCESS_KEY=canary/2+x= aws s3 cp",
            "https://h/x?page=7654321&sig=canary-3",
            "https://ana:canary-4@example.org/x",
            "curl -u ana:canary-5 -H 'X-Api-Key: canary-6' x",
        ];
        let redactor = Redactor::new([], &handed);
        for secret in [
            "canary-1",
            "canary/2+x=",
            "canary-3",
            "canary-4",
            "canary-5",
            "canary-6",
        ] {
            assert_eq!(redactor.clean(&format!("<{secret}>")), "<[redacted]>");
        }
        for plain in ["1234567", "7654321", "example.org", "up.sh aws s3"] {
            assert_eq!(redactor.clean(plain), plain);
        }
    }

    #[test]
    fn names_are_known_however_their_words_are_joined() {
        for name in [
            "X-API-Key",
            "X-SimpleTuner-Secret",
            "Authorization",
            "secretKey",
            "apiKey",
            "aws.access-key id",
            "GPG_KEY",
            "ssh-key",
            "bearer_token",
        ] {
            assert!(secret_name(name), "{name}");
        }
        for name in ["PATH", "monkey", "keyboard", "learning_rate"] {
            assert!(!secret_name(name), "{name}");
        }
    }

    #[test]
    fn unknown_tokens_and_addresses_are_known_by_their_look() {
        let nobody = Redactor::default();
        assert_eq!(
            nobody.clean("Bearer hf_ZZZZ9999YYYY8888xx ok"),
            "Bearer [redacted] ok"
        );
        assert_eq!(
            nobody.clean("hf_x.hf_ZZZZ9999YYYY8888xx"),
            "hf_x.[redacted]"
        );
        assert_eq!(
            nobody.clean("export K=sk-proj-a1b2c3d4e5f6g7h8"),
            "export K=[redacted]"
        );
        assert_eq!(
            nobody.clean("mail jane.doe@example.org now"),
            "mail [redacted] now"
        );
    }

    #[test]
    fn ordinary_lines_stay_as_they_are() {
        let nobody = redactor();
        for line in [
            "step 12/30 loss=0.41 lr=1e-4",
            "hf_hub_download failed",
            "a\ttab",
            "sk-",
            "@ 5.0",
            "task-force-one-two-three",
            &"hf_".repeat(10_000),
        ] {
            assert_eq!(nobody.clean(line), line);
        }
        assert_eq!(nobody.clean("\u{1b}[1;32mINFO\u{1b}[0m ok\u{7}"), "INFO ok");
    }

    #[test]
    fn short_values_and_harmless_names_are_no_secrets() {
        let redactor = Redactor::new([("USE_TOKEN", "true"), ("PATH", "/usr/local/bin")], &[]);
        assert_eq!(redactor.clean("true /usr/local/bin"), "true /usr/local/bin");
    }
}
