//! `stepcast org`, `user` and `token`: who may use the cluster.

pub(super) mod people;
mod told;

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use stepcast_proto::v1;

use self::people::{create_token, find_org, find_user, orgs, users, whose};
use self::told::{Holder, Kept, told};
use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::{id, moment};
use crate::output::shell::quoted;
use crate::output::style::{Mark, Tone};
use crate::output::table::{Side, Table};
use crate::output::time;

/// Organisations: made, listed, removed.
#[derive(Debug, Subcommand)]
pub(crate) enum Org {
    /// Makes an organisation
    Create {
        /// What it is called
        name: String,
    },
    /// Lists organisations
    #[command(visible_alias = "ls")]
    List,
    /// Removes an organisation with everybody in it; what waits and runs of theirs is cancelled
    Remove {
        /// Its name or id
        org: String,
    },
}

/// People: let in, listed, made something else, shut out.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Lets somebody in, and prints a token for them, which is told this once
    Create {
        /// What they are called
        name: String,
        /// What they may do: owner, admin, member, viewer or operator
        #[arg(long, default_value = "member")]
        role: String,
        /// Name or id of their organisation; yours, or the only one there is, unless given
        #[arg(long)]
        org: Option<String>,
        /// Write the token to a file that only you can read, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Lists people
    #[command(visible_alias = "ls")]
    List,
    /// Makes somebody something else
    Role {
        /// Their name or id
        user: String,
        /// owner, admin, member, viewer or operator
        role: String,
    },
    /// Shuts somebody out, with all of their tokens; what waits and runs of theirs is cancelled
    Remove {
        /// Their name or id
        user: String,
    },
    /// Makes you the first operator, with what the server has printed
    First {
        /// What the server has printed
        token: String,
        /// What you are called
        name: String,
        /// Write your token to a file that only you can read, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Long-lived tokens of people: made, listed, taken back.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Makes a token; prints its secret, which is told this once
    Create {
        /// Whose, by name or id; yours unless given
        user: Option<String>,
        /// For how many days it is good; until it is taken back unless given. One that is made by a token ends no later than it
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: Option<u64>,
        /// Write the secret to a file that only you can read, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Lists tokens, without their secrets
    #[command(visible_alias = "ls")]
    List {
        /// Whose, by name or id; yours unless given
        user: Option<String>,
    },
    /// Takes a token back
    Revoke {
        /// Its id
        token: String,
    },
}

impl Org {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.connect().await?;
        match self {
            Self::Create { name } => {
                let answer = client.ask_once(|| {
                    let mut service = client.accounts();
                    let request = timed(v1::CreateOrgRequest {
                        display_name: name.clone(),
                    });
                    async move { service.create_org(request).await }
                });
                let org = answer.await?.org.unwrap_or_default();
                let of = quoted(&name);
                let next = format!("stepcast user create NAME --role owner --org {of}");
                done(
                    context,
                    &org.name,
                    &format!("organisation {name} made"),
                    &next,
                )
            }
            Self::List => {
                let orgs = orgs(&client).await?;
                let mut table = Table::new(&[
                    ("ORG", Side::Left),
                    ("NAME", Side::Left),
                    ("AGE", Side::Right),
                ]);
                for org in &orgs {
                    let age = time::age(org.create_time.as_ref());
                    table.row(vec![
                        id(&org.name).into(),
                        org.display_name.clone().into(),
                        age.into(),
                    ]);
                }
                let rows = orgs
                    .iter()
                    .map(|org| json!({"org": id(&org.name), "name": org.display_name, "create_time": moment(org.create_time.as_ref())}));
                show(
                    context,
                    &table,
                    json!({"orgs": rows.collect::<Vec<_>>()}),
                    "No organisations.",
                )
            }
            Self::Remove { org } => {
                let name = find_org(&client, &org).await?;
                let answer = client.remove(|| {
                    let mut service = client.accounts();
                    let request = timed(v1::DeleteOrgRequest { name: name.clone() });
                    async move { service.delete_org(request).await }
                });
                let jobs = answer.await?.cancelled_jobs;
                let text = format!("{org} and everybody in it removed{}", cancelled(jobs));
                removed(context, &name, &text, jobs, "stepcast org ls")
            }
        }
    }
}

impl User {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.connect().await?;
        match self {
            Self::Create {
                name,
                role,
                org,
                out,
            } => create_user(context, &client, &name, &role, org.as_deref(), out).await,
            Self::List => {
                let users = users(&client).await?;
                let columns = [
                    ("USER", Side::Left),
                    ("NAME", Side::Left),
                    ("ROLE", Side::Left),
                    ("ORG", Side::Left),
                    ("AGE", Side::Right),
                ];
                let mut table = Table::new(&columns);
                for user in &users {
                    let org = if user.org.is_empty() {
                        "-"
                    } else {
                        id(&user.org)
                    };
                    let age = time::age(user.create_time.as_ref());
                    table.row(vec![
                        id(&user.name).into(),
                        user.display_name.clone().into(),
                        user.role.clone().into(),
                        org.into(),
                        age.into(),
                    ]);
                }
                let rows = users.iter().map(|user| {
                    json!({"user": id(&user.name), "name": user.display_name, "role": user.role, "org": id(&user.org), "create_time": moment(user.create_time.as_ref())})
                });
                show(
                    context,
                    &table,
                    json!({"users": rows.collect::<Vec<_>>()}),
                    "Nobody.",
                )
            }
            Self::Role { user, role } => {
                let name = find_user(&client, &user).await?;
                let answer = client.change(|| {
                    let mut service = client.accounts();
                    let request = timed(v1::SetUserRoleRequest {
                        name: name.clone(),
                        role: role.clone(),
                    });
                    async move { service.set_user_role(request).await }
                });
                answer.await?;
                done(
                    context,
                    &name,
                    &format!("{user} is {role} now"),
                    "stepcast user ls",
                )
            }
            Self::Remove { user } => {
                let name = find_user(&client, &user).await?;
                let answer = client.remove(|| {
                    let mut service = client.accounts();
                    let request = timed(v1::DeleteUserRequest { name: name.clone() });
                    async move { service.delete_user(request).await }
                });
                let jobs = answer.await?.cancelled_jobs;
                let text = format!("{user} is shut out{}", cancelled(jobs));
                removed(context, &name, &text, jobs, "stepcast user ls")
            }
            Self::First { token, name, out } => {
                let kept = Kept::create(out)?;
                let answer = client.ask_once(|| {
                    let mut service = client.accounts();
                    let request = timed(v1::ClaimOperatorRequest {
                        first_token: token.clone(),
                        display_name: name.clone(),
                    });
                    async move { service.claim_operator(request).await }
                });
                let answer = answer.await?;
                let user = answer.user.unwrap_or_default();
                let text = format!("{name} is the first operator");
                let made = (user.name.as_str(), text.as_str(), answer.secret.as_str());
                told(context, &client, made, kept, Holder::First).await
            }
        }
    }
}

