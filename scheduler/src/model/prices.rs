//! What the operator says that GPUs cost, for workers that say no price of their own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stepcast_records::{GpuModel, UsdMicros};

/// The operator's prices as they count now: at most one for each model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prices {
    /// What one GPU costs an hour, by its model's permanent number: the book of a newer node may name models that an older one
    /// does not know, and is the same there.
    by_number: BTreeMap<u8, UsdMicros>,
}

impl Prices {
    /// What one GPU of a model costs an hour; `None` if the operator says nothing of it.
    #[must_use]
    pub fn of(&self, gpu: GpuModel) -> Option<UsdMicros> {
        self.by_number.get(&gpu.number()).copied()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Each with its model's number, in order.
    pub(crate) fn by_number(&self) -> impl Iterator<Item = (u8, UsdMicros)> {
        self.by_number
            .iter()
            .map(|(number, price)| (*number, *price))
    }

    /// Takes one in; false if it is not behind all others.
    pub(crate) fn push(&mut self, number: u8, price: UsdMicros) -> bool {
        let last = self.by_number.last_key_value();
        let is_behind = last.is_none_or(|(last, _)| *last < number);
        self.by_number.insert(number, price);
        is_behind
    }
}

impl FromIterator<(GpuModel, UsdMicros)> for Prices {
    fn from_iter<I: IntoIterator<Item = (GpuModel, UsdMicros)>>(prices: I) -> Self {
        let prices = prices.into_iter();
        Self {
            by_number: prices.map(|(gpu, price)| (gpu.number(), price)).collect(),
        }
    }
}
