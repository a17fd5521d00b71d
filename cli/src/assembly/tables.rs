//! Makes sure, at each start, that the tables are the ones that this node has used before.
//!
//! Nodes of a cluster share their tables. One that is started without `--store`, or with another one, would answer from other
//! records than the rest and, once it leads, write what workers have measured where no other node finds it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use stepcast_estimator::{Error, Estimator};

use super::refused;
use crate::failure::Failure;

/// Where a node keeps the id of its tables, in its own folder.
const FILE: &str = "store-id";

/// What is logged where the store does not answer.
const UNKNOWN: &str = "it is not known whether the tables are those that this node has used before";

/// A store that has not said by then whose tables it has is not waited for.
const WAIT: Duration = Duration::from_secs(3);

/// Compares the id beside the tables with the one that the node whose folder `node` is has kept, and keeps the one it finds
/// the first time. Tables without an id are given one. A store that does not answer is no reason not to start.
pub(super) async fn check(
    estimator: &Estimator,
    node: &Path,
    location: &str,
) -> Result<(), Failure> {
    if location.starts_with("memory:") {
        return Ok(());
    }
    let path = node.join(FILE);
    let cannot = |error: io::Error| {
        refused(
            &format!("the data folder's {} cannot be used", path.display()),
            &error,
        )
    };
    let kept = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(cannot(error)),
    };
    // A start has waited for it once, and has said why it does not go on.
    if estimator.trouble().is_some() {
        tracing::warn!("{UNKNOWN}");
        return Ok(());
    }
    let found = match tokio::time::timeout(WAIT, found(estimator, kept.is_none())).await {
        Ok(Ok(found)) => found,
        Ok(Err(error @ Error::Config(_))) => {
            return Err(refused(
                &format!("the store {location} cannot be used"),
                &error,
            ));
        }
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "{UNKNOWN}");
            return Ok(());
        }
        Err(_) => {
            tracing::warn!("{UNKNOWN}: the store has not answered");
            return Ok(());
        }
    };
    match (kept, found) {
        (Some(kept), Some(found)) if kept == found => Ok(()),
        (Some(_), _) => Err(Failure::refused(format!(
            "the tables at {location} are not those that this node has used before"
        ))
        .detail("every node of a cluster needs the same --store, and tables that move take their object `store-id` along")
        .hint(format!(
            "start it with the --store of the other nodes; to begin with other tables on purpose, delete {}",
            path.display()
        ))),
        (None, Some(found)) => keep(&path, &found).map_err(cannot),
        (None, None) => Ok(()),
    }
}

/// The id of the tables, which are `given` one if they have none and the node has used none before.
async fn found(estimator: &Estimator, given: bool) -> Result<Option<String>, Error> {
    let found = estimator.store_id().await?;
    if found.is_some() || !given {
        return Ok(found);
    }
    let id = format!("{:032x}", rand::random::<u128>());
    estimator.give_store_id(&id).await?;
    estimator.store_id().await
}

/// Writes the file whole or not at all.
fn keep(path: &Path, id: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use stepcast_estimator::{PriceBook, StoreConfig};

    use super::*;

    async fn tables(folder: &Path) -> Estimator {
        let opened = Estimator::open(StoreConfig::folder(folder), PriceBook::shipped()).await;
        opened.expect("opens")
    }

    #[tokio::test]
    async fn a_node_that_comes_back_with_other_tables_is_refused() {
        let root = tempfile::tempdir().expect("folder");
        let [shared, own, one, three, alone] =
            ["shared", "own", "one", "three", "alone"].map(|name| {
                let folder = root.path().join(name);
                std::fs::create_dir(&folder).expect("folder");
                folder
            });
        for node in [&one, &three, &one] {
            let checked = check(&tables(&shared).await, node, "shared").await;
            checked.expect("both use them");
        }
        // As without --store: nothing is there yet, or tables of another time are.
        for _ in 0..2 {
            let failure = check(&tables(&own).await, &three, "own").await;
            let failure = failure.expect_err("not the cluster's");
            assert!(failure.primary.contains("own are not those"), "{failure:?}");
            let hint = failure.hint.expect("a hint");
            assert!(hint.contains("--store of the other nodes"), "{hint}");
            let checked = check(&tables(&own).await, &alone, "own").await;
            checked.expect("tables of a node of its own");
        }
        // Tables that have moved are the same ones.
        let moved = root.path().join("moved");
        std::fs::rename(&shared, &moved).expect("moves");
        check(&tables(&moved).await, &three, "moved")
            .await
            .expect("the same tables");
        // On purpose.
        std::fs::remove_file(three.join(FILE)).expect("is there");
        check(&tables(&own).await, &three, "own")
            .await
            .expect("chosen");
        std::fs::write(moved.join("store-id"), "no id").expect("write");
        let failure = check(&tables(&moved).await, &one, "moved").await;
        let failure = failure.expect_err("damaged");
        assert!(failure.details[0].contains("store-id"), "{failure:?}");
    }
}
