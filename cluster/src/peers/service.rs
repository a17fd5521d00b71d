//! What this node answers to other nodes, and to those that ask to join.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use stepcast_proto::raft::v1::peer_service_server::PeerService;
use stepcast_proto::raft::v1::{
    ExchangeRequest, ExchangeResponse, Hello, InstallSnapshotRequest, InstallSnapshotResponse,
    JoinRequest, JoinResponse, PeerNode, Standing, StreamSnapshotResponse,
};
use stepcast_scheduler::model::Generation;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::admission::{Admission, Applicant, NotAdmitted, TEXT_BYTES_MAX};
use super::authority::PublicKey;
use super::broken_off::Transfer;
use super::listener::Caller;
use super::proof;
use super::receiving::{Answers, Arriving};
use super::refusal;
use super::shared::{Attached, Shared};
use super::tls;
use super::token::{self, JoinToken};
use crate::consensus::log::Position;
use crate::members::Members;

/// A caller says who it is at once.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Pings that wait to be answered on one stream; of more than that the newest are not.
const PONGS: usize = 8;

/// How often it is looked at whether a peer whose messages are taken is still a member.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Words on how far a snapshot is that wait to be sent: they are small, and pieces wait for them.
const WORDS: usize = 16;

/// How a receiver says, before any of it comes, how many bytes of a snapshot it has from before.
pub(super) const TAKEN: &str = "stepcast-taken";

/// Joins at once: each is a change of the members, which Raft does one at a time.
const JOINS: usize = 4;

/// A node that does not know what is committed within this time cannot tell a good token from others.
const NEWEST_WITHIN: Duration = Duration::from_secs(5);

/// The leader lets a node in within this time or says that it could not.
const ADMITTED_WITHIN: Duration = Duration::from_secs(30);

/// The service behind the port for nodes.
pub(super) struct Service {
    shared: Arc<Shared>,
    joins: Semaphore,
    /// Tokens that this node does not know for good ones, looked at with what the others know.
    doubts: Semaphore,
    /// One snapshot at a time: it replaces everything there is.
    receiving: Arc<Semaphore>,
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            joins: Semaphore::new(JOINS),
            doubts: Semaphore::new(JOINS),
            receiving: Arc::new(Semaphore::new(1)),
        }
    }

    /// Refuses whoever has no certificate before reading anything.
    fn member(&self, caller: Option<&Caller>) -> Result<(Caller, Attached), Status> {
        let caller = caller
            .filter(|caller| caller.certificate.is_some())
            .ok_or_else(|| refusal::stranger(&super::roster::Stranger::NoCertificate))?;
        let attached = self.shared.attached().ok_or_else(refusal::starting)?;
        Ok((caller.clone(), attached))
    }

    fn hello(
        &self,
        caller: &Caller,
        attached: &Attached,
        hello: Option<Hello>,
    ) -> Result<Hello, Status> {
        let hello = hello.ok_or_else(|| {
            Status::invalid_argument("the first message of a stream says who speaks")
        })?;
        self.shared
            .roster
            .admit(
                hello.cluster_id,
                hello.from,
                hello.to,
                caller.certificate.as_ref(),
            )
            .map_err(|why| refusal::stranger(&why))?;
        check_proof(&self.shared, caller, attached, &hello)?;
        self.shared.connect(hello.from, &hello.peer_address);
        if let Some(link) = self.shared.link(hello.from)
            && let Some(certificate) = &caller.certificate
        {
            link.heard(&hello, certificate);
        }
        Ok(hello)
    }
}

/// Refuses a caller of which this node has not heard and that does not know what only members know by now.
fn check_proof(
    shared: &Shared,
    caller: &Caller,
    attached: &Attached,
    hello: &Hello,
) -> Result<(), Status> {
    if shared.roster.knows(hello.from) || is_proved(shared, caller, attached, hello) {
        return Ok(());
    }
    let why = "this node has not heard of the caller yet, and the caller does not show that it is a member";
    Err(refusal::refuse(Code::Unavailable, refusal::LATER, why))
}

