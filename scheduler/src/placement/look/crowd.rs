//! Turns by stages where a great many wait: the same stages as in `staged`, but only of what could start on what is free.
//!
//! Each stage goes through the lines in the order that is kept between looks, and ends when nothing is free any more. Lines
//! of one team with the same needs are an order of their own, which is left as soon as there is no room for any of them.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use super::Look;
use super::entry::{Entry, LINE_LOOKED_AT, LOST_MS, due_ms};
use super::staged::OTHERS;
use crate::ids::JobId;
use crate::model::Job;
use crate::placement::feasible::{Needs, Purse};
use crate::placement::outlook::Outlook;
use crate::placement::pool::PlaceId;
use crate::placement::reason::Reason;
use crate::placement::survey::{Crowd, Group, Known, LineId, Queue, number, ordered, turn_at};
use crate::policy::Aim;
use crate::policy::balance::Work;

/// Lines that are passed since they are better off where nothing is free, before what is free goes to whoever is next.
/// Beyond it hardly anybody is left who would wait for exactly this.
const PASSED_BY: usize = 4_096;

/// A job's place in the queue.
type Place = (i64, JobId);

/// What one look has found out and done so far.
pub(super) struct Walk<'q> {
    pub(super) queue: &'q Queue,
    pub(super) groups: Vec<Group<'q>>,
    pub(super) outlook: Outlook,
    pub(super) others: f64,
    /// Lines with the same needs for whom enough is free on some worker.
    pub(super) live: Vec<u32>,
    /// The last job of a line that has had its turn.
    pub(super) served: BTreeMap<LineId, Place>,
    /// The least price of a GPU on each model, by the lines' needs.
    prices: RefCell<BTreeMap<u32, Rc<[f64]>>>,
}

impl<'a> Look<'a> {
    /// Gives everybody their turn.
    pub(super) fn through(&mut self, crowd: &mut Crowd) {
        if self.is_over() || crowd.queue.len() == 0 {
            return;
        }
        let mut walk = self.walk(crowd, false);
        self.due_of(&mut walk);
        self.start_elsewhere(|_, _| true);
        if walk.live.is_empty() {
            return;
        }
        self.late_of(&mut walk);
        for place_for in [Where::Best, Where::Any] {
            if self.is_over() {
                return;
            }
            self.turns_of(&mut walk, place_for);
        }
    }

