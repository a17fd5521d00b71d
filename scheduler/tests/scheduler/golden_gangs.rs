//! Gangs as bytes in the repository: the third format's entries and snapshot of a job on several hosts.

use stepcast_scheduler::command::Seat;
use stepcast_scheduler::ids::{
    AttemptNumber, Epoch, InstanceId, JobId, StagingId, TokenHash, WorkerId,
};
use stepcast_scheduler::model::{
    FailureReason, Inventory, JobSpec, Outcome, PartState, TrainerKind,
};
use stepcast_scheduler::placement::{Placement, PlacementNote};
use stepcast_scheduler::{Command, Envelope, State, codec};

use crate::golden::{bytes, hex, in_format_3, stand_in};
use crate::support::workload;

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-gangs.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-gangs.txt");

/// A host with four GPUs that others reach.
fn host(number: u8) -> [Command; 2] {
    let token_hash = TokenHash([number; 32]);
    [
        Command::CreateWorkerToken {
            name: format!("host-{number}").parse().expect("a label"),
            hash: token_hash,
        },
        Command::RegisterWorker {
            token_hash,
            instance: InstanceId([number; 16]),
            inventory: Inventory {
                gpus: vec!["h100".parse().expect("a GPU"); 4],
                trainers: [TrainerKind::SimpleTuner].into(),
                labels: [].into(),
                price_per_gpu_hour: None,
                address: format!("10.0.0.{number}:29500").parse().ok(),
                outputs: None,
            },
        },
    ]
}

fn gang(number: u8, hosts: u8) -> JobSpec {
    let mut spec = JobSpec::new(workload(), StagingId([number; 16]));
    spec.gpu_count = 2;
    spec.terms.more_hosts = hosts - 1;
    spec
}

fn commands() -> Vec<Command> {
    let mut secret = gang(0x72, 3);
    secret.terms.credentials = vec!["hub_token".parse().expect("a label")];
    let place = |job, attempt, first: u8| Placement {
        job: JobId(job),
        attempt: AttemptNumber(attempt),
        worker: WorkerId(1),
        gpus: vec![first, first + 1],
        note: PlacementNote::default(),
        others: vec![Seat {
            worker: WorkerId(2),
            gpus: vec![2, 3],
        }],
    };
    let (job, epoch, again) = (JobId(1), Epoch::new(8, 1), Epoch::new(14, 0));
    let start = |epoch, worker| Command::StartPart {
        job,
        epoch,
        worker: WorkerId(worker),
    };
    let alone = Placement {
        others: Vec::new(),
        ..place(3, 1, 0)
    };
    let mut commands = vec![Command::Barrier { version: 3 }];
    commands.extend(host(1));
    commands.extend(host(2));
    commands.push(Command::SubmitJob {
        spec: Box::new(gang(0x71, 2)),
    });
    commands.push(Command::SubmitArray {
        spec: Box::new(secret),
        tasks: vec![StagingId([0x72; 16])],
        parallel: 0,
    });
    // The barrier is entry 1, so this is entry 8.
    commands.push(Command::Place {
        placements: vec![alone, place(1, 1, 2)],
    });
    commands.extend([start(epoch, 1), start(epoch, 2)]);
    commands.push(Command::Checkpoint {
        job,
        epoch,
        step: 40,
    });
    commands.push(Command::EndPart {
        job,
        epoch,
        worker: WorkerId(1),
        outcome: Outcome::Failed(FailureReason::TrainerError),
        step: 45,
        detail: "a peer is gone".to_owned(),
    });
    commands.push(Command::ExpireParts {
        expired: vec![(job, epoch, WorkerId(2))],
    });
    // Lost for the first time, so it waits for nothing.
    commands.push(Command::Place {
        placements: vec![place(1, 2, 0)],
    });
    commands.push(start(again, 2));
    commands
}

fn entries() -> (Vec<Envelope>, State) {
    in_format_3(commands())
}

#[test]
fn entries_of_gangs_are_written_and_read_as_ever() {
    let (entries, _) = entries();
    stand_in(LOG, &entries);
}

#[test]
fn a_snapshot_of_gangs_is_written_and_read_as_ever() {
    let (_, state) = entries();
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
    let job = restored.job(JobId(1)).expect("it is known");
    let ended = Some(Outcome::LeaseExpired);
    assert_eq!(
        job.attempts[0].outcome(),
        ended,
        "a lost host explains the rest"
    );
    let parts = job.attempts[1].parts();
    let parts: Vec<_> = parts.map(|part| (part.worker, part.state)).collect();
    let stand = [PartState::Placed, PartState::Running];
    assert_eq!(parts, [(WorkerId(1), stand[0]), (WorkerId(2), stand[1])]);
    let address = |worker| restored.worker(WorkerId(worker))?.inventory.address.clone();
    assert_eq!(
        address(2).expect("it is reached").as_str(),
        "10.0.0.2:29500"
    );
}

/// A node that knows no gangs reads nothing of one.
#[test]
fn an_older_format_has_none() {
    let (entries, _) = entries();
    let needs_3 = entries.iter().filter(|entry| entry.command.needs() == 3);
    let mut looked_at = 0;
    for entry in needs_3 {
        let mut bytes = codec::encode(entry);
        bytes[..2].copy_from_slice(&2_u16.to_le_bytes());
        assert!(codec::decode(&bytes).is_err(), "{entry:?}");
        looked_at += 1;
    }
    assert_eq!(looked_at, 11);
}
