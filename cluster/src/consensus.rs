//! One log, identical on every node: Raft, its storage and the threads that drive both. Entries are opaque bytes here.

mod admission;
mod applier;
mod driver;
mod handle;
pub mod log;
mod logger;
mod peer;
mod queue;
#[cfg(test)]
mod simulation;
mod storage;
#[cfg(test)]
mod tests;
mod transport;
mod waiters;
mod writer;

pub use self::admission::{MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES};
pub use self::applier::{Committed, Machine};
pub use self::driver::{Error, Start, TICK, start};
pub use self::handle::{Handle, Progress, Refused, Stall, State};
pub use self::peer::{
    Dropped, ELECTION_TICKS, HEARTBEAT_TICKS, Output, Peer, Proposed, Role, Write,
};
pub use self::transport::{Alone, Inbound, Transport};
