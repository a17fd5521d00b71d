//! How callers reach a cluster whose nodes come and go: one try at one server, and what its outcome means.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stepcast_proto::v1::cluster_service_client::ClusterServiceClient;
use stepcast_proto::v1::jobs_service_client::JobsServiceClient;
use stepcast_proto::v1::workers_service_client::WorkersServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

use crate::history::History;

/// A server that is there answers its connection in this time; one that is paused or cut off is left for another.
const CONNECT: Duration = Duration::from_secs(1);

/// A call takes no longer: the longest that a server waits for its log is within it.
const CALL: Duration = Duration::from_secs(4);

/// Between two tries: a few within an election.
const PAUSE: Duration = Duration::from_millis(30);

/// What is said with every call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// The access token, if there is one.
    token: Option<MetadataValue<Ascii>>,
    /// How fresh an answer must be, if not as fresh as can be.
    freshness: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Manners {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(token) = &self.token {
            metadata.insert("authorization", token.clone());
        }
        if let Some(freshness) = &self.freshness {
            metadata.insert("stepcast-read", freshness.clone());
        }
        Ok(request)
    }
}

type Through = InterceptedService<Channel, Manners>;

/// One server as callers reach it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Its address as a URL.
    pub(crate) address: String,
    pub(crate) jobs: JobsServiceClient<Through>,
    pub(crate) workers: WorkersServiceClient<Through>,
    pub(crate) cluster: ClusterServiceClient<Through>,
}

/// The servers there are, and who was last said to lead.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    known: Arc<Mutex<Known>>,
    manners: Manners,
    history: History,
}

#[derive(Debug, Default)]
struct Known {
    servers: Vec<Server>,
    leader: Option<String>,
}

/// Why a try had no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It had no effect.
    NotDone,
    /// Nobody knows whether it took effect.
    Unknown,
    /// The server's answer is a refusal, with its reason.
    Refused(String),
}

impl Servers {
    pub(crate) fn new(access_token: Option<&str>, history: History) -> Self {
        let token = access_token.map(|token| format!("Bearer {token}").parse().unwrap());
        Self {
            known: Arc::default(),
            manners: Manners {
                token,
                freshness: None,
            },
            history,
        }
    }

    /// Those who are added from now on are asked for whatever they have.
    pub(crate) fn content_with_stale_reads(&mut self) {
        self.manners.freshness = Some(MetadataValue::from_static("stale"));
    }

    /// A server by its address.
    pub(crate) fn connect(&self, address: &str) -> Server {
        let channel = Endpoint::from_shared(address.to_owned())
            .unwrap()
            .connect_timeout(CONNECT)
            .timeout(CALL)
            .connect_lazy();
        let through = InterceptedService::new(channel, self.manners.clone());
        Server {
            address: address.to_owned(),
            jobs: JobsServiceClient::new(through.clone()),
            workers: WorkersServiceClient::new(through.clone()),
            cluster: ClusterServiceClient::new(through),
        }
    }

    pub(crate) fn add(&self, address: &str) {
        let server = self.connect(address);
        self.known.lock().unwrap().servers.push(server);
    }

    pub(crate) fn remove(&self, address: &str) {
        let mut known = self.known.lock().unwrap();
        known.servers.retain(|server| server.address != address);
        known.leader.take_if(|leader| leader == address);
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        let known = self.known.lock().unwrap();
        known
            .servers
            .iter()
            .map(|server| server.address.clone())
            .collect()
    }

    /// One of the servers.
    pub(crate) fn any(&self, random: u64) -> Server {
        let known = self.known.lock().unwrap();
        let count = known.servers.len() as u64;
        known.servers[usize::try_from(random % count).unwrap()].clone()
    }

    /// Who is said to lead, or else one of them.
    pub(crate) fn leader(&self, random: u64) -> Server {
        let known = self.known.lock().unwrap();
        let leads = |server: &&Server| Some(&server.address) == known.leader.as_ref();
        let leader = known.servers.iter().find(leads).cloned();
        drop(known);
        leader.unwrap_or_else(|| self.any(random))
    }

    /// One try, told to the history.
    pub(crate) async fn ask<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Trouble> {
        match call.await {
            Ok(answer) => {
                self.history.answered(what);
                Ok(answer.into_inner())
            }
            Err(status) => {
                let trouble = self.trouble(what, &status);
                if !matches!(trouble, Trouble::Refused(_)) {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(trouble)
            }
        }
    }

    /// What it means that a call was not answered, and whom to ask next.
    pub(crate) fn trouble(&self, what: &'static str, status: &Status) -> Trouble {
        let Some(info) = status.get_details_error_info() else {
            self.forget_leader();
            self.history
                .trouble(&format!("{what}: {:?} without a word", status.code()));
            // A connection on which many calls were given up, since its server stood still, is closed by the HTTP library.
            let given_up = status.code() == Code::ResourceExhausted
                && status.message().starts_with("h2 protocol error");
            // What a connection that does not come about or is cut in the middle of an answer looks like.
            let cut = matches!(
                status.code(),
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::Internal
            );
            if !cut && !given_up {
                self.history.wrong(format!("{what}: {status:?}"));
            }
            return Trouble::Unknown;
        };
        self.history.trouble(&format!("{what}: {}", info.reason));
        match info.reason.as_str() {
            "NOT_LEADER" => {
                self.known.lock().unwrap().leader = info.metadata.get("leader").cloned();
                Trouble::NotDone
            }
            "BUSY" | "READ_TIMEOUT" | "STORAGE_FULL" | "STAGING_FULL" | "STAGING_DISK_FULL"
            | "RECORDS_DISK_FULL" | "REQUEST_UNDER_WAY" => Trouble::NotDone,
            "OUTCOME_UNKNOWN" | "LOG_STALLED" | "STOPPED" => {
                self.forget_leader();
                Trouble::Unknown
            }
            reason => {
                // Reasons that mean something to their caller, and no others.
                let meant = ["NO_SUCH_JOB", "JOB_OVER", "WATCH_BEHIND"].contains(&reason);
                if !meant {
                    self.history.wrong(format!("{what}: {status:?} {info:?}"));
                }
                Trouble::Refused(reason.to_owned())
            }
        }
    }

    fn forget_leader(&self) {
        self.known.lock().unwrap().leader = None;
    }
}
