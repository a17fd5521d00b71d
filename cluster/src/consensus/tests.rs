//! The three threads together: answers, restarts, a disk that fails, and a state that cannot go on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod several;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use raft::eraftpb::{Entry, Message, MessageType};

use super::log::{Batch, EngineLog, Error, Loaded, LogStore, MemLog, MemLogDisk, ORIGIN, Position};
use super::*;
use crate::members::{Member, Members};
use crate::peers::Admission;

/// Remembers what it applied and answers with the entry's index.
#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Vec<Bytes>>>);

impl Machine for Notebook {
    type Reply = u64;

    fn apply(&mut self, entries: &[Committed], replies: &mut Vec<u64>) -> Result<(), String> {
        for entry in entries {
            if entry.data == "poison" {
                return Err(format!("entry {} is not understood", entry.at.index));
            }
            assert_ne!(entry.data, "too much", "the notebook is full");
            self.0.lock().push(entry.data.clone());
            replies.push(entry.at.index);
        }
        Ok(())
    }

    fn members(&mut self, _members: &Members, _at: Position) {}

    fn install(&mut self, at: Position, _members: &Members) -> Result<(), String> {
        Err(format!("nobody sends the snapshot of entry {}", at.index))
    }

    fn advanced(&mut self, _to: Position) {}

    fn role(&mut self, _role: Role) {}
}

fn begin<L: LogStore>(log: L) -> (Handle<u64>, Notebook) {
    begin_among(log, Alone)
}

fn begin_among<L: LogStore>(mut log: L, others: impl Transport) -> (Handle<u64>, Notebook) {
    let notebook = Notebook::default();
    let handle = start(Start {
        node_id: 1,
        loaded: log.load().unwrap(),
        log,
        members: Members::founder(1),
        applied: ORIGIN.index,
        snapshot: None,
        life: 1,
        machine: notebook.clone(),
        transport: Arc::new(others),
    })
    .unwrap();
    (handle, notebook)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

/// Waits for what another thread brings about; the limit only ends a test that would hang.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{what} did not come"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn leading(handle: &Handle<u64>) {
    handle.role().wait_for(|role| role.leads).await.unwrap();
}

#[test]
fn a_single_voter_leads_before_the_first_tick_and_answers_with_the_entry() {
    let (handle, notebook) = begin(MemLogDisk::default().open());
    run(async {
        leading(&handle).await;
        let first = handle.propose(Bytes::from("one")).await.unwrap();
        let second = handle.propose(Bytes::from("two")).await.unwrap();
        assert_eq!(second, first + 1);
        handle.read().await.unwrap();
        assert_eq!(*notebook.0.lock(), ["one", "two"]);
        assert_eq!(handle.progress().applied, second);
    });
    handle.shutdown();
    assert!(matches!(
        run(handle.propose(Bytes::from("late"))),
        Err(Refused::Stopped(_))
    ));
    assert!(matches!(run(handle.read()), Err(Refused::Stopped(_))));
}

#[test]
fn everything_acknowledged_is_replayed_in_order_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, notebook) = begin(EngineLog::open(&dir.path().join("log")).unwrap());
    run(async {
        leading(&handle).await;
        let many = (0..5_000u32).map(|n| handle.propose(Bytes::copy_from_slice(&n.to_le_bytes())));
        for answer in futures::future::join_all(many).await {
            answer.unwrap();
        }
    });
    handle.shutdown();
    drop(handle);
    let before = notebook.0.lock().clone();
    assert_eq!(before.len(), 5_000);
    let (handle, notebook) = begin(EngineLog::open(&dir.path().join("log")).unwrap());
    run(async {
        leading(&handle).await;
        handle.read().await.unwrap();
    });
    assert_eq!(*notebook.0.lock(), before);
    handle.shutdown();
}

#[test]
fn nothing_is_acknowledged_while_the_disk_refuses_and_all_of_it_once_it_works() {
    let disk = MemLogDisk::default();
    let (handle, notebook) = begin(disk.open());
    run(async {
        leading(&handle).await;
        handle.propose(Bytes::from("before")).await.unwrap();
        disk.refuse(true);
        let mut waiting = Box::pin(handle.propose(Bytes::from("during")));
        tokio::select! {
            answer = &mut waiting => panic!("acknowledged with {answer:?}"),
            () = until("the stall", || matches!(handle.state(), State::Stalled(Stall::Failing(_)))) => {}
        }
        assert!(matches!(
            handle.propose(Bytes::from("refused")).await,
            Err(Refused::Stalled(_))
        ));
        assert_eq!(*notebook.0.lock(), ["before"]);
        handle.read().await.unwrap();
        disk.refuse(false);
        waiting.await.unwrap();
        until("the recovery", || handle.state() == State::Running).await;
        handle.propose(Bytes::from("after")).await.unwrap();
        assert_eq!(*notebook.0.lock(), ["before", "during", "after"]);
    });
    handle.shutdown();
}

