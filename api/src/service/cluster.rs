//! Where the cluster stands, who belongs to it and who leads it, and its state as a file.

use std::io::Read;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use stepcast_cluster::consensus::ChangeError;
use stepcast_cluster::{Handle, Health, NodeStatus};
use stepcast_estimator::Requests;
use stepcast_proto::v1;
use stepcast_scheduler::accounts::{Action, Actor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::access::Caller;
use crate::context::Context;
use crate::reader::Reading;
use crate::status::{self, Refusal};

/// How long a join token is good for when nobody says.
const TOKEN_SECONDS: u32 = 3_600;

/// The longest: long enough to prepare hosts in a week, too short to be forgotten in a drawer.
const TOKEN_SECONDS_MAX: u32 = 7 * 24 * 3_600;

/// Bytes of a backup in one message.
const PIECE_BYTES: usize = 256 << 10;

/// Pieces of a backup on their way: enough to keep the connection busy while the next is read.
const PIECES: usize = 4;

/// A backup in pieces.
pub(crate) type Backup = BoxStream<'static, Result<v1::BackupResponse, Status>>;

/// The service. Status is every node's, and so is a backup while nobody leads; the rest is the leader's, who writes down
/// what is done.
#[derive(Clone)]
pub(crate) struct Cluster(pub(crate) Context);

impl Cluster {
    /// Where this node stands and what it knows of the others.
    pub(crate) async fn status(&self) -> v1::GetClusterStatusResponse {
        let handle = &self.0.handle;
        let status = handle.status();
        let jobs = handle.read_stale(stepcast_scheduler::State::job_counts);
        let nodes = nodes(handle, &status);
        let (health, detail) = health(status.health, status.leading);
        let (snapshot, staging_trouble) =
            tokio::join!(handle.newest_snapshot(), self.0.staging.trouble());
        v1::GetClusterStatusResponse {
            node_id: status.node_id,
            cluster_id: status.cluster_id,
            term: status.term,
            leader_id: status.leader.unwrap_or(0),
            leading: status.leading,
            voters: status.voters,
            commit_index: status.commit_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            sessions: u32::try_from(status.sessions).unwrap_or(u32::MAX),
            disk_free_bytes: status.disk_free_bytes,
            health: health.to_owned(),
            detail,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            privacy_mode: self.0.privacy_mode.name().to_owned(),
            jobs_pending: jobs.pending as u64,
            jobs_running: (jobs.running + jobs.cancelling) as u64,
            jobs_ended: (jobs.succeeded + jobs.failed + jobs.cancelled) as u64,
            nodes,
            log_format: status.log_format.into(),
            up_seconds: self.0.began.elapsed().as_secs(),
            leading_seconds: status.led_for.map(|led_for| led_for.as_secs()),
            snapshot_bytes: snapshot.map(|(bytes, _)| bytes),
            snapshot_age_seconds: snapshot.map(|(_, age)| age.as_secs()),
            store_trouble: self.0.estimator.trouble().unwrap_or_default(),
            store_put_p95_us: Requests::of_process()
                .put_p95()
                .map(|p95| u64::try_from(p95.as_micros()).unwrap_or(u64::MAX)),
            staging_trouble: staging_trouble.unwrap_or_default().to_owned(),
            certificate_end_seconds: self
                .0
                .certificate
                .as_ref()
                .and_then(|shown| Some(shown.end()?.unix_seconds())),
            clock_ahead_ms: handle.clock_ahead_ms(),
            newest_log_format: stepcast_scheduler::codec::VERSION.into(),
            generation: handle.generation(),
        }
    }

    /// A token with which a new node may join.
    pub(crate) async fn create_join_token(
        &self,
        caller: &Caller,
        request: v1::CreateJoinTokenRequest,
    ) -> Result<v1::CreateJoinTokenResponse, Status> {
        let seconds = match request.valid_seconds {
            0 => TOKEN_SECONDS,
            seconds if seconds <= TOKEN_SECONDS_MAX => seconds,
            _ => {
                return Err(status::bad_field(
                    "valid_seconds",
                    "a join token is good for a week at most",
                ));
            }
        };
        let handle = &self.0.handle;
        let peer_address = handle
            .peer_address()
            .filter(|address| !address.is_empty())
            .ok_or_else(no_port)?;
        let made = handle.join_token(Duration::from_secs(seconds.into())).await;
        let made = made.ok_or_else(no_port)?.map_err(|error| {
            tracing::error!(%error, "no join token can be made");
            status::internal("NO_RANDOM_BYTES", "the server can make no token")
        })?;
        // Of no use to anybody before it is told.
        self.0
            .note(caller.actor(), Action::ChangeNodes, "joinTokens")
            .await?;
        Ok(v1::CreateJoinTokenResponse {
            token: made.token.text(),
            generation: made.generation,
            peer_address,
            store: self.0.places.store.clone(),
            staging: self.0.places.staging.clone(),
        })
    }

    /// Takes a node out of the cluster.
    pub(crate) async fn remove_node(
        &self,
        caller: &Caller,
        request: v1::RemoveNodeRequest,
    ) -> Result<v1::RemoveNodeResponse, Status> {
        let id = node("node_id", request.node_id)?;
        // A leader that is to go has another one lead, which is asked again and writes it down.
        if self.is_member(id).await? && id != self.0.handle.status().node_id {
            self.0
                .note(caller.actor(), Action::ChangeNodes, &format!("nodes/{id}"))
                .await?;
        }
        let removed = self.0.handle.remove_node(id).await;
        removed.map_err(|error| changed(error, id))?;
        tracing::info!(node = id, "a node was removed");
        Ok(v1::RemoveNodeResponse {})
    }

    /// Has the nodes share another secret.
    pub(crate) async fn rotate_secret(
        &self,
        caller: &Caller,
    ) -> Result<v1::RotateSecretResponse, Status> {
        // What becomes of nodes stands in the audit log also where nobody is asked who they are.
        let actor = caller.actor().unwrap_or(Actor::OPERATOR);
        let renewed = self.0.handle.renew_secret(Some(actor)).await;
        renewed.map_err(status::propose)?;
        tracing::info!(
            "the cluster has another secret: join tokens and short-lived access tokens of before are over"
        );
        Ok(v1::RotateSecretResponse {})
    }

    /// Has another node lead.
    pub(crate) async fn transfer_leadership(
        &self,
        caller: &Caller,
        request: v1::TransferLeadershipRequest,
    ) -> Result<v1::TransferLeadershipResponse, Status> {
        let id = request.node_id;
        let stays = id == self.0.handle.status().node_id;
        if !stays && (id == 0 || self.is_member(id).await?) {
            let subject = match id {
                0 => "leadership".to_owned(),
                id => format!("leadership/nodes/{id}"),
            };
            // Before it, since this node could write nothing down behind it.
            self.0
                .note(caller.actor(), Action::ChangeNodes, &subject)
                .await?;
        }
        let to = (id != 0).then_some(id);
        let leader = self.0.handle.transfer_leadership(to).await;
        let leader_id = leader.map_err(|error| changed(error, id))?;
        Ok(v1::TransferLeadershipResponse { leader_id })
    }

    /// The replicated state as of now, piece by piece.
    pub(crate) async fn backup(&self, reading: Reading) -> Result<Backup, Status> {
        if self.0.handle.status().leader.is_none() {
            // Whoever saves what a cluster knows that has lost its majority must not be kept from it.
            tracing::warn!("a backup is made while nobody leads: it is not in the audit log");
        } else {
            let subject = format!("nodes/{}", self.0.handle.status().node_id);
            self.0
                .note(reading.caller().actor(), Action::Backup, &subject)
                .await?;
        }
        let (pieces, outgoing) = mpsc::channel(PIECES);
        tokio::spawn(send(self.0.handle.clone(), pieces));
        let pieces = ReceiverStream::new(outgoing).boxed();
        Ok(reading.of(pieces, |_| Ok(())))
    }
}

impl Cluster {
    /// Whether a node belongs to the cluster, as of now.
    async fn is_member(&self, id: u64) -> Result<bool, Status> {
        let handle = &self.0.handle;
        // What is applied here may be from before this leadership.
        handle.read(|_| ()).await.map_err(status::read)?;
        Ok(handle.status().members.ids().any(|known| known == id))
    }
}

type Pieces = mpsc::Sender<Result<v1::BackupResponse, Status>>;

/// Takes a snapshot and sends it piece by piece, for as long as somebody reads.
async fn send(handle: Handle, pieces: Pieces) {
    let snapshot = match handle.snapshot_now().await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no backup can be made"
            );
            let failed = status::internal("BACKUP_FAILED", "the state cannot be written to a file");
            // Nobody reads any more.
            let _ = pieces.send(Err(failed)).await;
            return;
        }
    };
    // Reads a file, which blocks.
    let _read = tokio::task::spawn_blocking(move || {
        let (index, length) = (snapshot.header.at.index, snapshot.bytes);
        let mut file = snapshot.file;
        let mut head = (index, length);
        loop {
            let mut data = Vec::with_capacity(PIECE_BYTES);
            let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut data);
            let piece = match read {
                Ok(0) => return,
                Ok(_) => Ok(v1::BackupResponse {
                    data,
                    index: head.0,
                    length: head.1,
                }),
                Err(error) => {
                    tracing::error!(%error, "a snapshot cannot be read");
                    Err(status::internal(
                        "BACKUP_FAILED",
                        "the snapshot cannot be read",
                    ))
                }
            };
            head = (0, 0);
            let failed = piece.is_err();
            if pieces.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    })
    .await;
}

