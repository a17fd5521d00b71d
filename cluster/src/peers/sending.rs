//! Sends a snapshot to a node that the log no longer reaches, on a connection of its own, and always says how it went.

use std::fs::File;
use std::io::SeekFrom;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use protobuf::Message as _;
use raft::eraftpb::Message;
use stepcast_proto::raft::v1::peer_service_client::PeerServiceClient;
use stepcast_proto::raft::v1::{InstallSnapshotRequest, SnapshotHeader, StreamSnapshotResponse};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, Take};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::dial::{Watch, chain};
use super::flow::{Flow, PIECE_BYTES};
use super::link::{Link, reach};
use super::service::TAKEN;
use super::shared::Shared;
use crate::consensus::Delivery;
use crate::consensus::log::Position;

/// Bytes that are read from the file at once.
const READ_BYTES: usize = 256 << 10;

/// When nothing was taken for this long, the receiver is gone.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// After the last piece the receiver checks and syncs all of it, which for gigabytes takes a while.
const DONE_WITHIN: Duration = Duration::from_secs(300);

/// What is on its way to a peer: one snapshot at a time.
#[derive(Debug, Default)]
pub(super) struct Lane {
    running: Option<Message>,
    /// What Raft has asked for since, if that is another one.
    next: Option<Message>,
}

impl Lane {
    /// Whether this one is to be sent now. While another is, the newest one waits for its end.
    fn begin(&mut self, message: &Message) -> bool {
        let Some(running) = &self.running else {
            self.running = Some(message.clone());
            return true;
        };
        self.next = (running != message).then(|| message.clone());
        false
    }

    /// The transfer is over: gives what is to be sent now.
    fn end(&mut self) -> Option<Message> {
        self.running = self.next.take();
        self.running.clone()
    }
}

/// Sends the snapshot that this message stands for, in a task of its own. Of what runs already nothing is said before its
/// end.
pub(super) fn begin(shared: &Arc<Shared>, message: Message) {
    let node = message.to;
    let Some(link) = shared.link(node) else {
        shared.tell(|inbound| inbound.snapshot_sent(node, Delivery::Failed));
        return;
    };
    if !link.lane.lock().begin(&message) {
        return;
    }
    let mut report = Report {
        shared: Arc::clone(shared),
        link,
        ended: Delivery::Failed,
    };
    shared.runtime.spawn(async move {
        let mut sending = Some(message);
        while let Some(message) = sending {
            report.ended = send(&report.shared, &report.link, message).await;
            sending = report.link.lane.lock().end();
        }
    });
}

/// Says how it went when it goes out of scope, whatever became of the sending. Only of the last one: what Raft does not wait
/// for any more is none of its concern.
struct Report {
    shared: Arc<Shared>,
    link: Arc<Link>,
    ended: Delivery,
}

impl Drop for Report {
    fn drop(&mut self) {
        *self.link.lane.lock() = Lane::default();
        let node = self.link.node;
        self.shared
            .tell(|inbound| inbound.snapshot_sent(node, self.ended));
    }
}

async fn send(shared: &Arc<Shared>, link: &Link, message: Message) -> Delivery {
    let (node, metadata) = (link.node, message.get_snapshot().get_metadata());
    let at = Position {
        index: metadata.index,
        term: metadata.term,
    };
    let sent = match open(shared, at).await {
        Ok(Some((file, length))) => stream(shared, link, message, at, file, length).await,
        Ok(None) => {
            tracing::warn!(
                node,
                index = at.index,
                "a snapshot is not there any more, or damaged"
            );
            return Delivery::Unusable(at);
        }
        Err(why) => Err(why),
    };
    match sent {
        Ok(bytes) => {
            tracing::info!(node, index = at.index, bytes, "a snapshot has arrived");
            Delivery::Arrived
        }
        Err(why) => {
            tracing::warn!(node, index = at.index, why, "a snapshot has not arrived");
            // Whose fault that is does not show: what is sent again is looked through first.
            shared.snapshots.doubt(at);
            Delivery::Failed
        }
    }
}

/// The snapshot of this entry and its length, if it is there.
async fn open(shared: &Shared, at: Position) -> Result<Option<(File, u64)>, String> {
    let files = Arc::clone(&shared.snapshots);
    let opened = spawn_blocking(move || {
        let Some(file) = files.open(at).map_err(|error| chain(&error))? else {
            return Ok(None);
        };
        let length = file.metadata().map_err(|error| chain(&error))?.len();
        Ok(Some((file, length)))
    });
    opened.await.map_err(|error| error.to_string())?
}

