//! A snapshot's file, byte for byte: a head, the state in chunks, an end, each with its checksum and none larger than a MiB.
//!
//! Version 2: the magic with the version as its last byte; frames of length (4 bytes), checksum (8) and as many bytes; a
//! frame of length 0 with the checksum of the end, which says how many frames there were, how many bytes, and the
//! checksum of their checksums. All numbers are little-endian. The head's checksum covers the magic and the length too,
//! in this and in every later version, so that a newer file is told from a damaged one.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use stepcast_scheduler::state::{CHUNK_BYTES_MAX, RestoreError};
use stepcast_scheduler::{Restoring, View};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64, xxh3_64_with_seed};

use super::{Header, Restored, first};
use crate::consensus::log::Position;
use crate::members::Members;

/// First bytes of every snapshot file, before the byte that is the version.
pub(super) const MAGIC: [u8; 7] = *b"stepsnp";

/// The version that is written, and the newest that is read.
pub(super) const VERSION: u8 = 2;

/// Magic and version.
const PREFIX: usize = MAGIC.len() + 1;

/// Length and checksum of a frame.
const FRAME_HEAD: usize = 4 + 8;

/// Frames, bytes and checksum, behind the last frame.
const END: usize = 8 + 8 + 8;

/// Largest file of the first version, which is read in one piece: it was made for 200,000 jobs.
const FIRST_BYTES_MAX: usize = 4 << 30;

/// Why bytes are no snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They are not what was written; with what and where.
    Damaged(String),
    /// A newer program wrote them.
    UpgradeRequired,
    /// They are what was written, and yet no state.
    State(RestoreError),
}

/// The head as it is written.
#[derive(Serialize, Deserialize)]
struct Head {
    index: u64,
    term: u64,
    /// The format of the log that a reader must know.
    log_format: u16,
    members: Vec<u8>,
}

/// Writes a snapshot; gives back its size in bytes.
pub(super) fn write(to: &mut impl Write, header: &Header, view: &View) -> io::Result<u64> {
    let mut writing = Writing::begin(to, header, view.format())?;
    for chunk in view.chunks() {
        writing.chunk(&chunk)?;
    }
    writing.end()
}

/// A file that is being written.
pub(super) struct Writing<W> {
    to: W,
    frames: u64,
    bytes: u64,
    sums: Xxh3Default,
}

impl<W: Write> Writing<W> {
    pub(super) fn begin(mut to: W, header: &Header, log_format: u16) -> io::Result<Self> {
        let head = Head {
            index: header.at.index,
            term: header.at.term,
            log_format,
            members: header.members.encode(),
        };
        let head = postcard::to_extend(&head, Vec::new()).map_err(io::Error::other)?;
        let mut prefix = MAGIC.to_vec();
        prefix.push(VERSION);
        prefix.extend_from_slice(&(head.len() as u32).to_le_bytes());
        let sum = head_sum(&prefix, &head);
        to.write_all(&prefix)?;
        to.write_all(&sum.to_le_bytes())?;
        to.write_all(&head)?;
        let mut sums = Xxh3Default::new();
        sums.update(&sum.to_le_bytes());
        Ok(Self {
            to,
            frames: 1,
            bytes: (PREFIX + FRAME_HEAD + head.len()) as u64,
            sums,
        })
    }

