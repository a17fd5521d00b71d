//! Lets new nodes in, on the leader.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use stepcast_scheduler::State;
use stepcast_scheduler::model::Generation;

use crate::config::Places;
use crate::consensus::{Change, ChangeError, Handle, Transport};
use crate::leader::nodes;
use crate::members::{Member, Members};
use crate::peers::{Admission, Admitted, Applicant, NotAdmitted};
use crate::proposer::Outcome;
use crate::replica::Replicated;
use crate::runtime::Runtime;

/// When members change already, the next look is after this long: a change takes a few milliseconds, and the leader's own
/// ones come as seldom.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Looks before the newcomer is told to come back: half a minute of changes one after the other.
const TRIES: usize = 600;

/// A cluster of more nodes gains nothing and only commits more slowly. Two more than are meant to be, so that nodes can be
/// replaced one after the other.
const NODES_MAX: usize = 9;

/// Answers those who ask to be let in.
pub(crate) struct Doorkeeper {
    pub(crate) consensus: Handle<Outcome>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) replicated: Arc<Replicated>,
    pub(crate) places: Option<Places>,
    pub(crate) runtime: Arc<dyn Runtime>,
}

impl Admission for Doorkeeper {
    fn admit(&self, applicant: Applicant) -> BoxFuture<'_, Result<Admitted, NotAdmitted>> {
        self.let_in(applicant).boxed()
    }

    fn generations(&self) -> Vec<Generation> {
        let read = |state: &State| state.nodes().generations().to_vec();
        self.replicated.read(read)
    }

    fn newest_generation(&self) -> BoxFuture<'_, Result<Option<Generation>, NotAdmitted>> {
        self.caught_up().boxed()
    }
}

impl Doorkeeper {
    async fn caught_up(&self) -> Result<Option<Generation>, NotAdmitted> {
        if self.consensus.read().await.is_err() {
            let role = *self.consensus.role().borrow();
            return Err(match role.leads {
                true => NotAdmitted::Later("the cluster has no leader".to_owned()),
                false => self.not_leader(role.leader),
            });
        }
        self.replicated.read_at(|state, members, _| {
            if nodes::is_settled(state, members) {
                return Ok(state.nodes().generation().copied());
            }
            let why = "the cluster is about to renew its secret, since a node was removed or none has had one";
            Err(NotAdmitted::Later(why.to_owned()))
        })
    }

    async fn let_in(&self, applicant: Applicant) -> Result<Admitted, NotAdmitted> {
        for _ in 0..TRIES {
            if !self.consensus.role().borrow().leads {
                let leader = self.consensus.role().borrow().leader;
                return Err(self.not_leader(leader));
            }
            // What is applied here and now may be from before this leadership.
            if self.consensus.read().await.is_err() {
                return Err(NotAdmitted::Later("the cluster has no leader".to_owned()));
            }
            let (members, format) = self
                .replicated
                .read_at(|state, members, _| (members.clone(), state.format()));
            self.check(&applicant, &members, format)?;
            let Some(next) = self.next(&applicant, &members) else {
                return Ok(admitted(members, &applicant.key));
            };
            match self.consensus.change(Change::Admit(next)).await {
                Ok(_) => {}
                Err(ChangeError::UnderWay | ChangeError::Taken(_) | ChangeError::Busy) => {
                    self.runtime.sleep(AGAIN_AFTER).await;
                }
                Err(ChangeError::NotLeader { leader }) => return Err(self.not_leader(leader)),
                Err(error) => return Err(NotAdmitted::Later(error.to_string())),
            }
        }
        Err(NotAdmitted::Later(
            "other changes of the members are under way".to_owned(),
        ))
    }

    /// What is to be written down next: first where this node is, or the newcomer could not reach it.
    fn next(&self, applicant: &Applicant, members: &Members) -> Option<Member> {
        let me = self.transport.me();
        if let Some(me) = me.filter(|me| members.node(me.id) != Some(me)) {
            return Some(me);
        }
        let known = members.nodes.values().find(|m| m.key == applicant.key);
        let member = Member {
            id: known.map_or(members.last_id + 1, |known| known.id),
            peer_address: applicant.peer_address.clone(),
            client_address: applicant.client_address.clone(),
            key: applicant.key,
        };
        (known != Some(&member)).then_some(member)
    }

    fn check(
        &self,
        applicant: &Applicant,
        members: &Members,
        format: u16,
    ) -> Result<(), NotAdmitted> {
        let Some(places) = &self.places else {
            return Err(NotAdmitted::Refused(
                "the nodes of this cluster keep tables and submitted files each on its own disk: before others join, \
                 start it with --store and --staging at places that every node reaches"
                    .to_owned(),
            ));
        };
        same_place("--store", &places.store, &applicant.store)?;
        same_place("--staging", &places.staging, &applicant.staging)?;
        if applicant.log_format < u32::from(format) {
            return Err(NotAdmitted::Refused(format!(
                "the cluster's log is written in format {format}, and the new node reads up to {}: upgrade it first",
                applicant.log_format
            )));
        }
        let known = members.nodes.values().any(|m| m.key == applicant.key);
        if !known && members.ids().count() >= NODES_MAX {
            return Err(NotAdmitted::Refused(format!(
                "the cluster has {NODES_MAX} nodes already: remove one first"
            )));
        }
        Ok(())
    }

    fn not_leader(&self, leader: Option<u64>) -> NotAdmitted {
        let members = self.replicated.members();
        let leader = leader.and_then(|leader| members.node(leader).cloned());
        NotAdmitted::NotLeader {
            peer_address: leader.map(|leader| leader.peer_address),
        }
    }
}

fn same_place(option: &str, ours: &str, theirs: &str) -> Result<(), NotAdmitted> {
    if ours == theirs {
        return Ok(());
    }
    Err(NotAdmitted::Refused(format!(
        "every node needs the same places: start the new one with {option} {ours}, not {theirs}"
    )))
}

fn admitted(members: Members, key: &[u8; 32]) -> Admitted {
    let node = members.nodes.values().find(|member| member.key == *key);
    Admitted {
        // Looked for by this very key a moment ago.
        node_id: node.map_or(0, |node| node.id),
        members,
    }
}
