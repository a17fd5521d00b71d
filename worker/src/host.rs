//! What all attempts of this worker share: its settings, devices, folder, and the way to the leader.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use stepcast_records::Hardware;
use stepcast_records::simpletuner::Length;

use crate::account::{Accounts, Ids, folders};
use crate::agent::{Epoch, Epochs, Failure, FewerSteps};
use crate::chain::chain;
use crate::cleanup::Cleanup;
use crate::config::WorkerConfig;
use crate::disk::beside;
use crate::gpu::{self, Device};
use crate::metrics::{Metrics, Moment};
use crate::order::{Assignment, Handed};
use crate::reduce::{Measures, NoSample, Pass};
use crate::runner::Turns;
use crate::session::outbox::Outbox;
use crate::spool::Held;
use crate::state_dir::{self, AttemptRecord, Contribution, StateDir, private_folder};

/// Shared by the loop and the attempts' tasks.
pub(crate) struct Host {
    pub(crate) config: WorkerConfig,
    pub(crate) state: StateDir,
    pub(crate) outputs: PathBuf,
    pub(crate) devices: Vec<Device>,
    pub(crate) outbox: Outbox,
    pub(crate) metrics: Metrics,
    pub(crate) held: Held,
    pub(crate) cleanup: Cleanup,
    pub(crate) accounts: Accounts,
    pub(crate) turns: Turns,
    pub(crate) wire: Box<dyn Wire>,
}

/// The calls to the leader that are not part of the stream.
pub(crate) trait Wire: Send + Sync {
    /// The job's files, which leave the leader's staging area when the job is over, and then this fails for good; and its
    /// credentials.
    fn files<'a>(
        &'a self,
        assignment: &'a Assignment,
    ) -> BoxFuture<'a, Result<Handed, (Failure, String)>>;

    /// How an attempt of this worker's stands, and its job.
    fn stands<'a>(&'a self, job: &'a str, epoch: Epoch) -> BoxFuture<'a, Result<Standing, String>>;

    /// Hands samples over; the leader takes each contribution id once, so asking again does no harm.
    fn contribute<'a>(
        &'a self,
        contribution: &'a Contribution,
    ) -> BoxFuture<'a, Result<(), Refused>>;
}

/// How an attempt stands, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It runs, here or on another of its hosts.
    Live,
    /// It is over on all of its hosts, and its job is not.
    AttemptOver,
    /// Its job is over for good, or not known any more.
    JobOver,
}

/// Why samples were not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not now: ask again.
    Later(String),
    /// Not ever: forget them.
    Never(String),
}

impl Host {
    /// Everything measured, in the text format that Prometheus reads.
    pub(crate) fn metrics_text(&self, certificate_end: Option<i64>) -> String {
        let (connected, reports) = self.outbox.stands();
        self.metrics.text(&Moment {
            connected,
            reports,
            // A folder that cannot be read is told by what fails because of it.
            samples: self.state.spooled_count().unwrap_or(0) + self.held.count(),
            certificate_end,
        })
    }

    /// The command of the guard of a trainer that runs as this account, or as the worker does.
    pub(crate) fn guard_command(&self, account: Option<&Ids>) -> Vec<OsString> {
        let helper = self.config.helper.iter().cloned();
        let mut command: Vec<OsString> = helper.chain(["guard".into()]).collect();
        if let Some(account) = account {
            command.extend(["--account".into(), account.to_string().into()]);
        }
        command
    }

    /// The devices at these positions.
    pub(crate) fn devices(&self, positions: &[u8]) -> Option<Vec<Device>> {
        positions
            .iter()
            .map(|position| self.devices.get(usize::from(*position)).copied())
            .collect()
    }

    /// Makes the folder for an attempt's results. One that is made while all is to be kept is not remembered, so it stays for
    /// ever, whatever is said later.
    pub(crate) fn make_output(
        &self,
        folder: &Path,
        assignment: &Assignment,
    ) -> Result<(), state_dir::Error> {
        if self.config.outputs_kept.is_none() {
            return private_folder(folder);
        }
        let state = &self.state;
        state.make_output(folder, &assignment.job, assignment.epoch)
    }

    /// Shuts off what an account has of an attempt that has ended: its folder, until that is removed, and these results.
    pub(crate) async fn shut(&self, epoch: Epoch, output: Option<PathBuf>) {
        let folders = [Some(self.state.attempt(epoch)), output];
        let shut = move || {
            let shut = |folder: &PathBuf| folders::shut(folder);
            // Each of them, whatever becomes of the others; then the first that could not be.
            let all: Vec<_> = folders.iter().flatten().map(shut).collect();
            all.into_iter().collect::<Result<(), _>>()
        };
        if let Err(error) = beside(shut).await {
            tracing::error!(
                epoch,
                error = chain(&error),
                "what is left of an attempt stays open to its account"
            );
        }
    }

