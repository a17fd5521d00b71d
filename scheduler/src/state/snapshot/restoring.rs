//! A state that comes back chunk by chunk: nothing is believed that was not looked at.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use stepcast_records::UsdMicros;

use super::super::State;
use super::super::requests::Given;
use super::super::table::{Kept, decode, encode};
use super::{Error, Head, More, Section, accounts, damaged, known, version_of};
use crate::accounts::Accounts;
use crate::codec;
use crate::ids::{OutputsId, RequestId, TeamId, TokenHash, WorkerId};
use crate::invariants;
use crate::model::{Label, Member, Nodes, Prices, Team, Token, Worker};
use crate::policy::Policy;

/// What has come so far.
#[derive(Debug, Default)]
pub struct Restoring {
    state: State,
    head: Option<Head>,
    teams: u64,
    /// Entries of the accounts that are promised, and that have come.
    accounts: (u64, u64),
    /// Addresses of workers that are promised, that have come, and the worker of the last.
    addresses: (u64, u64, Option<WorkerId>),
    /// Teams with members that are promised, that have come, and the last of them.
    members: (u64, u64, Option<TeamId>),
    /// Prices that are promised, and those that have come.
    prices: (u64, Prices),
    /// Folders for results that are promised, that have come, and the worker of the last.
    outputs: (u64, u64, Option<WorkerId>),
    /// Whether it is promised who the nodes are, and whether it was said: 1 or 0.
    nodes: (u64, u64),
    /// The section of the newest chunk.
    section: Option<Section>,
}

impl Restoring {
    /// Takes the next chunk.
    ///
    /// # Errors
    /// When a newer version is needed, or the chunk is not what comes next.
    pub fn take(&mut self, chunk: &[u8]) -> Result<(), Error> {
        let (number, body) = chunk
            .split_first()
            .ok_or_else(|| damaged("a chunk is empty"))?;
        let section = *Section::ALL
            .get(usize::from(*number))
            .ok_or_else(|| damaged(format!("there is no section {number}")))?;
        let in_order = match self.section {
            None => section == Section::Head,
            Some(before) => section >= before && section != Section::Head,
        };
        if !in_order {
            return Err(damaged("its sections are out of order"));
        }
        self.section = Some(section);
        if section == Section::Head {
            return self.head(body);
        }
        let mut rest = body;
        while !rest.is_empty() {
            rest = match section {
                Section::Head => unreachable!("a head is taken above"),
                Section::Tokens => self.token(rest)?,
                Section::Workers => self.worker(rest)?,
                Section::Jobs => self.job(rest)?,
                Section::Replies => self.reply(rest)?,
                Section::Teams => self.team(rest)?,
                Section::Accounts => self.account(rest)?,
                Section::Addresses => self.address(rest)?,
                Section::Members => self.members(rest)?,
                Section::Prices => self.price(rest)?,
                Section::Outputs => self.outputs(rest)?,
                Section::Nodes => self.nodes(rest)?,
            };
        }
        Ok(())
    }

    /// The state, once every chunk has come.
    ///
    /// # Errors
    /// When something is missing, or the parts contradict each other.
    pub fn finish(self) -> Result<State, Error> {
        let head = self.head.ok_or_else(|| damaged("it has no head"))?;
        let mut state = self.state;
        for (what, promised, came) in [
            ("tokens", head.tokens, state.tokens.len()),
            ("workers", head.workers, state.workers.len()),
            ("jobs", head.jobs, state.jobs.len()),
            ("replies", head.replies, state.requests.len()),
            ("teams", self.teams, state.teams.len()),
        ] {
            if promised != came as u64 {
                return Err(damaged(format!(
                    "it promises {promised} {what} and has {came}"
                )));
            }
        }
        let (accounts, addresses, members) = (self.accounts, self.addresses, self.members);
        for (what, promised, came) in [
            ("accounts", accounts.0, accounts.1),
            ("addresses", addresses.0, addresses.1),
            ("lists of members", members.0, members.1),
            ("prices", self.prices.0, self.prices.1.len() as u64),
            ("folders for results", self.outputs.0, self.outputs.1),
            ("lists of nodes", self.nodes.0, self.nodes.1),
        ] {
            if promised != came {
                return Err(damaged(format!(
                    "it promises {promised} {what} and has {came}"
                )));
            }
        }
        state.prices = Arc::new(self.prices.1);
        for worker in Arc::make_mut(&mut state.workers).values_mut() {
            worker.book = Arc::clone(&state.prices);
        }
        if let Err(broken) = state.accounts.trail().check() {
            return Err(damaged(broken));
        }
        match invariants::check_whole(&state).into_iter().next() {
            None => Ok(state),
            Some(violation) => Err(damaged(violation)),
        }
    }