/// Everybody who belongs to the cluster, as far as this node knows.
fn nodes(handle: &Handle, status: &NodeStatus) -> Vec<v1::ClusterNode> {
    let members = &status.members;
    let role = |id: u64| match id {
        _ if members.leaving.contains(&id) => "LEAVING",
        _ if members.voters.contains(&id) => "VOTER",
        _ => "LEARNER",
    };
    let seen = handle.peers();
    let node = |id: u64| {
        let (member, me) = (members.node(id), id == status.node_id);
        let seen = seen.iter().find(|seen| seen.id == id);
        let progress = status.followers.iter().find(|follower| follower.id == id);
        let round_trip = seen.and_then(|seen| seen.round_trip);
        v1::ClusterNode {
            node_id: id,
            role: role(id).to_owned(),
            peer_address: member.map_or_else(String::new, |member| member.peer_address.clone()),
            client_address: member.map_or_else(String::new, |member| member.client_address.clone()),
            reachable: me || seen.is_some_and(|seen| seen.reachable),
            matched_index: match progress {
                _ if me => status.last_index,
                Some(progress) => progress.matched,
                None => 0,
            },
            caught_up: match progress {
                _ if me => status.leading.then_some(true),
                progress => progress.map(|node| node.is_near(status.commit_index)),
            },
            round_trip_us: round_trip.map_or(0, |round_trip| {
                u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX)
            }),
            version: match seen {
                _ if me => env!("CARGO_PKG_VERSION").to_owned(),
                Some(seen) => seen.version.clone(),
                None => String::new(),
            },
            log_format: match seen {
                _ if me => handle.newest_log_format().into(),
                Some(seen) => seen.log_format.unwrap_or(0),
                None => 0,
            },
        }
    };
    members.ids().map(node).collect()
}

