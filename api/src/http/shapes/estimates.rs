//! Estimates as JSON.

use schemars::JsonSchema;
use serde::Serialize;
use stepcast_proto::v1;

use super::{NoteShown, Points, note, points, short};

/// What a run will take and cost on one hardware.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EstimateShown {
    /// GPU model and count, such as `h100x2`.
    pub(crate) hardware: String,
    /// How far from the exact key it was taken: `EXACT`, `NEAR`, `ROUGH` or `NONE`.
    pub(crate) basis: String,
    /// Contributions it rests on.
    pub(crate) rows: u32,
    /// Steps that these observed.
    pub(crate) steps_observed: u64,
    /// One optimizer step, in milliseconds.
    pub(crate) step_ms: Option<Points>,
    /// All training steps, in milliseconds.
    pub(crate) train_ms: Option<Points>,
    /// All validation, in milliseconds.
    pub(crate) validation_ms: Option<Points>,
    /// Training and validation together, in milliseconds.
    pub(crate) run_ms: Option<Points>,
    /// Loading, caching and saving, in milliseconds; in `whole_ms` and `whole_cost_usd_micros` alone.
    pub(crate) setup_ms: Option<Points>,
    /// For how long the hardware is taken and paid for, in milliseconds: the run with loading, caching and saving.
    pub(crate) whole_ms: Option<Points>,
    /// Set-up, training, validation and saving by what happens, in the order of the run.
    pub(crate) phases: Vec<PhaseShown>,
    /// The memory of each GPU that it needs; absent for what has none, and for a run that keeps its weights elsewhere.
    pub(crate) memory: Option<MemoryShown>,
    /// What training and validation cost, in millionths of a US dollar.
    pub(crate) cost_usd_micros: Option<Points>,
    /// What all of it costs, loading, caching and saving included, in millionths of a US dollar: a job is charged that.
    pub(crate) whole_cost_usd_micros: Option<Points>,
    /// The price of the whole hardware for an hour, in millionths of a US dollar.
    pub(crate) price_per_hour_usd_micros: Option<u64>,
    /// Another hardware of the same answer that holds the model is as quick and as cheap, and better in one of the two.
    pub(crate) dominated: bool,
    /// One line for people, of training and validation.
    pub(crate) headline: String,
    /// What to know about it.
    pub(crate) notes: Vec<NoteShown>,
}

/// One part of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PhaseShown {
    /// What happens: `START`, `LOAD`, `QUANTIZE`, `CACHE_TEXT`, `CACHE_LATENTS`, `TRAIN`, `VALIDATE`, `CHECKPOINT` or
    /// `SAVE`.
    pub(crate) kind: String,
    /// Half megapixels of the samples or images, where the part is of one resolution.
    pub(crate) half_megapixels: Option<u32>,
    /// Samples, steps, images or checkpoints; 1 for what happens once, 0 where nobody knows.
    pub(crate) count: u64,
    /// All of it together, in milliseconds; absent while it is unknown, and then it is in no sum.
    pub(crate) time_ms: Option<Points>,
    /// How far from the exact key the time was taken.
    pub(crate) basis: String,
    /// Contributions it rests on.
    pub(crate) rows: u32,
    /// Steps or images that these observed.
    pub(crate) observed: u64,
}

/// What is expected of a run's peak on one GPU.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MemoryShown {
    /// In MiB.
    pub(crate) need_mib: Points,
    /// What one GPU has, in MiB.
    pub(crate) gpu_mib: u32,
    /// How far from the run the published peak is that this rests on.
    pub(crate) basis: String,
    /// `FITS`, `MAY_NOT` or `WILL_NOT`.
    pub(crate) fit: String,
    /// When it needs that: `TRAIN`, or before the steps `CACHE_TEXT`, `CACHE_LATENTS` or `QUANTIZE`.
    pub(crate) phase: String,
}

/// An estimate as JSON.
pub(crate) fn estimate(estimate: &v1::Estimate) -> EstimateShown {
    EstimateShown {
        hardware: estimate.hardware.clone(),
        basis: short(estimate.basis().as_str_name(), "BASIS_"),
        rows: estimate.rows,
        steps_observed: estimate.steps_observed,
        step_ms: points(estimate.step_time.as_ref()),
        train_ms: points(estimate.train_time.as_ref()),
        validation_ms: points(estimate.validation_time.as_ref()),
        run_ms: points(estimate.run_time.as_ref()),
        setup_ms: points(estimate.setup_time.as_ref()),
        whole_ms: points(estimate.whole_time.as_ref()),
        phases: estimate.phases.iter().map(phase).collect(),
        memory: estimate.memory.as_ref().map(memory),
        cost_usd_micros: money(estimate.cost.as_ref()),
        whole_cost_usd_micros: money(estimate.whole_cost.as_ref()),
        price_per_hour_usd_micros: estimate.price_per_hour_usd_micros,
        dominated: estimate.dominated,
        headline: estimate.headline.clone(),
        notes: estimate.notes.iter().map(note).collect(),
    }
}

fn money(cost: Option<&v1::CostQuantiles>) -> Option<Points> {
    cost.map(|cost| Points {
        p10: cost.p10_usd_micros,
        p50: cost.p50_usd_micros,
        p90: cost.p90_usd_micros,
    })
}

fn memory(memory: &v1::MemoryNeed) -> MemoryShown {
    MemoryShown {
        need_mib: Points {
            p10: memory.p10_mib.into(),
            p50: memory.p50_mib.into(),
            p90: memory.p90_mib.into(),
        },
        gpu_mib: memory.gpu_mib,
        basis: short(memory.basis().as_str_name(), "BASIS_"),
        fit: short(memory.fit().as_str_name(), "MEMORY_FIT_"),
        phase: short(memory.phase().as_str_name(), "ESTIMATE_PHASE_KIND_"),
    }
}

fn phase(phase: &v1::EstimatePhase) -> PhaseShown {
    PhaseShown {
        kind: short(phase.kind().as_str_name(), "ESTIMATE_PHASE_KIND_"),
        half_megapixels: phase.half_megapixels,
        count: phase.count,
        time_ms: points(phase.time.as_ref()),
        basis: short(phase.basis().as_str_name(), "BASIS_"),
        rows: phase.rows,
        observed: phase.observed,
    }
}
