//! A submission read: what its configuration asks for, with every assumption, or every problem with its place.

use std::time::Duration;

use stepcast_proto::v1;
use stepcast_records::simpletuner::{self, File, Files, Options, Reading};
use stepcast_scheduler::ids::UserId;
use tonic::Status;

use crate::credentials::{Taken, take_out};
use crate::status::{self, bad_field, problems};
use crate::submission::{Role, Submission};
use crate::turns::{Bounds, Turns};

/// Counts of samples in one request: more than any data loader has data sets.
const COUNTS_MAX: usize = 1_000;

/// Bytes of a data set's id.
const DATASET_BYTES_MAX: usize = 256;

/// Files of fewer bytes are read at once: that takes less than to hand them over.
const SMALL: usize = 32 << 10;

/// Larger ones that are read side by side, so that reading leaves processors to everything else.
const AT_ONCE: usize = 2;

/// How long one waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// Turns to have large submissions read.
pub(crate) fn turns() -> Turns {
    Turns::new(Bounds {
        at_once: AT_ONCE,
        within: TURN_WITHIN,
        others: "many large submissions are being read",
        own: "another large submission of yours is being read",
    })
}

/// How many bytes some files have.
pub(crate) fn bytes(files: &[v1::JobFile]) -> usize {
    files.iter().map(|file| file.content.len()).sum()
}

/// Reads so many bytes for somebody: what may take long goes to a thread of its own and not to those that calls, leases and
/// the log go by.
///
/// # Errors
/// What the reading says; or too many others are read, or another one of theirs.
pub(crate) async fn aside<T: Send + 'static>(
    turns: &Turns,
    who: Option<UserId>,
    bytes: usize,
    read: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    if bytes < SMALL {
        return read();
    }
    let turn = turns.enter(who).await?;
    let stopped = || status::internal("READING_FAILED", "the files were not read to their end");
    turn.aside(read).await.map_err(|_panicked| stopped())?
}

/// Takes the files of a request and reads them. Secrets are taken out first, and are with whoever called from then on.
pub(crate) fn read(
    files: Vec<v1::JobFile>,
    counts: Vec<v1::SampleCount>,
) -> Result<(Submission, Reading, Taken), Status> {
    let mut submission = Submission::read(files)?;
    let taken = take_out(&mut submission)?;
    let options = options(counts)?;
    let file = |role| {
        submission
            .file(role)
            .map(|file| File::new(&file.name, &file.content))
    };
    let config =
        file(Role::Config).ok_or_else(|| bad_field("files", "a configuration is needed"))?;
    let files = Files {
        config,
        data_backend: file(Role::DataLoader),
        lycoris: file(Role::Lycoris),
        prompt_library: file(Role::Prompts),
    };
    let reading = simpletuner::read(&files, &options).map_err(|found| problems(&found))?;
    Ok((submission, reading, taken))
}

/// The counts by data set, and the one for all others.
fn options(counts: Vec<v1::SampleCount>) -> Result<Options, Status> {
    if counts.len() > COUNTS_MAX {
        return Err(bad_field(
            "sample_counts",
            format!("there are at most {COUNTS_MAX}"),
        ));
    }
    let mut options = Options::default();
    for (index, count) in counts.into_iter().enumerate() {
        if count.dataset.len() > DATASET_BYTES_MAX {
            return Err(bad_field(
                &format!("sample_counts[{index}].dataset"),
                "this is too long for a data set's id",
            ));
        }
        let twice = if count.dataset.is_empty() {
            options.other_samples.replace(count.samples).is_some()
        } else {
            options
                .samples
                .insert(count.dataset, count.samples)
                .is_some()
        };
        if twice {
            return Err(bad_field(
                &format!("sample_counts[{index}].dataset"),
                "the data set is counted twice",
            ));
        }
    }
    Ok(options)
}
