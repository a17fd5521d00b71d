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
use crate::consensus::log::Position;

/// Pieces between the network and the disk.
const PIECES: usize = 4;

/// A sender that is silent for this long is gone.
const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// Receives what is behind the header, and returns once it is whole, checked and on disk.
pub(super) async fn receive(
    files: Arc<dyn SnapshotFiles>,
    message: &Message,
    length: u64,
    mut requests: Streaming<InstallSnapshotRequest>,
    room: OwnedSemaphorePermit,
) -> Result<(), Status> {
    let metadata = message.get_snapshot().get_metadata();
    let at = Position {
        index: metadata.index,
        term: metadata.term,
    };
    let (pieces, written) = mpsc::channel(PIECES);
    let writing = spawn_blocking(move || {
        // Until the disk is done with it, even if the caller has gone.
        let _room = room;
        let receiving = files.receive(at).map_err(|error| failed(&error))?;
        write(receiving, length, written)
    });
    while let Some(request) = timeout(PIECE_WITHIN, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no piece of the snapshot came for 30 s"))??
    {
        if pieces.send(request.data).await.is_err() {
            // The disk has refused; what it says is more than that.
            break;
        }
    }
    drop(pieces);
    writing
        .await
        .map_err(|error| Status::internal(error.to_string()))?
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
