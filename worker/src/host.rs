//! What all attempts of this worker share: its settings, devices, folder, and the way to the leader.

use std::path::PathBuf;

use futures::future::BoxFuture;
use stepcast_records::Hardware;

use crate::agent::Failure;
use crate::config::WorkerConfig;
use crate::gpu::{self, Device};
use crate::metrics::{Metrics, Moment};
use crate::order::{Assignment, Handed};
use crate::reduce::{Measures, NoSample};
use crate::session::outbox::Outbox;
use crate::state_dir::{Contribution, StateDir};

/// Shared by the loop and the attempts' tasks.
pub(crate) struct Host {
    pub(crate) config: WorkerConfig,
    pub(crate) state: StateDir,
    pub(crate) outputs: PathBuf,
    pub(crate) devices: Vec<Device>,
    pub(crate) outbox: Outbox,
    pub(crate) metrics: Metrics,
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

    /// Hands samples over; the leader takes each contribution id once, so asking again does no harm.
    fn contribute<'a>(
        &'a self,
        contribution: &'a Contribution,
    ) -> BoxFuture<'a, Result<(), Refused>>;
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
    pub(crate) fn metrics_text(&self) -> String {
        let (connected, reports) = self.outbox.stands();
        self.metrics.text(&Moment {
            connected,
            reports,
            // A folder that cannot be read is told by what fails because of it.
            samples: self.state.spooled_count().unwrap_or(0),
        })
    }

    /// The devices at these positions.
    pub(crate) fn devices(&self, positions: &[u8]) -> Option<Vec<Device>> {
        positions
            .iter()
            .map(|position| self.devices.get(usize::from(*position)).copied())
            .collect()
    }

    /// What an attempt measures on the devices it was placed on.
    pub(crate) fn measures(&self, assignment: &Assignment) -> Measures {
        let devices = self.devices(&assignment.devices).unwrap_or_default();
        let hardware: Option<Hardware> = gpu::hardware(&devices);
        let count = u8::try_from(devices.len()).unwrap_or(u8::MAX);
        if assignment.gang.is_some() {
            return Measures::nothing(NoSample::SeveralHosts);
        }
        if !assignment.workload.on_record() {
            return Measures::nothing(NoSample::OffRecord);
        }
        let Ok(plan) = assignment.workload.plan(count) else {
            return Measures::nothing(NoSample::NoKey);
        };
        let training: Vec<_> = plan.training.iter().map(|part| part.0).collect();
        let validation: Vec<_> = plan.validation.iter().map(|part| part.0).collect();
        let generations = assignment
            .workload
            .validation
            .as_ref()
            .map_or(0, |validation| validation.generations);
        Measures::new(&training, &validation, generations, hardware)
    }
}
