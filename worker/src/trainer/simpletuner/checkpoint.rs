//! Which checkpoint of its own a job goes on from: the newest that was written to its end.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use crate::agent::Epoch;
use crate::state_dir::{self, at};

/// SimpleTuner writes this file last of all.
const GUARD: &str = ".guard";

/// What `accelerate` writes last, for versions of SimpleTuner that know no guard.
const LAST_STATE: &str = "random_states_0.pkl";

/// What SimpleTuner's own unfinished checkpoints end with: it never goes on from one, counts none among those that it keeps,
/// and removes them before it saves the next.
const UNFINISHED: &str = "-tmp";

/// A checkpoint that was written to its end.
pub(super) struct Whole {
    /// The step that it was saved after.
    pub(super) step: u64,
    /// Its folder's name, `checkpoint-500` or `checkpoint-500-rolling`.
    pub(super) name: String,
}

/// A checkpoint that was found.
struct Found {
    step: u64,
    name: String,
    guarded: bool,
    /// Whether what comes last without a guard is there.
    ended: bool,
}

/// The newest whole checkpoint in a job's folder of results, if there is one, or such a folder. A trainer that was killed while it
/// saved one leaves a part of it under the same name, and would fail to go on from there at each retry: such parts are given
/// a name by which SimpleTuner knows that they are unfinished.
///
/// # Errors
/// When the folder cannot be listed, or a part cannot be renamed.
pub(super) fn newest_whole(output: &Path, epoch: Epoch) -> Result<Option<Whole>, state_dir::Error> {
    let entries = match fs::read_dir(output) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(at("list", output))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(at("list", output))?.file_name();
        found.extend(checkpoint(output, &name));
    }
    let guards = found.iter().any(|one| one.guarded);
    let is_whole = |one: &Found| if guards { one.guarded } else { one.ended };
    for part in found.iter().filter(|one| !is_whole(one)) {
        let from = output.join(&part.name);
        // The epoch was never given before, so nothing has this name.
        let to = output.join(format!("{}-{epoch}{UNFINISHED}", part.name));
        match fs::rename(&from, &to) {
            // Another host of the job, which shares the folder, has done it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => {
                renamed.map_err(at("rename", &from))?;
                tracing::warn!(
                    epoch,
                    step = part.step,
                    "a checkpoint that was not written to its end is set aside"
                );
            }
        }
    }
    let newest = found
        .into_iter()
        .filter(is_whole)
        .max_by_key(|one| one.step);
    Ok(newest.map(|Found { step, name, .. }| Whole { step, name }))
}

/// What lies there, if by its name it is a checkpoint: `checkpoint-500`, or `checkpoint-500-rolling`.
fn checkpoint(output: &Path, name: &OsStr) -> Option<Found> {
    let name = name.to_str()?;
    let rest = name.strip_prefix("checkpoint-")?;
    let step = rest.split('-').next()?.parse().ok()?;
    let folder = output.join(name);
    if name.ends_with(UNFINISHED) || !folder.is_dir() {
        return None;
    }
    Some(Found {
        step,
        name: name.to_owned(),
        guarded: folder.join(GUARD).exists(),
        ended: folder.join(LAST_STATE).exists(),
    })
}