fn node(field: &str, id: u64) -> Result<u64, Status> {
    match id {
        0 => Err(status::bad_field(
            field,
            "name a node: their numbers begin at 1",
        )),
        id => Ok(id),
    }
}

/// Why the members or the leader stay as they are.
fn changed(error: ChangeError, node: u64) -> Status {
    let message = error.to_string();
    let refuse = |code, reason| Refusal::new(code, reason, message.clone());
    match error {
        ChangeError::NotLeader { leader } => status::not_leader(leader),
        ChangeError::Unknown(_) => status::not_found("nodes", "a node", &format!("nodes/{node}")),
        ChangeError::OutcomeUnknown => refuse(Code::Unavailable, "OUTCOME_UNKNOWN")
            .hint("`stepcast cluster status` shows whether it took effect")
            .into(),
        ChangeError::UnderWay | ChangeError::Busy => {
            status::busy(message, Duration::from_millis(500))
        }
        ChangeError::LastVoter(_) => refuse(Code::FailedPrecondition, "LAST_VOTER")
            .hint("a cluster that is not needed any more is stopped, and its data folder deleted")
            .into(),
        ChangeError::TooFewHere(_) => refuse(Code::FailedPrecondition, "TOO_FEW_NODES")
            .hint("remove the nodes that are gone first, or start them, and wait until all have caught up; `stepcast cluster status` says which are away or behind")
            .into(),
        ChangeError::NoSuccessor | ChangeError::NotTaken(_) => {
            refuse(Code::FailedPrecondition, "NO_SUCCESSOR")
                .hint("`stepcast cluster status` says which nodes are away or behind")
                .into()
        }
        ChangeError::Stalled(_) => refuse(Code::Unavailable, "LOG_STALLED").into(),
        ChangeError::Stopped(_) => refuse(Code::Unavailable, "STOPPED").into(),
        ChangeError::Taken(_)
        | ChangeError::Votes(_)
        | ChangeError::Learns(_)
        | ChangeError::Leads(_) => refuse(Code::FailedPrecondition, "NODE_ROLE").into(),
    }
}

/// Nobody can join through this node.
fn no_port() -> Status {
    Refusal::new(
        Code::FailedPrecondition,
        "NO_PEER_ADDRESS",
        "this node has not been told where other nodes can reach it",
    )
    .hint("restart it with --peer-address HOST:PORT and --client-address URL")
    .into()
}

fn health(health: Health, leads: bool) -> (&'static str, String) {
    match health {
        Health::Serving => ("SERVING", String::new()),
        Health::Electing => ("ELECTING", "no node leads at the moment".to_owned()),
        Health::StorageFull => {
            // Only the room of the node that leads counts.
            let until = match leads {
                true => "new jobs are refused until there is room",
                false => "new jobs would be refused if it led; make room",
            };
            ("STORAGE_FULL", format!("the disk is nearly full: {until}"))
        }
        Health::LogStalled(why) => (
            "LOG_STALLED",
            format!("the log cannot be written at the moment: {why}"),
        ),
        Health::Stopped(why) => (
            "STOPPED",
            format!("the node cannot go on without a restart: {why}"),
        ),
    }
}
