//! Nodes over real ports: TLS, join tokens, snapshots as files on the wire, and everything again after a restart.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stepcast_cluster::peers::{JoinConfig, JoinError, JoinToken, join};
use stepcast_cluster::{Config, Handle, Health, Network, Node, PeerPort, Places};
use stepcast_scheduler::codec;

use crate::support::{World, config, submit, until, within};

struct Cluster {
    dir: tempfile::TempDir,
    world: Arc<World>,
    tune: fn(&mut Config),
    nodes: BTreeMap<u64, (Handle, SocketAddr)>,
    /// Where nodes that are started look for the others.
    seek_at: Vec<String>,
}

impl Cluster {
    /// As many nodes, all of which vote.
    async fn of(count: u64, tune: fn(&mut Config)) -> Self {
        let mut cluster = Self {
            dir: tempfile::tempdir().unwrap(),
            world: Arc::default(),
            tune,
            nodes: BTreeMap::new(),
            seek_at: Vec::new(),
        };
        cluster.start(1);
        assert!(within(cluster.node(1).leading()).await);
        for id in 2..=count {
            assert_eq!(cluster.join("s3://store").await.unwrap(), id);
        }
        until("everybody to vote", || {
            cluster.node(1).status().voters.len() as u64 == count
        })
        .await;
        cluster
    }

    fn data(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    /// Starts a node whose data directory is there, at an address of its choice.
    fn start(&mut self, id: u64) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.start_on(id, listener);
    }

    fn start_on(&mut self, id: u64, listener: TcpListener) {
        let address = listener.local_addr().unwrap();
        let mut config = Config {
            places: Some(Places {
                store: "s3://store".into(),
                staging: "s3://staging".into(),
            }),
            ..config(&self.data(id))
        };
        (self.tune)(&mut config);
        let port = PeerPort {
            listener,
            peer_address: address.to_string(),
            client_address: format!("http://node-{id}"),
            seek_at: self.seek_at.clone(),
        };
        let node = Node::start_in(config, self.world.ports(), Network::Port(port)).unwrap();
        self.nodes.insert(id, (node, address));
    }

    /// Lets the next node in, by a token of some node and by asking some node, and starts it.
    async fn join(&mut self, store: &str) -> Result<u64, JoinError> {
        let last = *self.nodes.keys().next_back().unwrap();
        let token = self.token(last).await;
        self.join_by(token, last, store).await
    }

    /// A token that a node makes, whether or not it still belongs to the cluster.
    async fn token(&self, node: u64) -> JoinToken {
        let made = within(self.node(node).join_token(Duration::from_secs(60))).await;
        made.unwrap().unwrap().token
    }

