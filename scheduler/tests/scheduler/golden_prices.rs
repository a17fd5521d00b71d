//! The operator's prices: as bytes in the repository, and whose they are.

use std::collections::BTreeMap;

use stepcast_records::{GpuModel, UsdMicros};
use stepcast_scheduler::ids::{InstanceId, TokenHash, WorkerId};
use stepcast_scheduler::model::{Inventory, Prices, TrainerKind};
use stepcast_scheduler::{Command, Effect, Envelope, Rejection, State};

use crate::golden::{bytes, hex, in_format_3, is_unknown_to_format_2, stand_in};

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-prices.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-prices.txt");

fn gpu(name: &str) -> GpuModel {
    name.parse().expect("a GPU")
}

fn set(prices: &[(&str, u64)]) -> Command {
    let prices = prices.iter();
    let prices = prices.map(|(name, micros)| (gpu(name), UsdMicros(*micros)));
    Command::SetPrices {
        prices: prices.collect(),
    }
}

/// The commands with which a worker joins.
fn joins(number: u8, gpus: &[&str], own: Option<u64>) -> [Command; 2] {
    let hash = TokenHash([number; 32]);
    let name = format!("w{number}").parse().expect("a label");
    let register = Command::RegisterWorker {
        token_hash: hash,
        instance: InstanceId([number; 16]),
        inventory: Inventory {
            gpus: gpus.iter().map(|name| gpu(name)).collect(),
            trainers: [TrainerKind::SimpleTuner].into(),
            labels: [].into(),
            price_per_gpu_hour: own.map(UsdMicros),
            address: None,
            outputs: None,
        },
    };
    [Command::CreateWorkerToken { name, hash }, register]
}

/// A worker that says no price and one that does, before the book is known, one afterwards, and another book.
fn entries() -> (Vec<Envelope>, State) {
    let mut commands = vec![Command::Barrier { version: 3 }];
    commands.extend(joins(1, &["h100", "rtx4090"], None));
    commands.extend(joins(2, &["h100"], Some(2_500_000)));
    commands.push(set(&[("h100", 2_000_000), ("l4", 300_000)]));
    commands.extend(joins(3, &["l4"], None));
    commands.push(set(&[("h100", 1_900_000), ("l4", 300_000)]));
    in_format_3(commands)
}

fn price(state: &State, worker: u64, name: &str) -> Option<u64> {
    let worker = state.worker(WorkerId(worker)).expect("a worker");
    worker.price_per_gpu_hour(gpu(name)).map(|price| price.0)
}

#[test]
fn prices_are_written_and_read_as_ever() {
    let (entries, state) = entries();
    stand_in(LOG, &entries);
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
    for state in [&state, &restored] {
        assert_eq!(price(state, 1, "h100"), Some(1_900_000));
        assert_eq!(price(state, 1, "rtx4090"), None, "nothing is said of it");
        assert_eq!(price(state, 2, "h100"), Some(2_500_000), "its own word");
        assert_eq!(price(state, 3, "l4"), Some(300_000));
    }
    is_unknown_to_format_2(&entries[5]);
}

#[test]
fn a_log_without_them_is_as_it_was() {
    let mut commands = vec![Command::Barrier { version: 3 }];
    commands.extend(joins(1, &["h100"], None));
    let (_, state) = in_format_3(commands);
    let mut told = state.clone();
    let mut apply = |command| {
        let envelope = Envelope::new(1_800_000_000_000, None, command).in_format(3);
        told.apply(told.applied_index() + 1, &envelope);
        told.snapshot().len()
    };
    // What is taken back leaves nothing behind.
    let plain = state.snapshot().len();
    assert!(apply(set(&[("h100", 1)])) > plain);
    assert_eq!(apply(set(&[])), plain);
    assert!(state.prices().is_empty());
    assert_eq!(price(&state, 1, "h100"), None);
}

#[test]
fn a_plan_is_asked_for_where_a_price_has_changed_and_not_otherwise() {
    let mut state = State::new();
    let mut apply = |command| {
        let envelope = Envelope::new(1_000, None, command).in_format(3);
        state.apply(state.applied_index() + 1, &envelope)
    };
    let early = apply(set(&[("h100", 1)]));
    assert_eq!(early.reply, Err(Rejection::NotYet));
    let raised = apply(Command::Barrier { version: 3 });
    assert!(raised.reply.is_ok());
    for command in [joins(1, &["h100"], None), joins(2, &["l4"], Some(5))].concat() {
        assert!(apply(command).reply.is_ok());
    }
    for (prices, plans) in [
        (&[("l4", 2)][..], false),
        (&[("l4", 2), ("h100", 2)], true),
        (&[("l4", 2), ("h100", 2)], false),
        (&[("l4", 3), ("h100", 2)], false),
        (&[], true),
    ] {
        let applied = apply(set(prices));
        assert!(applied.reply.is_ok());
        assert_eq!(applied.effects == [Effect::Plan], plans, "{prices:?}");
        assert_eq!(applied.effects.is_empty(), !plans, "{prices:?}");
    }
}

/// A book of a newer node may name what this one does not know: all nodes keep the same, whatever they know.
#[test]
fn a_model_that_is_not_known_here_is_kept_and_has_no_price_here() {
    let unknown = (0..=u8::MAX).find(|number| GpuModel::from_number(*number).is_none());
    let unknown = unknown.expect("there are numbers left");
    let book = BTreeMap::from([(unknown, UsdMicros(7))]);
    let book = postcard::to_extend(&book, Vec::new()).expect("bytes");
    let prices: Prices = postcard::from_bytes(&book).expect("a book");
    assert_eq!(prices.len(), 1);
    let (_, state) = in_format_3(vec![
        Command::Barrier { version: 3 },
        Command::SetPrices { prices },
    ]);
    let restored = State::restore(&state.snapshot()).expect("it is restored");
    assert_eq!(restored.prices(), state.prices());
}
