//! Gets one attempt ready to run: its private folder, its files, its environment and its command.

mod credentials;
mod proxies;
pub mod replay;
pub mod simpletuner;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::account::Ids;
use crate::agent::Failure;
use crate::config::WorkerConfig;
use crate::gpu::Device;
use crate::order::{Assignment, Credential, Handed, JobFile, TrainerKind};
use crate::redact::{Redactor, secret_name};
use crate::state_dir::{self, private_folder};

/// What is started under a guard.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub directory: PathBuf,
    /// The signal file, already holding zeros.
    pub signal_file: PathBuf,
    /// The step of the checkpoint that it goes on from, 0 for none.
    pub from: u64,
}

/// What an attempt is launched with.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The worker's settings.
    pub config: &'a WorkerConfig,
    /// What is to run.
    pub assignment: &'a Assignment,
    /// The job's files.
    pub files: &'a [JobFile],
    /// What stands in them by its name only.
    pub credentials: &'a [Credential],
    /// The devices it was placed on.
    pub devices: &'a [Device],
    /// Whom its trainer runs as, if not as the worker.
    pub account: Option<&'a Ids>,
    /// The attempt's private folder.
    pub folder: &'a Path,
    /// The folder for all jobs' results.
    pub outputs: &'a Path,
    /// The random word that marks every process of the attempt.
    pub marker: &'a str,
    /// Where webhooks go, and the token they carry.
    pub webhook: (&'a str, &'a str),
}

impl Launch {
    /// What is to be said where the job's newest checkpoint is not here.
    pub(crate) fn lacks(&self, resume_step: u64) -> Option<String> {
        let (from, newest) = (
            self.from,
            format!("the newest checkpoint, of step {resume_step}"),
        );
        (from < resume_step).then(|| match from {
            0 => format!("{newest}, is not in this worker's outputs: the training begins anew"),
            _ => format!(
                "{newest}, is not in this worker's outputs: the training goes on from step {from}"
            ),
        })
    }

    /// Overwrites the credentials in it, which its process has by now.
    pub(crate) fn forget(self) {
        credentials::forget(self.environment);
    }
}

/// Why an attempt cannot be launched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job's settings cannot be used.
    #[error("the job's settings cannot be used: {0}")]
    Settings(String),
    /// The job's data are not on this host, while another may have them, or this one again later.
    #[error("the job's data cannot be found: {0}")]
    Data(String),
    /// The placement and the worker do not fit together.
    #[error("{0}")]
    Placement(&'static str),
    /// The private folder could not be written.
    #[error(transparent)]
    Folder(#[from] state_dir::Error),
}

impl Error {
    /// How the scheduler is to see it.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Settings(_) => Failure::ConfigInvalid,
            Self::Data(_) | Self::Placement(_) | Self::Folder(_) => Failure::LaunchFailed,
        }
    }
}

/// Writes what the trainer needs and says how to start it.
///
/// A pretend device never runs the real trainer and a real one never plays a stream: their times must not mix.
pub fn prepare(ground: &Ground<'_>) -> Result<Launch, Error> {
    let pretend = ground.devices.iter().all(|device| device.model.is_replay());
    let directory = ground.folder.join("run");
    private_folder(&directory)?;
    let signal_file = ground.folder.join("signals.json");
    write_signals(&signal_file, 0, None)?;
    match (ground.assignment.trainer, pretend) {
        (TrainerKind::SimpleTuner, false) => simpletuner::prepare(ground, directory, signal_file),
        (TrainerKind::Replay, true) => replay::prepare(ground, directory, signal_file),
        (TrainerKind::SimpleTuner, true) => Err(Error::Placement(
            "a pretend device cannot run the real trainer",
        )),
        (TrainerKind::Replay, false) => {
            Err(Error::Placement("a replay runs on pretend devices only"))
        }
    }
}

/// The folder for an attempt's results, if there is to be one and it may be a new one: a gang that goes on finds its
/// checkpoint in one that is there.
pub fn new_output(assignment: &Assignment, outputs: &Path) -> Option<PathBuf> {
    let goes_on = assignment
        .gang
        .as_ref()
        .is_some_and(|gang| gang.resume_step > 0);
    output(assignment, outputs).filter(|_| !goes_on)
}