    /// What there is to be done, and what all of it asks of the hardware: if nobody could start, that is not looked at
    /// unless it is wanted.
    fn walk<'q>(&self, crowd: &'q mut Crowd, is_wanted: bool) -> Walk<'q> {
        let mut live = Vec::new();
        for place in self.pool.roomy() {
            let widest = self.pool.places[place as usize].widest();
            live.extend(
                crowd
                    .queue
                    .buckets_at(place)
                    .filter(|bucket| crowd.queue.width_of(*bucket) <= widest),
            );
        }
        // Those who wait for their checkpoints ask for nothing that is free elsewhere.
        let waiting = crowd.queue.waiting_for(&self.pool).into_iter();
        live.extend(
            waiting.filter(|bucket| self.has_room_at_home(&crowd.queue, *bucket, |_| true)),
        );
        live.sort_unstable();
        live.dedup();
        let is_asked = is_wanted || !live.is_empty();
        let running = if is_asked {
            crowd.runs.work(self.models.len(), self.now_ms)
        } else {
            Vec::new()
        };
        let queue = &crowd.queue;
        let (groups, longest) = if is_asked {
            queue.groups()
        } else {
            (Vec::new(), None)
        };
        let mut work: Vec<Work> = groups.iter().map(|group| group.work.clone()).collect();
        work.extend(longest.into_iter().chain(running));
        let capacity = self
            .models
            .iter()
            .map(|model| f64::from(self.pool.count_of(*model)));
        let outlook = Outlook::of(&work, &capacity.collect::<Vec<_>>());
        Walk {
            queue,
            groups,
            others: OTHERS * outlook.waiting,
            outlook,
            live,
            served: BTreeMap::new(),
            prices: RefCell::default(),
        }
    }

    /// Everybody's turn in order, where each is best off or wherever there is room.
    fn turns_of(&mut self, walk: &mut Walk<'_>, place_for: Where) {
        let queue = walk.queue;
        let (aim, shares) = (self.policy.aim, Rc::clone(&self.shares));
        let mut cursors = Vec::with_capacity(walk.live.len());
        let mut models = vec![false; self.models.len()];
        for bucket in &walk.live {
            let width = queue.width_of(*bucket);
            models.fill(false);
            for place in queue.places_of(*bucket) {
                let place = &self.pool.places[*place as usize];
                if place_for == Where::Any || place.widest() >= width {
                    let model = self.models.binary_search(&place.model);
                    model.into_iter().for_each(|model| models[model] = true);
                }
            }
            let late_ms = shares.late_ms(queue.team_of(*bucket));
            let open = models.iter().enumerate().filter(|(_, is_open)| **is_open);
            cursors
                .extend(open.map(|(model, _)| (model, late_ms, queue.turns(*bucket, model as u8))));
        }
        let count = cursors.len();
        let mut turns = BinaryHeap::new();
        let mut push = |turns: &mut BinaryHeap<_>, cursor: usize| {
            if let Some((model, late_ms, lines)) = cursors.get_mut(cursor)
                && let Some((turn, order, job, line)) = lines.next()
            {
                let turn = ordered(number(turn) + *late_ms as f64);
                turns.push(Reverse((turn, (order, job), line, *model, cursor)));
            }
        };
        (0..count).for_each(|cursor| push(&mut turns, cursor));
        let mut passed = 0;
        while let Some(Reverse((_, at, line, model, cursor))) = turns.pop() {
            if self.is_over() || passed > PASSED_BY && place_for == Where::Best {
                break;
            }
            let known = queue.line(line);
            let fits = |other: usize| place_for == Where::Any || other == model;
            if !self.has_room_for(queue, known.bucket, fits) {
                // Those behind it in this order find no room either.
                continue;
            }
            push(&mut turns, cursor);
            if self.best_of(walk, known) != Some(model) {
                passed += 1;
                continue;
            }
            let Some(job) = self.next_in(walk, line, walk.served.get(&line).copied()) else {
                continue;
            };
            let turn_of = |job: &Job, left| {
                let turn = turn_at(aim, shares.order(job), f64::from(known.width), left);
                Reverse((ordered(turn), place(job), line, model, usize::MAX))
            };
            let Some(left) = known.to_do()[model].as_ref() else {
                continue;
            };
            // In the order that is kept it stands by what is left of it at best.
            let at_best_ms = known.left[model].map_or(f64::INFINITY, |left| left.p50_ms);
            let comes_later = cursor != usize::MAX && left.p50_ms > at_best_ms;
            if comes_later || place(job) != at {
                turns.push(turn_of(job, left));
                continue;
            }
            let entry = self.entry_of(walk, known, job);
            if self.claims(walk, &entry, place_for) {
                walk.served.insert(line, at);
                if let Some(next) = self.next_in(walk, line, Some(at)) {
                    turns.push(turn_of(next, left));
                }
            }
        }
    }

    /// Whether there is room for a job with some needs on a model that is asked for, by its position, and its team may use as
    /// much.
    pub(super) fn has_room_for(
        &self,
        queue: &Queue,
        bucket: u32,
        is_asked: impl Fn(usize) -> bool,
    ) -> bool {
        let (width, hosts) = (queue.width_of(bucket), queue.hosts_of(bucket));
        let gpus = u32::from(width) * u32::from(hosts);
        if !self.ledger.has_quota(queue.team_of(bucket), gpus) {
            return false;
        }
        if self.has_room_at_home(queue, bucket, &is_asked) {
            return true;
        }
        let places = queue.places_of(bucket);
        if hosts > 1 {
            // As many workers of one model as a gang takes at once.
            let mut asked = (0..self.models.len()).filter(|model| is_asked(*model));
            let there = |model| self.pool.workers_with(places, self.models[model], width);
            return asked.any(|model| there(model) >= usize::from(hosts));
        }
        let has_room = |place: PlaceId| {
            let place = &self.pool.places[place as usize];
            let model = self.models.binary_search(&place.model);
            let is_open = || queue.is_open(bucket, place.model);
            place.widest() >= width && model.is_ok_and(&is_asked) && is_open()
        };
        if places.len() <= self.pool.roomy().len() {
            return places.iter().any(|place| has_room(*place));
        }
        let mut roomy = self.pool.roomy();
        roomy.any(|place| queue.is_at(bucket, place) && has_room(place))
    }

    /// Whether there is room where a job has its checkpoint that waits for it, on a model that is asked for.
    fn has_room_at_home(
        &self,
        queue: &Queue,
        bucket: u32,
        is_asked: impl Fn(usize) -> bool,
    ) -> bool {
        let Some(home) = queue.home_of(bucket) else {
            return false;
        };
        let mut near = self.pool.folders.workers(Some(home.folder));
        let width = u32::from(queue.width_of(bucket));
        near.any(|position| {
            let slot = &self.pool.slots[position];
            let places = queue.places_of(bucket).iter();
            let mut places = places.map(|place| &self.pool.places[*place as usize]);
            places.any(|place| {
                let has_room = || slot.obtainable(place.gpus).count_ones() >= width;
                let model = self.models.binary_search(&place.model);
                place.is_of(slot) && has_room() && model.is_ok_and(&is_asked)
            })
        })
    }

    /// Gives a job GPUs; whether there were any.
    pub(super) fn claims(&mut self, walk: &Walk<'_>, entry: &Entry<'a>, place_for: Where) -> bool {
        let Some(turn) = self.turn_of(entry, 0, &walk.outlook, walk.others) else {
            return false;
        };
        match place_for {
            Where::Best => self.claim(entry, turn.best),
            Where::Any => self.claim(entry, turn.best) || self.claim_any(entry, &turn),
            Where::Late(group) => {
                let models = self.late_models(walk, &turn, group);
                models.into_iter().any(|model| self.claim(entry, model))
            }
        }
    }

    /// The model that the jobs of a line are best off on.
    fn best_of(&self, walk: &Walk<'_>, known: &Known) -> Option<usize> {
        let prices = if known.is_choosy {
            let job = self.state.open_job(known.head.1)?;
            self.own_prices_of(walk, known, job)
        } else {
            self.any_prices_of(walk, known)
        };
        let mut best: Option<(f64, usize)> = None;
        for (model, left) in known.to_do().iter().enumerate() {
            let Some(left) = left.as_ref().filter(|_| prices[model].is_finite()) else {
                continue;
            };
            let worth = walk.others * walk.outlook.balance.prices[model];
            let cost = self.cost(
                known.objective,
                f64::from(known.width),
                left,
                prices[model],
                worth,
            );
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, model));
            }
        }
        best.map(|(_, model)| model)
    }

    /// A job as it gets its turn.
    pub(super) fn entry_of(&mut self, walk: &Walk<'_>, known: &Known, job: &'a Job) -> Entry<'a> {
        let places = || walk.queue.places_of(known.bucket).into();
        self.places.entry(Needs::of(job)).or_insert_with(places);
        let price = if known.is_choosy {
            self.own_prices_of(walk, known, job)
        } else {
            self.any_prices_of(walk, known)
        };
        let left = Arc::clone(known.to_do());
        let is_paid = |(left, price): (&Option<_>, &f64)| left.is_none() || price.is_finite();
        let left = if left.iter().zip(price.iter()).all(is_paid) {
            left
        } else {
            let left = left.iter().zip(price.iter());
            left.map(|(left, price)| left.filter(|_| price.is_finite()))
                .collect()
        };
        Entry {
            job,
            runs: None,
            work: 0,
            left,
            price,
        }
    }

    /// The least price of a GPU on each model for who pays any.
    fn any_prices_of(&self, walk: &Walk<'_>, known: &Known) -> Rc<[f64]> {
        if let Some(prices) = walk.prices.borrow().get(&known.bucket) {
            return Rc::clone(prices);
        }
        let prices = self.prices_of(walk, known, Purse::ANY);
        walk.prices
            .borrow_mut()
            .insert(known.bucket, Rc::clone(&prices));
        prices
    }

    /// The same for a job that does not go everywhere.
    fn own_prices_of(&self, walk: &Walk<'_>, known: &Known, job: &Job) -> Rc<[f64]> {
        let prices = self.prices_of(walk, known, Purse::of(job, self.now_ms));
        let mut prices = prices.to_vec();
        self.price_out(job, &mut prices);
        prices.into()
    }

    fn prices_of(&self, walk: &Walk<'_>, known: &Known, purse: Purse) -> Rc<[f64]> {
        let mut prices = vec![f64::INFINITY; self.models.len()];
        for place in walk.queue.places_of(known.bucket) {
            let model = self.pool.places[*place as usize].model;
            if let Ok(model) = self.models.binary_search(&model)
                && let Some(least) = self.pool.least_price(*place, purse, known.width)
            {
                prices[model] = prices[model].min(least);
            }
        }
        prices.into()
    }

    /// The first job of a line, or the first behind one, that nothing keeps from running wherever.
    pub(super) fn next_in(
        &self,
        walk: &Walk<'_>,
        line: LineId,
        after: Option<Place>,
    ) -> Option<&'a Job> {
        let jobs = self.state.line(walk.queue.line(line).line)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (_, id) in jobs.range((from, Bound::Unbounded)).take(LINE_LOOKED_AT) {
            let Some(job) = self.state.open_job(*id) else {
                continue;
            };
            if self.settled.contains(id) {
                continue;
            }
            match self.ledger.held(job) {
                None => return Some(job),
                // What holds one of a line for this holds all of it.
                Some(Reason::ArrayFull | Reason::QuotaFull) => return None,
                Some(_) => {}
            }
        }
        None
    }

    /// The waiting jobs in the order in which they would get their turn.
    pub(super) fn queue_of(&self, crowd: &mut Crowd) -> Vec<JobId> {
        /// Who has lost their worker, who is due, who is late, and the rest by turn.
        const LOST: u8 = 0;
        const DUE: u8 = 1;
        const LATE: u8 = 2;
        const TURN: u8 = 3;
        let walk = self.walk(crowd, true);
        let queue = walk.queue;
        let least = queue.due.lowest();
        let highest = queue.priorities().next();
        let mut ranks = BTreeMap::new();
        if matches!(self.policy.aim, Aim::Balanced | Aim::Makespan) {
            for (index, group) in walk.groups.iter().enumerate() {
                let mean = group.mean_ms().max(1.0);
                let width = group.work.width;
                for (ms, line) in group.lines() {
                    let needs_ms = walk.outlook.needs_ms(index) * (ms / mean);
                    let (late, weight) = match self.policy.aim {
                        Aim::Makespan => (true, width),
                        _ => (walk.outlook.is_late_at(needs_ms, width as u8), width.sqrt()),
                    };
                    let known = queue.line(line);
                    let is_within = self.shares.late_ms(known.team) == 0;
                    let is_first = self.policy.aim == Aim::Makespan
                        || Some(known.priority) == highest && is_within;
                    if late && is_first {
                        ranks.insert(line, !ordered(needs_ms * weight));
                    }
                }
            }
        }
        let mut all = Vec::new();
        for (_, line) in queue.in_order() {
            let known = queue.line(line);
            let best = self.best_of(&walk, known);
            let best = best.and_then(|best| known.to_do()[best].as_ref());
            let Some((best, jobs)) = best.zip(self.state.line(known.line)) else {
                continue;
            };
            for job in jobs.iter().filter_map(|(_, id)| self.state.open_job(*id)) {
                let due_ms = due_ms(job, known.to_do());
                let is_due = self.now_ms >= due_ms;
                let is_eager = least.is_some_and(|least| is_due || job.spec.priority > least);
                let (rank, at) = match ranks.get(&line) {
                    _ if due_ms == LOST_MS => ((LOST, 0), place(job)),
                    _ if is_eager => ((DUE, 0), self.place(job)),
                    Some(rank) => ((LATE, *rank), place(job)),
                    None => {
                        let (width, order) = (f64::from(known.width), self.shares.order(job));
                        let turn = turn_at(self.policy.aim, order, width, best);
                        ((TURN, ordered(turn)), place(job))
                    }
                };
                all.push((rank, at));
            }
        }
        all.sort_unstable();
        all.into_iter().map(|(_, (_, job))| job).collect()
    }
}

/// Where a job may take GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// Where it is best off.
    Best,
    /// Wherever it may run.
    Any,
    /// Where all work is best spread if it is of this group.
    Late(usize),
}

pub(super) fn place(job: &Job) -> Place {
    (job.order(), job.id)
}
