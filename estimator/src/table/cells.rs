//! The cells of one table at one version, in one object: what a process that starts reads instead of every row.
//!
//! It is an index and no record: it holds what the rows say to who folded them and nothing else, may be deleted at any
//! time, and is made anew from them. Its name is the version, and the same rows give the same bytes whoever folds them
//! by the same vocabulary.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stepcast_records::{
    Accumulation, BatchSize, Cell, HalfMegapixels, Hardware, InferenceSteps, Key, Precision,
    Quantization, Recipe, TrainingKey, ValidationKey, sample,
};
use xxhash_rust::xxh3::xxh3_128;

use super::schema::Kind;
use crate::index::Index;

/// What such an object begins with; the last digit is the version of the format. The first one did not tell
/// objects that were never read from those that were lost later, so that it may hold rows twice.
const MAGIC: &[u8; 8] = b"STCELLS2";
/// Bytes of the checksum at its end.
const CHECKSUM_BYTES: usize = 16;

/// What stands before the cells, as JSON, so that a person can see what the object is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The table's name.
    pub(super) table: String,
    /// The version of the table whose rows were folded.
    pub(super) version: u64,
    /// What the log's entry of that version hashes to, since another log has other rows at the same version. Empty where
    /// that was not said yet.
    #[serde(default)]
    pub(super) entry: String,
    /// Cells that follow.
    pub(super) cells: u64,
    /// Rows that were folded.
    pub(super) rows: u64,
    /// Rows of that version that are none.
    pub(super) refused_rows: u64,
    /// By what rows were told from what is none: [`vocabulary()`] of who folded them. Empty where that was not said yet.
    #[serde(default)]
    pub(super) vocabulary: String,
    /// Objects whose rows are not in the cells, since they could not be read, by their place in the table's folder.
    pub(super) unread: Vec<String>,
    /// Objects whose rows are in the cells and that could not be read any more.
    pub(super) away: Vec<String>,
    /// The recipes that a cell names by number: numbers of a registry change, names do not.
    pub(super) recipes: Vec<String>,
    /// The hardware that a cell names by number.
    pub(super) hardware: Vec<String>,
}

/// Cells that were read, and how many named what this version does not know.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) header: Header,
    pub(super) index: Index,
    pub(super) unknown: u64,
}

impl Read {
    /// Whether all that this version knows of the rows is in them: not where rows were none, or are none now, by another
    /// vocabulary.
    pub(super) fn is_whole(&self) -> bool {
        let all_were_rows = self.header.refused_rows == 0 && self.unknown == 0;
        all_were_rows || self.header.vocabulary == vocabulary()
    }
}

/// What this version takes for a row, as one text: every name and every bound by which a row is one or none.
pub(super) fn vocabulary() -> &'static str {
    static VOCABULARY: LazyLock<String> = LazyLock::new(|| {
        let recipes = Recipe::all().map(|recipe| recipe.name().to_string());
        let hardware = Hardware::all().map(|hardware| hardware.slug());
        let resolutions = HalfMegapixels::all().map(|bucket| bucket.to_string());
        let grids = BatchSize::all().map(u32::from);
        let grids = grids.chain(Accumulation::all().map(u32::from));
        let grids = grids.chain(InferenceSteps::all().map(u32::from));
        let bounds = [
            sample::TRAINING_COUNT_MIN,
            sample::TRAINING_COUNT_MAX,
            sample::VALIDATION_COUNT_MIN,
            sample::VALIDATION_COUNT_MAX,
            sample::AVERAGE_MS_MAX,
        ];
        let numbers = grids.chain(bounds).map(|number| number.to_string());
        let precisions = Precision::ALL.iter().map(|known| known.name().to_owned());
        let quantizations = Quantization::ALL
            .iter()
            .map(|known| known.name().to_owned());
        let formats = precisions.chain(quantizations);
        let all: Vec<String> = recipes
            .chain(hardware)
            .chain(resolutions)
            .chain(numbers)
            .chain(formats)
            .collect();
        format!("{:032x}", xxh3_128(all.join("\n").as_bytes()))
    });
    &VOCABULARY
}

