//! Bars, and a few lines on the terminal that are drawn again and again.

use std::io::Write;
use std::time::{Duration, Instant};

/// Cells of a bar.
const BAR_CELLS: u64 = 20;
/// Redrawn at most this often: more is flicker.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// `[###########.........]` for a part of a whole; an unknown whole is an empty bar.
pub(crate) fn bar(done: u64, total: u64) -> String {
    let filled = done
        .min(total)
        .saturating_mul(BAR_CELLS)
        .checked_div(total)
        .unwrap_or(0);
    let filled = usize::try_from(filled).unwrap_or(0);
    format!(
        "[{:.<width$}]",
        "#".repeat(filled),
        width = usize::try_from(BAR_CELLS).unwrap_or(20)
    )
}

/// Whole per cent, 100 only when all is done.
pub(crate) fn percent(done: u64, total: u64) -> u64 {
    done.min(total)
        .saturating_mul(100)
        .checked_div(total)
        .unwrap_or(0)
}

/// Lines at the end of the terminal that are replaced as a whole. Shows nothing where stderr is no terminal.
#[derive(Debug)]
pub(crate) struct Live {
    shown: bool,
    lines: usize,
    drawn: Option<Instant>,
    columns: usize,
}

impl Live {
    /// For a terminal of so many columns.
    pub(crate) fn new(shown: bool, columns: usize) -> Self {
        Self {
            shown,
            lines: 0,
            drawn: None,
            columns,
        }
    }

    /// Replaces the lines, unless they were replaced a moment ago.
    pub(crate) fn draw(&mut self, text: &str) {
        if self.shown && self.drawn.is_none_or(|at| at.elapsed() >= REDRAW_EVERY) {
            self.put(text);
            self.drawn = Some(Instant::now());
        }
    }

    /// Whether lines are there that the next ones replace.
    #[cfg(test)]
    pub(crate) fn is_drawn(&self) -> bool {
        self.lines > 0
    }

    /// Replaces the lines for the last time; they stay.
    pub(crate) fn finish(&mut self, text: &str) {
        if self.shown {
            self.put(text);
            self.lines = 0;
            self.drawn = None;
        }
    }

    /// Takes the lines away, so that something else can be told where they were; the next ones are drawn below that.
    pub(crate) fn clear(&mut self) {
        let up = self.up();
        self.lines = 0;
        self.drawn = None;
        let mut out = anstream::stderr().lock();
        // A terminal that went away is noticed elsewhere.
        let _ = write!(out, "{up}");
        let _ = out.flush();
    }

    /// What takes the lines away.
    fn up(&self) -> String {
        match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }

    fn put(&mut self, text: &str) {
        let mut out = anstream::stderr().lock();
        let up = self.up();
        // A line that wrapped would count twice, so each is cut; the codes of colour take no room.
        let fits = text.lines().map(|line| {
            if super::table::columns(&anstream::adapter::strip_str(line).to_string()) < self.columns
            {
                line.to_owned()
            } else {
                super::table::cut(
                    &anstream::adapter::strip_str(line).to_string(),
                    self.columns - 1,
                )
            }
        });
        let fits: Vec<String> = fits.collect();
        self.lines = fits.len();
        // A terminal that went away is noticed elsewhere.
        let _ = writeln!(out, "{up}{}", fits.join("\n"));
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_from_the_left_and_are_full_only_at_the_end() {
        assert_eq!(bar(0, 0), "[....................]");
        assert_eq!(bar(1_650, 3_000), "[###########.........]");
        assert_eq!(bar(2_999, 3_000), "[###################.]");
        assert_eq!(bar(9_999, 3_000), "[####################]");
        assert_eq!(percent(2_999, 3_000), 99);
        assert_eq!(percent(1, 0), 0);
    }
}
