//! What a server and a process that runs its statements say to one another, over one socket.
//!
//! A frame is its length, the length of its head, the head as JSON, and bytes that the head speaks of. Both ends are the
//! same program, so there are no versions.

use std::ops::Range;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use futures::StreamExt;
use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::unix::OwnedReadHalf;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::super::{Answer, View, Wanted};
use crate::error::Error;
use crate::table::{DataFile, Kind};

/// The largest frame. A read is of columns of one object, which has some megabytes.
const FRAME_BYTES_MAX: usize = 512 << 20;

/// A frame up to here is sent as one; the pieces of a longer one are not copied together.
const SHORT: usize = 64 << 10;

/// From the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToProcess {
    /// A statement to run; one at a time.
    Ask(Ask),
    /// What a read found: the lengths of the pieces in the frame's bytes.
    Pieces {
        read: u64,
        found: Result<Vec<usize>, Unread>,
    },
}

/// From the process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToServer {
    /// The statement is here, and what becomes of this process from now on may be its doing.
    Taken,
    /// Pieces of one of the statement's objects are wanted.
    Read {
        read: u64,
        path: String,
        ranges: Vec<Range<u64>>,
    },
    /// The statement is answered; the frame's bytes are its rows as a stream of Arrow IPC.
    Answer(Result<Facts, Said>),
}

/// A statement, and the objects that it may read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) statement: String,
    pub(super) columns_only: bool,
    pub(super) time_max: Duration,
    tables: Vec<(String, Vec<(String, u64)>)>,
}

/// Why a read found nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Unread {
    pub(super) is_missing: bool,
    pub(super) why: String,
}

/// What is said of an answer beside its rows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    truncated: bool,
    objects_read: usize,
    objects: usize,
    bytes_read: u64,
    elapsed: Duration,
}

/// An error of a statement.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    Refused {
        message: String,
        hint: Option<String>,
    },
    Query {
        message: String,
        hint: Option<String>,
    },
    Unreachable(String),
    Damaged(String),
    TimedOut,
    OutOfMemory,
    Busy,
}

impl Ask {
    pub(super) fn new(statement: &str, wanted: Wanted, time_max: Duration, views: &[View]) -> Self {
        let files = |view: &View| {
            let files = view.files.iter();
            files
                .map(|file| (file.path.to_string(), file.bytes))
                .collect()
        };
        let tables = views.iter();
        Self {
            statement: statement.into(),
            columns_only: wanted == Wanted::Columns,
            time_max,
            tables: tables
                .map(|view| (view.kind.name().into(), files(view)))
                .collect(),
        }
    }

    pub(super) fn views(&self) -> Vec<View> {
        let tables = self.tables.iter().filter_map(|(name, files)| {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
            let file = |(path, bytes): &(String, u64)| {
                let path = Path::parse(path).ok()?;
                Some(DataFile {
                    path,
                    bytes: *bytes,
                })
            };
            let files = files.iter().filter_map(file).collect();
            Some(View { kind, files })
        });
        tables.collect()
    }
}

/// What is sent of an answer: its facts, and its rows.
pub(super) fn packed(answer: &Answer) -> Result<(Facts, Bytes), ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &answer.schema)?;
    for batch in &answer.batches {
        writer.write(batch)?;
    }
    let facts = Facts {
        truncated: answer.truncated,
        objects_read: answer.objects_read,
        objects: answer.objects,
        bytes_read: answer.bytes_read,
        elapsed: answer.elapsed,
    };
    Ok((facts, writer.into_inner()?.into()))
}

/// The answer that was packed.
pub(super) fn unpacked(facts: Facts, rows: Bytes) -> Result<Answer, ArrowError> {
    let reader = StreamReader::try_new(rows.reader(), None)?;
    Ok(Answer {
        schema: reader.schema(),
        batches: reader.collect::<Result<_, _>>()?,
        truncated: facts.truncated,
        objects_read: facts.objects_read,
        objects: facts.objects,
        bytes_read: facts.bytes_read,
        elapsed: facts.elapsed,
    })
}