/// Whether a caller knows what only members know. Before this node does itself, the certificate alone speaks for anybody.
fn is_proved(shared: &Shared, caller: &Caller, attached: &Attached, hello: &Hello) -> bool {
    let Some(present) = attached.admission.generations().pop() else {
        return true;
    };
    let certificate = caller.certificate.as_ref();
    let key = certificate.and_then(|certificate| tls::key_of(certificate).ok());
    let authority = shared.credentials.authority();
    key.is_some_and(|key| proof::holds(authority, &present, hello, &key))
}

impl Service {
    /// Lets pass who shows a token that is good, and gives it a place among those who join.
    async fn check(
        &self,
        token: &str,
        admission: &dyn Admission,
    ) -> Result<SemaphorePermit<'_>, Status> {
        let denied = |error: token::Error| Status::unauthenticated(error.to_string());
        let authority = self.shared.credentials.authority();
        let token = JoinToken::parse(token).map_err(denied)?;
        let in_generation = |generation: Option<Generation>| {
            token.check(authority, generation.as_ref(), SystemTime::now())
        };
        let as_known = in_generation(admission.generations().pop());
        let rooms = match as_known {
            Ok(()) => &self.joins,
            // This node may lag behind: its own word is not the last one, neither for nor against anybody.
            Err(token::Error::Forged) => &self.doubts,
            Err(error) => return Err(denied(error)),
        };
        let room = rooms.try_acquire().map_err(|_| {
            refusal::refuse(Code::Unavailable, refusal::LATER, "other nodes are joining")
        })?;
        let newest = timeout(NEWEST_WITHIN, admission.newest_generation());
        let unknown = || NotAdmitted::Later("the cluster has no leader".to_owned());
        let newest = newest.await.unwrap_or_else(|_| Err(unknown()));
        let newest = newest.map_err(|why| match as_known {
            Ok(()) => refused(why),
            // Where the others are is for members, and for who shows a good token.
            Err(_) => refused(unknown()),
        })?;
        in_generation(newest).map_err(denied)?;
        if as_known.is_ok() {
            return Ok(room);
        }
        drop(room);
        self.joins.try_acquire().map_err(|_| {
            refusal::refuse(Code::Unavailable, refusal::LATER, "other nodes are joining")
        })
    }

    /// A snapshot that a member begins to send, if none is coming in already.
    async fn arriving(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
        answers: Option<Answers>,
    ) -> Result<Arriving, Status> {
        let (caller, attached) = self.member(request.extensions().get())?;
        let mut requests = request.into_inner();
        let first = timeout(HELLO_WITHIN, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded("nobody said who speaks"))??;
        let header = first
            .and_then(|first| first.header)
            .ok_or_else(|| Status::invalid_argument("a snapshot begins with its header"))?;
        let hello = self.hello(&caller, &attached, header.hello)?;
        let call = caller.speech.begin();
        let message = read(&header.message, hello.from, self.shared.me.id)?;
        if message.get_msg_type() != MessageType::MsgSnapshot {
            return Err(Status::invalid_argument("this is no message of a snapshot"));
        }
        let room = Arc::clone(&self.receiving)
            .try_acquire_owned()
            .map_err(|_| {
                refusal::refuse(
                    Code::Unavailable,
                    refusal::LATER,
                    "another snapshot is coming in",
                )
            })?;
        let metadata = message.get_snapshot().get_metadata();
        let transfer = Transfer {
            from: hello.from,
            at: Position {
                index: metadata.index,
                term: metadata.term,
            },
            length: header.length,
        };
        // A sender that cannot go on begins anew, and what was kept is in its way.
        let begun = self.shared.broken_off.take(transfer);
        let begun = begun.filter(|_| header.goes_on);
        Ok(Arriving {
            shared: Arc::clone(&self.shared),
            inbound: attached.inbound,
            message,
            transfer,
            begun: begun.filter(|_| answers.is_some()),
            requests,
            answers,
            room,
            call,
        })
    }
}

