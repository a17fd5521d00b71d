//! `stepcast cluster status`: every node as it says itself, and as the leader sees it.

mod hosts;
mod json;

use std::time::Duration;

use stepcast_proto::v1::{ClusterNode, GetClusterStatusRequest, GetClusterStatusResponse};

use crate::client::{Client, timed};
use crate::command::jobs::words;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{bytes, count, counted};
use crate::output::style::{Mark, Tone};
use crate::output::table::{Cell, Side, Table};
use crate::output::time;

/// A node that has not said by then where it stands is shown without it.
const NODE_WITHIN: Duration = Duration::from_secs(2);

/// A node that says nothing else of itself counts as caught up if it is no further behind than this.
const NEAR_ENTRIES: u64 = 2_000;

/// What is known of the cluster.
pub(super) struct View {
    /// What the leader says, or the node that was asked if no leader can be reached.
    pub(super) whole: GetClusterStatusResponse,
    nodes: Vec<Node>,
}

/// One node: what the others know of it, and what it says itself if it can be reached from here.
struct Node {
    known: ClusterNode,
    own: Option<GetClusterStatusResponse>,
}

/// Shows where everybody stands.
pub(super) async fn show(context: &Context, client: &Client) -> Result<(), Failure> {
    let view = view(client).await?;
    if context.output.json {
        context.output.json(&view.json())
    } else {
        view.show(context)
    }
}

