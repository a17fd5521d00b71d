//! One run on one hardware: steps and images from the ladder, summed by the run's plan.

use stepcast_records::simpletuner::{Missing, OffRecord, Plan, Workload};
use stepcast_records::{
    Basis, BatchSize, Estimate, Hardware, InferenceSteps, Note, Quantiles, TrainingShape,
    ValidationShape,
};

use super::around;
use super::ladder::{Found, Ladder, Rungs, cost};
use super::width;

/// Notes of one estimate at most: a run of many data sets would repeat itself, and nobody reads more.
const NOTES_MAX: usize = 16;
/// Fewer contributions than this do not say how a key spreads.
const ROWS_FEW: u32 = 3;
/// When derived validation is more than this share of the run, the estimate is no longer exact.
const DERIVED_SHARE_MAX: f64 = 0.2;
/// Of an image's time that was derived from a step's, so much follows the arithmetic.
const FLOOR_DERIVED: f64 = 0.3;

/// A workload with the way up for each of its shapes, shared by all hardwares.
pub(super) struct Run<'a> {
    workload: &'a Workload,
    ladder: Ladder<'a>,
    training: Vec<Rungs<'a, TrainingShape>>,
    validation: Vec<Rungs<'a, ValidationShape>>,
}

/// A sum of times.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    p10: f64,
    p50: f64,
    p90: f64,
}

impl<'a> Run<'a> {
    /// Prepares the way up for every shape of a workload.
    pub(super) fn new(ladder: Ladder<'a>, workload: &'a Workload) -> Self {
        Self {
            workload,
            ladder,
            training: Vec::new(),
            validation: Vec::new(),
        }
    }
}
