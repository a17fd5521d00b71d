//! Who may use the cluster, and what was done by whom, as entries of a snapshot.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Error, damaged};
use crate::accounts::{Accounts, AuditEntry, Key, Org, Trail, User};
use crate::ids::TokenHash;

/// What there is once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    last_org: u64,
    last_user: u64,
    last_key: u64,
    last_entry: u64,
    base: [u8; 32],
    /// How many entries follow.
    pub(super) entries: u64,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kept {
    Org(Org),
    User(User),
    Key(TokenHash, Key),
    Audit(AuditEntry),
}

impl Head {
    pub(super) fn of(accounts: &Accounts) -> Self {
        let entries = accounts.orgs.len()
            + accounts.users.len()
            + accounts.keys.len()
            + accounts.trail.entries.len();
        Self {
            last_org: accounts.last_org,
            last_user: accounts.last_user,
            last_key: accounts.last_key,
            last_entry: accounts.trail.last,
            base: accounts.trail.base,
            entries: entries as u64,
        }
    }

    /// Accounts with nobody in them yet.
    pub(super) fn begin(&self) -> Accounts {
        Accounts {
            last_org: self.last_org,
            last_user: self.last_user,
            last_key: self.last_key,
            trail: Trail {
                base: self.base,
                last: self.last_entry,
                ..Trail::default()
            },
            ..Accounts::default()
        }
    }
}

/// All entries, in the one order that there is.
pub(super) fn kept(accounts: &Accounts) -> impl Iterator<Item = Kept> {
    let orgs = accounts.orgs.values().cloned().map(Kept::Org);
    let users = accounts.users.values().cloned().map(Kept::User);
    let keys = accounts.keys.iter();
    let keys = keys.map(|(hash, key)| Kept::Key(*hash, key.clone()));
    let audit = accounts.trail.entries.values().cloned().map(Kept::Audit);
    orgs.chain(users).chain(keys).chain(audit)
}

/// Puts an entry back.
pub(super) fn take(accounts: &mut Accounts, kept: Kept) -> Result<(), Error> {
    let new = match kept {
        Kept::Org(org) => {
            org.id.0 <= accounts.last_org
                && Arc::make_mut(&mut accounts.orgs)
                    .insert(org.id, org)
                    .is_none()
        }
        Kept::User(user) => {
            let placed = user.org.is_none_or(|org| accounts.orgs.contains_key(&org));
            placed
                && user.id.0 <= accounts.last_user
                && Arc::make_mut(&mut accounts.users)
                    .insert(user.id, user)
                    .is_none()
        }
        Kept::Key(hash, key) => {
            accounts.users.contains_key(&key.user)
                && key.id.0 <= accounts.last_key
                && Arc::make_mut(&mut accounts.keys)
                    .insert(hash, key)
                    .is_none()
        }
        Kept::Audit(entry) => {
            entry.seq <= accounts.trail.last
                && Arc::make_mut(&mut accounts.trail.entries)
                    .insert(entry.seq, entry)
                    .is_none()
        }
    };
    if new {
        Ok(())
    } else {
        Err(damaged(
            "an account or an entry of the audit log is where it cannot be",
        ))
    }
}
