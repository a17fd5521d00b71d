//! When jobs will start and be done: the real engine run forward from a copy of the state, in several worlds.
//!
//! In each world every run takes another time within what its forecast says, the same for the same job and world every
//! time. What comes out is sorted: half of the worlds are no later than p50, nine in ten no later than p90. What nobody
//! has submitted yet is in no world, and a job without a forecast runs as long as nobody can say.

mod normal;
mod prior;
mod world;

use std::collections::BTreeMap;

use crate::forward::Forward;
use crate::ids::{Epoch, JobId};
use crate::model::{Job, JobState};
use crate::placement::{ForecastSource, Plan};
use crate::policy::Preemption;
use crate::state::State;
use prior::Prior;
use world::World;

/// Worlds that are looked at, as many as there is time for: sixteen are enough for a ninth decile, and four for a rough
/// one.
pub const WORLDS: [usize; 3] = [16, 8, 4];

/// How far ahead a world is followed, in milliseconds: sixty days. What is over is kept for longer, and nothing waits so
/// long.
pub const AHEAD_MAX_MS: u64 = 60 * 24 * 3_600_000;

/// Times at which something happens in one world, beyond which it is left as it is.
const EVENTS_MAX: usize = 200_000;

/// Looks at the queue at one time: each may make room for another.
const LOOKS: usize = 8;

/// When jobs are expected to start and to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Every job that was asked for and is not over.
    pub jobs: BTreeMap<JobId, Expected>,
    /// In how many worlds; one is the middle one, which has no ninth decile, and without any there was no time to tell.
    pub worlds: usize,
}

/// When a job is expected to start and to be done, by stamp.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// When it starts the next time; nothing for what runs, or if it does not start in so many worlds.
    pub start: Times,
    /// When it is done; nothing if it never is, or ends in another way, in so many worlds.
    pub finish: Times,
}

/// Two quantiles of a time, by stamp.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// In half of the worlds it is no later.
    pub p50_ms: Option<u64>,
    /// In nine of ten worlds it is no later.
    pub p90_ms: Option<u64>,
}

/// Whose times are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom<'a> {
    /// Everybody's.
    All,
    /// These jobs', which is quicker: nothing is followed beyond their ends.
    These(&'a [JobId]),
}

/// When jobs are expected to start and to be done. `spent` is asked now and then which part of the time that there is has
/// been spent: it decides in how many worlds, and at 1 whatever is not told is given up.
#[must_use]
pub fn outlook(
    state: &State,
    forecast: &dyn ForecastSource,
    now_ms: u64,
    whom: Whom<'_>,
    spent: &dyn Fn() -> f64,
) -> Outlook {
    let waits = |id: JobId| {
        let job = state.open_job(id)?;
        Some((id, job.state == JobState::Pending))
    };
    let jobs: BTreeMap<JobId, bool> = match whom {
        Whom::These(jobs) => jobs.iter().filter_map(|id| waits(*id)).collect(),
        Whom::All => {
            let leased = state.leases().map(|lease| lease.job);
            let waiting = state.pending().map(|job| job.id);
            leased.chain(waiting).filter_map(waits).collect()
        }
    };
    let view = Viewer {
        state,
        forecast,
        prior: &Prior::of(state, forecast),
        now_ms,
        jobs: &jobs,
        spent,
    };
    let begun = spent();
    let Some(middle) = view.world(0, 1) else {
        return Outlook::default();
    };
    let left = 1.0 - spent();
    let one = 1.0 - begun - left;
    let worlds = WORLDS.into_iter().find(|count| one * *count as f64 <= left);
    let all: Option<Vec<Seen>> = worlds.and_then(|count| {
        let worlds = (0..count).map(|number| view.world(number, count));
        worlds.collect()
    });
    match all {
        Some(all) => told(&jobs, &all),
        None => told(&jobs, &[middle]),
    }
}

/// When each job starts and when it is done, in one world.
type Seen = Vec<Came>;

/// When one job starts and when it is done.
type Came = (Option<u64>, Option<u64>);

/// The quantiles of what was seen in several worlds.
fn told(jobs: &BTreeMap<JobId, bool>, worlds: &[Seen]) -> Outlook {
    let expected = jobs.iter().enumerate().map(|(index, (id, waits))| {
        let seen = |pick: fn(&Came) -> Option<u64>| {
            let of_world = worlds.iter().filter_map(|seen| seen.get(index));
            Times::of(of_world.map(pick).collect())
        };
        let start = if *waits {
            seen(|(start, _)| *start)
        } else {
            Times::default()
        };
        let finish = seen(|(_, finish)| *finish);
        (*id, Expected { start, finish })
    });
    Outlook {
        jobs: expected.collect(),
        worlds: worlds.len(),
    }
}

