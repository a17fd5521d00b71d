//! The lines of waiting jobs in the orders in which they get their turns, so that only the first of them are looked at.
//!
//! A line has a turn for every model that its jobs could run on: by how long they would take there. Which of them is its
//! own depends on what the hardware is worth at the moment, and is looked at when the turn comes.

mod update;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use stepcast_records::GpuModel;

use super::Scene;
use super::classes::{Classes, Group};
use super::due::{Due, LinePlace};
use super::line::{Known, ordered, turn_at};
use super::portion::Round;
use super::saved::{Checkpoints, Saved};
use super::waiting::{Home, Waiting};
use crate::ids::{JobId, TeamId};
use crate::model::Job;
use crate::placement::feasible::Needs;
use crate::placement::left::Left;
use crate::placement::look::due_ms;
use crate::placement::pool::{PlaceId, Pool};
use crate::policy::Aim;
use crate::policy::balance::Work;
use crate::state::{Line, State};

/// What a line is called here.
pub(in crate::placement) type LineId = u32;

/// The lines.
#[derive(Default)]
pub(in crate::placement) struct Queue {
    pub(super) by_line: BTreeMap<Line, LineId>,
    pub(super) known: Vec<Option<Known>>,
    /// Lines that were not seen yet, by their first jobs when that was found.
    pub(super) unseen: BTreeSet<(i64, JobId, Line)>,
    pub(super) round: Round,
    /// Numbers of lines that are not there any more.
    unused: Vec<LineId>,
    aim: Aim,
    buckets: Vec<Bucket>,
    /// Numbers of buckets that have no line any more.
    unused_buckets: Vec<u32>,
    by_needs: BTreeMap<Wants, u32>,
    /// The buckets whose jobs may run in a place, but for those who wait for a folder rather than run there.
    at: BTreeMap<PlaceId, BTreeSet<u32>>,
    /// By bucket and model: lines by their turn there, then by the queue.
    turns: BTreeSet<(u32, u8, u64, i64, JobId, LineId)>,
    /// By their priority, the highest first, and then by the place in the queue of the first job.
    ranks: BTreeSet<(Reverse<i8>, i64, JobId, LineId)>,
    /// The same by bucket.
    ranks_in: BTreeSet<(u32, Reverse<i8>, i64, JobId, LineId)>,
    pub(in crate::placement) due: Due,
    pub(super) waiting: Waiting,
    pub(super) checkpoints: Checkpoints,
    classes: Classes,
}

/// What the jobs of a bucket have in common: their needs, as their hash, their team, and what they wait for.
type Wants = (u128, TeamId, Option<Home>);

/// The jobs of a line in the order of the queue.
type Jobs = BTreeSet<(i64, JobId)>;

/// Lines of one team with the same needs, who wait for the same folder if they do.
#[derive(Default)]
struct Bucket {
    /// Where they may run, busy or not.
    places: Vec<PlaceId>,
    lines: BTreeSet<LineId>,
    wants: Wants,
    width: u8,
    hosts: u8,
}

impl Queue {
    /// The lines of a state, none of them seen.
    pub(super) fn of(state: &State) -> Self {
        let first = |(line, jobs): (Line, &BTreeSet<_>)| {
            let (order, job) = jobs.first()?;
            Some((*order, *job, line))
        };
        Self {
            aim: state.policy().aim,
            unseen: state.lines().filter_map(first).collect(),
            ..Self::default()
        }
    }

    /// Has lines find workers of kinds that are new, and no longer those of kinds that are gone.
    pub(super) fn admit(&mut self, scene: Scene<'_>, pool: &Pool, turned: &[usize]) {
        if turned.is_empty() {
            return;
        }
        for bucket in 0..self.buckets.len() {
            // Of a line that has just emptied nobody is left to ask.
            let mut lines = self.buckets[bucket].lines.iter();
            let job = lines.find_map(|id| {
                let (_, first) = scene.state.line(self.line(*id).line)?.first()?;
                scene.state.open_job(*first)
            });
            let Some(needs) = job.map(Needs::of) else {
                continue;
            };
            let before = self.models_of(bucket, pool);
            for kind in turned {
                let there = pool.places_in(*kind, scene.state, needs);
                for place in pool.places_of(*kind) {
                    let model = pool.places[*place as usize].model;
                    self.connect(bucket as u32, (*place, model), there.contains(place));
                }
            }
            // More workers of models that they run on already make no difference to what is left of them.
            if self.models_of(bucket, pool) != before {
                for id in &self.buckets[bucket].lines {
                    if let Some(known) = &mut self.known[*id as usize] {
                        known.forecasts = None;
                    }
                }
                self.round.restart();
            }
        }
    }

