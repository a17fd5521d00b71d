//! Takes secrets out of a submission before anything of it is kept: in their place stands the name of a variable, which
//! the worker gives to the trainer alone. What they are called goes into the log, what they are into memory.

mod beside;
#[cfg(test)]
mod tests;

use stepcast_cluster::credentials::{CREDENTIAL_BYTES_MAX, Credential, Credentials};
use stepcast_records::secret::{self, is_number_value, is_structure, is_value};
use stepcast_scheduler::model::Label;
use stepcast_scheduler::model::limits::CREDENTIALS_MAX;
use tonic::{Code, Status};
use zeroize::{Zeroize, Zeroizing};

use crate::screening::{find, refuse};
use crate::status::{Refusal, bad_field};
use crate::submission::{Role, StagedFile, Submission};

/// How the variables begin that the files name; the worker knows them by it.
const VARIABLE: &str = "STEPCAST_CREDENTIAL_";

/// What a secret is called that stands where nothing says what it is.
const UNNAMED: &str = "secret";

/// Settings that SimpleTuner does not have, and that hold what its libraries look for in the environment. The worker puts it
/// there by these names.
const SERVICES: [&str; 7] = [
    "hf_token",
    "hub_token",
    "huggingface_token",
    "huggingface_hub_token",
    "push_to_hub_token",
    "wandb_api_key",
    "wandb_key",
];

/// The setting that says where webhooks go.
const RECEIVERS: &str = "webhook_config";

/// Values nested deeper than this are no setting.
const DEPTH_MAX: usize = 32;

/// What was taken out of a submission, each under a name that no other has.
#[derive(Default)]
pub(crate) struct Taken {
    all: Vec<(String, Zeroizing<String>)>,
    /// Those of them that are tokens of services, of which nothing is left in the files.
    services: Vec<String>,
}

/// Takes the secrets out of a submission's files. Whatever of them cannot be taken out refuses the submission.
pub(crate) fn take_out(submission: &mut Submission) -> Result<Taken, Status> {
    let mut taken = Taken::default();
    let mut found = Vec::new();
    for file in submission.files_mut() {
        drop_receivers(file);
        let before = found.len();
        find(file, &mut found);
        // SimpleTuner resolves variables in these two and in no other.
        if matches!(file.role, Role::Config | Role::DataLoader) && found.len() > before {
            rewrite(file, &mut taken);
            found.truncate(before);
            find(file, &mut found);
        }
    }
    refuse(&found)?;
    taken.check()?;
    Ok(taken)
}

/// Drops the receivers of webhooks from a configuration: the worker is the only one, and addresses of others are secrets.
fn drop_receivers(file: &mut StagedFile) {
    let Ok(text) = std::str::from_utf8(&file.content) else {
        return;
    };
    if file.role != Role::Config || !text.contains(RECEIVERS) {
        return;
    }
    let other = |key: &str| key.trim_start_matches('-') != RECEIVERS;
    let written = if file.name.to_ascii_lowercase().ends_with(".toml") {
        toml::from_str(text)
            .ok()
            .and_then(|mut value: toml::Table| {
                value.retain(|key, _| other(key));
                toml::to_string(&value).ok()
            })
    } else {
        serde_json::from_str(text)
            .ok()
            .map(|mut value: serde_json::Map<_, serde_json::Value>| {
                value.retain(|key, _| other(key));
                serde_json::Value::from(value).to_string()
            })
    };
    if let Some(written) = written {
        std::mem::replace(&mut file.content, written.into_bytes()).zeroize();
    }
}

