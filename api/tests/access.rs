//! Who may do what: every route and every call, for every role, from the organisation itself and from another one.

mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost_types::FileDescriptorSet;
use serde_json::{Value, json};
use stepcast_api::{AccessToken, ApiConfig};
use stepcast_cluster::{Clock, HostClock};
use stepcast_scheduler::accounts::AccountChange;
use stepcast_scheduler::{Command, State};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

use self::tables::{CALLS, ROUTES, body, filled, table};
use crate::http::{Answer, ask, submission};
use crate::support::{Server, until};

const ROLES: [(&str, char); 4] = [
    ("owner", 'o'),
    ("admin", 'a'),
    ("member", 'm'),
    ("viewer", 'v'),
];

/// The server's own access token.
pub(crate) const OWN: &str = "the-own-token-of-this-server";

/// Two organisations with everybody in them, and an operator.
pub(crate) struct Town {
    pub(crate) server: Server,
    /// By organisation (1 and 2) and role; the operator belongs to neither and is under 0.
    people: BTreeMap<(u8, char), Person>,
    pub(crate) orgs: [String; 2],
}

/// Somebody, with their long-lived and their short-lived token.
pub(crate) struct Person {
    pub(crate) user: String,
    pub(crate) refresh: String,
    pub(crate) ticket: String,
}

impl Town {
    pub(crate) async fn build() -> Self {
        Self::by(Arc::new(HostClock::new())).await
    }

    /// One that goes by this clock.
    pub(crate) async fn by(clock: Arc<dyn Clock>) -> Self {
        let api = ApiConfig {
            access_token: AccessToken::new(OWN).ok(),
            ..ApiConfig::default()
        };
        let server = Server::by(api, clock).await;
        let port = server.port;
        until("the log's format", || {
            server.handle.status().log_format >= 3
        })
        .await;
        let made = post(port, Some(OWN), "/v1/orgs", json!({"name": "one"})).await;
        let one = made.1["id"].as_str().unwrap().to_owned();
        let (status, refused) = post(port, Some(OWN), "/v1/orgs", json!({"name": "two"})).await;
        assert_eq!((status, &refused["code"]), (409, &json!("SINGLE_TENANT")));
        // The state allows what a server for one tenant does not.
        let change = AccountChange::CreateOrg {
            name: "two".parse().unwrap(),
        };
        let command = Command::Account { change };
        server.handle.propose(command, None).await.unwrap();
        let orgs = ask(port, "GET", "/v1/orgs", Some(OWN), None).await.json();
        let two = orgs["items"][1]["id"].as_str().unwrap().to_owned();
        let mut people = BTreeMap::new();
        for (number, org) in [(1, &one), (2, &two)] {
            for (role, letter) in ROLES {
                people.insert((number, letter), person(port, org, role).await);
            }
        }
        people.insert((0, 'O'), person(port, "", "operator").await);
        Self {
            server,
            people,
            orgs: [one, two],
        }
    }

    pub(crate) fn person(&self, org: u8, role: char) -> &Person {
        &self.people[&(if role == 'O' { 0 } else { org }, role)]
    }
}

async fn person(port: u16, org: &str, role: &str) -> Person {
    let sent = json!({"org_id": org, "name": format!("the {role}"), "role": role});
    let (status, made) = post(port, Some(OWN), "/v1/users", sent).await;
    assert_eq!(status, 201, "{made}");
    let user = made["id"].as_str().unwrap().to_owned();
    let made = post(port, Some(OWN), "/v1/tokens", json!({"user_id": user})).await;
    let refresh = made.1["refresh_token"].as_str().unwrap().to_owned();
    let org = if org.is_empty() { "operators" } else { org };
    let ticket = exchanged(port, &refresh, org).await.unwrap();
    Person {
        user,
        refresh,
        ticket,
    }
}

