//! What an attempt finds on the disk when it begins.

use std::sync::Arc;

use super::{NotLaunched, launch_failed};
use crate::account::{Account, environment, folders};
use crate::chain::chain;
use crate::gpu::Device;
use crate::host::Host;
use crate::order::{Assignment, Handed, Report};
use crate::state_dir::{self, AttemptRecord};
use crate::trainer::{self, Ground, Launch};

/// What is to be written for an attempt.
pub(super) struct Preparation {
    pub(super) host: Arc<Host>,
    pub(super) assignment: Assignment,
    pub(super) handed: Handed,
    pub(super) devices: Vec<Device>,
    pub(super) marker: String,
    /// Where webhooks go, and the token they carry.
    pub(super) webhook: (String, String),
    /// Whom its trainer runs as, if not as the worker.
    pub(super) account: Option<Account>,
}

impl Preparation {
    /// Writes down what the attempt is, and then what its trainer needs.
    pub(super) fn write(self) -> Result<Launch, NotLaunched> {
        let Self {
            host, assignment, ..
        } = &self;
        let record = AttemptRecord {
            epoch: assignment.epoch,
            job: assignment.job.clone(),
            marker: self.marker.clone(),
            shared: trainer::shared_cache(assignment, &host.outputs),
            account: self.account.as_ref().map(|account| account.ids.uid),
        };
        let folder = host
            .state
            .begin_attempt(&record)
            .map_err(|error| launch_failed(&error))?;
        if let Some(output) = trainer::new_output(assignment, &host.outputs) {
            host.make_output(&output, assignment)
                .map_err(|error| launch_failed(&error))?;
        }
        let ground = Ground {
            config: &host.config,
            assignment,
            files: &self.handed.files,
            credentials: &self.handed.credentials,
            devices: &self.devices,
            account: self.account.as_ref().map(|account| &account.ids),
            folder: &folder,
            outputs: &host.outputs,
            marker: &self.marker,
            webhook: (&self.webhook.0, &self.webhook.1),
        };
        let mut launch = trainer::prepare(&ground)
            .map_err(|error| NotLaunched(error.failure(), chain(&error)))?;
        if let Some(account) = &self.account {
            self.give(account, &folder)
                .map_err(|error| launch_failed(&error))?;
            environment::step_into(&mut launch, account, &folder);
        }
        if let Some(lack) = launch.lacks(assignment.resume_step) {
            tracing::warn!(epoch = assignment.epoch, job = assignment.job, "{lack}");
            let line = format!("({lack})");
            host.outbox.push(Report::Logs(assignment.epoch, vec![line]));
        }
        Ok(launch)
    }

    /// Gives the account what its trainer reads and writes. From here on nothing of that is written by a name any more.
    fn give(&self, account: &Account, folder: &std::path::Path) -> Result<(), state_dir::Error> {
        folders::give_attempt(folder, &account.ids)?;
        match trainer::output(&self.assignment, &self.host.outputs) {
            Some(output) => {
                let trainers = self.host.accounts.numbers();
                let cache = trainer::shared_cache(&self.assignment, &self.host.outputs);
                folders::give(&output, &account.ids, &trainers, cache.as_deref())
            }
            None => Ok(()),
        }
    }
}
