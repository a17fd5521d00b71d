//! How one becomes somebody: a long-lived token is exchanged for a short-lived one; and who one is then.

use std::time::SystemTime;

use axum::http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::route::{Nothing, Route};
use crate::access::Permission;

pub(super) fn routes(api: &mut Api) {
    let exchange = Route::open(
        Method::POST,
        "/v1/auth/cli/token",
        "Exchanges a refresh token for an access token.",
    );
    api.route(exchange.anywhere(), token);
    let me = Route::get("/v1/account/me", Permission::ReadSelf, "Who the caller is.");
    api.route(me, account);
}

/// A refresh token, and where it is to be used.
#[derive(Debug, Deserialize, JsonSchema)]
struct Exchange {
    /// The long-lived token.
    refresh_token: String,
    /// The organisation.
    org_id: String,
}

/// An access token.
#[derive(Debug, Serialize, JsonSchema)]
struct Exchanged {
    /// To be shown with every call as `Authorization: Bearer`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// For how many seconds it is good.
    expires_in: u64,
}

/// An account.
#[derive(Debug, Serialize, JsonSchema)]
struct Account {
    /// Who.
    user_id: String,
    /// Where.
    org_id: String,
    /// What they are there.
    org_role: String,
}

async fn token(http: Http, _: Asked<Nothing>, sent: Exchange) -> Result<Exchanged, Status> {
    let (access_token, good_for) = http
        .admission
        .people
        .exchange(&sent.refresh_token, &sent.org_id, SystemTime::now())
        .await?;
    Ok(Exchanged {
        access_token,
        token_type: "Bearer",
        expires_in: good_for.as_secs(),
    })
}

async fn account(_: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Account, Status> {
    let caller = asked.caller;
    Ok(Account {
        user_id: caller
            .user
            .map_or_else(String::new, |user| user.to_string()),
        org_id: caller.org.map_or_else(String::new, |org| org.to_string()),
        org_role: caller.role.name().to_owned(),
    })
}
