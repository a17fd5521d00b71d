//! Who belongs to a cluster and who leads it: growing, shrinking, and waiting for it.

use std::fs;
use std::time::Instant;

use stepcast_proto::v1;

use super::{Cluster, LOOK, Node, PATIENCE};
use crate::disk::Disk;
use crate::process::Process;
use crate::skipped;

impl Cluster {
    /// Starts one more node, the first one as the founder, and waits until it has a vote. Its data may lie on a disk of
    /// its own.
    pub(crate) async fn grow(&mut self, own_disk: bool) -> usize {
        let number = self.nodes.len() + 1;
        let place = self.wires.place(number, &mut self.random).await;
        let disk = own_disk.then(|| {
            Disk::new(
                self.folder.as_ref().unwrap().path(),
                &format!("disk{number}"),
            )
        });
        let disk = disk.and_then(|made| made.inspect_err(|why| skipped(why)).ok());
        let data = match &disk {
            Some(disk) => disk.path().join("data"),
            None => self.path(&format!("n{number}")),
        };
        let joined = match number {
            1 => None,
            _ => Some(self.join_token(number).await),
        };
        let control = self.servers.connect(&format!("http://{}", place.listen));
        self.servers.add(&place.client_address);
        self.nodes.push(Node {
            place,
            process: None,
            member: true,
            older: self.older,
            disk,
            data,
            joined,
            control,
        });
        self.start_node(number);
        self.until_voter(number).await;
        number
    }

    /// Makes a token for a new node and writes it down; through whom it joins.
    async fn join_token(&mut self, number: usize) -> String {
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.leader().await {
                let mut control = self.node(leader).control.clone();
                let request = v1::CreateJoinTokenRequest { valid_seconds: 0 };
                if let Ok(made) = control.cluster.create_join_token(request).await {
                    let made = made.into_inner();
                    fs::write(self.path(&format!("join{number}")), made.token).unwrap();
                    return made.peer_address;
                }
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "nobody makes a token to join with"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a node has a vote, as the leader sees it.
    async fn until_voter(&mut self, number: usize) {
        let address = self.node(number).place.client_address.clone();
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.leader().await
                && let Some(status) = self.status(leader).await
                && (self.nodes.len() == 1
                    || status
                        .nodes
                        .iter()
                        .any(|node| node.client_address == address && node.role == "VOTER"))
            {
                return;
            }
            let ended = self
                .node(number)
                .process
                .as_mut()
                .is_some_and(Process::has_ended);
            assert!(!ended, "node {number} has ended by itself; see its log");
            assert!(begun.elapsed() < PATIENCE, "node {number} gets no vote");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes a node out and its process away; `false` if the cluster did not do it now.
    pub(crate) async fn remove(&mut self, number: usize) -> bool {
        let Some(leader) = self.leader().await else {
            return false;
        };
        let address = self.node(number).place.client_address.clone();
        let Some(status) = self.status(leader).await else {
            return false;
        };
        let Some(node) = status
            .nodes
            .iter()
            .find(|node| node.client_address == address)
        else {
            return false;
        };
        let node_id = node.node_id;
        let mut control = self.node(leader).control.clone();
        let removed = control
            .cluster
            .remove_node(v1::RemoveNodeRequest { node_id })
            .await;
        // Without an answer nobody knows: look.
        if removed.is_err() {
            let leader = self.await_leader().await;
            let status = self.status(leader).await;
            let there = |status: v1::GetClusterStatusResponse| {
                status
                    .nodes
                    .iter()
                    .any(|node| node.node_id == node_id && node.role != "LEAVING")
            };
            if status.is_none_or(there) {
                return false;
            }
        }
        self.servers.remove(&address);
        let node = self.node(number);
        node.member = false;
        node.process.take();
        true
    }

    /// Has another node lead.
    pub(crate) async fn transfer(&mut self) -> bool {
        let Some(leader) = self.leader().await else {
            return false;
        };
        let mut control = self.node(leader).control.clone();
        let request = v1::TransferLeadershipRequest { node_id: 0 };
        control.cluster.transfer_leadership(request).await.is_ok()
    }

    /// The number of the node that leads, by the newest term there is.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let mut leaders = Vec::new();
        for number in self.members() {
            if let Some(status) = self.status(number).await
                && status.leading
            {
                self.history.leads(status.term, status.node_id);
                leaders.push((status.term, number));
            }
        }
        leaders.into_iter().max().map(|(_, number)| number)
    }

    /// The same, waiting for there to be one.
    pub(crate) async fn await_leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.leader().await {
                return leader;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody leads");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every node that runs has applied everything that the leader has now.
    pub(crate) async fn until_even(&self) {
        let begun = Instant::now();
        let leader = self.await_leader().await;
        let goal = self
            .status(leader)
            .await
            .map_or(0, |status| status.commit_index);
        for number in self.members() {
            while self
                .status(number)
                .await
                .is_none_or(|status| status.applied_index < goal)
            {
                assert!(
                    begun.elapsed() < PATIENCE,
                    "node {number} does not catch up"
                );
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Where two nodes have different jobs, once everything is applied everywhere: a sentence each.
    pub(crate) async fn differences(&self) -> Vec<String> {
        let mut all = Vec::new();
        for number in self.members() {
            all.push((number, self.jobs_on(number).await));
        }
        let mut wrong = Vec::new();
        for pair in all.windows(2) {
            let [(one, jobs), (other, others)] = pair else {
                continue;
            };
            if jobs.len() != others.len() {
                let counts = (jobs.len(), others.len());
                wrong.push(format!("nodes {one} and {other} have {counts:?} jobs"));
            }
            for (job, other_job) in jobs.iter().zip(others) {
                if job != other_job {
                    wrong.push(format!(
                        "node {one} has {job:?}, node {other} has {other_job:?}"
                    ));
                }
            }
        }
        wrong
    }

    /// Every job as one node has it, whether or not it can reach the others.
    async fn jobs_on(&self, number: usize) -> Vec<v1::Job> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let mut control = self.nodes[number - 1].control.clone();
            let mut request = tonic::Request::new(v1::ListJobsRequest {
                page_size: 1_000,
                page_token,
                states: Vec::new(),
                with_outlook: false,
            });
            let how = tonic::metadata::MetadataValue::from_static("stale");
            request.metadata_mut().insert("stepcast-read", how);
            let page = control.jobs.list_jobs(request).await.unwrap().into_inner();
            // How far a running attempt is, only its leader knows.
            let jobs = page.jobs.into_iter().map(|job| v1::Job {
                progress: None,
                ..job
            });
            all.extend(jobs);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }
}
