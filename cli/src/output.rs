//! How answers are shown: data on stdout, everything else on stderr, for people or for programs.

pub(crate) mod json;
pub(crate) mod money;
pub(crate) mod progress;
pub(crate) mod shell;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod time;

use std::io::{Error, ErrorKind, IsTerminal, Write};

use serde_json::Value;

use crate::failure::{Exit, Failure};
use style::{Mark, Signs, Tone};
use table::Table;

/// Screens are drawn for at most this many columns.
const COLUMNS: usize = 100;
/// Narrower terminals are treated as this narrow.
const COLUMNS_MIN: usize = 40;

/// Where answers go, and in which form.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// Whether programs read it.
    pub(crate) json: bool,
    /// Whether tables are drawn rather than tab-separated.
    pub(crate) drawn: bool,
    /// Whether stderr is a terminal on which lines may be replaced.
    pub(crate) live: bool,
    /// Whether a person sees on stderr what they are asked.
    pub(crate) asks: bool,
    /// Whether what is said beside the data goes to stdout too, because the telling is the answer.
    pub(crate) telling: bool,
    /// Columns to draw for.
    pub(crate) columns: usize,
    /// Which signs may be used.
    pub(crate) signs: Signs,
}

impl Output {
    /// By what the streams are; `columns` draws as on a terminal even on a pipe.
    pub(crate) fn new(json: bool, columns: Option<usize>) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let seen = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let (live, asks) = told_on_stderr(
            std::io::stderr().is_terminal(),
            std::env::var("TERM").is_ok_and(|term| term == "dumb"),
            json,
        );
        Self {
            json,
            drawn: terminal || columns.is_some(),
            telling: false,
            live,
            asks,
            columns: columns
                .or(seen)
                .unwrap_or(COLUMNS)
                .clamp(COLUMNS_MIN, columns.unwrap_or(COLUMNS).max(COLUMNS_MIN)),
            signs: Signs::detect(),
        }
    }

    /// Puts data on stdout.
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        self.told(write(anstream::stdout().lock(), text))
    }

    /// Puts an answer for a program on stdout.
    pub(crate) fn json(&self, value: &Value) -> Result<(), Failure> {
        let text = if self.drawn {
            format!("{value:#}\n")
        } else {
            format!("{value}\n")
        };
        self.told(write(std::io::stdout().lock(), &text))
    }

    /// Puts a table on stdout.
    pub(crate) fn table(&self, table: &Table) -> Result<(), Failure> {
        if self.drawn {
            self.data(&table.draw(self.columns))
        } else {
            self.data(&table.tabs())
        }
    }

    /// Says something beside the data, on stderr; programs are spared it.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        let line = format!("{}\n", text.as_ref());
        // What cannot be said is not worth failing for, nor ending early.
        let _ = match (self.telling, self.json) {
            (true, _) => write(anstream::stdout().lock(), &line),
            (false, false) => write(anstream::stderr().lock(), &line),
            (false, true) => Ok(()),
        };
    }

    /// Says a line behind a sign.
    pub(crate) fn marked(&self, mark: Mark, tone: Tone, text: impl AsRef<str>) {
        self.say(format!(
            "{} {}",
            tone.paint(self.signs.mark(mark)),
            text.as_ref()
        ));
    }

    /// The last line: what to do next.
    pub(crate) fn next(&self, text: impl AsRef<str>) {
        self.say(format!("{} {}", Tone::Dim.paint("Next:"), text.as_ref()));
    }

    /// Tells of a failure.
    pub(crate) fn failure(&self, failure: &Failure) {
        let text = if self.json {
            format!("{}\n", failure.json())
        } else {
            let text = failure.text();
            let rest = text.strip_prefix("error:").unwrap_or(&text);
            format!("{}{rest}", Tone::Bad.paint("error:"))
        };
        // How the program ends says it too.
        let _ = write(anstream::stderr().lock(), &text);
    }

    /// What came of putting data on stdout.
    fn told(&self, written: std::io::Result<()>) -> Result<(), Failure> {
        let gone = |error: &Error| error.kind() == ErrorKind::BrokenPipe;
        match written {
            Ok(()) => Ok(()),
            // What is told goes on to its end, to leave nothing behind.
            Err(error) if gone(&error) && self.telling => Ok(()),
            // Whoever reads has read enough, as in `stepcast jobs | head -1`.
            Err(error) if gone(&error) => std::process::exit(0),
            Err(error) => Err(Failure::new(
                Exit::Refused,
                format!("the answer cannot be written: {error}"),
            )),
        }
    }
}

/// Whether lines may be replaced on stderr, and whether a person sees there what they are asked: a terminal that is dumb has
/// somebody before it all the same.
fn told_on_stderr(terminal: bool, dumb: bool, json: bool) -> (bool, bool) {
    (terminal && !dumb && !json, terminal && !json)
}

fn write(mut stream: impl Write, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sits_at_a_dumb_terminal_is_asked() {
        assert_eq!(told_on_stderr(true, false, false), (true, true));
        assert_eq!(told_on_stderr(true, true, false), (false, true));
        assert_eq!(told_on_stderr(true, false, true), (false, false));
        assert_eq!(told_on_stderr(false, false, false), (false, false));
    }
}