    /// The models that jobs of a bucket may run on.
    fn models_of(&self, bucket: usize, pool: &Pool) -> BTreeSet<GpuModel> {
        let places = self.buckets[bucket].places.iter();
        places
            .map(|place| pool.places[*place as usize].model)
            .collect()
    }

    /// Says whether jobs of a bucket may run in a place.
    fn connect(&mut self, bucket: u32, (place, model): (PlaceId, GpuModel), fits: bool) {
        let places = &mut self.buckets[bucket as usize].places;
        let known = places.iter().position(|known| *known == place);
        match (known, fits) {
            (None, true) => {
                places.push(place);
                if self.is_open(bucket, model) {
                    self.at.entry(place).or_default().insert(bucket);
                }
            }
            (Some(known), false) => {
                places.remove(known);
                if let Some(buckets) = self.at.get_mut(&place) {
                    buckets.remove(&bucket);
                }
            }
            _ => {}
        }
    }

    /// Takes a line in.
    pub(super) fn insert(
        &mut self,
        scene: Scene<'_>,
        pool: &Pool,
        models: &[GpuModel],
        line: Line,
    ) {
        let Some(jobs) = scene.state.line(line) else {
            return;
        };
        let Some((head, job)) = jobs
            .first()
            .and_then(|head| Some((*head, scene.state.open_job(head.1)?)))
        else {
            return;
        };
        let mut bucket = self.bucket_of(scene, pool, job, None);
        let there = self.models_of(bucket as usize, pool);
        let left = models.iter().map(|model| {
            there
                .contains(model)
                .then(|| Left::of_waiting(scene.forecast, job, *model, scene.state.policy()))?
        });
        let left: Arc<[Option<Left>]> = left.collect();
        let saved = Saved::of(scene, pool, models, (job, &left));
        let waits = match (jobs.len(), &saved) {
            (1, Some(saved)) => self.wait_of(scene, pool, models, (job, &left, saved)),
            _ => None,
        };
        if let Some(wait) = &waits {
            self.forget_if_empty(bucket);
            bucket = self.bucket_of(scene, pool, job, Some(wait.home.clone()));
        }
        let known = Known {
            line,
            head,
            count: jobs.len(),
            width: job.spec.gpus(),
            team: job.spec.terms.team,
            objective: job.spec.objective,
            is_choosy: job.spec.max_price_per_hour.is_some()
                || job.spec.max_cost.is_some()
                || job.failed_to_start().next().is_some(),
            priority: job.spec.priority,
            due_ms: due_ms(job, saved.as_ref().map_or(&left, |saved| &saved.to_do)),
            bucket,
            waits,
            left,
            saved,
            forecasts: scene.version,
        };
        let id = self.unused.pop().unwrap_or(self.known.len() as LineId);
        self.by_line.insert(line, id);
        self.buckets[bucket as usize].lines.insert(id);
        self.enter(id, &known);
        match self.known.get_mut(id as usize) {
            Some(unused) => *unused = Some(known),
            None => self.known.push(Some(known)),
        }
    }

    /// Takes a line out.
    pub(super) fn remove(&mut self, id: LineId) -> Known {
        let Some(known) = self.known.get_mut(id as usize).and_then(Option::take) else {
            unreachable!("a line that has a number is there");
        };
        self.by_line.remove(&known.line);
        self.unused.push(id);
        self.leave(id, &known);
        self.buckets[known.bucket as usize].lines.remove(&id);
        self.forget_if_empty(known.bucket);
        known
    }

