//! The services of `stepcast.v1`, one file each.

mod accounts;
mod agent;
mod attach;
mod cluster;
mod credit;
mod estimates;
mod jobs;
mod records;
mod scheduling;
mod workers;

pub(crate) use accounts::Accounts;
pub(crate) use agent::Agent;
pub(crate) use cluster::Cluster;
pub(crate) use credit::Credits;
pub(crate) use estimates::Estimates;
pub(crate) use jobs::Jobs;
pub(crate) use records::Records;
pub(crate) use scheduling::Scheduling;
pub(crate) use workers::Workers;