/// What is followed, and from where.
struct Viewer<'a> {
    state: &'a State,
    forecast: &'a dyn ForecastSource,
    prior: &'a Prior,
    now_ms: u64,
    /// Whose times are wanted, and whether they wait.
    jobs: &'a BTreeMap<JobId, bool>,
    spent: &'a dyn Fn() -> f64,
}

impl Viewer<'_> {
    /// Follows one of so many worlds until everything that is wanted is told; `None` if the time is up before.
    fn world(&self, number: usize, of: usize) -> Option<Seen> {
        let world = World {
            forecast: self.forecast,
            prior: self.prior,
            policy: *self.state.policy(),
            number,
            of,
        };
        let mut forward = Forward::new(self.state.clone(), self.forecast, &world, self.now_ms);
        // What yields to nobody ends where it started.
        let stays = match self.state.policy().preemption {
            Preemption::Never => true,
            Preemption::ForPriority => self.are_of_one_priority(),
            Preemption::Priced => false,
        };
        let end_ms = forward.now_ms().saturating_add(AHEAD_MAX_MS);
        let mut open: Vec<JobId> = self.jobs.keys().copied().collect();
        let mut starts = BTreeMap::new();
        for _ in 0..EVENTS_MAX {
            for _ in 0..LOOKS {
                if (self.spent)() >= 1.0 {
                    return None;
                }
                let plan = forward.look(Epoch::PLACEMENTS_MAX as usize).plan;
                self.note_starts(&forward, &plan, &mut starts);
                if plan.is_empty() {
                    break;
                }
            }
            let is_open = |id: &JobId| {
                let runs_on = !stays || forward.ends_ms(*id).is_none();
                forward.state().open_job(*id).is_some() && runs_on
            };
            // The last is looked for first: most of the time it is still open, and nothing else needs a look.
            while open.last().is_some_and(|id| !is_open(id)) {
                open.pop();
            }
            match forward.next_ms() {
                Some(ms) if !open.is_empty() && ms <= end_ms => forward.go_on(ms),
                _ => break,
            }
        }
        let seen = self.jobs.keys().map(|id| {
            let start = starts.get(id).copied();
            (start, finish(&forward, *id))
        });
        Some(seen.collect())
    }

    /// Keeps when each job started first. It is noted as it happens: of many attempts the state forgets the oldest.
    fn note_starts(&self, forward: &Forward<'_>, plan: &Plan, starts: &mut BTreeMap<JobId, u64>) {
        let placed = plan.placements.iter().map(|placement| placement.job);
        for id in placed.filter(|id| self.jobs.contains_key(id)) {
            let job = forward.state().open_job(id);
            if let Some(attempt) = job.and_then(Job::live_attempt) {
                starts.entry(id).or_insert(attempt.placed_ms);
            }
        }
    }

    /// Whether no job goes before another for its priority.
    fn are_of_one_priority(&self) -> bool {
        let mut all = prior::running(self.state).chain(self.state.pending());
        let first = all.next().map(|job| job.spec.priority);
        all.all(|job| Some(job.spec.priority) == first)
    }
}

/// When a job is done, as far as it went.
fn finish(forward: &Forward<'_>, id: JobId) -> Option<u64> {
    let job = forward.state().job(id)?;
    match job.state {
        JobState::Succeeded => job.ended_ms,
        JobState::Running => forward.ends_ms(id),
        _ => None,
    }
}

impl Times {
    /// The quantiles of what came out; what never came is later than everything.
    fn of(mut times: Vec<Option<u64>>) -> Self {
        times.sort_by_key(|time| time.unwrap_or(u64::MAX));
        let at = |share: usize| {
            let index = (times.len() * share).div_ceil(100).saturating_sub(1);
            times.get(index).copied().flatten()
        };
        Self {
            p50_ms: at(50),
            // One world says nothing about how far others are from it.
            p90_ms: if times.len() > 1 { at(90) } else { None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_what_may_never_come() {
        let times = Times::of((1..=16).map(Some).collect());
        assert_eq!((times.p50_ms, times.p90_ms), (Some(8), Some(15)));
        let some = Times::of((1..=16).map(|time| (time <= 10).then_some(time)).collect());
        assert_eq!((some.p50_ms, some.p90_ms), (Some(8), None));
        let one = Times::of(vec![Some(7)]);
        assert_eq!((one.p50_ms, one.p90_ms), (Some(7), None));
    }
}
