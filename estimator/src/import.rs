//! Import: figures that others measured and published, from a file into the tables, each of them once.
//!
//! A line is known by its numbers and by the name of its source, so a file may be imported again, whole or grown,
//! and only what is new is stored. The source's name is no column of the tables: a list beside them says what came
//! from where.

mod prices;
mod records;
mod sources;
mod step_times;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use stepcast_records::{Key, Row};
use xxhash_rust::xxh3::xxh3_128;

use crate::contribution::Contribution;
use crate::error::Error;
use crate::estimator::Estimator;
use crate::price::Day;
use crate::separated::Rows;
pub(crate) use prices::read as read_prices;
pub use prices::{OFFERS_HEADER, PRICES_HEADER, PriceFile};
pub use records::{TRAINING_HEADER, VALIDATION_HEADER};
use sources::Entry;
pub use sources::Source;
pub(crate) use sources::sources_of;

/// The largest file: a hundred thousand figures take half of it.
pub const FILE_BYTES_MAX: usize = 32 << 20;
/// The most lines of a file.
pub const LINES_MAX: usize = 100_000;
/// Lines that are stored together: one log entry of well under a megabyte.
const LINES_PER_COMMIT: usize = 2_000;
/// Refused lines that are told one by one; all of them are counted.
pub const REFUSALS_TOLD_MAX: usize = 1_000;
/// The longest name of a source.
const NAME_MAX: usize = 64;
/// So much of a cell is repeated when it is refused.
const CELL_CHARS_MAX: usize = 60;

/// How the lines of a file become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// The columns of the tables, by their names: [`TRAINING_HEADER`] or [`VALIDATION_HEADER`], in any order.
    Records,
    /// The columns of `training_step_times.csv`, a collection of published step times. A line is taken when it is
    /// one of SimpleTuner's own figures, measured and not doubted (quality A or B), on hardware of the registry, in
    /// a precision and quantisation that the policy names, with gradient checkpointing over all layers or none,
    /// not compiled, and with the frozen weights on the GPU. The bucket follows from the pixels that were trained
    /// on, not from those that were configured. A figure without a number of steps counts as the fewest that a row
    /// may have.
    StepTimes,
}

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its number in the file; the header is line 1.
    pub line: u64,
    /// Why.
    pub reason: &'static str,
    /// The cell that is the reason, cut short; empty when it is no single one.
    pub cell: String,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Lines of the file, without header, comments and blank lines.
    pub lines: usize,
    /// Lines that were stored now.
    pub stored: usize,
    /// Lines that this source had brought before.
    pub known: usize,
    /// The first refused lines, in the order of the file.
    pub refusals: Vec<Refusal>,
    /// How many lines were refused for each reason.
    pub reasons: BTreeMap<&'static str, usize>,
}

impl Imported {
    /// How many lines were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.reasons.values().sum()
    }
}

impl Mapping {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Records, Self::StepTimes];

    /// The name after `--mapping`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::StepTimes => "training_step_times",
        }
    }

    /// The mapping with this name, or `None`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mapping| mapping.name() == name)
    }
}

