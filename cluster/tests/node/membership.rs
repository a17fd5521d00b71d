//! A cluster grows and shrinks while it works: no job is lost or doubled, and who is gone says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stepcast_cluster::consensus::ChangeError;
use stepcast_cluster::{Handle, Health, ProposeError};
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::{Command, Reply, RequestId};

use crate::net::Cluster;
use crate::support::{spec, until, wide, within};

/// Submits jobs one after the other to whoever leads, each until it is answered.
struct Load {
    over: Arc<AtomicBool>,
    running: tokio::task::JoinHandle<Vec<JobId>>,
}

impl Load {
    /// Begins on these nodes; `first` is the number of the first job.
    fn begin(nodes: Vec<Handle>, first: u64) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let running = tokio::spawn(async move {
            let mut jobs = Vec::new();
            while !ends.load(Ordering::Acquire) {
                jobs.push(answered(&nodes, first + jobs.len() as u64).await);
            }
            jobs
        });
        Self { over, running }
    }

    async fn end(self) -> Vec<JobId> {
        self.over.store(true, Ordering::Release);
        within(self.running).await.unwrap()
    }
}

/// Submits one job, again and again under the same request id, until some node has an answer.
async fn answered(nodes: &[Handle], number: u64) -> JobId {
    for node in nodes.iter().cycle() {
        let command = Command::SubmitJob {
            spec: Box::new(spec(number)),
        };
        match node.propose(command, Some(RequestId(wide(number)))).await {
            Ok(Reply::JobSubmitted { job }) => return job,
            Ok(other) => panic!("{other:?}"),
            Err(ProposeError::Rejected(why)) => panic!("{why}"),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    }
    unreachable!("the round of nodes has no end")
}

fn all_jobs(node: &Handle) -> Vec<JobId> {
    node.read_stale(|state| state.jobs().map(|job| job.id).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_from_one_to_five_under_load_and_loses_nothing() {
    let mut cluster = Cluster::of(1).await;
    let load = Load::begin(vec![cluster.node(1).clone()], 0);
    for size in [3, 5] {
        while cluster.nodes().count() < size {
            cluster.join().await;
        }
        cluster.voting((1..=size as u64).collect()).await;
    }
    let jobs = load.end().await;
    assert!(!jobs.is_empty());
    cluster.level().await;
    for node in cluster.nodes() {
        assert_eq!(all_jobs(node), jobs, "each once, in order");
        let status = node.status();
        assert_eq!(
            status.members.nodes.len(),
            5,
            "everybody's address is known"
        );
        assert_eq!(
            node.member(1).unwrap().client_address,
            "https://host-1:7070"
        );
    }
    // Two of five may go.
    let leader = cluster.leader().await.status().node_id;
    let other = if leader == 1 { 2 } else { 1 };
    cluster.kill(leader).await;
    cluster.kill(other).await;
    let left: Vec<Handle> = cluster.nodes().cloned().collect();
    answered(&left, jobs.len() as u64).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_again_gives_the_same_id_and_what_does_not_fit_is_refused() {
    let mut cluster = Cluster::of(1).await;
    let id = cluster.join().await;
    cluster.voting(vec![1, id]).await;
    let admission = cluster.admission(1);
    let again = admission.admit(crate::net::applicant(id)).await.unwrap();
    assert_eq!(again.node_id, id);
    let elsewhere = stepcast_cluster::peers::Applicant {
        staging: "/tmp/mine".to_owned(),
        ..crate::net::applicant(7)
    };
    let refused = admission.admit(elsewhere).await.unwrap_err().to_string();
    assert!(refused.contains("--staging s3://files"), "{refused}");
    // Everybody reads the newest format, so that the log is soon written in it.
    until("the newest format", || {
        cluster.node(1).status().log_format == stepcast_scheduler::codec::VERSION
    })
    .await;
    let old = stepcast_cluster::peers::Applicant {
        log_format: u32::from(stepcast_scheduler::codec::VERSION) - 1,
        ..crate::net::applicant(7)
    };
    let refused = admission.admit(old).await.unwrap_err().to_string();
    assert!(refused.contains("upgrade it first"), "{refused}");
    assert_eq!(cluster.node(1).members().last_id, id, "nobody was let in");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_says_so_and_the_others_go_on() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await.clone();
    let me = leader.status().node_id;
    let gone = if me == 2 { 3 } else { 2 };
    assert_eq!(leader.remove_node(9).await, Err(ChangeError::Unknown(9)));
    let left = within(leader.remove_node(gone)).await.unwrap();
    assert!(left.removed(gone) && left.nodes.len() == 2);
    // Who has not heard of that asks again.
    assert_eq!(within(leader.remove_node(gone)).await, Ok(left));
    let ended = within(cluster.node(gone).ended()).await;
    assert!(ended.why.contains("was removed from the cluster"));
    assert!(!ended.again, "it is of no use any more");
    crate::support::submit(&leader, 1).await;
    // It says so after a restart as well, and a leader goes after it has handed over.
    cluster.stop(gone).await;
    cluster.start(gone);
    assert_eq!(within(cluster.node(gone).ended()).await, ended);
    assert_eq!(
        cluster.node(gone).status().health,
        Health::Stopped(ended.why)
    );
    cluster.stop(gone).await;
    let Err(ChangeError::NotLeader { leader: Some(next) }) = within(leader.remove_node(me)).await
    else {
        panic!("a leader does not remove itself");
    };
    let next = cluster.node(next).clone();
    until("the new leader's duties", || next.status().leading).await;
    let left = within(next.remove_node(me)).await.unwrap();
    assert_eq!(left.voters.len(), 1);
    crate::support::submit(&next, 2).await;
    // The id is not given again.
    assert_eq!(cluster.join().await, 4);
    cluster.shutdown().await;
}

/// One of three is away: the cluster can do without it, and not without another one as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_which_nothing_could_be_written_is_not_removed() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await.clone();
    let me = leader.status().node_id;
    let gone = if me == 2 { 3 } else { 2 };
    let other = 6 - me - gone;
    cluster.kill(gone).await;
    until("its absence", || {
        let followers = leader.status().followers;
        followers.iter().any(|node| node.id == gone && !node.active)
    })
    .await;
    assert_eq!(
        within(leader.remove_node(other)).await,
        Err(ChangeError::TooFewHere(other))
    );
    crate::support::submit(&leader, 1).await;
    let left = within(leader.remove_node(gone)).await.unwrap();
    assert_eq!(left.voters.len(), 2);
    crate::support::submit(&leader, 2).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_left_half_done_is_ended_by_the_next_leader() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await.clone();
    let me = leader.status().node_id;
    let gone = if me == 2 { 3 } else { 2 };
    // The node to be removed does not answer, so that the second step takes a while; the leader goes meanwhile.
    cluster.net.isolate(gone);
    let removing = tokio::spawn({
        let leader = leader.clone();
        async move { leader.remove_node(gone).await }
    });
    let other = 6 - me - gone;
    until("the first step", || {
        cluster.node(other).members().leaving.contains(&gone)
    })
    .await;
    assert_eq!(
        within(leader.transfer_leadership(Some(other))).await,
        Ok(other)
    );
    let _ = within(removing).await.unwrap();
    until("the second step", || {
        cluster.node(other).members().removed(gone)
    })
    .await;
    cluster.net.heal();
    until("the removed node's word", || {
        matches!(cluster.node(gone).status().health, Health::Stopped(_))
    })
    .await;
    cluster.shutdown().await;
}
