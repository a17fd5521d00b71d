//! Organisations, the people in them, their tokens, and what was done by whom.

use std::sync::Arc;

use parking_lot::Mutex;
use stepcast_proto::v1;
use stepcast_scheduler::accounts::{self, AccountChange, AuditEntry, Checked, Key};
use stepcast_scheduler::ids::{JobId, OrgId, TokenHash, UserId};
use stepcast_scheduler::model::{Label, Owner};
use stepcast_scheduler::{Command, Reply, State};
use tonic::{Code, Status};

use super::unexpected;
use crate::access::{Caller, Role};
use crate::auth::People;
use crate::config::PrivacyMode;
use crate::context::Context;
use crate::freshness::Freshness;
use crate::status::{self, Refusal};
use crate::{convert, names};

/// Entries of the audit trail in one answer.
const ENTRIES: u32 = 1_000;

/// The longest life of a token that has an end, in seconds: ten years.
const SECONDS_MAX: u64 = 10 * 365 * 24 * 3_600;

/// The service.
#[derive(Clone)]
pub(crate) struct Accounts {
    pub(crate) context: Context,
    pub(crate) people: People,
    /// How much of the audit trail was found to be whole: what was read once is not hashed again while everybody waits.
    checked: Arc<Mutex<Option<Checked>>>,
}

impl Accounts {
    pub(crate) fn new(context: Context, people: People) -> Self {
        Self {
            context,
            people,
            checked: Arc::default(),
        }
    }
}

