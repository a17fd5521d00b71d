//! What a person would change about a job or its team to have it start, in words.

use std::fmt;

use stepcast_records::{GpuModel, UsdMicros};

use crate::model::TeamName;

/// One thing to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Allow another GPU model.
    Allow(GpuModel),
    /// Ask for no more memory of each GPU than this, in GiB.
    Memory(u16),
    /// Ask for so many GPUs.
    Gpus(u8),
    /// Ask for so many hosts.
    Hosts(u8),
    /// Allow a price for all GPUs together, an hour.
    Price(UsdMicros),
    /// Allow a cost for all attempts together.
    Cost(UsdMicros),
    /// Set no limit on price and cost.
    NoLimits,
    /// Ask for no labels.
    NoLabels,
    /// Keep away from no label, and from no job of the same kind.
    Anywhere,
    /// Begin now.
    Now,
    /// Have this priority.
    Priority(i8),
    /// Approve what it costs.
    Approve,
    /// Give the team this quota of GPUs.
    Quota(TeamName, u32),
    /// Give the team this budget.
    TeamBudget(TeamName, UsdMicros),
}

impl Change {
    /// The sum of money that it asks for; none of a change that asks for none.
    pub(super) const fn money(&self) -> UsdMicros {
        match self {
            Self::Price(money) | Self::Cost(money) | Self::TeamBudget(_, money) => *money,
            _ => UsdMicros(0),
        }
    }

    /// The same change, of no money.
    pub(super) fn without_money(&self) -> Self {
        match self {
            Self::Price(_) => Self::Price(UsdMicros(0)),
            Self::Cost(_) => Self::Cost(UsdMicros(0)),
            Self::TeamBudget(team, _) => Self::TeamBudget(team.clone(), UsdMicros(0)),
            other => other.clone(),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(model) => write!(f, "allow {model}"),
            Self::Memory(gib) => write!(f, "ask for {gib} GiB of GPU memory"),
            Self::Gpus(1) => f.write_str("ask for 1 GPU"),
            Self::Gpus(count) => write!(f, "ask for {count} GPUs"),
            Self::Hosts(1) => f.write_str("ask for 1 host"),
            Self::Hosts(count) => write!(f, "ask for {count} hosts"),
            Self::Price(price) => write!(f, "allow {price} an hour"),
            Self::Cost(cost) => write!(f, "allow {cost} in all"),
            Self::NoLimits => f.write_str("set no limit on price and cost"),
            Self::NoLabels => f.write_str("ask for no labels"),
            Self::Anywhere => f.write_str("keep away from nothing"),
            Self::Now => f.write_str("begin now"),
            Self::Priority(priority) => write!(f, "have priority {priority}"),
            Self::Approve => f.write_str("have its cost approved"),
            Self::Quota(team, gpus) => write!(f, "let team {team} use {gpus} GPUs"),
            Self::TeamBudget(team, amount) => write!(f, "let team {team} spend {amount}"),
        }
    }
}
