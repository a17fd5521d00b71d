//! Lines whose jobs wait for the hosts with their checkpoints rather than begin anew on any other. They stand apart by the
//! folder that they wait for, so that a look goes through them when there is room there, and not for what is free elsewhere.
//!
//! On models on which its job is done sooner anew it has its turn like others. Whether it waits follows from the state: it is
//! found out once more when a worker of its folder has changed, and when it has waited for as long as it may. Where it also
//! depends on money or on what else runs it is asked at its turn, as it is as long as it is not known of all workers where they
//! put results.

use std::collections::{BTreeMap, BTreeSet};

use stepcast_records::GpuModel;

use super::Scene;
use super::line::Known;
use super::queue::{LineId, Queue};
use super::saved::Saved;
use crate::drift::AS_EXPECTED;
use crate::ids::OutputsId;
use crate::model::Job;
use crate::placement::feasible::Needs;
use crate::placement::left::Left;
use crate::placement::pool::{Pool, of_model};
use crate::state::State;

/// Workers of one folder that are looked at to tell whether a line waits for them: with more of them one is free soon anyway.
const WORKERS_LOOKED_AT: usize = 32;

/// What a line waits for, and where it does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::placement) struct Home {
    /// The folder with the checkpoint of its job.
    pub(in crate::placement) folder: OutputsId,
    /// Models on which it may begin anew, ascending.
    pub(in crate::placement) open: Vec<GpuModel>,
}

/// That a line waits.
#[derive(Debug, Clone)]
pub(in crate::placement) struct Wait {
    pub(super) home: Home,
    /// How much sooner than anew, on the fastest of all others of a model that is not open, the job is done where its checkpoint
    /// is, in milliseconds: it waits while GPUs there are expected within this.
    again_ms: u64,
    /// Until when it does so, by stamp.
    until_ms: u64,
}

/// The lines that wait.
#[derive(Default)]
pub(super) struct Waiting {
    /// Buckets of them, by what they wait for.
    folders: BTreeMap<OutputsId, BTreeSet<u32>>,
    /// Lines by bucket, and how soon GPUs have to be expected.
    again: BTreeSet<(u32, u64, LineId)>,
    /// Lines by when they have waited for as long as they may.
    until: BTreeSet<(u64, LineId)>,
    /// No worker was faster beside others of its kind when they were taken in.
    least_drift: Option<u32>,
    /// How fast the fastest is now, once that was asked in this look.
    asked_drift: Option<u32>,
}

impl Waiting {
    pub(super) fn add(&mut self, id: LineId, known: &Known) {
        if let Some(wait) = &known.waits {
            self.folders
                .entry(wait.home.folder)
                .or_default()
                .insert(known.bucket);
            self.again.insert((known.bucket, wait.again_ms, id));
            self.until.insert((wait.until_ms, id));
        }
    }

    pub(super) fn remove(&mut self, id: LineId, known: &Known) {
        let Some(wait) = &known.waits else {
            return;
        };
        self.again.remove(&(known.bucket, wait.again_ms, id));
        self.until.remove(&(wait.until_ms, id));
        if self.lines_of(known.bucket).next().is_none()
            && let Some(buckets) = self.folders.get_mut(&wait.home.folder)
        {
            buckets.remove(&known.bucket);
            if buckets.is_empty() {
                self.folders.remove(&wait.home.folder);
            }
        }
    }

    /// Lines of a bucket, by how soon GPUs have to be expected.
    fn lines_of(&self, bucket: u32) -> impl Iterator<Item = (u64, LineId)> {
        let lines = self
            .again
            .range((bucket, 0, 0)..=(bucket, u64::MAX, LineId::MAX));
        lines.map(|(_, again_ms, id)| (*again_ms, *id))
    }
}

impl Queue {
    /// How a line of one job waits for its home, if it does for certain.
    pub(super) fn wait_of(
        &mut self,
        scene: Scene<'_>,
        pool: &Pool,
        models: &[GpuModel],
        (job, left, saved): (&Job, &[Option<Left>], &Saved),
    ) -> Option<Wait> {
        let (state, forecast) = (scene.state, scene.forecast);
        let home = saved.folder?;
        if !pool.folders.are_known_apart() || may_not_pay(state, job) {
            return None;
        }
        let waiting = &mut self.waiting;
        let now = *waiting
            .asked_drift
            .get_or_insert_with(|| forecast.least_drift());
        let least_drift = waiting.least_drift.map_or(now, |known| known.min(now));
        waiting.least_drift = Some(least_drift);
        let needs = Needs::of(job);
        let mut soonest_ms: Option<u64> = None;
        let mut left_ms = 0_f64;
        for position in pool.folders.workers(Some(home)).take(WORKERS_LOOKED_AT) {
            let slot = &pool.slots[position];
            let Some(worker) = state.worker(slot.id) else {
                continue;
            };
            let longer = f64::from(forecast.drift(slot.id)) / f64::from(AS_EXPECTED);
            for gpu in needs.fit(worker).unwrap_or_default() {
                let at = models.binary_search(&gpu).ok()?;
                left_ms = left_ms.max(left[at]?.p50_ms * longer);
                let soonest = slot.soonest(of_model(worker, gpu), needs.gpu_count, scene.now_ms);
                let soonest = soonest.map(|(free_ms, _)| free_ms);
                soonest_ms = soonest_ms.into_iter().chain(soonest).min();
            }
        }
        let wait_ms = soonest_ms?.saturating_sub(scene.now_ms);
        let least = f64::from(least_drift) / f64::from(AS_EXPECTED);
        let since_ms = job.queued_ms.max(job.not_before_ms);
        let mut least_ms: Option<u64> = None;
        let mut open = Vec::new();
        let anew = models.iter().zip(saved.anew.iter()).zip(left);
        for ((gpu, anew), _) in anew.filter(|(_, left)| left.is_some()) {
            let again_ms = anew.filter(|anew| !anew.is_guess).map(|anew| {
                let again_ms = anew.p50_ms * least - left_ms;
                again_ms.max(0.0) as u64
            });
            let waits = |again_ms: &u64| {
                wait_ms < *again_ms && scene.now_ms < since_ms.saturating_add(*again_ms)
            };
            match again_ms.filter(waits) {
                Some(again_ms) => {
                    least_ms = Some(least_ms.map_or(again_ms, |least| least.min(again_ms)));
                }
                None => open.push(*gpu),
            }
        }
        let again_ms = least_ms?;
        Some(Wait {
            home: Home { folder: home, open },
            again_ms,
            until_ms: since_ms.saturating_add(again_ms),
        })
    }