/// Writes the cells of one table that an index holds.
pub(super) fn write(kind: Kind, index: &Index, header: Header) -> Result<Bytes, serde_json::Error> {
    let mut cells: Vec<(Key, &Cell)> = index.cells_of(kind).collect();
    cells.sort_unstable_by_key(|(key, _)| *key);
    let mut recipes = Names::default();
    let mut hardware = Names::default();
    let mut body = Vec::new();
    for (key, cell) in &cells {
        put(&mut body, recipes.number(key.recipe().name()));
        put(&mut body, hardware.number(&key.hardware().slug()));
        for part in parts(key) {
            put(&mut body, part);
        }
        put(&mut body, cell.count());
        // A row has at most 1,000 steps of at most an hour, and rows are counted in 32 bits: it fits.
        put(
            &mut body,
            u64::try_from(cell.total_ms()).unwrap_or(u64::MAX),
        );
        put(&mut body, cell.means().count() as u64);
        let mut before = 0;
        for (mean, rows) in cell.means() {
            put(&mut body, u64::from(mean - before));
            put(&mut body, u64::from(rows));
            before = mean;
        }
    }
    let header = Header {
        table: kind.name().to_owned(),
        cells: cells.len() as u64,
        recipes: recipes.list,
        hardware: hardware.list,
        ..header
    };
    let header = serde_json::to_vec(&header)?;
    let mut bytes =
        Vec::with_capacity(MAGIC.len() + 10 + header.len() + body.len() + CHECKSUM_BYTES);
    bytes.extend_from_slice(MAGIC);
    put(&mut bytes, header.len() as u64);
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&body);
    let checksum = xxh3_128(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    Ok(bytes.into())
}