/// Sends the file; gives its length.
async fn stream(
    shared: &Arc<Shared>,
    link: &Link,
    message: Message,
    at: Position,
    file: File,
    length: u64,
) -> Result<u64, String> {
    let header = SnapshotHeader {
        hello: Some(shared.hello(link.node)),
        message: Bytes::from(message.write_to_bytes().map_err(|error| chain(&error))?),
        length,
        goes_on: true,
    };
    let reached = reach(shared, link.node, &link.address(), Watch::Caller).await?;
    let mut client =
        PeerServiceClient::new(reached.channel).max_encoding_message_size(super::FRAME_BYTES_MAX);
    let flow = Arc::new(Flow::new());
    let (begin, begins) = oneshot::channel();
    let pieces = pieces(
        header.clone(),
        file.into(),
        length,
        begins,
        Arc::clone(&flow),
    );
    let answers = timeout(STALLED_AFTER, client.stream_snapshot(pieces)).await;
    match answers.map_err(|_| stalled(STALLED_AFTER))? {
        Ok(answers) => {
            let taken = taken_before(answers.metadata()).min(length);
            if taken > 0 {
                let (node, index) = (link.node, at.index);
                tracing::info!(
                    node,
                    index,
                    taken,
                    length,
                    "a snapshot goes on where it had broken off"
                );
            }
            flow.goes_on_from(taken);
            // Without a reader the call is over, which it says itself.
            let _ = begin.send(taken);
            watched(answers.into_inner(), &flow, length).await
        }
        Err(status) if status.code() == Code::Unimplemented => {
            // From its beginning, which may have been read already.
            let file = open(shared, at).await?.ok_or("it is gone")?.0;
            unwatched(client, header, file, length).await
        }
        Err(status) => Err(chain(&status)),
    }
}

fn stalled(patience: Duration) -> String {
    format!("nothing went on for {} s", patience.as_secs())
}

/// Hears how far the receiver is, and lets as much go as that says.
async fn watched(
    mut answers: Streaming<StreamSnapshotResponse>,
    flow: &Flow,
    length: u64,
) -> Result<u64, String> {
    let mut patience = STALLED_AFTER;
    loop {
        let answer = timeout(patience, answers.message()).await;
        let answer = answer.map_err(|_| stalled(patience))?;
        match answer.map_err(|status| chain(&status))? {
            None => return Err("the receiver has ended without a word".to_owned()),
            Some(answer) if answer.kept => return Ok(length),
            Some(answer) => {
                flow.took(answer.taken);
                if answer.taken >= length {
                    patience = DONE_WITHIN;
                }
            }
        }
    }
}

/// To a receiver of an older version, which says nothing before its end.
async fn unwatched(
    mut client: PeerServiceClient<Channel>,
    header: SnapshotHeader,
    file: File,
    length: u64,
) -> Result<u64, String> {
    let flow = Arc::new(Flow::unbounded());
    let (begin, begins) = oneshot::channel();
    let _ = begin.send(0);
    let pieces = pieces(header, file.into(), length, begins, Arc::clone(&flow));
    let sent = client.install_snapshot(pieces);
    tokio::pin!(sent);
    let mut before = 0;
    loop {
        let now = flow.sent();
        let patience = if now >= length {
            DONE_WITHIN
        } else {
            STALLED_AFTER
        };
        tokio::select! {
            answer = &mut sent => {
                return answer.map(|_| length).map_err(|status| chain(&status));
            }
            () = sleep(patience) => {}
        }
        if flow.sent() == now && now == before {
            return Err(stalled(patience));
        }
        before = now;
    }
}

/// How many bytes of the snapshot the receiver has from before, as it says at once; an older one says nothing.
fn taken_before(metadata: &MetadataMap) -> u64 {
    let said = metadata.get(TAKEN).and_then(|said| said.to_str().ok());
    said.and_then(|said| said.parse().ok()).unwrap_or(0)
}

/// The header, and then the file from where it is said to begin, as it may go.
fn pieces(
    header: SnapshotHeader,
    file: tokio::fs::File,
    length: u64,
    begins: oneshot::Receiver<u64>,
    flow: Arc<Flow>,
) -> impl Stream<Item = InstallSnapshotRequest> + Send + 'static {
    let first = InstallSnapshotRequest {
        header: Some(header),
        data: Bytes::new(),
    };
    // Never more than was said, should the file have grown.
    let file = file.take(length);
    let begin = (Some(first), Some(begins), file, Bytes::new());
    futures::stream::unfold(begin, move |(first, begins, mut file, mut read)| {
        let flow = Arc::clone(&flow);
        async move {
            if let Some(first) = first {
                return Some((first, (None, begins, file, read)));
            }
            if let Some(begins) = begins {
                go_to(&mut file, length, begins.await.ok()?).await?;
            }
            if read.is_empty() {
                read = next(&mut file).await?;
            }
            let data = read.split_to(read.len().min(PIECE_BYTES));
            flow.send(data.len()).await;
            let piece = InstallSnapshotRequest { header: None, data };
            Some((piece, (None, None, file, read)))
        }
    })
}

/// Has the file read on from there; nothing where it cannot.
async fn go_to(file: &mut Take<tokio::fs::File>, length: u64, place: u64) -> Option<()> {
    if let Err(error) = file.get_mut().seek(SeekFrom::Start(place)).await {
        tracing::error!(%error, "a snapshot cannot be read");
        return None;
    }
    file.set_limit(length - place);
    Some(())
}

/// The next bytes of the file; nothing at its end.
async fn next(file: &mut (impl AsyncRead + Unpin)) -> Option<Bytes> {
    let mut data = BytesMut::with_capacity(READ_BYTES);
    while data.len() < READ_BYTES {
        match file.read_buf(&mut data).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                // The receiver finds that bytes are missing.
                tracing::error!(%error, "a snapshot cannot be read");
                return None;
            }
        }
    }
    (!data.is_empty()).then(|| data.freeze())
}