impl From<Error> for Said {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused { message, hint } => Self::Refused { message, hint },
            Error::TimedOut(_) => Self::TimedOut,
            Error::OutOfMemory => Self::OutOfMemory,
            Error::Busy => Self::Busy,
            Error::Unreachable { source } | Error::Denied { source } => {
                Self::Unreachable(source.to_string())
            }
            Error::Damaged { source } => Self::Damaged(source.to_string()),
            Error::Query { message, hint } => Self::Query { message, hint },
            other => Self::Query {
                message: other.to_string(),
                hint: None,
            },
        }
    }
}

impl Said {
    /// The error as the server tells it, which knows how long a statement may take.
    pub(super) fn told(self, time_max: Duration) -> Error {
        match self {
            Self::Refused { message, hint } => Error::Refused { message, hint },
            Self::Query { message, hint } => Error::Query { message, hint },
            Self::Unreachable(why) => Error::unreachable(why),
            Self::Damaged(why) => Error::Damaged { source: why.into() },
            Self::TimedOut => Error::TimedOut(time_max),
            Self::OutOfMemory => Error::OutOfMemory,
            Self::Busy => Error::Busy,
        }
    }
}

/// Frames as they come.
pub(super) struct Frames(FramedRead<OwnedReadHalf, LengthDelimitedCodec>);

impl Frames {
    pub(super) fn of(socket: OwnedReadHalf) -> Self {
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(FRAME_BYTES_MAX)
            .new_codec();
        Self(FramedRead::new(socket, codec))
    }

    /// The next frame, or `None` when the other end is gone. Nothing is lost when this is dropped before it is ready.
    pub(super) async fn next<H: DeserializeOwned>(&mut self) -> Option<(H, Bytes)> {
        let frame = self.0.next().await?.ok()?;
        parted(frame)
    }
}

fn parted<H: DeserializeOwned>(mut frame: BytesMut) -> Option<(H, Bytes)> {
    let length = frame.try_get_u32().ok()? as usize;
    let head = (length <= frame.len()).then(|| frame.split_to(length))?;
    Some((serde_json::from_slice(&head).ok()?, frame.freeze()))
}

/// Sends one frame; the pieces follow one another in its bytes.
pub(super) async fn send<H: Serialize>(
    socket: &mut (impl AsyncWrite + Unpin),
    head: &H,
    pieces: &[Bytes],
) -> std::io::Result<()> {
    let head = serde_json::to_vec(head)?;
    let bytes: usize = pieces.iter().map(Bytes::len).sum();
    let length = size_of::<u32>() + head.len() + bytes;
    let lengths = (u32::try_from(length), u32::try_from(head.len()));
    let (Ok(length), Ok(head_length), true) = (lengths.0, lengths.1, length <= FRAME_BYTES_MAX)
    else {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    };
    // What is short goes in one write, which wakes the reader once.
    let mut first = BytesMut::with_capacity(SHORT + head.len());
    first.put_u32(length);
    first.put_u32(head_length);
    first.put_slice(&head);
    let mut pieces = pieces.iter();
    let long = pieces.find(|piece| {
        let is_long = first.len() + piece.len() > SHORT;
        if !is_long {
            first.put_slice(piece);
        }
        is_long
    });
    socket.write_all(&first).await?;
    for piece in long.into_iter().chain(pieces) {
        socket.write_all(piece).await?;
    }
    Ok(())
}

/// The pieces of a frame's bytes.
pub(super) fn split(mut bytes: Bytes, lengths: &[usize]) -> Option<Vec<Bytes>> {
    let whole: usize = lengths
        .iter()
        .try_fold(0, |sum: usize, length| sum.checked_add(*length))?;
    if whole != bytes.len() {
        return None;
    }
    Some(
        lengths
            .iter()
            .map(|length| bytes.split_to(*length))
            .collect(),
    )
}
