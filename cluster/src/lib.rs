//! One log, identical on a few nodes: consensus, its storage, the replicated state and the duties of a leader.
//!
//! [`Node::start`] opens a data directory and gives a [`Handle`]: commands go in through [`Handle::propose`], the state
//! is read with [`Handle::read`], a job is followed with [`Handle::watch`], and a worker's stream is one
//! [`Handle::attach`]. What a node needs of the world (the time, forecasts, prices, the records, the staging area) comes in
//! through [`Ports`].
//!
//! What is acknowledged is on disk: a reply means that the command was written, synced and applied. A node alone is a
//! cluster of one; several speak with each other through [`peers`].
#![warn(missing_docs)]

pub mod bare;
mod config;
pub mod consensus;
pub mod credentials;
mod disk;
mod doorkeeper;
pub mod error;
mod handle;
mod identity;
mod jobs;
mod leader;
pub mod members;
mod metrics;
mod network;
mod node;
pub mod peers;
pub mod ports;
mod proposer;
pub mod replica;
mod restore;
pub mod runtime;
pub mod session;
pub mod snapshot;
mod snapshotter;
mod stamp;
mod status;
mod tasks;
pub mod watch;

pub use config::{Config, Places};
pub use disk::make_folder;
pub use error::{AttachError, ProposeError, ReadError, ReportError, StartError};
pub use handle::{Handle, NewToken};
pub use identity::{Error as IdentityError, is_node};
pub use jobs::{JobUpdate, JobWatch};
pub use leader::{ContributeError, LOG_LINES, Live, Measured, Reports, Session};
pub use network::{Network, PeerPort};
pub use node::Node;
pub use ports::{
    Clock, Contribution, HostClock, NoPrices, NotRecorded, PortError, Ports, Pricing, RecordSink,
    Staging,
};
pub use proposer::{MAX_COMMAND_BYTES, Outcome, Proposal, Proposed};
pub use restore::{Error as RestoreError, Restoration, restore_into};
pub use runtime::Runtime;
pub use status::{Health, NodeStatus};
pub use tasks::{Ended, Tasks};
/// The newest log format that this version reads.
pub const LOG_FORMAT: u32 = stepcast_scheduler::codec::VERSION as u32;

pub use watch::{Update, Watch, WatchError};