    /// Forgets a bucket if it has no line any more.
    fn forget_if_empty(&mut self, id: u32) {
        let bucket = &mut self.buckets[id as usize];
        if bucket.lines.is_empty() {
            let bucket = std::mem::take(bucket);
            self.by_needs.remove(&bucket.wants);
            for place in bucket.places {
                if let Some(buckets) = self.at.get_mut(&place) {
                    buckets.remove(&id);
                }
            }
            self.unused_buckets.push(id);
        }
    }

    /// Puts a line into every order.
    pub(super) fn enter(&mut self, id: LineId, known: &Known) {
        // What nobody could ever run has no turn.
        if known.left.iter().all(Option::is_none) {
            return;
        }
        self.turns.extend(self.turns_of(id, known));
        let (order, first) = known.head;
        let priority = Reverse(known.priority);
        self.ranks.insert((priority, order, first, id));
        self.ranks_in
            .insert((known.bucket, priority, order, first, id));
        self.due.add(id, known);
        self.waiting.add(id, known);
        self.checkpoints.add(id, known);
        self.classes.add(known, id);
    }

    /// Takes a line out of every order.
    pub(super) fn leave(&mut self, id: LineId, known: &Known) {
        for turn in self.turns_of(id, known) {
            self.turns.remove(&turn);
        }
        let (order, first) = known.head;
        let priority = Reverse(known.priority);
        if self.ranks.remove(&(priority, order, first, id)) {
            self.ranks_in
                .remove(&(known.bucket, priority, order, first, id));
            self.due.remove(id, known);
            self.waiting.remove(id, known);
            self.checkpoints.remove(id, known);
            self.classes.remove(known, id);
        }
    }

    fn turns_of(&self, id: LineId, known: &Known) -> Vec<(u32, u8, u64, i64, JobId, LineId)> {
        let (order, first) = known.head;
        let models = known.left.iter().enumerate();
        let turns = models.filter_map(|(model, left)| {
            let turn = ordered(turn_at(
                self.aim,
                order,
                f64::from(known.width),
                left.as_ref()?,
            ));
            Some((known.bucket, model as u8, turn, order, first, id))
        });
        turns.collect()
    }

    /// The bucket of a job's needs and team, and of what it waits for.
    fn bucket_of(&mut self, scene: Scene<'_>, pool: &Pool, job: &Job, home: Option<Home>) -> u32 {
        let needs = Needs::of(job);
        let wants = (needs.hash(), job.spec.terms.team, home);
        if let Some(bucket) = self.by_needs.get(&wants) {
            return *bucket;
        }
        let bucket = self
            .unused_buckets
            .pop()
            .unwrap_or(self.buckets.len() as u32);
        let places = pool.places_for(scene.state, needs);
        for place in &places {
            let model = pool.places[*place as usize].model;
            if wants
                .2
                .as_ref()
                .is_none_or(|home| home.open.contains(&model))
            {
                self.at.entry(*place).or_default().insert(bucket);
            }
        }
        let known = Bucket {
            wants: wants.clone(),
            width: needs.gpu_count,
            hosts: needs.hosts,
            places,
            lines: BTreeSet::new(),
        };
        if bucket as usize == self.buckets.len() {
            self.buckets.push(known);
        } else {
            self.buckets[bucket as usize] = known;
        }
        self.by_needs.insert(wants, bucket);
        bucket
    }

    /// A line.
    pub(in crate::placement) fn line(&self, id: LineId) -> &Known {
        let Some(known) = self.known.get(id as usize).and_then(Option::as_ref) else {
            unreachable!("a line that has a number is there");
        };
        known
    }

    /// How many lines there are that somebody could run.
    pub(in crate::placement) fn len(&self) -> usize {
        self.ranks.len()
    }

    /// How many GPUs each job of a bucket takes on one host.
    pub(in crate::placement) fn width_of(&self, bucket: u32) -> u8 {
        self.buckets[bucket as usize].width
    }

