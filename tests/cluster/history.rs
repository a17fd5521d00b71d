//! Everything that callers did and saw, written down as it happens, for the checkers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use stepcast_proto::v1;
use stepcast_tests::drains;
use stepcast_tests::jobs::{self, Stand};
use stepcast_tests::linearizable::Timed;
use stepcast_tests::lists::List;
use stepcast_tests::watches::Told;
use tokio::sync::watch;

/// One history, shared by everybody who writes it.
#[derive(Debug, Clone)]
pub(crate) struct History {
    begun: Instant,
    seen: Arc<Mutex<Seen>>,
    acknowledged: Arc<watch::Sender<u64>>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Calls about each job, by the key of its submission.
    pub(crate) jobs: BTreeMap<String, Vec<Timed<jobs::Call>>>,
    /// Submissions by their keys.
    pub(crate) wishes: BTreeMap<String, Submission>,
    /// Calls about the one worker that is drained and resumed.
    pub(crate) drains: Vec<Timed<drains::Call>>,
    /// Lists of all jobs.
    pub(crate) lists: Vec<List>,
    /// What each watcher of a job was told.
    pub(crate) watches: BTreeMap<String, Vec<Vec<Told>>>,
    /// Who was seen to lead in each term, by the ids that nodes have in the cluster.
    pub(crate) leaders: BTreeMap<u64, BTreeSet<u64>>,
    /// Calls that had an answer, by what they were.
    pub(crate) answers: BTreeMap<&'static str, u64>,
    /// Tries without one, by why.
    pub(crate) troubles: BTreeMap<String, u64>,
    /// What no server may say.
    pub(crate) wrong: Vec<String>,
}

/// One submission.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// Its request id.
    pub(crate) request_id: String,
    /// Which work it asks for.
    pub(crate) number: u64,
    /// When it was first sent.
    pub(crate) start: u64,
    /// When it was acknowledged, and under which name.
    pub(crate) acknowledged: Option<(u64, String)>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            seen: Arc::default(),
            acknowledged: Arc::new(watch::channel(0).0),
        }
    }

    /// Nanoseconds since the history began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap()
    }

    /// Nanoseconds since the history began at that moment.
    pub(crate) fn at(&self, moment: Instant) -> u64 {
        u64::try_from(moment.duration_since(self.begun).as_nanos()).unwrap()
    }

    /// What was seen so far, locked.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// How many submissions were acknowledged, those that were sent again included, as it grows.
    pub(crate) fn acknowledged(&self) -> watch::Receiver<u64> {
        self.acknowledged.subscribe()
    }

    /// A submission that is about to be sent for the first time.
    pub(crate) fn submits(&self, key: &str, request_id: &str, number: u64) {
        let submission = Submission {
            request_id: request_id.to_owned(),
            number,
            start: self.now(),
            acknowledged: None,
        };
        self.seen().wishes.insert(key.to_owned(), submission);
    }

    /// A submission was acknowledged, for the first time or again.
    pub(crate) fn submitted(&self, key: &str, start: u64, job: &v1::Job) {
        let end = self.now();
        let mut seen = self.seen();
        let submission = seen.wishes.get_mut(key).unwrap();
        match &submission.acknowledged {
            None => {
                submission.acknowledged = Some((end, job.name.clone()));
            }
            Some((_, name)) if *name != job.name => {
                let wrong = format!("{key} was acknowledged as {name} and as {}", job.name);
                seen.wrong.push(wrong);
            }
            Some(_) => {}
        }
        let call = Timed {
            call: jobs::Call::Submit,
            start,
            end: Some(end),
        };
        seen.jobs.entry(key.to_owned()).or_default().push(call);
        drop(seen);
        self.acknowledged.send_modify(|count| *count += 1);
        self.saw(start, end, job);
    }

    /// A job was seen as it is.
    pub(crate) fn saw(&self, start: u64, end: u64, job: &v1::Job) {
        let Some((seq, stand)) = self.standing(job) else {
            return;
        };
        self.about(key(job), start, Some(end), jobs::Call::Get { seq, stand });
    }

    /// A call about a job.
    pub(crate) fn about(&self, key: &str, start: u64, end: Option<u64>, call: jobs::Call) {
        let call = Timed { call, start, end };
        let mut seen = self.seen();
        seen.jobs.entry(key.to_owned()).or_default().push(call);
    }

    /// A call about the drained worker.
    pub(crate) fn drain(&self, start: u64, end: Option<u64>, call: drains::Call) {
        self.seen().drains.push(Timed { call, start, end });
    }

    /// A node was seen to lead.
    pub(crate) fn leads(&self, term: u64, node_id: u64) {
        self.seen().leaders.entry(term).or_default().insert(node_id);
    }

    /// A call had an answer.
    pub(crate) fn answered(&self, what: &'static str) {
        *self.seen().answers.entry(what).or_default() += 1;
    }

    /// A try had none.
    pub(crate) fn trouble(&self, why: &str) {
        *self.seen().troubles.entry(why.to_owned()).or_default() += 1;
    }

    /// Something that no server may say.
    pub(crate) fn wrong(&self, what: String) {
        self.seen().wrong.push(what);
    }

    /// Number of the newest event of a job, and where it stands.
    pub(crate) fn standing(&self, job: &v1::Job) -> Option<(u64, Stand)> {
        let seq = u64::from_str_radix(&job.etag, 16).ok();
        let both = seq.zip(stand(job.state()));
        if both.is_none() {
            self.wrong(format!("a job without a number or a state: {job:?}"));
        }
        both
    }
}

/// What its submitter calls a job.
pub(crate) fn key(job: &v1::Job) -> &str {
    let wishes = job.wishes.as_ref();
    wishes.map_or("", |wishes| &wishes.display_name)
}

/// Where a job stands.
pub(crate) fn stand(state: v1::JobState) -> Option<Stand> {
    match state {
        v1::JobState::Unspecified => None,
        v1::JobState::Pending => Some(Stand::Pending),
        v1::JobState::Running => Some(Stand::Running),
        v1::JobState::Cancelling => Some(Stand::Cancelling),
        v1::JobState::Succeeded => Some(Stand::Succeeded),
        v1::JobState::Failed => Some(Stand::Failed),
        v1::JobState::Cancelled => Some(Stand::Cancelled),
    }
}
