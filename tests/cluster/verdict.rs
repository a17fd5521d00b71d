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

/// What the checkers have found, and how much they had to look at.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Violations by what was checked.
    found: Vec<(&'static str, Vec<String>)>,
    told: String,
}

impl Verdict {
    /// What somebody else has checked.
    pub(crate) fn add(&mut self, checked: &'static str, violations: Vec<String>) {
        self.found.push((checked, violations));
    }

    /// Everything that is wrong, a sentence each.
    pub(crate) fn wrong(self) -> Vec<String> {
        let found = self.found.into_iter();
        found.flat_map(|(_, wrong)| wrong).collect()
    }

    /// Says everything, and fails if anything is wrong.
    pub(crate) fn tell(self) {
        let counts = self
            .found
            .iter()
            .map(|(of, wrong)| (*of, wrong.len() as u64));
        println!("{}\nviolations: {}", self.told, by_kind(counts));
        let wrong = self.wrong();
        let shown = &wrong[..wrong.len().min(TOLD)];
        let more = wrong.len() - shown.len();
        assert!(wrong.is_empty(), "{}\nand {more} more", shown.join("\n"));
    }
}

/// A total and its parts, in one line.
pub(crate) fn by_kind<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let counts: Vec<(&str, u64)> = counts.collect();
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let parts: Vec<String> = counts
        .iter()
        .map(|(of, count)| format!("{of} {count}"))
        .collect();
    format!("{all} ({})", parts.join(", "))
}

/// Checks everything.
pub(crate) fn of(history: &History, jobs: &[v1::Job], trainers: &[Trainer]) -> Verdict {
    let seen = history.seen();
    let mut calls = seen.drains.len();
    let mut orders = Vec::new();
    for (key, history) in &seen.jobs {
        calls += history.len();
        orders.extend(order(&jobs::Job, key, history));
    }
    orders.extend(order(&drains::Drained, "the drained worker", &seen.drains));
    let watches = seen.watches.iter();
    let watches = watches.flat_map(|(job, watchers)| watches::violations(job, watchers));
    let once = once::violations(
        &jobs.iter().filter_map(ended).collect::<Vec<_>>(),
        &lives(history, trainers),
        &wishes(&seen),
        u64::try_from(NOTICED.as_nanos()).unwrap(),
    );
    let several = seen.leaders.iter().filter(|(_, leaders)| leaders.len() > 1);
    let several =
        several.map(|(term, leaders)| format!("term {term} has several leaders: {leaders:?}"));
    Verdict {
        found: vec![
            ("answers", seen.wrong.clone()),
            ("linearizable calls", orders),
            ("lists", lists::violations(&seen.lists, &sent(&seen))),
            ("watches", watches.collect()),
            ("exactly once", once),
            ("one leader a term", several.collect()),
        ],
        told: summary(history, &seen, jobs, trainers, calls),
    }
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
    let answers = by_kind(seen.answers.iter().map(|(of, count)| (*of, *count)));
    let troubles = by_kind(
        seen.troubles
            .iter()
            .map(|(why, count)| (why.as_str(), *count)),
    );
    let _ = writeln!(told, "operations answered: {answers}");
    let _ = writeln!(told, "tries without an answer: {troubles}");
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
