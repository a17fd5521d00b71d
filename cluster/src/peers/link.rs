//! The way to one node: a connection that is made again and again, and the stream of messages on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use protobuf::Message as _;
use raft::eraftpb::Message;
use rustls::pki_types::CertificateDer;
use stepcast_proto::raft::v1::peer_service_client::PeerServiceClient;
use stepcast_proto::raft::v1::{ExchangeRequest, ExchangeResponse, Hello};
use tokio::sync::{Notify, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use tonic::Status;
use tonic::transport::Channel;

use super::authority::node_name;
use super::dial::{Watch, chain, dial};
use super::outbox::Outbox;
use super::refusal;
use super::sending::Lane;
use super::shared::Shared;
use super::tls;
use crate::consensus::{Standing, Word};
use crate::members::Member;

/// After a connection ended or was not made, the next is tried after this long; twice that each time, up to the second.
/// A node that was killed and is back is reached within it.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(150));

/// A node that says that this one does not belong to the cluster is asked again this often.
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How often the round trip is measured.
const PING_EVERY: Duration = Duration::from_millis(500);

/// Without an answer to a ping for this long the other end hangs, even if its host is alive.
const PONG_WITHIN: Duration = Duration::from_secs(3);

/// Answers are small.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// One peer.
pub(super) struct Link {
    pub(super) node: u64,
    address: watch::Sender<String>,
    outbox: Outbox,
    /// Somebody has seen the peer: try at once.
    again: Notify,
    contact: Mutex<Contact>,
    /// Messages that were not sent.
    dropped: AtomicU64,
    /// Snapshots that go there.
    pub(super) lane: Mutex<Lane>,
}

/// What is known of the peer.
#[derive(Debug, Clone, Default)]
struct Contact {
    connected: bool,
    round_trip: Option<Duration>,
    version: String,
    log_format: Option<u32>,
    /// Where it stands, by what it has said on this connection.
    standing: Word,
    /// Where it says that it is.
    said: Option<Member>,
    /// Why it was not reached last, in one line; said once in the log.
    failure: Option<String>,
}

/// What a node knows of one of its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which node.
    pub id: u64,
    /// `HOST:PORT` where it was last said to be.
    pub address: String,
    /// Whether it answers.
    pub reachable: bool,
    /// How long the last question and answer took.
    pub round_trip: Option<Duration>,
    /// Its version, once it has said it; empty before.
    pub version: String,
    /// The newest log format that it reads, once it has said it.
    pub log_format: Option<u32>,
    /// Why it does not answer.
    pub failure: Option<String>,
    /// Messages to it that were dropped, since this node started.
    pub dropped: u64,
}

impl Link {
    pub(super) fn new(node: u64, address: &str) -> Self {
        Self {
            node,
            address: watch::Sender::new(address.to_owned()),
            outbox: Outbox::new(),
            again: Notify::new(),
            contact: Mutex::default(),
            dropped: AtomicU64::new(0),
            lane: Mutex::default(),
        }
    }

    /// Takes messages to the peer in. False if some were dropped.
    pub(super) fn push(&self, messages: impl IntoIterator<Item = Message>) -> bool {
        let dropped = self.outbox.push(messages);
        self.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        dropped == 0
    }

    /// The peer is there from now on.
    pub(super) fn is_at(&self, address: &str) {
        self.address.send_if_modified(|known| {
            let moved = known != address;
            if moved {
                address.clone_into(known);
            }
            moved
        });
    }

    pub(super) fn address(&self) -> String {
        self.address.borrow().clone()
    }

    /// The peer has said this of itself, and has shown this certificate, which is its own.
    pub(super) fn heard(&self, hello: &Hello, certificate: &CertificateDer<'_>) {
        {
            let mut contact = self.contact.lock();
            contact.version.clone_from(&hello.version);
            contact.log_format = Some(hello.log_format);
            let key = tls::key_of(certificate).ok();
            contact.said = key.map(|key| Member {
                id: self.node,
                peer_address: hello.peer_address.clone(),
                client_address: hello.client_address.clone(),
                key,
            });
        }
        if !hello.peer_address.is_empty() {
            self.is_at(&hello.peer_address);
        }
        if !self.contact.lock().connected {
            self.again.notify_one();
        }
    }

