//! The cluster's nodes and their secret: as bytes in the repository, whom they shut out, and what stands in the audit trail.

use std::collections::BTreeMap;

use stepcast_scheduler::accounts::{Action, Actor};
use stepcast_scheduler::model::{Generation, SECRETS_KEPT, Secret};
use stepcast_scheduler::{Command, Envelope, Rejection, Reply, State};

use crate::golden::{bytes, hex, in_format_3, is_unknown_to_format_2, stand_in};

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-nodes.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-nodes.txt");

fn note(as_of: u64, votes: &[(u64, bool)], secret: u8) -> Command {
    Command::NoteNodes {
        as_of,
        votes: votes.iter().copied().collect(),
        secret: Secret([secret; 32]),
    }
}

const fn renew(secret: u8) -> Command {
    Command::RenewSecret {
        secret: Secret([secret; 32]),
    }
}

const fn generation(number: u64, secret: u8) -> Generation {
    Generation {
        number,
        secret: Secret([secret; 32]),
    }
}

fn noted(state: &State) -> Vec<String> {
    let entries = state.accounts().trail().after(0);
    entries
        .map(|entry| {
            assert_eq!(entry.action, Action::ChangeNodes);
            entry.subject.clone()
        })
        .collect()
}

/// A node alone, to which another one comes, gets its vote and is removed; then somebody asks for another secret.
fn entries() -> (Vec<Envelope>, State) {
    in_format_3(vec![
        Command::Barrier { version: 3 },
        note(1, &[(1, true)], 0xa1),
        note(3, &[(1, true), (2, false)], 0xa2),
        note(4, &[(1, true), (2, true)], 0xa3),
        note(7, &[(1, true)], 0xa4),
        renew(0xa5),
    ])
}

#[test]
fn nodes_are_written_and_read_as_ever() {
    let (entries, state) = entries();
    stand_in(LOG, &entries);
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
    for state in [&state, &restored] {
        let nodes = state.nodes();
        assert_eq!(*nodes.votes(), BTreeMap::from([(1, true)]));
        let generations = [
            generation(1, 0xa1),
            generation(2, 0xa4),
            generation(3, 0xa5),
        ];
        assert_eq!(nodes.generations(), generations);
        assert_eq!(nodes.generation(), generations.last());
        let what = ["nodes/2/joined", "nodes/2/vote", "nodes/2/removed"];
        assert_eq!(noted(state), what);
    }
    is_unknown_to_format_2(&entries[1]);
    is_unknown_to_format_2(&entries[5]);
    assert!(!format!("{state:?} {entries:?}").contains("165, 165"));
}

#[test]
fn a_log_without_them_is_as_it_was() {
    let (_, state) = in_format_3(vec![Command::Barrier { version: 3 }]);
    assert_eq!(state.nodes().generation(), None);
    let plain = state.snapshot();
    assert_eq!(State::restore(&plain), Ok(state));
    // A new cluster with the state of another one has no secret that somebody knows who has the backup.
    let (_, mut state) = entries();
    let with_secrets = state.snapshot().len();
    state.leave_nodes();
    assert_eq!(state.nodes().generation(), None);
    assert!(state.snapshot().len() + 3 * 32 < with_secrets);
}

/// Everything that follows a removal has another secret, and nothing else has unless somebody asks for it.
#[test]
fn another_generation_begins_with_a_removal_and_when_it_is_asked_for() {
    let mut state = State::new();
    let mut apply = |command, actor| {
        let envelope = Envelope::new(1_000, None, command).in_format(3).by(actor);
        let applied = state.apply(state.applied_index() + 1, &envelope);
        let generation = state.nodes().generation();
        let last = noted(&state).pop().unwrap_or_default();
        (
            applied.reply,
            generation.map_or(0, |generation| generation.number),
            last,
        )
    };
    let refused = |number| (Err(Rejection::NotYet), number, String::new());
    assert_eq!(apply(renew(1), None), refused(0), "in format 1");
    assert_eq!(apply(note(1, &[(1, true)], 1), None), refused(0));
    let barrier = apply(Command::Barrier { version: 3 }, None);
    assert!(barrier.0.is_ok());
    assert_eq!(
        apply(renew(1), None),
        refused(0),
        "before any leader's word"
    );
    let done = |number, last: &str| (Ok(Reply::Done), number, last.to_owned());
    for (as_of, votes, number, last) in [
        (10, &[(1, true), (2, true)][..], 1, ""),
        (10, &[(1, true), (2, true)], 1, ""),
        (12, &[(1, true), (2, false)], 1, ""),
        (
            13,
            &[(1, true), (2, false), (3, false)],
            1,
            "nodes/3/joined",
        ),
        (14, &[(1, true), (3, false)], 2, "nodes/2/removed"),
        // An older word that came late, and the same one once more.
        (
            13,
            &[(1, true), (2, false), (3, false)],
            2,
            "nodes/2/removed",
        ),
        (14, &[(1, true), (3, false)], 2, "nodes/2/removed"),
        (15, &[(1, true), (3, true)], 2, "nodes/3/vote"),
    ] {
        assert_eq!(apply(note(as_of, votes, 7), None), done(number, last));
    }
    assert_eq!(
        apply(renew(8), Some(Actor::OPERATOR)),
        done(3, "secret"),
        "in somebody's name"
    );
    for number in 4..20 {
        assert_eq!(apply(renew(9), None), done(number, "secret"));
    }
    assert_eq!(state.nodes().generations().len(), SECRETS_KEPT);
    let restored = State::restore(&state.snapshot());
    assert_eq!(restored, Ok(state));
}
