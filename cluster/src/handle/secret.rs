//! What the nodes of a cluster derive from the secret that they share, and how it is replaced.

use std::io;
use std::time::Duration;

use ring::hmac;
use stepcast_scheduler::accounts::Actor;
use stepcast_scheduler::model::Generation;
use stepcast_scheduler::{Command, State};
use tokio::time::{sleep, timeout};

use super::Handle;
use crate::error::ProposeError;
use crate::leader::nodes;
use crate::peers::JoinToken;

/// A cluster that has just begun, or in which everybody has just learnt of it, has its first secret within this time, and one
/// that a node was removed from another one.
const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A join token, and by which secret of the nodes it was made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The token.
    pub token: JoinToken,
    /// The number of the generation with which it ends; 0 in a log without.
    pub generation: u64,
}

/// A key that is derived from this one and the secret of a generation; the same one where there is none yet.
pub(crate) fn of_generation(root: &[u8; 32], generation: Option<&Generation>) -> [u8; 32] {
    let Some(generation) = generation else {
        return *root;
    };
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, root),
        &generation.secret.0,
    );
    let mut key = [0; 32];
    key.copy_from_slice(tag.as_ref());
    key
}

impl Handle {
    /// A token with which nodes can join within this time, until a node is removed or the cluster gets another secret. Any
    /// node can make one. Nothing without a port for nodes.
    pub async fn join_token(&self, valid_for: Duration) -> Option<io::Result<NewToken>> {
        let peers = self.0.way.peers.as_ref()?;
        self.has_settled().await;
        let generation = self.read_stale(|state| state.nodes().generation().copied());
        let made = peers.mint_token(generation.as_ref(), valid_for);
        Some(made.map(|token| NewToken {
            token,
            generation: generation.map_or(0, |present| present.number),
        }))
    }

    /// The number of the secret that the nodes share at present, as far as this node knows; 0 in a log without.
    pub fn generation(&self) -> u64 {
        let number = |state: &State| state.nodes().generation().map(|present| present.number);
        self.read_stale(number).unwrap_or_default()
    }

    /// What this key is for now: derived from it and the secret that the nodes of the cluster share at present, as far as this
    /// node knows. A node that was removed never knows it.
    pub fn present_key(&self, root: &[u8; 32]) -> [u8; 32] {
        self.read_stale(|state| of_generation(root, state.nodes().generation()))
    }

    /// Waits until the cluster has a secret, where it is about to get its first: what is derived before ends with that.
    pub async fn has_secret(&self) {
        let waiting = async {
            while self.awaits_secret() {
                sleep(LOOK_EVERY).await;
            }
        };
        let _ = timeout(FIRST_WITHIN, waiting).await;
    }

    /// The same, and until this node knows everything that was acknowledged when it was asked, without a secret that is about
    /// to be replaced since a node was removed: what is derived then is not over within a moment. Where nobody leads, what is
    /// known here has to do.
    pub async fn has_settled(&self) {
        self.has_secret().await;
        let waiting = async {
            while self.0.proposer.confirm_read().await.is_ok() && !self.is_settled() {
                sleep(LOOK_EVERY).await;
            }
        };
        let _ = timeout(FIRST_WITHIN, waiting).await;
    }

    /// Whether the secret that is known here is none that a removed node knows, as far as its removal is known here.
    fn is_settled(&self) -> bool {
        self.0
            .replicated
            .read_at(|state, members, _| nodes::is_settled(state, members))
    }

    /// Has the nodes share another secret from now on: nobody joins by a token that was made before, and short-lived access
    /// tokens have to be asked for anew. On the leader only.
    ///
    /// # Errors
    /// As [`Self::propose_by`]; the log is of a format without secrets.
    pub async fn renew_secret(&self, actor: Option<Actor>) -> Result<(), ProposeError> {
        self.has_secret().await;
        let secret = nodes::secret(&self.0.proposer)
            .ok_or(ProposeError::Stopped("no random bytes".to_owned()))?;
        let command = Command::RenewSecret { secret };
        let renewed = self.propose_by(actor, command, None).await;
        renewed.map(drop)
    }

    /// Whether there is no secret yet and everybody can do with one, so that the leader makes it within a moment.
    fn awaits_secret(&self) -> bool {
        let (has_one, members) = self
            .0
            .replicated
            .read_at(|state, members, _| (state.nodes().generation().is_some(), members.clone()));
        let (me, transport) = (self.0.identity.node_id, &self.0.way.transport);
        let can = |node| {
            let known = transport.log_format(node).unwrap_or_default();
            node == me || known >= u32::from(nodes::SINCE_FORMAT)
        };
        !has_one && self.newest_log_format() >= nodes::SINCE_FORMAT && members.ids().all(can)
    }
}
