//! Comma separated values row by row: a row that cannot be read costs itself and no other.
//!
//! The `csv` crate splits a row into cells. Which lines make a row is found here, because to it a quotation mark that is
//! never closed makes one cell of all that follows.

use std::ops::Range;

use crate::error::Error;

/// Lines that one row may have, by line breaks between quotation marks.
const LINES_MAX: usize = 32;

const NOT_CLOSED: &str = "a quotation mark is not closed";
const NOT_TEXT: &str = "the line is not text";
const OTHER_CELLS: &str = "another number of cells than the header";

/// The rows of a file below its header, without empty lines and comments (lines that begin with `#`).
pub(crate) struct Rows<'a> {
    file: &'a [u8],
    lines: Vec<Range<usize>>,
    /// How many of the lines were read.
    read: usize,
    header: csv::StringRecord,
}

/// A row of a file.
pub(crate) struct Row {
    /// The number of its first line in the file, from 1.
    pub(crate) line: u64,
    /// As many cells as the header has, without spaces around them, or why there are none.
    pub(crate) cells: Result<csv::StringRecord, &'static str>,
}

impl<'a> Rows<'a> {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// [`Error::Config`] when there is none, or it is not text.
    pub(crate) fn of(file: &'a [u8]) -> Result<Self, Error> {
        let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
        let mut rows = Self {
            file,
            lines: lines(file),
            read: 0,
            header: csv::StringRecord::new(),
        };
        let header = rows.row(None);
        let header = header.ok_or_else(|| Error::Config("it is empty and has no header".into()))?;
        rows.header = header.cells.map_err(|why| {
            let what_to_do = if why == NOT_TEXT {
                ": save it as UTF-8"
            } else {
                ""
            };
            Error::Config(format!("its header cannot be read, {why}{what_to_do}"))
        })?;
        Ok(rows)
    }

    pub(crate) const fn header(&self) -> &csv::StringRecord {
        &self.header
    }

    /// The next row of so many cells, or of any number.
    fn row(&mut self, wanted: Option<usize>) -> Option<Row> {
        let is_none =
            |line: &Range<usize>| matches!(self.file[line.clone()].first(), None | Some(b'#'));
        self.read += self.lines[self.read..]
            .iter()
            .take_while(|line| is_none(line))
            .count();
        let rest = &self.lines[self.read..];
        let first = rest.first()?;
        let upto = |line: &Range<usize>| &self.file[first.start..line.end];
        let (mut marks, mut read_to) = (Marks::default(), first.start);
        let last = rest.iter().take(LINES_MAX).position(|line| {
            marks.read(&self.file[read_to..line.end]);
            read_to = line.end;
            !marks.is_open
        });
        let read = |last: usize| {
            let cells = split(upto(&rest[last]))?;
            let fits = wanted.is_none_or(|wanted| wanted == cells.len());
            fits.then_some(cells).ok_or(OTHER_CELLS)
        };
        let (last, cells) = match last {
            Some(0) => (0, read(0)),
            // Whatever follows is not taken for a part of it, unless it makes the row whole.
            Some(last) => match read(last) {
                Ok(cells) => (last, Ok(cells)),
                Err(_) => (0, Err(NOT_CLOSED)),
            },
            None => (0, Err(NOT_CLOSED)),
        };
        let line = self.read as u64 + 1;
        self.read += last + 1;
        Some(Row { line, cells })
    }
}

impl Iterator for Rows<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.row(Some(self.header.len()))
    }
}

/// Where each line is, whichever way lines end.
fn lines(file: &[u8]) -> Vec<Range<usize>> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (at, byte) in file.iter().enumerate() {
        let is_end = *byte == b'\n' || (*byte == b'\r' && file.get(at + 1) != Some(&b'\n'));
        if is_end {
            let of_two = *byte == b'\n' && at > start && file[at - 1] == b'\r';
            lines.push(start..at - usize::from(of_two));
            start = at + 1;
        }
    }
    lines.push(start..file.len());
    lines
}

/// What quotation marks there were in a text so far.
struct Marks {
    /// Whether one at the beginning of a cell is not closed yet.
    is_open: bool,
    /// Whether a mark would open a cell here.
    begins: bool,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            is_open: false,
            begins: true,
        }
    }
}

