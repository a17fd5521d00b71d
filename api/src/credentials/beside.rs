//! Credentials of files that are given once more, under the names that the job's own files have for them: each is taken by
//! its place, since what it is called when it is taken out goes by what the others are.

use std::collections::BTreeMap;

use serde_json::Value;
use stepcast_records::secret::is_structure;
use stepcast_scheduler::model::Label;
use tonic::Status;
use zeroize::Zeroizing;

use super::{DEPTH_MAX, Taken, name_in};
use crate::status::bad_field;
use crate::submission::{StagedFile, Submission};

/// What a credential of the job is called in the files that were given, for each of its places; `None` where there is none.
type Places = BTreeMap<String, Vec<Option<String>>>;

impl Taken {
    /// What was taken out of `given`, called as the job's own files call it. What `given` does not have at each of its
    /// places is left out.
    ///
    /// # Errors
    /// It holds what the job has no place for, or more than one value for one name.
    pub(crate) fn beside(
        self,
        given: &Submission,
        staged: &[StagedFile],
        needed: &[Label],
    ) -> Result<Self, Status> {
        let mut places = Places::new();
        for file in staged {
            let own = read(file).unwrap_or_default();
            let other = given.file(file.role).and_then(read);
            walk(&own, other.as_ref(), 0, &mut places);
        }
        // The tokens of services have no place: their settings say what they are called.
        for name in &self.services {
            let names = places.entry(name.clone()).or_default();
            names.push(Some(name.clone()));
        }
        places.retain(|name, _| needed.iter().any(|needed| needed.as_str() == name));
        let used: Vec<&String> = places.values().flatten().flatten().collect();
        let names = self.all.iter().map(|(name, _)| name);
        let others: Vec<&str> = names
            .filter(|name| !used.contains(name))
            .map(String::as_str)
            .collect();
        if !others.is_empty() {
            let others = others.join(", ");
            let what = format!(
                "these hold credentials where the files that were submitted have none ({others}): give the configuration as it was submitted with its credentials of today, or submit the job anew"
            );
            return Err(bad_field("files", what));
        }
        let mut found = Self::default();
        for (name, given) in &places {
            let values = given.iter().map(|given| self.value(given.as_deref()?));
            let Some(values) = values.collect::<Option<Vec<_>>>() else {
                continue;
            };
            let Some((first, more)) = values.split_first() else {
                continue;
            };
            if more.iter().any(|value| value != first) {
                let what = format!(
                    "{name} was one credential in several places when the job was submitted, and these hold different ones: submit the job anew"
                );
                return Err(bad_field("files", what));
            }
            found.all.push((name.clone(), (*first).clone()));
        }
        Ok(found)
    }

    fn value(&self, name: &str) -> Option<&Zeroizing<String>> {
        let mut all = self.all.iter();
        all.find_map(|(known, value)| (known == name).then_some(value))
    }
}

/// A file's settings; `None` of one that holds no credentials in places, since it cannot be read.
fn read(file: &StagedFile) -> Option<Value> {
    let text = std::str::from_utf8(&file.content).ok()?;
    if file.name.to_ascii_lowercase().ends_with(".toml") {
        toml::from_str(text).ok()
    } else {
        serde_json::from_str(text).ok()
    }
}

/// Notes of every credential in a value of the job's own what stands in the same place of what was given.
fn walk(own: &Value, given: Option<&Value>, depth: usize, places: &mut Places) {
    if depth > DEPTH_MAX {
        return;
    }
    match own {
        Value::String(text) => {
            let given_text = given.and_then(Value::as_str);
            if let Some(name) = name_in(text) {
                let names = places.entry(name).or_default();
                names.push(given_text.and_then(name_in));
            } else if let Some(own) = structure(text) {
                let inner = given_text.and_then(structure);
                walk(&own, inner.as_ref().or(given), depth + 1, places);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let given = given.and_then(|given| same(item, index, given));
                walk(item, given, depth + 1, places);
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                let given = given.and_then(|given| given.get(key));
                walk(value, given, depth + 1, places);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What a text holds that is a structure.
fn structure(text: &str) -> Option<Value> {
    let read = is_structure(text).then(|| serde_json::from_str(text).ok());
    read.flatten()
}

/// The item of another list that stands for this one: the one with its id, wherever it is, or else the one in its place.
fn same<'a>(item: &Value, index: usize, others: &'a Value) -> Option<&'a Value> {
    let id = |item: &Value| item.get("id").and_then(Value::as_str).map(str::to_owned);
    match id(item) {
        None => others.get(index),
        own => others.as_array()?.iter().find(|other| id(other) == own),
    }
}