impl Estimator {
    /// Reads figures from a file of comma separated values and stores those that the source has not brought before. Estimates
    /// have learnt from them when this returns.
    ///
    /// The file is read whole before anything is stored. After an error nothing is half done that the same call
    /// does not finish: a line that is there already is known again, and for a month at least where it is one of the last that were
    /// stored.
    ///
    /// # Errors
    /// [`Error::Config`] when the name or the header is wrong or the file is too large; otherwise as
    /// [`Estimator::record`].
    pub async fn import(
        &self,
        source: &str,
        mapping: Mapping,
        file: &[u8],
    ) -> Result<Imported, Error> {
        check_name(source)?;
        // On a thread of its own: a large one keeps it for some tenths of a second.
        let whole = file.to_vec();
        let read = tokio::task::spawn_blocking(move || read(mapping, &whole)).await;
        let read = read.map_err(Error::unreachable)??;
        self.check_held()?;
        let known = sources::known(self.prefixed(), source).await?;
        let figures = identified(source, &read.rows);
        let rows = figures.len();
        let new: Vec<Contribution> = figures
            .into_iter()
            .filter(|figure| !known.contains(&figure.id))
            .collect();
        let mut stored = 0;
        for batch in new.chunks(LINES_PER_COMMIT) {
            stored += self.record(batch.to_vec()).await?.stored;
            // At once, so that an import that breaks off and is taken up after a month stores nothing of this again.
            let ids: Vec<[u8; 16]> = batch.iter().map(|figure| figure.id).collect();
            sources::put_ids(self.prefixed(), source, &ids).await?;
        }
        let imported = Imported {
            lines: read.lines,
            stored,
            known: rows - stored,
            ..read.refused
        };
        let entry = Entry {
            mapping: mapping.name().into(),
            day: Day::today().to_string(),
            lines: imported.lines,
            rows,
            refused: imported.refused(),
        };
        let hash = xxh3_128(&[mapping.name().as_bytes(), b"\n", file].concat());
        sources::put(self.prefixed(), source, hash, &entry).await?;
        // Whoever asks next is told the same as whoever asks when the follower has looked.
        if self.is_behind() {
            self.learn_anew().await;
        }
        Ok(imported)
    }

    /// Where imported figures came from, by name.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sources(&self) -> Result<Vec<Source>, Error> {
        sources::list(self.prefixed()).await
    }
}

/// The rows of a file with the tables' own columns, each with its place from 1, how many lines it has, and why others
/// are none.
///
/// # Errors
/// As [`Estimator::import`], the store apart.
pub(crate) fn rows(file: &[u8]) -> Result<(Vec<Placed>, usize, Reasons), Error> {
    let read = each_line(file, |columns| {
        let door =
            records::door(columns).map_err(|error| match step_times::is_mapped(columns) {
                true => Error::Config(
                    "the header is that of a collection of step times: give the format step-times"
                        .into(),
                ),
                false => error,
            })?;
        Ok(move |line: &Line<'_>| Ok((door(line)?, line.place)))
    })?;
    Ok((read.rows, read.lines, read.refused.reasons))
}

/// A name is part of an object's place, and people type it.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let good =
        (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.');
    if good {
        return Ok(());
    }
    Err(Error::Config(format!(
        "a source's name has 1 to {NAME_MAX} lower case letters, digits and any of - _ ."
    )))
}

/// The rows of a file, and what was not taken of it.
#[derive(Debug)]
pub(crate) struct Read<T = Row> {
    pub(crate) lines: usize,
    pub(crate) rows: Vec<T>,
    pub(crate) refused: Imported,
}

/// Why one line is not taken: the reason, and the cell.
type Refused = (&'static str, String);
/// A row, and which of the file's rows it is, from 1.
pub(crate) type Placed = (Row, usize);
/// Why lines are not taken, with how many.
pub(crate) type Reasons = BTreeMap<&'static str, usize>;
/// How a line becomes a row.
type Door = fn(&Line<'_>) -> Result<Row, Refused>;

fn read(mapping: Mapping, file: &[u8]) -> Result<Read, Error> {
    each_line(file, |columns| match mapping {
        Mapping::Records => records::door(columns),
        Mapping::StepTimes => step_times::door(columns),
    })
}

/// Reads every line of a file under its header; what cannot be read of it is named.
fn each_line<T, D>(
    file: &[u8],
    door: impl FnOnce(&Columns) -> Result<D, Error>,
) -> Result<Read<T>, Error>
where
    D: Fn(&Line<'_>) -> Result<T, Refused>,
{
    if file.len() > FILE_BYTES_MAX {
        return Err(Error::Config(format!(
            "a file has at most {} MB",
            FILE_BYTES_MAX >> 20
        )));
    }
    let named = |error| Error::Config(format!("the file: {error}"));
    let rows = Rows::of(file).map_err(named)?;
    let columns = Columns::of(rows.header())?;
    let to_row = door(&columns)?;
    let mut read = Read {
        lines: 0,
        rows: Vec::new(),
        refused: Imported::default(),
    };
    for row in rows {
        if read.lines == LINES_MAX {
            return Err(Error::Config(format!(
                "a file has at most {LINES_MAX} lines"
            )));
        }
        read.lines += 1;
        let cells = row.cells.map_err(|why| (why, String::new()));
        let taken = cells.and_then(|cells| {
            to_row(&Line {
                columns: &columns,
                cells: &cells,
                place: read.lines,
            })
        });
        match taken {
            Ok(row) => read.rows.push(row),
            Err((reason, cell)) => {
                *read.refused.reasons.entry(reason).or_default() += 1;
                if read.refused.refusals.len() < REFUSALS_TOLD_MAX {
                    let cell = cell.chars().take(CELL_CHARS_MAX).collect();
                    read.refused.refusals.push(Refusal {
                        line: row.line,
                        reason,
                        cell,
                    });
                }
            }
        }
    }
    Ok(read)
}

/// Where each column of the header is.
struct Columns {
    places: HashMap<String, usize>,
}

impl Columns {
    fn of(header: &csv::StringRecord) -> Result<Self, Error> {
        let mut places = HashMap::new();
        for (index, name) in header.iter().enumerate() {
            if places.insert(name.to_owned(), index).is_some() {
                return Err(Error::Config(format!(
                    "the header has the column {name:?} twice: leave out one of them"
                )));
            }
        }
        Ok(Self { places })
    }

    fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }
}

/// One line by the names of its columns.
struct Line<'a> {
    columns: &'a Columns,
    cells: &'a csv::StringRecord,
    /// How many lines of the file are read with it, without header and comments.
    place: usize,
}

impl Line<'_> {
    /// The cell, or nothing where there is no such column.
    fn cell(&self, name: &str) -> &str {
        let place = self.columns.places.get(name);
        place
            .and_then(|&place| self.cells.get(place))
            .unwrap_or_default()
    }

    /// What a cell says, or the reason with the cell.
    fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
        reason: &'static str,
    ) -> Result<T, Refused> {
        let cell = self.cell(name);
        read(cell).ok_or_else(|| (reason, cell.to_owned()))
    }
}

