//! What is said in a body or behind the question mark over HTTP: nothing of it is passed over, and what is wrong is named.

use serde_json::{Value, json};

use crate::access::post;
use crate::http::{ask, submission};
use crate::scheduling::raised;
use crate::support::Server;

/// The place that a refusal names, and what it says of it.
async fn wrong(port: u16, path: &str, sent: Value) -> (String, String) {
    let (status, answer) = post(port, None, path, sent).await;
    assert_eq!(status, 400, "{path}: {answer}");
    let field = &answer["fields"][0];
    let text = |name: &str| field[name].as_str().unwrap_or_default().to_owned();
    (text("field"), text("detail"))
}

/// Whoever names the etag that was seen approves nothing else, wherever it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_approved_and_changed_as_it_was_seen_wherever_its_etag_is_given() {
    let server = raised().await;
    let port = server.port;
    let (_, answer) = post(port, None, "/v1/jobs", submission()).await;
    let seen = answer["job"]["etag"].as_str().unwrap().to_owned();
    let job = format!("/v1/jobs/{}", answer["id"].as_str().unwrap());
    let (approve, update) = (format!("{job}/approve"), format!("{job}/update"));
    let change = |priority: u8| json!({"wishes": {"priority": priority}});
    let (status, answer) = post(port, None, &update, change(7)).await;
    assert_eq!(status, 200, "{answer}");
    let now = answer["job"]["etag"].as_str().unwrap().to_owned();
    let behind = |path: &str, etag: &str| format!("{path}?etag={etag}");
    let of = |etag: &str| Some(json!({"etag": etag}));
    let asked = async |path: &str, sent: Option<Value>| {
        let answer = ask(port, "POST", path, None, sent.as_ref()).await;
        (answer.status, answer.json()["code"].clone())
    };
    for (path, sent, status, code) in [
        (behind(&approve, &seen), None, 409, "CHANGED"),
        (approve.clone(), of(&seen), 409, "CHANGED"),
        (behind(&approve, &seen), of(&seen), 409, "CHANGED"),
        (behind(&approve, &now), of(&seen), 400, "INVALID_FIELD"),
        (approve.clone(), of(""), 400, "INVALID_FIELD"),
        (behind(&approve, ""), None, 400, "INVALID_FIELD"),
        (
            approve.clone(),
            Some(json!({"e_tag": now})),
            400,
            "INVALID_FIELD",
        ),
        (behind(&update, &seen), Some(change(8)), 409, "CHANGED"),
        (behind(&update, ""), Some(change(8)), 400, "INVALID_FIELD"),
    ] {
        let told = asked(&path, sent.clone()).await;
        assert_eq!(told, (status, json!(code)), "{path} {sent:?}");
    }
    for (path, sent) in [
        (approve.clone(), of(&now)),
        (approve.clone(), Some(json!({}))),
        (approve.clone(), None),
    ] {
        let answer = ask(port, "POST", &path, None, sent.as_ref()).await;
        assert_eq!(answer.status, 200, "{sent:?}: {}", answer.body);
        assert!(answer.json()["job"]["approved_at"].is_string());
    }
    server.stop().await;
}

/// Members of other kinds are named in what a person sends, not by a column of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_another_kind_is_told_by_its_name() {
    let server = Server::start().await;
    let port = server.port;
    let with = |name: &str, value: Value| {
        let mut sent = submission();
        sent[name] = value;
        sent
    };
    let count = "it takes a whole number from 0 to 4294967295";
    for (sent, field, what) in [
        (
            with("wishes", json!({"max_cost_usd_micros": 1000.5})),
            "wishes.max_cost_usd_micros",
            "it takes a whole number from 0",
        ),
        (
            with("wishes", json!({"gpu_count": -1})),
            "wishes.gpu_count",
            count,
        ),
        (
            with("wishes", json!({"allow": "h100"})),
            "wishes.allow",
            "it takes a list",
        ),
        (with("config", json!("x")), "config", "it takes an object"),
        (
            with("dataloader_config", json!({})),
            "dataloader_config",
            "it takes a list",
        ),
        (
            with("sample_counts", json!({"cats": "many"})),
            "sample_counts",
            "one of its members is wrong: it takes a whole number from 0",
        ),
    ] {
        let told = wrong(port, "/v1/jobs", sent).await;
        assert_eq!(told, (field.into(), what.into()));
    }
    let wish = json!({"wishes": [{"job": "jmnpq", "priority": "5"}]});
    let (field, _) = wrong(port, "/v1/what-if", wish).await;
    assert_eq!(field, "wishes[0].priority");
    for (query, field, what) in [
        ("page_size=-3", "page_size", count),
        ("outlook=1", "outlook", "it takes true or false"),
        ("state=A&state=B", "query", "`state` is given twice"),
    ] {
        let answer = ask(port, "GET", &format!("/v1/jobs?{query}"), None, None).await;
        let told = answer.json();
        assert_eq!(answer.status, 400, "{told}");
        let wrong = json!({"field": field, "detail": what});
        assert_eq!(told["fields"], json!([wrong]), "{query}");
    }
    server.stop().await;
}
