//! Memory: what a run needs on each GPU, from published peaks where there are some, and whether it fits.
//!
//! A formula of weights, what is trained and activations says how a need changes from one shape to another; the nearest
//! published peak says where it stands. Published peaks are of steps; what a run needs before them is reckoned beside them,
//! and the larger counts. What images to look at need is left out: SimpleTuner 4.10.1 reports one that finds no memory, and
//! goes on training. Nothing is recorded of runs: the policy has no such field.

mod companions;
mod preparation;
mod published;
mod step;
#[cfg(test)]
mod tests;

use stepcast_records::simpletuner::{OffRecord, Plan, Workload};
use stepcast_records::{Basis, Fit, GpuModel, Memory, PhaseKind, Quantization};

use step::Step;

/// The GPU's own share of its memory, and what fragmentation takes.
const USABLE: f64 = 0.95;
/// Thousand million bytes in a GiB.
const GIB: f64 = 1.073_741_824;
/// A weight in half precision, as it is read.
const WEIGHT_BYTES: f64 = 2.0;
/// Standard deviations from the middle to p10 and p90, and to one in four.
const Z_TENTH: f64 = 1.281_6;
const Z_QUARTER: f64 = 0.674_5;

/// A need in GiB.
#[derive(Debug, Clone, Copy)]
struct Need {
    /// One in ten need less than this.
    p10: f64,
    /// Half need less.
    p50: f64,
    /// Three in four do.
    p75: f64,
    /// Nine in ten do.
    p90: f64,
    basis: Basis,
    phase: PhaseKind,
    /// How much of a GPU's memory it can have.
    usable: f64,
}

/// What a run asks for, whatever the GPU.
pub(super) struct Needs {
    /// Of each kind of step, and of what comes before them.
    each: Vec<(Option<Step>, Need)>,
}

impl Needs {
    /// Nothing for a run that keeps its weights elsewhere.
    pub(super) fn of(workload: &Workload, plan: &Plan) -> Self {
        let elsewhere = [OffRecord::Offload, OffRecord::Sharding];
        let is_elsewhere = |reason| workload.off_record.contains(reason);
        if elsewhere.iter().any(is_elsewhere) {
            return Self { each: Vec::new() };
        }
        let steps = plan.training.iter();
        let steps = steps.map(|(shape, _)| Step::of(workload, *shape));
        let steps = steps.map(|step| (Some(step), step.need()));
        let before = preparation::needs(workload).map(|need| (None, need));
        Self {
            each: steps.chain(before).collect(),
        }
    }

    /// What it is on each GPU of a model; `None` for one without memory of its own and where nothing is asked for. Steps
    /// that have run on it have found room there; of what comes before them records say nothing.
    pub(super) fn on(&self, gpu: GpuModel, steps_have_run: bool) -> Option<Memory> {
        if gpu.memory_gib() == 0 {
            return None;
        }
        let each = self.each.iter().map(|(step, need)| {
            let usable = f64::from(gpu.memory_gib()) * need.usable;
            let said = match step {
                Some(_) if steps_have_run => Some(Fit::Fits),
                Some(step) => step.said(gpu, usable),
                None => None,
            };
            need.on(gpu, usable, said)
        });
        each.max_by_key(|memory| (memory.fit, memory.need_mib_p50))
    }
}

impl Need {
    /// By what so many standard deviations of such runs need less than, in GiB.
    fn of(at: impl Fn(f64) -> f64, basis: Basis, phase: PhaseKind, usable: f64) -> Self {
        Self {
            p10: at(-Z_TENTH),
            p50: at(0.0),
            p75: at(Z_QUARTER),
            p90: at(Z_TENTH),
            basis,
            phase,
            usable,
        }
    }

    /// Whether it fits a GPU, by what was said of it or by what is usable.
    fn on(&self, gpu: GpuModel, usable: f64, said: Option<Fit>) -> Memory {
        let fit = match said {
            Some(fit) => fit,
            None if self.p10 > usable => Fit::WillNot,
            None if self.p75 > usable => Fit::MayNot,
            None => Fit::Fits,
        };
        let gpu_mib = u32::from(gpu.memory_gib()) * 1_024;
        // What has fitted needs no more than there is.
        let most = if said == Some(Fit::Fits) {
            gpu_mib
        } else {
            u32::MAX
        };
        // A float too large for the integer becomes the largest one.
        let mib = |gib: f64| ((gib * 1_024.0).round() as u32).min(most);
        Memory {
            need_mib_p10: mib(self.p10),
            need_mib_p50: mib(self.p50),
            need_mib_p90: mib(self.p90),
            gpu_mib,
            basis: self.basis,
            fit,
            phase: self.phase,
        }
    }
}

/// Bytes of one weight that is quantised so.
fn quantized_bytes(quantization: Quantization) -> f64 {
    match quantization {
        Quantization::None => WEIGHT_BYTES,
        Quantization::Int8 => 1.1,
        Quantization::Nf4 => 0.6,
    }
}
