//! Teams that are not for everybody, as people meet them.

use serde_json::{Value, json};
use stepcast_proto::v1;
use stepcast_proto::v1::scheduling_service_client::SchedulingServiceClient;
use tonic::Request;

use crate::access::{OWN, Town, post};
use crate::http::submission;

/// Somebody's job in a team, as SimpleTuner's client submits it: the answer's status and its code.
async fn submitted(town: &Town, (org, role): (u8, char), team: &str) -> (u16, Value) {
    let mut sent = submission();
    if !team.is_empty() {
        sent["config"]["--stepcast_team"] = team.into();
    }
    let ticket = Some(&*town.person(org, role).ticket);
    sent["validate_only"] = true.into();
    let (_, checked) = post(town.server.port, ticket, "/v1/jobs", sent.clone()).await;
    sent["validate_only"] = false.into();
    let (status, answer) = post(town.server.port, ticket, "/v1/jobs", sent.clone()).await;
    assert_eq!(
        checked["code"], answer["code"],
        "who checks is told the same"
    );
    sent["tasks"] = json!([{"config": {}}]);
    for validate_only in [true, false] {
        sent["validate_only"] = validate_only.into();
        let (_, swept) = post(town.server.port, ticket, "/v1/sweeps", sent.clone()).await;
        assert_eq!(
            swept["code"], answer["code"],
            "a sweep is refused as a job is, also where it is only checked"
        );
    }
    (status, answer["code"].clone())
}

fn by_the_operator<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {OWN}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_is_for_whom_an_operator_says_and_so_is_the_one_of_who_has_none() {
    let town = Town::build().await;
    let mut scheduling = SchedulingServiceClient::new(town.server.channel.clone());
    let acme = v1::SetTeamRequest {
        team: Some(v1::Team {
            name: "teams/acme".to_owned(),
            ..v1::Team::default()
        }),
        request_id: String::new(),
    };
    scheduling
        .set_team(by_the_operator(acme.clone()))
        .await
        .unwrap();
    let (member, admin, other) = ((1, 'm'), (1, 'a'), (2, 'm'));
    assert_eq!(submitted(&town, other, "acme").await.0, 201);

    let user = format!("users/{}", town.person(1, 'm').user);
    let others = format!("orgs/{}", town.orgs[1]);
    for (team, members) in [("acme", vec![user.clone()]), ("default", vec![others])] {
        let request = v1::SetTeamMembersRequest {
            name: format!("teams/{team}"),
            members: members.clone(),
            request_id: String::new(),
        };
        let set = scheduling.set_team_members(by_the_operator(request)).await;
        assert_eq!(set.unwrap().into_inner().team.unwrap().members, members);
    }
    assert_eq!(submitted(&town, member, "acme").await.0, 201);
    let refused = (403, Value::from("NOT_IN_TEAM"));
    assert_eq!(submitted(&town, admin, "acme").await, refused);
    assert_eq!(submitted(&town, other, "acme").await, refused);
    assert_eq!(submitted(&town, member, "").await, refused);
    assert_eq!(submitted(&town, other, "").await.0, 201);
    // Other rules leave its members as they are.
    let set = scheduling.set_team(by_the_operator(acme)).await.unwrap();
    assert_eq!(set.into_inner().team.unwrap().members, [user]);

    for (member, reason) in [
        ("users/uzzzzz", tonic::Code::NotFound),
        ("somebody", tonic::Code::InvalidArgument),
    ] {
        let request = v1::SetTeamMembersRequest {
            name: "teams/acme".to_owned(),
            members: vec![member.to_owned()],
            request_id: String::new(),
        };
        let refused = scheduling.set_team_members(by_the_operator(request)).await;
        assert_eq!(refused.unwrap_err().code(), reason, "{member}");
    }
}

/// The teams that somebody sees, each with whether they see into it.
async fn listed(town: &Town, (org, role): (u8, char)) -> Vec<(String, bool)> {
    let mut request = Request::new(v1::ListTeamsRequest {});
    let bearer = format!("Bearer {}", town.person(org, role).ticket);
    request
        .metadata_mut()
        .insert("authorization", bearer.parse().unwrap());
    let mut scheduling = SchedulingServiceClient::new(town.server.channel.clone());
    let listed = scheduling.list_teams(request).await.unwrap().into_inner();
    let seen = listed.teams.into_iter().map(|team| {
        assert!(team.r#use.is_some() || team.members.is_empty());
        (team.name.replace("teams/", ""), team.r#use.is_some())
    });
    seen.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_see_the_teams_that_their_jobs_may_run_in_and_into_those_of_their_own() {
    let town = Town::build().await;
    let mut scheduling = SchedulingServiceClient::new(town.server.channel.clone());
    let (one, two) = (
        format!("orgs/{}", town.orgs[0]),
        format!("orgs/{}", town.orgs[1]),
    );
    let member = format!("users/{}", town.person(1, 'm').user);
    for (name, members) in [
        ("both", vec![one.clone(), two.clone()]),
        ("first", vec![one]),
        ("first/part", vec![]),
        ("second", vec![two]),
        ("somebody", vec![member]),
    ] {
        let team = v1::SetTeamRequest {
            team: Some(v1::Team {
                name: format!("teams/{name}"),
                ..v1::Team::default()
            }),
            request_id: String::new(),
        };
        scheduling.set_team(by_the_operator(team)).await.unwrap();
        let request = v1::SetTeamMembersRequest {
            name: format!("teams/{name}"),
            members,
            request_id: String::new(),
        };
        let set = scheduling.set_team_members(by_the_operator(request)).await;
        set.unwrap();
    }
    let seen = |teams: &[(&str, bool)]| -> Vec<(String, bool)> {
        let teams = teams.iter().map(|(name, into)| ((*name).to_owned(), *into));
        teams.collect()
    };
    let of_both = [("default", false), ("both", false)];
    let first = [&of_both[..], &[("first", true), ("first/part", true)]].concat();
    assert_eq!(listed(&town, (1, 'v')).await, seen(&first));
    let somebody = [&first[..], &[("somebody", true)]].concat();
    assert_eq!(listed(&town, (1, 'm')).await, seen(&somebody));
    let second = [&of_both[..], &[("second", true)]].concat();
    assert_eq!(listed(&town, (2, 'a')).await, seen(&second));
    assert_eq!(listed(&town, (0, 'O')).await.len(), 6);
}
