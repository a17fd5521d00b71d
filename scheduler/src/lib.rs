//! The core that only decides: the domain model, the commands of the log, the state they make, and who runs where.
//!
//! Nothing here has a clock, randomness, a thread, a file, a socket or an environment. Time enters as a stamp on a
//! command, and what is to be done outside leaves as an [`Effect`]. So the same log gives the same bytes on every node,
//! and a whole cluster can be run in one thread from a seed.
#![warn(missing_docs)]

pub mod codec;
pub mod command;
pub mod effect;
pub mod ids;
pub mod invariants;
pub mod model;
pub mod placement;
pub mod rejection;
pub mod reply;
pub mod state;

pub use command::{Command, Envelope};
pub use effect::Effect;
pub use ids::RequestId;
pub use rejection::Rejection;
pub use reply::Reply;
pub use state::{Applied, State};
