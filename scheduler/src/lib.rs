//! The core that only decides: the domain model, the commands of the log, the state they make, and who runs where.
//!
//! Nothing here has a clock, randomness, a thread, a file, a socket or an environment. Time enters as a stamp on a
//! command, and what is to be done outside leaves as an [`Effect`]. So the same log gives the same bytes on every node,
//! and a whole cluster can be run in one thread from a seed. `clippy.toml` in this folder is the fence.
//!
//! # What goes in and what comes out
//!
//! A caller's wish is a [`Command`]; the leader puts it into an [`Envelope`] with its time and the caller's request id,
//! and [`codec`] turns it into bytes for the log. Every node applies each committed entry once, in order:
//!
//! - [`State::apply`] changes the state and gives back [`Applied`]: a [`Reply`] or a [`Rejection`] for the caller, and
//!   effects for the leader. A refused command changes nothing; a repeated request gets its first reply.
//! - [`State::view`] is the state of one moment, taken in a few milliseconds and written in chunks while the state goes
//!   on; [`Restoring`] makes a state of the chunks, looked through by [`invariants`] before it is used.
//! - [`placement::plan()`] says what should start now. It is proposed as [`Command::Place`], and apply looks at each
//!   placement again, so that what has become untrue in the meantime is dropped alone.
//! - [`placement::explain()`] says why a job does not start, by going through the queue with the planner's own rules.
//!
//! # The life of a job
//!
//! A job waits, and a placement gives it an *attempt*: a worker's GPUs under a *lease*. The lease's *epoch* is its place
//! in the log, so a later one is always greater; every report names it, and who names an older one is refused. The lease
//! ends when the worker reports the attempt's end, or when the leader says that it was not renewed; only then are the
//! GPUs free. What a failure means for the job follows from its reason alone
//! ([`FailureReason::retry`](model::FailureReason::retry)).
//!
//! Effects are hints and may be lost: whatever they ask for can be found in the state again
//! ([`State::live_attempts_on`], [`State::needs_staging`], [`State::is_sweep_due`]).
//!
//! The readable specification is `testdata/*.txt`: scripts of commands with what comes of them.
#![warn(missing_docs)]

pub mod accounts;
pub mod codec;
pub mod command;
pub mod course;
pub mod drift;
pub mod effect;
pub mod forward;
pub mod ids;
pub mod invariants;
pub mod model;
pub mod outlook;
pub mod placement;
pub mod policy;
pub mod rejection;
pub mod reply;
pub mod simulate;
pub mod sooner;
pub mod state;
pub mod what_if;

pub use command::{Command, Envelope};
pub use effect::Effect;
pub use ids::RequestId;
pub use policy::Policy;
pub use rejection::Rejection;
pub use reply::Reply;
pub use state::{Applied, Restoring, State, View};
