//! Makes sure, at each start, that the tables are the ones that this node has used before. Where the store does not answer
//! then, it is asked again for as long as the node runs, and until it answers nothing is written into its tables.
//!
//! Nodes of a cluster share their tables. One that is started without `--store`, or with another one, would answer from other
//! records than the rest and, once it leads, write what workers have measured where no other node finds it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

/// How long it takes until a store that did not answer is asked again.
pub(super) const AGAIN: Duration = Duration::from_secs(5);

/// Compares the id beside the tables with the one that the node whose folder `node` is has kept, and keeps the one it finds
/// the first time. Tables without an id are given one. A store that does not answer is no reason not to start: whether it has
/// is given back, and if not, the estimator takes nothing in until [`known`] has asked it.
pub(super) async fn check(
    estimator: &Estimator,
    node: &Path,
    location: &str,
) -> Result<bool, Failure> {
    // A start has waited for it once, and has said why it does not go on.
    let is_known = if !location.starts_with("memory:") && estimator.trouble().is_some() {
        tracing::warn!("{UNKNOWN}");
        false
    } else {
        compare(estimator, node, location).await?
    };
    estimator.hold(!is_known);
    Ok(is_known)
}

/// Asks a store that did not answer until it does. Ends only if the tables are others, and says so.
pub(super) async fn known(
    estimator: Arc<Estimator>,
    node: PathBuf,
    location: String,
    again: Duration,
) -> String {
    loop {
        tokio::time::sleep(again).await;
        match compare(&estimator, &node, &location).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(failure) => return failure.text(),
        }
    }
    estimator.hold(false);
    tracing::info!("the tables are those that this node has used before");
    std::future::pending().await
}

/// Whether the store has answered, and the tables are the ones.
async fn compare(estimator: &Estimator, node: &Path, location: &str) -> Result<bool, Failure> {
    if location.starts_with("memory:") {
        return Ok(true);
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
            return Ok(false);
        }
        Err(_) => {
            tracing::warn!("{UNKNOWN}: the store has not answered");
            return Ok(false);
        }
    };
    match (kept, found) {
        (Some(kept), Some(found)) if kept == found => Ok(true),
        (Some(_), _) => Err(Failure::refused(format!(
            "the tables at {location} are not those that this node has used before"
        ))
        .detail("every node of a cluster needs the same --store, and tables that move take their object `store-id` along")
        .hint(format!(
            "start it with the --store of the other nodes; to begin with other tables on purpose, delete {}",
            path.display()
        ))),
        (None, Some(found)) => keep(&path, &found).map(|()| true).map_err(cannot),
        (None, None) => Ok(true),
    }
}

/// The id of the tables, which are `given` one if they have none and the node has used none before. A store that would lose
/// records is an error.
async fn found(estimator: &Estimator, given: bool) -> Result<Option<String>, Error> {
    let mut found = estimator.store_id().await?;
    if found.is_none() && given {
        let id = format!("{:032x}", rand::random::<u128>());
        estimator.give_store_id(&id).await?;
        found = estimator.store_id().await?;
    }
    if let Some(id) = &found {
        estimator.check_conditions(id).await?;
    }
    Ok(found)
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

    #[tokio::test]
    async fn a_store_that_was_away_is_asked_whose_tables_it_has_before_anything_is_written() {
        let root = tempfile::tempdir().expect("folder");
        let [ours, others, node] = ["ours", "others", "node"].map(|name| {
            let folder = root.path().join(name);
            std::fs::create_dir(&folder).expect("folder");
            folder
        });
        let checked = check(&tables(&ours).await, &node, "ours").await;
        assert!(checked.expect("they are its own"));
        let takes = async |estimator: &Estimator| estimator.record(Vec::new()).await.is_ok();
        let ask = |estimator: &Arc<Estimator>, location: &str| {
            let again = Duration::from_millis(10);
            known(
                Arc::clone(estimator),
                node.clone(),
                location.to_owned(),
                again,
            )
        };

        let wrong = Arc::new(tables(&others).await);
        wrong.hold(true);
        let why = ask(&wrong, "others").await;
        assert!(why.contains("others are not those"), "{why}");
        assert!(!takes(&wrong).await, "nothing is written there");

        let right = Arc::new(tables(&ours).await);
        right.hold(true);
        assert!(!takes(&right).await, "nobody knows yet");
        let asked = tokio::spawn(ask(&right, "ours"));
        let taken = async {
            while !takes(&right).await {
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_secs(60);
        let taken = tokio::time::timeout(patience, taken).await;
        taken.expect("the store has answered");
        assert!(
            !asked.is_finished(),
            "it goes on for as long as the node does"
        );
    }
}
