//! One log, identical on every node: Raft, its storage and the threads that drive both. Entries are opaque bytes here.

mod admission;
mod applier;
mod change;
mod core;
mod driver;
mod event;
mod gather;
mod handle;
pub mod log;
mod logger;
mod peer;
mod queue;
mod reads;
#[cfg(test)]
mod simulation;
mod storage;
#[cfg(test)]
mod tests;
mod transport;
mod turn;
mod waiters;
mod writer;

/// What to do about a node whose log has something in it that cannot be read and does not say why.
pub(crate) const UNREADABLE: &str = "upgrade this node if others are newer, or else remove it, delete its data folder and let it join anew";

pub use self::admission::{MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES};
pub use self::applier::{Applier, Committed, Machine};
pub use self::change::{Change, ChangeError};
pub use self::core::{Core, Effect};
pub use self::driver::{Error, Start, TICK, start};
pub use self::event::{ChangeWaiter, Delivery, Event, ReadWaiter, Task, Waiter};
pub use self::handle::{Handle, Progress, Refused, Stall, State};
pub(crate) use self::handle::{Ready, Waiting};
pub use self::peer::{
    Begin, Dropped, ELECTION_TICKS, HANGS_TICKS, HEARTBEAT_TICKS, NodeProgress, Output, Peer,
    Proposed, ReadId, Role, Sending, Write,
};
pub use self::transport::{Alone, Inbound, Standing, Transport, Word};
pub use self::turn::Bare;