/// Where the node that is asked stands.
pub(super) async fn of(client: &Client) -> Result<GetClusterStatusResponse, Failure> {
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

/// Asks a node, then the leader it names, then everybody.
pub(super) async fn view(client: &Client) -> Result<View, Failure> {
    let mut whole = of(client).await?;
    // One that knows no leader may be cut off, or have been removed: another may know more.
    for _ in 1..client.server_count() {
        if whole.leader_id != 0 {
            break;
        }
        client.next_server();
        if let Ok(answer) = of(client).await
            && answer.leader_id != 0
        {
            whole = answer;
        }
    }
    if !whole.leading
        && let Some(leader) = whole
            .nodes
            .iter()
            .find(|node| node.node_id == whole.leader_id)
        && let Some(answer) = own(client, leader.client_address.clone()).await
        && answer.leading
    {
        whole = answer;
    }
    let mut asked = tokio::task::JoinSet::new();
    for node in whole
        .nodes
        .iter()
        .filter(|node| node.node_id != whole.node_id)
    {
        let (client, id, address) = (client.clone(), node.node_id, node.client_address.clone());
        asked.spawn(async move { (id, own(&client, address).await) });
    }
    let mut said = asked.join_all().await;
    let mut nodes: Vec<Node> = whole.nodes.iter().cloned().map(Node::known).collect();
    for node in &mut nodes {
        let id = node.known.node_id;
        node.own = if id == whole.node_id {
            Some(whole.clone())
        } else {
            let at = said.iter().position(|(other, _)| *other == id);
            let own = at.and_then(|at| said.swap_remove(at).1);
            // At this address there may be another node by now.
            own.filter(|own| own.node_id == id && own.cluster_id == whole.cluster_id)
        };
    }
    nodes.sort_by_key(|node| node.known.node_id);
    Ok(View { whole, nodes })
}

/// What a node says of itself, if it answers soon.
async fn own(client: &Client, address: String) -> Option<GetClusterStatusResponse> {
    let client = client.only(&address)?;
    let mut service = client.cluster();
    let answer = service.get_cluster_status(timed(GetClusterStatusRequest {}));
    let answer = tokio::time::timeout(NODE_WITHIN, answer).await;
    Some(answer.ok()?.ok()?.into_inner())
}

impl Node {
    fn known(known: ClusterNode) -> Self {
        Self { known, own: None }
    }

    fn votes(&self) -> bool {
        self.known.role == "VOTER"
    }

    /// Whether it says that its log cannot be written, which its own line then tells.
    fn is_stalled(&self) -> bool {
        let own = self.own.as_ref();
        own.is_some_and(|own| own.health == "LOG_STALLED")
    }

    fn version(&self) -> &str {
        match &self.own {
            Some(own) => &own.version,
            None => &self.known.version,
        }
    }
}

impl View {
    fn role(&self, node: &Node) -> &'static str {
        match node.known.role.as_str() {
            _ if node.known.node_id == self.whole.leader_id => "leader",
            "VOTER" => "follower",
            "LEAVING" => "leaving",
            _ => "learner",
        }
    }

    /// Whether it takes part: the leader hears of it, or it answers here.
    fn takes_part(&self, node: &Node) -> bool {
        node.known.reachable || node.own.is_some()
    }

    /// Whether it is here and still waits for a part of the log, or cannot write: until then its vote counts for nothing new.
    fn is_far(&self, node: &Node) -> bool {
        let far = |behind| behind > NEAR_ENTRIES;
        self.takes_part(node)
            && (node.known.caught_up == Some(false)
                || node.is_stalled()
                || self.behind(node).is_some_and(far))
    }

    /// Voters that may still be lost, of those that have caught up; nothing if too few are here at all.
    fn spare(&self) -> Option<u64> {
        let voters = self.nodes.iter().filter(|node| node.votes());
        let (all, there, near) = voters.fold((0, 0, 0_u64), |(all, there, near), node| {
            let here = self.takes_part(node);
            let able = here && !self.is_far(node);
            (all + 1, there + u64::from(here), near + u64::from(able))
        });
        let majority = all / 2 + 1;
        (there >= majority).then(|| near.saturating_sub(majority))
    }

    fn state(&self) -> String {
        let away = self.nodes.iter().any(|node| !self.takes_part(node));
        let mut voters = self.nodes.iter().filter(|node| node.votes());
        let behind = voters.any(|node| self.is_far(node));
        match self.whole.health.as_str() {
            _ if self.spare().is_none() => Tone::Bad.paint("without a majority"),
            "SERVING" if away => Tone::Warn.paint("short of a node"),
            "SERVING" if behind => Tone::Warn.paint("waiting for a node to catch up"),
            "SERVING" => Tone::Good.paint("healthy"),
            "STORAGE_FULL" => Tone::Bad.paint("short of disk space"),
            "LOG_STALLED" => Tone::Bad.paint("stalled"),
            other => Tone::Bad.paint(&words(other)),
        }
    }

    fn show(&self, context: &Context) -> Result<(), Failure> {
        let (output, whole) = (&context.output, &self.whole);
        let leads = match (whole.leader_id, whole.leading_seconds) {
            (0, _) => "nobody leads".to_owned(),
            (leader, Some(seconds)) => {
                format!("n{leader} has led for {}", time::rough_span(seconds as f64))
            }
            // Another node, or an older version, does not say.
            (leader, None) => format!("n{leader} leads"),
        };
        let losses = match self.spare() {
            Some(spare) => format!("can lose {}", counted(spare, "node", "nodes")),
            None => "nothing can be written".to_owned(),
        };
        output.say(format!(
            "The cluster is {}: term {}, {leads}, {losses}",
            self.state(),
            whole.term
        ));
        output.say("");
        output.table(&self.table())?;
        output.say("");
        output.say(format!(
            "  {}   {}   disk {} free   privacy {}",
            self.snapshot(),
            counted(u64::from(whole.sessions), "worker", "workers"),
            bytes(whole.disk_free_bytes),
            whole.privacy_mode
        ));
        output.say(format!(
            "  jobs: {} pending, {} running, {} ended{}",
            count(whole.jobs_pending),
            count(whole.jobs_running),
            count(whole.jobs_ended),
            self.tables()
        ));
        for line in self.remarks() {
            output.marked(Mark::Look, Tone::Warn, line);
        }
        Ok(())
    }

    /// The newest snapshot, with its size and age where they are known.
    fn snapshot(&self) -> String {
        let (whole, index) = (&self.whole, self.whole.snapshot_index);
        match (index, whole.snapshot_bytes, whole.snapshot_age_seconds) {
            (0, ..) => "no snapshot yet".to_owned(),
            (index, Some(size), Some(age)) => format!(
                "snapshot {} ({}, {} ago)",
                count(index),
                bytes(size),
                time::rough_span(age as f64)
            ),
            (index, ..) => format!("snapshot {}", count(index)),
        }
    }

    /// How the store of the tables does, as far as that is known.
    fn tables(&self) -> String {
        match self.whole.store_put_p95_us {
            _ if !self.whole.store_trouble.is_empty() => {
                format!("   tables {}", Tone::Bad.paint("not reachable"))
            }
            Some(us) => format!("   tables ok (put p95 {})", milliseconds(us)),
            None => String::new(),
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("NODE", Side::Left),
            ("ROLE", Side::Left),
            ("COMMIT", Side::Right),
            ("APPLIED", Side::Right),
            ("BEHIND", Side::Right),
            ("RTT", Side::Right),
            ("VERSION", Side::Left),
            ("UP", Side::Right),
            ("ADDRESS", Side::Left),
        ]);
        for node in &self.nodes {
            let index = |of: fn(&GetClusterStatusResponse) -> u64| {
                node.own.as_ref().map_or_else(dash, |own| count(of(own)))
            };
            let (known, leads) = (&node.known, node.known.node_id == self.whole.leader_id);
            let away = !self.takes_part(node);
            let behind = match (leads, self.behind(node)) {
                (false, Some(behind)) => count(behind),
                _ => dash(),
            };
            let role = self.role(node);
            table.row(vec![
                format!("n{}", known.node_id).into(),
                match away {
                    true => Cell::toned(format!("{role} (away)"), Tone::Bad),
                    false => role.into(),
                },
                index(|own| own.commit_index).into(),
                index(|own| own.applied_index).into(),
                behind.into(),
                match known.round_trip_us {
                    0 => dash(),
                    us => milliseconds(us),
                }
                .into(),
                match node.version() {
                    "" => dash().into(),
                    version if version != self.whole.version => {
                        Cell::toned(format!("{version} !"), Tone::Warn)
                    }
                    version => version.into(),
                },
                node.own
                    .as_ref()
                    .map_or_else(dash, |own| time::rough_span(own.up_seconds as f64))
                    .into(),
                known.client_address.clone().into(),
            ]);
        }
        table
    }

    /// Entries that are committed and not known to be on the node, or not applied there.
    fn behind(&self, node: &Node) -> Option<u64> {
        let has = match (&node.own, node.known.matched_index) {
            (Some(own), 0) => own.applied_index,
            (None, 0) => return None,
            // What is in its log it may not have applied yet: a snapshot takes a while.
            (Some(own), matched) => matched.min(own.applied_index),
            (None, matched) => matched,
        };
        Some(self.whole.commit_index.saturating_sub(has))
    }

    /// What somebody should look at.
    fn remarks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let newest = self.nodes.iter().map(|node| node.known.log_format).max();
        if !self.whole.detail.is_empty() {
            lines.push(format!("n{}: {}", self.whole.node_id, self.whole.detail));
        }
        if self.spare().is_none() {
            lines.push(
                "too few of the nodes that vote answer, so none can be removed or added: start those that are away; if they have \
                 other addresses now, start each node with --join and the HOST:PORT of the others, which needs no token; only if \
                 a majority is gone for good, restore a backup: stepcast cluster restore"
                    .to_owned(),
            );
        }
        let clocks = self.nodes.iter().filter_map(|node| {
            let ahead = node.own.as_ref()?.clock_ahead_ms?;
            Some((node.known.node_id, ahead))
        });
        lines.extend(hosts::clocks(&clocks.collect::<Vec<_>>()));
        for node in &self.nodes {
            let id = node.known.node_id;
            if !self.takes_part(node) {
                lines.push(match self.spare() {
                    Some(_) => format!(
                        "n{id} does not answer; if it is gone for good: stepcast cluster remove n{id}, then add another"
                    ),
                    None => format!(
                        "n{id} does not answer{}: start it, see to its way to the others, or to --join if it is elsewhere now",
                        at(&node.known.peer_address)
                    ),
                });
            }
            if node.votes() && self.is_far(node) && !node.is_stalled() {
                let unheard = self.whole.leading && !node.known.reachable;
                lines.push(match self.behind(node) {
                    _ if unheard => format!(
                        "n{id} answers here, and n{} does not reach it: see to the way between them",
                        self.whole.node_id
                    ),
                    None | Some(0) => format!(
                        "n{id} has just come back: stop no other node before its leader has heard how far it is"
                    ),
                    Some(behind) => format!(
                        "n{id} is {} behind: stop no other node before it has caught up",
                        counted(behind, "entry", "entries")
                    ),
                });
            }
            if node.known.role == "LEARNER" && self.takes_part(node) {
                let behind = self.behind(node).unwrap_or(0);
                lines.push(format!(
                    "n{id} has no vote yet, {} behind: it gets one as soon as it keeps up with what is written",
                    counted(behind, "entry", "entries")
                ));
            }
            let own = node
                .own
                .as_ref()
                .filter(|own| own.node_id != self.whole.node_id);
            if let Some(own) = own.filter(|own| !own.detail.is_empty()) {
                lines.push(format!("n{id}: {}", own.detail));
            }
            if let Some(own) = node
                .own
                .as_ref()
                .filter(|own| !own.store_trouble.is_empty())
            {
                lines.push(format!("n{id}: the tables: {}", own.store_trouble));
            }
            if let Some(own) = node
                .own
                .as_ref()
                .filter(|own| !own.staging_trouble.is_empty())
            {
                lines.push(format!("n{id}: the staging area: {}", own.staging_trouble));
            }
            let end = node
                .own
                .as_ref()
                .and_then(|own| own.certificate_end_seconds);
            lines.extend(end.and_then(|end| hosts::certificate(id, end, time::now_seconds())));
            let version = node.version();
            if !version.is_empty() && version != self.whole.version {
                lines.push(format!(
                    "n{id} runs version {version}, n{} runs {}; what is new stays off until every node has it",
                    self.whole.node_id, self.whole.version
                ));
            }
            // 0 where it is not known.
            let (format, newest) = (node.known.log_format, newest.unwrap_or(0));
            if (1..newest).contains(&format) {
                lines.push(format!(
                    "n{id} goes along with log format {format}, others with {newest}: upgrade it, or start it without \
                     --hold-format; what is new stays off until then"
                ));
            }
        }
        if let Some((held, known)) = self.held() {
            lines.push(format!(
                "all nodes are held at log format {held} and know {known}: what is new is refused until none is started with \
                 --hold-format"
            ));
        }
        lines
    }

    /// The log format that all nodes go along with, and the newest that all that answer know, where that is a newer one.
    fn held(&self) -> Option<(u32, u32)> {
        let mut formats = self.nodes.iter().map(|node| node.known.log_format);
        let held = formats.next()?;
        let owns = self.nodes.iter().filter_map(|node| node.own.as_ref());
        let known = owns.map(|own| own.newest_log_format).min()?;
        // 0 where it is not known.
        (held > 0 && known > held && formats.all(|format| format == held)).then_some((held, known))
    }
}

/// Where somebody is looked for, if that is known.
fn at(address: &str) -> String {
    match address {
        "" => String::new(),
        address => format!(" at {address}"),
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn milliseconds(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{} ms", us / 1_000),
    }
}

#[cfg(test)]
mod tests;
