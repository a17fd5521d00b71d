//! The estimator's doors to estimates: both answer from memory and wait for nobody.

use stepcast_records::simpletuner::{Missing, Workload};
use stepcast_records::{Estimate, Hardware, Quantiles};

use super::{Ask, Evidence};
use crate::Estimator;

impl Estimator {
    /// What a run will take and cost on each hardware, from everything known now.
    ///
    /// The estimates stand in the order asked for; where no hardware was named, the cheapest comes first. A
    /// hardware that may not hold the model is listed too, with a note.
    ///
    /// # Errors
    /// When a named hardware does not fit the run, or none does: the fact that is missing.
    pub fn estimate(&self, ask: &Ask<'_>) -> Result<Vec<Estimate>, Missing> {
        Evidence::new(&self.index(), self.prices()).estimate(ask)
    }

    /// How long a run will hold a hardware, set-up included; `None` when nothing is known or it does not fit.
    #[must_use]
    pub fn forecast(&self, workload: &Workload, hardware: Hardware) -> Option<Quantiles> {
        Evidence::new(&self.index(), self.prices()).forecast(workload, hardware)
    }
}