impl Token {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.connect().await?;
        match self {
            Self::Create { user, days, out } => {
                let holder = user.as_deref().map_or(Holder::Oneself, Holder::Other);
                let of = whose(&client, user.as_deref()).await?;
                let seconds = days.unwrap_or(0) * 24 * 3_600;
                let kept = Kept::create(out)?;
                let made = create_token(&client, &of, seconds).await?;
                let text = format!("token {} made{}", id(&made.name), made.until);
                let made = (made.name.as_str(), text.as_str(), made.secret.as_str());
                told(context, &client, made, kept, holder).await
            }
            Self::List { user } => {
                let user = whose(&client, user.as_deref()).await?;
                let answer = client.ask(|| {
                    let mut service = client.accounts();
                    let request = timed(v1::ListTokensRequest { user: user.clone() });
                    async move { service.list_tokens(request).await }
                });
                let tokens = answer.await?.tokens;
                let mut table = Table::new(&[
                    ("TOKEN", Side::Left),
                    ("USER", Side::Left),
                    ("AGE", Side::Right),
                    ("ENDS", Side::Left),
                ]);
                for token in &tokens {
                    let ends = token
                        .expire_time
                        .as_ref()
                        .map_or_else(|| "-".to_owned(), ToString::to_string);
                    let age = time::age(token.create_time.as_ref());
                    table.row(vec![
                        id(&token.name).into(),
                        id(&token.user).into(),
                        age.into(),
                        ends.into(),
                    ]);
                }
                let rows = tokens
                    .iter()
                    .map(|token| json!({"token": id(&token.name), "user": id(&token.user), "create_time": moment(token.create_time.as_ref()), "expire_time": moment(token.expire_time.as_ref())}));
                show(
                    context,
                    &table,
                    json!({"tokens": rows.collect::<Vec<_>>()}),
                    "No tokens.",
                )
            }
            Self::Revoke { token } => {
                let name = format!("tokens/{}", id(&token));
                let answer = client.remove(|| {
                    let mut service = client.accounts();
                    let request = timed(v1::RevokeTokenRequest { name: name.clone() });
                    async move { service.revoke_token(request).await }
                });
                answer.await?;
                done(
                    context,
                    &name,
                    &format!("token {token} taken back"),
                    "stepcast token ls",
                )
            }
        }
    }
}