    /// The same of an attempt that an earlier process of this worker has left in its account's hands. Where other workers may
    /// have the same folder for results, one of them may run the job by now: there they stay open ([`Self::is_open`]) until an
    /// attempt of it ends, or the job is over.
    pub(crate) async fn shut_left_over(&self, attempt: &AttemptRecord) {
        let is_own = self.config.outputs.is_none();
        let output = is_own.then(|| self.results(&attempt.job));
        self.shut(attempt.epoch, output).await;
    }

    /// The folder for a job's results.
    pub(crate) fn results(&self, job: &str) -> PathBuf {
        self.outputs.join(job)
    }

    /// Whether an account still has the results of an attempt that has ended here, where other workers may have the same
    /// folder for results: the worker was killed, the attempt had lost its job when it ended, or this host of a gang gave them
    /// to it after the first had shut them off.
    pub(crate) fn is_open(&self, attempt: &AttemptRecord) -> bool {
        let has = |uid| is_of(&self.results(&attempt.job), &[uid]);
        self.may_be_open(attempt) && attempt.account.is_some_and(has)
    }

    /// Whether [`Self::is_open`] has to be asked, as far as this host's own disk says: that of the results may not answer.
    pub(crate) const fn may_be_open(&self, attempt: &AttemptRecord) -> bool {
        self.config.outputs.is_some() && attempt.account.is_some()
    }

    /// Shuts off a folder of results, of a job that is over, that an account for trainers still has.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) fn shut_results(&self, folder: &Path) -> Result<(), state_dir::Error> {
        match is_of(folder, &self.accounts.numbers()) {
            true => folders::shut(folder),
            false => Ok(()),
        }
    }

    /// The steps that an attempt makes of those that its trainer announces, where they differ.
    pub(crate) fn fewer_steps(&self, assignment: &Assignment) -> Option<FewerSteps> {
        let processes = u8::try_from(assignment.processes()).unwrap_or(u8::MAX);
        let plan = assignment.workload.plan(processes).ok()?;
        let fewer = FewerSteps {
            announced: plan.steps_announced,
            made: plan.steps_total,
        };
        (fewer.made < fewer.announced).then_some(fewer)
    }

    /// An attempt's epochs, if they say how long it runs.
    pub(crate) fn epochs(assignment: &Assignment) -> Option<Epochs> {
        let workload = &assignment.workload;
        let Length::Epochs(count) = workload.length else {
            return None;
        };
        let processes = u32::try_from(assignment.processes()).unwrap_or(u32::MAX);
        let replicas = (processes / workload.context_parallel.max(1)).max(1);
        let held_out = workload.sharing.held_out;
        Some(Epochs {
            count: count.into(),
            accumulation: workload.accumulation.into(),
            held_out: held_out.map_or(0, |set| set.batches(replicas.into())),
        })
    }

    /// What an attempt measures on the devices it was placed on.
    pub(crate) fn measures(&self, assignment: &Assignment) -> Measures {
        let devices = self.devices(&assignment.devices).unwrap_or_default();
        let hardware: Option<Hardware> = gpu::hardware(&devices);
        let count = u8::try_from(devices.len()).unwrap_or(u8::MAX);
        if assignment.gang.is_some() {
            return Measures::nothing(NoSample::SeveralHosts);
        }
        if !assignment.workload.measured_steps_on_record() {
            return Measures::nothing(NoSample::OffRecord);
        }
        let Ok(plan) = assignment.workload.plan(count) else {
            return Measures::nothing(NoSample::NoKey);
        };
        let training: Vec<_> = plan.training.iter().map(|part| part.0).collect();
        let validation: Vec<_> = plan.validation.iter().map(|part| part.0).collect();
        let workload = &assignment.workload;
        let is_played = hardware.is_some_and(|hardware| hardware.is_replay());
        let pass = Pass {
            images: workload.validation.as_ref().map_or(0, Pass::images_of),
            // A stream that is played has prompts of its own.
            prompts: if is_played {
                0
            } else {
                workload.sharing.validation_prompts
            },
        };
        let measures = Measures::new(&training, &validation, pass, hardware);
        match workload.on_record() {
            true => measures,
            false => measures.of_steps_alone(),
        }
    }
}

