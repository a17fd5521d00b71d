//! The third format as bytes in the repository: new commands, and terms behind those that bring a job.

use stepcast_records::UsdMicros;
use stepcast_scheduler::accounts::{AccountChange, Action, Actor, Role};
use stepcast_scheduler::command::Preemption;
use stepcast_scheduler::ids::{
    AttemptNumber, Epoch, JobId, OrgId, StagingId, TeamId, TokenHash, UserId, WorkerId,
};
use stepcast_scheduler::model::{
    Budget, Inventory, JobSpec, Label, Owner, Period, TeamName, TeamRules, Terms, TrainerKind,
};
use stepcast_scheduler::placement::{Placement, PlacementNote};
use stepcast_scheduler::policy::{Aim, Policy};
use stepcast_scheduler::{Command, Envelope, RequestId, State, codec, invariants};

use crate::golden::{bytes, hex, log};
use crate::support::workload;

/// A log of the third format behind one of the first, an entry a line.
const LOG_3: &str = include_str!("../../testdata/golden/log-3.txt");

/// A snapshot of the state that both lead to.
const SNAPSHOT_3: &str = include_str!("../../testdata/golden/snapshot-3.txt");

/// The terms of a job that asks for everything there is to ask for.
fn terms() -> Terms {
    let label = |text: &str| text.parse::<Label>().expect("a label");
    Terms {
        team: TeamId(2),
        not_before_ms: Some(1_700_000_100_000),
        finish_by_ms: Some(1_700_090_000_000),
        avoid: [(label("zone"), label("south"))].into(),
        spread: Some(label("twins")),
        min_run_ms: Some(1_800_000),
        preemptions_max: Some(2),
        expected_cost: Some(UsdMicros(4_000_000)),
        array: None,
        owner: Some(Owner {
            org: OrgId(4),
            user: UserId(5),
        }),
        credentials: Vec::new(),
        more_hosts: 0,
    }
}

/// Every command that the format has brought, each where it takes effect.
fn commands() -> Vec<Command> {
    let name = |text: &str| text.parse::<TeamName>().expect("a name");
    let spec = |number: u8| JobSpec::new(workload(), StagingId([number; 16]));
    let rules = TeamRules {
        weight: 30,
        gpu_quota: Some(6),
        budget: Some(Budget {
            amount: UsdMicros(900_000_000),
            period: Period::Month,
        }),
        approve_above: Some(UsdMicros(3_000_000)),
        priority_max: 5,
    };
    let mut demanding = spec(0x31);
    demanding.terms = terms();
    let mut changed = demanding.clone();
    changed.terms.not_before_ms = None;
    changed.priority = 2;
    let place = |job, gpu| Placement {
        job: JobId(job),
        attempt: AttemptNumber(1),
        worker: WorkerId(3),
        gpus: vec![gpu],
        note: PlacementNote {
            run_ms_p50: Some(1_200_000),
            run_ms_p90: Some(1_800_000),
            cost_p50: Some(UsdMicros(830_000)),
        },
        others: Vec::new(),
    };
    let inventory = Inventory {
        gpus: vec!["h100".parse().expect("a GPU"); 4],
        trainers: [TrainerKind::SimpleTuner].into(),
        labels: [].into(),
        price_per_gpu_hour: Some(UsdMicros(2_500_000)),
        address: None,
        outputs: None,
    };
    let hash = TokenHash([0x33; 32]);
    // The barrier is entry 23, so what follows begins with entry 24.
    vec![
        Command::SetTeam {
            name: name("acme"),
            rules: TeamRules::default(),
        },
        Command::SetTeam {
            name: name("acme/vision"),
            rules,
        },
        Command::SetTeam {
            name: name("short-lived"),
            rules: TeamRules::default(),
        },
        Command::RemoveTeam {
            name: name("short-lived"),
        },
        Command::SetPolicy {
            policy: Policy {
                aim: Aim::Fair,
                min_run_ms: 0,
                ..Policy::default()
            },
        },
        Command::CreateWorkerToken {
            name: "host-three".parse().expect("a label"),
            hash,
        },
        Command::RegisterWorker {
            token_hash: hash,
            instance: stepcast_scheduler::ids::InstanceId([0xa3; 16]),
            inventory,
        },
        Command::SubmitJob {
            spec: Box::new(demanding),
        },
        Command::UpdateJob {
            job: JobId(5),
            spec: Box::new(changed),
            seq: Some(1),
        },
        Command::ApproveJob {
            job: JobId(5),
            seq: None,
        },
        Command::SubmitArray {
            spec: Box::new(spec(0)),
            tasks: vec![StagingId([0x41; 16]), StagingId([0x42; 16])],
            parallel: 1,
        },
        Command::Place {
            placements: vec![place(5, 0), place(6, 1)],
        },
        Command::Preempt {
            preemptions: vec![Preemption {
                job: JobId(5),
                epoch: Epoch::new(35, 0),
                for_job: Some(JobId(7)),
            }],
        },
        Command::CancelArray { array: JobId(6) },
        account(AccountChange::CreateOrg {
            name: "acme".parse().expect("a label"),
        }),
        account(AccountChange::CreateUser {
            org: Some(OrgId(1)),
            name: "ana".parse().expect("a label"),
            role: Role::Admin,
        }),
        account(AccountChange::CreateUser {
            org: None,
            name: "root".parse().expect("a label"),
            role: Role::Operator,
        }),
        account(AccountChange::CreateKey {
            user: UserId(1),
            hash: TokenHash([0x34; 32]),
            expires_ms: Some(1_700_500_000_000),
        }),
        account(AccountChange::SetRole {
            user: UserId(1),
            role: Role::Owner,
        }),
        account(AccountChange::Note {
            action: Action::Backup,
            subject: "nodes/1".to_owned(),
        }),
        Command::CancelJob { job: JobId(5) },
    ]
}

