//! Workers: let in by a token, one at a time for each, drained, lost, and removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use stepcast_records::GpuModel;

use super::State;
use super::apply::Entry;
use super::journal::Change;
use crate::effect::Effect;
use crate::ids::{InstanceId, TokenHash, TokenId, WorkerId};
use crate::model::limits::{Bounds, GPUS_PER_WORKER_MAX, LABELS_MAX};
use crate::model::{
    Drain, Inventory, JobState, Label, Prices, StopReason, Token, Worker, WorkerState,
};
use crate::rejection::Rejection;
use crate::reply::Reply;

impl State {
    pub(super) fn create_token(
        &mut self,
        entry: &mut Entry,
        name: &Label,
        hash: TokenHash,
    ) -> Result<Reply, Rejection> {
        if let Some(other) = self.tokens.values().find(|token| token.name == *name) {
            return Err(Rejection::NameTaken {
                name: name.clone(),
                token: other.id,
            });
        }
        if self.tokens.contains_key(&hash) {
            return Err(Rejection::TokenExists);
        }
        if self.tokens.len() >= Bounds::of(self.format).tokens {
            return Err(Rejection::Full {
                what: "worker tokens",
            });
        }
        self.last_token += 1;
        let id = TokenId(self.last_token);
        Arc::make_mut(&mut self.tokens).insert(
            hash,
            Token {
                id,
                name: name.clone(),
                created_ms: entry.now_ms,
                worker: None,
            },
        );
        Ok(Reply::TokenCreated { token: id })
    }

    pub(super) fn revoke_token(
        &mut self,
        entry: &mut Entry,
        id: TokenId,
    ) -> Result<Reply, Rejection> {
        let known = self.tokens.iter().find(|(_, token)| token.id == id);
        let (&hash, token) = known.ok_or(Rejection::NoSuchToken)?;
        let worker = token.worker;
        Arc::make_mut(&mut self.tokens).remove(&hash);
        if let Some(worker) = worker {
            if let Some(worker) = self.worker_mut(worker) {
                worker.state = WorkerState::Revoked;
            }
            self.stop_all(entry, worker, StopReason::Revoked);
            entry.effects.push(Effect::WorkerChanged { worker });
            self.forget_if_revoked(worker);
        }
        Ok(Reply::Done)
    }

    pub(super) fn register(
        &mut self,
        entry: &mut Entry,
        hash: &TokenHash,
        instance: InstanceId,
        inventory: &Inventory,
    ) -> Result<Reply, Rejection> {
        check(inventory)?;
        let token = self.tokens.get(hash).ok_or(Rejection::InvalidToken)?;
        let worker = match token.worker.and_then(|id| self.workers.get(&id)) {
            Some(worker) => {
                if worker.instance != instance && worker.state == WorkerState::Present {
                    let Worker {
                        id,
                        ref name,
                        instance,
                        ..
                    } = *worker;
                    return Err(Rejection::TokenInUse {
                        worker: id,
                        name: name.clone(),
                        instance,
                    });
                }
                self.check_leased_gpus(worker, inventory)?;
                worker.id
            }
            None if self.workers.len() >= Bounds::of(self.format).workers => {
                return Err(Rejection::Full { what: "workers" });
            }
            None => self.new_worker(*hash, instance, inventory),
        };
        if let Some(worker) = self.worker_mut(worker) {
            worker.instance = instance;
            worker.inventory = inventory.clone();
            worker.state = WorkerState::Present;
            worker.registered_ms = entry.now_ms;
        }
        entry
            .effects
            .extend([Effect::WorkerChanged { worker }, Effect::Plan]);
        Ok(Reply::WorkerRegistered { worker })
    }

    pub(super) fn drain(
        &mut self,
        entry: &mut Entry,
        id: WorkerId,
        stop: bool,
    ) -> Result<Reply, Rejection> {
        let worker = self.worker_mut(id).ok_or(Rejection::NoSuchWorker)?;
        let since_ms = worker.drain.map_or(entry.now_ms, |drain| drain.since_ms);
        worker.drain = Some(Drain {
            since_ms,
            stop_running: stop,
        });
        if stop {
            self.stop_all(entry, id, StopReason::Draining);
        }
        entry.effects.push(Effect::WorkerChanged { worker: id });
        Ok(Reply::Done)
    }

    pub(super) fn resume(&mut self, entry: &mut Entry, id: WorkerId) -> Result<Reply, Rejection> {
        self.worker_mut(id).ok_or(Rejection::NoSuchWorker)?.drain = None;
        entry
            .effects
            .extend([Effect::WorkerChanged { worker: id }, Effect::Plan]);
        Ok(Reply::Done)
    }

