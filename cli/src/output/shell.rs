//! Commands that people can copy into a shell.

use std::ffi::OsString;

/// A word as a shell takes it: as it is where that is the same, between single quotes else.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/.:_-@%+=,".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The command that this program was called as, without one of its options.
pub(crate) fn called_without(option: &str) -> String {
    without(option, std::env::args_os())
}

fn without(option: &str, words: impl IntoIterator<Item = OsString>) -> String {
    let mut command = "stepcast".to_owned();
    let mut options = true;
    for word in words.into_iter().skip(1) {
        // Behind this everything is the name of something.
        options &= word != "--";
        if !(options && word == option) {
            command.push(' ');
            command.push_str(&quoted(&word.to_string_lossy()));
        }
    }
    command
}

/// The same with these options and their values, in place of those that were given of them.
pub(crate) fn called_with(options: &[(&str, String)]) -> String {
    with(options, std::env::args_os())
}

fn with(options: &[(&str, String)], words: impl IntoIterator<Item = OsString>) -> String {
    let mut command = "stepcast".to_owned();
    let put = |command: &mut String, word: &str| {
        command.push(' ');
        command.push_str(&quoted(word));
    };
    let put_options = |command: &mut String| {
        for (option, value) in options {
            put(command, option);
            put(command, value);
        }
    };
    let mut words = words.into_iter().skip(1).peekable();
    while let Some(word) = words.next_if(|word| word != "--") {
        let word = word.to_string_lossy();
        let name = word.split_once('=').map_or(&*word, |(name, _)| name);
        if options.iter().any(|(option, _)| *option == name) {
            // Its value is in it, or comes next.
            if name == word {
                words.next();
            }
        } else {
            put(&mut command, &word);
        }
    }
    put_options(&mut command);
    for word in words {
        put(&mut command, &word.to_string_lossy());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_only_where_a_shell_would_read_it_otherwise() {
        assert_eq!(quoted("config/flux-cats"), "config/flux-cats");
        assert_eq!(quoted("http://a:7070,http://b"), "http://a:7070,http://b");
        assert_eq!(quoted("my cfg/it's"), r"'my cfg/it'\''s'");
        assert_eq!(quoted("~/cats"), "'~/cats'");
        assert_eq!(quoted("$HOME"), "'$HOME'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_command_is_told_again_with_all_of_its_other_options() {
        let told = |words: &[&str]| without("--dry-run", words.iter().map(OsString::from));
        assert_eq!(
            told(&[
                "/bin/stepcast",
                "submit",
                "my cfg",
                "--trainer",
                "replay",
                "--dry-run"
            ]),
            "stepcast submit 'my cfg' --trainer replay"
        );
        assert_eq!(
            told(&["stepcast", "submit", "--dry-run", "--", "--dry-run"]),
            "stepcast submit -- --dry-run"
        );
    }

    #[test]
    fn options_of_a_command_take_the_place_of_those_that_were_given() {
        let options = [
            ("--request-id", "00ff".to_owned()),
            ("--not-before", "2026-01-19T00:00:00Z".to_owned()),
        ];
        let told = |words: &[&str]| with(&options, words.iter().map(OsString::from));
        let end = "--request-id 00ff --not-before 2026-01-19T00:00:00Z";
        assert_eq!(
            told(&["stepcast", "submit", "--not-before", "2h", "my cfg", "-y"]),
            format!("stepcast submit 'my cfg' -y {end}")
        );
        assert_eq!(
            told(&[
                "stepcast",
                "submit",
                "--not-before=2h",
                "--",
                "--request-id"
            ]),
            format!("stepcast submit {end} -- --request-id")
        );
    }
}
