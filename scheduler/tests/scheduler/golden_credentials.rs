//! Credentials as bytes in the repository: the third format's entries and snapshot of jobs that need some.

use stepcast_scheduler::ids::{JobId, StagingId};
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::{Command, Envelope, State, codec};

use crate::golden::{bytes, hex, in_format_3, stand_in};
use crate::support::workload;

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-credentials.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-credentials.txt");

fn entries() -> (Vec<Envelope>, State) {
    let spec = |number: u8| {
        let mut spec = JobSpec::new(workload(), StagingId([number; 16]));
        let names = ["hub_token", "secret_key"].map(|name| name.parse().expect("a label"));
        spec.terms.credentials = names.into();
        spec
    };
    let commands = vec![
        Command::Barrier { version: 3 },
        Command::SubmitJob {
            spec: Box::new(spec(0x61)),
        },
        Command::SubmitArray {
            spec: Box::new(spec(0)),
            tasks: vec![StagingId([0x62; 16]), StagingId([0x63; 16])],
            parallel: 0,
        },
        Command::MissCredentials {
            jobs: vec![JobId(1), JobId(2)],
        },
        Command::GiveCredentials { job: JobId(2) },
        Command::CancelJob { job: JobId(3) },
    ];
    in_format_3(commands)
}

#[test]
fn entries_with_credentials_are_written_and_read_as_ever() {
    let (entries, _) = entries();
    stand_in(LOG, &entries);
}

#[test]
fn a_snapshot_with_credentials_is_written_and_read_as_ever() {
    let (_, state) = entries();
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
    let stands = |job| {
        let job = restored.job(JobId(job)).expect("it is known");
        (
            job.spec.terms.credentials.len(),
            job.standing.awaits_credentials,
        )
    };
    assert_eq!([1, 2, 3].map(stands), [(2, true), (2, false), (2, false)]);
}

/// A node that knows no credentials reads no entry that names some.
#[test]
fn an_older_format_has_none() {
    let (entries, _) = entries();
    for entry in &entries[1..5] {
        assert_eq!(entry.command.needs(), 3);
        let mut bytes = codec::encode(entry);
        bytes[..2].copy_from_slice(&2_u16.to_le_bytes());
        assert!(codec::decode(&bytes).is_err(), "{entry:?}");
    }
}