    fn head(&mut self, body: &[u8]) -> Result<(), Error> {
        let (version, rest) = postcard::take_from_bytes(body).map_err(damaged)?;
        known(version)?;
        let (head, mut rest): (Head, _) = postcard::take_from_bytes(rest).map_err(damaged)?;
        if version != version_of(head.format) && version >= 3 {
            return Err(damaged(
                "it is written in another version than it should be",
            ));
        }
        let more: Option<More>;
        (more, rest) = if version >= 3 {
            let (more, rest) = postcard::take_from_bytes(rest).map_err(damaged)?;
            (Some(more), rest)
        } else {
            (None, rest)
        };
        if version >= 3 && !rest.is_empty() {
            (self.addresses.0, rest) = postcard::take_from_bytes(rest).map_err(damaged)?;
            let mut last = self.addresses.0;
            for behind in [
                &mut self.members.0,
                &mut self.prices.0,
                &mut self.outputs.0,
                &mut self.nodes.0,
            ] {
                if !rest.is_empty() {
                    (last, rest) = postcard::take_from_bytes(rest).map_err(damaged)?;
                    *behind = last;
                }
            }
            if last == 0 {
                return Err(damaged(
                    "it says that there is more behind its head, and there is none",
                ));
            }
        }
        if !rest.is_empty() {
            return Err(damaged("its head is too long"));
        }
        if more.as_ref().is_some_and(|more| !more.policy.is_sound()) {
            return Err(damaged("its policy is out of bounds"));
        }
        if head.format > codec::VERSION {
            return Err(Error::UpgradeRequired { found: head.format });
        }
        self.state = State {
            applied_index: head.applied_index,
            now_ms: head.now_ms,
            format: head.format,
            last_job: head.last_job,
            last_worker: head.last_worker,
            last_token: head.last_token,
            last_team: more.as_ref().map_or(0, |more| more.last_team),
            accounts: more
                .as_ref()
                .map_or_else(Accounts::default, |more| more.accounts.begin()),
            policy: more
                .as_ref()
                .map_or_else(Policy::default, |more| more.policy),
            ..State::default()
        };
        self.accounts.0 = more.as_ref().map_or(0, |more| more.accounts.entries);
        self.teams = more.map_or(0, |more| more.teams);
        self.head = Some(head);
        Ok(())
    }