impl Marks {
    /// Reads on. Each part of a text is read once, however many lines a row may turn out to have.
    fn read(&mut self, text: &[u8]) {
        for byte in text {
            let is_mark = *byte == b'"';
            let closes = is_mark && self.is_open;
            if closes || (is_mark && self.begins) {
                self.is_open = !self.is_open;
            }
            // Two marks within a cell are one of its text: the second opens again what the first has closed.
            self.begins = closes || (*byte == b',' && !self.is_open);
        }
    }
}

fn split(row: &[u8]) -> Result<csv::StringRecord, &'static str> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(1 << 10)
        .from_reader(row);
    let mut cells = csv::ByteRecord::new();
    match reader.read_byte_record(&mut cells) {
        Ok(true) => {}
        _ => return Err(NOT_TEXT),
    }
    let mut cells = csv::StringRecord::from_byte_record(cells).map_err(|_| NOT_TEXT)?;
    cells.trim();
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &[u8]) -> Vec<(u64, Result<Vec<String>, &'static str>)> {
        let rows = Rows::of(file).expect("a header");
        let cells = |cells: csv::StringRecord| cells.iter().map(str::to_owned).collect();
        rows.map(|row| (row.line, row.cells.map(cells))).collect()
    }

    fn cells(text: &str) -> Result<Vec<String>, &'static str> {
        Ok(text.split(',').map(str::to_owned).collect())
    }

    #[test]
    fn a_quotation_mark_that_is_never_closed_costs_its_own_row() {
        let file = b"a,b\n1,2\n\"3,4\n5,6\n7,\"8\n9,10\n";
        let expected = [
            (2, cells("1,2")),
            (3, Err(NOT_CLOSED)),
            (4, cells("5,6")),
            (5, Err(NOT_CLOSED)),
            (6, cells("9,10")),
        ];
        assert_eq!(read(file), expected);
        let many = format!("a,b\n\"1,2\n{}", "3,4\n".repeat(1_000));
        let rows = read(many.as_bytes());
        assert_eq!(
            rows.iter().filter(|(_, cells)| cells.is_ok()).count(),
            1_000
        );
    }

    /// Two marks that are one, and a comma, on either side of a line break.
    #[test]
    fn marks_count_over_the_ends_of_lines() {
        let file = b"a,b\n\"1\n\"\"\n\",\"\"\"\n2\"\n3,\"\"\n";
        let expected = [
            (2, Ok(vec!["1\n\"".to_owned(), "\"\n2".to_owned()])),
            (6, cells("3,")),
        ];
        assert_eq!(read(file), expected);
    }

    #[test]
    fn a_cell_may_have_line_breaks_commas_and_quotation_marks() {
        let file = b"a,b\r\n\"one\r\n# and\r\n\r\nmore\",\"2, \"\"3\"\"\"\r\n4,5\" wide\r\n";
        let expected = [
            (
                2,
                Ok(vec![
                    "one\r\n# and\r\n\r\nmore".to_owned(),
                    "2, \"3\"".to_owned(),
                ]),
            ),
            (6, cells("4,5\" wide")),
        ];
        assert_eq!(read(file), expected);
    }

    #[test]
    fn comments_empty_lines_and_any_line_end() {
        let file = b"\xef\xbb\xbf# what it is\n\n a , b\r1,2\r\n\r\n# no row\n3,4";
        assert_eq!(read(file), [(4, cells("1,2")), (7, cells("3,4"))]);
    }

    #[test]
    fn what_is_no_text_or_has_other_cells_is_named() {
        let rows = read(b"a,b\n\xff,1\n1\n1,2,3\n\"a\" b,2\n");
        let whys: Vec<_> = rows.into_iter().map(|(_, cells)| cells.err()).collect();
        assert_eq!(
            whys,
            [Some(NOT_TEXT), Some(OTHER_CELLS), Some(OTHER_CELLS), None]
        );
        let why = |file: &[u8]| Rows::of(file).err().map(|error| error.to_string());
        for empty in ["", "\n\n", "# nothing"] {
            assert!(
                why(empty.as_bytes()).is_some_and(|why| why.contains("empty")),
                "{empty:?}"
            );
        }
        assert!(why(b"\xff\xfea\0").is_some_and(|why| why.contains("UTF-8")));
    }
}