/// Writes a file anew without its secrets. One that cannot be read stays as it is.
fn rewrite(file: &mut StagedFile, taken: &mut Taken) {
    let Ok(text) = std::str::from_utf8(&file.content) else {
        return;
    };
    let is_config = file.role == Role::Config;
    let written = if file.name.to_ascii_lowercase().ends_with(".toml") {
        toml::from_str(text)
            .ok()
            .and_then(|mut value: toml::Value| {
                if let Some(members) = value.as_table_mut().filter(|_| is_config) {
                    members.retain(|key, value| match value {
                        toml::Value::String(text) => !taken.takes_service_s(key, text),
                        _ => true,
                    });
                }
                in_toml(&mut value, None, 0, taken);
                toml::to_string(&value).ok()
            })
    } else {
        serde_json::from_str(text)
            .ok()
            .map(|mut value: serde_json::Value| {
                if let Some(members) = value.as_object_mut().filter(|_| is_config) {
                    members.retain(|key, value| match value {
                        serde_json::Value::String(text) => !taken.takes_service_s(key, text),
                        _ => true,
                    });
                }
                in_json(&mut value, None, 0, taken);
                value.to_string()
            })
    };
    if let Some(written) = written {
        std::mem::replace(&mut file.content, written.into_bytes()).zeroize();
    }
}

fn in_json(value: &mut serde_json::Value, named: Named, depth: usize, taken: &mut Taken) {
    use serde_json::Value;
    match value {
        Value::String(text) => in_text(text, named, depth, taken),
        // A number with a fraction is none that could be written as it was: it refuses the submission.
        Value::Number(number) if named.is_some() => {
            if let Some(whole) = number.as_i128()
                && let Some(variable) = taken.number(whole, named)
            {
                *value = variable.into();
            }
        }
        Value::Array(items) if depth < DEPTH_MAX => {
            for item in items {
                in_json(item, named, depth + 1, taken);
            }
        }
        Value::Object(members) if depth < DEPTH_MAX => {
            for (key, value) in members.iter_mut() {
                in_json(value, secret::name(key).or(named), depth + 1, taken);
            }
        }
        _ => {}
    }
}

fn in_toml(value: &mut toml::Value, named: Named, depth: usize, taken: &mut Taken) {
    use toml::Value;
    match value {
        Value::String(text) => in_text(text, named, depth, taken),
        Value::Integer(number) if named.is_some() => {
            if let Some(variable) = taken.number((*number).into(), named) {
                *value = variable.into();
            }
        }
        Value::Array(items) if depth < DEPTH_MAX => {
            for item in items {
                in_toml(item, named, depth + 1, taken);
            }
        }
        Value::Table(members) if depth < DEPTH_MAX => {
            for (key, value) in members.iter_mut() {
                in_toml(value, secret::name(key).or(named), depth + 1, taken);
            }
        }
        _ => {}
    }
}

/// Looks into a structure that is given as a text, and leaves a text. A secret that JSON would write in another way than it
/// is cannot stand for itself in there: it stays, and refuses the submission.
fn in_text(text: &mut String, named: Named, depth: usize, taken: &mut Taken) {
    let read = (is_structure(text) && depth < DEPTH_MAX).then(|| serde_json::from_str(text));
    let Some(Ok(mut value)) = read else {
        return taken.look(text, named);
    };
    if text.contains('\\') {
        return;
    }
    let before = Zeroizing::new(serde_json::Value::to_string(&value));
    in_json(&mut value, named, depth + 1, taken);
    let after = value.to_string();
    if after != *before {
        std::mem::replace(text, after).zeroize();
    }
}

/// What the setting round a value is called, if that is the name of a secret.
type Named = Option<&'static str>;

impl Taken {
    /// Takes a text away if it is a secret, and leaves the name of a variable.
    fn look(&mut self, text: &mut String, named: Named) {
        let says_so = named.is_some() && is_value(text);
        if !says_so && !secret::is_in(text) {
            return;
        }
        let base = named.unwrap_or(UNNAMED);
        let same = |(name, value): &&(String, Zeroizing<String>)| {
            value.as_str() == text.as_str() && name.starts_with(base)
        };
        let name = match self.all.iter().find(same) {
            Some((name, _)) => name.clone(),
            None => self.free_name(base),
        };
        let variable = variable(&name);
        let value = Zeroizing::new(std::mem::replace(text, variable));
        if !self.all.iter().any(|(known, _)| *known == name) {
            self.all.push((name, value));
        }
    }