/// The folder of an attempt's results, if it leaves any.
pub(crate) fn output(assignment: &Assignment, outputs: &Path) -> Option<PathBuf> {
    let trains = assignment.trainer == TrainerKind::SimpleTuner;
    trains.then(|| outputs.join(&assignment.job))
}

/// Where the hosts of a gang keep encoded images and captions: each writes its part, and all of them read all of it.
pub fn shared_cache(assignment: &Assignment, outputs: &Path) -> Option<PathBuf> {
    assignment.gang.as_ref()?;
    let name = format!("cache-{}", assignment.epoch);
    Some(outputs.join(&assignment.job).join(name))
}

/// Asks the trainer, which runs as this account or as the worker does, for its `checkpoints`-th checkpoint on demand. It starts
/// at zero, so an attempt begins with 0.
pub fn write_signals(
    path: &Path,
    checkpoints: u64,
    account: Option<&Ids>,
) -> Result<(), state_dir::Error> {
    let text = format!("{{\"manual_checkpoint\": {checkpoints}, \"manual_validation\": 0}}\n");
    state_dir::write_for(account, path, text.as_bytes())
}

/// A redactor for everything secret in this environment and in what the job was handed, and for the webhook's token.
pub fn redactor(environment: &[(OsString, OsString)], handed: &Handed, token: &str) -> Redactor {
    let readable = environment
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
    let secrets = simpletuner::secrets(&handed.files);
    let given = handed.credentials.iter().map(|one| one.value.as_str());
    let extra: Vec<&str> = secrets
        .iter()
        .map(String::as_str)
        .chain(given)
        .chain([token])
        .collect();
    Redactor::new(readable, &extra).with_private(simpletuner::private(&handed.files))
}

/// This process's environment without what belongs to the worker or would steer the trainer past its settings, and with a word
/// that webhooks go to no proxy.
fn inherited() -> Vec<(OsString, OsString)> {
    let mut environment: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(passes))
        .collect();
    proxies::except_loopback(&mut environment);
    environment
}

fn passes(name: &str) -> bool {
    let steers = ["STEPCAST_", "SIMPLETUNER_", "CONFIG_"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    !steers
        && ![
            "ENV",
            "CUDA_VISIBLE_DEVICES",
            "CUDA_DEVICE_ORDER",
            "DATALOADER_CONFIG",
        ]
        .contains(&name)
}

/// Only what a replay needs: no secret of the user's has any business in it.
fn inherited_without_secrets() -> Vec<(OsString, OsString)> {
    inherited()
        .into_iter()
        .filter(|(name, _)| name.to_str().is_some_and(|name| !secret_name(name)))
        .collect()
}

fn variable(name: &str, value: impl Into<OsString>) -> (OsString, OsString) {
    (name.into(), value.into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sharing, Workload};
    use stepcast_records::{FrameClass, HalfMegapixels, Precision, Quantization, Recipe};

    use super::passes;

    /// A FLUX LoRA at one megapixel.
    pub(crate) fn workload() -> Workload {
        Workload {
            recipe: Recipe::parse("flux.dev/lora").unwrap(),
            precision: Precision::Bf16,
            quantization: Quantization::None,
            accumulation: 1,
            context_parallel: 1,
            datasets: vec![Dataset {
                resolution: HalfMegapixels::new(2).unwrap(),
                frames: FrameClass::Single,
                batch_size: 1,
                samples: Some(20),
                repeats: 0,
                padded: false,
            }],
            length: Length::Steps(40),
            checkpoint_every: Some(10),
            validation: None,
            off_record: Vec::new(),
            preparation: Preparation::default(),
            sharing: Sharing::default(),
        }
    }

    #[test]
    fn what_steers_the_trainer_or_belongs_to_the_worker_is_not_inherited() {
        for name in ["HF_TOKEN", "PATH", "HOME", "HF_HOME", "LD_LIBRARY_PATH"] {
            assert!(passes(name), "{name}");
        }
        for name in [
            "STEPCAST_JOIN_TOKEN",
            "ENV",
            "SIMPLETUNER_ENV",
            "CONFIG_PATH",
            "CONFIG_BACKEND",
            "CUDA_VISIBLE_DEVICES",
        ] {
            assert!(!passes(name), "{name}");
        }
    }
}
