//! Changes to who may use the cluster, each checked where it is applied.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::audit::{Action, Actor};
use super::role::Role;
use super::{Accounts, KEYS_PER_USER, Key, ORGS_MAX, Org, USERS_MAX, User};
use crate::ids::{KeyId, OrgId, TokenHash, UserId};
use crate::model::Label;
use crate::rejection::Rejection;
use crate::reply::Reply;

/// A change. Their order is part of the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountChange {
    /// Make an organisation.
    CreateOrg {
        /// What it is called.
        name: Label,
    },
    /// Remove an organisation with everybody in it.
    RemoveOrg {
        /// Which.
        org: OrgId,
    },
    /// Let somebody in.
    CreateUser {
        /// Where; none for an operator.
        org: Option<OrgId>,
        /// What they are called.
        name: Label,
        /// What they may do.
        role: Role,
    },
    /// Make somebody something else.
    SetRole {
        /// Who.
        user: UserId,
        /// What they are from here on.
        role: Role,
    },
    /// Shut somebody out, with all of their tokens.
    RemoveUser {
        /// Who.
        user: UserId,
    },
    /// Give somebody a long-lived token.
    CreateKey {
        /// Whom.
        user: UserId,
        /// The keyed hash of its secret.
        hash: TokenHash,
        /// When it ends, by stamp.
        expires_ms: Option<u64>,
    },
    /// Take a token back.
    RevokeKey {
        /// Which.
        key: KeyId,
    },
    /// Write down what was done to something that is not in the state: a node, a backup.
    Note {
        /// What was done.
        action: Action,
        /// To what.
        subject: String,
    },
    /// Make the organisation of a cluster whose records hold single contributions, so that it has one for good: refused where
    /// there is another, and where there was one and jobs have been submitted.
    CreateOnlyOrg {
        /// What it is called.
        name: Label,
    },
}

/// Bytes of a subject at most: a resource name is far shorter.
const SUBJECT_BYTES: usize = 128;

impl Accounts {
    /// Makes the change, if `actor` may: whoever makes, changes or removes somebody rules over what they are and were.
    /// `is_used` says whether a job was ever submitted.
    pub(crate) fn change(
        &mut self,
        stamp_ms: u64,
        actor: Actor,
        change: &AccountChange,
        is_used: bool,
    ) -> Result<Reply, Rejection> {
        let (reply, action, subject) = match change {
            AccountChange::CreateOrg { name } => self.create_org(stamp_ms, name)?,
            AccountChange::CreateOnlyOrg { name } => {
                // What was recorded of one that was removed is still there, or still to come.
                let was_one = self.last_org > 0;
                if !self.orgs.is_empty() || (was_one && is_used) {
                    return Err(Rejection::SecondOrg);
                }
                self.create_org(stamp_ms, name)?
            }
            AccountChange::RemoveOrg { org } => self.remove_org(*org)?,
            AccountChange::CreateUser { org, name, role } => {
                self.create_user(stamp_ms, actor, *org, name, *role)?
            }
            AccountChange::SetRole { user, role } => self.set_role(actor, *user, *role)?,
            AccountChange::RemoveUser { user } => self.remove_user(actor, *user)?,
            AccountChange::CreateKey {
                user,
                hash,
                expires_ms,
            } => self.create_key(stamp_ms, actor, *user, *hash, *expires_ms)?,
            AccountChange::RevokeKey { key } => self.revoke_key(actor, *key)?,
            AccountChange::Note { action, subject } => {
                let mut subject = subject.clone();
                subject.truncate(subject.floor_char_boundary(SUBJECT_BYTES));
                (Reply::Done, *action, subject)
            }
        };
        self.trail.add(stamp_ms, actor, action, subject);
        Ok(reply)
    }

    fn create_org(&mut self, stamp_ms: u64, name: &Label) -> Result<Done, Rejection> {
        if self.orgs().any(|org| org.name == *name) {
            return Err(Rejection::AccountNameTaken { name: name.clone() });
        }
        if self.orgs.len() >= ORGS_MAX {
            return Err(Rejection::Full {
                what: "organisations",
            });
        }
        self.last_org += 1;
        let id = OrgId(self.last_org);
        let org = Org {
            id,
            name: name.clone(),
            created_ms: stamp_ms,
        };
        Arc::make_mut(&mut self.orgs).insert(id, org);
        Ok((Reply::OrgCreated { org: id }, Action::CreateOrg, of_org(id)))
    }

    fn remove_org(&mut self, org: OrgId) -> Result<Done, Rejection> {
        if Arc::make_mut(&mut self.orgs).remove(&org).is_none() {
            return Err(Rejection::NoSuchOrg);
        }
        let users = Arc::make_mut(&mut self.users);
        users.retain(|_, user| user.org != Some(org));
        self.drop_keys();
        Ok((Reply::Done, Action::RemoveOrg, of_org(org)))
    }

