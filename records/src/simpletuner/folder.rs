//! Where a data set has its samples on the host that trains, which the submission has to say: whoever takes one in and whoever
//! runs it go by the same rule.

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

/// Data sets of these types hold samples, which must be on the host when they are local.
const WITH_SAMPLES: [&str; 6] = ["image", "video", "audio", "conditioning", "eval", "caption"];

/// The key that says it. A path is the user's own business, so messages name the key and not the path.
pub const FOLDER_KEY: &str = "instance_data_dir";

/// Bytes of a data set's own name that a message repeats at most.
const TITLE_BYTES: usize = 64;

/// Why it is not known where a data set has its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoFolder {
    /// Nothing is said.
    Missing,
    /// It depends on where the trainer is started.
    Relative,
}

impl NoFolder {
    /// What to do about it.
    pub const HINT: &str = "write the absolute path that the data have on the worker's host";
}

impl fmt::Display for NoFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "has no {FOLDER_KEY}"),
            Self::Relative => write!(f, "has a relative {FOLDER_KEY}"),
        }
    }
}

/// Where a data set of the data loader's list has its samples on the host that trains, if it is used, has any there and it can
/// be told: only the trainer fills in the places that a path may have for the environment, the model or the data set.
///
/// # Errors
/// It has some, and no host could know where.
pub fn sample_folder(entry: &Map<String, Value>) -> Result<Option<&Path>, NoFolder> {
    let is_used = is_local(entry) && !is_on(entry, "disabled") && !is_on(entry, "disable");
    if !is_used || !WITH_SAMPLES.contains(&text(entry, "dataset_type").unwrap_or("image")) {
        return Ok(None);
    }
    match text(entry, FOLDER_KEY) {
        None => Err(NoFolder::Missing),
        Some(path) if path.contains('{') => Ok(None),
        Some(path) if Path::new(path).is_relative() => Err(NoFolder::Relative),
        Some(path) => Ok(Some(Path::new(path))),
    }
}

/// Whether a data set is on the host that trains, and not in a bucket or a hub.
#[must_use]
pub fn is_local(entry: &Map<String, Value>) -> bool {
    text(entry, "type").is_none_or(|kind| kind == "local")
}

/// What a data set is called in a message: by its place in the list, from 0, and by its id.
#[must_use]
pub fn dataset_title(entry: &Map<String, Value>, index: usize) -> String {
    let id = text(entry, "id").unwrap_or_default();
    let id = &id[..id.floor_char_boundary(TITLE_BYTES)];
    let id: String = id.chars().filter(|char| !char.is_control()).collect();
    if id.is_empty() {
        format!("data set {}", index + 1)
    } else {
        format!("data set {} ({id})", index + 1)
    }
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn samples_on_the_host_have_an_absolute_folder() {
        let folder = |entry: Value| {
            let entry = entry.as_object().unwrap();
            let folder = sample_folder(entry);
            folder.map(|folder| folder.map(|path| path.to_string_lossy().into_owned()))
        };
        for (entry, found) in [
            (json!({}), Err(NoFolder::Missing)),
            (json!({FOLDER_KEY: 5}), Err(NoFolder::Missing)),
            (json!({FOLDER_KEY: "a/b"}), Err(NoFolder::Relative)),
            (json!({FOLDER_KEY: ""}), Err(NoFolder::Relative)),
            (json!({FOLDER_KEY: "/a/b"}), Ok(Some("/a/b".to_owned()))),
            (json!({FOLDER_KEY: "{env:DATA}/a"}), Ok(None)),
            (json!({"type": "aws"}), Ok(None)),
            (
                json!({"type": "local", "dataset_type": "video"}),
                Err(NoFolder::Missing),
            ),
            (json!({"dataset_type": "text_embeds"}), Ok(None)),
            (json!({"disabled": true}), Ok(None)),
            (json!({"disable": 0}), Err(NoFolder::Missing)),
        ] {
            assert_eq!(folder(entry.clone()), found, "{entry}");
        }
    }

    #[test]
    fn a_data_set_is_called_by_its_place_and_a_short_name() {
        let title = |id: &str| dataset_title(json!({"id": id}).as_object().unwrap(), 1);
        assert_eq!(title("cats"), "data set 2 (cats)");
        assert_eq!(title(""), "data set 2");
        assert_eq!(title("a\nb"), "data set 2 (ab)");
        assert_eq!(title(&"é".repeat(99)).chars().count(), 11 + 32 + 2);
    }
}
