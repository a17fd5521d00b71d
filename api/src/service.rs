//! What each call does, whichever way it came: gRPC and HTTP only read a request and write an answer.

mod accounts;
pub(crate) mod ahead;
mod arrays;
mod changes;
mod cluster;
mod credentials;
mod estimates;
mod jobs;
mod prices;
mod records;
mod scheduling;
mod submit;
mod too_low;
mod watch;
mod what_if;
mod workers;

pub(crate) use accounts::Accounts;
pub(crate) use arrays::{Sweep, check_count, turns as sweeps};
pub(crate) use changes::mixed;
pub(crate) use cluster::{Backup, Cluster};
pub(crate) use estimates::Estimates;
pub(crate) use jobs::Jobs;
pub(crate) use prices::CSV_BYTES_MAX as PRICES_BYTES_MAX;
pub(crate) use records::{CSV_BYTES_MAX as RECORDS_BYTES_MAX, Parts, Records};
pub(crate) use scheduling::Scheduling;
pub(crate) use watch::Updates;
pub(crate) use workers::{Workers, unexpected};
