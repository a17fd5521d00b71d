//! One committed entry: time moves on, a repeated request gets its first reply, anything else is handed to its rule.

use super::State;
use super::requests::Fingerprint;
use crate::accounts::Actor;
use crate::codec;
use crate::command::{Command, Envelope};
use crate::effect::Effect;
use crate::ids::JobId;
use crate::model::limits::{Bounds, EVENTS_MAX};
use crate::model::{EventKind, Job, JobEvent};
use crate::rejection::Rejection;
use crate::reply::Reply;

/// What came of one entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// What the caller is told.
    pub reply: Result<Reply, Rejection>,
    /// What is to be done outside, in order. Empty when the command was refused or repeated.
    pub effects: Vec<Effect>,
}

/// What the rules of one entry share: when and where it stands, and what is to be done.
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) now_ms: u64,
    /// The format of the log there, which says by which rules.
    pub(super) format: u16,
    /// In whose name it is done.
    pub(super) actor: Option<Actor>,
    pub(super) effects: Vec<Effect>,
}

impl State {
    /// Applies the entry at `index`. Entries come once each, in the order of the log.
    pub fn apply(&mut self, index: u64, envelope: &Envelope) -> Applied {
        if index <= self.applied_index {
            return refused(Rejection::OutOfOrder);
        }
        self.applied_index = index;
        self.now_ms = self.now_ms.max(envelope.stamp_ms);
        if envelope.command.needs() > self.format.max(codec::FIRST) {
            return refused(Rejection::NotYet);
        }
        let request = envelope
            .request_id
            .map(|id| (id, Fingerprint::of(&envelope.command)));
        if let Some((id, print)) = request {
            if let Some(reply) = self.requests.recall(id, print, self.now_ms) {
                return Applied {
                    reply,
                    effects: Vec::new(),
                };
            }
            if !self
                .requests
                .make_room(Bounds::of(self.format).requests, self.now_ms)
            {
                return refused(Rejection::Busy);
            }
        }
        let mut entry = Entry {
            index,
            now_ms: self.now_ms,
            format: self.format,
            actor: envelope.actor,
            effects: Vec::new(),
        };
        let reply = self.handle(&mut entry, &envelope.command);
        if let (Some(actor), Ok(reply)) = (entry.actor, &reply) {
            self.write_down(&entry, actor, &envelope.command, reply);
        }
        if let (Some((id, print)), Ok(reply)) = (request, &reply) {
            self.requests.remember(id, print, reply, self.now_ms);
        }
        Applied {
            reply,
            effects: entry.effects,
        }
    }

    /// What a submission would be refused for if it were applied next; nothing of any other command. The same request once
    /// more has its first answer, whatever is in its way by now.
    ///
    /// # Errors
    /// Why it would not be taken.
    pub fn would_take(&self, envelope: &Envelope) -> Result<(), Rejection> {
        if envelope.command.needs() > self.format.max(codec::FIRST) {
            return Err(Rejection::NotYet);
        }
        let entry = Entry {
            index: self.applied_index + 1,
            now_ms: self.now_ms.max(envelope.stamp_ms),
            format: self.format,
            actor: envelope.actor,
            effects: Vec::new(),
        };
        let known = envelope.request_id.and_then(|id| {
            let print = Fingerprint::of(&envelope.command);
            self.requests.recall(id, print, entry.now_ms)
        });
        if let Some(reply) = known {
            return reply.map(drop);
        }
        match &envelope.command {
            Command::SubmitJob { spec } => self.check_submit(&entry, spec),
            Command::SubmitArray {
                spec,
                tasks,
                parallel,
            } => self.check_submit_array(&entry, spec, tasks, *parallel),
            _ => Ok(()),
        }
    }

