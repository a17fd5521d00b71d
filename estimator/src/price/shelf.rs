//! Imported prices in the store, where every node finds them: an object a version, each a whole book.
//!
//! The object with the highest number counts. It is made where none is, so of two who import at once one finds the
//! number taken and adds its lines to the other's. A few older ones stay, for who looks for the next number only.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::{Price, PriceBook};
use crate::error::Error;

/// The folder beside the tables.
const FOLDER: &str = "prices";
/// Versions that stay: who looks for the next one sees it, unless so many came meanwhile.
const KEPT: u64 = 64;

fn place(version: u64) -> Path {
    Path::from(format!("{FOLDER}/{version:020}.csv"))
}

/// The newest version there is with its lines; 0 and none before the first import. An object that cannot be read as
/// prices is told in the log and passed over.
pub(crate) async fn newest(store: &dyn ObjectStore) -> Result<(u64, Vec<Price>), Error> {
    let folder = Path::from(FOLDER);
    let found = store.list(Some(&folder)).map_ok(|object| object.location);
    let found: Vec<Path> = found.try_collect().await.map_err(Error::unreachable)?;
    let mut versions: Vec<u64> = found.iter().filter_map(version).collect();
    versions.sort_unstable_by_key(|version| std::cmp::Reverse(*version));
    let newest = versions.first().copied().unwrap_or(0);
    for version in versions {
        match read(store, version).await? {
            Some(prices) => return Ok((newest, prices)),
            None => tracing::warn!(version, "an object of imported prices cannot be read"),
        }
    }
    Ok((newest, Vec::new()))
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
    prices: &[Price],
) -> Result<bool, Error> {
    let (place, text) = (place(version), text(prices)?);
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

async fn read(store: &dyn ObjectStore, version: u64) -> Result<Option<Vec<Price>>, Error> {
    let object = match store.get(&place(version)).await {
        Ok(object) => object.bytes().await.map_err(Error::unreachable)?,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(Error::unreachable(error)),
    };
    let text = std::str::from_utf8(&object).ok();
    let book = text.and_then(|text| PriceBook::from_csv(text).ok());
    Ok(book.map(|book| book.prices))
}

/// The lines as anybody's program reads them, and [`PriceBook::from_csv`].
fn text(prices: &[Price]) -> Result<String, Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let wrong = |error: csv::Error| Error::Config(error.to_string());
    let header = [
        "hardware",
        "usd_per_gpu_hour",
        "valid_from",
        "valid_until",
        "source",
    ];
    writer.write_record(header).map_err(wrong)?;
    for price in prices {
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

    #[tokio::test]
    async fn the_highest_version_that_can_be_read_counts_and_a_number_is_given_once() {
        let store = InMemory::new();
        assert_eq!(newest(&store).await.expect("read"), (0, Vec::new()));
        let first = [price("h100", 2_500_001, "a, \"b\"")];
        assert!(put(&store, 1, &first).await.expect("put"));
        assert!(
            put(&store, 1, &first).await.expect("put"),
            "the answer was lost"
        );
        assert!(
            !put(&store, 1, &[price("h100", 9, "other")])
                .await
                .expect("taken")
        );
        assert_eq!(newest(&store).await.expect("read"), (1, first.to_vec()));
        store
            .put(&place(2), "hardware\nnonsense\n".into())
            .await
            .expect("put");
        assert_eq!(newest(&store).await.expect("read"), (2, first.to_vec()));
        assert!(is_there(&store, 2).await.expect("head"));
        assert!(!is_there(&store, 3).await.expect("head"));
        for version in 3..=KEPT + 1 {
            assert!(put(&store, version, &first).await.expect("put"));
        }
        assert!(!is_there(&store, 1).await.expect("head"), "old ones go");
    }
}
