//! The formats as bytes in the repository: a change of what is in logs and snapshots of yesterday fails here first.
//!
//! The files were written once, those of the first formats by the program that knew no other. A new format gets new
//! files beside them; the old ones are never written again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use stepcast_records::simpletuner::{Dataset, Length, OffRecord, Validation, Workload};
use stepcast_records::{FrameClass, HalfMegapixels, UsdMicros};
use stepcast_scheduler::ids::{
    AttemptNumber, Epoch, InstanceId, JobId, StagingId, TokenHash, TokenId, WorkerId,
};
use stepcast_scheduler::model::{
    FailureReason, Inventory, JobSpec, Objective, Outcome, TrainerKind,
};
use stepcast_scheduler::placement::{Placement, PlacementNote};
use stepcast_scheduler::{Command, Envelope, RequestId, State, codec, invariants};

use crate::support::workload;

/// A log of the first format, an entry a line.
const LOG_1: &str = include_str!("../../testdata/golden/log-1.txt");

/// Snapshots of the state it leads to.
const SNAPSHOT_1: &str = include_str!("../../testdata/golden/snapshot-1.txt");
const SNAPSHOT_2: &str = include_str!("../../testdata/golden/snapshot-2.txt");

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// Commands as entries of the third format, a second apart, and the state that they lead to.
pub(crate) fn in_format_3(commands: Vec<Command>) -> (Vec<Envelope>, State) {
    let mut state = State::new();
    let entries = (1..).zip(commands).map(|(index, command)| {
        let envelope = Envelope::new(1_700_000_000_000 + 1_000 * index, None, command).in_format(3);
        let applied = state.apply(index, &envelope);
        assert!(applied.reply.is_ok(), "{index} {envelope:?}: {applied:?}");
        envelope
    });
    let entries = entries.collect();
    assert_eq!(invariants::check(&state), []);
    (entries, state)
}

/// Entries are the lines of a log, written and read.
pub(crate) fn stand_in(log: &str, entries: &[Envelope]) {
    assert_eq!(log.lines().count(), entries.len());
    for (line, envelope) in log.lines().zip(entries) {
        assert_eq!(hex(&codec::encode(envelope)), line, "{envelope:?}");
        assert_eq!(codec::decode(&bytes(line)).as_ref(), Ok(envelope));
    }
}

/// The entries of format 3 that submit a job like `spec(0x71)`, the other one, and an array like `spec(0)`, and cancel the first;
/// with the state that they lead to.
pub(crate) fn submitted(spec: impl Fn(u8) -> JobSpec, other: JobSpec) -> (Vec<Envelope>, State) {
    let array = |number: u8| StagingId([number; 16]);
    in_format_3(vec![
        Command::Barrier { version: 3 },
        Command::SubmitJob {
            spec: Box::new(spec(0x71)),
        },
        Command::SubmitJob {
            spec: Box::new(other),
        },
        Command::SubmitArray {
            spec: Box::new(spec(0)),
            tasks: vec![array(0x73), array(0x74)],
            parallel: 0,
        },
        Command::CancelJob { job: JobId(1) },
    ])
}

/// Checks that a node that knows format 2 alone refuses an entry of format 3.
pub(crate) fn is_unknown_to_format_2(entry: &Envelope) {
    assert_eq!(entry.command.needs(), 3);
    let mut bytes = codec::encode(entry);
    bytes[..2].copy_from_slice(&2_u16.to_le_bytes());
    assert!(codec::decode(&bytes).is_err(), "{entry:?}");
}

/// A job that asks for everything there is to ask for.
fn demanding() -> JobSpec {
    let mut spec = JobSpec::new(
        Workload {
            datasets: vec![Dataset {
                resolution: HalfMegapixels::new(3).expect("a bucket"),
                frames: FrameClass::Single,
                batch_size: 2,
                samples: None,
                repeats: 7,
                padded: true,
            }],
            length: Length::Epochs(12),
            checkpoint_every: Some(250),
            validation: Some(Validation {
                every_steps: Some(100),
                every_epochs: None,
                after_step: 50,
                after_epoch: 0,
                at_start: true,
                baseline: false,
                generations: 3,
                resolutions: vec![HalfMegapixels::new(2).expect("a bucket")],
                frames: FrameClass::Single,
                inference_steps: 28,
            }),
            off_record: vec![OffRecord::Compile],
            ..workload()
        },
        StagingId([0xb2; 16]),
    );
    spec.name = Some("cats and dogs".parse().expect("a label"));
    spec.allow = ["h100", "a100-80"]
        .map(|gpu| gpu.parse().expect("a GPU"))
        .to_vec();
    spec.min_memory_gib = 40;
    spec.labels = labels();
    spec.objective = Objective::Fastest;
    spec.max_price_per_hour = Some(UsdMicros(9_000_000));
    spec.max_cost = Some(UsdMicros(70_000_000));
    spec.max_runtime_ms = Some(86_400_000);
    spec.priority = -3;
    spec.retry_limit = 5;
    spec
}

fn labels() -> BTreeMap<stepcast_scheduler::model::Label, stepcast_scheduler::model::Label> {
    [("zone", "north"), ("owner", "lab")]
        .map(|(key, value)| {
            (
                key.parse().expect("a label"),
                value.parse().expect("a label"),
            )
        })
        .into()
}

