//! Which checkpoint of its own a job goes on from: the newest that was written to its end.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

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

/// Where a process of a run keeps the step of a checkpoint, and behind it what it has drawn of a data set, by the data set's id.
const STATE: &str = "training_state";

/// A state at most that is mended: it lists each picture of a data set, of which a million take some hundred megabytes.
const MAX_STATE_BYTES: u64 = 512 << 20;

/// Writes the step into a checkpoint that has lost it.
///
/// What a job has put there in the place of its own file, or where its programs run as an `account` in that of its folder, is left alone (`held`).
///
/// SimpleTuner 4.10.1 does not put a data set's id behind the name of the state where that has it already
/// (`mangle_state_path`): what was drawn of a data set called `train` is written over the run's own state, and the run would
/// go on from the checkpoint's weights at step 0.
///
/// # Errors
/// When the state cannot be read or written.
pub(super) fn keep_step(
    output: &Path,
    whole: &Whole,
    account: Option<&Ids>,
) -> Result<(), state_dir::Error> {
    let folder = output.join(&whole.name);
    let Some(held) = Held::open(&folder, account).map_err(at("open", &folder))? else {
        return Ok(());
    };
    for name in states(&held).map_err(at("list", &folder))? {
        let path = folder.join(&name);
        let read = held.read(&name, MAX_STATE_BYTES);
        let Some(bytes) = read.map_err(at("read", &path))? else {
            continue;
        };
        // What is no state is SimpleTuner's to refuse.
        let Ok(mut state) = serde_json::from_slice::<Map<String, Value>>(&bytes) else {
            continue;
        };
        if state.contains_key("global_step") {
            continue;
        }
        let epoch = state.get("current_epoch").cloned();
        state.insert("global_step".to_owned(), Value::from(whole.step));
        state.insert("epoch".to_owned(), epoch.unwrap_or(Value::from(1)));
        let text = Value::Object(state).to_string();
        let written = held.replace(&name, text.as_bytes());
        written.map_err(at("write", &path))?;
        let step = whole.step;
        tracing::warn!(step, "a checkpoint that had lost its step has it again");
    }
    Ok(())
}

/// The states of a checkpoint's processes: `training_state.json`, and `training_state-rank1.json` of the second.
fn states(folder: &Held) -> io::Result<Vec<String>> {
    let is_state = |name: &String| {
        let name = name
            .strip_prefix(STATE)
            .and_then(|name| name.strip_suffix(".json"));
        let rank = name.and_then(|name| name.strip_prefix("-rank"));
        let is_rank =
            rank.is_some_and(|rank| !rank.is_empty() && rank.bytes().all(|b| b.is_ascii_digit()));
        name.is_some_and(|name| name.is_empty() || is_rank)
    };
    let mut names = folder.names()?;
    names.retain(is_state);
    Ok(names)
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
mod tests {
    use serde_json::json;

    use super::*;

    /// One that whoever runs this test has.
    fn account() -> Ids {
        Ids {
            name: "trainer".to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: Vec::new(),
        }
    }

    #[test]
    fn a_step_that_was_written_over_is_written_again() {
        let output = tempfile::tempdir().unwrap();
        let folder = output.path().join("checkpoint-20");
        fs::create_dir(&folder).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        // What was drawn of a data set called `a`, by each of two processes.
        let drawn = json!({"current_epoch": 3, "seen_images": {"/data/1.png": 1}});
        let (first, second) = ("training_state.json", "training_state-rank1.json");
        write(first, &drawn.to_string());
        write(second, &drawn.to_string());
        // Data sets whose ids are no part of the name.
        let (own, ranks) = ("training_state-cats.json", "training_state-ranks.json");
        write(own, &drawn.to_string());
        write(ranks, &drawn.to_string());
        let (step, name) = (20, "checkpoint-20".to_owned());
        let whole = Whole { step, name };
        keep_step(output.path(), &whole, Some(&account())).unwrap();
        let mut expected = drawn.clone();
        expected["global_step"] = json!(20);
        expected["epoch"] = json!(3);
        for name in [first, second] {
            let state: Value = serde_json::from_str(&read(name)).unwrap();
            assert_eq!(state, expected, "{name}");
        }
        assert_eq!(
            [read(own), read(ranks)],
            [(); 2].map(|()| drawn.to_string())
        );
    }

    #[test]
    fn a_link_that_a_job_has_put_in_the_place_of_its_state_leads_nowhere() {
        use std::os::unix::fs::symlink;

        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("credential.json");
        fs::write(&secret, r#"{"secret": "s"}"#).unwrap();
        let (output, name) = (root.path().join("out"), "checkpoint-20");
        let folder = output.join(name);
        fs::create_dir_all(&folder).unwrap();
        let whole = Whole {
            step: 20,
            name: name.to_owned(),
        };
        let state = folder.join("training_state.json");
        let is_as_it_was = || {
            keep_step(&output, &whole, Some(&account())).unwrap();
            assert_eq!(fs::read_to_string(&secret).unwrap(), r#"{"secret": "s"}"#);
        };
        // What it would read is not copied to where the job reads it.
        symlink(&secret, &state).unwrap();
        is_as_it_was();
        assert!(state.is_symlink());
        fs::remove_file(&state).unwrap();
        // Neither is what it would write.
        fs::write(&state, "{}").unwrap();
        for beside in ["training_state.tmp", "training_state.json.tmp"] {
            symlink(&secret, folder.join(beside)).unwrap();
        }
        is_as_it_was();
        let read = fs::read_to_string(&state).unwrap();
        assert!(read.contains(r#""global_step":20"#), "{read}");
        // Nor a whole folder of somebody's.
        fs::remove_dir_all(&folder).unwrap();
        fs::write(root.path().join("training_state.json"), "{}").unwrap();
        symlink(root.path(), &folder).unwrap();
        is_as_it_was();
        let others = fs::read_to_string(root.path().join("training_state.json"));
        assert_eq!(others.unwrap(), "{}");
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

    #[test]
    fn states_with_a_step_and_what_is_none_stay_as_they_are() {
        let output = tempfile::tempdir().unwrap();
        let folder = output.path().join("checkpoint-20");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("training_state.json");
        let (step, name) = (20, "checkpoint-20".to_owned());
        let whole = Whole { step, name };
        keep_step(output.path(), &whole, Some(&account())).unwrap();
        assert!(!path.exists());
        for text in [r#"{"global_step":  19, "epoch": 1}"#, "[]", "{"] {
            fs::write(&path, text).unwrap();
            keep_step(output.path(), &whole, Some(&account())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
