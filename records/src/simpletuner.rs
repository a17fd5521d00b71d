//! SimpleTuner's configurations, read by whitelist into a workload: what a run asks for, and nothing of whose it is.

mod off_record;
mod plan;
mod workload;

pub use off_record::OffRecord;
pub use plan::{Missing, Plan};
pub use workload::{Dataset, Length, OutOfBounds, Validation, Workload};
