//! Tries at a worker's start what each attempt will do: to run something as each account, and to give folders away.

use std::ffi::OsString;
use std::path::Path;

use super::enter::may_enter;
use super::{Account, Error, folders};
use crate::chain::chain;
use crate::state_dir::{self, private_folder, remove_all};

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
        given(account, &state.join("made")).map_err(|error| may_not(chain(&error)))?;
        may_enter(&account.ids, helper, &[&attempts, outputs]).map_err(may_not)?;
    }
    Ok(())
}

/// A folder is given away and taken back, in a place that no account can reach: something of an earlier attempt may still live.
/// What is left of it after a crash goes as what is unfinished.
fn given(account: &Account, private: &Path) -> Result<(), state_dir::Error> {
    let folder = private.join("trial.tmp");
    remove_all(&folder)?;
    private_folder(&folder)?;
    let tried =
        folders::give(&folder, &account.ids, &[], None).and_then(|()| folders::shut(&folder));
    tried.and(remove_all(&folder))
}
