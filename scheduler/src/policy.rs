//! How a cluster decides: what it aims at, and what may be taken from a running job for it.
//!
//! A policy is a setting of the whole cluster and stands in the log, so that every node answers questions by the same
//! one. It holds whole numbers only: the same policy gives the same bytes.

pub mod balance;
mod master;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The policy of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What it aims at.
    pub aim: Aim,
    /// When a running job yields.
    pub preemption: Preemption,
    /// How long an attempt runs at least before it may be asked to yield, in milliseconds. A job may ask for more.
    pub min_run_ms: u64,
    /// How often one job may be asked to yield. A job may ask for less.
    pub preemptions_max: u8,
    /// What a restart takes before the first new step, in milliseconds: loading, and what a checkpoint does not keep.
    pub restart_ms: u64,
}

/// What a cluster aims at. Their order is part of the format: new ones are added at the end.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Aim {
    /// Short jobs first, each where it costs the others least, and long ones before they become the tail.
    #[default]
    Balanced,
    /// In the order in which jobs came, on whatever is free.
    Fifo,
    /// In the order in which jobs came, a higher priority counting as time waited, each on what its owner prefers.
    Priority,
    /// Every job gets its share of the time, whatever the hardware does for it.
    FairBlind,
    /// The least served job gets as much as it can get, counted in its own speed on each hardware.
    Fair,
    /// The last job ends as early as it can.
    Makespan,
    /// Jobs end as early as they can on average: the shortest remaining first.
    ShortestRemaining,
    /// The least money: a job waits for cheap hardware until it has to start to be done when it is wanted.
    Cost,
}

/// When a running job yields its GPUs. Their order is part of the format.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Preemption {
    /// Never.
    Never,
    /// To a job of a higher priority that finds no other place, and only then: whose work is lost least yields.
    #[default]
    ForPriority,
    /// Whenever what is gained is worth more than what is lost: the work since the last checkpoint and a restart.
    Priced,
}

impl Default for Policy {
    /// Running jobs are left alone.
    fn default() -> Self {
        Self {
            aim: Aim::default(),
            preemption: Preemption::default(),
            min_run_ms: 15 * 60_000,
            preemptions_max: 3,
            restart_ms: 3 * 60_000,
        }
    }
}

impl Policy {
    /// Bounds of a policy: attempts of one job are bounded, and so is how often it may be asked to yield.
    pub const PREEMPTIONS_MAX: u8 = 24;

    /// The longest an attempt may be kept from yielding, or a restart may be said to take: a day.
    pub const MS_MAX: u64 = 24 * 3_600_000;

    /// Whether every number is within its bounds.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.preemptions_max <= Self::PREEMPTIONS_MAX
            && self.min_run_ms <= Self::MS_MAX
            && self.restart_ms <= Self::MS_MAX
    }
}

impl Aim {
    /// All of them, as they are listed to people.
    pub const ALL: [Self; 8] = [
        Self::Balanced,
        Self::Fifo,
        Self::Priority,
        Self::FairBlind,
        Self::Fair,
        Self::Makespan,
        Self::ShortestRemaining,
        Self::Cost,
    ];

    /// Its name on the command line and in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balanced => "default",
            Self::Fifo => "fifo",
            Self::Priority => "priority",
            Self::FairBlind => "max-min-blind",
            Self::Fair => "max-min",
            Self::Makespan => "makespan",
            Self::ShortestRemaining => "shortest-remaining",
            Self::Cost => "cost",
        }
    }

    /// Whether it deals out time, so that everybody has a turn after a while.
    #[must_use]
    pub const fn is_fair(self) -> bool {
        matches!(self, Self::Fair | Self::FairBlind)
    }

    /// Whether it looks at how fast a job is on which hardware.
    #[must_use]
    pub const fn knows_hardware(self) -> bool {
        !matches!(self, Self::Fifo | Self::FairBlind)
    }
}

impl Preemption {
    /// Its name on the command line and in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::ForPriority => "for-priority",
            Self::Priced => "priced",
        }
    }
}

/// Not the name of anything in a policy; with the names that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is none of this name; there are {0}")]
pub struct UnknownName(&'static str);

impl FromStr for Aim {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|aim| aim.name() == name);
        found.ok_or(UnknownName(
            "default, fifo, priority, max-min-blind, max-min, makespan, shortest-remaining and cost",
        ))
    }
}

impl FromStr for Preemption {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let all = [Self::Never, Self::ForPriority, Self::Priced];
        all.into_iter()
            .find(|when| when.name() == name)
            .ok_or(UnknownName("never, for-priority and priced"))
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Preemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for aim in Aim::ALL {
            assert_eq!(aim.name().parse(), Ok(aim));
        }
        for when in [
            Preemption::Never,
            Preemption::ForPriority,
            Preemption::Priced,
        ] {
            assert_eq!(when.name().parse(), Ok(when));
        }
        let unknown = "fastest".parse::<Aim>().expect_err("no aim").to_string();
        for aim in Aim::ALL {
            assert!(unknown.contains(aim.name()), "{unknown}");
        }
    }

    #[test]
    fn a_policy_within_its_bounds_is_sound() {
        assert!(Policy::default().is_sound());
        let too_often = Policy {
            preemptions_max: Policy::PREEMPTIONS_MAX + 1,
            ..Policy::default()
        };
        assert!(!too_often.is_sound());
    }
}