fn account(change: AccountChange) -> Command {
    Command::Account { change }
}

/// In whose name a command is done.
fn actor(command: &Command) -> Option<Actor> {
    matches!(command, Command::CancelJob { .. }).then_some(Actor {
        user: Some(UserId(1)),
        org: Some(OrgId(1)),
        role: Role::Owner,
    })
}

/// The entries behind those of the first format, and the state they lead to.
fn entries() -> (Vec<Envelope>, State) {
    let mut state = State::new();
    let first = log();
    let stamp = |index: u64| 1_700_000_000_000 + 1_000 * index;
    let mut index = 0;
    for envelope in &first {
        index += 1;
        assert!(state.apply(index, envelope).reply.is_ok());
    }
    let barrier = std::iter::once(Command::Barrier { version: 3 });
    let mut entries = Vec::new();
    for command in barrier.chain(commands()) {
        index += 1;
        let request = matches!(command, Command::SubmitArray { .. }).then_some(RequestId([7; 16]));
        let actor = actor(&command);
        let envelope = Envelope::new(stamp(index), request, command)
            .by(actor)
            .in_format(3);
        let applied = state.apply(index, &envelope);
        assert!(applied.reply.is_ok(), "{index} {envelope:?}: {applied:?}");
        entries.push(envelope);
    }
    assert_eq!(invariants::check(&state), []);
    (entries, state)
}

#[test]
fn entries_of_the_third_format_are_written_and_read_as_ever() {
    let (entries, _) = entries();
    assert_eq!(LOG_3.lines().count(), entries.len());
    for (line, envelope) in LOG_3.lines().zip(&entries) {
        assert_eq!(hex(&codec::encode(envelope)), line, "{envelope:?}");
        assert_eq!(codec::decode(&bytes(line)).as_ref(), Ok(envelope));
    }
}

#[test]
fn a_snapshot_of_the_third_version_is_written_and_read_as_ever() {
    let (_, state) = entries();
    assert_eq!(hex(&state.snapshot()), SNAPSHOT_3.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT_3));
    assert_eq!(restored.expect("it is restored"), state);
}

/// Older nodes read neither new commands nor terms, so an entry of an older format holds none.
#[test]
fn what_a_format_does_not_know_is_not_read_in_it() {
    let (entries, _) = entries();
    let needs_3 = entries.iter().filter(|entry| entry.command.needs() == 3);
    let mut looked_at = 0;
    for entry in needs_3 {
        let mut bytes = codec::encode(entry);
        bytes[..2].copy_from_slice(&2_u16.to_le_bytes());
        assert!(codec::decode(&bytes).is_err(), "{entry:?}");
        looked_at += 1;
    }
    assert_eq!(looked_at, 17);
}

/// What the estimate said is no part of a request: it may say something else when the same request comes again.
#[test]
fn the_same_request_with_another_estimate_is_the_same() {
    let (_, mut state) = entries();
    let submit = |expected: u64, priority: i8| {
        let mut spec = JobSpec::new(workload(), StagingId([0x51; 16]));
        spec.priority = priority;
        spec.terms.expected_cost = Some(UsdMicros(expected));
        Command::SubmitJob {
            spec: Box::new(spec),
        }
    };
    let index = state.applied_index();
    let mut ask = |at: u64, command| {
        let envelope = Envelope::new(1_700_000_900_000, Some(RequestId([9; 16])), command);
        state.apply(index + at, &envelope).reply
    };
    let first = ask(1, submit(1_000_000, 0));
    assert!(first.is_ok());
    assert_eq!(ask(2, submit(2_000_000, 0)), first);
    assert!(ask(3, submit(1_000_000, 1)).is_err());
}
