//! Whether every acknowledged job ended exactly once, and nothing ran twice: what the cluster says at the end, held
//! against what the trainers themselves left behind.

use std::collections::{BTreeMap, BTreeSet};

use crate::jobs::Stand;

/// A job as the cluster has it when everything is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// What its caller called it: the key of its submission.
    pub key: String,
    /// Where it stands.
    pub stand: Stand,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// One attempt as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its fencing token.
    pub epoch: u64,
    /// Who ran it.
    pub worker: String,
    /// Positions of the worker's GPUs.
    pub gpus: Vec<u32>,
    /// Whether it is over.
    pub ended: bool,
    /// Whether it counted as the success of its job.
    pub succeeded: bool,
}

/// One trainer process, from its first to its last moment by one clock; `None` if it was still there at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The fencing token that it was started under.
    pub epoch: u64,
    /// When it was there.
    pub start: u64,
    /// When it was gone, however it went.
    pub end: Option<u64>,
}

/// What a caller has of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The job's name, if the submission was acknowledged.
    pub acknowledged: Option<String>,
}

/// Everything that is wrong, a sentence each. `wishes` are by their key; two lives may overlap by `tolerance` of the
/// clock: the time between a process's end and the moment it was noticed.
#[must_use]
pub fn violations(
    jobs: &[Job],
    lives: &[Life],
    wishes: &BTreeMap<String, Wish>,
    tolerance: u64,
) -> Vec<String> {
    let mut wrong = Vec::new();
    submissions(jobs, wishes, &mut wrong);
    for job in jobs {
        endings(job, &mut wrong);
    }
    starts(jobs, lives, &mut wrong);
    overlaps(jobs, lives, tolerance, &mut wrong);
    wrong
}

/// One submission, one job; and no job without one.
fn submissions(jobs: &[Job], wishes: &BTreeMap<String, Wish>, wrong: &mut Vec<String>) {
    let mut by_key: BTreeMap<&str, &Job> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for job in jobs {
        if !names.insert(&job.name) {
            wrong.push(format!("{} is listed twice", job.name));
        }
        match wishes.get(&job.key) {
            None => wrong.push(format!("nobody submitted {} ({})", job.name, job.key)),
            Some(Wish {
                acknowledged: Some(name),
            }) if *name != job.name => wrong.push(format!(
                "{} was acknowledged as {name} and is {} too",
                job.key, job.name
            )),
            Some(_) => {}
        }
        if let Some(other) = by_key.insert(&job.key, job) {
            wrong.push(format!(
                "one submission, {}, became two jobs: {} and {}",
                job.key, other.name, job.name
            ));
        }
    }
    for (key, wish) in wishes {
        if let Some(name) = &wish.acknowledged
            && !names.contains(name)
        {
            wrong.push(format!("{name} ({key}) was acknowledged and is lost"));
        }
    }
}

/// What is over has no live attempt, and it succeeded once or not at all.
fn endings(job: &Job, wrong: &mut Vec<String>) {
    if !job.stand.is_over() {
        wrong.push(format!("{} does not end: {:?}", job.name, job.stand));
    }
    for attempt in job.attempts.iter().filter(|attempt| !attempt.ended) {
        wrong.push(format!("attempt {} outlives {}", attempt.epoch, job.name));
    }
    let successes = job
        .attempts
        .iter()
        .filter(|attempt| attempt.succeeded)
        .count();
    if successes != usize::from(job.stand == Stand::Succeeded) {
        wrong.push(format!(
            "{} is {:?} and {successes} of its attempts succeeded",
            job.name, job.stand
        ));
    }
    let mut before = 0;
    for attempt in &job.attempts {
        if attempt.epoch <= before {
            wrong.push(format!(
                "{}: epoch {} comes after {before}",
                job.name, attempt.epoch
            ));
        }
        before = attempt.epoch;
    }
}

/// An epoch belongs to one attempt, and is started once at most.
fn starts(jobs: &[Job], lives: &[Life], wrong: &mut Vec<String>) {
    let mut known = BTreeMap::new();
    for job in jobs {
        for attempt in &job.attempts {
            if let Some(other) = known.insert(attempt.epoch, job) {
                wrong.push(format!(
                    "epoch {} belongs to {} and to {}",
                    attempt.epoch, other.name, job.name
                ));
            }
        }
    }
    let mut started = BTreeSet::new();
    for life in lives {
        if !started.insert(life.epoch) {
            wrong.push(format!("epoch {} was started twice", life.epoch));
        }
        if !known.contains_key(&life.epoch) {
            wrong.push(format!(
                "a trainer was started under epoch {}, which the log does not know",
                life.epoch
            ));
        }
        if life.end.is_none() {
            wrong.push(format!(
                "the trainer of epoch {} is still there",
                life.epoch
            ));
        }
    }
    for job in jobs {
        for attempt in job.attempts.iter().filter(|attempt| attempt.succeeded) {
            if !started.contains(&attempt.epoch) {
                wrong.push(format!(
                    "attempt {} of {} succeeded without a trainer",
                    attempt.epoch, job.name
                ));
            }
        }
    }
}

