//! Organisations, people, tokens and the audit trail.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;

use axum::http::Method;

use super::api::{Api, Asked, Http};
use super::route::{Nothing, Route};
use super::shapes::{Done, id_of, time};
use crate::access::Permission as P;
use crate::names;

pub(super) fn routes(api: &mut Api) {
    api.route(
        Route::get("/v1/orgs", P::ManageOrgs, "Every organisation."),
        list_orgs,
    );
    let create = Route::post("/v1/orgs", P::ManageOrgs, "Makes an organisation.");
    api.route(create.status(201), create_org);
    let remove =
        "Removes an organisation with everybody in it; what waits and runs of theirs is cancelled.";
    api.route(
        Route::post("/v1/orgs/{id}/remove", P::ManageOrgs, remove),
        remove_org,
    );
    let users = "The people of an organisation; one's own unless another is named.";
    api.route(Route::get("/v1/users", P::ReadUsers, users), list_users);
    let create = Route::post("/v1/users", P::ManageUsers, "Lets somebody in.");
    api.route(create.status(201), create_user);
    let role = "Makes somebody something else.";
    api.route(
        Route::post("/v1/users/{id}/role", P::ManageUsers, role),
        set_role,
    );
    let remove =
        "Shuts somebody out, with all of their tokens; what waits and runs of theirs is cancelled.";
    api.route(
        Route::post("/v1/users/{id}/remove", P::ManageUsers, remove),
        remove_user,
    );
    let tokens =
        "Somebody's long-lived tokens, without their secrets; one's own unless another is named.";
    api.route(Route::get("/v1/tokens", P::ReadSelf, tokens), list_tokens);
    let create = "Makes a long-lived token, for oneself or for somebody one rules over. Its secret is told once.";
    api.route(
        Route::post("/v1/tokens", P::ReadSelf, create).status(201),
        create_token,
    );
    let revoke = Route::post("/v1/tokens/{id}/revoke", P::ReadSelf, "Takes a token back.");
    api.route(revoke, revoke_token);
    let audit = "What was done by whom, oldest first: a chain of hashes, whole for an operator.";
    api.route(Route::get("/v1/audit", P::ReadAudit, audit), list_entries);
    let claim = Route::open(
        Method::POST,
        "/v1/operator",
        "Makes the caller the first operator, with the token that the server has printed.",
    );
    api.route(claim.status(201), claim_operator);
}

/// An organisation.
#[derive(Debug, Serialize, JsonSchema)]
struct OrgShown {
    id: String,
    name: String,
    created_at: Option<String>,
}

/// Organisations.
#[derive(Debug, Serialize, JsonSchema)]
struct Orgs {
    items: Vec<OrgShown>,
}

/// An organisation to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewOrg {
    name: String,
}

/// Somebody.
#[derive(Debug, Serialize, JsonSchema)]
struct UserShown {
    id: String,
    /// Empty for an operator.
    org_id: String,
    name: String,
    /// `owner`, `admin`, `member`, `viewer` or `operator`.
    role: String,
    created_at: Option<String>,
}

/// People.
#[derive(Debug, Serialize, JsonSchema)]
struct Users {
    items: Vec<UserShown>,
}

/// Whose people.
#[derive(Debug, Deserialize, JsonSchema)]
struct InOrg {
    org_id: Option<String>,
}

/// Somebody to let in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    /// One's own organisation unless given.
    #[serde(default)]
    org_id: String,
    name: String,
    /// `owner`, `admin`, `member`, `viewer` or `operator`.
    role: String,
}

/// What somebody becomes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewRole {
    role: String,
}

/// A long-lived token, without its secret.
#[derive(Debug, Serialize, JsonSchema)]
struct TokenShown {
    id: String,
    user_id: String,
    created_at: Option<String>,
    /// Absent for one that ends only when it is taken back.
    expires_at: Option<String>,
}

