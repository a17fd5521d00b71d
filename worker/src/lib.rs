//! The agent on a GPU host: takes assignments, runs the trainer, watches it, and reports what it cost in time.

pub mod agent;
pub mod capture;
pub mod config;
pub mod event;
pub mod gpu;
pub mod guard;
pub mod random;
pub mod redact;
pub mod reduce;
pub mod replay;
pub mod state_dir;
pub mod stream;
pub mod sweep;
pub mod webhook;
