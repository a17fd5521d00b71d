//! What hardware is to a job's owner: time, money, or both.

use stepcast_records::GpuModel;

use crate::model::Objective;
use crate::placement::left::Left;
use crate::placement::pool::Slot;

/// What hardware is to whoever chooses by this: time, money, or both; the least is best.
pub(super) fn taste(objective: Objective, left: &Left, price: f64) -> f64 {
    /// More than any ratio of times.
    const GUESS: f64 = 1e9;
    let known = if left.is_guess { GUESS } else { 1.0 };
    known
        * match objective {
            Objective::Cheapest => left.p50_ms * price,
            Objective::Fastest => left.p50_ms,
            Objective::Balanced => left.p50_ms * price.sqrt(),
        }
}

/// What hardware is to whoever chooses by this beside other of its model, by how much longer it takes and by its price: what
/// it costs, how long it takes, or both; the least is best.
pub(super) fn worth(objective: Objective, longer: u32, price: f64) -> f64 {
    let longer = f64::from(longer);
    match objective {
        Objective::Fastest => longer,
        Objective::Cheapest => longer * price,
        Objective::Balanced => longer * price.sqrt(),
    }
}

/// The price of a GPU of a worker, as a number to be compared.
pub(super) fn price_of(slot: &Slot, gpu: GpuModel) -> f64 {
    /// Nobody knows what it costs: more than whatever has a price.
    const UNPRICED: f64 = 1e18;
    slot.price(gpu)
        .map_or(UNPRICED, |price| price.max(1) as f64)
}
