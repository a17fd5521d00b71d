//! A command line that cannot be read, as programs read it: the same object as any other failure, on the same stream.

use std::ffi::OsStr;

use clap::error::ErrorKind;

use crate::failure::Failure;

/// Whether a command line that could not be read asks for answers in JSON. Behind `--` nothing is an option.
pub(crate) fn asks_for_json<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> bool {
    let mut options = words.into_iter().take_while(|word| word.as_ref() != "--");
    options.any(|word| word.as_ref() == "--json")
}

/// How a number is called that is more than any that a command has use for: ranges without an end go up to it.
const ENDLESS: [u64; 2] = [u32::MAX as u64, u64::MAX];

/// What clap and Rust's numbers say of a value, as people say it.
pub(crate) fn in_words(text: &str) -> String {
    text.lines()
        .map(line_in_words)
        .collect::<Vec<_>>()
        .join("\n")
}

fn line_in_words(line: &str) -> String {
    if let Some((value, range)) = line.split_once(" is not in ")
        && let Some((least, most)) = range.split_once("..=")
    {
        let endless = most.parse().is_ok_and(|most: u64| ENDLESS.contains(&most));
        return match endless {
            true => format!("{value} is less than {least}"),
            false => format!("{value} is not from {least} to {most}"),
        };
    }
    for (rusts, ours) in [
        (
            "invalid digit found in string",
            "write a whole number, such as 4",
        ),
        (
            "cannot parse integer from empty string",
            "write a whole number, such as 4",
        ),
        (
            "number too large to fit in target type",
            "the number is too large",
        ),
        (
            "number too small to fit in target type",
            "the number is too small",
        ),
        ("invalid float literal", "write a number, such as 0.5"),
    ] {
        if line.contains(rusts) {
            return line.replace(rusts, ours);
        }
    }
    line.to_owned()
}

/// What is wrong with a command line; `None` for what is no mistake, such as a wish for help.
pub(crate) fn failure(error: &clap::Error) -> Option<Failure> {
    if !error.use_stderr() {
        return None;
    }
    let text = in_words(&error.render().to_string());
    let lines = text.lines().map(str::trim);
    let mut lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.retain(|line| !line.starts_with("For more information"));
    let usage = lines.iter().find_map(|line| line.strip_prefix("Usage: "));
    let command: Vec<&str> = usage
        .unwrap_or("stepcast")
        .split(' ')
        .take_while(|word| word.starts_with(char::is_lowercase))
        .collect();
    let help = format!("see `{} --help`", command.join(" "));
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // The text is the whole help.
        return Some(Failure::usage("the command is not complete").hint(help));
    }
    let is_tip = |line: &&&str| line.starts_with("tip: ");
    let tip = lines.iter().find(is_tip).copied();
    lines.retain(|line| Some(*line) != tip);
    let mut lines = lines.into_iter();
    let primary = lines.next().unwrap_or("the command line cannot be read");
    let failure = Failure::usage(primary.strip_prefix("error: ").unwrap_or(primary));
    let failure = lines.fold(failure, Failure::detail);
    Some(failure.hint(tip.map_or(help, |tip| tip.replacen("tip: ", "", 1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use crate::options::Options;
    use clap::Parser;

    fn wrong(words: &[&str]) -> clap::Error {
        let words = std::iter::once(&"stepcast").chain(words);
        Options::try_parse_from(words).expect_err("it is wrong")
    }

    #[test]
    fn every_mistake_has_one_line_and_what_to_do() {
        for (words, primary, rest) in [
            (
                &["jobs", "--nonsense"][..],
                "unexpected argument '--nonsense' found",
                "see `stepcast jobs --help`",
            ),
            (&["estimate"], "required arguments", "<PATH>"),
            (
                &["jobs", "--limit", "many"],
                "invalid value 'many' for '--limit <LIMIT>'",
                "see `stepcast",
            ),
            (&["jobs", "--state", "runing"], "'runing'", "'running'"),
            (&["jbos"], "unrecognized subcommand 'jbos'", "'jobs'"),
            (&["job", "--json"], "requires a subcommand", "why-pending"),
            (&["job"], "is not complete", "see `stepcast job --help`"),
        ] {
            let failure = failure(&wrong(words)).expect("a mistake");
            assert_eq!(failure.exit, Exit::Usage, "{words:?}");
            assert!(failure.primary.contains(primary), "{words:?}: {failure:?}");
            assert!(failure.text().contains(rest), "{words:?}: {failure:?}");
            assert!(!failure.text().contains("tip:"), "{failure:?}");
        }
        assert_eq!(failure(&wrong(&["jobs", "--help"])), None);
        assert_eq!(failure(&wrong(&["--version"])), None);
    }

    #[test]
    fn a_number_that_is_none_is_told_in_words() {
        for (words, told) in [
            (
                &["jobs", "--limit", "many"][..],
                "write a whole number, such as 4",
            ),
            (
                &["job", "update", "j2", "--gpus", "0"],
                "'--gpus <COUNT>': 0 is less than 1",
            ),
            (
                &["job", "update", "j2", "--priority", "11"],
                "11 is not from -10 to 10",
            ),
            (
                &["submit", "cfg", "--max-cost", "-1"],
                "`-1` is no amount of dollars",
            ),
            (
                &["audit", "--after", "99999999999999999999"],
                "the number is too large",
            ),
        ] {
            let failure = failure(&wrong(words)).expect("a mistake");
            assert!(failure.text().contains(told), "{words:?}: {failure:?}");
        }
        assert_eq!(in_words("a is not in b\n\nc"), "a is not in b\n\nc");
    }

    #[test]
    fn what_is_behind_two_dashes_is_no_option() {
        assert!(asks_for_json(["jobs", "--nonsense", "--json"]));
        assert!(!asks_for_json(["sql", "--", "--json"]));
        assert!(!asks_for_json(["jobs", "--jsonx"]));
    }
}
