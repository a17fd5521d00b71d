//! The nodes of the cluster: where they stand, who joins, who goes and who leads.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::route::{Nothing, Route};
use super::shapes::Done;
use crate::access::Permission as P;
use crate::service::Cluster;
use crate::{names, status};

/// What a change of the nodes may take: a leader that is to go hands over, and each step waits for who is behind.
const CHANGED_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn routes(api: &mut Api) {
    let show = "Where the node that is asked stands, and what it knows of the others.";
    api.route(Route::get("/v1/cluster", P::ReadCluster, show), self::show);
    let token = "Makes a token with which nodes may join within some time. It is told once.";
    let token = Route::post("/v1/join-tokens", P::RunCluster, token);
    api.route(token.status(201), create_token);
    let remove = "Takes a node out of the cluster. It comes back under a new id. One that leads has another one lead first.";
    let remove = Route::post("/v1/nodes/{id}/remove", P::RunCluster, remove);
    api.route(remove.answer_within(CHANGED_WITHIN), self::remove);
    let rotate = "Has the nodes share another secret. Join tokens and short-lived access tokens of before are over.";
    let rotate = Route::post("/v1/cluster/rotate", P::RunCluster, rotate);
    api.route(rotate.answer_within(CHANGED_WITHIN), self::rotate);
    let lead = Route::post("/v1/leadership", P::RunCluster, "Has another node lead.");
    api.route(lead.answer_within(CHANGED_WITHIN), transfer);
}

/// Where a node stands.
#[derive(Debug, Serialize, JsonSchema)]
struct ClusterShown {
    /// The node that answers.
    node_id: u64,
    /// In hexadecimal digits.
    cluster_id: String,
    term: u64,
    /// 0 when no leader is known.
    leader_id: u64,
    /// Whether this node leads and its duties have begun.
    leading: bool,
    /// For how long it has led.
    leading_seconds: Option<u64>,
    voters: Vec<u64>,
    commit_index: u64,
    applied_index: u64,
    snapshot_index: u64,
    snapshot_bytes: Option<u64>,
    snapshot_age_seconds: Option<u64>,
    /// Workers attached to this node.
    sessions: u32,
    /// Bytes free where the log lies.
    disk_free_bytes: u64,
    /// `SERVING`, `ELECTING`, `STORAGE_FULL`, `LOG_STALLED` or `STOPPED`.
    health: String,
    /// What is wrong, in one sentence; empty when nothing is.
    detail: String,
    /// The node's version.
    version: String,
    /// The log format that every entry from now on may be in.
    log_format: u32,
    /// `single_tenant` or `multi_tenant`.
    privacy_mode: String,
    /// Since this node was started.
    up_seconds: u64,
    /// Why the last look at the store of the benchmark tables failed; empty when it did not.
    store_trouble: String,
    /// How long of twenty objects that were written lately the slowest but one took, in microseconds.
    store_put_p95_us: Option<u64>,
    /// Why submissions cannot be kept in the staging area; empty where they can.
    staging_trouble: String,
    /// When the certificate ends that the client port shows, in seconds since 1970; null where it shows none.
    certificate_end_seconds: Option<i64>,
    /// By how many milliseconds this host's clock is ahead of the cluster's time, negative where it is behind; null while
    /// nobody leads.
    clock_ahead_ms: Option<i64>,
    /// The newest log format that this node's program knows.
    newest_log_format: u32,
    jobs_pending: u64,
    jobs_running: u64,
    jobs_ended: u64,
    /// Every node of the cluster, this one included, by id.
    nodes: Vec<NodeShown>,
}

/// One node, as seen by the node that answers. Only the leader knows how far the others are.
#[derive(Debug, Serialize, JsonSchema)]
struct NodeShown {
    id: u64,
    /// `VOTER`, `LEARNER` (not caught up yet) or `LEAVING`.
    role: String,
    /// `HOST:PORT` for other nodes.
    peer_address: String,
    /// URL for people and workers.
    client_address: String,
    /// Whether the node that answers can talk with it.
    reachable: bool,
    /// Whether it has next to everything that is committed; null where that is not known.
    caught_up: Option<bool>,
    /// Highest entry it is known to have; 0 if not known.
    matched_index: u64,
    /// Round trip between it and the node that answers, in microseconds; 0 if not known.
    round_trip_us: u64,
    /// Its version; empty if not known.
    version: String,
    /// The newest log format it reads; 0 if not known.
    log_format: u32,
}

