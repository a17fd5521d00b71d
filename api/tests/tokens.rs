//! For how long tokens of people hold: no longer than their holder, than the token they were made by, and than they say.

use std::time::Duration;

use serde_json::json;

use crate::access::{OWN, Town, exchanged, post};
use crate::http::{ask, submission};
use crate::support::Later;

#[tokio::test]
async fn a_token_is_good_in_its_organisation_and_until_it_or_its_holder_is_taken_back() {
    let town = Town::build().await;
    let port = town.server.port;
    let member = town.person(1, 'm');
    let [one, two] = &town.orgs;
    assert!(exchanged(port, &member.refresh, one).await.is_ok());
    assert!(
        exchanged(port, &member.refresh, "one").await.is_ok(),
        "by its name too"
    );
    for (refresh, org) in [
        (member.refresh.as_str(), two.as_str()),
        (&member.refresh, "operators"),
        (&member.refresh, ""),
        ("scr1_0000", one),
        (OWN, one),
    ] {
        assert_eq!(exchanged(port, refresh, org).await, Err(401), "{org}");
    }
    let mut changed = member.ticket.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'B' } else { 'A' });
    // The last letter may hold bits that say nothing, so the one before is changed as well.
    changed.replace_range(30..31, if &changed[30..31] == "A" { "B" } else { "A" });
    for wrong in [changed.as_str(), "sca1_", "nonsense"] {
        assert_eq!(
            ask(port, "GET", "/v1/jobs", Some(wrong), None).await.status,
            401,
            "{wrong}"
        );
    }
    // Less from one moment to the next, and then nothing.
    let admin = &town.person(1, 'a').ticket;
    let role = format!("/v1/users/{}/role", member.user);
    assert_eq!(
        post(port, Some(admin), &role, json!({"role": "viewer"}))
            .await
            .0,
        200
    );
    let refused = post(port, Some(&member.ticket), "/v1/jobs", submission()).await;
    assert_eq!((refused.0, &refused.1["code"]), (403, &json!("FORBIDDEN")));
    let own = ask(port, "GET", "/v1/tokens", Some(&member.ticket), None)
        .await
        .json();
    let token = own["items"][0]["id"].as_str().unwrap();
    let revoke = format!("/v1/tokens/{token}/revoke");
    let foreign = &town.person(2, 'o').ticket;
    assert_eq!(
        ask(port, "POST", &revoke, Some(foreign), None).await.status,
        404
    );
    assert_eq!(
        ask(port, "POST", &revoke, Some(&member.ticket), None)
            .await
            .status,
        200
    );
    assert_eq!(exchanged(port, &member.refresh, one).await, Err(401));
    // What was given for it holds no longer, and makes nothing that does.
    for (method, path, sent) in [
        ("GET", "/v1/jobs", None),
        ("POST", "/v1/tokens", Some(json!({}))),
    ] {
        let answer = ask(port, method, path, Some(&member.ticket), sent.as_ref()).await;
        assert_eq!(answer.status, 401, "{method} {path}: {}", answer.body);
    }
    let viewer = town.person(1, 'v');
    let seen = ask(port, "GET", "/v1/jobs", Some(&viewer.ticket), None).await;
    assert_eq!(seen.status, 200, "{}", seen.body);
    let remove = format!("/v1/users/{}/remove", viewer.user);
    assert_eq!(
        ask(port, "POST", &remove, Some(foreign), None).await.status,
        404
    );
    assert_eq!(
        ask(port, "POST", &remove, Some(admin), None).await.status,
        200
    );
    assert_eq!(
        ask(port, "GET", "/v1/jobs", Some(&viewer.ticket), None)
            .await
            .status,
        401
    );
    town.server.stop().await;
}

