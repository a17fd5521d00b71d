//! A state as of one moment, taken quickly and written down at leisure while the state goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::super::State;
use super::super::requests::Replies;
use super::super::table::{Jobs, Kept, encode};
use super::{Head, More, Section, accounts, version_of};
use crate::accounts::Accounts;
use crate::ids::{OutputsId, TeamId, TokenHash, WorkerId};
use crate::model::{Label, Member, Nodes, Prices, Team, Token, Worker};

/// A chunk is full with so many bytes. The largest entry, a job with as many attempts, events and words as it may have,
/// is far smaller than the rest of [`CHUNK_BYTES_MAX`](super::CHUNK_BYTES_MAX).
const CHUNK_BYTES: usize = 512 << 10;

/// What a snapshot is made of. Shares with the state what has not changed since.
#[derive(Debug, Clone)]
pub struct View {
    head: Head,
    tokens: Arc<BTreeMap<TokenHash, Token>>,
    workers: Arc<BTreeMap<WorkerId, Worker>>,
    jobs: Jobs,
    replies: Replies,
    more: More,
    teams: Arc<BTreeMap<TeamId, Team>>,
    accounts: Accounts,
    prices: Arc<Prices>,
    nodes: Arc<Nodes>,
}

impl State {
    /// The state as it is now, to be written down while it goes on. Takes a few milliseconds at a million jobs.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            head: Head {
                applied_index: self.applied_index,
                now_ms: self.now_ms,
                format: self.format,
                last_job: self.last_job,
                last_worker: self.last_worker,
                last_token: self.last_token,
                tokens: self.tokens.len() as u64,
                workers: self.workers.len() as u64,
                jobs: self.jobs.len() as u64,
                replies: self.requests.len() as u64,
            },
            tokens: Arc::clone(&self.tokens),
            workers: Arc::clone(&self.workers),
            jobs: self.jobs.clone(),
            replies: self.requests.replies().clone(),
            more: More {
                policy: self.policy,
                last_team: self.last_team,
                teams: self.teams.len() as u64,
                accounts: accounts::Head::of(&self.accounts),
            },
            teams: Arc::clone(&self.teams),
            accounts: self.accounts.clone(),
            prices: Arc::clone(&self.prices),
            nodes: Arc::clone(&self.nodes),
        }
    }
}

impl View {
    /// The newest entry that is in it.
    #[must_use]
    pub const fn applied_index(&self) -> u64 {
        self.head.applied_index
    }

    /// The format of the log that a reader must know.
    #[must_use]
    pub const fn format(&self) -> u16 {
        self.head.format
    }

