//! Who runs where, and why not: feasible, then ranked, then planned, with one opinion for the plan and the explanation.

pub mod forecast;

pub use crate::command::{Placement, PlacementNote};
pub use forecast::{Forecast, ForecastSource};
