//! What an older log has in other words: clips of the later classes, as bytes in the repository, why a run is not recorded, and
//! how an attempt ended.

use stepcast_records::simpletuner::OffRecord;
use stepcast_records::{FrameClass, Recipe};
use stepcast_scheduler::ids::{Epoch, JobId, RequestId, StagingId};
use stepcast_scheduler::model::{FailureReason, JobSpec, Outcome};
use stepcast_scheduler::{Command, Envelope, Rejection, State, codec};

use crate::golden::{bytes, hex, in_format_3, stand_in};
use crate::support::workload;

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-clips.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-clips.txt");

/// A job with clips of a class, whose validation has them too.
fn clips(frames: FrameClass) -> JobSpec {
    let mut spec = JobSpec::new(workload(), StagingId([frames.max_frames() as u8; 16]));
    let recipe = Recipe::parse("ltxvideo.0.9.5/lora+ckpt").expect("a recipe");
    let workload = &mut spec.workload;
    workload.recipe = recipe.at_frames(frames.max_frames()).expect("a class");
    workload.datasets[0].frames = frames;
    if let Some(validation) = &mut workload.validation {
        validation.frames = frames;
    }
    spec
}

const LATER: [FrameClass; 3] = [
    FrameClass::UpTo129,
    FrameClass::UpTo161,
    FrameClass::UpTo193,
];

fn submission(spec: JobSpec) -> Command {
    Command::SubmitJob {
        spec: Box::new(spec),
    }
}

fn entries() -> (Vec<Envelope>, State) {
    let barrier = [Command::Barrier { version: 3 }];
    let jobs = LATER.map(|frames| submission(clips(frames)));
    in_format_3(barrier.into_iter().chain(jobs).collect())
}

#[test]
fn entries_with_later_classes_are_written_and_read_as_ever() {
    let (entries, _) = entries();
    stand_in(LOG, &entries);
}

#[test]
fn a_snapshot_with_later_classes_is_written_and_read_as_ever() {
    let (_, state) = entries();
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
    for (job, frames) in (1..).map(JobId).zip(LATER) {
        let job = restored.job(job).expect("it is known");
        assert_eq!(job.spec.workload.datasets[0].frames, frames);
    }
}

/// The same run stands in it, in the class that held its clips before.
#[test]
fn an_older_log_has_the_first_classes() {
    for frames in LATER {
        let command = submission(clips(frames));
        assert_eq!(command.needs(), 3);
        assert_eq!(command.clone().for_format(3), command);
        let older = command.for_format(2);
        assert_eq!(
            older,
            submission(JobSpec {
                staging: clips(frames).staging,
                ..clips(FrameClass::UpTo241)
            })
        );
        assert!(older.needs() < 3);
        let envelope = Envelope::new(0, None, older).in_format(2);
        assert_eq!(codec::decode(&codec::encode(&envelope)), Ok(envelope));
    }
}

/// The same run stands in it, and is not recorded for the nearest of the first reasons.
#[test]
fn an_older_log_has_the_first_reasons() {
    let for_reasons = |reasons: &[OffRecord]| {
        let mut spec = JobSpec::new(workload(), StagingId([7; 16]));
        spec.workload.off_record = reasons.to_vec();
        submission(spec)
    };
    let (first, later) = (OffRecord::ModelSetting, OffRecord::Resolution);
    let (method, setting) = (OffRecord::ValidationMethod, OffRecord::ValidationSetting);
    for (reasons, expected) in [
        (&[later][..], &[first][..]),
        (&[OffRecord::Ema, first, later], &[OffRecord::Ema, first]),
        (&[setting], &[method]),
        (&[later, setting], &[method, first]),
    ] {
        let command = for_reasons(reasons);
        assert_eq!(command.needs(), 3);
        assert_eq!(command.clone().for_format(3), command);
        let older = command.for_format(2);
        assert_eq!(older, for_reasons(expected));
        assert!(older.needs() < 3);
    }
    let written =
        |reason| codec::encode(&Envelope::new(0, None, for_reasons(&[reason])).in_format(3));
    for (reason, number) in [(later, 18), (setting, 19)] {
        let pairs = written(first).into_iter().zip(written(reason));
        let changed: Vec<(u8, u8)> = pairs.filter(|(first, later)| first != later).collect();
        assert!(changed.contains(&(17, number)), "{changed:?}");
    }
}

/// A request that an older log has taken is the same when it comes again after the log has gone on in format 3.
#[test]
fn a_request_is_known_again_across_the_formats() {
    let mut state = State::default();
    let mut index = 0;
    let mut apply = |command, request: u8, format| {
        index += 1;
        let request = Some(RequestId([request; 16]));
        let envelope = Envelope::new(1_700_000_000_000, request, command).in_format(format);
        state.apply(index, &envelope).reply
    };
    let job = || submission(clips(FrameClass::UpTo129));
    let first = apply(job().for_format(2), 1, 2);
    assert!(first.is_ok());
    apply(Command::Barrier { version: 3 }, 2, 2).expect("it goes on in format 3");
    assert_eq!(apply(job(), 1, 3), first);
    let other = submission(clips(FrameClass::UpTo81));
    assert_eq!(apply(other, 1, 3), Err(Rejection::RequestIdReused));
    let second = || submission(clips(FrameClass::UpTo193));
    assert!(apply(second(), 3, 3).is_ok_and(|reply| Ok(reply) != first));
    assert!(apply(second(), 3, 3).is_ok());
    let other = submission(clips(FrameClass::UpTo161));
    assert_eq!(apply(other, 3, 3), Err(Rejection::RequestIdReused));
}

#[test]
fn an_older_log_calls_a_lost_lease_and_lost_credentials_as_it_always_did() {
    let end = |reason| Command::EndAttempt {
        job: JobId(1),
        epoch: Epoch(2),
        outcome: Outcome::Failed(reason),
        step: 3,
        detail: String::new(),
    };
    for reason in [FailureReason::LeaseLost, FailureReason::CredentialsGone] {
        let lost = end(reason);
        assert_eq!(lost.needs(), 3);
        assert_eq!(lost.clone().for_format(3), lost);
        let older = lost.for_format(2);
        assert_eq!((older.needs(), older), (1, end(FailureReason::Preempted)));
    }
}
