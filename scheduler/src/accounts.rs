//! Who may use the cluster: organisations, the people in them, their long-lived tokens, and what was done by whom.
//!
//! Facts alone. A name is what somebody chose to be called; no address, no password and no token is here, and of a token
//! only a hash that nobody without the cluster's key can compare with anything.

mod audit;
mod change;
mod role;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use audit::{Action, Actor, AuditEntry, Broken, Checked, Trail, verify};
pub use change::AccountChange;
pub use role::{Permission, Role};

use crate::ids::{KeyId, OrgId, TokenHash, UserId};
use crate::model::Label;

/// Organisations at most.
pub const ORGS_MAX: usize = 10_000;

/// People at most, in all organisations.
pub const USERS_MAX: usize = 100_000;

/// Tokens of one person at most: a laptop, a few hosts, and some that were forgotten.
pub const KEYS_PER_USER: usize = 32;

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// Its id, by which everything else knows it.
    pub id: OrgId,
    /// What it is called; no two have the same name.
    pub name: Label,
    /// When it was made, by stamp.
    pub created_ms: u64,
}

/// Somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their organisation; an operator has none.
    pub org: Option<OrgId>,
    /// What they are called; no two in an organisation have the same name.
    pub name: Label,
    /// What they may do.
    pub role: Role,
    /// Since when, by stamp.
    pub created_ms: u64,
}

/// A long-lived token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Whose.
    pub user: UserId,
    /// When it was made, by stamp.
    pub created_ms: u64,
    /// When it ends, by stamp; none for one that ends only when it is taken back.
    pub expires_ms: Option<u64>,
}

/// Everybody, and the trail of what was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    pub(crate) last_org: u64,
    pub(crate) last_user: u64,
    pub(crate) last_key: u64,
    pub(crate) orgs: Arc<BTreeMap<OrgId, Org>>,
    pub(crate) users: Arc<BTreeMap<UserId, User>>,
    /// By their keyed hash.
    pub(crate) keys: Arc<BTreeMap<TokenHash, Key>>,
    pub(crate) trail: Trail,
}

impl Accounts {
    /// An organisation.
    #[must_use]
    pub fn org(&self, org: OrgId) -> Option<&Org> {
        self.orgs.get(&org)
    }

    /// Every organisation, oldest first.
    pub fn orgs(&self) -> impl Iterator<Item = &Org> {
        self.orgs.values()
    }

    /// Somebody.
    #[must_use]
    pub fn user(&self, user: UserId) -> Option<&User> {
        self.users.get(&user)
    }

    /// Everybody, oldest first.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// How many people were removed, ever: it grows with everybody who is.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.last_user.saturating_sub(self.users.len() as u64)
    }

    /// The token with this hash, if it is good at `now_ms`, with whose it is.
    #[must_use]
    pub fn holder(&self, hash: &TokenHash, now_ms: u64) -> Option<(&Key, &User)> {
        let key = self.keys.get(hash)?;
        let good = key.expires_ms.is_none_or(|ends| now_ms < ends);
        Some((key, self.user(key.user)?)).filter(|_| good)
    }

    /// Every token, in no order that says anything.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.values()
    }

    /// Whether there is an operator: until then nobody can have let anybody in.
    #[must_use]
    pub fn has_operator(&self) -> bool {
        self.users().any(|user| user.role == Role::Operator)
    }

    /// What was done by whom.
    #[must_use]
    pub const fn trail(&self) -> &Trail {
        &self.trail
    }
}
