//! What waits and runs of people who were removed is cancelled, and nothing else, whoever leads by then.

use std::time::Duration;

use stepcast_cluster::Handle;
use stepcast_cluster::session::StopReason;
use stepcast_scheduler::accounts::{AccountChange, Role};
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::{JobState, Outcome, Owner};
use stepcast_scheduler::{Command, Reply};

use crate::support::{
    Worker, World, alone, alone_with, assignment, config, end, spec, start, stop, submit, until,
};

async fn change(node: &Handle, change: AccountChange) -> Reply {
    let command = Command::Account { change };
    node.propose(command, None).await.unwrap()
}

/// An organisation with two people.
async fn two_people(node: &Handle) -> [Owner; 2] {
    let name = "acme".parse().unwrap();
    let Reply::OrgCreated { org } = change(node, AccountChange::CreateOrg { name }).await else {
        panic!("no organisation");
    };
    let mut people = Vec::new();
    for name in ["ana", "ben"] {
        let made = AccountChange::CreateUser {
            org: Some(org),
            name: name.parse().unwrap(),
            role: Role::Member,
        };
        match change(node, made).await {
            Reply::UserCreated { user } => people.push(Owner { org, user }),
            other => panic!("{other:?}"),
        }
    }
    people.try_into().unwrap()
}

async fn submit_of(node: &Handle, owner: Owner, number: u64) -> JobId {
    let mut spec = spec(number);
    spec.terms.owner = Some(owner);
    let spec = Box::new(spec);
    match node.propose(Command::SubmitJob { spec }, None).await {
        Ok(Reply::JobSubmitted { job }) => job,
        other => panic!("{other:?}"),
    }
}

fn state(node: &Handle, job: JobId) -> JobState {
    node.read_stale(|state| state.job(job).unwrap().state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_somebody_who_is_removed_is_cancelled_and_nothing_else() {
    let (_dir, _world, node) = alone(World::still()).await;
    let [ana, ben] = two_people(&node).await;
    let runs = submit_of(&node, ana, 1).await;
    let worker = Worker::join(&node, 7).await;
    let mut session = worker.attach(&node);
    let running = assignment(&mut session).await;
    assert_eq!(running.job, runs);
    let waits = submit_of(&node, ana, 2).await;
    let others = [submit_of(&node, ben, 3).await, submit(&node, 4).await];
    change(&node, AccountChange::RemoveUser { user: ana.user }).await;
    let (epoch, why, _) = stop(&mut session).await;
    assert_eq!((epoch, why), (running.epoch, StopReason::Cancelled));
    until("the end of what waits", || {
        state(&node, waits) == JobState::Cancelled
    })
    .await;
    // One that was let in before its owner was removed, and comes into the log behind.
    let late = submit_of(&node, ana, 5).await;
    until("the end of what came late", || {
        state(&node, late) == JobState::Cancelled
    })
    .await;
    end(&mut session, &running, Outcome::Cancelled).await;
    assert_eq!(state(&node, runs), JobState::Cancelled);
    assert_eq!(assignment(&mut session).await.job, others[0]);
    assert_eq!(
        others.map(|job| state(&node, job)),
        [JobState::Running, JobState::Pending]
    );
    // With an organisation goes everybody in it.
    change(&node, AccountChange::RemoveOrg { org: ben.org }).await;
    stop(&mut session).await;
    assert_eq!(state(&node, others[0]), JobState::Cancelling);
    assert_eq!(state(&node, others[1]), JobState::Pending);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_has_not_cancelled_the_next_one_does() {
    // One that looks once, before anybody is there.
    let seldom = Duration::from_secs(24 * 3_600);
    let (dir, world, node) = alone_with(World::default(), |config| {
        config.lease_check_every = seldom;
    })
    .await;
    let [ana, ben] = two_people(&node).await;
    let job = submit_of(&node, ana, 1).await;
    let other = submit_of(&node, ben, 2).await;
    change(&node, AccountChange::RemoveUser { user: ana.user }).await;
    assert_eq!(state(&node, job), JobState::Pending);
    node.shutdown().await;
    let node = start(config(dir.path()), &world).await;
    until("the end of it", || state(&node, job) == JobState::Cancelled).await;
    assert_eq!(state(&node, other), JobState::Pending);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_go_with_who_submitted_their_job_once_it_is_over() {
    let (_dir, world, node) = alone_with(World::default(), |config| {
        config.sweep_every = Duration::from_millis(20);
    })
    .await;
    let [ana, ben] = two_people(&node).await;
    let jobs = [
        submit_of(&node, ana, 1).await,
        submit_of(&node, ben, 2).await,
        submit(&node, 3).await,
    ];
    world.lined.lock().extend(jobs);
    for job in jobs {
        let cancelled = node.propose(Command::CancelJob { job }, None).await;
        cancelled.unwrap();
    }
    change(&node, AccountChange::RemoveUser { user: ana.user }).await;
    until("the end of her lines", || {
        !world.lined.lock().contains(&jobs[0])
    })
    .await;
    assert!(jobs[1..].iter().all(|job| world.lined.lock().contains(job)));
    node.shutdown().await;
}