#[test]
fn for_how_long_a_disk_has_not_answered_is_said_until_it_does() {
    let begin = Begin {
        id: 1,
        loaded: Loaded::new_cluster(),
        applied: ORIGIN.index,
        members: Members::founder(1),
        snapshot: None,
    };
    let (mut node, handle) = Bare::new(begin, 1, Notebook::default()).unwrap();
    let mut effects = Vec::new();
    assert!(node.turn(&mut effects));
    let writes = effects.drain(..).filter_map(|effect| match effect {
        Effect::Write(write) => Some(write.number),
        _ => None,
    });
    let last = writes.last().unwrap();
    (1..HANGS_TICKS).for_each(|_| node.tick());
    assert_eq!(handle.disk_hangs(), None, "it is only slow");
    assert!(handle.standing().has_room);
    node.tick();
    assert_eq!(handle.disk_hangs(), Some(Duration::from_secs(2)));
    assert!(!handle.standing().has_room, "it is nobody's heir");
    (0..20).for_each(|_| node.tick());
    assert_eq!(handle.disk_hangs(), Some(Duration::from_secs(3)));
    node.tell(Event::Persisted(last));
    assert!(node.turn(&mut effects));
    node.tick();
    assert_eq!(handle.disk_hangs(), None);
}

#[test]
fn an_entry_that_cannot_be_applied_stops_the_node_with_its_sentence() {
    let (handle, _) = begin(MemLogDisk::default().open());
    run(async {
        leading(&handle).await;
        assert_eq!(
            handle.propose(Bytes::from("poison")).await,
            Err(Refused::OutcomeUnknown)
        );
        until("the stop", || matches!(handle.state(), State::Stopped(_))).await;
        let Err(Refused::Stopped(why)) = handle.propose(Bytes::from("more")).await else {
            panic!("a stopped node takes nothing");
        };
        assert!(why.contains("is not understood"), "{why}");
        let failed = handle.failed().await;
        assert_eq!((failed.why, failed.again), (why, false));
    });
    handle.shutdown();
}

/// A log whose disk fails at a sync, and a way to others that cannot do without them.
struct Fragile(MemLog, Arc<AtomicBool>);

impl LogStore for Fragile {
    fn load(&mut self) -> Result<Loaded, Error> {
        self.0.load()
    }

    fn write(&mut self, batch: &Batch, sync: bool) -> Result<(), Error> {
        assert!(!self.1.load(Ordering::Acquire), "the disk has failed");
        self.0.write(batch, sync)
    }

    fn compact(&mut self, to: Position) -> Result<(), Error> {
        self.0.compact(to)
    }

    fn purge(&mut self) -> Result<(), Error> {
        self.0.purge()
    }
}

struct Hermit;

impl Transport for Hermit {
    fn send(&self, _messages: Vec<Message>) {}

    fn members(&self, members: &Members) {
        assert_eq!(members.ids().count(), 1, "too many");
    }

    fn attach(&self, _inbound: Arc<dyn Inbound>, _admission: Arc<dyn Admission>) {}

    fn me(&self) -> Option<Member> {
        None
    }

    fn log_format(&self, _node: u64) -> Option<u32> {
        None
    }
}

