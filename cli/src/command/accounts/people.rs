//! Organisations and people as they are called, and tokens made for them.

use stepcast_proto::v1;

use crate::client::{Client, timed};
use crate::failure::{Exit, Failure};
use crate::output::json::id;

/// A new token.
pub(super) struct Made {
    /// Its resource name.
    pub(super) name: String,
    /// What to show from now on.
    pub(super) secret: String,
    /// `, good until` when it ends, if it does: no later than the one by which it was made, whatever was asked for.
    pub(super) until: String,
}

pub(super) async fn create_token(
    client: &Client,
    user: &str,
    valid_seconds: u64,
) -> Result<Made, Failure> {
    let answer = client.ask_once(|| {
        let mut service = client.accounts();
        let request = timed(v1::CreateTokenRequest {
            user: user.to_owned(),
            valid_seconds,
        });
        async move { service.create_token(request).await }
    });
    let answer = answer.await?;
    let token = answer.token.unwrap_or_default();
    let until = token.expire_time.map(|ends| format!(", good until {ends}"));
    Ok(Made {
        name: token.name,
        secret: answer.secret,
        until: until.unwrap_or_default(),
    })
}

pub(super) async fn orgs(client: &Client) -> Result<Vec<v1::Org>, Failure> {
    let answer = client.ask(|| {
        let mut service = client.accounts();
        async move { service.list_orgs(timed(v1::ListOrgsRequest {})).await }
    });
    Ok(answer.await?.orgs)
}

pub(super) async fn users(client: &Client) -> Result<Vec<v1::User>, Failure> {
    let answer = client.ask(|| {
        let mut service = client.accounts();
        let request = timed(v1::ListUsersRequest { org: String::new() });
        async move { service.list_users(request).await }
    });
    Ok(answer.await?.users)
}

pub(in crate::command) async fn find_org(client: &Client, named: &str) -> Result<String, Failure> {
    let orgs = orgs(client).await?;
    let found = orgs
        .iter()
        .find(|org| id(&org.name) == named || org.display_name == named);
    found.map(|org| org.name.clone()).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no organisation {named}"))
            .hint("`stepcast org ls` lists them")
    })
}

pub(in crate::command) async fn find_user(client: &Client, named: &str) -> Result<String, Failure> {
    let users = users(client).await?;
    let mut found = users
        .iter()
        .filter(|user| id(&user.name) == named || user.display_name == named);
    match (found.next(), found.next()) {
        (Some(user), None) => Ok(user.name.clone()),
        (Some(_), Some(_)) => Err(
            Failure::refused(format!("there are several called {named}"))
                .hint("name one by its id: `stepcast user ls`"),
        ),
        (None, _) => Err(
            Failure::new(Exit::NotFound, format!("there is nobody called {named}"))
                .hint("`stepcast user ls` lists them"),
        ),
    }
}

/// The resource name of somebody, or nothing for oneself.
pub(super) async fn whose(client: &Client, user: Option<&str>) -> Result<String, Failure> {
    match user {
        Some(user) => find_user(client, user).await,
        None => Ok(String::new()),
    }
}
