//! A command line that cannot be read, as programs read it: the same object as any other failure, on the same stream.

use std::ffi::OsStr;

use clap::error::ErrorKind;

use crate::failure::Failure;

/// Whether a command line that could not be read asks for answers in JSON. Behind `--` nothing is an option.
pub(crate) fn asks_for_json<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> bool {
    let mut options = words.into_iter().take_while(|word| word.as_ref() != "--");
    options.any(|word| word.as_ref() == "--json")
}

/// What is wrong with a command line; `None` for what is no mistake, such as a wish for help.
pub(crate) fn failure(error: &clap::Error) -> Option<Failure> {
    if !error.use_stderr() {
        return None;
    }
    let text = error.render().to_string();
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
    fn what_is_behind_two_dashes_is_no_option() {
        assert!(asks_for_json(["jobs", "--nonsense", "--json"]));
        assert!(!asks_for_json(["sql", "--", "--json"]));
        assert!(!asks_for_json(["jobs", "--jsonx"]));
    }
}
