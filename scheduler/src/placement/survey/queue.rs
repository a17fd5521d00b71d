//! The lines of waiting jobs in the orders in which they get their turns, so that only the first of them are looked at.
//!
//! A line has a turn for every model that its jobs could run on: by how long they would take there. Which of them is its
//! own depends on what the hardware is worth at the moment, and is looked at when the turn comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stepcast_records::GpuModel;

use super::Scene;
use super::classes::Classes;
use super::line::{Known, ordered, turn_at};
use crate::ids::JobId;
use crate::model::Job;
use crate::model::limits::PRIORITIES;
use crate::placement::feasible::Needs;
use crate::placement::left::Left;
use crate::placement::look::{LOST_MS, due_ms};
use crate::placement::pool::{PlaceId, Pool};
use crate::policy::Aim;
use crate::state::Line;

/// What a line is called here.
pub(in crate::placement) type LineId = u32;

/// The lines.
#[derive(Default)]
pub(in crate::placement) struct Queue {
    by_line: BTreeMap<Line, LineId>,
    known: Vec<Option<Known>>,
    /// Numbers of lines that are not there any more.
    unused: Vec<LineId>,
    aim: Aim,
    buckets: Vec<Bucket>,
    /// Numbers of buckets that have no line any more.
    unused_buckets: Vec<u32>,
    by_needs: BTreeMap<u128, u32>,
    /// The buckets whose jobs may run in a place.
    at: BTreeMap<PlaceId, BTreeSet<u32>>,
    /// By bucket and model: lines by their turn there, then by the queue.
    turns: BTreeSet<(u32, u8, u64, i64, JobId, LineId)>,
    /// By the place in the queue.
    places: BTreeSet<(i64, JobId, LineId)>,
    /// By the priority of the first job, and from when on GPUs are kept for it.
    due: BTreeSet<(i8, u64, LineId)>,
    pub(in crate::placement) classes: Classes,
}

/// Lines with the same needs.
#[derive(Default)]
struct Bucket {
    /// Where they may run, busy or not.
    places: Vec<PlaceId>,
    lines: BTreeSet<LineId>,
    /// The needs, as their hash.
    needs: u128,
    width: u8,
}

impl Queue {
    /// The lines of a state.
    pub(super) fn of(scene: Scene<'_>, pool: &Pool, models: &[GpuModel]) -> Self {
        let mut queue = Self {
            aim: scene.state.policy().aim,
            ..Self::default()
        };
        for (line, _) in scene.state.lines() {
            queue.update(scene, pool, models, line);
        }
        queue
    }

    /// Has lines find workers of kinds that are new, and no longer those of kinds that are gone.
    pub(super) fn admit(
        &mut self,
        scene: Scene<'_>,
        pool: &Pool,
        models: &[GpuModel],
        turned: &[usize],
    ) {
        if turned.is_empty() {
            return;
        }
        for bucket in 0..self.buckets.len() {
            let first = self.buckets[bucket].lines.first();
            let first = first.and_then(|id| scene.state.open_job(self.line(*id).head.1));
            let Some(needs) = first.map(Needs::of) else {
                continue;
            };
            let mut changes = false;
            for kind in turned {
                let there = pool.places_in(*kind, scene.state, needs);
                for place in pool.places_of(*kind) {
                    changes |= self.connect(bucket as u32, *place, there.contains(place));
                }
            }
            if changes {
                let lines: Vec<LineId> = self.buckets[bucket].lines.iter().copied().collect();
                for id in lines {
                    let line = self.line(id).line;
                    self.remove(id);
                    self.insert(scene, pool, models, line, None);
                }
            }
        }
    }

    /// Says whether jobs of a bucket may run in a place; whether that is new.
    fn connect(&mut self, bucket: u32, place: PlaceId, fits: bool) -> bool {
        let places = &mut self.buckets[bucket as usize].places;
        let known = places.iter().position(|known| *known == place);
        match (known, fits) {
            (None, true) => {
                places.push(place);
                self.at.entry(place).or_default().insert(bucket);
            }
            (Some(known), false) => {
                places.remove(known);
                if let Some(buckets) = self.at.get_mut(&place) {
                    buckets.remove(&bucket);
                }
            }
            _ => return false,
        }
        true
    }

    /// Has a line be what it is by now.
    pub(super) fn update(
        &mut self,
        scene: Scene<'_>,
        pool: &Pool,
        models: &[GpuModel],
        line: Line,
    ) {
        let left = self
            .by_line
            .get(&line)
            .copied()
            .map(|id| self.remove(id).left);
        self.insert(scene, pool, models, line, left);
    }