#[test]
fn a_thread_that_fails_takes_the_others_with_it_and_a_shutdown_says_nothing() {
    let newcomer = Member {
        id: 2,
        peer_address: "10.0.0.2:7071".to_owned(),
        client_address: "http://10.0.0.2:7070".to_owned(),
        key: [2; 32],
    };
    for (thread, words) in [
        ("apply", "the notebook is full"),
        ("log", "the disk has failed"),
        ("raft", "too many"),
    ] {
        let failing = Arc::new(AtomicBool::new(false));
        let log = Fragile(MemLogDisk::default().open(), Arc::clone(&failing));
        let (handle, _) = begin_among(log, Hermit);
        run(async {
            leading(&handle).await;
            assert!(futures::poll!(std::pin::pin!(handle.failed())).is_pending());
            failing.store(thread == "log", Ordering::Release);
            let lost = match thread {
                "raft" => {
                    let lost = handle.change(Change::Admit(newcomer.clone())).await;
                    assert_eq!(lost, Err(ChangeError::OutcomeUnknown));
                    handle.propose(Bytes::from("more")).await
                }
                _ => handle.propose(Bytes::from("too much")).await,
            };
            assert!(
                matches!(lost, Err(Refused::OutcomeUnknown | Refused::Stopped(_))),
                "{lost:?}"
            );
            let failed = handle.failed().await;
            assert!(failed.again, "{failed}");
            let expected = format!("the consensus has ended: its {thread} thread has failed: ");
            assert!(failed.to_string().starts_with(&expected), "{failed}");
            assert!(failed.why.contains(words), "{failed}");
            // Nobody goes by it as the leader any more, nor waits for an answer of it.
            let led = handle.role().wait_for(|role| !role.leads).await.is_ok();
            assert!(led && handle.transfer(None).await.is_err());
        });
        handle.shutdown();
    }
    let (handle, _) = begin(MemLogDisk::default().open());
    handle.shutdown();
    assert!(matches!(handle.state(), State::Stopped(_)));
    assert!(run(async { futures::poll!(std::pin::pin!(handle.failed())) }).is_pending());
}

#[test]
fn a_shutdown_answers_those_who_still_wait() {
    let disk = MemLogDisk::default();
    let (handle, _) = begin(disk.open());
    run(async {
        leading(&handle).await;
        disk.refuse(true);
        let mut answer = std::pin::pin!(handle.propose(Bytes::from("never")));
        // It is taken here and now: once the stall shows, nothing more is.
        assert!(futures::poll!(answer.as_mut()).is_pending());
        until("the stall", || matches!(handle.state(), State::Stalled(_))).await;
        let stopping = handle.clone();
        tokio::task::spawn_blocking(move || stopping.shutdown())
            .await
            .unwrap();
        assert_eq!(answer.await, Err(Refused::OutcomeUnknown));
    });
    assert_eq!(handle.in_flight(), 0);
}

#[test]
fn who_votes_alone_tells_learners_of_its_term_only_once_it_is_on_disk() {
    let members = Members {
        learners: [2].into(),
        last_id: 2,
        ..Members::founder(1)
    };
    let mut peer = Peer::new(Begin {
        id: 1,
        loaded: Loaded::new_cluster(),
        applied: ORIGIN.index,
        members,
        snapshot: None,
    })
    .unwrap();
    peer.start().unwrap();
    let mut outputs = Vec::new();
    peer.outputs(&mut outputs);
    assert!(peer.role().leads);
    let sent = |output: &Output| matches!(output, Output::Send(_));
    assert!(!outputs.iter().any(sent), "{outputs:?}");
    let mut held = 0;
    for output in outputs.drain(..) {
        if let Output::Persist(write) = output {
            held += write.then_send.len();
            peer.persisted(write.number);
        }
    }
    assert!(held > 0, "the learner is told after the write");
    peer.propose(vec![Bytes::from("next")]).unwrap();
    (0..10).for_each(|_| peer.tick());
    peer.outputs(&mut outputs);
    assert!(
        outputs.iter().any(sent),
        "from then on nothing waits: {outputs:?}"
    );
}

#[test]
fn entries_that_no_honest_leader_sends_are_dropped() {
    let members = Members {
        voters: [1, 2, 3].into(),
        last_id: 3,
        ..Members::default()
    };
    let mut peer = Peer::new(Begin {
        id: 1,
        loaded: Loaded::new_cluster(),
        applied: ORIGIN.index,
        members,
        snapshot: None,
    })
    .unwrap();
    let at = ORIGIN.index;
    let mut append = |entries: &[(u64, u64)]| {
        let entries = entries.iter().map(|(index, term)| Entry {
            index: *index,
            term: *term,
            ..Entry::default()
        });
        let mut message = Message {
            from: 2,
            to: 1,
            term: 5,
            index: at,
            log_term: ORIGIN.term,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgAppend);
        message.set_entries(entries.collect::<Vec<_>>().into());
        peer.step(message);
        peer.outputs(&mut Vec::new());
        peer.last_index()
    };
    let refused: [&[(u64, u64)]; 5] = [
        &[(at + 1, 0)],
        &[(at + 1, 6)],
        &[(at + 1, 4), (at + 2, 3)],
        &[(at + 2, 5)],
        &[(at + 1, 5), (at + 3, 5)],
    ];
    for entries in refused {
        assert_eq!(append(entries), at, "{entries:?}");
    }
    assert_eq!(append(&[(at + 1, 4), (at + 2, 5)]), at + 2);
}
