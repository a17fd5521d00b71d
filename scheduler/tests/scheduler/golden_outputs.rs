//! Which folder workers put their results into: as bytes in the repository, and who is known to have others.

use stepcast_scheduler::ids::{InstanceId, OutputsId, TokenHash, WorkerId};
use stepcast_scheduler::model::{Inventory, TrainerKind};
use stepcast_scheduler::{Command, Envelope, State};

use crate::golden::{bytes, hex, in_format_3, is_unknown_to_format_2, stand_in};

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-outputs.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-outputs.txt");

/// The commands with which a worker joins.
fn joins(number: u8, address: Option<&str>, outputs: Option<u8>) -> [Command; 2] {
    let hash = TokenHash([number; 32]);
    let name = format!("w{number}").parse().expect("a label");
    let register = Command::RegisterWorker {
        token_hash: hash,
        instance: InstanceId([number; 16]),
        inventory: Inventory {
            gpus: vec!["h100".parse().expect("a GPU")],
            trainers: [TrainerKind::SimpleTuner].into(),
            labels: [].into(),
            price_per_gpu_hour: None,
            address: address.map(|address| address.parse().expect("a label")),
            outputs: outputs.map(|outputs| OutputsId([outputs; 16])),
        },
    };
    [Command::CreateWorkerToken { name, hash }, register]
}

/// Workers with and without an address and a folder, of which two share theirs.
fn entries() -> (Vec<Envelope>, State) {
    let mut commands = vec![Command::Barrier { version: 3 }];
    commands.extend(joins(1, None, Some(7)));
    commands.extend(joins(2, Some("10.0.0.2:29500"), Some(8)));
    commands.extend(joins(3, Some("10.0.0.3:29500"), None));
    commands.extend(joins(4, None, Some(7)));
    in_format_3(commands)
}

#[test]
fn folders_are_written_and_read_as_ever() {
    let (entries, state) = entries();
    stand_in(LOG, &entries);
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
    let apart = |one, other| restored.are_apart(WorkerId(one), WorkerId(other));
    assert!(apart(1, 2) && apart(2, 1) && apart(2, 4));
    assert!(!apart(1, 4), "they share theirs");
    assert!(!apart(1, 3) && !apart(3, 1), "nothing is known of one");
    assert!(!apart(2, 2));
    is_unknown_to_format_2(&entries[2]);
}

#[test]
fn an_older_log_is_not_told() {
    let [_, register] = joins(1, None, Some(7));
    let [_, plain] = joins(1, None, None);
    assert_eq!(register.clone().for_format(3), register);
    assert_eq!(register.for_format(2), plain);
    assert_eq!(plain.needs(), 1);
}
