//! What workers offer, and what those of them do that a job may come to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use stepcast_estimator::Offer;
use stepcast_records::{Hardware, UsdMicros};
use stepcast_scheduler::State;
use stepcast_scheduler::model::{JobSpec, Label, TrainerKind, Worker};
use stepcast_scheduler::placement::feasible;

use super::{by_model, waiting};

/// Kinds of jobs whose offers are kept, those that ask for labels: teams have a few. Beyond that all are found out anew.
const KINDS: usize = 64;

/// What workers that take part offer, kept until one of them comes, goes, is drained or registers anew: every submission
/// asks, and a fleet has thousands of workers.
#[derive(Debug, Default)]
pub(crate) struct Offers(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// By which fleet.
    seen: u64,
    of: BTreeMap<Wanted, Arc<[Offer]>>,
}

/// What workers offer to one job.
#[derive(Debug, Clone)]
pub(crate) struct Offered {
    /// Whatever workers offer, to whomever.
    pub(crate) all: Arc<[Offer]>,
    /// What of it the job may come to; all of it where that is nothing.
    pub(crate) to_it: Arc<[Offer]>,
}

/// What jobs ask of a worker whatever its GPUs are. Nothing by default, not even that it trains.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    trainer: Option<TrainerKind>,
    labels: BTreeMap<Label, Label>,
    avoid: BTreeMap<Label, Label>,
}

impl Offers {
    /// Every number of GPUs of one model, and its price by the worker's own word.
    pub(crate) fn of(&self, state: &State) -> Arc<[Offer]> {
        self.get(seen(state), &Wanted::default(), || offers(state, |_| true))
    }

    /// The same, and what of it a job may come to, by the rules that place it: hardware that it asks for, at a price that it
    /// may pay.
    pub(crate) fn to(&self, state: &State, spec: &JobSpec) -> Offered {
        let seen = seen(state);
        let all = self.get(seen, &Wanted::default(), || offers(state, |_| true));
        let wanted = Wanted {
            trainer: Some(spec.trainer),
            labels: spec.labels.clone(),
            avoid: spec.terms.avoid.clone(),
        };
        let job = waiting(spec, 0);
        let there = self.get(seen, &wanted, || {
            offers(state, |worker| {
                feasible::admits_worker(&job, worker).is_ok()
            })
        });
        let may = |offer: &&Offer| {
            let Hardware { gpu, count } = offer.hardware;
            let booked = || state.prices().of(gpu).map(|price| for_all(price, count));
            let price = offer.price_per_hour.or_else(booked);
            count == spec.gpu_count && feasible::admits_model(&job, gpu, price, 0).is_ok()
        };
        let to_it: Arc<[Offer]> = there.iter().filter(may).copied().collect();
        Offered {
            to_it: match to_it.is_empty() {
                true => Arc::clone(&all),
                false => to_it,
            },
            all,
        }
    }

    /// What is kept of this fleet, or found out now.
    fn get(&self, seen: u64, wanted: &Wanted, find: impl FnOnce() -> Vec<Offer>) -> Arc<[Offer]> {
        let mut kept = self.0.lock();
        if kept.seen != seen || (kept.of.len() >= KINDS && !kept.of.contains_key(wanted)) {
            kept.seen = seen;
            kept.of.clear();
        }
        if let Some(offers) = kept.of.get(wanted) {
            return Arc::clone(offers);
        }
        let offers: Arc<[Offer]> = find().into();
        kept.of.insert(wanted.clone(), Arc::clone(&offers));
        offers
    }
}

/// By what one fleet is told from another.
fn seen(state: &State) -> u64 {
    state.present_workers().fold(0, |seen, worker| {
        let price = worker.inventory.price_per_gpu_hour;
        let price = price.map_or(u64::MAX, |price| price.0);
        let gpus = worker.inventory.gpus.len() as u64;
        let gpus = gpus << 1 | u64::from(worker.is_draining());
        [worker.id.0, worker.registered_ms, gpus, price]
            .into_iter()
            .fold(seen, mixed)
    })
}