pub(crate) async fn exchanged(port: u16, refresh: &str, org: &str) -> Result<String, u16> {
    let sent = json!({"refresh_token": refresh, "org_id": org});
    let (status, answer) = post(port, None, "/v1/auth/cli/token", sent).await;
    match answer["access_token"].as_str() {
        Some(ticket) => Ok(ticket.to_owned()),
        None => Err(status),
    }
}

pub(crate) async fn post(port: u16, by: Option<&str>, path: &str, sent: Value) -> (u16, Value) {
    let answer = ask(port, "POST", path, by, Some(&sent)).await;
    (answer.status, answer.json())
}

/// What somebody is answered who shows no token. Strangers may ask a few times a second only.
async fn stranger(port: u16, method: &str, path: &str, body: Option<&Value>) -> Answer {
    loop {
        let answer = ask(port, method, path, None, body).await;
        if answer.status != 429 {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn every_route_is_for_the_roles_it_is_meant_for_and_for_nobody_else() {
    let town = Town::build().await;
    let port = town.server.port;
    let (table, document) = (
        table(ROUTES, 2),
        ask(port, "GET", "/v1/openapi.json", None, None)
            .await
            .json(),
    );
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            routes.push((method.clone(), path.clone()));
        }
    }
    assert_eq!(routes.len(), table.len(), "every route is in the table");
    let submitted = post(
        port,
        Some(&town.person(1, 'm').ticket),
        "/v1/jobs",
        submission(),
    )
    .await;
    let job = submitted.1["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{submitted:?}"))
        .to_owned();
    let mut looks = 0;
    // The cancellations come late, and those from elsewhere before all others; last what ends all short-lived tokens.
    routes.sort_by_key(|(_, path)| (path.ends_with("/rotate"), path.ends_with("/cancel")));
    for (method, path) in &routes {
        let who = table.get(&format!("{method} {path}"));
        let who = *who.unwrap_or_else(|| panic!("{method} {path} is in no row of the table"));
        let (target, method) = (filled(path, &job), method.to_uppercase());
        let body = body(path, &town);
        let nobody = stranger(port, &method, &target, body.as_ref()).await;
        let open = who == "-";
        assert_eq!(
            nobody.json()["code"] == "ACCESS_TOKEN_REQUIRED" && nobody.status == 401,
            !open || path.ends_with("token") || path.ends_with("operator"),
            "{method} {path}: {}",
            nobody.body
        );
        for org in [2, 1] {
            for role in ['v', 'm', 'a', 'o', 'O'] {
                let person = town.person(org, role);
                let is_last = path.ends_with("/rotate");
                let ticket = if is_last {
                    &person.refresh
                } else {
                    &person.ticket
                };
                if path.ends_with("/watch") && who.contains(role) && (org == 1 || role == 'O') {
                    // It would go on until the job ends.
                    continue;
                }
                let answer = ask(port, &method, &target, Some(ticket), body.as_ref()).await;
                let what = format!(
                    "{method} {path} as {role} of {org}: {} {}",
                    answer.status, answer.body
                );
                let denied = answer.status == 403 && answer.json()["code"] == "FORBIDDEN";
                assert_eq!(denied, !open && !who.contains(role), "{what}");
                let foreign = org == 2 && role != 'O' && {
                    let of_jobs = ["/v1/jobs/{id}", "/v1/sweeps/{id}"];
                    of_jobs.iter().any(|job| path.starts_with(job))
                };
                if foreign && !denied {
                    assert_eq!(answer.json()["code"], "NO_SUCH_JOB", "{what}");
                }
                assert_ne!(answer.status, 500, "{what}");
                looks += 1;
            }
        }
    }
    assert!(looks > 200, "{looks}");
    town.server.stop().await;
}