/// A log with every command in it, each where it takes effect.
pub(crate) fn log() -> Vec<Envelope> {
    let (first, second) = (TokenHash([0x11; 32]), TokenHash([0x22; 32]));
    let inventory = Inventory {
        gpus: vec!["h100".parse().expect("a GPU"); 3],
        trainers: BTreeSet::from([TrainerKind::SimpleTuner, TrainerKind::Replay]),
        labels: labels(),
        price_per_gpu_hour: Some(UsdMicros(2_500_000)),
        address: None,
        outputs: None,
    };
    let (job, dear, gone) = (JobId(1), JobId(2), JobId(3));
    let place = |job, attempt, gpu| Placement {
        job,
        attempt: AttemptNumber(attempt),
        worker: WorkerId(1),
        gpus: vec![gpu],
        note: PlacementNote {
            run_ms_p50: Some(1_200_000),
            run_ms_p90: Some(1_800_000),
            cost_p50: Some(UsdMicros(830_000)),
        },
        others: Vec::new(),
    };
    let submit = |spec| Command::SubmitJob {
        spec: Box::new(spec),
    };
    let plain = |number| JobSpec::new(workload(), StagingId([number; 16]));
    let register = |token_hash, instance| Command::RegisterWorker {
        token_hash,
        instance: InstanceId([instance; 16]),
        inventory: inventory.clone(),
    };
    let end = |job, index, position, outcome, detail: &str| Command::EndAttempt {
        job,
        epoch: Epoch::new(index, position),
        outcome,
        step: 77,
        detail: detail.to_owned(),
    };
    let token = |name: &str, hash| Command::CreateWorkerToken {
        name: name.parse().expect("a label"),
        hash,
    };
    let worker = WorkerId(1);
    let commands = [
        token("host-one", first),
        token("host-two", second),
        register(first, 0xa1),
        register(second, 0xa2),
        submit(plain(1)),
        submit(demanding()),
        submit(plain(3)),
        Command::Place {
            placements: vec![place(job, 1, 0), place(dear, 1, 1), place(gone, 1, 2)],
        },
        Command::StartAttempt {
            job,
            epoch: Epoch::new(8, 0),
        },
        Command::Checkpoint {
            job,
            epoch: Epoch::new(8, 0),
            step: 60,
        },
        end(job, 8, 0, Outcome::Succeeded, ""),
        end(
            dear,
            8,
            1,
            Outcome::Failed(FailureReason::Stuck),
            "no words für you",
        ),
        Command::ExpireLeases {
            expired: vec![(gone, Epoch::new(8, 2)), (job, Epoch::new(8, 0))],
        },
        Command::LoseWorker {
            worker,
            instance: InstanceId([0xa1; 16]),
        },
        register(first, 0xa3),
        Command::DrainWorker {
            worker,
            stop_running: true,
        },
        Command::ResumeWorker { worker },
        Command::CancelJob { job: gone },
        Command::RevokeWorkerToken { token: TokenId(2) },
        submit(plain(4)),
        Command::Place {
            placements: vec![place(JobId(4), 1, 1)],
        },
        Command::Sweep,
        Command::Barrier { version: 1 },
    ];
    let requests = [4_usize, 5, 17];
    let enveloped = commands
        .into_iter()
        .enumerate()
        .map(|(at, command)| Envelope {
            version: 1,
            stamp_ms: 1_700_000_000_000 + 1_000 * at as u64,
            request_id: requests.contains(&at).then_some(RequestId([at as u8; 16])),
            command,
            actor: None,
        });
    enveloped.collect()
}

/// The state that the log leads to.
fn state() -> State {
    let mut state = State::new();
    for (index, envelope) in (1..).zip(log()) {
        let applied = state.apply(index, &envelope);
        assert!(applied.reply.is_ok(), "{envelope:?}: {applied:?}");
    }
    assert_eq!(invariants::check(&state), []);
    state
}

#[test]
fn entries_of_the_first_format_are_written_and_read_as_ever() {
    let log = log();
    assert_eq!(LOG_1.lines().count(), log.len());
    for (line, envelope) in LOG_1.lines().zip(&log) {
        assert_eq!(hex(&codec::encode(envelope)), line, "{envelope:?}");
        assert_eq!(codec::decode(&bytes(line)).as_ref(), Ok(envelope));
    }
}

#[test]
fn entries_of_the_second_format_differ_from_the_first_in_their_version_alone() {
    for (line, envelope) in LOG_1.lines().zip(log()) {
        let written = hex(&codec::encode(&envelope.in_format(2)));
        assert_eq!(written, format!("0200{}", &line[4..]));
    }
}

#[test]
fn a_snapshot_of_the_first_version_is_read_as_ever() {
    let restored = State::restore(&bytes(SNAPSHOT_1));
    assert_eq!(restored.expect("it is restored"), state());
}

#[test]
fn a_snapshot_of_the_second_version_is_written_and_read_as_ever() {
    let state = state();
    assert_eq!(hex(&state.snapshot()), SNAPSHOT_2.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT_2));
    assert_eq!(restored.expect("it is restored"), state);
}
