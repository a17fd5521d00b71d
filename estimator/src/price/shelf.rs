//! Imported prices in the store, where every node finds them: an object a version, each a whole book.
//!
//! The object with the highest number counts. It is made where none is, so of two who import at once one finds the
//! number taken and adds its lines to the other's. A few older ones stay, for who looks for the next number only.
//!
//! A newer version may know hardware that this one does not. What it has written of that is kept as it stands, line by line,
//! and goes into every later version of the book.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::{CsvLine, Line, PRICES_MAX, Price, PriceBook};
use crate::error::Error;

/// The folder beside the tables.
const FOLDER: &str = "prices";
/// Versions that stay: who looks for the next one sees it, unless so many came meanwhile.
const KEPT: u64 = 64;
/// The columns of each object.
const HEADER: [&str; 5] = [
    "hardware",
    "usd_per_gpu_hour",
    "valid_from",
    "valid_until",
    "source",
];

/// What an object holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// What this version can read, by GPU; of each what counts first before what it overrides.
    pub(crate) prices: Vec<Price>,
    /// The cells of what it cannot, in their order.
    pub(crate) others: Vec<csv::StringRecord>,
}

impl Lines {
    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.prices.len() + self.others.len()
    }
}

/// What there is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Newest {
    /// The highest number that is taken; 0 before the first import.
    pub(crate) version: u64,
    /// The one that was read, an older one where the newest cannot be; 0 where there is none.
    pub(crate) read: u64,
    /// What that one holds.
    pub(crate) lines: Lines,
}

impl Newest {
    /// # Errors
    /// [`Error::Config`] when the newest version could not be read: what was added to an older one would be taken for all
    /// there is.
    pub(crate) fn check_is_read(&self) -> Result<(), Error> {
        if self.read == self.version {
            return Ok(());
        }
        Err(Error::Config(format!(
            "the imported prices ({}) were written by a newer version, or are damaged, and cannot be read here: import where \
             that version runs, or remove the object if none does",
            place(self.version)
        )))
    }
}

fn place(version: u64) -> Path {
    Path::from(format!("{FOLDER}/{version:020}.csv"))
}

/// The newest version that can be read with its lines. An object that is no book of this form is told in the log and passed
/// over, and so is how many lines of the other are of a newer version.
pub(crate) async fn newest(store: &dyn ObjectStore) -> Result<Newest, Error> {
    let folder = Path::from(FOLDER);
    let found = store.list(Some(&folder)).map_ok(|object| object.location);
    let found: Vec<Path> = found.try_collect().await.map_err(Error::unreachable)?;
    let mut versions: Vec<u64> = found.iter().filter_map(version).collect();
    versions.sort_unstable_by_key(|version| std::cmp::Reverse(*version));
    let newest = versions.first().copied().unwrap_or(0);
    for version in versions {
        let Some(lines) = read(store, version).await? else {
            tracing::warn!(version, "an object of imported prices cannot be read");
            continue;
        };
        if !lines.others.is_empty() {
            let unread = lines.others.len();
            tracing::warn!(
                version,
                unread,
                "imported prices have lines that this version cannot read, as of hardware that a newer one knows; they do not \
                 count here, and are kept"
            );
        }
        return Ok(Newest {
            version: newest,
            read: version,
            lines,
        });
    }
    Ok(Newest {
        version: newest,
        ..Newest::default()
    })
}

/// Whether there is such a version.
pub(crate) async fn is_there(store: &dyn ObjectStore, version: u64) -> Result<bool, Error> {
    match store.head(&place(version)).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(Error::unreachable(error)),
    }
}

/// Makes a version; `false` if somebody else has made another one of this number.
pub(crate) async fn put(
    store: &dyn ObjectStore,
    version: u64,
    lines: &Lines,
) -> Result<bool, Error> {
    let (place, text) = (place(version), text(lines)?);
    let options = PutOptions::from(PutMode::Create);
    match store.put_opts(&place, text.clone().into(), options).await {
        Ok(_) => {}
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
            // It may be ours, if the answer to a first try was lost.
            let there = store.get(&place).await.map_err(Error::unreachable)?;
            let there = there.bytes().await.map_err(Error::unreachable)?;
            if there != text.as_bytes() {
                return Ok(false);
            }
        }
        Err(error) => return Err(Error::unreachable(error)),
    }
    if let Some(old) = version.checked_sub(KEPT) {
        // One that stays is in nobody's way.
        let _ = store.delete(&self::place(old)).await;
    }
    Ok(true)
}

fn version(path: &Path) -> Option<u64> {
    let name = path.filename()?.strip_suffix(".csv")?;
    let digits = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| name.parse().ok())?
}

async fn read(store: &dyn ObjectStore, version: u64) -> Result<Option<Lines>, Error> {
    let object = match store.get(&place(version)).await {
        Ok(object) => object.bytes().await.map_err(Error::unreachable)?,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(Error::unreachable(error)),
    };
    Ok(std::str::from_utf8(&object).ok().and_then(lines))
}

