//! Takes a snapshot in: piece by piece onto the disk, so that its size costs no memory.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::Message;
use stepcast_proto::raft::v1::InstallSnapshotRequest;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::snapshots::{Receiving, SnapshotFiles};
use crate::consensus::Inbound;
use crate::consensus::log::Position;

/// Pieces between the network and the disk.
const PIECES: usize = 4;

/// A sender that is silent for this long is gone.
const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// A snapshot that comes in.
pub(super) struct Arriving {
    pub(super) files: Arc<dyn SnapshotFiles>,
    pub(super) inbound: Arc<dyn Inbound>,
    pub(super) message: Message,
    /// Bytes of the file.
    pub(super) length: u64,
    pub(super) requests: Streaming<InstallSnapshotRequest>,
    /// Held until the node has decided, so that nothing else comes in under the same name before.
    pub(super) room: OwnedSemaphorePermit,
}

impl Arriving {
    /// Receives what is behind the header until it is whole, checked and on disk, and hands it to the node, which may have
    /// no use for it. Not to be broken off: a file that came whole is either handed on or removed.
    pub(super) async fn receive(mut self) -> Result<(), Status> {
        let metadata = self.message.get_snapshot().get_metadata();
        let at = Position {
            index: metadata.index,
            term: metadata.term,
        };
        let (pieces, written) = mpsc::channel(PIECES);
        let (files, length) = (Arc::clone(&self.files), self.length);
        let writing = spawn_blocking(move || {
            let receiving = files.receive(at).map_err(|error| failed(&error))?;
            write(receiving, length, written)
        });
        let fed = feed(&mut self.requests, pieces).await;
        // Waited for in any case: the disk is not at rest before.
        let written = writing.await;
        let written = written.map_err(|error| Status::internal(error.to_string()))?;
        if let Err(why) = written {
            // Without all of its pieces it is not whole, and why they did not come says more.
            return Err(fed.err().unwrap_or(why));
        }
        if self.inbound.receive_snapshot(self.message).await == Ok(false) {
            tracing::info!(index = at.index, "a snapshot that came is of no use");
            let files = self.files;
            let removed = spawn_blocking(move || files.discard(at)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "the snapshot is removed at the next start"
                );
            }
        }
        drop(self.room);
        Ok(())
    }
}

async fn feed(
    requests: &mut Streaming<InstallSnapshotRequest>,
    pieces: mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    while let Some(request) = timeout(PIECE_WITHIN, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no piece of the snapshot came for 30 s"))??
    {
        if pieces.send(request.data).await.is_err() {
            // The disk has refused; what it says is more than that.
            break;
        }
    }
    Ok(())
}

fn write(
    mut receiving: Box<dyn Receiving>,
    length: u64,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<(), Status> {
    let mut received = 0_u64;
    while let Some(piece) = pieces.blocking_recv() {
        received += piece.len() as u64;
        if received > length {
            break;
        }
        receiving.write(&piece).map_err(|error| failed(&error))?;
    }
    if received != length {
        return Err(Status::data_loss(format!(
            "the snapshot was said to have {length} bytes, and {received} came"
        )));
    }
    receiving
        .finish()
        .map_err(|error| Status::data_loss(super::dial::chain(&error)))
}

fn failed(error: &dyn Error) -> Status {
    Status::internal(format!(
        "the snapshot cannot be kept: {}",
        super::dial::chain(error)
    ))
}