impl Accounts {
    /// Makes an organisation. A server for one of them refuses a second, since its records are single contributions.
    pub(crate) async fn create_org(
        &self,
        caller: &Caller,
        request: v1::CreateOrgRequest,
    ) -> Result<v1::CreateOrgResponse, Status> {
        let name = label(&request.display_name)?;
        let change = match self.context.privacy_mode {
            PrivacyMode::SingleTenant => AccountChange::CreateOnlyOrg { name },
        };
        match self.change(caller, change).await? {
            Reply::OrgCreated { org } => Ok(v1::CreateOrgResponse {
                org: self.told(|state| state.accounts().org(org).map(org_told)),
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Every organisation.
    pub(crate) async fn list_orgs(
        &self,
        freshness: Freshness,
    ) -> Result<v1::ListOrgsResponse, Status> {
        let orgs = freshness.read(&self.context.handle, |state| {
            state.accounts().orgs().map(org_told).collect()
        });
        Ok(v1::ListOrgsResponse { orgs: orgs.await? })
    }

    /// Removes an organisation with everybody in it. What waits and runs of theirs is cancelled by the leader.
    pub(crate) async fn delete_org(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<v1::DeleteOrgResponse, Status> {
        let org = names::org("name", name)?;
        let cancelled_jobs = self.open_jobs(|owner| owner.org == org).await?;
        self.change(caller, AccountChange::RemoveOrg { org })
            .await?;
        Ok(v1::DeleteOrgResponse { cancelled_jobs })
    }

    /// Lets somebody in.
    pub(crate) async fn create_user(
        &self,
        caller: &Caller,
        request: v1::CreateUserRequest,
    ) -> Result<v1::CreateUserResponse, Status> {
        let role = role(&request.role)?;
        // From the first operator on nobody is let in without a token, so the first one needs one at once.
        if role == Role::Operator && caller.is_anybody() {
            return Err(Refusal::new(
                Code::FailedPrecondition,
                "CLAIM_FIRST",
                "the first operator is not made on loopback, where nobody is asked who they are",
            )
            .hint("start the server with --listen and an address that others reach: it prints the command that makes the first operator")
            .into());
        }
        let org = match request.org.as_str() {
            "" if role == Role::Operator => None,
            "" => caller.org,
            name => Some(names::org("org", name)?),
        };
        let name = label(&request.display_name)?;
        let change = AccountChange::CreateUser { org, name, role };
        match self.change(caller, change).await? {
            Reply::UserCreated { user } => Ok(v1::CreateUserResponse {
                user: self.user(user),
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// The people of an organisation.
    pub(crate) async fn list_users(
        &self,
        caller: &Caller,
        org: &str,
        freshness: Freshness,
    ) -> Result<v1::ListUsersResponse, Status> {
        let wanted = match org {
            "" => caller.org,
            name => Some(names::org("org", name)?),
        };
        if caller.role != Role::Operator && wanted != caller.org {
            return Err(status::not_found("orgs", "an organisation", org));
        }
        let users = freshness.read(&self.context.handle, |state| {
            let users = state.accounts().users();
            let users = users.filter(|user| wanted.is_none() || user.org == wanted);
            users.map(user_told).collect()
        });
        Ok(v1::ListUsersResponse {
            users: users.await?,
        })
    }

    /// Makes somebody something else.
    pub(crate) async fn set_role(
        &self,
        caller: &Caller,
        request: v1::SetUserRoleRequest,
    ) -> Result<v1::SetUserRoleResponse, Status> {
        let (user, role) = (names::user("name", &request.name)?, role(&request.role)?);
        self.check_user(caller, user, &request.name).await?;
        self.change(caller, AccountChange::SetRole { user, role })
            .await?;
        Ok(v1::SetUserRoleResponse {
            user: self.user(user),
        })
    }

    /// Shuts somebody out. What waits and runs of theirs is cancelled by the leader.
    pub(crate) async fn delete_user(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<v1::DeleteUserResponse, Status> {
        let user = names::user("name", name)?;
        self.check_user(caller, user, name).await?;
        let cancelled_jobs = self.open_jobs(|owner| owner.user == user).await?;
        self.change(caller, AccountChange::RemoveUser { user })
            .await?;
        Ok(v1::DeleteUserResponse { cancelled_jobs })
    }

    /// How many jobs of these owners are not over. Counted before they are removed, since the leader is quick.
    async fn open_jobs(&self, is_theirs: impl Fn(&Owner) -> bool) -> Result<u64, Status> {
        let count = Freshness::Confirmed.read(&self.context.handle, |state| {
            let open = state.open_after(JobId(0));
            let owners = open.filter_map(|(_, job)| job?.spec.terms.owner);
            owners.filter(|owner| is_theirs(owner)).count()
        });
        Ok(count.await? as u64)
    }

    /// Makes a long-lived token. It ends no later than the one by which it is made.
    pub(crate) async fn create_token(
        &self,
        caller: &Caller,
        request: v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenResponse, Status> {
        let user = self.whose(caller, &request.user).await?;
        if request.valid_seconds > SECONDS_MAX {
            return Err(status::bad_field(
                "valid_seconds",
                "a token is good for ten years at most, or until it is taken back",
            ));
        }
        let ends = self.context.handle.now_ms() + request.valid_seconds * 1_000;
        let asked = (request.valid_seconds > 0).then_some(ends);
        let expires_ms = match (asked, self.holds_until(caller).await?) {
            (Some(asked), Some(until)) => Some(asked.min(until)),
            (asked, until) => asked.or(until),
        };
        let (secret, hash) = self.people.new_refresh_token();
        let token = self.create_key(caller, user, hash, expires_ms).await?;
        Ok(v1::CreateTokenResponse { token, secret })
    }

    /// When the token that the caller has shown ends, if it does. Looked at once more, since a request may take its time and
    /// the token may have been taken back meanwhile.
    async fn holds_until(&self, caller: &Caller) -> Result<Option<u64>, Status> {
        let Some(hash) = caller.key else {
            return Ok(None);
        };
        let now_ms = self.context.handle.now_ms();
        let until = Freshness::Confirmed.read(&self.context.handle, |state| {
            let holder = state.accounts().holder(&hash, now_ms);
            holder.map(|(key, _)| key.expires_ms)
        });
        until.await?.ok_or_else(|| {
            status::access_denied("the access token is over, or was taken back meanwhile")
        })
    }

    async fn create_key(
        &self,
        caller: &Caller,
        user: UserId,
        hash: TokenHash,
        expires_ms: Option<u64>,
    ) -> Result<Option<v1::Token>, Status> {
        let change = AccountChange::CreateKey {
            user,
            hash,
            expires_ms,
        };
        match self.change(caller, change).await? {
            Reply::KeyCreated { key } => Ok(self.told(|state| {
                let mut keys = state.accounts().keys();
                keys.find(|known| known.id == key).map(key_told)
            })),
            other => Err(unexpected(&other)),
        }
    }

    /// Somebody's long-lived tokens.
    pub(crate) async fn list_tokens(
        &self,
        caller: &Caller,
        user: &str,
        freshness: Freshness,
    ) -> Result<v1::ListTokensResponse, Status> {
        let user = self.whose(caller, user).await?;
        let tokens = freshness.read(&self.context.handle, |state| {
            let keys = state.accounts().keys().filter(|key| key.user == user);
            let mut keys: Vec<&Key> = keys.collect();
            keys.sort_by_key(|key| key.id);
            keys.into_iter().map(key_told).collect()
        });
        Ok(v1::ListTokensResponse {
            tokens: tokens.await?,
        })
    }

    /// Takes a token back.
    pub(crate) async fn revoke_token(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<v1::RevokeTokenResponse, Status> {
        let key = names::key("name", name)?;
        let holder = Freshness::Confirmed.read(&self.context.handle, |state| {
            let mut keys = state.accounts().keys();
            keys.find(|known| known.id == key).map(|key| key.user)
        });
        let holder = holder.await?;
        let holder = holder.ok_or_else(|| status::not_found("tokens", "a token", name))?;
        if caller.user != Some(holder) {
            self.check_user(caller, holder, name).await?;
        }
        self.change(caller, AccountChange::RevokeKey { key })
            .await?;
        Ok(v1::RevokeTokenResponse {})
    }

    /// What was done by whom.
    pub(crate) async fn audit(
        &self,
        caller: &Caller,
        request: v1::ListAuditEntriesRequest,
        freshness: Freshness,
    ) -> Result<v1::ListAuditEntriesResponse, Status> {
        let size = match request.page_size {
            0 => ENTRIES,
            size if size <= ENTRIES => size,
            _ => {
                return Err(status::bad_field(
                    "page_size",
                    format!("a page has at most {ENTRIES} entries"),
                ));
            }
        };
        let all = caller.role == Role::Operator;
        let page = freshness.read(&self.context.handle, |state| {
            let trail = state.accounts().trail();
            let entries = trail.after(request.after_seq);
            let seen = entries.filter(|entry| all || entry.actor.org == caller.org);
            let entries = seen.take(size as usize).map(entry_told).collect();
            let before = *self.checked.lock();
            (entries, trail.base().to_vec(), trail.check_on(before))
        });
        let (entries, base, check) = page.await?;
        if let Ok(checked) = check {
            *self.checked.lock() = checked;
        }
        Ok(v1::ListAuditEntriesResponse {
            entries,
            base: if all { base } else { Vec::new() },
            sound: check.is_ok(),
            broken_seq: check.err().map_or(0, |broken| broken.seq),
        })
    }

    /// Makes the first operator of who shows what the server has printed.
    pub(crate) async fn claim(
        &self,
        request: v1::ClaimOperatorRequest,
    ) -> Result<v1::ClaimOperatorResponse, Status> {
        if !self.people.is_first(&request.first_token) {
            return Err(Refusal::new(
                Code::Unauthenticated,
                "ACCESS_TOKEN_REQUIRED",
                "this is not what lets the first operator in, or there is one",
            )
            .hint("give what the server prints behind `first operator:` when it starts; where there is one, they let others in with `stepcast user create`")
            .into());
        }
        let request = v1::CreateUserRequest {
            org: String::new(),
            display_name: request.display_name,
            role: Role::Operator.name().to_owned(),
        };
        let user = self.create_user(&Caller::OPERATOR, request).await?.user;
        let name = user.as_ref().map_or("", |user| user.name.as_str());
        let (secret, hash) = self.people.new_refresh_token();
        let id = names::user("user", name)?;
        self.create_key(&Caller::OPERATOR, id, hash, None).await?;
        Ok(v1::ClaimOperatorResponse { user, secret })
    }

    /// Whose tokens are meant: one's own, or those of somebody whom one may see.
    async fn whose(&self, caller: &Caller, user: &str) -> Result<UserId, Status> {
        if user.is_empty() {
            return caller.user.ok_or_else(|| {
                status::bad_field(
                    "user",
                    "say whose token is meant: this call was made in nobody's name, as with the server's own access token",
                )
            });
        }
        let id = names::user("user", user)?;
        if caller.user != Some(id) {
            self.check_user(caller, id, user).await?;
        }
        Ok(id)
    }

    /// Refuses somebody who is not there, or not in the caller's organisation, which look the same; and somebody whom
    /// the caller does not rule over.
    async fn check_user(&self, caller: &Caller, user: UserId, name: &str) -> Result<(), Status> {
        let found = Freshness::Confirmed.read(&self.context.handle, |state| {
            state
                .accounts()
                .user(user)
                .map(|user| (user.org, user.role))
        });
        let (org, role) = found
            .await?
            .filter(|(org, _)| caller.role == Role::Operator || *org == caller.org)
            .ok_or_else(|| status::not_found("users", "a user", name))?;
        let _: Option<OrgId> = org;
        if caller.role.rules_over(role) {
            return Ok(());
        }
        Err(status::rejection(stepcast_scheduler::Rejection::NotAllowed))
    }

    async fn change(&self, caller: &Caller, change: AccountChange) -> Result<Reply, Status> {
        let entries = &self.context.entries;
        match &change {
            AccountChange::CreateKey { user, .. } if caller.user == Some(*user) => {
                entries.token(caller)?;
            }
            AccountChange::CreateKey { .. }
            | AccountChange::CreateUser { .. }
            | AccountChange::SetRole { .. } => entries.change(caller)?,
            // No more often than somebody was let in before, and what shuts somebody out is never put off. Organisations and
            // notes are for operators.
            AccountChange::RevokeKey { .. }
            | AccountChange::RemoveUser { .. }
            | AccountChange::RemoveOrg { .. }
            | AccountChange::CreateOrg { .. }
            | AccountChange::CreateOnlyOrg { .. }
            | AccountChange::Note { .. } => {}
        }
        let command = Command::Account { change };
        let handle = &self.context.handle;
        let changed = handle.propose_by(caller.actor(), command, None).await;
        changed.map_err(status::propose)
    }

    /// What is applied here already: an answer must not fail for want of a leader once the change is made.
    fn told<T>(&self, read: impl FnOnce(&State) -> Option<T>) -> Option<T> {
        self.context.handle.read_stale(read)
    }

    fn user(&self, user: UserId) -> Option<v1::User> {
        self.told(|state| state.accounts().user(user).map(user_told))
    }
}

fn label(text: &str) -> Result<Label, Status> {
    let label: Result<Label, stepcast_scheduler::model::label::Error> = text.to_owned().try_into();
    label.map_err(|error| status::bad_field("display_name", error.to_string()))
}

fn role(name: &str) -> Result<Role, Status> {
    Role::parse(name).ok_or_else(|| {
        status::bad_field("role", "a role is owner, admin, member, viewer or operator")
    })
}

fn org_told(org: &accounts::Org) -> v1::Org {
    v1::Org {
        name: names::of_org(org.id),
        display_name: org.name.to_string(),
        create_time: Some(convert::timestamp_ms(org.created_ms)),
    }
}

fn user_told(user: &accounts::User) -> v1::User {
    v1::User {
        name: names::of_user(user.id),
        org: user.org.map_or_else(String::new, names::of_org),
        display_name: user.name.to_string(),
        role: user.role.name().to_owned(),
        create_time: Some(convert::timestamp_ms(user.created_ms)),
    }
}

fn key_told(key: &Key) -> v1::Token {
    v1::Token {
        name: names::of_key(key.id),
        user: names::of_user(key.user),
        create_time: Some(convert::timestamp_ms(key.created_ms)),
        expire_time: key.expires_ms.map(convert::timestamp_ms),
    }
}

fn entry_told(entry: &AuditEntry) -> v1::AuditEntry {
    v1::AuditEntry {
        seq: entry.seq,
        time: Some(convert::timestamp_ms(entry.stamp_ms)),
        user: entry.actor.user.map_or_else(String::new, names::of_user),
        org: entry.actor.org.map_or_else(String::new, names::of_org),
        role: entry.actor.role.name().to_owned(),
        action: entry.action.name().to_owned(),
        subject: entry.subject.clone(),
        hash: entry.hash.to_vec(),
    }
}