async fn create_user(
    context: &Context,
    client: &Client,
    name: &str,
    role: &str,
    org: Option<&str>,
    out: Option<PathBuf>,
) -> Result<(), Failure> {
    let org = match org {
        Some(org) => find_org(client, org).await?,
        None if role == "operator" => String::new(),
        // Who is in an organisation means their own; an operator means the only one there is.
        None => match orgs(client).await.unwrap_or_default().as_slice() {
            [one] => one.name.clone(),
            _ => String::new(),
        },
    };
    let kept = Kept::create(out)?;
    let answer = client.ask_once(|| {
        let mut service = client.accounts();
        let request = timed(v1::CreateUserRequest {
            org: org.clone(),
            display_name: name.to_owned(),
            role: role.to_owned(),
        });
        async move { service.create_user(request).await }
    });
    let user = answer.await?.user.unwrap_or_default();
    let token = create_token(client, &user.name, 0).await;
    let token = token.map_err(|failure| without_token(failure, name, &user.name))?;
    let text = match token.until.as_str() {
        "" => format!("{name} is let in as {role}"),
        until => format!("{name} is let in as {role} by a token{until}"),
    };
    let made = (user.name.as_str(), text.as_str(), token.secret.as_str());
    told(context, client, made, kept, Holder::Other(name)).await
}

/// Somebody is let in, and their token is not made, for this reason.
fn without_token(failure: Failure, name: &str, user: &str) -> Failure {
    failure
        .detail(format!("{name} is let in and was told no token"))
        .hint(format!(
            "make one with `stepcast token create {}`",
            id(user)
        ))
}

fn done(context: &Context, name: &str, text: &str, next: &str) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        return output.json(&json!({"done": text, "name": name}));
    }
    output.marked(Mark::Done, Tone::Good, text);
    output.next(next);
    Ok(())
}

/// What becomes of the jobs of who is removed.
fn cancelled(jobs: u64) -> String {
    match jobs {
        0 => String::new(),
        1 => ", and a job of theirs is cancelled".to_owned(),
        jobs => format!(", and {jobs} jobs of theirs are cancelled"),
    }
}

fn removed(
    context: &Context,
    name: &str,
    text: &str,
    cancelled_jobs: u64,
    next: &str,
) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        return output.json(&json!({"done": text, "name": name, "cancelled_jobs": cancelled_jobs}));
    }
    output.marked(Mark::Done, Tone::Good, text);
    output.next(next);
    Ok(())
}

/// A table, or all of it for a program.
pub(super) fn show(
    context: &Context,
    table: &Table,
    whole: serde_json::Value,
    nothing: &str,
) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        return output.json(&whole);
    }
    if table.is_empty() {
        output.say(nothing);
        return Ok(());
    }
    output.table(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn who_is_let_in_without_a_token_is_made_one_by_their_id() {
        let lost = Failure::new(Exit::Unknown, "no answer").hint("look before you ask again");
        let told = without_token(lost, "bob", "users/7");
        assert_eq!(told.exit, Exit::Unknown);
        let hint = told.hint.expect("a hint");
        assert_eq!(hint, "make one with `stepcast token create 7`");
    }
}
