//! Credentials of a job, for the trainer's environment alone: its settings name them as `{env:...}`, which SimpleTuner
//! resolves when it reads them, so that no file on this host holds one.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use zeroize::Zeroize;

use super::variable;
use crate::order::Credential;

/// How the variables begin that settings name.
const VARIABLE: &str = "STEPCAST_CREDENTIAL_";

/// Services that look for their token in a variable of their own. SimpleTuner has no such settings: the server leaves
/// nothing of them in the configuration.
const SERVICES: [(&str, &str); 7] = [
    ("hf_token", "HF_TOKEN"),
    ("hub_token", "HF_TOKEN"),
    ("huggingface_token", "HF_TOKEN"),
    ("huggingface_hub_token", "HF_TOKEN"),
    ("push_to_hub_token", "HF_TOKEN"),
    ("wandb_api_key", "WANDB_API_KEY"),
    ("wandb_key", "WANDB_API_KEY"),
];

/// The variables that hold these.
pub(super) fn variables(credentials: &[Credential]) -> Vec<(OsString, OsString)> {
    let mut variables = Vec::with_capacity(2 * credentials.len());
    for Credential { name, value } in credentials {
        let named = format!("{VARIABLE}{}", name.to_ascii_uppercase());
        variables.push(variable(&named, value.as_str()));
        let service = SERVICES.iter().find(|(known, _)| known == name);
        if let Some((_, service)) = service {
            variables.push(variable(service, value.as_str()));
        }
    }
    variables
}

/// Overwrites the values in an environment that nobody needs any more.
pub(super) fn forget(environment: Vec<(OsString, OsString)>) {
    for (name, value) in environment {
        let is_ours = |name: &str| {
            name.starts_with(VARIABLE) || SERVICES.iter().any(|(_, service)| *service == name)
        };
        if name.to_str().is_some_and(is_ours) {
            value.into_vec().zeroize();
        }
    }
}
