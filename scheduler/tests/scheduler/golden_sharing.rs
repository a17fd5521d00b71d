//! How a run is shared out as bytes in the repository: the third format's entries and snapshot of jobs that say it.

use stepcast_records::simpletuner::{HeldOut, Preparation, Sampling, Share, Sharing};
use stepcast_scheduler::ids::{JobId, StagingId};
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::{Envelope, State};

use crate::golden::{bytes, hex, is_unknown_to_format_2, stand_in, submitted};
use crate::support::workload;

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-sharing.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-sharing.txt");

fn sharing() -> Sharing {
    Sharing {
        validation_prompts: 0,
        sampling: Sampling::Uniform,
        datasets: vec![Share {
            chance: 500_000,
            is_undivided: true,
        }],
        held_out: Some(HeldOut {
            batch_size: 2,
            samples: 300,
            repeats: 1,
        }),
    }
}

fn entries() -> (Vec<Envelope>, State) {
    let spec = |number: u8| {
        let mut spec = JobSpec::new(workload(), StagingId([number; 16]));
        spec.workload.sharing = sharing();
        spec
    };
    let mut prepared = spec(0x72);
    prepared.workload.preparation = Preparation {
        tiled: true,
        ..Preparation::default()
    };
    submitted(spec, prepared)
}

#[test]
fn entries_that_say_how_a_run_is_shared_out_are_written_and_read_as_ever() {
    let (entries, _) = entries();
    stand_in(LOG, &entries);
}

#[test]
fn a_snapshot_that_says_how_runs_are_shared_out_is_written_and_read_as_ever() {
    let (_, state) = entries();
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
    for job in [1, 2, 3, 4] {
        let job = restored.job(JobId(job)).expect("it is known");
        assert_eq!(job.spec.workload.sharing, sharing(), "{:?}", job.id);
    }
}

/// A node that knows of none reads no entry that says it.
#[test]
fn an_older_format_has_none() {
    let (entries, _) = entries();
    entries[1..4].iter().for_each(is_unknown_to_format_2);
}
