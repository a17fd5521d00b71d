//! What the checks see of the state: after every entry the jobs it touched, and now and then the whole of it.

use std::collections::BTreeSet;

use stepcast_scheduler::ids::{Epoch, JobId, StagingId, WorkerId};
use stepcast_scheduler::model::PartState;
use stepcast_scheduler::{Command, State, codec, invariants};

use crate::checks::Check;
use crate::world::World;

/// This node is the first to have applied this entry.
pub(crate) fn entry(world: &World, id: u64, index: u64, data: &[u8]) {
    world.checks.mix(index);
    let Some(bare) = world.nodes.get(&id).and_then(|machine| machine.bare()) else {
        return;
    };
    let Ok(envelope) = codec::decode(data) else {
        return;
    };
    world.checks.note("entry", || {
        format!("{index} on {id}: {:?}", envelope.command)
    });
    if let Command::Preempt { preemptions } = &envelope.command {
        preemptions
            .iter()
            .for_each(|_| world.checks.count("attempts asked to make room"));
    }
    let mut trainers = world.checks.trainers.lock();
    bare.read_at(|state, _, _| {
        for job in touched(state, &envelope.command) {
            if let Some(job) = state.job(job) {
                let found = trainers.follow(&job);
                world.checks.judge(found);
            }
        }
        let expires = matches!(envelope.command, Command::ExpireParts { .. });
        for (job, epoch, worker) in parts_ended(&envelope.command) {
            if let Some(host) = ended_on(state, epoch, worker) {
                let found = trainers.part_ended(job, epoch, host, expires);
                world.checks.judge(found);
            }
        }
    });
}

/// The parts of gangs that a command ends, if it is taken.
fn parts_ended(command: &Command) -> Vec<(JobId, Epoch, WorkerId)> {
    match command {
        Command::EndPart {
            job, epoch, worker, ..
        } => vec![(*job, *epoch, *worker)],
        Command::ExpireParts { expired } => expired.clone(),
        _ => Vec::new(),
    }
}

/// The host of a part that has ended, where its gang goes on: what has ended as a whole is an event of the job.
fn ended_on(state: &State, epoch: Epoch, worker: WorkerId) -> Option<u64> {
    let (_, attempt) = state.live_attempt(epoch)?;
    let mut parts = attempt.parts();
    parts.find(|part| part.worker == worker && part.state == PartState::Ended)?;
    let name = state.worker(worker)?.name.to_string();
    name.strip_prefix("host-")?.parse().ok()
}

fn touched(state: &State, command: &Command) -> Vec<JobId> {
    match command {
        Command::CancelJob { job }
        | Command::StartAttempt { job, .. }
        | Command::Checkpoint { job, .. }
        | Command::GoOnFrom { job, .. }
        | Command::EndAttempt { job, .. }
        | Command::StartPart { job, .. }
        | Command::EndPart { job, .. }
        | Command::ApproveJob { job, .. }
        | Command::UpdateJob { job, .. }
        | Command::ReviseJob { job, .. }
        | Command::GiveCredentials { job } => vec![*job],
        Command::MissCredentials { jobs } => jobs.clone(),
        Command::Preempt { preemptions } => preemptions.iter().map(|what| what.job).collect(),
        Command::Place { placements } => placements.iter().map(|place| place.job).collect(),
        Command::ExpireLeases { expired } => expired.iter().map(|(job, _)| *job).collect(),
        Command::ExpireParts { expired } => expired.iter().map(|(job, ..)| *job).collect(),
        Command::SubmitJob { .. } => state
            .jobs()
            .next_back()
            .map(|job| job.id)
            .into_iter()
            .collect(),
        Command::Sweep
        | Command::DrainWorker { .. }
        | Command::SubmitArray { .. }
        | Command::CancelArray { .. } => state.jobs().map(|job| job.id).collect(),
        Command::CreateWorkerToken { .. }
        | Command::RevokeWorkerToken { .. }
        | Command::RegisterWorker { .. }
        | Command::ResumeWorker { .. }
        | Command::LoseWorker { .. }
        | Command::SetTeam { .. }
        | Command::RemoveTeam { .. }
        | Command::SetTeamMembers { .. }
        | Command::SetPolicy { .. }
        | Command::SetPrices { .. }
        | Command::NoteNodes { .. }
        | Command::RenewSecret { .. }
        | Command::Account { .. }
        | Command::Barrier { .. } => Vec::new(),
    }
}

/// The whole state of a node after this entry.
pub(crate) fn state(world: &World, id: u64, index: u64) {
    let Some(bare) = world.nodes.get(&id).and_then(|machine| machine.bare()) else {
        return;
    };
    bare.read_at(|state, members, _| {
        let snapshot = state.snapshot();
        let found = world
            .checks
            .logs
            .lock()
            .state(id, index, &snapshot, members);
        world.checks.judge(found);
        sound(world, id, state);
        let nodes = state.nodes();
        // What was told since knows it no more, and came with a new secret.
        let is_told = nodes.generation().is_some() && !nodes.votes().contains_key(&id);
        if is_told && members.removed(id) {
            let detail = format!("node {id} was removed and has what nodes know since");
            world.checks.fail(Check::Invariants, detail);
        }
    });
}

/// What must hold of every state.
pub(crate) fn sound(world: &World, id: u64, state: &State) {
    for violation in invariants::check(state) {
        world
            .checks
            .fail(Check::Invariants, format!("node {id}: {violation}"));
    }
    let mut files: BTreeSet<StagingId> = BTreeSet::new();
    for job in state.jobs() {
        if !files.insert(job.spec.staging) {
            let detail = format!("node {id} has two jobs of one request; one is {}", job.id);
            world.checks.fail(Check::OneRequestOneJob, detail);
        }
    }
}