#[tokio::test]
async fn every_call_is_for_the_roles_it_is_meant_for_and_for_nobody_else() {
    let town = Town::build().await;
    let table = table(CALLS, 1);
    let set = <FileDescriptorSet as prost::Message>::decode(stepcast_proto::FILE_DESCRIPTOR_SET);
    let mut calls = Vec::new();
    for file in &set.unwrap().file {
        for service in file
            .service
            .iter()
            .filter(|service| service.name() != "AgentService")
        {
            let short = service.name().trim_end_matches("Service");
            for method in &service.method {
                let path = format!("/stepcast.v1.{}/{}", service.name(), method.name());
                calls.push((format!("{short}/{}", method.name()), path));
            }
        }
    }
    assert_eq!(calls.len(), table.len(), "every call is in the table");
    // What ends all short-lived tokens comes last.
    let ends_tickets = |name: &str| name.ends_with("/RotateSecret");
    calls.sort_by_key(|(name, _)| ends_tickets(name));
    for (name, path) in &calls {
        let who = *table
            .get(name)
            .unwrap_or_else(|| panic!("{name} is in no row of the table"));
        let nobody = call(&town, path, None).await;
        assert_eq!(
            nobody.map(|status| status.code()),
            Some(Code::Unauthenticated),
            "{name}"
        );
        for org in [1, 2] {
            for role in ['v', 'm', 'a', 'o', 'O'] {
                let person = town.person(org, role);
                let is_last = ends_tickets(name);
                let token = if is_last {
                    &person.refresh
                } else {
                    &person.ticket
                };
                let refused = call(&town, path, Some(token)).await;
                let denied = refused
                    .as_ref()
                    .is_some_and(|status| status.code() == Code::PermissionDenied);
                assert_eq!(
                    denied,
                    who != "-" && !who.contains(role),
                    "{name} as {role}: {refused:?}"
                );
            }
        }
    }
    town.server.stop().await;
}

/// Calls with an empty message; the refusal, if it is one.
async fn call(town: &Town, path: &str, ticket: Option<&str>) -> Option<Status> {
    let mut request = Request::new(());
    if let Some(ticket) = ticket {
        let bearer = format!("Bearer {ticket}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
    }
    let mut client = tonic::client::Grpc::new(town.server.channel.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::try_from(path).unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    match client.server_streaming(request, path, codec).await {
        Err(status) => Some(status),
        Ok(answer) => answer.into_inner().message().await.err(),
    }
}

#[tokio::test]
async fn jobs_are_seen_in_their_organisation_and_what_was_done_is_written_down() {
    let town = Town::build().await;
    let port = town.server.port;
    let (mine, other) = (&town.person(1, 'm').ticket, &town.person(1, 'v').ticket);
    let foreign = &town.person(2, 'o').ticket;
    let job = post(port, Some(mine), "/v1/jobs", submission()).await.1;
    let job = job["id"].as_str().unwrap();
    let seen = async |ticket: &str| {
        let jobs = ask(port, "GET", "/v1/jobs", Some(ticket), None)
            .await
            .json();
        jobs["items"].as_array().unwrap().len()
    };
    let operator = &town.person(0, 'O').ticket;
    assert_eq!(
        [
            seen(mine).await,
            seen(other).await,
            seen(foreign).await,
            seen(operator).await
        ],
        [1, 1, 0, 1]
    );
    // A viewer may look and not touch; an admin may touch.
    let cancel = format!("/v1/jobs/{job}/cancel");
    let admin = &town.person(1, 'a').ticket;
    assert_eq!(
        ask(port, "POST", &cancel, Some(admin), None).await.status,
        200
    );
    let trail = ask(port, "GET", "/v1/audit", Some(operator), None)
        .await
        .json();
    assert_eq!(
        (&trail["sound"], &trail["broken_seq"]),
        (&json!(true), &json!(0))
    );
    let told: Vec<(&str, &str)> = trail["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["action"].as_str().unwrap(),
                entry["subject"].as_str().unwrap(),
            )
        })
        .collect();
    let subject = format!("jobs/{job}");
    assert_eq!(
        told[told.len() - 2..],
        [("SUBMIT_JOB", subject.as_str()), ("CANCEL_JOB", &subject)]
    );
    let own = ask(
        port,
        "GET",
        "/v1/audit",
        Some(&town.person(1, 'o').ticket),
        None,
    )
    .await
    .json();
    assert_eq!(own["items"].as_array().unwrap().len(), 2, "{own}");
    let elsewhere = ask(port, "GET", "/v1/audit", Some(foreign), None)
        .await
        .json();
    assert_eq!(elsewhere["items"], json!([]));
    town.server.stop().await;
}

