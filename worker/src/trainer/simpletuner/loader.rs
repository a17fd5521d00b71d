//! The data loader's settings for this host: the data stay where the user says, the caches are the attempt's own.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Map, Value};
use stepcast_records::simpletuner::{NoFolder, dataset_title, is_local, sample_folder};

use super::super::Error;
use super::settings;
use crate::account::Ids;
use crate::account::enter::may_enter;
use crate::order::JobFile;

/// By whom folders of samples are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folders<'a> {
    /// The account that reads them, if that is not the worker's own: it does not learn by the worker what it may not see.
    pub(super) account: Option<&'a Ids>,
    /// What becomes it.
    pub(super) helper: &'a [OsString],
}

impl Folders<'_> {
    /// What stands in the way of a folder.
    fn lack(self, folder: &Path) -> Option<String> {
        let Some(account) = self.account else {
            let why = "has an instance_data_dir that is not a folder on this worker's host";
            return (!folder.is_dir()).then(|| why.to_owned());
        };
        let entered = may_enter(account, self.helper, &[folder]);
        // What exactly it is names the path, which is a person's.
        entered.err().map(|_why| {
            let name = &account.name;
            format!("has an instance_data_dir that is not a folder on this worker's host which the account {name} may enter")
        })
    }
}

/// The submitted file with each local cache moved below `cache`.
pub(super) fn rewritten(
    file: &JobFile,
    cache: &Path,
    folders: Folders<'_>,
) -> Result<Value, Error> {
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
        if let Some(why) = samples.and_then(|folder| folders.lack(folder)) {
            return Err(Error::Data(told(why)));
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
        let folders = Folders {
            account: None,
            helper: &[],
        };
        let rewritten = rewritten(&file, Path::new("/cache"), folders);
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
