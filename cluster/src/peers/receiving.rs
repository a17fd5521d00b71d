//! Takes a snapshot in: piece by piece onto the disk, so that its size costs no memory.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::eraftpb::Message;
use stepcast_proto::raft::v1::{InstallSnapshotRequest, StreamSnapshotResponse};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::broken_off::{self, Beginning, Transfer};
use super::dial::chain;
use super::seats::Call;
use super::shared::Shared;
use crate::consensus::Inbound;
use crate::snapshot::Error;

/// Pieces between the network and the disk.
const PIECES: usize = 4;

/// A sender that is silent for this long is gone.
const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// Where the sender hears how far its snapshot is.
pub(super) type Answers = mpsc::Sender<Result<StreamSnapshotResponse, Status>>;

/// A snapshot that comes in.
pub(super) struct Arriving {
    pub(super) shared: Arc<Shared>,
    pub(super) inbound: Arc<dyn Inbound>,
    pub(super) message: Message,
    pub(super) transfer: Transfer,
    /// What has come of it before.
    pub(super) begun: Option<Beginning>,
    pub(super) requests: Streaming<InstallSnapshotRequest>,
    /// Who is told how much was taken, if the sender wants to know.
    pub(super) answers: Option<Answers>,
    /// Held until the node has decided, so that nothing else comes in under the same name before.
    pub(super) room: OwnedSemaphorePermit,
    /// Held until then too: the connection is needed for as long.
    pub(super) call: Call,
}

impl Arriving {
    /// Bytes that have come before.
    pub(super) fn taken(&self) -> u64 {
        self.begun.as_ref().map_or(0, |begun| begun.taken)
    }

    /// Receives what is behind the header until it is whole, checked and on disk, and hands it to the node, which may have
    /// no use for it. Not to be broken off: a file that came whole is either handed on or removed.
    pub(super) async fn receive(mut self) -> Result<(), Status> {
        let Transfer { at, length, .. } = self.transfer;
        let (pieces, written) = mpsc::channel(PIECES);
        let files = Arc::clone(&self.shared.snapshots);
        let (transfer, before, begun) = (self.transfer, self.taken(), self.begun.take());
        let writing = spawn_blocking(move || {
            let beginning = match begun {
                Some(begun) => begun,
                None => Beginning {
                    transfer,
                    taken: 0,
                    receiving: files.receive(at)?,
                },
            };
            write(beginning, written)
        });
        let fed = match self.answers {
            None => feed(&mut self.requests, pieces, before, None).await,
            Some(ref answers) => tokio::select! {
                fed = feed(&mut self.requests, pieces, before, Some(answers)) => fed,
                // The next one need not wait until it has been silent for long enough.
                () = answers.closed() => Err(Status::cancelled("the sender is gone")),
            },
        };
        // Waited for in any case: the disk is not at rest before.
        let written = writing.await;
        let written = written.map_err(|error| Status::internal(error.to_string()))?;
        let written = match (written, fed.is_err()) {
            // It was not the sender's will to end here.
            (Ok(Some(short)), true) => {
                broken_off::keep(&self.shared, short);
                return fed;
            }
            (Ok(Some(short)), false) => Err(Fault::Length(short.taken)),
            (Ok(None), _) => Ok(()),
            (Err(fault), _) => Err(fault),
        };
        if let Err(why) = written {
            // Without all of its pieces it is not whole, and why they did not come says more.
            fed?;
            return Err(match why {
                Fault::Unkept(error) => {
                    self.shared.unkept.tell(at.index, &error);
                    let why = chain(&error);
                    Status::internal(format!("the snapshot cannot be kept: {why}"))
                }
                Fault::Length(received) => Status::data_loss(format!(
                    "the snapshot was said to have {length} bytes, and {received} came"
                )),
            });
        }
        self.shared.unkept.forget();
        if self.inbound.receive_snapshot(self.message).await == Ok(false) {
            tracing::info!(index = at.index, "a snapshot that came is of no use");
            let files = Arc::clone(&self.shared.snapshots);
            let removed = spawn_blocking(move || files.discard(at)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the snapshot is removed at the next start"
                );
            }
        }
        drop((self.room, self.call));
        Ok(())
    }
}

