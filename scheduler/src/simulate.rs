//! A trace of jobs played through the real engine under a virtual clock: what `stepcast simulate` does, without a file.
//!
//! Jobs come from a [`Trace`], their speeds from [`Speeds`], both as text in the formats that are documented there. Every
//! job is submitted, placed, asked to yield and ended by commands of the log, and every decision is
//! [`plan`](crate::placement::plan())'s. What is measured is read from the state's own attempts.

mod noise;
mod outcome;
mod promises;
mod rows;
mod scene;

pub use noise::Noise;
pub use outcome::{Fairness, Outcome, Span};
pub use promises::{Kept, Promises};
pub use rows::{BadRow, JOBS_MAX, Speeds, Trace, TraceJob};
pub use scene::{Group, Scene, SceneError};

use crate::forward::{Forward, Looked};
use crate::ids::JobId;
use crate::policy::Policy;
use crate::rejection::Rejection;
use crate::{Command, State, codec};

/// When a simulation begins, by stamp: not at zero, so that everything before has room.
const BEGIN_MS: u64 = 1_000_000_000;

/// How to simulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The policy of the cluster.
    pub policy: Policy,
    /// How often the queue is looked at although nothing happens, in milliseconds; 0 for never.
    pub look_every_ms: u64,
}

/// Something a simulation stops over.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Stopped {
    /// The state refuses the policy or a worker: there are too many, for one.
    #[error("the cluster is refused: {source}")]
    Cluster {
        /// What the state says.
        source: Rejection,
    },
    /// The state refuses a job.
    #[error("job {job} of the trace is refused: {source}")]
    Refused {
        /// Its id in the trace.
        job: u64,
        /// What the state says.
        source: Rejection,
    },
    /// Nothing runs, nothing comes, and jobs still wait.
    #[error("{waiting} jobs wait and nothing will ever start them")]
    Stuck {
        /// How many.
        waiting: usize,
    },
    /// The state takes another view of a plan than the planner.
    #[error("the state refused {count} decisions of the planner")]
    Disagreed {
        /// How many.
        count: usize,
    },
}

/// Plays a scene to its end. `look` has the queue looked at, so that a caller can take the time, show how far it is, or
/// give up by `None`.
///
/// # Errors
/// What it stopped over.
pub fn play(
    scene: &Scene,
    options: Options,
    mut look: impl FnMut(&mut Forward<'_>) -> Option<Looked>,
) -> Result<Option<Outcome>, Stopped> {
    let mut forward = Forward::new(State::new(), scene, scene, BEGIN_MS);
    forward.look_every_ms = options.look_every_ms;
    // Every job of a trace is done in the end, and counts, however long the cluster is too small for it.
    forward.sweeps = false;
    let cluster = |source| Stopped::Cluster { source };
    let refused = |job: u64| move |source| Stopped::Refused { job, source };
    let version = codec::VERSION;
    forward
        .apply(Command::Barrier { version })
        .and_then(|_| {
            let policy = options.policy;
            forward.apply(Command::SetPolicy { policy })
        })
        .map_err(cluster)?;
    for command in scene.joins() {
        forward.apply(command).map_err(cluster)?;
    }
    let mut jobs: Vec<JobId> = Vec::with_capacity(scene.jobs().len());
    let mut order: Vec<usize> = (0..scene.jobs().len()).collect();
    let arrival_ms = |index: usize| BEGIN_MS + scene.jobs()[index].arrival_ms();
    order.sort_by_key(|index| (arrival_ms(*index), *index));
    let mut coming = order.iter().copied().peekable();
    let mut by_row = vec![JobId(0); scene.jobs().len()];
    loop {
        while let Some(index) = coming.next_if(|index| arrival_ms(*index) <= forward.now_ms()) {
            let job = forward
                .submit(scene.spec(index))
                .map_err(refused(scene.jobs()[index].id))?;
            by_row[index] = job;
            jobs.push(job);
        }
        loop {
            let Some(looked) = look(&mut forward) else {
                return Ok(None);
            };
            if looked.refused > 0 {
                let count = looked.refused;
                return Err(Stopped::Disagreed { count });
            }
            if looked.plan.is_empty() {
                break;
            }
        }
        let next_arrival = coming.peek().map(|index| arrival_ms(*index));
        if next_arrival.is_none() && forward.is_over() {
            break;
        }
        let Some(next_ms) = forward.next_ms().into_iter().chain(next_arrival).min() else {
            let waiting = forward.state().pending_count();
            return Err(Stopped::Stuck { waiting });
        };
        forward.go_on(next_ms);
    }
    Ok(Some(Outcome::of(scene, forward.state(), &by_row, BEGIN_MS)))
}

#[cfg(test)]
mod tests;
