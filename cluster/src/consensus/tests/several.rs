//! Three nodes' threads together: a leader whose disk fails, reads on followers, answers that get lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::consensus::handle::MAX_RECEIVED_BYTES;
use crate::members::Member;
use crate::peers::Admission;

/// Carries messages from node to node at once, but for those that a test keeps back.
#[derive(Default)]
struct Wire {
    nodes: Mutex<BTreeMap<u64, Handle<u64>>>,
    /// Answers to reads that are still to be lost.
    lose_answers: AtomicUsize,
}

struct End(Arc<Wire>);

impl Transport for End {
    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            let answer = message.get_msg_type() == MessageType::MsgReadIndexResp;
            let less = |left: usize| left.checked_sub(1);
            let lost = answer
                && self
                    .0
                    .lose_answers
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                    .is_ok();
            let node = self.0.nodes.lock().get(&message.to).cloned();
            if let Some(node) = node.filter(|_| !lost) {
                node.receive(vec![message]);
            }
        }
    }

    fn members(&self, _members: &Members) {}

    fn attach(&self, _inbound: Arc<dyn Inbound>, _admission: Arc<dyn Admission>) {}

    fn me(&self) -> Option<Member> {
        None
    }

    fn log_format(&self, _node: u64) -> Option<u32> {
        None
    }
}

struct Three {
    wire: Arc<Wire>,
    disks: BTreeMap<u64, MemLogDisk>,
    notebooks: BTreeMap<u64, Notebook>,
}

impl Three {
    fn begin() -> Self {
        let wire = Arc::new(Wire::default());
        let (mut disks, mut notebooks) = (BTreeMap::new(), BTreeMap::new());
        for id in 1..=3 {
            let disk = MemLogDisk::default();
            let mut log = disk.open();
            let notebook = Notebook::default();
            let handle = start(Start {
                node_id: id,
                loaded: log.load().unwrap(),
                log,
                members: Members {
                    voters: BTreeSet::from([1, 2, 3]),
                    last_id: 3,
                    ..Members::default()
                },
                applied: ORIGIN.index,
                snapshot: None,
                life: id,
                machine: notebook.clone(),
                transport: Arc::new(End(Arc::clone(&wire))),
            })
            .unwrap();
            wire.nodes.lock().insert(id, handle);
            disks.insert(id, disk);
            notebooks.insert(id, notebook);
        }
        Self {
            wire,
            disks,
            notebooks,
        }
    }

    fn node(&self, id: u64) -> Handle<u64> {
        self.wire.nodes.lock()[&id].clone()
    }

    async fn leader(&self, but: Option<u64>) -> u64 {
        let mut found = None;
        until("a leader", || {
            found = (1..=3)
                .filter(|id| Some(*id) != but)
                .find(|id| self.node(*id).role().borrow().leads);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    fn end(self) {
        let nodes = std::mem::take(&mut *self.wire.nodes.lock());
        nodes.values().for_each(Handle::shutdown);
    }
}

#[test]
fn a_leader_that_cannot_write_hands_leadership_over_and_follows_once_it_can() {
    let three = Three::begin();
    run(async {
        let old = three.leader(None).await;
        let leader = three.node(old);
        leader.propose(Bytes::from("before")).await.unwrap();
        three.disks[&old].refuse(true);
        // Its followers can still acknowledge this, and it is told to nobody as long as it is not on the leader's disk.
        let during = leader.propose(Bytes::from("during"));
        let outcome = tokio::time::timeout(Duration::from_secs(30), during).await;
        let outcome = outcome.unwrap();
        // A note of how far the log is committed may meet the disk first: then leadership is on its way, or gone, already.
        let taken = outcome == Err(Refused::OutcomeUnknown);
        let refused = matches!(
            outcome,
            Err(Refused::Busy | Refused::Stalled(_) | Refused::NotLeader { .. })
        );
        assert!(taken || refused, "{outcome:?}");
        let new = three.leader(Some(old)).await;
        three.node(new).propose(Bytes::from("after")).await.unwrap();
        // One that lost its leadership otherwise hears of its disk with the next entry.
        until("the old leader's stall", || {
            matches!(three.node(old).state(), State::Stalled(_))
        })
        .await;
        let mut role = three.node(old).role();
        role.wait_for(|role| role.leader == Some(new))
            .await
            .unwrap();
        let change = three.node(old).change(Change::Remove(new)).await;
        let leader = Some(new);
        assert_eq!(change.err(), Some(ChangeError::NotLeader { leader }));
        three.disks[&old].refuse(false);
        until("the old leader's recovery", || {
            three.node(old).state() == State::Running
        })
        .await;
        three.node(old).read().await.unwrap();
        let told = three.notebooks[&old].0.lock().clone();
        let during = taken.then_some("during");
        let all: Vec<&str> = ["before"]
            .into_iter()
            .chain(during)
            .chain(["after"])
            .collect();
        assert_eq!(told, all);
    });
    three.end();
}

#[test]
fn a_follower_asks_again_when_the_answer_to_a_read_gets_lost() {
    let three = Three::begin();
    run(async {
        let leader = three.leader(None).await;
        let follower = three.node(if leader == 1 { 2 } else { 1 });
        three
            .node(leader)
            .propose(Bytes::from("one"))
            .await
            .unwrap();
        three.wire.lose_answers.store(3, Ordering::SeqCst);
        follower.read().await.unwrap();
        assert_eq!(three.wire.lose_answers.load(Ordering::SeqCst), 0);
        let index = three.node(leader).progress().committed;
        assert!(follower.progress().applied >= index);
    });
    three.end();
}

#[test]
fn a_node_without_room_hears_nothing_until_it_has_some() {
    let three = Three::begin();
    run(async {
        let leader = three.leader(None).await;
        let follower = three.node(if leader == 1 { 2 } else { 1 });
        // A heartbeat that is being taken in has a little of the room for a moment.
        let mut full = None;
        until("all of the room", || {
            full = follower.shared.received.enter(MAX_RECEIVED_BYTES);
            full.is_some()
        })
        .await;
        until("the silence", || follower.role().borrow().leader.is_none()).await;
        drop(full);
        until("a leader again", || {
            follower.role().borrow().leader.is_some()
        })
        .await;
        follower.read().await.unwrap();
    });
    three.end();
}