    pub(super) fn lose(
        &mut self,
        entry: &mut Entry,
        id: WorkerId,
        instance: InstanceId,
    ) -> Result<Reply, Rejection> {
        let worker = self.worker_mut(id).ok_or(Rejection::NoSuchWorker)?;
        if worker.instance != instance {
            return Err(Rejection::StaleInstance);
        }
        if worker.state == WorkerState::Present {
            worker.state = WorkerState::Lost {
                since_ms: entry.now_ms,
            };
            entry
                .effects
                .extend([Effect::WorkerChanged { worker: id }, Effect::Plan]);
        }
        Ok(Reply::Done)
    }

    /// Has other prices count for workers that say none. What runs keeps its own.
    pub(super) fn set_prices(&mut self, entry: &mut Entry, prices: &Prices) -> Reply {
        if *self.prices != *prices {
            self.prices = Arc::new(prices.clone());
            let mut is_any = false;
            for (id, worker) in Arc::make_mut(&mut self.workers) {
                let book = Arc::clone(&self.prices);
                let before = std::mem::replace(&mut worker.book, book);
                let differs = |gpu: &GpuModel| before.of(*gpu) != worker.book.of(*gpu);
                let says_none = worker.inventory.price_per_gpu_hour.is_none();
                if says_none && worker.inventory.gpus.iter().any(differs) {
                    self.indexes.journal.note(Change::Worker(*id));
                    is_any = true;
                }
            }
            entry.effects.extend(is_any.then_some(Effect::Plan));
        }
        Reply::Done
    }

    /// A worker, to be changed.
    fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers_mut(id).get_mut(&id)
    }

    /// The workers, of whom one is to be changed. The only way that one is, but for [`Self::set_prices`].
    pub(super) fn workers_mut(&mut self, changed: WorkerId) -> &mut BTreeMap<WorkerId, Worker> {
        self.indexes.journal.note(Change::Worker(changed));
        self.indexes.folders.forget();
        Arc::make_mut(&mut self.workers)
    }

    /// A worker whose token is gone is kept only as long as it holds a lease.
    pub(super) fn forget_if_revoked(&mut self, id: WorkerId) {
        let revoked = self
            .worker(id)
            .is_some_and(|worker| worker.state == WorkerState::Revoked);
        if revoked && self.leases_on(id).next().is_none() {
            self.workers_mut(id).remove(&id);
        }
    }

    /// GPUs under a lease must still be what the lease is for.
    fn check_leased_gpus(&self, worker: &Worker, inventory: &Inventory) -> Result<(), Rejection> {
        let mut leased = (0..)
            .zip(&worker.inventory.gpus)
            .filter(|(gpu, _)| self.user_of(worker.id, *gpu).is_some());
        let kept = leased.all(|(gpu, model)| inventory.gpus.get(usize::from(gpu)) == Some(model));
        kept.then_some(()).ok_or(Rejection::GpusInUse)
    }

    fn new_worker(
        &mut self,
        hash: TokenHash,
        instance: InstanceId,
        inventory: &Inventory,
    ) -> WorkerId {
        self.last_worker += 1;
        let id = WorkerId(self.last_worker);
        if let Some(token) = Arc::make_mut(&mut self.tokens).get_mut(&hash) {
            token.worker = Some(id);
            let worker = Worker {
                id,
                name: token.name.clone(),
                inventory: inventory.clone(),
                instance,
                token: hash,
                state: WorkerState::Present,
                drain: None,
                registered_ms: self.now_ms,
                book: Arc::clone(&self.prices),
            };
            self.workers_mut(id).insert(id, worker);
        }
        id
    }

    /// Asks everything that runs on a worker to stop. What was cancelled stays cancelled.
    fn stop_all(&mut self, entry: &mut Entry, worker: WorkerId, why: StopReason) {
        let jobs: Vec<_> = self.leases_on(worker).map(|lease| lease.job).collect();
        for job in jobs {
            self.change(job, |job| {
                let unasked = job
                    .live_attempt()
                    .is_some_and(|attempt| attempt.stop.is_none());
                if unasked && job.state == JobState::Running {
                    entry.stop(job, why);
                }
            });
        }
    }
}

fn check(inventory: &Inventory) -> Result<(), Rejection> {
    let replays = inventory.gpus.iter().filter(|gpu| gpu.is_replay()).count();
    let why = match () {
        () if inventory.gpus.is_empty() => "it has no GPU",
        () if inventory.gpus.len() > GPUS_PER_WORKER_MAX => "it has more than 16 GPUs",
        () if inventory.trainers.is_empty() => "it has no trainer",
        () if inventory.labels.len() > LABELS_MAX => "it has more than 16 labels",
        () if replays > 0 && replays < inventory.gpus.len() => {
            "pretend hardware never mixes with real hardware"
        }
        () => return Ok(()),
    };
    Err(Rejection::InvalidInventory { why })
}