/// At any moment a job has one trainer at most, and so has a GPU.
fn overlaps(jobs: &[Job], lives: &[Life], tolerance: u64, wrong: &mut Vec<String>) {
    let lived: BTreeMap<u64, &Life> = lives.iter().map(|life| (life.epoch, life)).collect();
    let mut holders: BTreeMap<String, Vec<&Life>> = BTreeMap::new();
    for job in jobs {
        for attempt in &job.attempts {
            let Some(life) = lived.get(&attempt.epoch) else {
                continue;
            };
            holders.entry(job.name.clone()).or_default().push(life);
            for gpu in &attempt.gpus {
                let gpu = format!("GPU {gpu} of {}", attempt.worker);
                holders.entry(gpu).or_default().push(life);
            }
        }
    }
    for (held, mut lives) in holders {
        lives.sort_by_key(|life| life.start);
        for pair in lives.windows(2) {
            let end = pair[0].end.unwrap_or(u64::MAX);
            if pair[1].start.saturating_add(tolerance) < end {
                wrong.push(format!(
                    "{held} has two trainers at once: epoch {} from {} to {:?}, epoch {} from {}",
                    pair[0].epoch, pair[0].start, pair[0].end, pair[1].epoch, pair[1].start
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(epoch: u64, succeeded: bool) -> Attempt {
        Attempt {
            epoch,
            worker: "w".to_owned(),
            gpus: vec![0],
            ended: true,
            succeeded,
        }
    }

    fn life(epoch: u64, start: u64, end: u64) -> Life {
        Life {
            epoch,
            start,
            end: Some(end),
        }
    }

    struct Seen {
        jobs: Vec<Job>,
        lives: Vec<Life>,
        wishes: BTreeMap<String, Wish>,
    }

    /// One job with a failed and a good attempt, and one that was cancelled before it ran.
    fn good() -> Seen {
        let job = |name: &str, stand, attempts| Job {
            name: format!("jobs/{name}"),
            key: name.to_owned(),
            stand,
            attempts,
        };
        let wish = |name: &str| {
            let acknowledged = Some(format!("jobs/{name}"));
            (name.to_owned(), Wish { acknowledged })
        };
        let attempts = vec![attempt(1, false), attempt(4, true)];
        Seen {
            jobs: vec![
                job("a", Stand::Succeeded, attempts),
                job("b", Stand::Cancelled, Vec::new()),
            ],
            lives: vec![life(1, 10, 20), life(4, 21, 40)],
            wishes: BTreeMap::from([wish("a"), wish("b")]),
        }
    }

    fn wrong(change: impl FnOnce(&mut Seen)) -> Vec<String> {
        let mut seen = good();
        change(&mut seen);
        violations(&seen.jobs, &seen.lives, &seen.wishes, 1)
    }

    #[test]
    fn what_is_as_it_should_be_is_accepted() {
        assert_eq!(wrong(|_| {}), [""; 0]);
        let unknown = |seen: &mut Seen| {
            seen.wishes
                .insert("c".to_owned(), Wish { acknowledged: None });
        };
        assert_eq!(wrong(unknown), [""; 0], "it may have been lost");
    }

    #[test]
    fn a_lost_a_doubled_and_a_foreign_job_are_found() {
        assert_eq!(wrong(|seen| seen.jobs.truncate(1)).len(), 1);
        let doubled = wrong(|seen| {
            let mut other = seen.jobs[1].clone();
            other.name = "jobs/c".to_owned();
            seen.jobs.push(other);
        });
        assert_eq!(doubled.len(), 2, "{doubled:?}");
        assert_eq!(
            wrong(|seen| seen.wishes.retain(|key, _| key != "b")).len(),
            1
        );
    }

    #[test]
    fn a_double_start_is_found() {
        assert!(!wrong(|seen| seen.lives.push(life(1, 50, 60))).is_empty());
        assert_eq!(wrong(|seen| seen.lives.push(life(9, 50, 60))).len(), 1);
    }

    #[test]
    fn two_trainers_of_one_job_at_once_are_found() {
        let found = wrong(|seen| {
            seen.lives[1].start = 15;
            seen.jobs[0].attempts[1].worker = "x".to_owned();
        });
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn two_trainers_on_one_gpu_at_once_are_found() {
        let found = wrong(|seen| {
            seen.jobs[1].attempts.push(attempt(5, false));
            seen.lives.push(life(5, 30, 50));
        });
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn an_end_that_is_none_or_twice_is_found() {
        assert_eq!(wrong(|seen| seen.jobs[0].stand = Stand::Failed).len(), 1);
        assert_eq!(wrong(|seen| seen.jobs[0].stand = Stand::Running).len(), 2);
        let twice = wrong(|seen| seen.jobs[0].attempts[0].succeeded = true);
        assert_eq!(twice.len(), 1, "{twice:?}");
        assert_eq!(
            wrong(|seen| seen.jobs[0].attempts[0].ended = false).len(),
            1
        );
        assert_eq!(wrong(|seen| seen.lives.truncate(1)).len(), 1);
    }
}
