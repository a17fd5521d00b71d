//! The files of one submission as one run of bytes that says whose it is and whether it is whole.
//!
//! Files on a disk are used again (see [`super::folder`]), so whoever reads one while it is deleted may see another
//! submission's bytes in it. The id and the sum tell that apart, and a torn or damaged file as well.

use std::hash::Hasher;

use stepcast_scheduler::ids::StagingId;
use xxhash_rust::xxh3::Xxh3Default;

use crate::submission::{FILES_BYTES_MAX, Role, StagedFile};

/// How a packed submission of this format begins.
const MAGIC: [u8; 8] = *b"STPCSTG1";

/// Magic, id, length of what follows, and its sum together with the id.
pub(super) const HEADER: usize = 8 + 16 + 4 + 8;

/// Bytes of a packed submission at most: its files, and their names and lengths.
pub(super) const PACKED_BYTES_MAX: usize = FILES_BYTES_MAX + (4 << 10);

/// Packs a submission.
pub(super) fn pack(staging: StagingId, files: &[StagedFile]) -> Vec<u8> {
    let length = files
        .iter()
        .map(|file| 1 + 1 + 4 + file.name.len() + file.content.len());
    let mut packed = Vec::with_capacity(HEADER + length.sum::<usize>());
    packed.extend_from_slice(&MAGIC);
    packed.extend_from_slice(&staging.0);
    packed.extend_from_slice(&[0; 4 + 8]);
    for file in files {
        packed.push(file.role as u8);
        packed.push(length_of::<u8>(file.name.len()));
        packed.extend_from_slice(file.name.as_bytes());
        packed.extend_from_slice(&length_of::<u32>(file.content.len()).to_le_bytes());
        packed.extend_from_slice(&file.content);
    }
    let length = length_of::<u32>(packed.len() - HEADER);
    let sum = sum(staging, &packed[HEADER..]);
    packed[24..28].copy_from_slice(&length.to_le_bytes());
    packed[28..36].copy_from_slice(&sum.to_le_bytes());
    packed
}

/// The files of this submission; nothing when the bytes are another's, not whole or damaged. What follows them is not
/// looked at.
pub(super) fn unpack(staging: StagingId, packed: &[u8]) -> Option<Vec<StagedFile>> {
    let mut rest = packed;
    let known = take(&mut rest, 8)? == MAGIC && take(&mut rest, 16)? == staging.0;
    if !known {
        return None;
    }
    let length = u32::from_le_bytes(array(take(&mut rest, 4)?)?);
    let wanted = u64::from_le_bytes(array(take(&mut rest, 8)?)?);
    let mut body = take(&mut rest, usize::try_from(length).ok()?)?;
    if sum(staging, body) != wanted {
        return None;
    }
    let mut files = Vec::with_capacity(Role::ALL.len());
    while !body.is_empty() {
        let role = usize::from(*take(&mut body, 1)?.first()?);
        let role = *Role::ALL.get(role)?;
        let name = usize::from(*take(&mut body, 1)?.first()?);
        let name = std::str::from_utf8(take(&mut body, name)?).ok()?.to_owned();
        let content = u32::from_le_bytes(array(take(&mut body, 4)?)?);
        let content = take(&mut body, usize::try_from(content).ok()?)?.to_vec();
        files.push(StagedFile {
            role,
            name,
            content,
        });
    }
    Some(files)
}

/// Whose a packed submission is and how many bytes it has, by how it begins.
pub(super) fn head(packed: &[u8]) -> Option<(StagingId, u32)> {
    let mut rest = packed;
    if take(&mut rest, 8)? != MAGIC {
        return None;
    }
    let staging = StagingId(array(take(&mut rest, 16)?)?);
    let length = u32::from_le_bytes(array(take(&mut rest, 4)?)?);
    Some((staging, length.checked_add(HEADER as u32)?))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// A submission's bounds make every length fit.
fn length_of<T: TryFrom<usize>>(length: usize) -> T {
    T::try_from(length).unwrap_or_else(|_| unreachable!("a submission's lengths are bounded"))
}

fn sum(staging: StagingId, body: &[u8]) -> u64 {
    let mut sum = Xxh3Default::new();
    sum.write(&staging.0);
    sum.write(body);
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: StagingId = StagingId([7; 16]);

    fn files() -> Vec<StagedFile> {
        let file = |role, name: &str, content: &[u8]| StagedFile {
            role,
            name: name.into(),
            content: content.into(),
        };
        vec![
            file(Role::Config, "config.json", b"{}"),
            file(Role::DataLoader, "my-data.json", &[b' '; 5_000]),
            file(Role::Prompts, "p", b""),
        ]
    }

    #[test]
    fn what_was_packed_comes_back_whatever_follows_it() {
        let mut packed = pack(ID, &files());
        assert_eq!(unpack(ID, &packed), Some(files()));
        packed.extend_from_slice(b"what a longer file has left behind");
        assert_eq!(unpack(ID, &packed), Some(files()));
    }

    #[test]
    fn nothing_torn_damaged_or_anothers_passes() {
        let packed = pack(ID, &files());
        assert_eq!(unpack(StagingId([8; 16]), &packed), None);
        for length in 0..packed.len() {
            assert_eq!(unpack(ID, &packed[..length]), None, "cut to {length} bytes");
        }
        for at in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x20;
            assert_eq!(unpack(ID, &damaged), None, "damaged at byte {at}");
        }
        assert_eq!(unpack(ID, &vec![0; packed.len()]), None);
    }
}