/// Reads what [`write()`] wrote; `None` for anything else, whatever it is.
pub(super) fn read(kind: Kind, bytes: &[u8]) -> Option<Read> {
    let (rest, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if xxh3_128(rest) != u128::from_le_bytes(*checksum) {
        return None;
    }
    let mut rest = rest.strip_prefix(MAGIC)?;
    let length = usize::try_from(take(&mut rest)?).ok()?;
    let (header, mut body) = rest.split_at_checked(length)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    if header.table != kind.name() {
        return None;
    }
    let known = |name: &String| Recipe::parse(name);
    let recipes: Vec<Option<Recipe>> = header.recipes.iter().map(known).collect();
    let known = |slug: &String| slug.parse().ok();
    let hardware: Vec<Option<Hardware>> = header.hardware.iter().map(known).collect();
    let mut read = Read::default();
    for _ in 0..header.cells {
        let recipe = *recipes.get(usize::try_from(take(&mut body)?).ok()?)?;
        let hardware = *hardware.get(usize::try_from(take(&mut body)?).ok()?)?;
        let key = key(kind, recipe, hardware, &mut body)?;
        let (count, total_ms) = (take(&mut body)?, take(&mut body)?);
        let different = usize::try_from(take(&mut body)?).ok()?;
        // Each takes two bytes at least, so that a wrong number cannot ask for more memory than the object has.
        let mut means = Vec::with_capacity(different.min(body.len() / 2));
        let mut mean = 0u32;
        for _ in 0..different {
            mean = mean.checked_add(u32::try_from(take(&mut body)?).ok()?)?;
            means.push((mean, u32::try_from(take(&mut body)?).ok()?));
        }
        let cell = Cell::of_means(means, count, total_ms.into())?;
        match key {
            Some(key) => read.index.put(key, cell),
            None => read.unknown += 1,
        }
    }
    read.header = header;
    body.is_empty().then_some(read)
}

/// A key besides its recipe and hardware, as numbers that mean the same in every version.
fn parts(key: &Key) -> Vec<u64> {
    let format = |precision: Precision, quantization: Quantization| {
        let precision = Precision::ALL.iter().position(|p| *p == precision);
        let quantization = Quantization::ALL.iter().position(|q| *q == quantization);
        [precision, quantization].map(|at| at.unwrap_or_default() as u64)
    };
    let resolution = u64::from(key.resolution().get());
    match key {
        Key::Training(key) => {
            let [precision, quantization] = format(key.precision, key.quantization);
            let (batch, accumulation) = (u32::from(key.batch_size), u32::from(key.accumulation));
            vec![
                resolution,
                batch.into(),
                accumulation.into(),
                precision,
                quantization,
            ]
        }
        Key::Validation(key) => {
            let [precision, quantization] = format(key.precision, key.quantization);
            let steps = u32::from(key.inference_steps);
            vec![resolution, steps.into(), precision, quantization]
        }
    }
}

/// Reads a key's numbers. The outer `None` is no such object, the inner one a key that this version does not know.
fn key(
    kind: Kind,
    recipe: Option<Recipe>,
    hardware: Option<Hardware>,
    body: &mut &[u8],
) -> Option<Option<Key>> {
    let resolution = u8::try_from(take(body)?).ok();
    let first = u32::try_from(take(body)?).ok();
    let second = match kind {
        Kind::Training => u32::try_from(take(body)?).ok(),
        Kind::Validation => None,
    };
    let (precision, quantization) = (take(body)?, take(body)?);
    let known = || {
        let (recipe, hardware) = (recipe?, hardware?);
        let resolution = HalfMegapixels::new(resolution?)?;
        let precision = *Precision::ALL.get(usize::try_from(precision).ok()?)?;
        let quantization = *Quantization::ALL.get(usize::try_from(quantization).ok()?)?;
        Some(match kind {
            Kind::Training => Key::Training(TrainingKey {
                recipe,
                hardware,
                resolution,
                batch_size: BatchSize::new(first?)?,
                accumulation: Accumulation::new(second?)?,
                precision,
                quantization,
            }),
            Kind::Validation => Key::Validation(ValidationKey {
                recipe,
                hardware,
                resolution,
                inference_steps: InferenceSteps::new(first?)?,
                precision,
                quantization,
            }),
        })
    };
    Some(known())
}

/// Names in the order in which they came.
#[derive(Default)]
struct Names {
    list: Vec<String>,
    numbers: BTreeMap<String, u64>,
}

impl Names {
    fn number(&mut self, name: &str) -> u64 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.list.len() as u64;
        self.list.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

/// Appends a number, seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stepcast_records::Row;

    use super::*;
    use crate::testing::any_row;

    fn folded(rows: &[Row]) -> Index {
        let mut index = Index::default();
        index.add(rows);
        index
    }

    fn cells(index: &Index, kind: Kind) -> BTreeMap<Key, Cell> {
        let cells = index.cells_of(kind);
        cells.map(|(key, cell)| (key, cell.clone())).collect()
    }

    fn header() -> Header {
        Header {
            version: 7,
            rows: 40,
            refused_rows: 2,
            unread: vec!["a.parquet".into()],
            away: vec!["b.parquet".into()],
            ..Header::default()
        }
    }

    proptest! {
        #[test]
        fn every_cell_comes_back_and_the_order_of_rows_does_not_matter(
            rows in prop::collection::vec(any_row(), 0..40)
        ) {
            let turned: Vec<Row> = rows.iter().rev().copied().collect();
            for kind in Kind::ALL {
                let index = folded(&rows);
                let bytes = write(kind, &index, header()).expect("written");
                prop_assert_eq!(&bytes, &write(kind, &folded(&turned), header()).expect("written"));
                let back = read(kind, &bytes).expect("read");
                prop_assert_eq!(back.unknown, 0);
                prop_assert_eq!((back.header.version, back.header.rows), (7, 40));
                prop_assert_eq!(back.header.unread, header().unread);
                prop_assert_eq!(back.header.away, header().away);
                prop_assert_eq!(cells(&back.index, kind), cells(&index, kind));
                prop_assert_eq!(back.index.rows(kind), index.rows(kind));
            }
        }

        #[test]
        fn what_is_damaged_is_none(
            rows in prop::collection::vec(any_row(), 1..10), at in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let mut bytes = write(Kind::Training, &folded(&rows), header()).expect("written").to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(read(Kind::Training, &bytes).is_none());
            prop_assert!(read(Kind::Training, &bytes[..at]).is_none());
        }

        /// Also with a checksum that is right, nothing makes it panic or ask for much memory.
        #[test]
        fn any_bytes_are_read_or_none(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100
        ) {
            let good = write(Kind::Training, &folded(&[]), header()).expect("written");
            let head = &good[..good.len() - CHECKSUM_BYTES];
            let mut whole = head[..head.len().saturating_sub(cut)].to_vec();
            whole.append(&mut bytes);
            let checksum = xxh3_128(&whole);
            whole.extend_from_slice(&checksum.to_le_bytes());
            let _ = read(Kind::Training, &whole);
        }
    }

    #[test]
    fn the_other_tables_cells_are_none() {
        let bytes = write(Kind::Training, &Index::default(), header()).expect("written");
        assert!(read(Kind::Training, &bytes).is_some());
        assert!(read(Kind::Validation, &bytes).is_none());
    }

    #[test]
    fn names_that_are_not_known_are_counted() {
        let row = crate::testing::row(
            crate::testing::training_key("flux.dev/lora", "rtx4090"),
            100,
            20,
        );
        let bytes = write(Kind::Training, &folded(&[row]), header()).expect("written");
        let text = bytes[..bytes.len() - CHECKSUM_BYTES].to_vec();
        let from = b"flux.dev/lora";
        let at = text.windows(from.len()).position(|w| w == from);
        let mut other = text;
        let at = at.expect("named");
        other[at..at + from.len()].copy_from_slice(b"flux.new/lora");
        let checksum = xxh3_128(&other);
        other.extend_from_slice(&checksum.to_le_bytes());
        let read = read(Kind::Training, &other).expect("read");
        assert_eq!((read.unknown, read.index.cells()), (1, 0));
    }
}