#[tokio::test]
async fn who_removes_somebody_is_told_how_many_of_their_jobs_are_cancelled() {
    let town = Town::build().await;
    let port = town.server.port;
    let (admin, viewer) = (town.person(1, 'a'), &town.person(1, 'v').ticket);
    let mut jobs = Vec::new();
    for by in ['m', 'm', 'a'] {
        let by = &town.person(1, by).ticket;
        let job = post(port, Some(by), "/v1/jobs", submission()).await.1;
        jobs.push(format!("/v1/jobs/{}", job["id"].as_str().unwrap()));
    }
    let remove = format!("/v1/users/{}/remove", town.person(1, 'm').user);
    let removed = ask(port, "POST", &remove, Some(&admin.ticket), None).await;
    assert_eq!(removed.json()["cancelled_jobs"], 2, "{}", removed.body);
    let status = async |job: &str| {
        let job = ask(port, "GET", job, Some(viewer), None).await.json();
        job["job"]["status"].as_str().unwrap().to_owned()
    };
    let pending = || town.server.handle.read_stale(|state| state.pending_count());
    until("the end of both", || pending() == 1).await;
    assert_eq!(status(&jobs[0]).await, "cancelled");
    assert_eq!(status(&jobs[2]).await, "queued");
    // The others' go with their organisation; what an operator has submitted stays.
    let operator = &town.person(0, 'O').ticket;
    let own = post(port, Some(operator), "/v1/jobs", submission()).await;
    assert_eq!(own.0, 201, "{}", own.1);
    let remove = format!("/v1/orgs/{}/remove", town.orgs[0]);
    let removed = ask(port, "POST", &remove, Some(operator), None).await;
    assert_eq!(removed.json()["cancelled_jobs"], 1, "{}", removed.body);
    until("the end of the last one", || {
        let is_open = |state: &State| state.pending().any(|job| job.spec.terms.owner.is_some());
        !town.server.handle.read_stale(is_open)
    })
    .await;
    assert_eq!(pending(), 1);
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_for_one_organisation_has_one_however_often_it_is_asked() {
    let server = Server::start().await;
    let port = server.port;
    until("the log's format", || {
        server.handle.status().log_format >= 3
    })
    .await;
    let names: Vec<String> = (0..12).map(|number| format!("org {number}")).collect();
    let make = async |name: &str| post(port, None, "/v1/orgs", json!({"name": name})).await;
    let made = futures::future::join_all(names.iter().map(|name| make(name))).await;
    let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(|made| made.0 == 201);
    assert_eq!((made.len(), refused.len()), (1, 11), "{made:?}");
    for (status, refused) in &refused {
        assert_eq!((*status, &refused["code"]), (409, &json!("SINGLE_TENANT")));
    }
    // Nothing was recorded of one that nobody has worked in.
    let remove = format!("/v1/orgs/{}/remove", made[0].1["id"].as_str().unwrap());
    let removed = ask(port, "POST", &remove, None, None).await;
    assert_eq!(removed.status, 200, "{}", removed.body);
    let (status, made) = make("the right one").await;
    assert_eq!(status, 201, "{made}");
    let submitted = post(port, None, "/v1/jobs", submission()).await;
    assert_eq!(submitted.0, 201, "{}", submitted.1);
    let remove = format!("/v1/orgs/{}/remove", made["id"].as_str().unwrap());
    let removed = ask(port, "POST", &remove, None, None).await;
    assert_eq!(removed.status, 200, "{}", removed.body);
    let (status, refused) = make("another one").await;
    assert_eq!((status, &refused["code"]), (409, &json!("SINGLE_TENANT")));
    server.stop().await;
}
