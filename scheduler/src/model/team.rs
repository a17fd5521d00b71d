//! A team: who pays for jobs, what share of the GPUs it is due, and what it may use and spend.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use stepcast_records::UsdMicros;

use super::decay::Decayed;
use super::limits::PRIORITIES;
use super::terms::Owner;
use crate::ids::{OrgId, TeamId, UserId};

/// A team. Teams form a tree of two levels: `acme/vision` is a part of `acme`, and every limit of both holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Team {
    /// Its id: never given again.
    pub id: TeamId,
    /// What it is called.
    pub name: TeamName,
    /// The team that it is a part of.
    pub parent: Option<TeamId>,
    /// What it is due and what it may.
    pub rules: TeamRules,
    /// What it has spent and used.
    pub account: Account,
    /// Whose jobs alone may run in it and its parts; empty for everybody's. Written in a section of its own of a snapshot.
    #[serde(skip)]
    pub only: BTreeSet<Member>,
}

/// Who may be in a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Member {
    /// Everybody in an organisation.
    Org(OrgId),
    /// Somebody.
    User(UserId),
}

/// What a team is due and what it may. Limits are for the team and its parts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeamRules {
    /// Its share against the other teams of the same parent: 1 to [`TeamRules::WEIGHT_MAX`].
    pub weight: u32,
    /// Most GPUs that it may use at the same time.
    pub gpu_quota: Option<u32>,
    /// Most money that it may spend.
    pub budget: Option<Budget>,
    /// A job may cost more than this only once somebody has approved it.
    pub approve_above: Option<UsdMicros>,
    /// The highest priority that its jobs may have.
    pub priority_max: i8,
}

/// Money for a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// How much.
    pub amount: UsdMicros,
    /// For how long, until there is as much again.
    pub period: Period,
}

/// The time that a budget is for. Periods begin at midnight UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Period {
    /// For good.
    #[default]
    Once,
    /// A day.
    Day,
    /// A calendar month.
    Month,
}

/// What a team has spent and used, its parts included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// When the period began that `spent` is of, by stamp.
    pub period_ms: u64,
    /// What attempts that ended in this period have cost.
    pub spent: UsdMicros,
    /// Most that spent and promised money may come to: the budget, or what was promised when it was lowered.
    pub ceiling: UsdMicros,
    /// Most GPUs that may be in use: the quota, or what was in use when it was lowered.
    pub gpu_ceiling: u32,
    /// Money used, the older the less.
    pub usd: Decayed,
    /// Useful work done, the older the less; see [`Usage::work`].
    pub work: Decayed,
}

/// What a team has used lately: past use fades by half in a week.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// In money: what its attempts have cost.
    pub usd: UsdMicros,
    /// In work: seconds of GPUs times their rated bf16 TFLOPS, for the steps that were kept.
    pub work: u64,
}

/// What a team is called: one or two words with a slash between them, such as `acme/vision`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TeamName(String);

/// The text is no name of a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a team is called by one word, or two with a slash between them as in acme/vision; a word has 1 to 32 of a-z, 0-9, `-`, `_` and `.`"
)]
pub struct Error;

impl Team {
    /// The team of who has none: always there.
    #[must_use]
    pub fn default_team() -> Self {
        Self {
            id: TeamId::DEFAULT,
            name: TeamName("default".to_owned()),
            parent: None,
            rules: TeamRules::default(),
            account: Account::default(),
            only: BTreeSet::new(),
        }
    }

    /// Whether jobs of this owner may run in it. What belongs to nobody is an operator's, or of a cluster that asks nobody.
    #[must_use]
    pub fn is_open_to(&self, owner: Option<Owner>) -> bool {
        owner.is_none_or(|Owner { org, user }| {
            let either = [Member::Org(org), Member::User(user)];
            self.only.is_empty() || either.iter().any(|member| self.only.contains(member))
        })
    }

    /// What was spent in the period that `now_ms` is in.
    #[must_use]
    pub fn spent(&self, now_ms: u64) -> UsdMicros {
        let period = self
            .rules
            .budget
            .map_or(Period::Once, |budget| budget.period);
        if period.start_ms(now_ms) > self.account.period_ms {
            UsdMicros(0)
        } else {
            self.account.spent
        }
    }
}

impl Default for TeamRules {
    fn default() -> Self {
        Self {
            weight: 1,
            gpu_quota: None,
            budget: None,
            approve_above: None,
            priority_max: *PRIORITIES.end(),
        }
    }
}

impl TeamRules {
    /// The greatest weight: enough for any share that can be told from another.
    pub const WEIGHT_MAX: u32 = 10_000;

    /// Whether everything is within its bounds.
    ///
    /// # Errors
    /// What is not, as a sentence.
    pub fn check(&self) -> Result<(), &'static str> {
        match () {
            () if !(1..=Self::WEIGHT_MAX).contains(&self.weight) => {
                Err("a weight is from 1 to 10,000: without one a team would never get its turn")
            }
            () if self.gpu_quota == Some(0) => {
                Err("a quota of no GPU would hold every job for ever")
            }
            () if self.budget.is_some_and(|budget| budget.amount.0 == 0) => {
                Err("a budget of nothing would hold every job for ever")
            }
            () if !PRIORITIES.contains(&self.priority_max) => Err("a priority is from -10 to 10"),
            () => Ok(()),
        }
    }
}