    /// Looks again at lines that wait for folders of which a worker has changed, with whether one of them has got another
    /// folder, and at those that have waited long enough.
    pub(super) fn follow_homes(
        &mut self,
        scene: Scene<'_>,
        pool: &Pool,
        changed: &BTreeSet<(OutputsId, bool)>,
    ) {
        let mut again = Vec::new();
        for (folder, has_gone) in changed {
            for bucket in self.waiting.folders.get(folder).into_iter().flatten() {
                let Some((least_ms, _)) = self.waiting.lines_of(*bucket).next() else {
                    continue;
                };
                // Whose checkpoint went with the worker does not wait for the others of the folder.
                let mut wait_ms = u64::MAX;
                let workers = pool.folders.workers(Some(*folder));
                for position in workers.filter(|_| !has_gone) {
                    wait_ms = wait_ms.min(self.wait_at(scene.now_ms, pool, *bucket, position));
                    if wait_ms < least_ms {
                        break;
                    }
                }
                let lines = self.waiting.lines_of(*bucket);
                let lines = lines.take_while(|(again_ms, _)| *again_ms <= wait_ms);
                again.extend(lines.map(|(_, id)| id));
            }
        }
        self.waiting.asked_drift = None;
        if !self.waiting.until.is_empty() {
            let now = scene.forecast.least_drift();
            self.waiting.asked_drift = Some(now);
            let is_faster = self.waiting.least_drift.is_some_and(|least| now < least);
            let is_any = is_faster || !pool.folders.are_known_apart();
            let until = self.waiting.until.iter();
            let over = until.take_while(|(until_ms, _)| is_any || *until_ms <= scene.now_ms);
            again.extend(over.map(|(_, id)| *id));
        }
        again.sort_unstable();
        again.dedup();
        for id in again {
            self.look_again(id);
        }
    }

    /// In how many milliseconds a worker is expected to have GPUs for a job of a bucket.
    fn wait_at(&self, now_ms: u64, pool: &Pool, bucket: u32, position: usize) -> u64 {
        let slot = &pool.slots[position];
        let places = self.places_of(bucket).iter();
        let places = places.map(|place| &pool.places[*place as usize]);
        let there = places
            .filter(|place| place.is_of(slot))
            .filter_map(|place| {
                let (free_ms, _) = slot.soonest(place.gpus, self.width_of(bucket), now_ms)?;
                (free_ms < u64::MAX).then(|| free_ms.saturating_sub(now_ms))
            });
        there.min().unwrap_or(u64::MAX)
    }

    /// Has a line be found out about once more, as if it had not been seen.
    pub(super) fn look_again(&mut self, id: LineId) {
        let known = self.remove(id);
        let (order, first) = known.head;
        self.unseen.insert((order, first, known.line));
    }

    /// The buckets whose jobs wait for a folder of which some worker has room.
    pub(in crate::placement) fn waiting_for(&self, pool: &Pool) -> Vec<u32> {
        let folders = &self.waiting.folders;
        if folders.is_empty() {
            return Vec::new();
        }
        let roomy = pool.folders.roomy();
        if roomy.len() < folders.len() {
            let found = roomy.filter_map(|folder| folders.get(&folder));
            return found.flatten().copied().collect();
        }
        let found = folders.iter();
        let found = found.filter(|(folder, _)| pool.folders.has_room(**folder));
        found
            .flat_map(|(_, buckets)| buckets.iter().copied())
            .collect()
    }
}

/// Whether it depends on what else is taken whether a job may have GPUs that it could have: its money, or others of its key.
fn may_not_pay(state: &State, job: &Job) -> bool {
    let terms = &job.spec.terms;
    let mut teams = job.teams().filter_map(|team| state.team(team));
    job.spec.max_cost.is_some()
        || job.spec.max_price_per_hour.is_some()
        || terms.spread.is_some()
        || job.failed_to_start().next().is_some()
        || state.approval_above(job).is_some()
        || teams.any(|team| team.rules.budget.is_some())
}