    fn insert(
        &mut self,
        scene: Scene<'_>,
        pool: &Pool,
        models: &[GpuModel],
        line: Line,
        left: Option<Arc<[Option<Left>]>>,
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
        let bucket = self.bucket_of(scene, pool, job);
        let left = left.unwrap_or_else(|| {
            let places = &self.buckets[bucket as usize].places;
            let left = models.iter().map(|model| {
                let is_there = |place: &PlaceId| pool.places[*place as usize].model == *model;
                places
                    .iter()
                    .any(is_there)
                    .then(|| Left::of_waiting(scene.forecast, job, *model, scene.state.policy()))?
            });
            left.collect()
        });
        let known = Known {
            line,
            head,
            count: jobs.len(),
            width: job.spec.gpu_count,
            objective: job.spec.objective,
            is_capped: job.spec.max_price_per_hour.is_some() || job.spec.max_cost.is_some(),
            priority: job.spec.priority,
            due_ms: due_ms(job, &left),
            bucket,
            left,
        };
        let id = self.unused.pop().unwrap_or(self.known.len() as LineId);
        self.by_line.insert(line, id);
        self.buckets[bucket as usize].lines.insert(id);
        self.enter(id, &known);
        if id as usize == self.known.len() {
            self.known.push(Some(known));
        } else {
            self.known[id as usize] = Some(known);
        }
    }

    /// Takes a line out.
    fn remove(&mut self, id: LineId) -> Known {
        let Some(known) = self.known.get_mut(id as usize).and_then(Option::take) else {
            unreachable!("a line that has a number is there");
        };
        self.by_line.remove(&known.line);
        self.unused.push(id);
        for turn in self.turns_of(id, &known) {
            self.turns.remove(&turn);
        }
        let (order, first) = known.head;
        if self.places.remove(&(order, first, id)) {
            self.due.remove(&(known.priority, known.due_ms, id));
            self.classes.remove(&known, id);
        }
        let bucket = &mut self.buckets[known.bucket as usize];
        bucket.lines.remove(&id);
        if bucket.lines.is_empty() {
            let bucket = std::mem::take(bucket);
            self.by_needs.remove(&bucket.needs);
            for place in bucket.places {
                if let Some(buckets) = self.at.get_mut(&place) {
                    buckets.remove(&known.bucket);
                }
            }
            self.unused_buckets.push(known.bucket);
        }
        known
    }

    /// Puts a line into every order.
    fn enter(&mut self, id: LineId, known: &Known) {
        // What nobody could ever run has no turn.
        if known.left.iter().all(Option::is_none) {
            return;
        }
        self.turns.extend(self.turns_of(id, known));
        let (order, first) = known.head;
        self.places.insert((order, first, id));
        self.due.insert((known.priority, known.due_ms, id));
        self.classes.add(known, id);
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

    /// The bucket of a job's needs.
    fn bucket_of(&mut self, scene: Scene<'_>, pool: &Pool, job: &Job) -> u32 {
        let needs = Needs::of(job);
        let hash = needs.hash();
        if let Some(bucket) = self.by_needs.get(&hash) {
            return *bucket;
        }
        let bucket = self
            .unused_buckets
            .pop()
            .unwrap_or(self.buckets.len() as u32);
        let places = pool.places_for(scene.state, needs);
        for place in &places {
            self.at.entry(*place).or_default().insert(bucket);
        }
        let known = Bucket {
            needs: hash,
            width: job.spec.gpu_count,
            places,
            lines: BTreeSet::new(),
        };
        if bucket as usize == self.buckets.len() {
            self.buckets.push(known);
        } else {
            self.buckets[bucket as usize] = known;
        }
        self.by_needs.insert(hash, bucket);
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
        self.places.len()
    }

    /// How many GPUs each job of a bucket takes.
    pub(in crate::placement) fn width_of(&self, bucket: u32) -> u8 {
        self.buckets[bucket as usize].width
    }

    /// Where the lines of a bucket may run, busy or not.
    pub(in crate::placement) fn places_of(&self, bucket: u32) -> &[PlaceId] {
        &self.buckets[bucket as usize].places
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

    /// All lines by their place in the queue.
    pub(in crate::placement) fn in_order(&self) -> impl Iterator<Item = LineId> {
        self.places.iter().map(|(_, _, line)| *line)
    }

    /// The highest priority of a first job.
    pub(in crate::placement) fn highest(&self) -> Option<i8> {
        self.due.last().map(|(priority, ..)| *priority)
    }

    /// The lowest priority with a line whose first job is due, if any is.
    pub(in crate::placement) fn lowest_due(&self, now_ms: u64) -> Option<i8> {
        let mut from = i8::MIN;
        loop {
            let (priority, due_ms, _) = *self.due.range((from, 0, 0)..).next()?;
            if due_ms <= now_ms {
                return Some(priority);
            }
            from = priority.checked_add(1)?;
        }
    }

    /// The lines whose first job has lost its worker, in the order of the queue.
    pub(in crate::placement) fn lost(&self) -> Vec<LineId> {
        let lost = |priority| {
            let lost = (priority, LOST_MS, 0)..=(priority, LOST_MS, LineId::MAX);
            self.due.range(lost).map(|(_, _, line)| *line)
        };
        let mut lost: Vec<LineId> = PRIORITIES.flat_map(lost).collect();
        lost.sort_by_key(|line| self.line(*line).head);
        lost
    }

    /// The lines whose first job is due, and those with a higher priority than `least`, in no order.
    pub(in crate::placement) fn due_or_above(
        &self,
        least: i8,
        now_ms: u64,
    ) -> impl Iterator<Item = LineId> {
        let due = self.due.range((least, 0, 0)..=(least, now_ms, LineId::MAX));
        let above = least
            .checked_add(1)
            .map(|above| self.due.range((above, 0, 0)..));
        let all = due.chain(above.into_iter().flatten());
        all.map(|(_, _, line)| *line)
    }
}
