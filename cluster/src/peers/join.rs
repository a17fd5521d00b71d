//! A new node joins a cluster: it asks, follows to the leader, and writes down what it is given.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use rcgen::PublicKeyData;
use stepcast_proto::raft::v1::peer_service_client::PeerServiceClient;
use stepcast_proto::raft::v1::{JoinRequest, JoinResponse, PeerNode};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use super::authority::Authority;
use super::credentials::{self, Credentials};
use super::dial::{self, Watch, dial};
use super::refusal;
use super::tls;
use super::token::JoinToken;
use crate::disk;
use crate::identity::{self, Identity};
use crate::members::Member;

/// Without success after this long joining has failed: an election takes seconds, a disk a few more.
const PATIENCE: Duration = Duration::from_secs(60);

/// One question and its answer, which comes when the change of the members is applied.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// Between two rounds of asking.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Leaders that may be named in a row before everybody is asked again.
const HOPS_MAX: usize = 4;

/// How a node wants to join.
#[derive(Debug, Clone)]
pub struct JoinConfig {
    /// `HOST:PORT` of members' ports for nodes; one is enough.
    pub servers: Vec<String>,
    /// The token.
    pub token: JoinToken,
    /// The new node's data directory; holds no node yet.
    pub data_dir: PathBuf,
    /// `HOST:PORT` where other nodes will reach it.
    pub peer_address: String,
    /// URL where people and workers will reach it.
    pub client_address: String,
    /// The newest log format that it reads.
    pub log_format: u32,
    /// Where it keeps the benchmark tables.
    pub store: String,
    /// Where it keeps submitted files.
    pub staging: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The new node's id.
    pub node_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
    /// Everybody else.
    pub others: Vec<Member>,
}

impl Joined {
    /// Writes down in an empty data directory that it is this node's. Joining over the port for nodes has done so.
    pub fn write(&self, data_dir: &std::path::Path) -> Result<(), identity::Error> {
        disk::make_folder(data_dir).map_err(|source| identity::Error::Io {
            path: data_dir.display().to_string(),
            source,
        })?;
        Identity::join(data_dir, self.node_id, self.cluster_id, &self.others).map(drop)
    }
}

/// Why a node has not joined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is taken.
    #[error("the data directory already belongs to a node: start it without --join")]
    Exists,
    /// The keys cannot be kept.
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The identity cannot be written.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The cluster says no.
    #[error("{server} does not let this node in: {why}")]
    Refused {
        /// Who said it.
        server: String,
        /// Its sentence.
        why: String,
    },
    /// Nobody let the node in in time.
    #[error("no node of the cluster has let this one in within {} s; last, {server}: {why}", PATIENCE.as_secs())]
    Unreached {
        /// Who was asked last.
        server: String,
        /// What was wrong there.
        why: String,
    },
    /// Everybody who was asked belongs to another cluster than the one that the token is of.
    #[error(
        "the join token is not of the cluster of {0}: make one on a node of that cluster with `stepcast cluster token`"
    )]
    OtherCluster(String),
    /// The answer makes no sense.
    #[error("{server} has answered what is no answer: {why}")]
    Answer {
        /// Who said it.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is nobody to ask.
    #[error("no address of a member was given")]
    Nobody,
}

