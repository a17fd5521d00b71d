//! The servers as a caller sees them: several addresses, a number of connections to each, and which one leads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use tonic::codec::Codec;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

/// How long a call may take: beyond any figure that is of use.
const CALL: Duration = Duration::from_secs(10);

/// A call goes to another server this often; three servers without a leader for two seconds are a failure here.
const TRIES: usize = 100;

/// The pause before the next server is tried.
const PAUSE: Duration = Duration::from_millis(20);

/// All servers, with the same number of connections to each.
pub(crate) struct Servers {
    servers: Vec<Server>,
    leader: AtomicUsize,
}

struct Server {
    address: String,
    channels: Vec<Channel>,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The queue is at its bound, or the server has enough to do: it says to come again later.
    HeldBack(Status),
    /// Anything else.
    Refused(Status),
}

impl Servers {
    /// Connections are made when they are first used.
    pub(crate) fn new(addresses: &[String], connections: usize) -> anyhow::Result<Self> {
        let server = |address: &String| {
            let endpoint = Endpoint::from_shared(address.clone())
                .with_context(|| format!("{address} is no address"))?
                .tcp_nodelay(true);
            anyhow::Ok(Server {
                address: address.clone(),
                channels: (0..connections.max(1))
                    .map(|_| endpoint.connect_lazy())
                    .collect(),
            })
        };
        Ok(Self {
            servers: addresses.iter().map(server).collect::<Result<_, _>>()?,
            leader: AtomicUsize::new(0),
        })
    }

    /// The server that led when it was last asked.
    pub(crate) fn leader(&self) -> usize {
        self.leader.load(Ordering::Relaxed)
    }

    /// Says which server leads.
    pub(crate) fn set_leader(&self, server: usize) {
        self.leader.store(server, Ordering::Relaxed);
    }

    /// Calls one server, once.
    pub(crate) async fn ask<Asked, Answer>(
        &self,
        server: usize,
        caller: usize,
        path: &'static str,
        message: &Asked,
    ) -> Result<Answer, Status>
    where
        Asked: prost::Message + Clone + 'static,
        Answer: prost::Message + Default + 'static,
    {
        let mut request = Request::new(message.clone());
        request.set_timeout(CALL);
        let codec = ProstCodec::<Asked, Answer>::default();
        unary(self.channel(server, caller), path, request, codec).await
    }

    /// A connection to this server: the same one for the same caller.
    pub(crate) fn channel(&self, server: usize, caller: usize) -> Channel {
        let channels = &self.servers[server % self.servers.len()].channels;
        channels[caller % channels.len()].clone()
    }

    /// Calls the leader, wherever it is, with the same request each time.
    pub(crate) async fn call<Asked, Answer>(
        &self,
        caller: usize,
        path: &'static str,
        secret: Option<&MetadataValue<Ascii>>,
        message: &Asked,
    ) -> Result<Answer, Failed>
    where
        Asked: prost::Message + Clone + 'static,
        Answer: prost::Message + Default + 'static,
    {
        let mut last = Status::unavailable("no server was asked");
        for _ in 0..TRIES {
            let at = self.leader();
            let mut request = Request::new(message.clone());
            request.set_timeout(CALL);
            if let Some(secret) = secret {
                request
                    .metadata_mut()
                    .insert("authorization", secret.clone());
            }
            let codec = ProstCodec::<Asked, Answer>::default();
            match unary(self.channel(at, caller), path, request, codec).await {
                Ok(answer) => return Ok(answer),
                Err(status) => match self.next(at, &status) {
                    Next::Elsewhere => {
                        last = status;
                        tokio::time::sleep(PAUSE).await;
                    }
                    Next::GiveUp(failed) => return Err(failed),
                },
            }
        }
        Err(Failed::Refused(last))
    }

    /// Notes where the leader is said to be, and says what a caller does then.
    pub(crate) fn next(&self, asked: usize, status: &Status) -> Next {
        let info = status.get_details_error_info();
        let reason = info.as_ref().map_or("", |info| info.reason.as_str());
        match (reason, status.code()) {
            ("NOT_LEADER", _) => {
                let told = info.as_ref().and_then(|info| info.metadata.get("leader"));
                let known = told.and_then(|told| {
                    let told = told.trim_end_matches('/');
                    self.servers.iter().position(|one| one.address == told)
                });
                self.move_on(asked, known);
                Next::Elsewhere
            }
            (_, Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded) => {
                self.move_on(asked, None);
                Next::Elsewhere
            }
            (_, Code::ResourceExhausted) => Next::GiveUp(Failed::HeldBack(status.clone())),
            _ => Next::GiveUp(Failed::Refused(status.clone())),
        }
    }

    /// Nobody moves on twice because of one answer that many got.
    fn move_on(&self, from: usize, to: Option<usize>) {
        let to = to.unwrap_or((from + 1) % self.servers.len());
        let _moved_by_another =
            self.leader
                .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// What to do after an answer that is none.
pub(crate) enum Next {
    /// Ask again, where the leader now is.
    Elsewhere,
    /// It would not help.
    GiveUp(Failed),
}

async fn unary<C: Codec>(
    channel: Channel,
    path: &'static str,
    request: Request<C::Encode>,
    codec: C,
) -> Result<C::Decode, Status>
where
    C::Encode: Send + Sync + 'static,
    C::Decode: Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    Ok(client.unary(request, path, codec).await?.into_inner())
}
