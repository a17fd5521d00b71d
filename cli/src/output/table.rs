//! Tables: drawn for a width on a terminal, where columns leave from the right; tab-separated on a pipe.

use unicode_width::UnicodeWidthChar;

use super::style::Tone;

/// Which side a column's text keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Text in a tone.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Rows under titles.
#[derive(Debug, Default)]
pub(crate) struct Table {
    columns: Vec<(String, Side)>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    mark: String,
    cells: Vec<Cell>,
    dim: bool,
}

/// Space between two columns.
const GAP: usize = 2;
/// No cell of a drawn table is wider; what is cut ends in `..`.
const CELL_COLUMNS_MAX: usize = 60;

impl Table {
    /// A table with these columns.
    pub(crate) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self {
            columns: columns
                .iter()
                .map(|(title, side)| ((*title).to_owned(), *side))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// A table whose titles are known only now.
    pub(crate) fn owned(columns: Vec<(String, Side)>, rows: Vec<Vec<String>>) -> Self {
        let mut table = Self {
            columns,
            rows: Vec::new(),
        };
        rows.into_iter()
            .for_each(|row| table.row(row.into_iter().map(Cell::from).collect()));
        table
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.marked("", cells, false);
    }

    /// One more row with a sign before it; a dim one matters less than the others.
    pub(crate) fn marked(&mut self, mark: &str, cells: Vec<Cell>, dim: bool) {
        self.rows.push(Row {
            mark: mark.to_owned(),
            cells,
            dim,
        });
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table for a terminal of so many columns. A column that does not fit leaves, and those right of it with it.
    pub(crate) fn draw(&self, width: usize) -> String {
        let widths = self.widths();
        let shown = fitting(&widths, width);
        let mut text = String::new();
        let titles: Vec<Cell> = self
            .columns
            .iter()
            .map(|(title, _)| Cell::toned(title.as_str(), Tone::Dim))
            .collect();
        self.line(&mut text, "", &titles, false, &widths[..shown]);
        for row in &self.rows {
            self.line(&mut text, &row.mark, &row.cells, row.dim, &widths[..shown]);
        }
        text
    }

    /// The table for a program: titles first, tabs between, nothing cut.
    pub(crate) fn tabs(&self) -> String {
        let plain = |text: &str| text.replace(['\t', '\n', '\r'], " ");
        let titles = self.columns.iter().filter(|(title, _)| !title.is_empty());
        let mut text = titles
            .map(|(title, _)| title.as_str())
            .collect::<Vec<_>>()
            .join("\t");
        text.push('\n');
        for row in &self.rows {
            let cells: Vec<String> = row.cells.iter().map(|cell| plain(&cell.text)).collect();
            text.push_str(cells.join("\t").trim_end_matches('\t'));
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let width = |index: usize, title: &str| {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(index));
            cells
                .map(|cell| columns(&cell.text))
                .chain([columns(title)])
                .max()
                .unwrap_or(0)
                .min(CELL_COLUMNS_MAX)
        };
        self.columns
            .iter()
            .enumerate()
            .map(|(index, (title, _))| width(index, title))
            .collect()
    }

    fn line(&self, text: &mut String, mark: &str, cells: &[Cell], dim: bool, widths: &[usize]) {
        let mut line = if mark.is_empty() {
            "  ".to_owned()
        } else {
            format!("{} ", Tone::Good.paint(mark))
        };
        let mut pending = 0;
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let shown = cut(&cell.text, *width);
            let fill = width - columns(&shown);
            let (before, after) = match self.columns[index].1 {
                Side::Left => (0, fill),
                Side::Right => (fill, 0),
            };
            let tone = if dim && cell.tone == Tone::Plain {
                Tone::Dim
            } else {
                cell.tone
            };
            if !shown.is_empty() {
                line.push_str(&" ".repeat(pending + before));
                line.push_str(&tone.paint(&shown));
                pending = after + GAP;
            } else {
                pending += width + GAP;
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn fitting(widths: &[usize], width: usize) -> usize {
    let mut used = 2;
    let mut shown = 0;
    for column in widths {
        used += column + if shown == 0 { 0 } else { GAP };
        if used > width && shown > 0 {
            break;
        }
        shown += 1;
    }
    shown
}

/// Columns of the terminal that a text takes: in people's own names letters may be wide, or stand on the one before.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(letter_columns).sum()
}

fn letter_columns(letter: char) -> usize {
    letter.width().unwrap_or(1)
}

/// The text, cut to so many columns.
pub(crate) fn cut(text: &str, width: usize) -> String {
    // Nothing that moves the cursor comes from a name.
    let clean: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if columns(&clean) <= width {
        return clean;
    }
    let mut room = width.saturating_sub(2);
    let fits = |letter: &char| match room.checked_sub(letter_columns(*letter)) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    let kept: String = clean.chars().take_while(fits).collect();
    format!("{kept}..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            ("JOB", Side::Left),
            ("STEPS", Side::Right),
            ("NAME", Side::Left),
        ]);
        table.row(vec!["4f2a".into(), "9".into(), "flux-cats".into()]);
        table.marked(
            ">",
            vec!["7be1".into(), "1,200".into(), "a\tb".into()],
            false,
        );
        table
    }

    fn drawn(table: &Table, width: usize) -> String {
        anstream::adapter::strip_str(&table.draw(width)).to_string()
    }

    #[test]
    fn numbers_keep_right_and_words_left() {
        assert_eq!(
            drawn(&table(), 100),
            "  JOB   STEPS  NAME\n  4f2a      9  flux-cats\n> 7be1  1,200  a b\n"
        );
    }

    #[test]
    fn columns_leave_from_the_right_and_the_first_stays() {
        assert_eq!(
            drawn(&table(), 20),
            "  JOB   STEPS\n  4f2a      9\n> 7be1  1,200\n"
        );
        assert_eq!(drawn(&table(), 1), "  JOB\n  4f2a\n> 7be1\n");
    }

    #[test]
    fn a_pipe_gets_tabs() {
        assert_eq!(
            table().tabs(),
            "JOB\tSTEPS\tNAME\n4f2a\t9\tflux-cats\n7be1\t1,200\ta b\n"
        );
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(cut("abcdefgh", 5), "abc..");
        assert_eq!(cut("ab\x1b[2J", 20), "ab [2J");
        // Wide letters take two columns each, and an accent of its own none.
        assert_eq!(columns("猫の絵"), 6);
        assert_eq!(cut("猫の絵", 6), "猫の絵");
        assert_eq!(cut("猫の絵を描く", 7), "猫の..");
        assert_eq!(cut("e\u{301}e\u{301}", 2), "e\u{301}e\u{301}");
    }
}