/// Joins a cluster and writes down who this node is. Asked again with the same directory, the answer is the same, so a
/// crash at any point is repaired by doing it again.
///
/// # Errors
/// When the cluster refuses, nobody answers in time, or the directory cannot be written.
pub async fn join(config: JoinConfig) -> Result<Joined, Error> {
    if Identity::exists(&config.data_dir) {
        return Err(Error::Exists);
    }
    disk::make_folder(&config.data_dir).map_err(|source| credentials::Error::Io {
        path: config.data_dir.display().to_string(),
        source,
    })?;
    let key = Credentials::joining_key(&config.data_dir)?;
    let request = JoinRequest {
        token: config.token.text(),
        public_key: Bytes::from(key.subject_public_key_info()),
        peer_address: config.peer_address.clone(),
        client_address: config.client_address.clone(),
        log_format: config.log_format,
        store: config.store.clone(),
        staging: config.staging.clone(),
    };
    let (server, answer) = ask(&config, request).await?;
    let wrong = |why: String| Error::Answer {
        server: server.clone(),
        why,
    };
    let (node_id, cluster_id) = (answer.node_id, answer.cluster_id);
    let authority = Authority::of(cluster_id, answer.authority.to_vec(), &answer.authority_key)
        .map_err(|error| wrong(dial::chain(&error)))?;
    if !config.token.names(&authority.fingerprint()) {
        return Err(wrong("its authority is not the token's".to_owned()));
    }
    let credentials = Credentials::joined(authority, key, answer.certificate.to_vec().into());
    credentials.check(node_id, cluster_id).map_err(wrong)?;
    let others = others(node_id, answer.nodes).map_err(wrong)?;
    credentials.write(&config.data_dir)?;
    // Last: with it the directory is a node's.
    Identity::join(&config.data_dir, node_id, cluster_id, &others)?;
    Ok(Joined {
        node_id,
        cluster_id,
        others,
    })
}

/// Asks one after the other, and whomever they name, until one lets the node in or refuses for good.
async fn ask(config: &JoinConfig, request: JoinRequest) -> Result<(String, JoinResponse), Error> {
    let tls = tls::joiner(&config.token)?;
    let until = Instant::now() + PATIENCE;
    let mut last = None;
    // Each cause once: it is asked five times a second.
    let mut said = BTreeSet::new();
    loop {
        let mut servers: VecDeque<String> = config.servers.iter().cloned().collect();
        let (mut hops, mut others) = (0, 0);
        while let Some(server) = servers.pop_front() {
            let asked = async {
                let dialled = dial(&server, None, tls.clone(), Watch::Pings).await;
                let dialled = dialled.map_err(|error| {
                    others += usize::from(error.is_of_another_authority());
                    Status::unavailable(dial::chain(&error))
                })?;
                let mut client = PeerServiceClient::new(dialled.channel)
                    .max_decoding_message_size(super::FRAME_BYTES_MAX);
                client.join(request.clone()).await
            };
            let status = match timeout(ANSWER_WITHIN, asked).await {
                Ok(Ok(answer)) => return Ok((server, answer.into_inner())),
                Ok(Err(status)) => status,
                Err(_) => Status::unavailable("it does not answer"),
            };
            let why = status.message().to_owned();
            if refusal::read(&status).is_none() && is_final(status.code()) {
                return Err(Error::Refused { server, why });
            }
            if let Some(leader) = refusal::leader(&status)
                && hops < HOPS_MAX
            {
                hops += 1;
                servers.push_front(leader);
            }
            if said.insert((server.clone(), why.clone())) {
                tracing::info!(
                    server,
                    why,
                    "not let in yet, and asked again: it is to be the port of a node for other nodes"
                );
            }
            last = Some((server, why));
            if Instant::now() >= until {
                break;
            }
        }
        // No time makes a token another cluster's; but one address of several may merely be out of date.
        if others > 0 && others == config.servers.len() {
            return Err(Error::OtherCluster(config.servers.join(", ")));
        }
        if Instant::now() >= until {
            break;
        }
        sleep(AGAIN_AFTER).await;
    }
    match last {
        Some((server, why)) => Err(Error::Unreached { server, why }),
        None => Err(Error::Nobody),
    }
}

fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
    )
}

/// Everybody but the new node itself.
fn others(node_id: u64, nodes: Vec<PeerNode>) -> Result<Vec<Member>, String> {
    let nodes = nodes.into_iter().filter(|node| node.id != node_id);
    let others: Vec<Member> = nodes
        .map(|node| {
            let key = if node.key.is_empty() {
                &[0; 32]
            } else {
                &node.key[..]
            };
            Ok(Member {
                id: node.id,
                peer_address: node.peer_address,
                client_address: node.client_address,
                key: key
                    .try_into()
                    .map_err(|_| "a key of 32 bytes was expected")?,
            })
        })
        .collect::<Result<_, &str>>()?;
    if others.iter().all(|other| other.peer_address.is_empty()) {
        return Err("it names no other node".to_owned());
    }
    Ok(others)
}
