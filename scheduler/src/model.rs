//! What the state knows: jobs, their attempts and events, workers and their tokens, and the bounds of all of it.

pub mod attempt;
pub mod decay;
pub mod event;
pub mod gang;
pub mod job;
pub mod label;
pub mod limits;
pub mod nodes;
pub mod prices;
pub mod spec;
pub mod standing;
pub mod team;
pub mod terms;
pub mod worker;

mod gpu_numbers;

pub use attempt::{Attempt, AttemptState, Deadline, FailureReason, Lease, Outcome, StopReason};
pub use decay::HALF_LIFE_MS;
pub use event::{EventKind, JobEvent};
pub use gang::{Gang, Part, PartOf, PartState};
pub use job::{Job, JobState};
pub use label::Label;
pub use nodes::{Generation, Nodes, SECRETS_KEPT, Secret};
pub use prices::Prices;
pub use spec::{JobSpec, Objective, TrainerKind};
pub use standing::{Forgotten, Freed, Standing};
pub use team::{Account, Budget, Member, Period, Team, TeamName, TeamRules, Usage};
pub use terms::{ArrayPart, Owner, Terms};
pub use worker::{Drain, Inventory, Token, Worker, WorkerState};
