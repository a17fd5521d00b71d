//! Which checkpoint of its own a job goes on from: the newest that was written to its end.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use super::held::Held;
use crate::account::Ids;
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
/// `account` is whom the job's programs run as, if not as the worker.
///
/// # Errors
/// When the folder cannot be listed, or a part cannot be renamed.
pub(super) fn newest_whole(
    output: &Path,
    epoch: Epoch,
    account: Option<&Ids>,
) -> Result<Option<Whole>, state_dir::Error> {
    let entries = match fs::read_dir(output) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(at("list", output))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(at("list", output))?.file_name();
        found.extend(checkpoint(output, &name, account));
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
fn checkpoint(output: &Path, name: &OsStr, account: Option<&Ids>) -> Option<Found> {
    let name = name.to_str()?;
    let rest = name.strip_prefix("checkpoint-")?;
    let step = rest.split('-').next()?.parse().ok()?;
    if name.ends_with(UNFINISHED) {
        return None;
    }
    let held = Held::open(&output.join(name), account).ok()??;
    Some(Found {
        step,
        name: name.to_owned(),
        guarded: held.has(GUARD),
        ended: held.has(LAST_STATE),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(super) mod tests {
    use super::super::state::keep_step;
    use super::*;

    /// One that whoever runs this test has.
    pub(in super::super) fn account() -> Ids {
        Ids {
            name: "trainer".to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: Vec::new(),
        }
    }

    #[test]
    fn no_link_says_that_a_checkpoint_is_there() {
        use std::os::unix::fs::symlink;

        let root = tempfile::tempdir().unwrap();
        let (output, moved) = (root.path().join("out"), root.path().join("moved"));
        for folder in [&output.join("checkpoint-10"), &moved] {
            fs::create_dir_all(folder).unwrap();
        }
        let own = account();
        let newest = |account| {
            let newest = newest_whole(&output, 7, account).unwrap();
            newest.map(|whole| whole.name)
        };
        fs::write(moved.join(GUARD), "").unwrap();
        symlink(moved.join(GUARD), output.join("checkpoint-10").join(GUARD)).unwrap();
        assert_eq!(newest(Some(&own)), None);
        assert!(output.join("checkpoint-10-7-tmp").exists());
        symlink(&moved, output.join("checkpoint-20")).unwrap();
        assert_eq!(newest(Some(&own)), None);
        // An operator's, where programs of jobs are the worker's own; its step is kept as well.
        fs::write(moved.join("training_state.json"), "{}").unwrap();
        assert_eq!(newest(None).as_deref(), Some("checkpoint-20"));
        let name = "checkpoint-20".to_owned();
        let whole = Whole { step: 20, name };
        keep_step(&output, &whole, None).unwrap();
        let state = fs::read_to_string(moved.join("training_state.json")).unwrap();
        assert!(state.contains(r#""global_step":20"#), "{state}");
    }
}