/// For how long.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewJoinToken {
    /// Seconds until it is of no use, at most a week; 0 for an hour.
    #[serde(default)]
    valid_seconds: u32,
}

/// A token with which nodes may join.
#[derive(Debug, Serialize, JsonSchema)]
struct JoinToken {
    /// A secret, told this once.
    token: String,
    /// `HOST:PORT` of a node to join through.
    peer_address: String,
    /// Where every node keeps the benchmark tables; empty for a folder of the node alone, with which no other can join.
    store: String,
    /// The same of the files of jobs.
    staging: String,
}

/// Who is to lead.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Transfer {
    /// 0 for the one that is furthest.
    #[serde(default)]
    node_id: u64,
}

/// Who leads now.
#[derive(Debug, Serialize, JsonSchema)]
struct Leads {
    leader_id: u64,
}

async fn show(http: Http, _: Asked<Nothing>, _: Nothing) -> Result<ClusterShown, Status> {
    let status = Cluster(http.context).status().await;
    Ok(ClusterShown {
        node_id: status.node_id,
        // JSON's numbers are not read as far everywhere.
        cluster_id: format!("{:016x}", status.cluster_id),
        term: status.term,
        leader_id: status.leader_id,
        leading: status.leading,
        leading_seconds: status.leading_seconds,
        voters: status.voters,
        commit_index: status.commit_index,
        applied_index: status.applied_index,
        snapshot_index: status.snapshot_index,
        snapshot_bytes: status.snapshot_bytes,
        snapshot_age_seconds: status.snapshot_age_seconds,
        sessions: status.sessions,
        disk_free_bytes: status.disk_free_bytes,
        health: status.health,
        detail: status.detail,
        version: status.version,
        log_format: status.log_format,
        privacy_mode: status.privacy_mode,
        up_seconds: status.up_seconds,
        store_trouble: status.store_trouble,
        store_put_p95_us: status.store_put_p95_us,
        staging_trouble: status.staging_trouble,
        certificate_end_seconds: status.certificate_end_seconds,
        clock_ahead_ms: status.clock_ahead_ms,
        newest_log_format: status.newest_log_format,
        jobs_pending: status.jobs_pending,
        jobs_running: status.jobs_running,
        jobs_ended: status.jobs_ended,
        nodes: status.nodes.into_iter().map(node).collect(),
    })
}

fn node(node: v1::ClusterNode) -> NodeShown {
    NodeShown {
        id: node.node_id,
        role: node.role,
        peer_address: node.peer_address,
        client_address: node.client_address,
        reachable: node.reachable,
        caught_up: node.caught_up,
        matched_index: node.matched_index,
        round_trip_us: node.round_trip_us,
        version: node.version,
        log_format: node.log_format,
    }
}

async fn create_token(
    http: Http,
    asked: Asked<Nothing>,
    sent: NewJoinToken,
) -> Result<JoinToken, Status> {
    let request = v1::CreateJoinTokenRequest {
        valid_seconds: sent.valid_seconds,
    };
    let cluster = Cluster(http.context);
    let made = cluster.create_join_token(&asked.caller, request);
    let made = made.await?;
    Ok(JoinToken {
        token: made.token,
        peer_address: made.peer_address,
        store: made.store,
        staging: made.staging,
    })
}

async fn remove(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Done, Status> {
    let id = asked.part("id");
    let node_id = id
        .parse()
        .map_err(|_| status::not_found("nodes", "a node", &names::of_text("nodes", id)))?;
    let request = v1::RemoveNodeRequest { node_id };
    let cluster = Cluster(http.context);
    let removed = cluster.remove_node(&asked.caller, request);
    removed.await?;
    Ok(asked.done())
}

async fn rotate(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Done, Status> {
    Cluster(http.context).rotate_secret(&asked.caller).await?;
    Ok(asked.done())
}

async fn transfer(http: Http, asked: Asked<Nothing>, sent: Transfer) -> Result<Leads, Status> {
    let request = v1::TransferLeadershipRequest {
        node_id: sent.node_id,
    };
    let cluster = Cluster(http.context);
    let moved = cluster.transfer_leadership(&asked.caller, request);
    Ok(Leads {
        leader_id: moved.await?.leader_id,
    })
}