/// The lines of an object; nothing when it is no book of this form, or holds too many of them.
fn lines(text: &str) -> Option<Lines> {
    let mut reader = super::reader(text);
    let header = reader.headers().ok()?.clone();
    if !header.iter().eq(HEADER) {
        return None;
    }
    let mut lines = Lines::default();
    for record in reader.records() {
        let record = record.ok()?;
        if lines.len() == PRICES_MAX {
            return None;
        }
        let line = record.deserialize::<CsvLine>(Some(&header)).ok()?;
        match Line::from(line).read() {
            Ok(price) => lines.prices.push(price),
            Err(_) => lines.others.push(record),
        }
    }
    lines.prices = PriceBook::of(lines.prices).prices;
    Some(lines)
}

/// The lines as anybody's program reads them, and [`lines`].
fn text(lines: &Lines) -> Result<String, Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let wrong = |error: csv::Error| Error::Config(error.to_string());
    writer.write_record(HEADER).map_err(wrong)?;
    for price in &lines.prices {
        let micros = price.usd_per_gpu_hour.0;
        let dollars = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        let until = price.valid_until.map(|day| day.to_string());
        let line = [
            price.gpu.slug(),
            &dollars,
            &price.valid_from.to_string(),
            &until.unwrap_or_default(),
            &price.source,
        ];
        writer.write_record(line).map_err(wrong)?;
    }
    for line in &lines.others {
        writer.write_record(line).map_err(wrong)?;
    }
    let bytes = writer.into_inner();
    let bytes = bytes.map_err(|error| Error::Config(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| Error::Config(error.to_string()))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn price(gpu: &str, micros: u64, source: &str) -> Price {
        Price::new(
            gpu.parse().expect("gpu"),
            stepcast_records::UsdMicros(micros),
            "2026-10-01".parse().expect("day"),
            None,
            source.into(),
        )
    }

    fn book(prices: &[Price]) -> Lines {
        Lines {
            prices: prices.to_vec(),
            others: Vec::new(),
        }
    }

    fn found(version: u64, read: u64, lines: &Lines) -> Newest {
        Newest {
            version,
            read,
            lines: lines.clone(),
        }
    }

    #[tokio::test]
    async fn the_highest_version_that_can_be_read_counts_and_a_number_is_given_once() {
        let store = InMemory::new();
        assert_eq!(newest(&store).await.expect("read"), Newest::default());
        let first = book(&[price("h100", 2_500_001, "a, \"b\"")]);
        assert!(put(&store, 1, &first).await.expect("put"));
        assert!(
            put(&store, 1, &first).await.expect("put"),
            "the answer was lost"
        );
        let other = book(&[price("h100", 9, "other")]);
        assert!(!put(&store, 1, &other).await.expect("taken"));
        let now = newest(&store).await.expect("read");
        assert_eq!(now, found(1, 1, &first));
        assert!(now.check_is_read().is_ok());
        let more = "hardware,usd_per_gpu_hour,valid_from,valid_until,source,region\nh100,1,2026-10-01,,a,here\n";
        for nonsense in ["hardware\nnonsense\n", more] {
            let nonsense = store.put(&place(2), nonsense.into()).await;
            nonsense.expect("put");
            let now = newest(&store).await.expect("read");
            assert_eq!(now, found(2, 1, &first));
            assert!(now.check_is_read().is_err());
        }
        assert!(is_there(&store, 2).await.expect("head"));
        assert!(!is_there(&store, 3).await.expect("head"));
        for version in 3..=KEPT + 1 {
            assert!(put(&store, version, &first).await.expect("put"));
        }
        assert!(!is_there(&store, 1).await.expect("head"), "old ones go");
    }

    #[tokio::test]
    async fn lines_of_a_newer_version_are_kept_as_they_stand() {
        let store = InMemory::new();
        let written = "hardware,usd_per_gpu_hour,valid_from,valid_until,source\n\
                       h900,9.000000,2026-10-01,,\"a, b\"\nh100,2.500000,2026-10-01,,a\n\
                       h100,2.400000,on weekends,,a\nh900,8.000000,2026-09-01,,a\n";
        store.put(&place(1), written.into()).await.expect("put");
        let now = newest(&store).await.expect("read");
        assert_eq!(now.lines.prices, [price("h100", 2_500_000, "a")]);
        assert!(now.check_is_read().is_ok());
        let mut lines = now.lines;
        lines.prices.push(price("l4", 1, "a"));
        assert!(put(&store, 2, &lines).await.expect("put"));
        assert_eq!(
            text(&lines).expect("text"),
            "hardware,usd_per_gpu_hour,valid_from,valid_until,source\n\
             h100,2.500000,2026-10-01,,a\nl4,0.000001,2026-10-01,,a\n\
             h900,9.000000,2026-10-01,,\"a, b\"\nh100,2.400000,on weekends,,a\nh900,8.000000,2026-09-01,,a\n"
        );
        let others = newest(&store).await.expect("read").lines.others;
        assert_eq!(others, lines.others);
    }
}
