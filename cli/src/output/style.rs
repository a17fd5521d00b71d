//! Tones and marks: colour only by meaning, and plain signs where the terminal has no others.

use clap::builder::styling::{AnsiColor, Style};

/// What a piece of text means; the only reason for a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// Good news.
    Good,
    /// Worth a look.
    Warn,
    /// Bad news.
    Bad,
    /// Less important than the rest.
    Dim,
    /// What the eye should find first.
    Strong,
}

impl Tone {
    /// The text in this tone. The stream takes the codes out again where nobody can see them.
    pub(crate) fn paint(self, text: &str) -> String {
        let style = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
            Self::Warn => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
            Self::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())),
            Self::Dim => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        };
        if text.is_empty() {
            String::new()
        } else {
            format!("{style}{text}{style:#}")
        }
    }
}

/// A sign before a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Done.
    Done,
    /// Chosen, or going on.
    Here,
    /// To come, or by the way.
    Dot,
    /// Worth a look.
    Look,
    /// Failed.
    Failed,
}

/// Which signs the terminal can draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signs {
    /// Whether it draws more than ASCII.
    pub(crate) unicode: bool,
}

/// Heights of a strip of small bars, lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same in ASCII.
const BARS_ASCII: [char; 8] = ['_', '.', '-', '-', '=', '=', '#', '#'];

impl Signs {
    /// By the locale and the terminal's kind.
    pub(crate) fn detect() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .map(variable)
            .find(|value| !value.is_empty());
        let locale = locale.unwrap_or_default().to_ascii_uppercase();
        let utf8 = locale.contains("UTF-8")
            || locale.contains("UTF8")
            || cfg!(windows)
            || cfg!(target_os = "macos");
        Self {
            unicode: utf8 && variable("TERM") != "dumb",
        }
    }

    /// The sign.
    pub(crate) fn mark(self, mark: Mark) -> &'static str {
        match (mark, self.unicode) {
            (Mark::Done, true) => "✔",
            (Mark::Done, false) => "+",
            (Mark::Here, true) => "▸",
            (Mark::Here, false) => ">",
            (Mark::Dot, true) => "·",
            (Mark::Dot, false) => "-",
            (Mark::Look, _) => "!",
            (Mark::Failed, true) => "✘",
            (Mark::Failed, false) => "x",
        }
    }

    /// A strip of small bars, the highest value full.
    pub(crate) fn strip(self, values: &[f64]) -> String {
        let bars = if self.unicode { BARS } else { BARS_ASCII };
        let top = values.iter().copied().fold(0.0, f64::max);
        let height = |value: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 7 by construction"
            )]
            let index = if top > 0.0 {
                (value / top * 7.0).round().clamp(0.0, 7.0) as usize
            } else {
                0
            };
            bars[index]
        };
        values.iter().copied().map(height).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_is_as_long_as_its_values_and_its_peak_is_full() {
        let signs = Signs { unicode: true };
        assert_eq!(signs.strip(&[0.0, 1.0, 2.0]), "▁▅█");
        assert_eq!(signs.strip(&[]), "");
        assert_eq!(signs.strip(&[0.0, 0.0]), "▁▁");
        assert!(Signs { unicode: false }.strip(&[0.5, 1.0]).is_ascii());
    }

    #[test]
    fn every_mark_has_an_ascii_form() {
        let signs = Signs { unicode: false };
        for mark in [Mark::Done, Mark::Here, Mark::Dot, Mark::Look, Mark::Failed] {
            assert!(signs.mark(mark).is_ascii());
        }
    }
}
