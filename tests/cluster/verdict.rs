//! Holds everything that was seen against what must be true, and says how much there was.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use stepcast_proto::v1;
use stepcast_tests::linearizable::{self, Model, Timed};
use stepcast_tests::{drains, jobs, lists, once, watches};

use crate::history::{History, Seen, key, stand};
use crate::trainers::Trainer;

/// How late the end of a process may be noticed on a busy machine.
const NOTICED: Duration = Duration::from_millis(500);

/// Violations that are told; after a real one there may be thousands.
const TOLD: usize = 40;

/// Checks everything; the violations, and a summary.
pub(crate) fn of(
    history: &History,
    jobs: &[v1::Job],
    trainers: &[Trainer],
) -> (Vec<String>, String) {
    let seen = history.seen();
    let mut wrong = seen.wrong.clone();
    let mut calls = 0;
    for (key, history) in &seen.jobs {
        calls += history.len();
        wrong.extend(order(&jobs::Job, key, history));
    }
    calls += seen.drains.len();
    wrong.extend(order(&drains::Drained, "the drained worker", &seen.drains));
    wrong.extend(lists::violations(&seen.lists, &sent(&seen)));
    for (job, watchers) in &seen.watches {
        wrong.extend(watches::violations(job, watchers));
    }
    wrong.extend(once::violations(
        &jobs.iter().filter_map(ended).collect::<Vec<_>>(),
        &lives(history, trainers),
        &wishes(&seen),
        u64::try_from(NOTICED.as_nanos()).unwrap(),
    ));
    for (term, leaders) in seen.leaders.iter().filter(|(_, leaders)| leaders.len() > 1) {
        wrong.push(format!("term {term} has several leaders: {leaders:?}"));
    }
    let told = summary(history, &seen, jobs, trainers, calls);
    let more = wrong.len().saturating_sub(TOLD);
    wrong.truncate(TOLD);
    wrong.extend((more > 0).then(|| format!("and {more} more")));
    (wrong, told)
}

fn order<M: Model>(model: &M, of: &str, history: &[Timed<M::Call>]) -> Option<String> {
    match linearizable::check(model, history) {
        Ok(()) => None,
        Err(linearizable::Failure::TooLarge) => {
            Some(format!("{of}: the search for an order is too large"))
        }
        Err(linearizable::Failure::NoOrder {
            explained,
            state,
            left,
        }) => Some(format!(
            "{of}: no order explains {} calls; after {explained} of them it is {state}, and these are left:\n    {}",
            history.len(),
            left.join("\n    ")
        )),
    }
}

fn sent(seen: &Seen) -> BTreeMap<String, lists::Sent> {
    let sent = seen.wishes.iter().map(|(key, wish)| {
        let end = wish.acknowledged.as_ref().map(|(end, _)| *end);
        let start = wish.start;
        (key.clone(), lists::Sent { start, end })
    });
    sent.collect()
}

fn wishes(seen: &Seen) -> BTreeMap<String, once::Wish> {
    let wishes = seen.wishes.iter().map(|(key, wish)| {
        let acknowledged = wish.acknowledged.as_ref().map(|(_, name)| name.clone());
        (key.clone(), once::Wish { acknowledged })
    });
    wishes.collect()
}

fn ended(job: &v1::Job) -> Option<once::Job> {
    let attempts = job.attempts.iter().map(|attempt| once::Attempt {
        epoch: attempt.epoch,
        worker: attempt.worker.clone(),
        gpus: attempt.gpus.clone(),
        ended: attempt.state() == v1::AttemptState::Ended && attempt.end_time.is_some(),
        succeeded: attempt.outcome == "SUCCEEDED",
    });
    Some(once::Job {
        name: job.name.clone(),
        key: key(job).to_owned(),
        stand: stand(job.state())?,
        attempts: attempts.collect(),
    })
}

fn lives(history: &History, trainers: &[Trainer]) -> Vec<once::Life> {
    let lives = trainers.iter().map(|trainer| once::Life {
        epoch: trainer.epoch,
        start: history.at(trainer.start),
        end: trainer.end.map(|end| history.at(end)),
    });
    lives.collect()
}

fn summary(
    history: &History,
    seen: &Seen,
    jobs: &[v1::Job],
    trainers: &[Trainer],
    calls: usize,
) -> String {
    let succeeded = jobs
        .iter()
        .filter(|job| job.state() == v1::JobState::Succeeded)
        .count();
    let attempts: usize = jobs.iter().map(|job| job.attempts.len()).sum();
    let watchers: usize = seen.watches.values().map(Vec::len).sum();
    let reopened: usize = seen
        .watches
        .values()
        .flatten()
        .map(|told| {
            told.iter()
                .filter(|told| **told == watches::Told::Opened)
                .count()
                - 1
        })
        .sum();
    let unknown = seen
        .wishes
        .values()
        .filter(|wish| wish.acknowledged.is_none())
        .count();
    let mut told = String::new();
    let answers: u64 = seen.answers.values().sum();
    let _ = writeln!(told, "answers: {answers} {:?}", seen.answers);
    let _ = writeln!(told, "tries without one: {:?}", seen.troubles);
    let _ = writeln!(
        told,
        "{} submissions, {unknown} of unknown outcome; {} jobs, {succeeded} succeeded, {attempts} attempts, {} trainers",
        seen.wishes.len(),
        jobs.len(),
        trainers.len()
    );
    let mut served: Vec<u64> = seen
        .wishes
        .values()
        .filter_map(|wish| Some(wish.acknowledged.as_ref()?.0))
        .collect();
    served.sort_unstable();
    let mut starts: Vec<u64> = trainers
        .iter()
        .map(|trainer| history.at(trainer.start))
        .collect();
    starts.sort_unstable();
    let _ = writeln!(
        told,
        "{} terms; longest time without an acknowledged submission {}, without the start of a trainer {}",
        seen.leaders.len(),
        longest(&served),
        longest(&starts)
    );
    let _ = write!(
        told,
        "checked: {calls} calls in {} histories, {} whole lists, {watchers} watches of {} jobs opened again {reopened} times",
        seen.jobs.len() + 1,
        seen.lists.len(),
        seen.watches.len()
    );
    told
}

/// The longest time between two moments that follow each other, and when it began.
fn longest(moments: &[u64]) -> String {
    let between = moments.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
    let (longest, at) = between.max().unwrap_or_default();
    let [longest, at] = [longest, at].map(|ns| ns as f64 / 1e9);
    format!("{longest:.1} s (at {at:.1} s)")
}
