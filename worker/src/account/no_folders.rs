//! Where there are no accounts for trainers, nothing is given to any.

use std::path::Path;

use super::Ids;
use crate::state_dir::Error;

/// Where a trainer's home is in its attempt's folder.
pub(crate) const HOME: &str = "home";

/// Where its temporary files are.
pub(crate) const TEMPORARY: &str = "tmp";

pub(crate) fn let_pass(_folder: &Path) -> Result<(), Error> {
    Ok(())
}

pub(crate) fn give_attempt(_folder: &Path, _account: &Ids) -> Result<(), Error> {
    Ok(())
}

pub(crate) fn give(
    _folder: &Path,
    _account: &Ids,
    _trainers: &[u32],
    _made: Option<&Path>,
) -> Result<(), Error> {
    Ok(())
}

pub(crate) fn shut(_folder: &Path) -> Result<(), Error> {
    Ok(())
}
