//! The agent on a GPU host: takes assignments, runs the trainer, watches it, and reports what it cost in time.
//!
//! [`run`] is the whole worker; the program that calls it also offers [`helpers`] as subcommands, which the worker starts as
//! processes of their own ([`config::WorkerConfig::helper`]).

pub mod account;
pub mod agent;
pub mod capture;
mod chain;
mod cleanup;
pub mod config;
mod disk;
mod ends;
pub mod event;
pub mod gpu;
pub mod guard;
pub mod helpers;
mod host;
mod metrics;
pub mod options;
pub mod order;
mod outputs;
mod outputs_id;
pub mod random;
pub mod redact;
pub mod reduce;
pub mod replay;
mod runner;
pub mod servers;
mod session;
mod spool;
mod start;
pub mod state_dir;
pub mod stream;
pub mod sweep;
mod tasks;
pub mod trainer;
pub mod waiting;
pub mod webhook;
mod work;

pub use self::metrics::PortError;
pub use self::session::{Refusal, Unusable};
pub use self::start::{Error, no_core_dumps, run, run_until};
pub use self::tasks::Ended;
