//! One log, identical on a few nodes: consensus, its storage, the replicated state and the duties of a leader.

pub mod consensus;