/// Tokens.
#[derive(Debug, Serialize, JsonSchema)]
struct Tokens {
    items: Vec<TokenShown>,
}

/// Whose tokens.
#[derive(Debug, Deserialize, JsonSchema)]
struct OfUser {
    user_id: Option<String>,
}

/// A token to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// Oneself unless given.
    #[serde(default)]
    user_id: String,
    /// For how long it is good, in seconds; 0 for until it is taken back. It ends no later than the token by which it is made.
    #[serde(default)]
    valid_seconds: u64,
}

/// A new token.
#[derive(Debug, Serialize, JsonSchema)]
struct Secret {
    /// What to show from now on; nobody can be told it a second time.
    refresh_token: String,
    token: Option<TokenShown>,
}

/// Who is gone.
#[derive(Debug, Serialize, JsonSchema)]
struct Removed {
    id: String,
    /// How many jobs of theirs waited or ran: they are cancelled.
    cancelled_jobs: u64,
}

/// Which entries.
#[derive(Debug, Deserialize, JsonSchema)]
struct Behind {
    /// Only entries behind this one.
    after: Option<u64>,
    /// 1 to 1,000.
    page_size: Option<u32>,
}

/// What was done.
#[derive(Debug, Serialize, JsonSchema)]
struct Trail {
    items: Vec<EntryShown>,
    /// The hash before the oldest entry that is kept, in hexadecimal digits; empty for who sees a part only.
    base: String,
    /// Whether this node's own chain holds.
    sound: bool,
    /// The first entry that does not follow from the one before; 0 if all do.
    broken_seq: u64,
}

/// One thing that was done.
#[derive(Debug, Serialize, JsonSchema)]
struct EntryShown {
    seq: u64,
    time: Option<String>,
    user_id: String,
    org_id: String,
    role: String,
    action: String,
    subject: String,
    /// In hexadecimal digits.
    hash: String,
}

/// How to become the first operator.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Claim {
    /// What the server has printed.
    first_token: String,
    name: String,
}

/// The first operator.
#[derive(Debug, Serialize, JsonSchema)]
struct Claimed {
    user: Option<UserShown>,
    /// What to show from now on.
    refresh_token: String,
}