impl Period {
    /// When the period began that `now_ms` is in, by stamp.
    #[must_use]
    pub const fn start_ms(self, now_ms: u64) -> u64 {
        const DAY_MS: u64 = 86_400_000;
        match self {
            Self::Once => 0,
            Self::Day => now_ms - now_ms % DAY_MS,
            Self::Month => (now_ms / DAY_MS - day_of_month(now_ms / DAY_MS)) * DAY_MS,
        }
    }

    /// When the next period begins, by stamp; `None` if none does.
    #[must_use]
    pub const fn next_ms(self, now_ms: u64) -> Option<u64> {
        const DAY_MS: u64 = 86_400_000;
        // No month is longer, and no two are together as short.
        const DAYS_MAX: u64 = 31;
        let start_ms = self.start_ms(now_ms);
        match self {
            Self::Once => None,
            Self::Day => start_ms.checked_add(DAY_MS),
            Self::Month => match start_ms.checked_add(DAYS_MAX * DAY_MS) {
                Some(ms) => Some(self.start_ms(ms)),
                None => None,
            },
        }
    }
}

/// Which day of its month a day is, from 0, in the Gregorian calendar; days count from 1970.
const fn day_of_month(day: u64) -> u64 {
    /// Days of four hundred years, after which the calendar repeats.
    const CYCLE: u64 = 146_097;
    /// Days from the first of January 1970 to that of 2000, where such a cycle begins.
    const TO_2000: u64 = 10_957;
    let mut left = (day + CYCLE - TO_2000) % CYCLE;
    let mut year = 0;
    loop {
        let leap = year % 4 == 0 && (year % 100 != 0 || year == 0);
        let days = if leap { 366 } else { 365 };
        if left >= days {
            left -= days;
            year += 1;
            continue;
        }
        let months = [
            31,
            if leap { 29 } else { 28 },
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ];
        let mut month = 0;
        while left >= months[month] {
            left -= months[month];
            month += 1;
        }
        return left;
    }
}

impl TeamName {
    /// Longest word.
    const WORD_MAX: usize = 32;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the team that it is a part of.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.0.split_once('/')?;
        Some(Self(parent.to_owned()))
    }
}

impl TryFrom<String> for TeamName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        let word =
            |word: &str| (1..=Self::WORD_MAX).contains(&word.len()) && word.bytes().all(letter);
        let fits = text.split('/').count() <= 2 && text.split('/').all(word);
        if fits { Ok(Self(text)) } else { Err(Error) }
    }
}

impl FromStr for TeamName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::try_from(text.to_owned())
    }
}

impl From<TeamName> for String {
    fn from(name: TeamName) -> Self {
        name.0
    }
}

impl fmt::Display for TeamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_or_two_words() {
        for name in ["acme", "acme/vision", "a-1/b_2.x"] {
            assert!(name.parse::<TeamName>().is_ok(), "{name}");
        }
        for name in ["", "/", "a/", "/b", "a/b/c", "A", "a b", &"x".repeat(33)] {
            assert_eq!(name.parse::<TeamName>(), Err(Error), "{name}");
        }
        let parent = |name: &str| name.parse::<TeamName>().expect("a name").parent();
        assert_eq!(
            parent("acme/vision").as_ref().map(TeamName::as_str),
            Some("acme")
        );
        assert_eq!(parent("acme"), None);
    }

    #[test]
    fn periods_begin_at_midnight_and_on_the_first() {
        const DAY: u64 = 86_400_000;
        // Days since 1970, and the first of their month: from a calendar.
        for (day, first) in [
            (0, 0),
            (30, 0),
            (31, 31),
            (58, 31),
            (59, 59),
            (789, 761),       // 29 February 1972
            (790, 790),       // 1 March 1972
            (10_956, 10_926), // 31 December 1999
            (11_016, 10_988), // 29 February 2000
            (20_783, 20_758), // 26 November 2026
        ] {
            assert_eq!(
                Period::Month.start_ms(day * DAY + 5),
                first * DAY,
                "day {day}"
            );
            assert_eq!(Period::Day.start_ms(day * DAY + 5), day * DAY);
            let next = Period::Month.next_ms(day * DAY + 5).expect("a month comes");
            assert!(next > day * DAY + 5 && Period::Month.start_ms(next - 1) == first * DAY);
            assert_eq!(Period::Day.next_ms(day * DAY + 5), Some((day + 1) * DAY));
        }
        assert_eq!(Period::Once.start_ms(u64::MAX), 0);
        assert!(Period::Month.start_ms(u64::MAX) > 0);
    }

    #[test]
    fn a_team_without_weight_is_none() {
        let weight = |weight| {
            TeamRules {
                weight,
                ..TeamRules::default()
            }
            .check()
            .is_ok()
        };
        assert!(weight(1) && weight(10_000) && !weight(0) && !weight(10_001));
    }
}