    /// The name of a variable for a number that is a secret. SimpleTuner reads a text there.
    fn number(&mut self, number: i128, named: Named) -> Option<String> {
        is_number_value(number).then(|| {
            let mut text = number.to_string();
            self.look(&mut text, named);
            text
        })
    }

    /// Takes a text away if it is the token of a service under a setting that SimpleTuner does not have. Nothing is left of
    /// the setting then.
    fn takes_service_s(&mut self, key: &str, text: &mut String) -> bool {
        let name = secret::name(key).filter(|name| SERVICES.contains(name));
        let is_token = name.is_some() && is_value(text);
        if is_token {
            self.look(text, name);
            self.services.extend(name_in(text));
        }
        is_token
    }

    fn free_name(&self, base: &str) -> String {
        let taken = |name: &String| self.all.iter().any(|(known, _)| known == name);
        let numbered = (2_u32..).map(|number| format!("{base}_{number}"));
        let mut names = std::iter::once(base.to_owned()).chain(numbered);
        names.find(|name| !taken(name)).unwrap_or_default()
    }

    fn check(&self) -> Result<(), Status> {
        if self.all.len() > CREDENTIALS_MAX {
            return Err(Refusal::new(
                Code::InvalidArgument,
                "TOO_MANY_CREDENTIALS",
                format!("a submission carries at most {CREDENTIALS_MAX} credentials"),
            )
            .into());
        }
        self.all
            .iter()
            .try_for_each(|(name, value)| check_value(name, value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What they are called.
    pub(crate) fn names(&self) -> Vec<Label> {
        let names = self.all.iter().map(|(name, _)| name.parse());
        names.filter_map(Result::ok).collect()
    }

    /// Takes one more in, given by its name. It goes before one of a file.
    pub(crate) fn add(&mut self, name: String, value: Zeroizing<String>) -> Result<(), Status> {
        check_value(&name, &value)?;
        self.all.retain(|(known, _)| *known != name);
        self.all.push((name, value));
        Ok(())
    }

    /// Those with these names, or the names that are missing.
    pub(crate) fn only(mut self, names: &[Label]) -> Result<Credentials, Vec<Label>> {
        let mut found = Vec::with_capacity(names.len());
        let mut missing = Vec::new();
        for name in names {
            match self
                .all
                .iter()
                .position(|(known, _)| known == name.as_str())
            {
                Some(at) => found.push(Credential {
                    name: name.clone(),
                    value: self.all.swap_remove(at).1,
                }),
                None => missing.push(name.clone()),
            }
        }
        if missing.is_empty() {
            Ok(found.into_iter().collect())
        } else {
            Err(missing)
        }
    }
}

/// What stands in the place of a credential.
fn variable(name: &str) -> String {
    format!("{{env:{VARIABLE}{}}}", name.to_ascii_uppercase())
}

/// The name of the credential in whose place a text stands, if it does.
fn name_in(text: &str) -> Option<String> {
    let name = text.strip_prefix("{env:")?.strip_prefix(VARIABLE)?;
    Some(name.strip_suffix('}')?.to_ascii_lowercase())
}

/// Refuses what no environment can hold, without repeating it.
fn check_value(name: &str, value: &str) -> Result<(), Status> {
    let what = match () {
        () if value.is_empty() => "a credential is not empty".to_owned(),
        () if value.contains('\0') => "a credential holds no null character".to_owned(),
        () if value.len() > CREDENTIAL_BYTES_MAX => {
            format!("a credential has at most {} kB", CREDENTIAL_BYTES_MAX >> 10)
        }
        () => return Ok(()),
    };
    Err(bad_field(&format!("credentials.{name}"), what))
}
