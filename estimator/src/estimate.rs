//! The estimate: what a run will take and cost on each hardware, always with its basis and how much it rests on.

mod around;
pub mod backtest;
mod doors;
mod features;
mod frontier;
mod ladder;
mod learned;
mod memory;
mod model;
mod physics;
mod published;
mod relatives;
pub(crate) mod remembered;
mod run;
mod shape;
mod size;
#[cfg(test)]
pub(crate) mod tests;
mod width;
mod work;

use std::collections::BTreeSet;

use stepcast_records::simpletuner::{Missing, Workload};
use stepcast_records::{Estimate, GpuModel, Hardware, Note, Phase, Quantiles, UsdMicros};

use crate::index::Index;
use crate::price::{Day, Price, PriceBook};
#[cfg(test)]
pub(crate) use features::of_step as point_of;
pub use frontier::dominated;
use ladder::Ladder;
pub(crate) use learned::{observe, of as learn, shipped};
pub(crate) use model::Model;
use run::Run;

/// Hardware listed at most. The screen shows a few; the bound keeps one call from costing more than some milliseconds.
pub const HARDWARE_MAX: usize = 64;
/// What is listed when nobody names a hardware and nothing is known: common GPUs, from small to large.
const COMMON: [&str; 8] = [
    "rtx3090", "rtx4090", "rtx5090", "l40s", "a100-80", "h100", "h200", "b200",
];

/// A worker's hardware, and what its operator asks for an hour of all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Offer {
    /// The hardware.
    pub hardware: Hardware,
    /// The price of the whole hardware for an hour by its own word; `None` leaves it to the price book.
    pub price_per_hour: Option<UsdMicros>,
}

/// What an estimate is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The run.
    pub workload: &'a Workload,
    /// Where it could run; empty lists what workers offer, what has history, and a few common GPUs with a price.
    pub hardware: &'a [Hardware],
    /// What workers offer; of several prices for one hardware the lowest counts. Where one says none, it is at the operator's
    /// price, if there is any; what else the book says counts where nobody has a price.
    pub offers: &'a [Offer],
    /// The day whose prices count.
    pub day: Day,
}

/// What estimates are made from. [`Estimator::estimate`](crate::Estimator::estimate) is the usual door; this one
/// serves who holds an index and prices alone.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    records: &'a Index,
    prices: &'a PriceBook,
    model: Option<&'a Model>,
}

impl<'a> Evidence<'a> {
    /// Records and prices, together with the published figures that come with this version.
    #[must_use]
    pub fn new(records: &'a Index, prices: &'a PriceBook) -> Self {
        Self {
            records,
            prices,
            model: learned::shipped(),
        }
    }

    /// With a model that has learnt from the records too.
    pub(crate) fn learned(self, model: Option<&'a Model>) -> Self {
        Self {
            model: model.or(self.model),
            ..self
        }
    }

    /// One estimate per hardware, in the order asked for; without a list, the cheapest first.
    ///
    /// A hardware that may not or cannot hold the model is listed too, with [`Note::MemoryTight`] or
    /// [`Note::MemoryExceeded`]; without a list, one that cannot comes behind all that can.
    ///
    /// A hardware on whose GPUs the run cannot be divided, or its data not fill a step, is left out.
    ///
    /// # Errors
    /// When all are: the fact that is missing for the first.
    pub fn estimate(&self, ask: &Ask<'_>) -> Result<Vec<Estimate>, Missing> {
        let run = Run::new(self.ladder(), ask.workload);
        let mut missing = None;
        let mut estimates = Vec::new();
        let usual = ask.hardware.is_empty().then(|| self.usual(ask));
        let usual = usual.iter().flatten();
        let asked = ask.hardware.iter().take(HARDWARE_MAX).chain(usual);
        for &hardware in asked {
            match self.on(&run, ask, hardware) {
                Ok(estimate) => estimates.push(estimate),
                Err(error) => missing = missing.or(Some(error)),
            }
        }
        if estimates.is_empty() {
            return Err(missing.unwrap_or(Missing::Datasets));
        }
        if ask.hardware.is_empty() {
            estimates.sort_by_key(rank);
        }
        Ok(estimates)
    }

