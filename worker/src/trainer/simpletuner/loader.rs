//! The data loader's settings for this host: the data stay where the user says, the caches are the attempt's own.

use std::path::Path;

use serde_json::{Map, Value};

use super::super::Error;
use super::settings;
use crate::order::JobFile;

/// Data sets of these types hold samples, which must be on this host when they are local.
const WITH_SAMPLES: [&str; 6] = ["image", "video", "audio", "conditioning", "eval", "caption"];

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
        if local(entry) && !is_on(entry, "disabled") && !is_on(entry, "disable") {
            let told = |why| format!("{}: {} {why}", file.name, title(entry, number));
            let samples = samples(entry).map_err(|why| Error::Settings(told(why)))?;
            if samples.is_some_and(|folder| !folder.is_dir()) {
                let why = "has an instance_data_dir that is not a folder on this worker's host";
                return Err(Error::Data(told(why)));
            }
        }
        move_caches(entry, number, cache);
    }
    Ok(loader)
}

fn local(entry: &Map<String, Value>) -> bool {
    text(entry, "type").is_none_or(|kind| kind == "local")
}

fn text<'a>(entry: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    entry.get(key).and_then(Value::as_str)
}

/// Whether a key is on, as SimpleTuner takes it: anything but nothing.
fn is_on(entry: &Map<String, Value>, key: &str) -> bool {
    match entry.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(on)) => *on,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(object)) => !object.is_empty(),
    }
}

/// Where a data set has its samples, if it has any and it can be told: only the trainer fills in the places that a path may have
/// for the environment, the model or the data set. A path is the user's own business, so messages name the key and not the path.
fn samples(entry: &Map<String, Value>) -> Result<Option<&Path>, &'static str> {
    if !WITH_SAMPLES.contains(&text(entry, "dataset_type").unwrap_or("image")) {
        return Ok(None);
    }
    match text(entry, "instance_data_dir").map(Path::new) {
        None => Err("has no instance_data_dir"),
        Some(path) if path.to_string_lossy().contains('{') => Ok(None),
        Some(path) if path.is_relative() => Err(
            "has a relative instance_data_dir; write the absolute path that the data have on the worker's host",
        ),
        Some(path) => Ok(Some(path)),
    }
}

fn title(entry: &Map<String, Value>, number: usize) -> String {
    let mut id = text(entry, "id").unwrap_or_default().to_owned();
    crate::capture::cut(&mut id, 64);
    if id.is_empty() {
        format!("data set {}", number + 1)
    } else {
        format!("data set {} ({id})", number + 1)
    }
}

/// Caches in a bucket stay where they are: their folders are prefixes there.
fn move_caches(entry: &mut Map<String, Value>, number: usize, cache: &Path) {
    let embeds = text(entry, "dataset_type").is_some_and(|kind| kind.ends_with("_embeds"));
    let in_a_bucket = embeds && !local(entry);
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
