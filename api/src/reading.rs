//! A submission read: what its configuration asks for, with every assumption, or every problem with its place.

use stepcast_proto::v1;
use stepcast_records::simpletuner::{self, File, Files, Options, Reading};
use tonic::Status;

use crate::screening::screen;
use crate::status::{bad_field, problems};
use crate::submission::{Role, Submission};

/// Counts of samples in one request: more than any data loader has data sets.
const COUNTS_MAX: usize = 1_000;

/// Bytes of a data set's id.
const DATASET_BYTES_MAX: usize = 256;

/// Takes the files of a request and reads them. A submission with a secret in it is refused first.
pub(crate) fn read(
    files: Vec<v1::JobFile>,
    counts: Vec<v1::SampleCount>,
) -> Result<(Submission, Reading), Status> {
    let submission = Submission::read(files)?;
    screen(&submission)?;
    let (mut options, default) = options(counts)?;
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
    let read =
        |options: &Options| simpletuner::read(&files, options).map_err(|found| problems(&found));
    let mut reading = read(&options)?;
    if let Some(default) = default {
        options
            .samples
            .extend(uncounted(&reading).map(|id| (id.to_owned(), default)));
        reading = read(&options)?;
    }
    Ok((submission, reading))
}

/// The ids of the data sets whose size nobody has said.
fn uncounted(reading: &Reading) -> impl Iterator<Item = &str> {
    let datasets = reading.dataset_ids.iter().zip(&reading.workload.datasets);
    datasets
        .filter(|(_, dataset)| dataset.samples.is_none())
        .map(|(id, _)| id.as_str())
}

/// The counts by data set, and the one for all others.
fn options(counts: Vec<v1::SampleCount>) -> Result<(Options, Option<u64>), Status> {
    if counts.len() > COUNTS_MAX {
        return Err(bad_field(
            "sample_counts",
            format!("there are at most {COUNTS_MAX}"),
        ));
    }
    let mut options = Options::default();
    let mut default = None;
    for (index, count) in counts.into_iter().enumerate() {
        if count.dataset.len() > DATASET_BYTES_MAX {
            return Err(bad_field(
                &format!("sample_counts[{index}].dataset"),
                "this is too long for a data set's id",
            ));
        }
        let twice = if count.dataset.is_empty() {
            default.replace(count.samples).is_some()
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
    Ok((options, default))
}
