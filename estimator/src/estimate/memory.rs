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

pub(super) use step::Step;

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
    /// Of each kind of step, beside that of the weights alone, and of what comes before them.
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
        let weights = preparation::resident(workload);
        let steps = steps.flat_map(|step| {
            let needs = [Some(step.need()), weights].into_iter().flatten();
            needs.map(move |need| (Some(step), need))
        });
        let before = preparation::needs(workload).map(|need| (None, need));
        Self {
            each: steps.chain(before).collect(),
        }
    }

    /// What it is on each GPU of a model: the worst word of all parts, and each point of the one that needs most. `None` for a
    /// GPU without memory of its own and where nothing is asked for. A step that has run there, or one that asks for as much,
    /// has found room; of what comes before the steps records say nothing.
    pub(super) fn on(&self, gpu: GpuModel, has_run: impl Fn(&Step) -> bool) -> Option<Memory> {
        if gpu.memory_gib() == 0 {
            return None;
        }
        let each = self.each.iter().map(|(step, need)| {
            let usable = f64::from(gpu.memory_gib()) * need.usable;
            let said = step.as_ref().and_then(|step| step.said(gpu, usable));
            let memory = need.on(gpu, usable, said);
            let is_open = memory.fit != Fit::Fits || memory.need_mib_p90 > memory.gpu_mib;
            match step {
                Some(step) if is_open && has_run(step) => need.on(gpu, usable, Some(Fit::Fits)),
                _ => memory,
            }
        });
        each.reduce(both)
    }
}

/// What two parts of a run need, one after the other.
fn both(a: Memory, b: Memory) -> Memory {
    let worse = if (a.fit, a.need_mib_p50) > (b.fit, b.need_mib_p50) {
        a
    } else {
        b
    };
    Memory {
        need_mib_p10: a.need_mib_p10.max(b.need_mib_p10),
        need_mib_p50: a.need_mib_p50.max(b.need_mib_p50),
        need_mib_p90: a.need_mib_p90.max(b.need_mib_p90),
        ..worse
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