    /// Lets the next node in by this token and by asking this node, and starts it.
    async fn join_by(
        &mut self,
        token: JoinToken,
        through: u64,
        store: &str,
    ) -> Result<u64, JoinError> {
        let next = self.nodes.keys().max().unwrap() + 1;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_, at) = &self.nodes[&through];
        let joined = join(JoinConfig {
            servers: vec![at.to_string()],
            token,
            data_dir: self.data(next),
            peer_address: listener.local_addr().unwrap().to_string(),
            client_address: format!("http://node-{next}"),
            log_format: u32::from(codec::VERSION),
            store: store.into(),
            staging: "s3://staging".into(),
        });
        let id = within(joined).await?.node_id;
        self.start_on(id, listener);
        Ok(id)
    }

    fn node(&self, id: u64) -> &Handle {
        &self.nodes[&id].0
    }

    async fn stop(&mut self, id: u64) {
        let (node, _) = self.nodes.remove(&id).unwrap();
        within(node.shutdown()).await;
    }

    async fn leader(&self) -> Handle {
        let leads = || self.nodes.values().find(|(node, _)| node.leads());
        until("somebody to lead", || leads().is_some()).await;
        leads().unwrap().0.clone()
    }

    /// Waits until every node has so many jobs.
    async fn all_have(&self, jobs: usize) {
        for (node, _) in self.nodes.values() {
            until("everybody to have every job", || {
                node.read_stale(|state| state.jobs().count()) == jobs
            })
            .await;
        }
    }

    async fn stop_all(mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_nodes_elect_replicate_and_survive_over_tls() {
    let mut cluster = Cluster::of(3, |_| {}).await;
    let leader = cluster.leader().await;
    for number in 0..40 {
        submit(&leader, number).await;
    }
    cluster.all_have(40).await;
    // Every node answers for the whole cluster.
    for (node, _) in cluster.nodes.values() {
        let jobs = within(node.read(|state| state.jobs().count())).await;
        assert_eq!(jobs, Ok(40));
    }
    until("the peers to be seen", || {
        leader.peers().iter().filter(|seen| seen.reachable).count() == 2
    })
    .await;
    let gone = leader.status().node_id;
    drop(leader);
    cluster.stop(gone).await;
    let leader = cluster.leader().await;
    for number in 40..60 {
        submit(&leader, number).await;
    }
    cluster.all_have(60).await;
    // It is back at another address, which it says itself.
    cluster.start(gone);
    cluster.all_have(60).await;
    let address = cluster.nodes[&gone].1.to_string();
    until("the log to know where it is now", || {
        let member = leader.member(gone);
        member.is_some_and(|member| member.peer_address == address)
    })
    .await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_all_come_back_elsewhere_find_each_other_where_they_are_told_to_look() {
    let mut cluster = Cluster::of(3, |_| {}).await;
    let leader = cluster.leader().await;
    for number in 0..10 {
        submit(&leader, number).await;
    }
    cluster.all_have(10).await;
    drop(leader);
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    let listen = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = [1, 2, 3].map(listen);
    let places = listeners
        .iter()
        .map(|at| at.local_addr().unwrap().to_string());
    cluster.seek_at = places.collect();
    for (id, listener) in (1..).zip(listeners) {
        cluster.start_on(id, listener);
    }
    let leader = cluster.leader().await;
    submit(&leader, 10).await;
    cluster.all_have(11).await;
    // From here on the log knows, and they need not be told again.
    for (id, (_, address)) in &cluster.nodes {
        until("the log to know where everybody is now", || {
            let member = leader.member(*id);
            member.is_some_and(|member| member.peer_address == address.to_string())
        })
        .await;
    }
    drop(leader);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_the_log_does_not_reach_gets_a_snapshot_over_tls() {
    let forgetful = |config: &mut Config| {
        config.snapshot_entries = 20;
        config.log_tail_entries = 5;
    };
    let mut cluster = Cluster::of(1, forgetful).await;
    for number in 0..100 {
        submit(cluster.node(1), number).await;
    }
    until("a snapshot", || {
        cluster.node(1).status().snapshot_index > 60
    })
    .await;
    assert_eq!(cluster.join("s3://store").await.unwrap(), 2);
    cluster.all_have(100).await;
    assert!(
        cluster.node(2).status().snapshot_index > 60,
        "the log alone would not have reached it"
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_removed_node_is_told_so_and_a_node_with_another_store_is_not_let_in() {
    let mut cluster = Cluster::of(3, |_| {}).await;
    let error = cluster.join("file:///elsewhere").await.unwrap_err();
    assert!(error.to_string().contains("--store s3://store"), "{error}");
    let leader = cluster.leader().await;
    let gone = (1..=3).find(|id| *id != leader.status().node_id).unwrap();
    let left = within(leader.remove_node(gone)).await.unwrap();
    assert!(!left.contains(gone) && left.voters.len() == 2);
    let node = cluster.node(gone).clone();
    until("it to say so", || {
        matches!(node.status().health, Health::Stopped(_))
    })
    .await;
    // The same after a restart, when it may have missed that.
    cluster.stop(gone).await;
    cluster.start(gone);
    let node = cluster.node(gone).clone();
    until("it to say so again", || {
        matches!(node.status().health, Health::Stopped(_))
    })
    .await;
    submit(&leader, 1).await;
    cluster.stop_all().await;
}

fn is_refused(joined: Result<u64, JoinError>) -> bool {
    matches!(joined, Err(JoinError::Refused { why, .. }) if why.contains("a node was removed"))
}

/// Between a removal and the next secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_token_is_made_by_a_secret_that_is_about_to_end() {
    let cluster = Cluster::of(3, |_| {}).await;
    let leader = cluster.leader().await;
    let others = (1..=3).filter(|id| *id != leader.status().node_id);
    let [stays, gone] = others.collect::<Vec<u64>>()[..] else {
        panic!("one of three leads")
    };
    let stays = cluster.node(stays);
    let removing = tokio::spawn({
        let leader = leader.clone();
        async move { leader.remove_node(gone).await }
    });
    until("the removal", || stays.members().removed(gone)).await;
    let made = within(stays.join_token(Duration::from_secs(60))).await;
    assert_eq!(made.unwrap().unwrap().generation, 2);
    within(removing).await.unwrap().unwrap();
    drop(leader);
    cluster.stop_all().await;
}

/// It has the authority's key, and had the secret; the next one it is never sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_a_removed_node_knew_lets_anybody_in() {
    let mut cluster = Cluster::of(3, |_| {}).await;
    let leader = cluster.leader().await;
    let others = (1..=3).filter(|id| *id != leader.status().node_id);
    let [stays, gone] = others.collect::<Vec<u64>>()[..] else {
        panic!("one of three leads")
    };
    let store = "s3://store";
    let before = cluster.token(stays).await;
    within(leader.remove_node(gone)).await.unwrap();
    assert_eq!(leader.generation(), 2);
    let node = cluster.node(gone).clone();
    until("it to say so", || {
        matches!(node.status().health, Health::Stopped(_))
    })
    .await;
    assert_eq!(node.generation(), 1);
    // What its folder makes, and what somebody else had made before, wherever it is shown.
    let theirs = cluster.token(gone).await;
    for through in [leader.status().node_id, stays] {
        for token in [&theirs, &before] {
            let joined = cluster.join_by(token.clone(), through, store).await;
            assert!(is_refused(joined));
        }
    }
    let after = cluster.token(stays).await;
    assert_eq!(
        cluster.join_by(after.clone(), stays, store).await.unwrap(),
        4
    );
    until("its vote", || leader.status().voters.len() == 3).await;
    // The same when it is asked for.
    within(leader.renew_secret(None)).await.unwrap();
    assert_eq!(leader.generation(), 3);
    assert!(is_refused(cluster.join_by(after, stays, store).await));
    assert_eq!(cluster.join(store).await.unwrap(), 5);
    until("all of it to be written down", || {
        let noted: Vec<String> = leader.read_stale(|state| {
            let entries = state.accounts().trail().after(0);
            entries.map(|entry| entry.subject.clone()).collect()
        });
        let has = |what: String| noted.iter().filter(|subject| **subject == what).count() == 1;
        has(format!("nodes/{gone}/removed"))
            && (2..=5)
                .all(|id| has(format!("nodes/{id}/joined")) && has(format!("nodes/{id}/vote")))
            && noted.len() == 9
    })
    .await;
    drop(leader);
    cluster.stop_all().await;
}