    /// Run and set-up together on one hardware, for a plan that needs a number and no reasons.
    #[must_use]
    pub fn forecast(&self, workload: &Workload, hardware: Hardware) -> Option<Quantiles> {
        let estimate = Run::new(self.ladder(), workload).on(hardware).ok()?;
        Some(estimate.run_ms?.plus(estimate.setup_ms.unwrap_or_default()))
    }

    /// The same run by its parts; empty when it does not fit the hardware.
    #[must_use]
    pub fn phases(&self, workload: &Workload, hardware: Hardware) -> Vec<Phase> {
        let estimate = Run::new(self.ladder(), workload).on(hardware);
        estimate.map_or_else(|_| Vec::new(), |estimate| estimate.phases)
    }

    fn ladder(&self) -> Ladder<'a> {
        Ladder {
            records: self.records,
            published: published::shipped(),
            model: self.model,
        }
    }

    fn on(&self, run: &Run<'_>, ask: &Ask<'_>, hardware: Hardware) -> Result<Estimate, Missing> {
        let mut estimate = run.on(hardware)?;
        match self.price(ask, hardware) {
            Some(price) => Ok(estimate.priced(price)),
            None => {
                estimate.notes.push(Note::NoPrice);
                Ok(estimate)
            }
        }
    }

    /// The price of the whole hardware for an hour.
    fn price(&self, ask: &Ask<'_>, hardware: Hardware) -> Option<UsdMicros> {
        let whole = |price: &Price| {
            let UsdMicros(one) = price.usd_per_gpu_hour;
            UsdMicros(one.saturating_mul(hardware.count.into()))
        };
        let said = self.prices.said(hardware.gpu, ask.day).map(whole);
        let offers = ask.offers.iter().filter(|offer| offer.hardware == hardware);
        let asked = offers.filter_map(|offer| offer.price_per_hour.or(said));
        let listed = || self.prices.price(hardware.gpu, ask.day).map(whole);
        asked.min().or_else(listed)
    }

    /// What to list when nobody names a hardware.
    fn usual(&self, ask: &Ask<'_>) -> BTreeSet<Hardware> {
        let offered = ask.offers.iter().map(|offer| offer.hardware);
        let recipe = ask.workload.recipe;
        let known = self.records.hardware(recipe);
        let published = published::shipped().hardware(recipe);
        let priced = |gpu: &GpuModel| self.prices.price(*gpu, ask.day).is_some();
        let common = COMMON.into_iter().filter_map(|name| name.parse().ok());
        let count = fewest_gpus(ask.workload);
        let common = common
            .filter(priced)
            .filter_map(|gpu| Hardware::new(gpu, count));
        let real = known.filter(|hardware| !hardware.is_replay());
        let all = offered.chain(real).chain(published).chain(common);
        let mut usual = BTreeSet::new();
        for hardware in all {
            if usual.len() == HARDWARE_MAX {
                break;
            }
            usual.insert(hardware);
        }
        usual
    }
}

/// Learns from the published figures now, which takes a moment, rather than under the first question.
pub(crate) fn prepare() {
    let _ = learned::shipped();
}

/// As few GPUs as the run can have: one, unless a sample is shared among several.
fn fewest_gpus(workload: &Workload) -> u8 {
    let fits = |count: &u8| !matches!(workload.plan(*count), Err(Missing::Gpus { .. }));
    Hardware::COUNTS.into_iter().find(fits).unwrap_or(1)
}

/// What can run and is cheapest first, loading, caching and saving included; what does not fit behind it, and what has no
/// number last.
fn rank(estimate: &Estimate) -> (bool, bool, bool, Option<UsdMicros>, u64, Hardware) {
    let run = estimate.whole_ms().map(|whole| whole.p50);
    let cost = estimate.whole_cost().map(|cost| cost.p50);
    (
        run.is_none(),
        estimate.will_not_fit(),
        cost.is_none(),
        cost,
        run.unwrap_or(0),
        estimate.hardware,
    )
}
