//! Changes of waiting jobs as bytes in the repository, and how the same wish is known again when the job is another one.

use stepcast_scheduler::ids::{JobId, RequestId, StagingId};
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::{Command, Envelope, Rejection, Reply, State, codec};

use crate::golden::{bytes, hex, in_format_3, stand_in};
use crate::support::workload;

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-revised.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-revised.txt");

fn spec(priority: i8, retry_limit: u8) -> Box<JobSpec> {
    let mut spec = JobSpec::new(workload(), StagingId([0x81; 16]));
    spec.priority = priority;
    spec.retry_limit = retry_limit;
    Box::new(spec)
}

fn revise(spec: Box<JobSpec>, seq: u64, asked: u64) -> Command {
    Command::ReviseJob {
        job: JobId(1),
        spec,
        seq,
        asked,
    }
}

fn entries() -> (Vec<Envelope>, State) {
    let mut needing = spec(5, 1);
    needing.terms.credentials = vec!["hub_token".parse().expect("a label")];
    in_format_3(vec![
        Command::Barrier { version: 3 },
        Command::SubmitJob { spec: spec(0, 1) },
        revise(spec(4, 1), 1, 0x0123_4567_89ab_cdef),
        revise(needing, 2, 7),
    ])
}

#[test]
fn changes_are_written_and_read_as_ever() {
    let (entries, state) = entries();
    stand_in(LOG, &entries);
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
    let job = restored.job(JobId(1)).expect("it is known");
    assert_eq!((job.spec.priority, job.seq()), (5, 3));
    let mut bytes = codec::encode(&entries[2]);
    bytes[..2].copy_from_slice(&2_u16.to_le_bytes());
    assert!(codec::decode(&bytes).is_err(), "an older format has none");
}

#[test]
fn a_change_is_known_again_by_what_was_asked_and_not_by_what_came_of_it() {
    let (_, mut state) = entries();
    let mut index = state.applied_index();
    let mut ask = |state: &mut State, request: u8, command| {
        index += 1;
        let envelope = Envelope::new(1_700_000_900_000, Some(RequestId([request; 16])), command);
        state.apply(index, &envelope).reply
    };
    let priority = |state: &State| state.job(JobId(1)).expect("it is known").spec.priority;
    // Both were made of the same job: the second one would undo the first.
    assert_eq!(
        ask(&mut state, 1, revise(spec(6, 1), 3, 11)),
        Ok(Reply::Done)
    );
    let second = ask(&mut state, 2, revise(spec(5, 3), 3, 12));
    assert_eq!(second, Err(Rejection::Changed));
    assert_eq!(
        ask(&mut state, 2, revise(spec(6, 3), 4, 12)),
        Ok(Reply::Done)
    );
    // Once more, made of what the job is now: the first answer, and nothing is changed.
    let again = ask(&mut state, 1, revise(spec(9, 3), 5, 11));
    assert_eq!((again, priority(&state)), (Ok(Reply::Done), 6));
    let other = ask(&mut state, 1, revise(spec(9, 3), 5, 13));
    assert_eq!(other, Err(Rejection::RequestIdReused));
    let mut elsewhere = revise(spec(6, 3), 5, 11);
    if let Command::ReviseJob { job, .. } = &mut elsewhere {
        *job = JobId(2);
    }
    assert_eq!(
        ask(&mut state, 1, elsewhere),
        Err(Rejection::RequestIdReused)
    );
}

#[test]
fn an_approval_of_what_was_seen_has_its_number_behind_everything_else() {
    let approve = |seq| {
        let command = Command::ApproveJob { job: JobId(1), seq };
        Envelope::new(1_700_000_000_000, None, command).in_format(3)
    };
    let (any, seen) = (approve(None), approve(Some(300)));
    let bytes = codec::encode(&seen);
    assert_eq!(bytes, [&codec::encode(&any)[..], &[0xac, 0x02]].concat());
    for envelope in [any, seen] {
        assert_eq!(codec::decode(&codec::encode(&envelope)), Ok(envelope));
    }
    assert!(codec::decode(&[&bytes[..], &[0]].concat()).is_err());
}
