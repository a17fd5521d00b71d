//! Turns by stages: what cannot wait, then the shortest first where each costs the others least, then whatever is left.
//!
//! All work together tells what a GPU hour of each model is worth ([`Outlook`]). A job that takes `t` on `g` GPUs of a
//! model costs itself `t`, and those that wait `t` times `g` times that worth: a long queue sends each job where it is
//! comparatively fast, a short one where it is fast. Jobs that reach to the end of all work, were they to start much
//! later, go first, so that the end does not wait for them.

use super::Look;
use super::entry::{Entry, Whom};
use super::taste::taste;
use crate::ids::JobId;
use crate::model::Objective;
use crate::placement::left::Left;
use crate::placement::outlook::Outlook;
use crate::placement::survey::{turn, turn_at};
use crate::policy::Aim;

/// How much those that wait count: each is held up by what goes before it, and by what that holds up in turn.
pub(super) const OTHERS: f64 = 8.0;

/// A job that runs goes before one that waits and is shorter by this part.
const RUNS_FIRST: f64 = 0.1;

/// A late job that runs goes before one that waits and is longer by this part.
const LATE_FIRST: f64 = 0.05;

/// Another model must be better by this part before a job moves there.
const MOVES_FOR: f64 = 0.1;

/// Who has yielded before yields less readily: each time counts as so much of the first.
const YIELDED: f64 = 0.1;

/// A part of the horizon that is as good as nothing.
pub(super) const SHARE: f64 = 1e-6;

/// How a turn is come to.
pub(super) struct Turn {
    entry: usize,
    key: f64,
    pub(super) best: usize,
    pub(super) cost: Vec<f64>,
}

impl Turn {
    /// Whether a model other than the best is better than to wait.
    fn is_worth(&self, aim: Aim, model: usize) -> bool {
        /// A quarter more money, and waiting is better.
        const DEARER: f64 = 1.25;
        aim != Aim::Cost || self.cost[model] <= self.cost[self.best] * DEARER
    }

    /// Where there is room for all, the one goes first that would lose the most by going elsewhere, beside the time it
    /// holds a GPU there.
    fn regret(&self, entry: &Entry<'_>) -> f64 {
        let others = (0..self.cost.len()).filter(|model| *model != self.best);
        let next = others
            .map(|model| self.cost[model])
            .fold(f64::INFINITY, f64::min);
        let runs = if entry.runs.is_some() {
            1.0 + RUNS_FIRST
        } else {
            1.0
        };
        -(next / self.cost[self.best] - 1.0) / entry.width() * runs
    }
}

impl Entry<'_> {
    /// How much more it takes to disturb it than the first time.
    fn patience(&self) -> f64 {
        1.0 + YIELDED * f64::from(self.job.standing.preemptions)
    }

    /// What a model is to the job's owner: time, money, or both; the least is best. What is known goes before a guess.
    pub(super) fn taste(&self, model: usize) -> f64 {
        self.left[model].map_or(f64::INFINITY, |left| {
            taste(self.job.spec.objective, &left, self.price[model])
        })
    }
}

impl<'a> Look<'a> {
    pub(super) fn by_stages(&mut self) {
        let (entries, outlook, turns) = self.turns(Whom::MayStart);
        let mut has_turn = vec![false; entries.len()];
        for turn in self.due(&entries, &turns) {
            if self.is_over() {
                break;
            }
            let entry = &entries[turn.entry];
            has_turn[turn.entry] = self.claim(entry, turn.best) || self.claim_any(entry, turn);
            if !has_turn[turn.entry] && self.is_due(entry.job, &entry.left) {
                let models = self.wanted(entry, turn);
                self.keep(entry.job, &models);
            }
        }
        self.start_elsewhere(|_, _| true);
        for (_, index) in self.late(&entries, &outlook) {
            if self.is_over() {
                break;
            }
            if has_turn[index] {
                continue;
            }
            let entry = &entries[index];
            let models = self.models_for_late(entry, index, &turns, &outlook);
            has_turn[index] = models.into_iter().any(|model| self.claim(entry, model));
        }
        for turn in &turns {
            if self.is_over() {
                break;
            }
            if !has_turn[turn.entry] {
                let entry = &entries[turn.entry];
                has_turn[turn.entry] = self.claim(entry, turn.best);
            }
        }
        for turn in turns
            .iter()
            .filter(|turn| !has_turn[turn.entry])
            .collect::<Vec<_>>()
        {
            if self.is_over() {
                break;
            }
            let entry = &entries[turn.entry];
            self.claim_any(entry, turn);
        }
        self.evict(&entries);
    }

