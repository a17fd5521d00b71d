//! The data loader's settings for this host: the data stay where the user says, the caches are the attempt's own.

use std::path::Path;

use serde_json::{Map, Value};
use stepcast_records::simpletuner::{NoFolder, dataset_title, is_local, sample_folder};

use super::super::Error;
use super::settings;
use crate::order::JobFile;

/// The submitted file with each local cache moved below `cache`.
pub(super) fn rewritten(file: &JobFile, cache: &Path) -> Result<Value, Error> {
    let mut loader = settings::value(file)?;
    let entries = loader.as_array_mut();
    let entries = entries
        .ok_or_else(|| Error::Settings(format!("{} is not a list of data sets", file.name)))?;
    for (number, entry) in entries.iter_mut().enumerate() {
        let Some(entry) = entry.as_object_mut() else {
            return Err(Error::Settings(format!(
                "{}: data set {} is not an object",
                file.name,
                number + 1
            )));
        };
        let told = |why: String| format!("{}: {} {why}", file.name, dataset_title(entry, number));
        let samples = sample_folder(entry).map_err(|why| {
            let why = match why {
                NoFolder::Missing => why.to_string(),
                NoFolder::Relative => format!("{why}; {}", NoFolder::HINT),
            };
            Error::Settings(told(why))
        })?;
        if samples.is_some_and(|folder| !folder.is_dir()) {
            let why = "has an instance_data_dir that is not a folder on this worker's host";
            return Err(Error::Data(told(why.to_owned())));
        }
        move_caches(entry, number, cache);
    }
    Ok(loader)
}

fn text<'a>(entry: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    entry.get(key).and_then(Value::as_str)
}

/// Caches in a bucket stay where they are: their folders are prefixes there.
fn move_caches(entry: &mut Map<String, Value>, number: usize, cache: &Path) {
    let embeds = text(entry, "dataset_type").is_some_and(|kind| kind.ends_with("_embeds"));
    let in_a_bucket = embeds && !is_local(entry);
    if in_a_bucket {
        return;
    }
    for (key, value) in entry.iter_mut() {
        if key.starts_with("cache_dir") || key.ends_with("_cache_dir") {
            let folder = cache.join(format!("{number}-{key}"));
            *value = Value::from(folder.to_string_lossy());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::order::FileRole;

    /// What stands in the way of one data set beside its name; `Ok` where it is left to the trainer.
    fn checked(mut entry: Value) -> Result<(), String> {
        entry["id"] = json!("cats");
        let bytes = json!([entry]).to_string().into_bytes();
        let (role, name) = (FileRole::DataLoader, "loader.json".to_owned());
        let file = JobFile { role, name, bytes };
        let rewritten = rewritten(&file, Path::new("/cache"));
        rewritten.map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn data_sets_that_are_switched_off_need_no_folder() {
        let missing = "/no/such/folder";
        for off in [
            json!({"disabled": true}),
            json!({"disable": true}),
            json!({"disable": 1}),
            json!({"disabled": false, "disable": "yes"}),
        ] {
            let mut entry = off.clone();
            entry["instance_data_dir"] = json!(missing);
            assert_eq!(checked(entry), Ok(()), "{off}");
        }
        for on in [json!({}), json!({"disabled": false}), json!({"disable": 0})] {
            let mut entry = on.clone();
            entry["instance_data_dir"] = json!(missing);
            let refused = checked(entry).unwrap_err();
            assert!(refused.contains("not a folder"), "{on}: {refused}");
        }
    }

    #[test]
    fn a_path_with_places_is_the_trainer_s_to_fill_in() {
        for path in ["{env:MY_DATA}/images", "/no/such/{model_family}/{id}"] {
            assert_eq!(
                checked(json!({"instance_data_dir": path})),
                Ok(()),
                "{path}"
            );
        }
        let refused = checked(json!({"instance_data_dir": "images"})).unwrap_err();
        assert!(refused.contains("absolute"), "{refused}");
    }
}