    pub(super) fn chunk(&mut self, chunk: &[u8]) -> io::Result<()> {
        let sum = xxh3_64_with_seed(chunk, self.frames).to_le_bytes();
        self.to.write_all(&(chunk.len() as u32).to_le_bytes())?;
        self.to.write_all(&sum)?;
        self.to.write_all(chunk)?;
        self.sums.update(&sum);
        self.frames += 1;
        self.bytes += (FRAME_HEAD + chunk.len()) as u64;
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<u64> {
        let end = end(self.frames, self.bytes, self.sums.digest());
        self.to.write_all(&0_u32.to_le_bytes())?;
        self.to.write_all(&xxh3_64(&end).to_le_bytes())?;
        self.to.write_all(&end)?;
        self.to.flush()?;
        Ok(self.bytes + (FRAME_HEAD + END) as u64)
    }
}

/// What is done with the chunks of a file.
pub(super) trait Chunks {
    /// Takes the next one.
    fn take(&mut self, chunk: &[u8]) -> Result<(), RestoreError>;
}

impl Chunks for Restoring {
    fn take(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        Restoring::take(self, chunk)
    }
}

/// For whoever only wants to know whether the file is whole.
impl Chunks for () {
    fn take(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

/// A file that is being read, in pieces of any size. Holds one frame at most.
pub(super) struct Reading<C> {
    chunks: C,
    /// What has come of the frame that comes next.
    pending: Vec<u8>,
    /// Where that frame begins.
    offset: u64,
    header: Option<Header>,
    frames: u64,
    sums: Xxh3Default,
    is_over: bool,
    /// Whether it is a file of the first version, which is kept whole until its end.
    is_first: bool,
}

impl<C: Chunks> Reading<C> {
    pub(super) fn new(chunks: C) -> Self {
        Self {
            chunks,
            pending: Vec::new(),
            offset: 0,
            header: None,
            frames: 0,
            sums: Xxh3Default::new(),
            is_over: false,
            is_first: false,
        }
    }

    /// What the file begins with, once that has come.
    pub(super) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.pending.extend_from_slice(piece);
        let mut from = 0;
        while !self.is_first
            && let Some(taken) = self.frame(from)?
        {
            from += taken;
            self.offset += taken as u64;
        }
        self.pending.drain(..from);
        let max = if self.is_first {
            FIRST_BYTES_MAX
        } else {
            usize::MAX
        };
        if self.pending.len() > max || (self.is_over && !self.pending.is_empty()) {
            return Err(self.damaged("it is longer than it should be"));
        }
        Ok(())
    }

    /// Takes one frame from `from` on, if it is there whole; gives back its length.
    fn frame(&mut self, from: usize) -> Result<Option<usize>, Fault> {
        let bytes = &self.pending[from..];
        if self.is_over {
            return Ok(None);
        }
        let prefix = if self.header.is_none() { PREFIX } else { 0 };
        let Some((head, rest)) = bytes.split_at_checked(prefix + FRAME_HEAD) else {
            return Ok(None);
        };
        if prefix > 0 && head[..MAGIC.len()] != MAGIC {
            return Err(self.damaged("it does not begin like a snapshot"));
        }
        if prefix > 0 && head[MAGIC.len()] == first::VERSION {
            self.is_first = true;
            return Ok(None);
        }
        let length = u32_at(head, prefix) as usize;
        let sum = u64_at(head, prefix + 4);
        if length > CHUNK_BYTES_MAX {
            return Err(self.damaged("the length of a chunk is wrong"));
        }
        let is_end = prefix == 0 && length == 0;
        let Some((body, _)) = rest.split_at_checked(if is_end { END } else { length }) else {
            return Ok(None);
        };
        let expected = match (prefix, is_end) {
            (0, true) => xxh3_64(body),
            (0, false) => xxh3_64_with_seed(body, self.frames),
            _ => head_sum(&head[..prefix + 4], body),
        };
        if sum != expected {
            return Err(self.damaged(if is_end {
                "the checksum of its end is wrong"
            } else {
                "the checksum of a chunk is wrong"
            }));
        }
        let taken = head.len() + body.len();
        match (prefix, is_end) {
            (0, true) => {
                if body != end(self.frames, self.offset, self.sums.digest()) {
                    return Err(self.damaged("its end belongs to another file"));
                }
                self.is_over = true;
            }
            (0, false) => self.chunks.take(body).map_err(Fault::State)?,
            _ => {
                if head[MAGIC.len()] != VERSION {
                    return Err(Fault::UpgradeRequired);
                }
                let header = read_head(body).ok_or_else(|| self.damaged("its head is none"))?;
                self.header = Some(header);
            }
        }
        self.sums.update(&sum.to_le_bytes());
        self.frames += 1;
        Ok(Some(taken))
    }

    fn damaged(&self, what: &str) -> Fault {
        Fault::Damaged(format!(
            "{what} (chunk {}, at byte {})",
            self.frames, self.offset
        ))
    }

    /// What the pieces were put into, once the last one has come.
    fn whole(self) -> Result<(Header, C), Fault> {
        let is_over = self.is_over;
        let cut = self.damaged("it ends too early");
        match self.header {
            Some(header) if is_over => Ok((header, self.chunks)),
            _ => Err(cut),
        }
    }
}

impl Reading<Restoring> {
    /// The state, once the last piece has come.
    pub(super) fn finish(self) -> Result<Restored, Fault> {
        if self.is_first {
            return first::read(&self.pending);
        }
        let (header, restoring) = self.whole()?;
        let state = restoring.finish().map_err(Fault::State)?;
        if state.applied_index() > header.at.index {
            return Err(Fault::Damaged(format!(
                "its head says entry {}, and its state has entry {}",
                header.at.index,
                state.applied_index()
            )));
        }
        Ok(Restored { header, state })
    }
}

impl Reading<()> {
    /// The head, once the last piece has come.
    pub(super) fn finish(self) -> Result<Header, Fault> {
        if self.is_first {
            return first::check(&self.pending);
        }
        Ok(self.whole()?.0)
    }
}

fn read_head(bytes: &[u8]) -> Option<Header> {
    let (head, rest): (Head, _) = postcard::take_from_bytes(bytes).ok()?;
    Some(Header {
        at: Position {
            index: head.index,
            term: head.term,
        },
        members: Members::decode(&head.members).filter(|_| rest.is_empty())?,
    })
}

fn head_sum(prefix: &[u8], head: &[u8]) -> u64 {
    let mut sum = Xxh3Default::new();
    sum.update(prefix);
    sum.update(head);
    sum.digest()
}

fn end(frames: u64, bytes: u64, sums: u64) -> [u8; END] {
    let mut end = [0; END];
    for (at, word) in [frames, bytes, sums].into_iter().enumerate() {
        end[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
    end
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}