/// Mixes one more number into what was seen: quick, for numbers that nobody chooses (the step of FxHash).
fn mixed(seen: u64, number: u64) -> u64 {
    (seen.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// What those workers that take part and that `may` be asked offer. Of what no other one has, also those that are drained.
fn offers(state: &State, may: impl Fn(&Worker) -> bool) -> Vec<Offer> {
    let mut offers = Vec::new();
    let (drained, taking): (Vec<_>, Vec<_>) = state
        .present_workers()
        .filter(|worker| may(worker))
        .partition(|worker| worker.is_draining());
    let mut others: BTreeSet<Hardware> = BTreeSet::new();
    for (workers, is_drained) in [(taking, false), (drained, true)] {
        for worker in workers {
            let own = worker.inventory.price_per_gpu_hour;
            for (model, positions) in by_model(&worker.inventory) {
                let counts = Hardware::COUNTS.into_iter();
                for count in counts.filter(|count| usize::from(*count) <= positions.len()) {
                    let hardware = Hardware { gpu: model, count };
                    if is_drained && others.contains(&hardware) {
                        continue;
                    }
                    offers.push(Offer {
                        hardware,
                        price_per_hour: own.map(|one| for_all(one, count)),
                    });
                }
            }
        }
        others.extend(offers.iter().map(|offer| offer.hardware));
    }
    offers.sort_unstable_by_key(|offer| (offer.hardware, offer.price_per_hour));
    offers.dedup();
    offers
}

/// What so many GPUs cost an hour.
fn for_all(UsdMicros(one): UsdMicros, count: u8) -> UsdMicros {
    UsdMicros(one.saturating_mul(count.into()))
}

#[cfg(test)]
mod tests {
    use stepcast_records::GpuModel;

    use super::*;
    use crate::fit::tests::{fleet, spec};

    /// What no worker has that trains is nobody's choice, whatever it costs.
    #[test]
    fn what_a_job_may_come_to_is_what_it_asks_for_at_a_price_that_it_may_pay() {
        use TrainerKind::{Replay, SimpleTuner};
        let state = fleet(&[
            ("rtx4090", SimpleTuner, Some(500_000), ""),
            ("h100", SimpleTuner, Some(3_000_000), "eu"),
            ("l40s", SimpleTuner, None, ""),
            ("l4", Replay, Some(100_000), ""),
        ]);
        let offers = Offers::default();
        let to = |change: &dyn Fn(&mut JobSpec)| {
            let mut spec = spec();
            change(&mut spec);
            let offered = offers.to(&state, &spec);
            let all = offered.all.iter().filter(|offer| offer.hardware.count == 1);
            assert_eq!(all.count(), 4);
            let to_it = offered.to_it.iter().map(|offer| offer.hardware.gpu.slug());
            to_it.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(to(&|_| {}), "rtx4090 l40s h100");
        assert_eq!(to(&|spec| spec.min_memory_gib = 40), "l40s h100");
        assert_eq!(to(&|spec| spec.allow = vec![gpu("rtx4090")]), "rtx4090");
        // Who has a limit cannot pay what nobody says the price of.
        let cap = Some(UsdMicros(1_000_000));
        assert_eq!(to(&|spec| spec.max_price_per_hour = cap), "rtx4090");
        assert_eq!(
            to(&|spec| spec.max_cost = Some(UsdMicros(50_000))),
            "rtx4090"
        );
        assert_eq!(to(&|spec| spec.max_cost = cap), "rtx4090 h100");
        let label = |text: &str| Label::try_from(text.to_owned()).expect("a label");
        let zone = || BTreeMap::from([(label("zone"), label("eu"))]);
        assert_eq!(to(&|spec| spec.labels = zone()), "h100");
        assert_eq!(to(&|spec| spec.terms.avoid = zone()), "rtx4090 l40s");
        // Where there is nothing it is told of everything.
        assert_eq!(
            to(&|spec| spec.gpu_count = 2),
            to(&|spec| spec.min_memory_gib = 500)
        );
    }

    fn gpu(name: &str) -> GpuModel {
        name.parse().expect("a model")
    }

    fn to(rack: &str) -> Wanted {
        let label = |text: &str| Label::try_from(text.to_owned()).expect("a label");
        Wanted {
            labels: BTreeMap::from([(label("rack"), label(rack))]),
            ..Wanted::default()
        }
    }

    #[test]
    fn the_fleet_is_gone_through_once_for_each_kind_of_job() {
        let offers = Offers::default();
        let mut looks = 0;
        let mut get = |seen, wanted: &Wanted| {
            offers.get(seen, wanted, || {
                looks += 1;
                let gpu = GpuModel::CPU;
                vec![Offer {
                    hardware: Hardware { gpu, count: 1 },
                    price_per_hour: Some(UsdMicros(looks)),
                }]
            })[0]
                .price_per_hour
        };
        let look = |number| Some(UsdMicros(number));
        for (seen, wanted, number) in [
            (1, Wanted::default(), 1),
            (1, to("a"), 2),
            (1, to("b"), 3),
            (1, Wanted::default(), 1),
            (1, to("a"), 2),
            (1, to("b"), 3),
            // Somebody has come.
            (2, to("a"), 4),
            (2, to("a"), 4),
            (2, Wanted::default(), 5),
        ] {
            assert_eq!(get(seen, &wanted), look(number), "{wanted:?}");
        }
        for kind in 0..2 * KINDS {
            get(2, &to(&kind.to_string()));
        }
        assert!(offers.0.lock().of.len() <= KINDS);
    }
}
