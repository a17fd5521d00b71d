//! `stepcast cluster`: where the server and its log stand.

use clap::Subcommand;
use serde_json::json;
use stepcast_proto::v1::{GetClusterStatusRequest, GetClusterStatusResponse};

use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{bytes, count, counted};
use crate::output::style::{Mark, Tone};
use crate::output::table::{Side, Table};

/// What can be asked about a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Says where the server and its log stand
    Status,
}

impl Cluster {
    /// Asks and shows.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::Status = self;
        let client = context.connect().await?;
        let status = status(&client).await?;
        if context.output.json {
            context.output.json(&status_json(&status))
        } else {
            show(context, &status)
        }
    }
}

/// Where the server stands.
pub(crate) async fn status(client: &Client) -> Result<GetClusterStatusResponse, Failure> {
    let answer = client.ask(|| {
        let mut service = client.cluster();
        async move {
            service
                .get_cluster_status(timed(GetClusterStatusRequest {}))
                .await
        }
    });
    answer.await
}

fn show(context: &Context, status: &GetClusterStatusResponse) -> Result<(), Failure> {
    let output = &context.output;
    let healthy = status.health == "SERVING";
    let state = if healthy {
        Tone::Good.paint("healthy")
    } else {
        let words = match status.health.as_str() {
            "STORAGE_FULL" => "short of disk space".to_owned(),
            "LOG_STALLED" => "stalled".to_owned(),
            other => super::jobs::words(other),
        };
        Tone::Bad.paint(&words)
    };
    let leads = if status.leader_id == 0 {
        "nobody leads".to_owned()
    } else {
        format!("n{} leads", status.leader_id)
    };
    let losses = status.voters.len().saturating_sub(1) / 2;
    output.say(format!(
        "The cluster is {state}: term {}, {leads}, can lose {}",
        status.term,
        counted(losses as u64, "node", "nodes")
    ));
    output.say("");
    let mut table = Table::new(&[
        ("NODE", Side::Left),
        ("ROLE", Side::Left),
        ("COMMIT", Side::Right),
        ("APPLIED", Side::Right),
        ("SNAPSHOT", Side::Right),
        ("WORKERS", Side::Right),
        ("DISK FREE", Side::Right),
        ("VERSION", Side::Left),
    ]);
    let role = if status.leading { "leader" } else { "follower" };
    table.row(vec![
        format!("n{}", status.node_id).into(),
        role.into(),
        count(status.commit_index).into(),
        count(status.applied_index).into(),
        count(status.snapshot_index).into(),
        count(u64::from(status.sessions)).into(),
        bytes(status.disk_free_bytes).into(),
        status.version.clone().into(),
    ]);
    output.table(&table)?;
    output.say("");
    output.say(format!(
        "  jobs: {} pending, {} running, {} ended   privacy {}",
        count(status.jobs_pending),
        count(status.jobs_running),
        count(status.jobs_ended),
        status.privacy_mode
    ));
    if !status.detail.is_empty() {
        output.marked(Mark::Look, Tone::Warn, &status.detail);
    }
    Ok(())
}

fn status_json(status: &GetClusterStatusResponse) -> serde_json::Value {
    json!({
        "node_id": status.node_id,
        "cluster_id": format!("{:016x}", status.cluster_id),
        "term": status.term,
        "leader_id": status.leader_id,
        "leading": status.leading,
        "voters": status.voters,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "snapshot_index": status.snapshot_index,
        "sessions": status.sessions,
        "disk_free_bytes": status.disk_free_bytes,
        "health": status.health,
        "detail": status.detail,
        "version": status.version,
        "privacy_mode": status.privacy_mode,
        "jobs_pending": status.jobs_pending,
        "jobs_running": status.jobs_running,
        "jobs_ended": status.jobs_ended,
    })
}
