//! What was stored of the workers' measurements, read from the table's own log.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The ids of all contributions. Each here has one row, and the table's log names its id beside the file that holds it.
pub(crate) fn stored_once(store: &Path) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let log = store.join("training_steps").join("_delta_log");
    for entry in fs::read_dir(&log).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        for line in fs::read_to_string(&path).unwrap().lines() {
            let action: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(id) = action["txn"]["appId"].as_str() {
                assert!(
                    ids.insert(id.to_owned()),
                    "contribution {id} is in two commits"
                );
            }
        }
    }
    ids
}