    fn token<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let ((hash, token), rest): ((TokenHash, Token), _) = read(bytes)?;
        let tokens = Arc::make_mut(&mut self.state.tokens);
        in_order(tokens.last_key_value().is_none_or(|(last, _)| *last < hash))?;
        tokens.insert(hash, token);
        Ok(rest)
    }

    fn team<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let (team, rest): (Team, _) = read(bytes)?;
        let teams = Arc::make_mut(&mut self.state.teams);
        in_order(
            teams
                .last_key_value()
                .is_none_or(|(last, _)| *last < team.id),
        )?;
        teams.insert(team.id, team);
        Ok(rest)
    }

    fn account<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let (kept, rest): (accounts::Kept, _) = read(bytes)?;
        accounts::take(&mut self.state.accounts, kept)?;
        self.accounts.1 += 1;
        Ok(rest)
    }

    fn address<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let ((id, address), rest): ((WorkerId, Label), _) = read(bytes)?;
        let (_, came, last) = &mut self.addresses;
        in_order(last.is_none_or(|last| last < id))?;
        (*came, *last) = (*came + 1, Some(id));
        let worker = Arc::make_mut(&mut self.state.workers).get_mut(&id);
        let worker = worker.ok_or_else(|| damaged("an address is of no worker"))?;
        worker.inventory.address = Some(address);
        Ok(rest)
    }

    fn members<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let ((id, only), rest): ((TeamId, BTreeSet<Member>), _) = read(bytes)?;
        let (_, came, last) = &mut self.members;
        in_order(last.is_none_or(|last| last < id))?;
        (*came, *last) = (*came + 1, Some(id));
        let team = Arc::make_mut(&mut self.state.teams).get_mut(&id);
        let team = team.ok_or_else(|| damaged("a list of members is of no team"))?;
        if only.is_empty() {
            return Err(damaged("a list of members is empty"));
        }
        team.only = only;
        Ok(rest)
    }

    fn price<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let ((number, price), rest): ((u8, UsdMicros), _) = read(bytes)?;
        in_order(self.prices.1.push(number, price))?;
        Ok(rest)
    }

    fn outputs<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let ((id, outputs), rest): ((WorkerId, OutputsId), _) = read(bytes)?;
        let (_, came, last) = &mut self.outputs;
        in_order(last.is_none_or(|last| last < id))?;
        (*came, *last) = (*came + 1, Some(id));
        let worker = Arc::make_mut(&mut self.state.workers).get_mut(&id);
        let worker = worker.ok_or_else(|| damaged("a folder for results is of no worker"))?;
        worker.inventory.outputs = Some(outputs);
        Ok(rest)
    }

    fn nodes<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let (nodes, rest): (Nodes, _) = read(bytes)?;
        self.nodes.1 += 1;
        if self.nodes.1 > 1 || !nodes.is_sound() {
            return Err(damaged("its list of nodes is not one that there can be"));
        }
        self.state.nodes = Arc::new(nodes);
        Ok(rest)
    }

    fn worker<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let (worker, rest): (Worker, _) = read(bytes)?;
        let workers = Arc::make_mut(&mut self.state.workers);
        in_order(
            workers
                .last_key_value()
                .is_none_or(|(last, _)| *last < worker.id),
        )?;
        workers.insert(worker.id, worker);
        Ok(rest)
    }

    fn job<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let (bytes, rest): (&[u8], _) = read(bytes)?;
        let job = decode(bytes).ok_or_else(|| damaged("a job cannot be read"))?;
        // The bytes are kept as they are, and must be those that every other node would make.
        if encode(&job) != bytes {
            return Err(damaged("a job is not written as it should be"));
        }
        let last = self.state.jobs.iter().next_back();
        in_order(last.is_none_or(|(last, _)| last < job.id))?;
        if let Some(violation) = invariants::check_job(&self.state, &job) {
            return Err(damaged(violation));
        }
        self.state.indexes.add(&job);
        let (id, state) = (job.id, job.state);
        let kept = if job.ended_ms.is_some() {
            Kept::Over {
                state,
                bytes: bytes.into(),
            }
        } else {
            Kept::of(job)
        };
        self.state.jobs.insert_kept(id, kept);
        Ok(rest)
    }

    fn reply<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        type Entry = ((u64, RequestId), Given);
        let (((stamp_ms, id), given), rest): (Entry, _) = read(bytes)?;
        let requests = &mut self.state.requests;
        let last = requests.replies().last();
        in_order(last.is_none_or(|(last, _)| last < (stamp_ms, id)))?;
        requests.insert(stamp_ms, id, given);
        Ok(rest)
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Error> {
    postcard::take_from_bytes(bytes).map_err(damaged)
}

fn in_order(is: bool) -> Result<(), Error> {
    is.then_some(())
        .ok_or_else(|| damaged("its entries are out of order"))
}
