//! What several targets share: inputs in pieces, and files with the checksums they need to be looked into.

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64, xxh3_64_with_seed};

/// Pieces of one input at most: more find nothing new and only take time.
const PIECES_MAX: usize = 64;

/// An input as pieces: each behind its length in two bytes, the last one as long as it happens to be.
pub fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (piece, behind) = behind.split_at(length);
        rest = behind;
        Some(piece)
    })
    .take(PIECES_MAX)
}

/// The input whose [`pieces`] are these.
pub fn join<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut joined = Vec::new();
    for piece in pieces {
        let length = u16::try_from(piece.len()).expect("a seed's piece is short");
        joined.extend_from_slice(&length.to_le_bytes());
        joined.extend_from_slice(piece);
    }
    joined
}

/// A snapshot's file of the second version with these frames, the first of which is its head, with every checksum right.
pub fn sealed<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut file = b"stepsnp\x02".to_vec();
    let mut sums = Xxh3Default::new();
    let mut count = 0_u64;
    for frame in frames {
        let length = (frame.len() as u32).to_le_bytes();
        let sum = if count == 0 {
            let covered = [&file[..], &length, frame].concat();
            xxh3_64(&covered)
        } else {
            xxh3_64_with_seed(frame, count)
        };
        let sum = sum.to_le_bytes();
        sums.update(&sum);
        file.extend_from_slice(&length);
        file.extend_from_slice(&sum);
        file.extend_from_slice(frame);
        count += 1;
    }
    let end = [count, file.len() as u64, sums.digest()].map(u64::to_le_bytes);
    let end = end.concat();
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(&xxh3_64(&end).to_le_bytes());
    file.extend_from_slice(&end);
    file
}

/// The frames of such a file.
pub fn unsealed(file: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let mut rest = &file[8..];
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 {
            break;
        }
        frames.push(&behind[8..8 + length]);
        rest = &behind[8 + length..];
    }
    frames
}
