//! Tries at a worker's start what each attempt will do: to run something as each account, and to give folders away.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Account, Error, folders};
use crate::chain::chain;
use crate::state_dir::private_folder;

/// Lets accounts pass through the worker's `state` folder to attempts and results, and sees that all that is needed can be done.
///
/// # Errors
/// Why it cannot be done, and what to do.
pub(crate) fn all(
    accounts: &[Account],
    helper: &[OsString],
    state: &Path,
    outputs: &Path,
) -> Result<(), Error> {
    let attempts = state.join("attempts");
    for account in accounts {
        let may_not = |why: String| Error::MayNot {
            name: account.ids.name.clone(),
            why,
        };
        let passed = [state, &attempts, outputs]
            .into_iter()
            .try_for_each(folders::let_pass);
        passed.map_err(|error| may_not(chain(&error)))?;
        for folder in [state, &attempts, outputs] {
            if !folders::is_own(folder).map_err(|error| may_not(chain(&error)))? {
                return Err(Error::Open(folder.to_owned()));
            }
        }
        given(account, &attempts).map_err(|error| may_not(chain(&error)))?;
        become_it(account, helper, &[&attempts, outputs]).map_err(may_not)?;
    }
    Ok(())
}

/// A folder is given away and taken back. What is left of it after a crash is removed as an attempt that says nothing.
fn given(account: &Account, attempts: &Path) -> Result<(), crate::state_dir::Error> {
    let folder = attempts.join("trial");
    private_folder(&folder)?;
    folders::give(&folder, &account.ids)?;
    folders::shut(&folder)?;
    std::fs::remove_dir(&folder).map_err(crate::state_dir::at("remove", &folder))
}

fn become_it(account: &Account, helper: &[OsString], enter: &[&Path]) -> Result<(), String> {
    let Some((program, leading)) = helper.split_first() else {
        return Err("no helper is configured".to_owned());
    };
    let mut command = Command::new(program);
    command
        .args(leading)
        .arg("step-down")
        .arg("--account")
        .arg(account.ids.to_string());
    for folder in enter {
        command.arg("--enter").arg(folder);
    }
    let tried = command.env_clear().stdin(Stdio::null()).output();
    let tried = tried.map_err(|error| error.to_string())?;
    match tried.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&tried.stdout).trim().to_owned()),
    }
}