async fn feed(
    requests: &mut Streaming<InstallSnapshotRequest>,
    pieces: mpsc::Sender<Bytes>,
    mut taken: u64,
    answers: Option<&Answers>,
) -> Result<(), Status> {
    while let Some(request) = timeout(PIECE_WITHIN, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no piece of the snapshot came for 30 s"))??
    {
        taken += request.data.len() as u64;
        if pieces.send(request.data).await.is_err() {
            // The disk has refused; what it says is more than that.
            break;
        }
        if let Some(answers) = answers {
            let kept = false;
            // Nobody listens any more: that is found out elsewhere.
            let _ = answers
                .send(Ok(StreamSnapshotResponse { taken, kept }))
                .await;
        }
    }
    Ok(())
}

/// Why what came is not kept.
enum Fault {
    /// So many bytes came, and not as many as were said: the sender's own log says why.
    Length(u64),
    /// The disk refuses it, or it is no snapshot that this node can use.
    Unkept(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Unkept(error)
    }
}

/// Writes what comes behind this beginning. Gives that back with it where not all has come.
fn write(
    mut beginning: Beginning,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<Option<Beginning>, Fault> {
    let length = beginning.transfer.length;
    while let Some(piece) = pieces.blocking_recv() {
        beginning.taken += piece.len() as u64;
        if beginning.taken > length {
            return Err(Fault::Length(beginning.taken));
        }
        beginning.receiving.write(&piece)?;
    }
    if beginning.taken < length {
        return Ok(Some(beginning));
    }
    beginning.receiving.finish()?;
    Ok(None)
}

/// Why the last snapshot that came is not kept. A leader sends it again and again, so each cause is said once.
#[derive(Debug, Default)]
pub(super) struct Unkept(Mutex<Option<String>>);

impl Unkept {
    /// Says it in this node's log with what to do, unless it is what was said last; gives whether it was said.
    fn tell(&self, index: u64, error: &Error) -> bool {
        let (cause, advice) = match error {
            Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull => (
                source.to_string(),
                "make room on the disk of the data folder",
            ),
            Error::Io { source, .. } => (
                source.to_string(),
                "look at the disk and the rights of the data folder",
            ),
            Error::Damaged { what, .. } => (
                what.clone(),
                "it came damaged; if that lasts, look at the leader's disk and at both nodes' memory",
            ),
            Error::UpgradeRequired { .. } => (error.to_string(), "upgrade this node"),
            _ => (error.to_string(), "report it"),
        };
        let news = self.0.lock().replace(cause.clone()) != Some(cause);
        if news {
            tracing::warn!(
                index,
                why = chain(error),
                "a snapshot that the leader sends cannot be kept: {advice}; it is sent again by itself"
            );
        }
        news
    }

    /// One was kept: what comes from now on is said anew.
    fn forget(&self) {
        *self.0.lock() = None;
    }

    /// What was said last.
    #[cfg(test)]
    pub(super) fn told(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once_whatever_the_file_is_called() {
        let unkept = Unkept::default();
        let tell = |path: &str, kind: ErrorKind| {
            let (path, source) = (path.to_owned(), kind.into());
            unkept.tell(9, &Error::Io { path, source })
        };
        assert!(tell("receiving-1.tmp", ErrorKind::StorageFull));
        assert!(!tell("receiving-2.tmp", ErrorKind::StorageFull));
        assert!(tell("receiving-3.tmp", ErrorKind::PermissionDenied));
        assert!(tell("receiving-4.tmp", ErrorKind::StorageFull));
        unkept.forget();
        assert!(tell("receiving-5.tmp", ErrorKind::StorageFull));
    }
}
