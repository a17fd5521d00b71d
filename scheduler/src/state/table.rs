//! The jobs by id: those that may still change as they are, those that are over as their bytes, a quarter of the room.

use std::borrow::Cow;
use std::sync::Arc;

use stepcast_records::simpletuner::{Preparation, Sharing};

use super::pages::Pages;
use crate::codec::Parts;
use crate::ids::{AttemptNumber, JobId};
use crate::model::{Forgotten, Freed, Gang, Job, JobState, Label, Standing, Terms};

/// The jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Jobs(Pages<JobId, Kept>);

/// A job as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kept {
    /// It may still change.
    Open(Arc<Job>),
    /// It is over: nothing changes it any more, and it is looked at seldom.
    Over {
        /// How it ended, for lists.
        state: JobState,
        /// All of it, as in the log.
        bytes: Arc<[u8]>,
    },
}

impl Kept {
    /// A job as it is to be kept.
    pub(crate) fn of(job: Job) -> Self {
        if job.ended_ms.is_some() {
            Self::Over {
                state: job.state,
                bytes: encode(&job).into(),
            }
        } else {
            Self::Open(Arc::new(job))
        }
    }

    /// The job.
    pub(crate) fn job(&self) -> Cow<'_, Job> {
        match self {
            Self::Open(job) => Cow::Borrowed(job),
            Self::Over { bytes, .. } => match decode(bytes) {
                Some(job) => Cow::Owned(job),
                None => unreachable!("a job is kept as bytes that were made of it"),
            },
        }
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> JobState {
        match self {
            Self::Open(job) => job.state,
            Self::Over { state, .. } => *state,
        }
    }

    /// The job, unless it is over.
    pub(crate) fn open(&self) -> Option<&Job> {
        match self {
            Self::Open(job) => Some(job),
            Self::Over { .. } => None,
        }
    }
}

impl Jobs {
    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// A job.
    pub(crate) fn get(&self, id: JobId) -> Option<&Kept> {
        self.0.get(&id)
    }

    /// A job that is not over.
    pub(crate) fn open(&self, id: JobId) -> Option<&Job> {
        self.0.get(&id)?.open()
    }

    /// A job that is not over, to be changed.
    pub(crate) fn open_mut(&mut self, id: JobId) -> Option<&mut Job> {
        match self.0.get_mut(&id)? {
            Kept::Open(job) => Some(Arc::make_mut(job)),
            Kept::Over { .. } => None,
        }
    }

    /// Takes a job in.
    pub(crate) fn insert(&mut self, job: Job) {
        self.0.insert(job.id, Kept::of(job));
    }

    /// Takes a job in as it was kept.
    pub(crate) fn insert_kept(&mut self, id: JobId, kept: Kept) {
        self.0.insert(id, kept);
    }

    /// Keeps a job as its bytes if it is over by now.
    pub(crate) fn close(&mut self, id: JobId) {
        if let Some(kept) = self.0.get_mut(&id)
            && let Kept::Open(job) = kept
            && job.ended_ms.is_some()
        {
            *kept = Kept::Over {
                state: job.state,
                bytes: encode(job).into(),
            };
        }
    }

    /// Takes a job out.
    pub(crate) fn remove(&mut self, id: JobId) -> Option<Job> {
        let kept = self.0.remove(&id)?;
        Some(match kept {
            Kept::Open(job) => Arc::unwrap_or_clone(job),
            Kept::Over { .. } => kept.job().into_owned(),
        })
    }

    /// Every job, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (JobId, &Kept)> {
        self.0.iter()
    }

    /// The jobs that are not over, oldest first.
    pub(crate) fn all_open(&self) -> impl Iterator<Item = &Job> {
        self.0.iter().filter_map(|(_, kept)| kept.open())
    }

    /// The jobs behind one, oldest first.
    pub(crate) fn after(&self, id: JobId) -> impl Iterator<Item = (JobId, &Kept)> {
        self.0.after(id)
    }

    /// The jobs before one, newest first.
    pub(crate) fn before(&self, id: JobId) -> impl Iterator<Item = (JobId, &Kept)> {
        self.0.before(id)
    }
}

/// A job as bytes; the same job always gives the same. What format 3 has added stands behind what was there before, and
/// is left out while there is nothing to say.
pub(crate) fn encode(job: &Job) -> Vec<u8> {
    let written = postcard::to_extend(job, Vec::with_capacity(256))
        .and_then(|bytes| behind(job, Parts::behind(bytes)));
    match written {
        Ok(parts) => parts.end(),
        // Memory grows as needed and every length is known beforehand, so there is nothing left that could fail.
        Err(error) => unreachable!("a job is always encodable: {error}"),
    }
}

