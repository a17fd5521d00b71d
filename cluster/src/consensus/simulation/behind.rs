//! A follower that the log no longer reaches: when it is sent a snapshot again, which one, and what becomes of those that
//! come too late; and one that has no vote and is left alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use raft::eraftpb::{HardState, Message, MessageType};

use super::super::log::{Loaded, Position};
use super::super::{Begin, Delivery, ELECTION_TICKS, HEARTBEAT_TICKS, Output, Peer, ReadId};
use crate::members::Members;

const TRUNCATED: Position = Position { index: 10, term: 3 };

const TERM: u64 = 4;

fn members() -> Members {
    Members {
        learners: [2].into(),
        last_id: 2,
        ..Members::founder(1)
    }
}

fn begin(id: u64, loaded: Loaded, snapshot: bool) -> Peer {
    let begin = Begin {
        id,
        applied: loaded.truncated.index,
        loaded,
        members: members(),
        snapshot: snapshot.then(|| (TRUNCATED, members())),
    };
    Peer::new(begin).unwrap()
}

/// Leads alone, and its log begins behind a snapshot; its follower has nothing.
struct Leader {
    peer: Peer,
    /// The ticks at which a snapshot was sent, with its entry.
    sent: Vec<(u64, u64)>,
    /// The ticks at which one was wanted.
    wanted: Vec<u64>,
    ticks: u64,
}

impl Leader {
    fn start() -> Self {
        let loaded = Loaded {
            hard_state: HardState {
                term: TRUNCATED.term,
                commit: TRUNCATED.index,
                ..HardState::default()
            },
            truncated: TRUNCATED,
            entries: Vec::new(),
        };
        let mut peer = begin(1, loaded, true);
        peer.start().unwrap();
        let mut leader = Self {
            peer,
            sent: Vec::new(),
            wanted: Vec::new(),
            ticks: 0,
        };
        leader.act();
        assert!(leader.peer.role().leads);
        // It is probed at the log's end, and has nothing.
        leader.answers(Message {
            reject: true,
            index: TRUNCATED.index,
            ..of_follower(MessageType::MsgAppendResponse)
        });
        leader
    }

    /// Does what it says, at once.
    fn act(&mut self) {
        let mut outputs = Vec::new();
        self.peer.outputs(&mut outputs);
        let mut sent = Vec::new();
        for output in outputs {
            match output {
                Output::Send(messages) => sent.extend(messages),
                Output::Persist(write) => {
                    self.peer.persisted(write.number);
                    sent.extend(write.then_send);
                }
                Output::Apply { entries, .. } => {
                    self.peer.applied(entries.last().unwrap().index);
                }
                Output::SnapshotWanted => self.wanted.push(self.ticks),
                _ => {}
            }
        }
        let snapshots = sent
            .iter()
            .filter(|message| message.get_msg_type() == MessageType::MsgSnapshot);
        let indices = snapshots.map(|message| message.get_snapshot().get_metadata().index);
        self.sent.extend(indices.map(|index| (self.ticks, index)));
    }

    fn answers(&mut self, message: Message) {
        self.peer.step(message);
        self.act();
    }

    fn ended(&mut self, ended: Delivery) {
        self.peer.snapshot_sent(2, ended);
        self.act();
    }

    /// So many ticks pass, in which the follower answers every heartbeat.
    fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.ticks += 1;
            self.peer.tick();
            self.act();
            if self.ticks.is_multiple_of(HEARTBEAT_TICKS as u64) {
                self.answers(of_follower(MessageType::MsgHeartbeatResponse));
            }
        }
    }
}

fn of_follower(kind: MessageType) -> Message {
    let mut message = Message {
        from: 2,
        to: 1,
        term: TERM,
        ..Message::default()
    };
    message.set_msg_type(kind);
    message
}

#[test]
fn a_snapshot_that_fails_is_sent_again_ever_later_and_no_other_is_asked_for() {
    let mut leader = Leader::start();
    assert_eq!(leader.sent, [(0, TRUNCATED.index)]);
    // The receiver's disk is full for ten minutes, 50 ms a tick.
    while leader.ticks < 12_000 {
        let tries = leader.sent.len();
        leader.ended(Delivery::Failed);
        while leader.sent.len() == tries && leader.ticks < 12_000 {
            leader.pass(1);
        }
    }
    assert_eq!(leader.wanted.first(), None, "another one is to be written");
    assert!(leader.sent.iter().all(|(_, at)| *at == TRUNCATED.index));
    let when: Vec<u64> = leader.sent.iter().map(|(tick, _)| *tick).collect();
    let pauses: Vec<u64> = when.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The next heartbeat is answered a tick or two after the pause.
    let soonest = [20, 40, 80, 160, 320];
    for (pause, soonest) in pauses.iter().zip(soonest.into_iter().chain([600; 100])) {
        assert!((soonest..soonest + 4).contains(pause), "{pauses:?}");
    }
    assert!((20..=26).contains(&when.len()), "{when:?}");
}

