//! What must be true when the dust has settled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use stepcast_proto::v1;

use crate::contributions;
use crate::people::is_over;
use crate::processes::{Ring, epoch_of};

/// Checks everything and says what there was.
pub(crate) fn all(
    jobs: &[v1::Job],
    wishes: &BTreeMap<String, String>,
    rows: u64,
    ring: &Ring,
) -> String {
    every_acknowledged_job_ended_once(jobs, wishes);
    let starts = no_epoch_started_twice(jobs, ring);
    let contributions = every_contribution_is_stored_once(jobs, rows, ring);
    let succeeded = jobs
        .iter()
        .filter(|job| job.state() == v1::JobState::Succeeded)
        .count();
    let attempts: usize = jobs.iter().map(|job| job.attempts.len()).sum();
    assert!(succeeded > 0, "nothing ran");
    format!(
        "{} jobs acknowledged, {succeeded} succeeded; {attempts} attempts, {starts} started; \
         {contributions} contributions stored as {rows} rows",
        wishes.len()
    )
}

/// A submission whose answer was lost was asked again under its request id, so there are as many jobs as wishes.
fn every_acknowledged_job_ended_once(jobs: &[v1::Job], wishes: &BTreeMap<String, String>) {
    let names: BTreeSet<&String> = jobs.iter().map(|job| &job.name).collect();
    assert_eq!(names.len(), jobs.len(), "a job is listed twice");
    assert_eq!(
        names,
        wishes.keys().collect(),
        "acknowledged jobs, and no others"
    );
    for job in jobs {
        assert!(is_over(job), "{job:?}");
        assert!(job.end_time.is_some(), "{job:?}");
        let ended = |attempt: &v1::Attempt| {
            attempt.state() == v1::AttemptState::Ended && attempt.end_time.is_some()
        };
        assert!(
            job.attempts.iter().all(ended),
            "an attempt outlives its job: {job:?}"
        );
        let successes = job
            .attempts
            .iter()
            .filter(|attempt| attempt.outcome == "SUCCEEDED")
            .count();
        let succeeded = usize::from(job.state() == v1::JobState::Succeeded);
        assert_eq!(
            successes, succeeded,
            "a job succeeds with one attempt and no more: {job:?}"
        );
    }
}

fn no_epoch_started_twice(jobs: &[v1::Job], ring: &Ring) -> usize {
    let starts = fs::read_to_string(ring.path("starts")).unwrap();
    let epochs: Vec<u64> = starts
        .lines()
        .map(|directory| epoch_of(directory).parse().unwrap())
        .collect();
    let different: BTreeSet<u64> = epochs.iter().copied().collect();
    assert_eq!(
        different.len(),
        epochs.len(),
        "a trainer was started twice under one epoch"
    );
    let known: Vec<u64> = jobs
        .iter()
        .flat_map(|job| &job.attempts)
        .map(|attempt| attempt.epoch)
        .collect();
    let distinct: BTreeSet<u64> = known.iter().copied().collect();
    assert_eq!(distinct.len(), known.len(), "two attempts have one epoch");
    assert!(
        different.is_subset(&distinct),
        "a trainer was started under an epoch that the log does not know"
    );
    epochs.len()
}

fn every_contribution_is_stored_once(jobs: &[v1::Job], rows: u64, ring: &Ring) -> usize {
    let ids = contributions::stored_once(&ring.path("data").join("records"));
    assert_eq!(rows, ids.len() as u64, "rows and contributions");
    let succeeded = jobs
        .iter()
        .filter(|job| job.state() == v1::JobState::Succeeded)
        .count();
    assert!(
        ids.len() >= succeeded,
        "{succeeded} jobs succeeded, but only {} contributions are stored",
        ids.len()
    );
    let attempts: usize = jobs.iter().map(|job| job.attempts.len()).sum();
    assert!(ids.len() <= attempts, "more contributions than attempts");
    ids.len()
}
