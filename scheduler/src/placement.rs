//! Who runs where, and why not: feasible, then ranked, then planned, with one opinion for the plan and the explanation.

pub mod explain;
pub mod feasible;
pub mod forecast;
pub mod ledger;
pub mod plan;
pub mod reason;

mod left;
mod look;
mod outlook;
mod planner;
mod pool;
mod shares;
mod survey;
mod wording;

pub use crate::command::{Placement, PlacementNote};
pub use explain::{Line, Why, explain, explain_expecting};
pub use forecast::{Forecast, ForecastSource, NoForecast};
pub use ledger::Ledger;
pub(crate) use left::{Left, begun, part_of};
#[cfg(test)]
pub(crate) use look::fair_work;
pub use plan::{Plan, plan};
pub use planner::{Planner, Portion, Question};
pub use reason::{Reason, Tier};