    fn create_user(
        &mut self,
        stamp_ms: u64,
        actor: Actor,
        org: Option<OrgId>,
        name: &Label,
        role: Role,
    ) -> Result<Done, Rejection> {
        if org.is_none() != (role == Role::Operator) {
            return Err(Rejection::RoleElsewhere);
        }
        if org.is_some_and(|org| self.org(org).is_none()) {
            return Err(Rejection::NoSuchOrg);
        }
        rules(actor, org, role)?;
        if self
            .users()
            .any(|user| user.org == org && user.name == *name)
        {
            return Err(Rejection::AccountNameTaken { name: name.clone() });
        }
        if self.users.len() >= USERS_MAX {
            return Err(Rejection::Full { what: "people" });
        }
        self.last_user += 1;
        let id = UserId(self.last_user);
        let user = User {
            id,
            org,
            name: name.clone(),
            role,
            created_ms: stamp_ms,
        };
        Arc::make_mut(&mut self.users).insert(id, user);
        Ok((
            Reply::UserCreated { user: id },
            Action::CreateUser,
            of_user(id),
        ))
    }

    fn set_role(&mut self, actor: Actor, id: UserId, role: Role) -> Result<Done, Rejection> {
        let user = self.user(id).ok_or(Rejection::NoSuchUser)?;
        let (org, was) = (user.org, user.role);
        rules(actor, org, was)?;
        rules(actor, org, role)?;
        if org.is_none() != (role == Role::Operator) {
            return Err(Rejection::RoleElsewhere);
        }
        self.keep_one(id, org, was, Some(role))?;
        if let Some(user) = Arc::make_mut(&mut self.users).get_mut(&id) {
            user.role = role;
        }
        Ok((Reply::Done, Action::SetRole, of_user(id)))
    }

    fn remove_user(&mut self, actor: Actor, id: UserId) -> Result<Done, Rejection> {
        let user = self.user(id).ok_or(Rejection::NoSuchUser)?;
        let (org, was) = (user.org, user.role);
        rules(actor, org, was)?;
        self.keep_one(id, org, was, None)?;
        Arc::make_mut(&mut self.users).remove(&id);
        self.drop_keys();
        Ok((Reply::Done, Action::RemoveUser, of_user(id)))
    }

    fn create_key(
        &mut self,
        stamp_ms: u64,
        actor: Actor,
        user: UserId,
        hash: TokenHash,
        expires_ms: Option<u64>,
    ) -> Result<Done, Rejection> {
        let holder = self.user(user).ok_or(Rejection::NoSuchUser)?;
        if actor.user != Some(user) {
            rules(actor, holder.org, holder.role)?;
        }
        if self.keys.contains_key(&hash) {
            return Err(Rejection::TokenExists);
        }
        // What is over makes room.
        let keys = Arc::make_mut(&mut self.keys);
        keys.retain(|_, key| key.expires_ms.is_none_or(|ends| stamp_ms < ends));
        if keys.values().filter(|key| key.user == user).count() >= KEYS_PER_USER {
            return Err(Rejection::Full { what: "tokens" });
        }
        self.last_key += 1;
        let id = KeyId(self.last_key);
        let key = Key {
            id,
            user,
            created_ms: stamp_ms,
            expires_ms,
        };
        keys.insert(hash, key);
        Ok((Reply::KeyCreated { key: id }, Action::CreateKey, of_key(id)))
    }

    fn revoke_key(&mut self, actor: Actor, id: KeyId) -> Result<Done, Rejection> {
        let found = self.keys.iter().find(|(_, key)| key.id == id);
        let (hash, user) = found
            .map(|(hash, key)| (*hash, key.user))
            .ok_or(Rejection::NoSuchToken)?;
        let holder = self.user(user).ok_or(Rejection::NoSuchUser)?;
        if actor.user != Some(user) {
            rules(actor, holder.org, holder.role)?;
        }
        Arc::make_mut(&mut self.keys).remove(&hash);
        Ok((Reply::Done, Action::RevokeKey, of_key(id)))
    }

    /// An organisation that has an owner keeps one, and a cluster that has an operator too.
    fn keep_one(
        &self,
        id: UserId,
        org: Option<OrgId>,
        was: Role,
        becomes: Option<Role>,
    ) -> Result<(), Rejection> {
        let last = matches!(was, Role::Owner | Role::Operator)
            && becomes != Some(was)
            && !self
                .users()
                .any(|user| user.id != id && user.org == org && user.role == was);
        if last {
            Err(Rejection::LastOne)
        } else {
            Ok(())
        }
    }

    /// Tokens of nobody.
    fn drop_keys(&mut self) {
        let users = Arc::clone(&self.users);
        Arc::make_mut(&mut self.keys).retain(|_, key| users.contains_key(&key.user));
    }
}

/// What is told, and what stands in the trail.
type Done = (Reply, Action, String);

/// Whether somebody may make or unmake somebody of this role there.
fn rules(actor: Actor, org: Option<OrgId>, role: Role) -> Result<(), Rejection> {
    let there = actor.role == Role::Operator || (org.is_some() && actor.org == org);
    if there && actor.role.rules_over(role) {
        Ok(())
    } else {
        Err(Rejection::NotAllowed)
    }
}

fn of_org(id: OrgId) -> String {
    format!("orgs/{id}")
}

fn of_user(id: UserId) -> String {
    format!("users/{id}")
}

fn of_key(id: KeyId) -> String {
    format!("tokens/{id}")
}

#[cfg(test)]
mod tests;