    /// The team of the jobs of a bucket.
    pub(in crate::placement) fn team_of(&self, bucket: u32) -> TeamId {
        self.buckets[bucket as usize].wants.1
    }

    /// What the jobs of a bucket wait for, if they do.
    pub(in crate::placement) fn home_of(&self, bucket: u32) -> Option<&Home> {
        self.buckets[bucket as usize].wants.2.as_ref()
    }

    /// Whether jobs of a bucket do not wait rather than begin anew on a model.
    pub(in crate::placement) fn is_open(&self, bucket: u32, model: GpuModel) -> bool {
        let home = self.home_of(bucket);
        home.is_none_or(|home| home.open.contains(&model))
    }

    /// On how many hosts each job of a bucket runs at once.
    pub(in crate::placement) fn hosts_of(&self, bucket: u32) -> u8 {
        self.buckets[bucket as usize].hosts
    }

    /// Where the lines of a bucket may run, busy or not.
    pub(in crate::placement) fn places_of(&self, bucket: u32) -> &[PlaceId] {
        &self.buckets[bucket as usize].places
    }

    /// Whether jobs of a bucket may run in a place.
    pub(in crate::placement) fn is_at(&self, bucket: u32, place: PlaceId) -> bool {
        let buckets = self.at.get(&place);
        buckets.is_some_and(|buckets| buckets.contains(&bucket))
    }

    /// The waiting work in groups of about the same, and the longest job by itself if it is one of several in its group.
    pub(in crate::placement) fn groups(&self) -> (Vec<Group<'_>>, Option<Work>) {
        let longest = self.classes.longest().map(|line| self.line(line));
        self.classes.groups(longest)
    }

    /// The buckets whose jobs may run in a place.
    pub(in crate::placement) fn buckets_at(&self, place: PlaceId) -> impl Iterator<Item = u32> {
        self.at.get(&place).into_iter().flatten().copied()
    }

    /// The lines of a bucket by their turn on a model: the turn, the place in the queue, and the line.
    pub(in crate::placement) fn turns(
        &self,
        bucket: u32,
        model: u8,
    ) -> impl Iterator<Item = (u64, i64, JobId, LineId)> {
        let first = (bucket, model, 0, i64::MIN, JobId(0), 0);
        let last = (
            bucket,
            model,
            u64::MAX,
            i64::MAX,
            JobId(u64::MAX),
            LineId::MAX,
        );
        let turns = self.turns.range(first..=last);
        turns.map(|(_, _, turn, order, job, line)| (*turn, *order, *job, *line))
    }

    /// All lines by their priority, the highest first, and then by the place in the queue of their first job.
    pub(in crate::placement) fn in_order(&self) -> impl Iterator<Item = (i8, LineId)> {
        let ranks = self.ranks.iter();
        ranks.map(|(Reverse(priority), .., line)| (*priority, *line))
    }

    /// The priorities of lines, the highest first.
    pub(in crate::placement) fn priorities(&self) -> impl Iterator<Item = i8> {
        let below = |Reverse(priority): Reverse<i8>| {
            let last = (Reverse(priority), i64::MAX, JobId(u64::MAX), LineId::MAX);
            let next = self
                .ranks
                .range((Bound::Excluded(last), Bound::Unbounded))
                .next();
            next.map(|(priority, ..)| *priority)
        };
        let first = self.ranks.first().map(|(priority, ..)| *priority);
        std::iter::successors(first, move |priority| below(*priority))
            .map(|Reverse(priority)| priority)
    }

    /// The lines of a bucket that have a priority, behind a place.
    pub(in crate::placement) fn of_priority(
        &self,
        bucket: u32,
        priority: i8,
        (order, first, id): LinePlace,
    ) -> impl Iterator<Item = LinePlace> {
        let priority = Reverse(priority);
        let behind = Bound::Excluded((bucket, priority, order, first, id));
        let last = (bucket, priority, i64::MAX, JobId(u64::MAX), LineId::MAX);
        let lines = self.ranks_in.range((behind, Bound::Included(last)));
        lines.map(|(_, _, order, first, id)| (*order, *first, *id))
    }
}
