//! The state of a checkpoint's processes, which has the step that a run goes on from: written again where it was lost. A state may
//! be large, and is what a job has made of it, so nothing of it is kept while it is read.

mod scan;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use self::scan::{Scanned, scan};
use super::checkpoint::Whole;
use super::held::Held;
use crate::account::Ids;
use crate::state_dir::{self, at};

/// Where a process of a run keeps the step of a checkpoint, and behind it what it has drawn of a data set, by the data set's id.
const STATE: &str = "training_state";

/// A state at most that is mended: it lists each picture of a data set, of which a million take some hundred megabytes.
const MAX_STATE_BYTES: u64 = 512 << 20;

/// Writes the step into a checkpoint that has lost it.
///
/// What a job has put there in the place of its own file, or where its programs run as an `account` in that of its folder, is
/// left alone (`held`).
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
    for name in held.names(is_state).map_err(at("list", &folder))? {
        let path = folder.join(&name);
        let file = held.file(&name, MAX_STATE_BYTES);
        let Some(mut file) = file.map_err(at("read", &path))? else {
            continue;
        };
        // What is no state is SimpleTuner's to refuse.
        let scanned = scan((&file).take(MAX_STATE_BYTES)).map_err(at("read", &path))?;
        let Some(lacking) = scanned.filter(|one| !one.has_step) else {
            continue;
        };
        let step = whole.step;
        let written = held.replace(&name, |mended| mend(&mut file, &lacking, step, mended));
        written.map_err(at("write", &path))?;
        tracing::warn!(step, "a checkpoint that had lost its step has it again");
    }
    Ok(())
}

/// Copies a state up to its end and writes the step there, where it holds whatever stands before.
fn mend(state: &mut File, lacking: &Scanned, step: u64, mended: &mut impl Write) -> io::Result<()> {
    state.rewind()?;
    io::copy(&mut state.take(lacking.end), mended)?;
    let comma = if lacking.is_empty { "" } else { "," };
    let epoch = lacking.epoch.as_deref().unwrap_or("1");
    write!(mended, "{comma}\"global_step\":{step},\"epoch\":{epoch}}}")
}

/// Whether this is the state of one of a checkpoint's processes: `training_state.json`, and `training_state-rank1.json` of the
/// second.
fn is_state(name: &str) -> bool {
    let name = name
        .strip_prefix(STATE)
        .and_then(|name| name.strip_suffix(".json"));
    let rank = name.and_then(|name| name.strip_prefix("-rank"));
    let is_rank =
        rank.is_some_and(|rank| !rank.is_empty() && rank.bytes().all(|b| b.is_ascii_digit()));
    name.is_some_and(|name| name.is_empty() || is_rank)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::super::checkpoint::tests::account;
    use super::*;

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
