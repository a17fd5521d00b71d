//! How a run prepares itself as bytes in the repository: the third format's entries and snapshot of jobs that say it.

use stepcast_records::Quantization;
use stepcast_records::simpletuner::Preparation;
use stepcast_scheduler::ids::{JobId, StagingId};
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::{Envelope, State};

use crate::golden::{bytes, hex, is_unknown_to_format_2, stand_in, submitted};
use crate::support::workload;

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-preparation.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-preparation.txt");

const PREPARATION: Preparation = Preparation {
    encoded_at_once: Some(1),
    tiled: true,
    encoders_offloaded: true,
    encoders: Quantization::Int8,
    quantized_on_host: true,
};

fn entries() -> (Vec<Envelope>, State) {
    let spec = |number: u8| {
        let mut spec = JobSpec::new(workload(), StagingId([number; 16]));
        spec.workload.preparation = PREPARATION;
        spec
    };
    let mut needing = spec(0x72);
    needing.terms.credentials = vec!["hub_token".parse().expect("a label")];
    submitted(spec, needing)
}

#[test]
fn entries_with_a_preparation_are_written_and_read_as_ever() {
    let (entries, _) = entries();
    stand_in(LOG, &entries);
}

#[test]
fn a_snapshot_with_a_preparation_is_written_and_read_as_ever() {
    let (_, state) = entries();
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
    for job in [1, 2, 3, 4] {
        let job = restored.job(JobId(job)).expect("it is known");
        assert_eq!(job.spec.workload.preparation, PREPARATION, "{:?}", job.id);
    }
}

/// A node that knows none reads no entry that has one.
#[test]
fn an_older_format_has_none() {
    let (entries, _) = entries();
    entries[1..4].iter().for_each(is_unknown_to_format_2);
}
