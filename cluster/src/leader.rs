//! The duties of the node that leads: it plans, dispatches, keeps leases, sweeps, and hears what workers report.

mod context;
mod credentials;
mod dispatcher;
pub(crate) mod duties;
mod expiry;
mod format;
mod handover;
mod leases;
mod live;
mod measured;
mod membership;
pub(crate) mod nodes;
mod orders;
mod orphans;
mod planner;
mod prices;
mod recorder;
mod reports;
mod signals;
mod sweeps;
pub(crate) mod view;

pub(crate) use self::context::Parts;
pub(crate) use self::duties::Slot;
pub(crate) use self::live::LiveBoard;
pub use self::live::{LOG_LINES, Live};
pub use self::measured::Measured;
pub(crate) use self::measured::millis;
pub use self::recorder::ContributeError;
pub(crate) use self::recorder::Recorder;
pub use self::reports::{Reports, Session};
pub(crate) use self::signals::Signals;