    /// All of it in pieces of at most [`CHUNK_BYTES_MAX`](super::CHUNK_BYTES_MAX), one after the other.
    /// [`Restoring`](super::Restoring) takes them in the same order.
    pub fn chunks(&self) -> impl Iterator<Item = Vec<u8>> {
        let head = std::iter::once(self.head);
        let head = Packed::new(Section::Head, head, |head: Head, chunk: &mut _| {
            let version = version_of(head.format);
            put(&(version, head), chunk);
            if version >= 3 {
                put(&self.more, chunk);
                let counts = [
                    self.addresses().count() as u64,
                    self.members().count() as u64,
                    self.prices.len() as u64,
                    self.outputs().count() as u64,
                    self.nodes().count() as u64,
                ];
                let said = counts.iter().rposition(|count| *count > 0);
                let said = counts.iter().take(said.map_or(0, |last| last + 1));
                said.for_each(|count| put(count, chunk));
            }
        });
        let tokens = Packed::new(
            Section::Tokens,
            self.tokens.iter(),
            |token, chunk: &mut _| {
                put(&token, chunk);
            },
        );
        let workers = self.workers.values();
        let workers = Packed::new(Section::Workers, workers, |worker, chunk: &mut _| {
            put(worker, chunk);
        });
        let jobs = self.jobs.iter().map(|(_, kept)| kept);
        let jobs = Packed::new(
            Section::Jobs,
            jobs,
            |kept: &Kept, chunk: &mut _| match kept {
                Kept::Open(job) => put_bytes(&encode(job), chunk),
                Kept::Over { bytes, .. } => put_bytes(bytes, chunk),
            },
        );
        let replies = self.replies.iter();
        let replies = Packed::new(Section::Replies, replies, |reply, chunk: &mut _| {
            put(&reply, chunk);
        });
        let teams = Packed::new(
            Section::Teams,
            self.teams.values(),
            |team, chunk: &mut _| {
                put(team, chunk);
            },
        );
        let accounts = accounts::kept(&self.accounts);
        let accounts = Packed::new(Section::Accounts, accounts, |kept, chunk: &mut _| {
            put(&kept, chunk);
        });
        let addresses = Packed::new(
            Section::Addresses,
            self.addresses(),
            |address, chunk: &mut _| {
                put(&address, chunk);
            },
        );
        let members = Packed::new(
            Section::Members,
            self.members(),
            |members, chunk: &mut _| {
                put(&members, chunk);
            },
        );
        let prices = self.prices.by_number();
        let prices = Packed::new(Section::Prices, prices, |price, chunk: &mut _| {
            put(&price, chunk);
        });
        let outputs = Packed::new(
            Section::Outputs,
            self.outputs(),
            |outputs, chunk: &mut _| {
                put(&outputs, chunk);
            },
        );
        let nodes = Packed::new(Section::Nodes, self.nodes(), |nodes, chunk: &mut _| {
            put(nodes, chunk);
        });
        head.chain(tokens)
            .chain(workers)
            .chain(jobs)
            .chain(replies)
            .chain(teams)
            .chain(accounts)
            .chain(addresses)
            .chain(members)
            .chain(prices)
            .chain(outputs)
            .chain(nodes)
    }

    /// The nodes, where it was said who they are.
    fn nodes(&self) -> impl Iterator<Item = &Nodes> {
        let nodes = Some(&*self.nodes);
        nodes
            .filter(|nodes| nodes.generation().is_some())
            .into_iter()
    }

    /// The teams that are not for everybody, with whom they are for.
    fn members(&self) -> impl Iterator<Item = (TeamId, &BTreeSet<Member>)> {
        let closed = self.teams.values().filter(|team| !team.only.is_empty());
        closed.map(|team| (team.id, &team.only))
    }

    /// The workers that have an address. None has one before format 3.
    fn addresses(&self) -> impl Iterator<Item = (WorkerId, &Label)> {
        let workers = self.workers.values();
        workers.filter_map(|worker| Some((worker.id, worker.inventory.address.as_ref()?)))
    }

    /// The workers that say which folder they put results into. None does before format 3.
    fn outputs(&self) -> impl Iterator<Item = (WorkerId, OutputsId)> {
        let workers = self.workers.values();
        workers.filter_map(|worker| Some((worker.id, worker.inventory.outputs?)))
    }
}

/// Adds something to a chunk.
fn put<T: Serialize + ?Sized>(value: &T, chunk: &mut Vec<u8>) {
    match postcard::to_extend(value, std::mem::take(chunk)) {
        Ok(longer) => *chunk = longer,
        // Memory grows as needed and every length is known beforehand, so there is nothing left that could fail.
        Err(error) => unreachable!("a state is always encodable: {error}"),
    }
}

/// Adds bytes to a chunk, as many as it says before them.
fn put_bytes(bytes: &[u8], chunk: &mut Vec<u8>) {
    put(&bytes.len(), chunk);
    chunk.extend_from_slice(bytes);
}

/// Packs the entries of one section into chunks.
struct Packed<I, F> {
    section: Section,
    entries: I,
    put: F,
}

impl<I, F> Packed<I, F> {
    const fn new(section: Section, entries: I, put: F) -> Self {
        Self {
            section,
            entries,
            put,
        }
    }
}

impl<I: Iterator, F: Fn(I::Item, &mut Vec<u8>)> Iterator for Packed<I, F> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let first = self.entries.next()?;
        let mut chunk = vec![self.section as u8];
        (self.put)(first, &mut chunk);
        while chunk.len() < CHUNK_BYTES
            && let Some(entry) = self.entries.next()
        {
            (self.put)(entry, &mut chunk);
        }
        Some(chunk)
    }
}
