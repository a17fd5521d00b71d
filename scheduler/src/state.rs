//! What is true: every committed command changes it the same way on every node.

mod apply;
mod arrays;
mod attempts;
mod audit;
mod changes;
mod counts;
mod credentials;
mod gangs;
mod indexes;
mod jobs;
mod journal;
mod lines;
mod money;
mod nodes;
mod outputs;
mod pages;
mod requests;
mod retention;
mod settle;
mod snapshot;
mod table;
mod teams;
mod workers;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::accounts::Accounts;
use crate::ids::{Epoch, JobId, RequestId, StagingId, TeamId, TokenHash, TokenId, WorkerId};
use crate::model::{
    Attempt, Job, JobState, Label, Lease, Nodes, Prices, Team, Token, Worker, WorkerState,
};
use crate::policy::Policy;
pub use apply::Applied;
pub use counts::JobCounts;
pub(crate) use indexes::Indexes;
pub(crate) use journal::{Change, Read};
pub(crate) use lines::Line;
pub(crate) use money::wanted;
pub(crate) use requests::Requests;
pub use snapshot::{CHUNK_BYTES_MAX, Error as RestoreError, Restoring, SNAPSHOT_VERSION, View};
pub(crate) use table::Jobs;

/// The state. Changed by [`State::apply`] alone, and by [`State::skip_jobs`] before a log begins.
///
/// Every table is shared with the [`View`]s that were taken of it and copied in small parts when it is changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// The newest entry that was applied.
    pub(crate) applied_index: u64,
    /// The greatest stamp seen: the time, as far as the state knows one.
    pub(crate) now_ms: u64,
    /// The oldest format that may be in the log from here on.
    pub(crate) format: u16,
    pub(crate) last_job: u64,
    pub(crate) last_worker: u64,
    pub(crate) last_token: u64,
    pub(crate) last_team: u64,
    pub(crate) policy: Policy,
    pub(crate) jobs: Jobs,
    pub(crate) workers: Arc<BTreeMap<WorkerId, Worker>>,
    pub(crate) tokens: Arc<BTreeMap<TokenHash, Token>>,
    /// From format 3 on, with the one of who has none.
    pub(crate) teams: Arc<BTreeMap<TeamId, Team>>,
    /// From format 3 on: who may use the cluster, and what was done by whom.
    pub(crate) accounts: Accounts,
    /// From format 3 on: what the operator says that GPUs cost, where their worker does not.
    pub(crate) prices: Arc<Prices>,
    /// From format 3 on: the cluster's nodes, and what only they know.
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) requests: Requests,
    /// What can be found quicker than by looking at every job. Made from the jobs alone.
    pub(crate) indexes: Indexes,
}

impl State {
    /// The state before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of the newest entry that was applied, 0 for none.
    #[must_use]
    pub const fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// The greatest stamp seen, in milliseconds since 1970.
    #[must_use]
    pub const fn newest_stamp_ms(&self) -> u64 {
        self.now_ms
    }

    /// Has the ids of jobs go on so much further, where a new log begins with the state of a backup: what was submitted after
    /// it is not known any more, and workers may still have results by those ids.
    pub const fn skip_jobs(&mut self, ids: u64) {
        self.last_job = self.last_job.saturating_add(ids);
    }

    /// How the cluster decides who runs where and when.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Who may use the cluster, and what was done by whom.
    #[must_use]
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// What the operator says that GPUs cost, where their worker does not.
    #[must_use]
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// The format every node must know.
    #[must_use]
    pub const fn format(&self) -> u16 {
        self.format
    }