#[tonic::async_trait]
impl PeerService for Service {
    type ExchangeStream = ReceiverStream<Result<ExchangeResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (caller, attached) = self.member(request.extensions().get())?;
        let mut requests = request.into_inner();
        let first = timeout(HELLO_WITHIN, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded("nobody said who speaks"))??;
        let hello = self.hello(&caller, &attached, first.and_then(|first| first.hello))?;
        let call = caller.speech.begin();
        let (answers, stream) = mpsc::channel(PONGS);
        let greeting = ExchangeResponse {
            hello: Some(self.shared.hello(hello.from)),
            ping: 0,
            standing: Some(standing(&attached)),
        };
        let _ = answers.try_send(Ok(greeting));
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let _call = call;
            tokio::select! {
                ended = exchange(&shared, &attached, &caller, &hello, requests, &answers) => {
                    if let Err(status) = ended {
                        let _ = answers.try_send(Err(status));
                    }
                }
                // The connection is gone, whether or not the last message has been read.
                () = answers.closed() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Result<Response<InstallSnapshotResponse>, Status> {
        let arriving = self.arriving(request, None).await?;
        // In a task of its own, which does not end with the connection.
        let received = tokio::spawn(arriving.receive()).await;
        received.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(InstallSnapshotResponse {}))
    }

    type StreamSnapshotStream = ReceiverStream<Result<StreamSnapshotResponse, Status>>;

