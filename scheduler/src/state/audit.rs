//! What was done in somebody's name is written down: the same rules as for anybody, and an entry if it was taken.

use super::State;
use super::apply::Entry;
use crate::accounts::{Action, Actor};
use crate::command::Command;
use crate::ids::{JobId, TokenId};
use crate::reply::Reply;

impl State {
    /// Writes down what was taken. Account changes do so themselves.
    pub(super) fn write_down(
        &mut self,
        entry: &Entry,
        actor: Actor,
        command: &Command,
        reply: &Reply,
    ) {
        if let Some((action, subject)) = named(command) {
            let subject = subject.unwrap_or_else(|| made(reply));
            let trail = &mut self.accounts.trail;
            trail.add(entry.now_ms, actor, action, subject);
        }
    }
}

/// What a command is called in the trail, and to what it is done, as far as that is known before.
fn named(command: &Command) -> Option<(Action, Option<String>)> {
    let job = |job: &JobId| Some(format!("jobs/{job}"));
    let worker = |worker: &crate::ids::WorkerId| Some(format!("workers/{worker}"));
    Some(match command {
        Command::SubmitJob { .. } | Command::SubmitArray { .. } => (Action::SubmitJob, None),
        Command::CancelJob { job: id } => (Action::CancelJob, job(id)),
        Command::CancelArray { array } => (Action::CancelJob, job(array)),
        Command::ApproveJob { job: id, .. }
        | Command::UpdateJob { job: id, .. }
        | Command::ReviseJob { job: id, .. }
        | Command::GiveCredentials { job: id } => (Action::ChangeJob, job(id)),
        Command::CreateWorkerToken { .. } => (Action::CreateWorkerToken, None),
        Command::RevokeWorkerToken { token } => (Action::RevokeWorkerToken, Some(of_token(*token))),
        Command::DrainWorker { worker: id, .. } => (Action::DrainWorker, worker(id)),
        Command::ResumeWorker { worker: id } => (Action::ResumeWorker, worker(id)),
        Command::SetTeam { name, .. }
        | Command::SetTeamMembers { name, .. }
        | Command::RemoveTeam { name } => (Action::ChangeRules, Some(format!("teams/{name}"))),
        Command::SetPolicy { .. } => (Action::ChangeRules, Some("policy".to_owned())),
        Command::RenewSecret { .. } => (Action::ChangeNodes, Some("secret".to_owned())),
        Command::RegisterWorker { .. }
        | Command::LoseWorker { .. }
        | Command::Place { .. }
        | Command::StartAttempt { .. }
        | Command::Checkpoint { .. }
        | Command::GoOnFrom { .. }
        | Command::EndAttempt { .. }
        | Command::ExpireLeases { .. }
        | Command::StartPart { .. }
        | Command::EndPart { .. }
        | Command::ExpireParts { .. }
        | Command::Sweep
        | Command::Barrier { .. }
        | Command::Preempt { .. }
        | Command::MissCredentials { .. }
        | Command::SetPrices { .. }
        | Command::NoteNodes { .. }
        | Command::Account { .. } => return None,
    })
}

/// What a command has made.
fn made(reply: &Reply) -> String {
    match reply {
        Reply::JobSubmitted { job } | Reply::ArraySubmitted { array: job, .. } => {
            format!("jobs/{job}")
        }
        Reply::TokenCreated { token } => of_token(*token),
        _ => String::new(),
    }
}

fn of_token(token: TokenId) -> String {
    format!("workerTokens/{token}")
}