    /// Where it says that it is.
    pub(super) fn said(&self) -> Option<Member> {
        self.contact.lock().said.clone()
    }

    /// Where it stands.
    pub(super) fn standing(&self) -> Word {
        self.contact.lock().standing
    }

    /// Whether it answers.
    pub(super) fn is_reached(&self) -> bool {
        self.contact.lock().connected
    }

    pub(super) fn seen(&self) -> Seen {
        let contact = self.contact.lock().clone();
        Seen {
            id: self.node,
            address: self.address(),
            reachable: contact.connected,
            round_trip: contact.round_trip,
            version: contact.version,
            log_format: contact.log_format,
            failure: contact.failure,
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// Says once why the peer is not reached.
    fn failed(&self, why: &str) {
        let news = {
            let mut contact = self.contact.lock();
            contact.connected = false;
            contact.round_trip = None;
            // It is old news by the time that it is reached again.
            contact.standing = Word::Awaited;
            contact.failure.as_deref() != Some(why) && {
                contact.failure = Some(why.to_owned());
                true
            }
        };
        if news {
            tracing::info!(node = self.node, address = %self.address(), why, "a node is not reached");
        }
    }

    fn connected(&self, hello: &Hello, certificate: &CertificateDer<'_>) {
        {
            let mut contact = self.contact.lock();
            contact.failure = None;
            contact.connected = true;
        }
        self.heard(hello, certificate);
        tracing::info!(node = self.node, address = %self.address(), version = hello.version, "a node is reached");
    }
}

/// Why a connection is over.
enum Ended {
    /// It was there for a while, and the other end has closed it.
    HungUp(String),
    /// It was there for a while.
    Lost(String),
    /// It never was.
    Unreached(String),
    /// The peer does not hear this node.
    Refused(String),
    /// The peer is somewhere else now.
    Moved,
}

/// Keeps the connection for as long as the task lives.
pub(super) async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let mut wait = AGAIN_AFTER.0;
    loop {
        let mut address = link.address.subscribe();
        let at = address.borrow_and_update().clone();
        let ended = tokio::select! {
            ended = connection(&shared, &link, &at) => ended,
            Ok(()) = address.changed() => Ended::Moved,
        };
        link.outbox.close();
        shared.tell(|inbound| {
            inbound.unreachable(link.node);
            if matches!(ended, Ended::HungUp(_)) {
                inbound.hung_up(link.node);
            }
        });
        let pause = match &ended {
            Ended::Moved => Duration::ZERO,
            Ended::HungUp(why) | Ended::Lost(why) => {
                link.failed(why);
                wait = AGAIN_AFTER.0;
                wait
            }
            Ended::Unreached(why) => {
                link.failed(why);
                wait = (wait * 2).min(AGAIN_AFTER.1);
                wait
            }
            Ended::Refused(why) => {
                link.failed(why);
                REFUSED_AGAIN_AFTER
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = link.again.notified() => {}
            Ok(()) = address.changed() => {}
        }
    }
}

/// A connection to a peer that has proved who it is.
pub(super) struct Reached {
    pub(super) channel: Channel,
    certificate: CertificateDer<'static>,
}

/// Connects to the peer and makes sure that it is who it should be.
pub(super) async fn reach(
    shared: &Shared,
    node: u64,
    address: &str,
    watch: Watch,
) -> Result<Reached, String> {
    let name = node_name(node, shared.cluster_id);
    let dialled = dial(address, Some(&name), Arc::clone(&shared.tls), watch)
        .await
        .map_err(|error| chain(&error))?;
    let certificate = dialled.certificate.ok_or("it has shown no certificate")?;
    let is = shared.roster.is(node, &certificate);
    is.map_err(|stranger| stranger.to_string())?;
    Ok(Reached {
        channel: dialled.channel,
        certificate,
    })
}

/// One connection from its making to its end.
async fn connection(shared: &Shared, link: &Arc<Link>, address: &str) -> Ended {
    let reached = match reach(shared, link.node, address, Watch::Pings).await {
        Ok(reached) => reached,
        Err(why) => return Ended::Unreached(why),
    };
    let begun = Instant::now();
    let requests = requests(shared.hello(link.node), Arc::clone(link), begun);
    let mut client = PeerServiceClient::new(reached.channel)
        .max_decoding_message_size(ANSWER_BYTES_MAX)
        .max_encoding_message_size(super::FRAME_BYTES_MAX);
    let mut answers = match timeout(PONG_WITHIN, client.exchange(requests)).await {
        Ok(Ok(answers)) => answers.into_inner(),
        Ok(Err(status)) => return refused(shared, &status),
        Err(_) => return Ended::Unreached("it does not answer".to_owned()),
    };
    let mut greeted = false;
    loop {
        let answer: ExchangeResponse = match timeout(PONG_WITHIN, answers.message()).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return Ended::HungUp("it has ended the connection".to_owned()),
            Ok(Err(status)) => return Ended::HungUp(chain(&status)),
            Err(_) => return Ended::Lost("it has not answered for 3 s".to_owned()),
        };
        if let Some(hello) = &answer.hello
            && !greeted
        {
            greeted = true;
            link.connected(hello, &reached.certificate);
            shared.tell(|inbound| inbound.reached(link.node));
        }
        link.contact.lock().standing = answer.standing.map_or(Word::Never, |said| {
            Word::Said(Standing {
                committed: said.committed,
                has_room: said.has_room,
                time_ms: (said.time_ms > 0).then_some(said.time_ms),
                followed_ms: (said.followed_ms > 0).then_some(said.followed_ms),
            })
        });
        if answer.ping != 0 {
            let asked = Duration::from_micros(answer.ping);
            link.contact.lock().round_trip = Some(begun.elapsed().saturating_sub(asked));
        }
    }
}

fn refused(shared: &Shared, status: &Status) -> Ended {
    let why = status.message().to_owned();
    match refusal::read(status) {
        Some(refusal::REMOVED) => {
            shared.tell(|inbound| inbound.removed());
            Ended::Refused(why)
        }
        Some(refusal::STRANGER) => Ended::Refused(why),
        _ => Ended::Unreached(chain(status)),
    }
}

/// Hello, and then frames and pings for as long as this stream is the link's newest.
fn requests(
    hello: Hello,
    link: Arc<Link>,
    begun: Instant,
) -> impl Stream<Item = ExchangeRequest> + Send + 'static {
    let reader = link.outbox.open();
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let first = ExchangeRequest {
        hello: Some(hello),
        ..ExchangeRequest::default()
    };
    futures::stream::unfold((Some(first), pings), move |(first, mut pings)| {
        let link = Arc::clone(&link);
        async move {
            let request = match first {
                Some(first) => Some(first),
                None => next(&link, reader, &mut pings, begun).await,
            };
            request.map(|request| (request, (None, pings)))
        }
    })
}

async fn next(
    link: &Link,
    reader: u64,
    pings: &mut Interval,
    begun: Instant,
) -> Option<ExchangeRequest> {
    let frame = tokio::select! {
        biased;
        _ = pings.tick() => {
            // Never 0, which is none.
            let ping = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
            return Some(ExchangeRequest { ping, ..ExchangeRequest::default() });
        }
        frame = link.outbox.frame(reader) => frame?,
    };
    let messages = frame.iter().filter_map(|message| {
        let bytes = message.write_to_bytes();
        bytes
            .inspect_err(|error| tracing::error!(%error, "a message of raft's cannot be written"))
            .ok()
    });
    Some(ExchangeRequest {
        messages: messages.map(Bytes::from).collect(),
        ..ExchangeRequest::default()
    })
}