    async fn stream_snapshot(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Result<Response<Self::StreamSnapshotStream>, Status> {
        #[cfg(test)]
        if self
            .shared
            .is_older
            .load(std::sync::atomic::Ordering::Relaxed)
        {
            return Err(Status::unimplemented("as an older version says"));
        }
        let (answers, stream) = mpsc::channel(WORDS);
        let arriving = self.arriving(request, Some(answers.clone())).await?;
        let (taken, before) = (arriving.transfer.length, arriving.taken());
        tokio::spawn(async move {
            let received = arriving.receive().await;
            let kept = received.map(|()| StreamSnapshotResponse { taken, kept: true });
            // Without anybody who listens the node has it all the same.
            let _ = answers.send(kept).await;
        });
        let mut response = Response::new(ReceiverStream::new(stream));
        if before > 0 {
            response.metadata_mut().insert(TAKEN, before.into());
        }
        Ok(response)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let attached = self.shared.attached().ok_or_else(refusal::starting)?;
        let caller = request.extensions().get::<Caller>().cloned();
        let request = request.into_inner();
        let authority = self.shared.credentials.authority();
        let _room = self.check(&request.token, &*attached.admission).await?;
        let _call = caller.map(|caller| caller.speech.begin());
        let (key, applicant) = applicant(request)?;
        let admitted = timeout(ADMITTED_WITHIN, attached.admission.admit(applicant))
            .await
            .unwrap_or_else(|_| {
                Err(NotAdmitted::Later(
                    "the cluster has not let the node in in time".to_owned(),
                ))
            })
            .map_err(refused)?;
        let certificate = authority
            .certify(admitted.node_id, &key)
            .map_err(|error| Status::internal(super::dial::chain(&error)))?;
        Ok(Response::new(JoinResponse {
            cluster_id: self.shared.cluster_id,
            node_id: admitted.node_id,
            certificate: Bytes::copy_from_slice(&certificate),
            authority: Bytes::copy_from_slice(authority.certificate()),
            authority_key: Bytes::copy_from_slice(authority.key()),
            nodes: nodes(&admitted.members),
        }))
    }
}

/// Takes a peer's messages for as long as it sends them and is a member.
async fn exchange(
    shared: &Shared,
    attached: &Attached,
    caller: &Caller,
    hello: &Hello,
    mut requests: Streaming<ExchangeRequest>,
    answers: &mpsc::Sender<Result<ExchangeResponse, Status>>,
) -> Result<(), Status> {
    let from = hello.from;
    let mut looked = Instant::now();
    loop {
        let request = timeout(LOOK_EVERY, requests.message()).await;
        // A node that was removed meanwhile is heard no longer, nor who has made itself a certificate of one that is to come
        // by what a removed one knew; nor does a stream of theirs last on which they say nothing.
        if let Some(certificate) = &caller.certificate
            && looked.elapsed() >= LOOK_EVERY
        {
            let still = shared.roster.is(from, certificate);
            still.map_err(|why| refusal::stranger(&why))?;
            check_proof(shared, caller, attached, hello)?;
            looked = Instant::now();
        }
        let request = match request {
            Ok(request) => request?,
            Err(_) => continue,
        };
        let Some(request) = request else {
            return Ok(());
        };
        if request.ping != 0 {
            let _ = answers.try_send(Ok(ExchangeResponse {
                hello: None,
                ping: request.ping,
                standing: Some(standing(attached)),
            }));
        }
        if request.messages.is_empty() {
            continue;
        }
        let messages = request.messages.iter();
        let messages: Vec<Message> = messages
            .map(|bytes| read(bytes, from, shared.me.id))
            .collect::<Result<_, _>>()?;
        if messages
            .iter()
            .any(|message| message.get_msg_type() == MessageType::MsgSnapshot)
        {
            return Err(Status::invalid_argument(
                "a snapshot does not come as a message",
            ));
        }
        attached.inbound.receive(messages);
    }
}

/// Where this node stands, for who asks.
fn standing(attached: &Attached) -> Standing {
    let standing = attached.inbound.standing();
    Standing {
        committed: standing.committed,
        has_room: standing.has_room,
        time_ms: standing.time_ms.unwrap_or(0),
        followed_ms: standing.followed_ms.unwrap_or(0),
    }
}

/// A message of Raft's from this node to that one; its entries stay parts of the frame.
fn read(bytes: &Bytes, from: u64, to: u64) -> Result<Message, Status> {
    let message = Message::parse_from_carllerche_bytes(bytes)
        .map_err(|error| Status::invalid_argument(format!("no message of raft's: {error}")))?;
    if message.from != from || message.to != to {
        return Err(Status::invalid_argument(format!(
            "a message from node {} to node {} on a stream from node {from} to node {to}",
            message.from, message.to
        )));
    }
    Ok(message)
}

/// Why a node is not let in, as it is told.
fn refused(why: NotAdmitted) -> Status {
    match why {
        NotAdmitted::NotLeader { peer_address } => refusal::not_leader(peer_address.as_deref()),
        NotAdmitted::Later(why) => refusal::refuse(Code::Unavailable, refusal::LATER, why),
        NotAdmitted::Refused(why) => Status::failed_precondition(why),
    }
}

fn applicant(request: JoinRequest) -> Result<(PublicKey, Applicant), Status> {
    let key = PublicKey::from_info(&request.public_key)
        .ok_or_else(|| Status::invalid_argument("the public key is not one of Ed25519"))?;
    let texts = [
        (&request.peer_address, "peer address"),
        (&request.client_address, "client address"),
        (&request.store, "store"),
        (&request.staging, "staging area"),
    ];
    for (text, what) in texts {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Status::invalid_argument(format!("the {what} is too long")));
        }
    }
    if request.peer_address.is_empty() {
        return Err(Status::invalid_argument("the peer address is missing"));
    }
    let applicant = Applicant {
        key: key.hash(),
        peer_address: request.peer_address,
        client_address: request.client_address,
        log_format: request.log_format,
        store: request.store,
        staging: request.staging,
    };
    Ok((key, applicant))
}

fn nodes(members: &Members) -> Vec<PeerNode> {
    let nodes = members.nodes.values();
    nodes
        .map(|member| PeerNode {
            id: member.id,
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            key: Bytes::copy_from_slice(&member.key),
        })
        .collect()
}