    /// A job: one that is over is read from its bytes.
    #[must_use]
    pub fn job(&self, job: JobId) -> Option<Cow<'_, Job>> {
        Some(self.jobs.get(job)?.job())
    }

    /// A job that is not over.
    #[must_use]
    pub fn open_job(&self, job: JobId) -> Option<&Job> {
        self.jobs.open(job)
    }

    /// Every job, oldest first. A [`DoubleEndedIterator`], so that pages can be read from either end. Reads what is over
    /// from its bytes: for a page, not for all of a large state.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = Cow<'_, Job>> {
        self.jobs.iter().map(|(_, kept)| kept.job())
    }

    /// The jobs behind `after`, oldest first.
    pub fn jobs_after(&self, after: JobId) -> impl Iterator<Item = Cow<'_, Job>> {
        self.jobs.after(after).map(|(_, kept)| kept.job())
    }

    /// The jobs before `below` that stand where they are wanted, newest first. What is not wanted is passed quickly.
    pub fn jobs_below(
        &self,
        below: JobId,
        wanted: impl Fn(JobState) -> bool,
    ) -> impl Iterator<Item = Cow<'_, Job>> {
        let below = self.jobs.before(below);
        below
            .filter(move |(_, kept)| wanted(kept.state()))
            .map(|(_, kept)| kept.job())
    }

    /// The ids of the jobs behind `after`, oldest first, each with its job unless that is over: quickly passed.
    pub fn open_after(&self, after: JobId) -> impl Iterator<Item = (JobId, Option<&Job>)> {
        self.jobs.after(after).map(|(id, kept)| (id, kept.open()))
    }

    /// Whether a job was submitted by somebody who has been removed since.
    #[must_use]
    pub fn is_orphaned(&self, job: &Job) -> bool {
        let owner = job.spec.terms.owner;
        owner.is_some_and(|owner| self.accounts.user(owner.user).is_none())
    }

    /// How many jobs there are.
    #[must_use]
    pub const fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// How many jobs are not over.
    #[must_use]
    pub fn unfinished_count(&self) -> usize {
        self.indexes.staged.len()
    }

    /// The waiting jobs in the order in which they are considered.
    pub fn pending(&self) -> impl Iterator<Item = &Job> {
        self.indexes
            .pending
            .iter()
            .filter_map(|(_, id)| self.jobs.open(*id))
    }

    /// How many jobs wait.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.indexes.pending.len()
    }

    /// A worker.
    #[must_use]
    pub fn worker(&self, worker: WorkerId) -> Option<&Worker> {
        self.workers.get(&worker)
    }

    /// Every worker, oldest first.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// Every worker as it is now, for a look that takes long: what changes afterwards does not show in it.
    #[must_use]
    pub fn all_workers(&self) -> Arc<BTreeMap<WorkerId, Worker>> {
        Arc::clone(&self.workers)
    }

    /// The workers that take part, draining or not, oldest first.
    pub fn present_workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers()
            .filter(|worker| worker.state == WorkerState::Present)
    }

    /// A token by its id.
    #[must_use]
    pub fn token(&self, token: TokenId) -> Option<&Token> {
        self.tokens.values().find(|known| known.id == token)
    }

    /// A token by the hash of its secret; `None` for one that is not valid.
    #[must_use]
    pub fn token_by_hash(&self, hash: &TokenHash) -> Option<&Token> {
        self.tokens.get(hash)
    }

    /// Every token that is valid.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values()
    }

    /// Every lease, by epoch.
    pub fn leases(&self) -> impl ExactSizeIterator<Item = &Lease> {
        self.indexes.leases.values()
    }

    /// The lease with this epoch, if it has not ended.
    #[must_use]
    pub fn lease(&self, epoch: Epoch) -> Option<&Lease> {
        self.indexes.leases.get(&epoch)
    }

    /// The leases of one worker, by epoch, also of parts of gangs that have ended there while others go on.
    pub fn leases_on(&self, worker: WorkerId) -> impl Iterator<Item = &Lease> {
        let epochs = self
            .indexes
            .on_worker
            .range((worker, Epoch(0))..=(worker, Epoch(u64::MAX)));
        epochs.filter_map(|(_, epoch)| self.indexes.leases.get(epoch))
    }

    /// The attempts that hold a lease on one worker, by epoch, each with its job.
    pub fn live_attempts_on(&self, worker: WorkerId) -> impl Iterator<Item = (&Job, &Attempt)> {
        self.leases_on(worker).filter_map(|lease| {
            let job = self.open_job(lease.job)?;
            Some((job, job.live_attempt()?))
        })
    }

    /// The attempt with this epoch, if it holds a lease, with its job.
    #[must_use]
    pub fn live_attempt(&self, epoch: Epoch) -> Option<(&Job, &Attempt)> {
        let job = self.open_job(self.lease(epoch)?.job)?;
        Some((job, job.live_attempt()?))
    }

    /// Whether an attempt that holds a lease has a part on a worker.
    #[must_use]
    pub fn is_on(&self, epoch: Epoch, worker: WorkerId) -> bool {
        self.indexes.on_worker.contains(&(worker, epoch))
    }

    /// The attempt that uses a GPU.
    #[must_use]
    pub fn user_of(&self, worker: WorkerId, gpu: u8) -> Option<Epoch> {
        self.indexes.busy.get(&(worker, gpu)).copied()
    }

    /// Whether this request was taken within the last day: asked again, it is answered as before.
    #[must_use]
    pub fn remembers(&self, request: RequestId) -> bool {
        self.requests.remembers(request, self.now_ms)
    }

    /// Whether an attempt on the worker keeps others with this key away.
    #[must_use]
    pub fn holds_key(&self, worker: WorkerId, key: &Label) -> bool {
        // Few jobs have a key at all, so most looks end here.
        !self.indexes.keys.is_empty() && self.indexes.keys.contains(&(worker, key.clone()))
    }

    /// Waiting jobs whose credentials the leader is believed to hold, with the files that they came with.
    pub fn held_credentials(&self) -> impl Iterator<Item = (JobId, StagingId)> {
        let held = self.indexes.credentials.iter();
        held.filter_map(|id| Some((*id, self.open_job(*id)?.spec.staging)))
    }

    /// Waiting jobs for whom GPUs were taken back.
    pub(crate) fn promised(&self) -> impl Iterator<Item = &Job> {
        let promised = self.indexes.promised.iter();
        promised.filter_map(|id| self.open_job(*id))
    }

    /// Whether a job that is not over has its files there.
    #[must_use]
    pub fn needs_staging(&self, staging: &StagingId) -> bool {
        self.indexes.staged.contains_key(staging)
    }
}