    fn handle(&mut self, entry: &mut Entry, command: &Command) -> Result<Reply, Rejection> {
        match command {
            Command::SubmitJob { spec } => self.submit(entry, spec),
            Command::CancelJob { job } => self.cancel(entry, *job),
            Command::CreateWorkerToken { name, hash } => self.create_token(entry, name, *hash),
            Command::RevokeWorkerToken { token } => self.revoke_token(entry, *token),
            Command::RegisterWorker {
                token_hash,
                instance,
                inventory,
            } => self.register(entry, token_hash, *instance, inventory),
            Command::DrainWorker {
                worker,
                stop_running,
            } => self.drain(entry, *worker, *stop_running),
            Command::ResumeWorker { worker } => self.resume(entry, *worker),
            Command::LoseWorker { worker, instance } => self.lose(entry, *worker, *instance),
            Command::Place { placements } => self.place(entry, placements),
            Command::StartAttempt { job, epoch } => self.start(entry, *job, *epoch),
            Command::Checkpoint { job, epoch, step } => self.checkpoint(entry, *job, *epoch, *step),
            Command::EndAttempt {
                job,
                epoch,
                outcome,
                step,
                detail,
            } => self.end(entry, (*job, *epoch), *outcome, *step, detail),
            Command::ExpireLeases { expired } => self.expire(entry, expired),
            Command::Sweep => Ok(self.sweep(entry)),
            Command::Barrier { version } => {
                self.format = self.format.max(*version);
                self.found_teams();
                Ok(Reply::Done)
            }
            Command::SetTeam { name, rules } => self.set_team(entry, name, *rules),
            Command::RemoveTeam { name } => self.remove_team(name),
            Command::SetTeamMembers { name, only } => self.set_team_members(name, only),
            Command::SetPrices { prices } => Ok(self.set_prices(entry, prices)),
            Command::ApproveJob { job, seq } => self.approve(entry, *job, *seq),
            Command::UpdateJob { job, spec, seq } => self.update(entry, *job, spec, *seq),
            Command::ReviseJob { job, spec, seq, .. } => self.update(entry, *job, spec, Some(*seq)),
            Command::SubmitArray {
                spec,
                tasks,
                parallel,
            } => self.submit_array(entry, spec, tasks, *parallel),
            Command::CancelArray { array } => self.cancel_array(entry, *array),
            Command::Preempt { preemptions } => self.preempt(entry, preemptions),
            Command::SetPolicy { policy } if !policy.is_sound() => Err(Rejection::InvalidPolicy),
            Command::SetPolicy { policy } => {
                self.policy = *policy;
                entry.effects.push(Effect::Plan);
                Ok(Reply::Done)
            }
            Command::Account { change } => {
                let actor = entry.actor.unwrap_or(Actor::OPERATOR);
                let is_used = self.last_job > 0;
                self.accounts.change(entry.now_ms, actor, change, is_used)
            }
            Command::GiveCredentials { job } => self.give_credentials(entry, *job),
            Command::MissCredentials { jobs } => self.miss_credentials(entry, jobs),
            Command::StartPart { job, epoch, worker } => {
                self.start_part(entry, (*job, *epoch), *worker)
            }
            Command::EndPart {
                job,
                epoch,
                worker,
                outcome,
                step,
                detail,
            } => self.end_part(entry, (*job, *epoch), *worker, *outcome, (*step, detail)),
            Command::ExpireParts { expired } => self.expire_parts(entry, expired),
            Command::GoOnFrom { job, epoch, step } => self.go_on_from(entry, *job, *epoch, *step),
            Command::NoteNodes {
                as_of,
                votes,
                secret,
            } => Ok(self.note_nodes(entry, *as_of, votes, *secret)),
            Command::RenewSecret { secret } => self.renew_secret(*secret),
        }
    }

    /// Changes a job that is not over and keeps the indexes true. The only way a job is changed.
    pub(super) fn change<T>(&mut self, id: JobId, change: impl FnOnce(&mut Job) -> T) -> Option<T> {
        let job = self.jobs.open_mut(id)?;
        self.indexes.remove(job);
        let changed = change(job);
        self.indexes.add(job);
        if job.ended_ms.is_some() {
            self.jobs.close(id);
        }
        Some(changed)
    }
}

impl Entry {
    /// Writes down what has happened to a job, and has its watchers told.
    pub(super) fn event(&mut self, job: &mut Job, kind: EventKind) {
        let event = JobEvent {
            seq: job.seq() + 1,
            stamp_ms: self.now_ms,
            kind,
        };
        if job.events.len() == EVENTS_MAX {
            job.events.pop_front();
        }
        job.events.push_back(event);
        self.effects.push(Effect::JobChanged { job: job.id, event });
    }
}

const fn refused(rejection: Rejection) -> Applied {
    Applied {
        reply: Err(rejection),
        effects: Vec::new(),
    }
}
