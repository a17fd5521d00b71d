//! One log, identical on a few nodes: consensus, its storage, the replicated state and the duties of a leader.

mod config;
pub mod consensus;
mod disk;
mod identity;
pub mod snapshot;
mod status;
