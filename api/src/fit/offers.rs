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

/// What jobs ask of a worker whatever its GPUs are.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    trainer: TrainerKind,
    labels: BTreeMap<Label, Label>,
    avoid: BTreeMap<Label, Label>,
}

impl Offers {
    /// Every number of GPUs of one model, and its price by the worker's own word.
    pub(crate) fn of(&self, state: &State) -> Arc<[Offer]> {
        self.get(seen(state), &Wanted::default(), || offers(state, |_| true))
    }

    /// What those workers offer that a job may come to by its labels; all of them where there is none.
    pub(crate) fn to(&self, state: &State, spec: &JobSpec) -> Arc<[Offer]> {
        if spec.labels.is_empty() && spec.terms.avoid.is_empty() {
            return self.of(state);
        }
        let wanted = Wanted {
            trainer: spec.trainer,
            labels: spec.labels.clone(),
            avoid: spec.terms.avoid.clone(),
        };
        let offered = self.get(seen(state), &wanted, || {
            let job = waiting(spec, 0);
            offers(state, |worker| {
                feasible::admits_worker(&job, worker).is_ok()
            })
        });
        match offered.is_empty() {
            true => self.of(state),
            false => offered,
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
                        price_per_hour: own
                            .map(|UsdMicros(one)| UsdMicros(one.saturating_mul(count.into()))),
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

#[cfg(test)]
mod tests {
    use stepcast_records::GpuModel;

    use super::*;

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