/// What stands behind what a job was in the first format.
fn behind(job: &Job, parts: Parts) -> postcard::Result<Parts> {
    let (Job { spec, standing, .. }, gangs) = (job, gangs(job));
    let (terms, workload) = (&spec.terms, &spec.workload);
    let is_plain = *terms == Terms::default() && *standing == Standing::default();
    let (names, hosts) = (&terms.credentials, terms.more_hosts);
    let freed = standing.freed.unwrap_or(Freed::NONE);
    let is_on_one = hosts == 0 && gangs.is_empty();
    let (from, began_at) = (standing.counts_from, standing.began_at);
    let is_as_kept = began_at == standing.forgotten.checkpoint_step;
    let count_all = from == AttemptNumber::default();
    parts
        .then(&(terms, standing), !is_plain)?
        .then(&(names, standing.awaits_credentials), !names.is_empty())?
        .then(&freed, standing.freed.is_some())?
        .then(&(hosts, gangs), !is_on_one)?
        .then_said(&workload.preparation)?
        .then_said(&standing.forgotten)?
        .then_said(&workload.sharing)?
        .then_said(&from)?
        .then(&began_at, !count_all && !is_as_kept)
}

/// The job of such bytes; `None` if they are of no job, or not those that the job gives.
pub(crate) fn decode(bytes: &[u8]) -> Option<Job> {
    let (mut job, rest): (Job, _) = postcard::take_from_bytes(bytes).ok()?;
    if !rest.is_empty() {
        let ((terms, standing), rest) =
            postcard::take_from_bytes::<(Terms, Standing)>(rest).ok()?;
        (job.spec.terms, job.standing) = (terms, standing);
        if !rest.is_empty() {
            let ((names, awaits), rest) =
                postcard::take_from_bytes::<(Vec<Label>, bool)>(rest).ok()?;
            job.spec.terms.credentials = names;
            job.standing.awaits_credentials = awaits;
            if rest.is_empty() {
                return (!job.spec.terms.credentials.is_empty()).then_some(job);
            }
            let (freed, rest) = postcard::take_from_bytes::<Freed>(rest).ok()?;
            job.standing.freed = (freed != Freed::NONE).then_some(freed);
            if rest.is_empty() {
                return job.standing.freed.is_some().then_some(job);
            }
            read_gangs(&mut job, rest)?;
        }
    }
    Some(job)
}

/// The attempts on several hosts, by their position.
fn gangs(job: &Job) -> Vec<(u8, &Gang)> {
    let attempts = (0..=u8::MAX).zip(&job.attempts);
    let gangs =
        attempts.filter_map(|(position, attempt)| Some((position, attempt.gang.as_deref()?)));
    gangs.collect()
}

/// How a job is shared out, and the first attempt whose checkpoints count, if that is said; `None` if the bytes say something
/// else.
fn read_sharing(job: &mut Job, bytes: &[u8]) -> Option<()> {
    if !bytes.is_empty() {
        let (sharing, rest) = postcard::take_from_bytes(bytes).ok()?;
        if rest.is_empty() && sharing == Sharing::default() {
            return None;
        }
        job.spec.workload.sharing = sharing;
        if !rest.is_empty() {
            let (counts_from, rest) = postcard::take_from_bytes(rest).ok()?;
            if counts_from == AttemptNumber::default() {
                return None;
            }
            job.standing.counts_from = counts_from;
            job.standing.began_at = job.standing.forgotten.checkpoint_step;
            if !rest.is_empty() {
                let (began_at, []) = postcard::take_from_bytes(rest).ok()? else {
                    return None;
                };
                if began_at == job.standing.began_at {
                    return None;
                }
                job.standing.began_at = began_at;
            }
        }
    }
    Some(())
}

/// On how many hosts a job is to run beyond the first, its attempts that do, how it prepares itself, what is left of
/// attempts that are forgotten, how it is shared out, and which attempts' checkpoints count; `None` if the bytes do not say
/// that.
fn read_gangs(job: &mut Job, bytes: &[u8]) -> Option<()> {
    let ((hosts, gangs), rest) = postcard::take_from_bytes::<(u8, Vec<(u8, Gang)>)>(bytes).ok()?;
    let is_some = hosts > 0 || !gangs.is_empty() || !rest.is_empty();
    if !is_some || !gangs.is_sorted_by(|a, b| a.0 < b.0) {
        return None;
    }
    job.spec.terms.more_hosts = hosts;
    for (position, gang) in gangs {
        job.attempts.get_mut(usize::from(position))?.gang = Some(Box::new(gang));
    }
    if !rest.is_empty() {
        let (preparation, rest) = postcard::take_from_bytes(rest).ok()?;
        if rest.is_empty() && preparation == Preparation::default() {
            return None;
        }
        job.spec.workload.preparation = preparation;
        if !rest.is_empty() {
            let (forgotten, rest) = postcard::take_from_bytes(rest).ok()?;
            if rest.is_empty() && forgotten == Forgotten::default() {
                return None;
            }
            job.standing.forgotten = forgotten;
            read_sharing(job, rest)?;
        }
    }
    Some(())
}