/// A number of milliseconds, which may have decimals, as a row has it.
fn milliseconds(cell: &str) -> Option<u32> {
    let ms: f64 = cell.parse().ok()?;
    let max = f64::from(stepcast_records::sample::AVERAGE_MS_MAX);
    let within = (1.0..=max).contains(&ms);
    within.then(|| stepcast_records::sample::three_digits(ms.round() as u32))
}

/// Each row under an id that follows from its source and its numbers; equal rows of one file are told apart by
/// their number.
fn identified(source: &str, rows: &[Row]) -> Vec<Contribution> {
    let mut seen: HashMap<&Row, u32> = HashMap::new();
    let identified = rows.iter().map(|row| {
        let nth = seen.entry(row).or_default();
        *nth += 1;
        Contribution {
            id: line_id(source, row, *nth),
            rows: vec![*row],
        }
    });
    identified.collect()
}

fn line_id(source: &str, row: &Row, nth: u32) -> [u8; 16] {
    let key = match &row.key {
        Key::Training(key) => format!(
            "training {} {} {} {} {} {} {}",
            key.recipe,
            key.hardware.slug(),
            key.resolution,
            key.batch_size,
            key.accumulation,
            key.precision,
            key.quantization
        ),
        Key::Validation(key) => format!(
            "validation {} {} {} {} {} {}",
            key.recipe,
            key.hardware.slug(),
            key.resolution,
            key.inference_steps,
            key.precision,
            key.quantization
        ),
    };
    let Row { avg_ms, count, .. } = row;
    xxh3_128(format!("{source}\n{key}\n{avg_ms} {count} {nth}").as_bytes()).to_be_bytes()
}
