//! Snapshot files of the first version: a head of fixed length, the voters, and the state in one piece.

use stepcast_scheduler::State;
use xxhash_rust::xxh3::xxh3_64;

use super::format::{Fault, MAGIC, u64_at};
use super::{Header, Restored};
use crate::consensus::log::Position;
use crate::members::Members;

/// Its number.
pub(super) const VERSION: u8 = 1;

/// Magic, index, term, length of the voters, length of the state, checksum of what follows and of these.
const HEADER: usize = 8 + 8 + 8 + 8 + 8 + 8 + 8;

/// The state in these bytes, which are a whole file.
pub(super) fn read(bytes: &[u8]) -> Result<Restored, Fault> {
    let (header, state) = parts(bytes)?;
    let state = State::restore(state).map_err(Fault::State)?;
    Ok(Restored { header, state })
}

/// What these bytes, which are a whole file, begin with.
pub(super) fn check(bytes: &[u8]) -> Result<Header, Fault> {
    Ok(parts(bytes)?.0)
}

fn parts(bytes: &[u8]) -> Result<(Header, &[u8]), Fault> {
    let damaged = |what: &str| Fault::Damaged(what.to_owned());
    let (head, body) = bytes
        .split_at_checked(HEADER)
        .ok_or_else(|| damaged("it ends too early"))?;
    let word = |n: usize| u64_at(head, MAGIC.len() + 1 + n * 8);
    if word(5) != xxh3_64(&head[..HEADER - 8]) {
        return Err(damaged("the checksum of its head is wrong"));
    }
    let (voters, state) = (word(2), word(3));
    if voters % 8 != 0 || voters.checked_add(state) != Some(body.len() as u64) {
        return Err(damaged("it is longer or shorter than it should be"));
    }
    if xxh3_64(body) != word(4) {
        return Err(damaged("the checksum of its state is wrong"));
    }
    let (voters, state) = body.split_at(voters as usize);
    let voters = voters.chunks_exact(8).map(|word| u64_at(word, 0));
    let mut members = Members::default();
    members.voters.extend(voters);
    members.last_id = members.voters.last().copied().unwrap_or_default();
    let at = Position {
        index: word(0),
        term: word(1),
    };
    Ok((Header { at, members }, state))
}