#[test]
fn nothing_is_sent_beside_a_transfer_that_goes_on() {
    let mut leader = Leader::start();
    leader.pass(5_000);
    assert_eq!(leader.sent.len(), 1);
    // One fails; the follower's own word has the next begin before its time, which lasts longer than the pause.
    leader.ended(Delivery::Failed);
    leader.answers(Message {
        index: TRUNCATED.index,
        ..of_follower(MessageType::MsgAppendResponse)
    });
    leader.pass(5_000);
    assert_eq!(leader.sent.len(), 1, "it has it, and needs no other");
}

#[test]
fn a_snapshot_that_is_gone_is_asked_for_and_a_newer_one_is_not_forgotten_with_it() {
    let mut leader = Leader::start();
    leader.ended(Delivery::Unusable(TRUNCATED));
    leader.pass(100);
    assert!(!leader.wanted.is_empty());
    assert_eq!(leader.sent.len(), 1);
    let newer = Position {
        index: TRUNCATED.index + 1,
        term: TERM,
    };
    leader.peer.snapshot_taken(newer, members());
    leader.pass(10);
    assert_eq!(leader.sent.last().unwrap().1, newer.index);
    leader.wanted.clear();
    // Of the older one it is told late.
    leader.ended(Delivery::Unusable(TRUNCATED));
    leader.pass(100);
    assert_eq!(leader.sent.len(), 3);
    assert!(leader.wanted.is_empty());
}

#[test]
fn what_is_taken_up_is_told_from_what_comes_too_late() {
    let mut follower = begin(2, Loaded::new_cluster(), false);
    let message = |term: u64, index: u64| {
        let mut message = Message {
            from: 1,
            to: 2,
            term,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgSnapshot);
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (index, TRUNCATED.term);
        metadata.set_conf_state(members().conf_state());
        message.mut_snapshot().set_data(members().encode().into());
        message
    };
    assert!(follower.snapshot_received(message(TERM, 10)));
    assert!(
        follower.snapshot_received(message(TERM, 10)),
        "its file is needed, whoever has brought it"
    );
    let mut outputs = Vec::new();
    follower.outputs(&mut outputs);
    assert!(
        follower.snapshot_received(message(TERM, 10)),
        "its place in the log is being written"
    );
    let writes = outputs.iter().filter_map(|output| match output {
        Output::Persist(write) => Some(write.number),
        _ => None,
    });
    follower.persisted(writes.max().unwrap());
    assert!(
        follower.snapshot_received(message(TERM, 10)),
        "the state is being read from it"
    );
    follower.applied(10);
    assert!(!follower.snapshot_received(message(TERM, 10)), "it is in");
    assert!(!follower.snapshot_received(message(TERM, 9)), "outdated");
    assert!(
        !follower.snapshot_received(message(TERM - 1, 11)),
        "of a leader that was deposed"
    );
    assert!(follower.snapshot_received(message(TERM, 11)));
}

#[test]
fn who_has_no_vote_names_no_leader_that_is_gone() {
    let mut learner = begin(2, Loaded::new_cluster(), false);
    let read = ReadId {
        node: 2,
        life: 1,
        number: 1,
    };
    let mut heartbeat = Message {
        from: 1,
        to: 2,
        term: TERM,
        ..Message::default()
    };
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    let roles = |learner: &mut Peer| {
        let mut outputs = Vec::new();
        learner.outputs(&mut outputs);
        let role = |output| match output {
            Output::Role(role) => Some(role.leader),
            _ => None,
        };
        outputs.into_iter().filter_map(role).collect::<Vec<_>>()
    };
    // It is heard now and then, and then no more, and then again.
    for _ in 0..3 {
        learner.step(heartbeat.clone());
        learner.outputs(&mut Vec::new());
        (0..ELECTION_TICKS).for_each(|_| learner.tick());
        assert_eq!(learner.role().leader, Some(1));
        assert!(learner.read(read));
    }
    assert_eq!(roles(&mut learner), []);
    (0..ELECTION_TICKS).for_each(|_| learner.tick());
    assert_eq!(roles(&mut learner), [None]);
    assert!(!learner.read(read), "there is nobody to be asked");
    learner.step(heartbeat);
    assert_eq!(roles(&mut learner), [Some(1)]);
    assert!(learner.read(read));
}
