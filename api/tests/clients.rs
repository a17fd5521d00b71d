//! What programs that are made of the OpenAPI document read in it and send, and what they are told.

use serde_json::{Value, json};

use crate::access::post;
use crate::http::{ask, raw, submission};
use crate::scheduling::raised;
use crate::support::Server;

/// A submission for real hardware, with this data set.
fn with_data(dataset: &Value) -> Value {
    let mut sent = submission();
    sent["wishes"] = json!({"allow": ["h100"]});
    sent["dataloader_config"][0] = dataset.clone();
    sent
}

async fn submitted(server: &Server, sent: Value) -> Value {
    let (status, answer) = post(server.port, None, "/v1/jobs", sent).await;
    assert_eq!(status, 201, "{answer}");
    answer
}

#[tokio::test]
async fn the_document_says_of_no_member_that_it_is_null_unless_given() {
    let server = Server::start().await;
    let document = ask(server.port, "GET", "/v1/openapi.json", None, None).await;
    assert!(!document.body.contains(r#""default":null"#));
    let document = document.json();
    let schemas = &document["components"]["schemas"];
    let priority = &schemas["JobWishes"]["properties"]["priority"];
    assert_eq!(priority["type"], json!(["integer", "null"]));
    // What holds for `true` as well is said so that every generator reads it.
    assert_eq!(schemas["Rows"]["properties"]["rows"]["items"], json!({}));
    let own = &document["paths"]["/v1/openapi.json"]["get"]["responses"]["200"];
    assert_eq!(own["content"]["application/json"]["schema"], json!({}));
    server.stop().await;
}

#[tokio::test]
async fn null_takes_a_wish_back_only_where_one_was_made_before() {
    let server = raised().await;
    let mut sent = submission();
    sent["config"]["--stepcast_max_cost_usd"] = json!(0.5);
    sent["config"]["--stepcast_name"] = "cats".into();
    sent["wishes"] = json!({"priority": 1, "allow": null, "max_cost_usd_micros": null, "display_name": null,
                            "team": null, "labels": null});
    let job = submitted(&server, sent).await;
    let wishes = &job["job"]["wishes"];
    assert_eq!(
        [
            &wishes["priority"],
            &wishes["allow"],
            &wishes["max_cost_usd_micros"],
            &wishes["display_name"]
        ],
        [
            &json!(1),
            &json!(["replay"]),
            &json!(500_000),
            &json!("cats")
        ]
    );
    let update = format!("/v1/jobs/{}/update", job["id"].as_str().unwrap());
    let change = json!({"wishes": {"max_cost_usd_micros": null}});
    let (status, changed) = post(server.port, None, &update, change).await;
    assert_eq!(status, 200, "{changed}");
    let wishes = &changed["job"]["wishes"];
    assert_eq!(
        (&wishes["max_cost_usd_micros"], &wishes["display_name"]),
        (&Value::Null, &json!("cats"))
    );
    server.stop().await;
}

#[tokio::test]
async fn data_that_no_host_could_find_are_refused_before_anything_waits_for_them() {
    let server = Server::start().await;
    let port = server.port;
    let private = "photos-of-anna";
    for (dataset, why) in [
        (json!({"id": "cats", "type": "local"}), "has no"),
        (
            json!({"id": "cats", "instance_data_dir": private}),
            "has a relative",
        ),
    ] {
        let mut sweep = with_data(&dataset);
        sweep["tasks"] = json!([{"config": {"seed": 1}}, {"config": {"seed": 2}}]);
        let mut checked = with_data(&dataset);
        checked["validate_only"] = true.into();
        let whole = with_data(&dataset);
        for (path, sent) in [
            ("/v1/jobs", whole),
            ("/v1/jobs", checked),
            ("/v1/sweeps", sweep),
        ] {
            let (status, told) = post(port, None, path, sent).await;
            assert_eq!(
                (status, &told["code"]),
                (400, &json!("CONFIG_INVALID")),
                "{told}"
            );
            let field = &told["fields"][0];
            assert_eq!(
                field["field"],
                "multidatabackend.json $[0].instance_data_dir"
            );
            let detail = field["detail"].as_str().unwrap();
            let said =
                format!("data set 1 (cats) {why} instance_data_dir; write the absolute path");
            assert!(detail.starts_with(&said), "{detail}");
            assert!(!told.to_string().contains(private), "{told}");
        }
        // Pretend hardware looks for no data, and an estimate needs none.
        let mut played = with_data(&dataset);
        played["wishes"] = json!({"allow": ["replay"]});
        submitted(&server, played).await;
        let asked = json!({"config": submission()["config"], "dataloader_config": [dataset]});
        let (status, told) = post(port, None, "/v1/estimates", asked).await;
        assert_eq!(status, 200, "{told}");
    }
    for elsewhere in [
        json!({"id": "cats", "instance_data_dir": "{env:DATA}/cats"}),
        json!({"id": "cats", "instance_data_dir": "/data/cats"}),
    ] {
        submitted(&server, with_data(&elsewhere)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_job_of_a_team_that_was_removed_is_none_of_the_default_team() {
    let server = raised().await;
    let port = server.port;
    let mut shown = Vec::new();
    for name in ["tight", "loose"] {
        let (status, told) = post(port, None, "/v1/teams", json!({"name": name})).await;
        assert_eq!(status, 200, "{told}");
        let mut sent = submission();
        sent["wishes"] = json!({"team": name});
        let job = submitted(&server, sent).await;
        let job = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
        for path in [format!("{job}/cancel"), format!("/v1/teams/{name}/remove")] {
            let (status, told) = post(port, None, &path, json!({})).await;
            assert_eq!(status, 200, "{path}: {told}");
        }
        let one = ask(port, "GET", &job, None, None).await.json();
        let team = one["job"]["wishes"]["team"].as_str().unwrap();
        assert!(team.starts_with("(removed "), "{one}");
        shown.push(team.to_owned());
    }
    assert_ne!(shown[0], shown[1]);
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_was_taken_is_checked_as_what_it_is() {
    let server = raised().await;
    let port = server.port;
    let mut sent = submission();
    sent["request_id"] = "c".repeat(32).into();
    submitted(&server, sent.clone()).await;
    sent["validate_only"] = true.into();
    let checked = submitted(&server, sent.clone()).await;
    assert_eq!(checked["id"], "");
    sent["config"]["--max_train_steps"] = 151.into();
    let (status, told) = post(port, None, "/v1/jobs", sent).await;
    assert_eq!(
        (status, &told["code"]),
        (409, &json!("REQUEST_ID_REUSED")),
        "{told}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_sweep_is_called_by_its_own_id_by_whichever_job_it_is_ended() {
    let server = raised().await;
    let port = server.port;
    let mut sweep = submission();
    sweep["tasks"] = json!([{"config": {"seed": 1}}, {"config": {"seed": 2}}]);
    let (status, sweep) = post(port, None, "/v1/sweeps", sweep).await;
    assert_eq!(status, 201, "{sweep}");
    let last = sweep["jobs"][1].as_str().unwrap();
    let cancel = format!("/v1/sweeps/{last}/cancel");
    let (status, cancelled) = post(port, None, &cancel, json!({})).await;
    let told = json!({"id": sweep["id"], "cancelled_jobs": 2});
    assert_eq!((status, cancelled), (200, told));
    let alone = submitted(&server, submission()).await;
    let alone = format!("/v1/sweeps/{}", alone["id"].as_str().unwrap());
    let looked_at = ask(port, "GET", &alone, None, None).await.json();
    let ended = post(port, None, &format!("{alone}/cancel"), json!({}))
        .await
        .1;
    for (told, word) in [(looked_at, "job show"), (ended, "job cancel")] {
        let hint = told["hint"].as_str().unwrap();
        assert_eq!(told["code"], "NO_ARRAY");
        assert!(hint.contains(word), "{hint}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_submission_that_is_passed_on_is_known_by_the_id_that_was_drawn_for_it() {
    let server = raised().await;
    let drawn = "d".repeat(32);
    for (path, request_id) in [
        ("/v1/jobs", Value::Null),
        ("/v1/jobs", json!("")),
        ("/v1/sweeps", Value::Null),
    ] {
        let mut sent = submission();
        sent["request_id"] = request_id;
        if path == "/v1/sweeps" {
            sent["tasks"] = json!([{"config": {"seed": 1}}]);
        }
        let sent = sent.to_string();
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nStepcast-Request-Id: {drawn}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{sent}",
            sent.len()
        );
        let first = raw(server.port, text.clone().into_bytes()).await;
        let again = raw(server.port, text.into_bytes()).await;
        match path {
            "/v1/jobs" => {
                assert_eq!((first.status, again.status), (201, 201), "{}", again.body);
                assert_eq!(first.json()["id"], again.json()["id"]);
            }
            // The id is another request's, of which both are told.
            _ => assert_eq!(again.json()["code"], "REQUEST_ID_REUSED"),
        }
    }
    server.stop().await;
}
