//! Between the wire and the words of the crates behind it, one direction a function; nothing is decided here.

mod estimate;
mod event;
mod job;
mod models;
mod quantity;
mod sample;
mod session;
mod sooner;
mod team;
mod terms;
mod why;
mod wishes;
mod worker;
mod workload;

pub(crate) use estimate::{estimates, hardware_list, note};
pub(crate) use event::event;
pub(crate) use job::{job, job_state, live_progress, seq, states};
pub(crate) use models::{read_as, written_instead};
pub(crate) use quantity::{duration_ms, duration_to_ms, timestamp_ms};
pub(crate) use sample::samples;
pub(crate) use session::{log_lines, order, report};
pub(crate) use sooner::sooner;
pub(crate) use team::{changed_policy, members, policy, team, team_rules};
pub(crate) use why::{hide_jobs, outlook, why};
pub(crate) use wishes::{labels, unsubmitted, wishes};
pub(crate) use worker::{inventory, token, worker};
pub(crate) use workload::workload;