/// Whether a folder is there that one of these numbers owns.
fn is_of(folder: &Path, uids: &[u32]) -> bool {
    let data = std::fs::symlink_metadata(folder);
    data.is_ok_and(|data| data.is_dir() && uids.contains(&data.uid()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use futures::FutureExt;

    use super::*;
    use crate::order::TrainerKind;
    use crate::trainer;

    /// What is to run on no device at all.
    pub(crate) fn assignment(epoch: Epoch) -> Assignment {
        Assignment {
            epoch,
            job: format!("j{epoch}"),
            devices: Vec::new(),
            trainer: TrainerKind::Replay,
            workload: trainer::tests::workload(),
            lease_term_ms: 30_000,
            max_runtime_ms: None,
            resume_step: 0,
            gang: None,
        }
    }

    /// A leader that answers as a test says.
    #[derive(Debug, Default)]
    pub(crate) struct Leader {
        /// It answers nothing.
        pub(crate) is_away: AtomicBool,
        /// A call to it fails in a way that nobody has foreseen.
        pub(crate) fails: AtomicBool,
        /// Attempts that are not over.
        pub(crate) live: Mutex<Vec<Epoch>>,
        /// Jobs that are over.
        pub(crate) over: Mutex<Vec<String>>,
        /// Contributions that it has taken, by their ids.
        pub(crate) taken: Mutex<Vec<String>>,
        /// Contributions that it does not take for now, by their ids.
        pub(crate) refused: Mutex<Vec<String>>,
    }

    impl Leader {
        /// A worker of this leader, with its folder and its outputs in `root`.
        pub(crate) fn host(self: &Arc<Self>, root: &Path) -> Host {
            let state = StateDir::open(&root.join("state")).unwrap();
            let config = WorkerConfig::replay(Vec::new(), root.join("state"), Vec::new());
            Host {
                config,
                outputs: state.outputs().canonicalize().unwrap(),
                state,
                devices: Vec::new(),
                outbox: Outbox::default(),
                metrics: Metrics::default(),
                held: Held::default(),
                cleanup: Cleanup::default(),
                accounts: Accounts::look_up(&[]).unwrap(),
                turns: Turns::default(),
                wire: Box::new(Arc::clone(self)),
            }
        }

        fn answer<T>(&self, answer: T) -> Result<T, String> {
            assert!(!self.fails.load(Ordering::SeqCst), "no leader");
            let is_away = self.is_away.load(Ordering::SeqCst);
            (!is_away)
                .then_some(answer)
                .ok_or_else(|| "away".to_owned())
        }
    }

    impl Wire for Arc<Leader> {
        fn files<'a>(
            &'a self,
            _: &'a Assignment,
        ) -> BoxFuture<'a, Result<Handed, (Failure, String)>> {
            async {
                self.answer(Handed::default())
                    .map_err(|why| (Failure::LaunchFailed, why))
            }
            .boxed()
        }

        fn stands<'a>(
            &'a self,
            job: &'a str,
            epoch: Epoch,
        ) -> BoxFuture<'a, Result<Standing, String>> {
            let standing = if self.over.lock().unwrap().iter().any(|over| over == job) {
                Standing::JobOver
            } else if self.live.lock().unwrap().contains(&epoch) {
                Standing::Live
            } else {
                Standing::AttemptOver
            };
            async move { self.answer(standing) }.boxed()
        }

        fn contribute<'a>(
            &'a self,
            contribution: &'a Contribution,
        ) -> BoxFuture<'a, Result<(), Refused>> {
            async move {
                self.answer(()).map_err(Refused::Later)?;
                if self.refused.lock().unwrap().contains(&contribution.id) {
                    return Err(Refused::Later("not these".to_owned()));
                }
                self.taken.lock().unwrap().push(contribution.id.clone());
                Ok(())
            }
            .boxed()
        }
    }

    #[test]
    fn steps_are_measured_where_only_validation_is_off_the_record() {
        use stepcast_records::simpletuner::{OffRecord, Validation};
        use stepcast_records::{FrameClass, HalfMegapixels};

        let root = tempfile::tempdir().unwrap();
        let mut host = Arc::new(Leader::default()).host(root.path());
        host.devices = gpu::devices(gpu::Offer::Replay(1)).0;
        let measured = |reasons: &[OffRecord]| {
            let mut workload = crate::trainer::tests::workload();
            workload.validation = Some(Validation {
                every_steps: Some(10),
                every_epochs: None,
                after_step: 0,
                after_epoch: 0,
                at_start: false,
                baseline: false,
                generations: 1,
                resolutions: vec![HalfMegapixels::new(2).unwrap()],
                frames: FrameClass::Single,
                inference_steps: 20,
            });
            workload.off_record = reasons.to_vec();
            let measures = host.measures(&Assignment {
                epoch: 7,
                job: "jcats".to_owned(),
                devices: vec![0],
                trainer: crate::order::TrainerKind::SimpleTuner,
                workload,
                lease_term_ms: 30_000,
                max_runtime_ms: None,
                resume_step: 0,
                gang: None,
            });
            (measures.training().err(), measures.validation().err())
        };
        assert_eq!(measured(&[]), (None, None));
        let of_validation = Some(NoSample::ValidationOffRecord);
        for reason in [OffRecord::InferenceSteps, OffRecord::ValidationSetting] {
            assert_eq!(measured(&[reason]), (None, of_validation), "{reason}");
        }
        let all = Some(NoSample::OffRecord);
        for reason in [OffRecord::ValidationMethod, OffRecord::Compile] {
            assert_eq!(measured(&[reason]), (all, all), "{reason}");
        }
    }
}