    pub(super) fn staged_queue(&mut self) -> Vec<JobId> {
        let (entries, outlook, turns) = self.turns(Whom::Everybody);
        let late = self.late(&entries, &outlook);
        let late = late.into_iter().map(|(_, index)| index);
        let due = self.due(&entries, &turns).into_iter();
        let order = due.map(|turn| turn.entry).chain(late);
        let order = order.chain(turns.iter().map(|turn| turn.entry));
        let mut seen = vec![false; entries.len()];
        let order = order.filter(|index| !std::mem::replace(&mut seen[*index], true));
        let waiting = order.map(|index| &entries[index]);
        waiting
            .filter(|entry| entry.runs.is_none())
            .map(|entry| entry.job.id)
            .collect()
    }

    /// The turns of those that have lost their worker, and then of those that were passed for long enough, each in the
    /// order of the queue.
    fn due<'t>(&self, entries: &[Entry<'a>], turns: &'t [Turn]) -> Vec<&'t Turn> {
        let is_due = |turn: &&Turn| {
            let entry = &entries[turn.entry];
            entry.runs.is_none() && self.is_due(entry.job, &entry.left)
        };
        let mut due: Vec<&Turn> = turns.iter().filter(is_due).collect();
        let priority = |turn: &&Turn| entries[turn.entry].job.spec.priority;
        let late_ms = |turn: &&Turn| self.late_ms(entries[turn.entry].job);
        // What has just come and goes before one of them by its priority, or since its team is owed more, still does.
        if let Some(least) = due.iter().map(priority).min() {
            let latest_ms = due.iter().map(late_ms).max().unwrap_or(0);
            let eager = turns.iter().filter(|turn| {
                let goes_before = priority(turn) > least || late_ms(turn) < latest_ms;
                entries[turn.entry].runs.is_none() && !is_due(turn) && goes_before
            });
            due.extend(eager);
        }
        due.sort_by_key(|turn| {
            let entry = &entries[turn.entry];
            (!entry.job.has_lost_its_worker(), self.place(entry.job))
        });
        due
    }

    /// Gives a job the best that there is for it, whatever it is.
    pub(super) fn claim_any(&mut self, entry: &Entry<'a>, turn: &Turn) -> bool {
        let models = self.wanted(entry, turn);
        models.into_iter().any(|model| self.claim(entry, model))
    }

    /// The models that a job takes rather than wait, the best first. Nothing of others is kept for it either: it would be
    /// free for nobody.
    pub(super) fn wanted(&self, entry: &Entry<'a>, turn: &Turn) -> Vec<usize> {
        let mut models: Vec<usize> = (0..self.models.len()).collect();
        // What has to be done by a time does not wait for something cheaper.
        let must_start = entry.runs.is_none() && self.must_start(entry.job, &entry.left);
        models.retain(|model| {
            let is_worth = must_start || turn.is_worth(self.policy.aim, *model);
            turn.cost[*model].is_finite() && is_worth
        });
        models.sort_by(|a, b| turn.cost[*a].total_cmp(&turn.cost[*b]));
        models
    }

    /// Everybody's turn, in order.
    fn turns(&mut self, whom: Whom) -> (Vec<Entry<'a>>, Outlook, Vec<Turn>) {
        let (running, fixed) = self.running();
        let (mut entries, mut work) = self.waiting(whom);
        for mut entry in running {
            entry.work = work.len();
            work.push(entry.work(1));
            entries.push(entry);
        }
        work.extend(fixed);
        let capacity: Vec<f64> = self
            .models
            .iter()
            .map(|model| f64::from(self.pool.count_of(*model)))
            .collect();
        let outlook = Outlook::of(&work, &capacity);
        let others = OTHERS * outlook.waiting;
        let mut turns: Vec<Turn> = (0..entries.len())
            .filter_map(|index| self.turn_of(&entries[index], index, &outlook, others))
            .collect();
        if !outlook.is_crowded() {
            turns
                .iter_mut()
                .for_each(|turn| turn.key = turn.regret(&entries[turn.entry]));
        }
        turns.sort_by(|a, b| {
            let place = |turn: &Turn| entries[turn.entry].place();
            a.key.total_cmp(&b.key).then(place(a).cmp(&place(b)))
        });
        (entries, outlook, turns)
    }

    /// What hardware costs a job and those that it holds up there, if an hour of one of its GPUs is worth so much.
    pub(super) fn cost(
        &self,
        objective: Objective,
        width: f64,
        left: &Left,
        price: f64,
        worth: f64,
    ) -> f64 {
        if self.policy.aim == Aim::Cost {
            left.p50_ms * price
        } else {
            taste(objective, left, price) * (1.0 + width * worth)
        }
    }

    pub(super) fn turn_of(
        &self,
        entry: &Entry<'a>,
        index: usize,
        outlook: &Outlook,
        others: f64,
    ) -> Option<Turn> {
        let here = entry.runs.as_ref().map(|runs| runs.model);
        let cost: Vec<f64> = (0..self.models.len())
            .map(|model| {
                let worth = others * outlook.balance.prices[model];
                let moves = match here {
                    Some(here) if here != model => 1.0 + MOVES_FOR * entry.patience(),
                    _ => 1.0,
                };
                let own = entry.left[model].map_or(f64::INFINITY, |left| {
                    let objective = entry.job.spec.objective;
                    self.cost(objective, entry.width(), &left, entry.price[model], worth)
                });
                own * moves
            })
            .collect();
        let best = (0..cost.len()).min_by(|a, b| cost[*a].total_cmp(&cost[*b]))?;
        let left = entry.left[best]?;
        let order = self.shares.order(entry.job);
        let key = match &entry.runs {
            Some(runs) if !left.is_guess => {
                let longer = 1.0 + RUNS_FIRST * entry.patience();
                let length = (left.p50_ms / longer - runs.lost_ms).max(0.0);
                turn(self.policy.aim, order, length * entry.width().sqrt())
            }
            _ => turn_at(self.policy.aim, order, entry.width(), &left),
        };
        Some(Turn {
            entry: index,
            key,
            best,
            cost,
        })
    }

    /// The models that a late job takes, the best first.
    fn models_for_late(
        &self,
        entry: &Entry<'a>,
        index: usize,
        turns: &[Turn],
        outlook: &Outlook,
    ) -> Vec<usize> {
        let mut models: Vec<usize> = (0..self.models.len()).collect();
        if !outlook.is_crowded() && self.policy.aim != Aim::Makespan {
            let Some(turn) = turns.iter().find(|turn| turn.entry == index) else {
                return Vec::new();
            };
            models.retain(|model| turn.cost[*model].is_finite());
            models.sort_by(|a, b| turn.cost[*a].total_cmp(&turn.cost[*b]));
            return models;
        }
        let share = outlook.share(entry.work);
        let here = entry.runs.as_ref().map(|runs| runs.model);
        models.retain(|model| share[*model] > SHARE * outlook.balance.horizon);
        models.sort_by(|a, b| {
            let stays = |model: usize| u8::from(here != Some(model));
            stays(*a)
                .cmp(&stays(*b))
                .then(share[*b].total_cmp(&share[*a]))
        });
        models
    }

    /// What must start now to be done when everything can be done, with how much it needs.
    fn late(&self, entries: &[Entry<'a>], outlook: &Outlook) -> Vec<(f64, usize)> {
        let first = entries.iter().map(|entry| entry.job.spec.priority).max();
        let needs = |entry: &Entry<'a>| {
            let runs = if entry.runs.is_some() {
                LATE_FIRST * entry.patience()
            } else {
                0.0
            };
            outlook.needs_ms(entry.work) * (1.0 + runs)
        };
        let all = entries.iter().enumerate();
        let mut late: Vec<(f64, usize)> = match self.policy.aim {
            Aim::Makespan => all
                .map(|(index, entry)| (needs(entry) * entry.width(), index))
                .collect(),
            Aim::Balanced => all
                .filter(|(_, entry)| {
                    // What a team has beyond its share it has not for being late.
                    Some(entry.job.spec.priority) == first
                        && self.shares.late_ms(entry.job.spec.terms.team) == 0
                        && outlook.is_late(entry.work, entry.job.spec.gpus())
                })
                .map(|(index, entry)| (needs(entry) * entry.width().sqrt(), index))
                .collect(),
            _ => Vec::new(),
        };
        late.sort_by(|a, b| {
            let place = |index: usize| entries[index].place();
            b.0.total_cmp(&a.0).then(place(a.1).cmp(&place(b.1)))
        });
        late
    }
}
