//! A worker: a process on a GPU host, what it offers, and the token it came with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepcast_records::{GpuModel, UsdMicros};

use super::{Label, Prices, TrainerKind, gpu_numbers};
use crate::ids::{InstanceId, OutputsId, TokenHash, TokenId, WorkerId};

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// What its operator calls it: the name of its token.
    pub name: Label,
    /// What it offers.
    pub inventory: Inventory,
    /// The state folder it runs on.
    pub instance: InstanceId,
    /// The token it came with.
    pub token: TokenHash,
    /// Whether it takes part.
    pub state: WorkerState,
    /// That it takes nothing new.
    pub drain: Option<Drain>,
    /// When it registered last, by stamp.
    pub registered_ms: u64,
    /// The prices that count where it says none: every worker has those of the state, which writes them once.
    #[serde(skip)]
    pub book: Arc<Prices>,
}

/// What a worker offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Its GPUs; a GPU's position here is how it is named.
    #[serde(with = "gpu_numbers")]
    pub gpus: Vec<GpuModel>,
    /// What it can run.
    pub trainers: BTreeSet<TrainerKind>,
    /// Labels it carries.
    pub labels: BTreeMap<Label, Label>,
    /// What one of its GPUs costs an hour, if it says so itself.
    pub price_per_gpu_hour: Option<UsdMicros>,
    /// Where other hosts reach it, as `HOST:PORT`, if it takes part in gangs. Written behind everything else, from format 3
    /// on.
    #[serde(skip)]
    pub address: Option<Label>,
    /// Which folder it puts results into, if it says so. Written behind the address, from format 3 on.
    #[serde(skip)]
    pub outputs: Option<OutputsId>,
}

/// Whether a worker takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerState {
    /// It does.
    Present,
    /// It was not heard of for a whole lease, or has said that it stops. Its leases end by themselves, or with what it runs.
    Lost {
        /// Since when, by stamp.
        since_ms: u64,
    },
    /// Its token was revoked. It is forgotten when its last lease has ended.
    Revoked,
}

/// That a worker takes nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Since when, by stamp.
    pub since_ms: u64,
    /// Whether what runs is stopped too, to go on elsewhere from its newest checkpoint.
    pub stop_running: bool,
}

/// The right to be one worker. The secret itself is known to the worker alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// The name its worker will have.
    pub name: Label,
    /// When it was made, by stamp.
    pub created_ms: u64,
    /// The worker that came with it.
    pub worker: Option<WorkerId>,
}

impl Worker {
    /// Whether it is given new work.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.state == WorkerState::Present && self.drain.is_none()
    }

    /// Whether it takes nothing new.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// What one of its GPUs of a model costs an hour: as it says itself, else as the operator's book does. `None` if neither
    /// says anything: then it costs nothing.
    #[must_use]
    pub fn price_per_gpu_hour(&self, gpu: GpuModel) -> Option<UsdMicros> {
        let own = self.inventory.price_per_gpu_hour;
        own.or_else(|| self.book.of(gpu))
    }

    /// What so many of its GPUs of one model cost an hour.
    #[must_use]
    pub fn price_per_hour(&self, gpu: GpuModel, gpu_count: usize) -> Option<UsdMicros> {
        let UsdMicros(one) = self.price_per_gpu_hour(gpu)?;
        Some(UsdMicros(one.saturating_mul(gpu_count as u64)))
    }

    /// The models of its GPUs, each once and in order.
    #[must_use]
    pub fn models(&self) -> BTreeSet<GpuModel> {
        self.inventory.gpus.iter().copied().collect()
    }
}