async fn list_orgs(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Orgs, Status> {
    let orgs = http.accounts.list_orgs(asked.freshness).await?.orgs;
    Ok(Orgs {
        items: orgs.into_iter().map(org).collect(),
    })
}

async fn create_org(http: Http, asked: Asked<Nothing>, sent: NewOrg) -> Result<OrgShown, Status> {
    let request = v1::CreateOrgRequest {
        display_name: sent.name,
    };
    let made = http.accounts.create_org(&asked.caller, request).await?;
    Ok(org(made.org.unwrap_or_default()))
}

async fn remove_org(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Removed, Status> {
    let name = names::of_text("orgs", asked.part("id"));
    let removed = http.accounts.delete_org(&asked.caller, &name).await?;
    Ok(Removed {
        id: asked.part("id").to_owned(),
        cancelled_jobs: removed.cancelled_jobs,
    })
}

async fn list_users(http: Http, asked: Asked<InOrg>, _: Nothing) -> Result<Users, Status> {
    let org = named("orgs", asked.query.org_id.as_deref().unwrap_or_default());
    let users = http
        .accounts
        .list_users(&asked.caller, &org, asked.freshness);
    Ok(Users {
        items: users.await?.users.into_iter().map(user).collect(),
    })
}

async fn create_user(
    http: Http,
    asked: Asked<Nothing>,
    sent: NewUser,
) -> Result<UserShown, Status> {
    let request = v1::CreateUserRequest {
        org: named("orgs", &sent.org_id),
        display_name: sent.name,
        role: sent.role,
    };
    let made = http.accounts.create_user(&asked.caller, request).await?;
    Ok(user(made.user.unwrap_or_default()))
}

async fn set_role(http: Http, asked: Asked<Nothing>, sent: NewRole) -> Result<UserShown, Status> {
    let request = v1::SetUserRoleRequest {
        name: names::of_text("users", asked.part("id")),
        role: sent.role,
    };
    let set = http.accounts.set_role(&asked.caller, request).await?;
    Ok(user(set.user.unwrap_or_default()))
}

async fn remove_user(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Removed, Status> {
    let name = names::of_text("users", asked.part("id"));
    let removed = http.accounts.delete_user(&asked.caller, &name).await?;
    Ok(Removed {
        id: asked.part("id").to_owned(),
        cancelled_jobs: removed.cancelled_jobs,
    })
}

async fn list_tokens(http: Http, asked: Asked<OfUser>, _: Nothing) -> Result<Tokens, Status> {
    let user = named("users", asked.query.user_id.as_deref().unwrap_or_default());
    let tokens = http
        .accounts
        .list_tokens(&asked.caller, &user, asked.freshness);
    Ok(Tokens {
        items: tokens.await?.tokens.into_iter().map(token).collect(),
    })
}

async fn create_token(http: Http, asked: Asked<Nothing>, sent: NewToken) -> Result<Secret, Status> {
    let request = v1::CreateTokenRequest {
        user: named("users", &sent.user_id),
        valid_seconds: sent.valid_seconds,
    };
    let made = http.accounts.create_token(&asked.caller, request).await?;
    Ok(Secret {
        refresh_token: made.secret,
        token: made.token.map(token),
    })
}

async fn revoke_token(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Done, Status> {
    let name = names::of_text("tokens", asked.part("id"));
    http.accounts.revoke_token(&asked.caller, &name).await?;
    Ok(asked.done())
}

async fn list_entries(http: Http, asked: Asked<Behind>, _: Nothing) -> Result<Trail, Status> {
    let request = v1::ListAuditEntriesRequest {
        after_seq: asked.query.after.unwrap_or(0),
        page_size: asked.query.page_size.unwrap_or(0),
    };
    let trail = http
        .accounts
        .audit(&asked.caller, request, asked.freshness)
        .await?;
    Ok(Trail {
        items: trail.entries.into_iter().map(entry).collect(),
        base: hex(&trail.base),
        sound: trail.sound,
        broken_seq: trail.broken_seq,
    })
}

async fn claim_operator(http: Http, _: Asked<Nothing>, sent: Claim) -> Result<Claimed, Status> {
    let request = v1::ClaimOperatorRequest {
        first_token: sent.first_token,
        display_name: sent.name,
    };
    let claimed = http.accounts.claim(request).await?;
    Ok(Claimed {
        user: claimed.user.map(user),
        refresh_token: claimed.secret,
    })
}

/// The resource name of what has this id; nothing for nothing.
fn named(kind: &str, id: &str) -> String {
    if id.is_empty() {
        String::new()
    } else {
        names::of_text(kind, id)
    }
}

fn org(org: v1::Org) -> OrgShown {
    OrgShown {
        id: id_of(&org.name),
        name: org.display_name,
        created_at: time(org.create_time.as_ref()),
    }
}

fn user(user: v1::User) -> UserShown {
    UserShown {
        id: id_of(&user.name),
        org_id: id_of(&user.org),
        name: user.display_name,
        role: user.role,
        created_at: time(user.create_time.as_ref()),
    }
}

fn token(token: v1::Token) -> TokenShown {
    TokenShown {
        id: id_of(&token.name),
        user_id: id_of(&token.user),
        created_at: time(token.create_time.as_ref()),
        expires_at: time(token.expire_time.as_ref()),
    }
}

fn entry(entry: v1::AuditEntry) -> EntryShown {
    EntryShown {
        seq: entry.seq,
        time: time(entry.time.as_ref()),
        user_id: id_of(&entry.user),
        org_id: id_of(&entry.org),
        role: entry.role,
        action: entry.action,
        subject: entry.subject,
        hash: hex(&entry.hash),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
