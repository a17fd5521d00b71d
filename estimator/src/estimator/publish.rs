//! The plain Parquet files for everybody else: one row per served cell, with the policy's columns and no others.
//!
//! Whoever reads the tables' folders by a pattern counts rows twice that a compaction has moved. These two files are
//! what can be read with anything that reads Parquet, each overwritten as a whole.

use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use stepcast_records::{Row, sample};

use crate::error::Error;
use crate::index::Index;
use crate::table::{Kind, plain_file};

/// The folder beside the tables.
const FOLDER: &str = "public";

/// Writes one table's file if it is not there as it should be; returns whether it did. Cells of the pretend device are
/// left out. Without any cell there is no file, or one without rows where there was one before.
pub(super) async fn write(
    kind: Kind,
    index: &Index,
    store: &dyn ObjectStore,
) -> Result<bool, Error> {
    let rows: Vec<Row> = index
        .served(kind)
        .filter(|(key, _)| !key.hardware().is_replay())
        .filter_map(|(key, cell)| {
            let mean = cell.mean_ms()?.round() as u32;
            Some(Row {
                key,
                avg_ms: sample::three_digits(mean.max(1)),
                count: two_digits(cell.count()),
            })
        })
        .collect();
    let is_empty = rows.is_empty();
    let bytes = tokio::task::spawn_blocking(move || plain_file(kind, rows)).await;
    let bytes = bytes.map_err(Error::unreachable)?;
    let bytes = bytes.map_err(Error::unreachable)?;
    let path = path(kind);
    // The same cells give the same bytes, so that several nodes need not write them in turn.
    let there = store.get_opts(&path, GetOptions::default()).await;
    match there {
        Ok(there) if there.meta.size == bytes.len() as u64 => {
            if there.bytes().await.map_err(Error::unreachable)? == bytes {
                return Ok(false);
            }
        }
        Err(object_store::Error::NotFound { .. }) if is_empty => return Ok(false),
        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(Error::unreachable(error)),
    }
    let put = store.put(&path, bytes.into()).await;
    put.map_err(Error::unreachable)?;
    Ok(true)
}

/// Removes one table's file, if it is there: no row of the table is left.
pub(super) async fn remove(kind: Kind, store: &dyn ObjectStore) -> Result<(), Error> {
    match store.delete(&path(kind)).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(Error::unreachable(error)),
    }
}

fn path(kind: Kind) -> Path {
    Path::from(format!("{FOLDER}/{}.parquet", kind.name()))
}

/// A sum of steps or prompts to two digits, rounded down, so that it betrays no single run.
fn two_digits(count: u64) -> u32 {
    let mut unit = 1;
    while count / unit >= 100 {
        unit *= 10;
    }
    // Integer columns of 32 bits; nobody cares how far above two thousand million it is.
    u32::try_from(count / unit * unit).map_or(i32::MAX as u32, |count| count.min(i32::MAX as u32))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::testing::{row, training_key};

    #[tokio::test]
    async fn what_nothing_is_known_of_any_more_is_not_served_either() {
        let store = InMemory::new();
        let (kind, empty) = (Kind::Training, Index::default());
        let mut index = Index::default();
        let key = training_key("flux.dev/lora", "h100");
        index.add(&[0, 1, 2].map(|more| row(key, 5_000 + 10 * more, 150)));
        assert!(!write(kind, &empty, &store).await.expect("nothing there"));
        assert!(write(kind, &index, &store).await.expect("written"));
        assert!(write(kind, &empty, &store).await.expect("written over"));
        assert!(!write(kind, &empty, &store).await.expect("as it should be"));
        let path = Path::from("public/training_steps.parquet");
        let found = store.get(&path).await.expect("there").bytes().await;
        let without = plain_file(kind, Vec::new()).expect("file");
        assert_eq!(found.expect("bytes"), without);
    }

    #[test]
    fn counts_have_two_digits() {
        let counts = [0, 7, 99, 100, 149, 1_999, 123_456, u64::MAX];
        assert_eq!(
            counts.map(two_digits),
            [0, 7, 99, 100, 140, 1_900, 120_000, i32::MAX as u32]
        );
    }
}
