//! One submission in a segment: its head, the submission as it is packed, and zeros up to the next slot.
//!
//! The head has a sum of its own, so that whoever looks through a segment reads the heads alone and can rely on the lengths
//! in them. The sum is begun with a number that is nowhere but in the segment's name: what somebody submits cannot look
//! like a head.

use stepcast_scheduler::ids::StagingId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::super::super::packed;

/// Where submissions begin: at the blocks of the usual file systems, so that each has blocks of its own that can be given
/// back, and at the pages that two hosts of a shared file system keep apart.
pub(super) const SLOT: u64 = 4_096;

/// How a head begins.
const MAGIC: [u8; 8] = *b"STPCREC1";

/// Magic, milliseconds since 1970, and the sum.
const FRONT: usize = 8 + 8 + 8;

/// A head: the front, and how a packed submission begins.
pub(super) const HEAD: usize = FRONT + packed::HEADER;

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) staging: StagingId,
    /// When it was put, in milliseconds since 1970.
    pub(super) put_ms: u64,
    /// Bytes of the packed submission.
    pub(super) bytes: u32,
}

impl Head {
    /// Slots that the submission takes.
    pub(super) fn slots(self) -> u32 {
        slots(self.bytes)
    }
}

/// Slots for a packed submission of so many bytes.
pub(super) fn slots(bytes: u32) -> u32 {
    u32::try_from((FRONT as u64 + u64::from(bytes)).div_ceil(SLOT)).unwrap_or(u32::MAX)
}

/// Adds a packed submission to what is to be written, in slots of its own.
pub(super) fn add(to: &mut Vec<u8>, seed: u64, put_ms: u64, packed: &[u8]) {
    let begun = to.len();
    to.extend_from_slice(&MAGIC);
    to.extend_from_slice(&put_ms.to_le_bytes());
    let begins = packed.get(..packed::HEADER).unwrap_or_default();
    to.extend_from_slice(&sum(seed, put_ms, begins).to_le_bytes());
    to.extend_from_slice(packed);
    let whole = (to.len() - begun).next_multiple_of(SLOT as usize);
    to.resize(begun + whole, 0);
}

/// What the head of a slot says; nothing when none begins there.
pub(super) fn head(seed: u64, slot: &[u8]) -> Option<Head> {
    let (front, rest) = slot.split_at_checked(FRONT)?;
    let begins = rest.get(..packed::HEADER)?;
    let (magic, rest) = front.split_at_checked(8)?;
    let (put_ms, wanted) = rest.split_at_checked(8)?;
    let put_ms = u64::from_le_bytes(put_ms.try_into().ok()?);
    let wanted = u64::from_le_bytes(wanted.try_into().ok()?);
    if magic != MAGIC || sum(seed, put_ms, begins) != wanted {
        return None;
    }
    let (staging, bytes) = packed::head(begins)?;
    Some(Head {
        staging,
        put_ms,
        bytes,
    })
}

/// The packed submission in the slots of a record.
pub(super) fn body(record: &[u8]) -> Option<&[u8]> {
    record.get(FRONT..)
}

/// Bytes of the record itself, without the zeros behind it.
pub(super) const fn length(bytes: u32) -> usize {
    FRONT + bytes as usize
}

fn sum(seed: u64, put_ms: u64, begins: &[u8]) -> u64 {
    let mut summed = [0; 8 + packed::HEADER];
    let (first, second) = summed.split_at_mut(8);
    first.copy_from_slice(&put_ms.to_le_bytes());
    for (to, byte) in second.iter_mut().zip(begins) {
        *to = *byte;
    }
    xxh3_64_with_seed(&summed, seed)
}