#[tokio::test]
async fn what_a_token_makes_ends_no_later_than_the_token() {
    let clock = Later::new();
    let town = Town::by(clock.clone()).await;
    let port = town.server.port;
    let admin = town.person(1, 'a');
    let made = async |by: &str, user: &str, valid_seconds: u64| {
        let sent = json!({"user_id": user, "valid_seconds": valid_seconds});
        let (status, made) = post(port, Some(by), "/v1/tokens", sent).await;
        assert_eq!(status, 201, "{made}");
        let ends = made["token"]["expires_at"].as_str().map(str::to_owned);
        (made["refresh_token"].as_str().unwrap().to_owned(), ends)
    };
    // A slip is no wish for a token without an end.
    let slip = json!({"user_id": "", "valid_second": 60});
    let (status, refused) = post(port, Some(&admin.refresh), "/v1/tokens", slip).await;
    assert_eq!(status, 400, "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("write one of `user_id`, `valid_seconds`"),
        "{text}"
    );
    // One without an end makes such without an end, also by way of a short-lived one.
    assert_eq!(made(&admin.refresh, "", 0).await.1, None);
    assert_eq!(made(&admin.ticket, "", 0).await.1, None);
    let (hour, ends) = made(&admin.refresh, "", 3_600).await;
    assert!(ends.is_some());
    let ticket = exchanged(port, &hour, "one").await.unwrap();
    // For as long as it is good itself, for longer, and for less; for oneself and for somebody one rules over.
    let member = &town.person(1, 'm').user;
    let (child, of_child) = made(&hour, "", 0).await;
    assert_eq!(of_child, ends);
    assert_eq!(made(&ticket, "", 0).await.1, ends);
    assert_eq!(made(&ticket, member, 7_200).await.1, ends);
    let (short, of_short) = made(&child, member, 600).await;
    assert!(
        of_short.is_some() && of_short < ends,
        "{of_short:?} {ends:?}"
    );
    // A short-lived one says for how long it is good.
    clock.pass(Duration::from_secs(3_000));
    assert_eq!(exchanged(port, &short, "one").await, Err(401));
    let sent = json!({"refresh_token": hour, "org_id": "one"});
    let late = post(port, None, "/v1/auth/cli/token", sent).await.1;
    let left = late["expires_in"].as_u64().unwrap();
    assert!((500..=600).contains(&left), "{late}");
    let late = late["access_token"].as_str().unwrap();
    let status = async |token: &str| ask(port, "GET", "/v1/jobs", Some(token), None).await.status;
    assert_eq!(status(late).await, 200);
    clock.pass(Duration::from_secs(600));
    for token in [hour.as_str(), &child, &ticket, late] {
        assert_eq!(status(token).await, 401);
    }
    assert_eq!(status(&admin.ticket).await, 200, "this one has no end");
    town.server.stop().await;
}

/// What was derived from a secret that others know is over with it; long-lived tokens are not, and make new ones at once.
#[tokio::test]
async fn with_another_secret_short_lived_tokens_are_over_and_are_asked_for_anew() {
    let town = Town::build().await;
    let port = town.server.port;
    let member = town.person(1, 'm');
    let status = async |token: &str| ask(port, "GET", "/v1/jobs", Some(token), None).await.status;
    assert_eq!(status(&member.ticket).await, 200);
    let operator = town.person(0, 'O');
    let rotate = "/v1/cluster/rotate";
    let rotated = post(port, Some(&operator.refresh), rotate, json!({})).await;
    assert_eq!(rotated.0, 200, "{}", rotated.1);
    for ticket in [&member.ticket, &operator.ticket] {
        assert_eq!(status(ticket).await, 401);
    }
    assert_eq!(status(&member.refresh).await, 200);
    let ticket = exchanged(port, &member.refresh, "one").await.unwrap();
    assert_eq!(status(&ticket).await, 200);
    let audit = ask(port, "GET", "/v1/audit", Some(&operator.refresh), None);
    let audit = audit.await.json().to_string();
    assert!(audit.contains(r#""subject":"secret""#), "{audit}");
    town.server.stop().await;
}
