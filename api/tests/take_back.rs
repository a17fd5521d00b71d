//! Rows taken back over HTTP: what came when is listed, and what goes is looked at first, goes once, and is written down.

use serde_json::{Value, json};
use stepcast_scheduler::State;

use crate::access::post;
use crate::http::ask;
use crate::support::{Server, until};

const ROUTE: &str = "/v1/records/take-back";

async fn get(port: u16, path: &str) -> Value {
    let answer = ask(port, "GET", path, None, None).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

async fn done(port: u16, path: &str, sent: Value) -> Value {
    let (status, answer) = post(port, None, path, sent).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// The place that a refusal names, and what it says of it.
async fn wrong(port: u16, path: &str, sent: Value) -> (String, String) {
    let (status, answer) = post(port, None, path, sent).await;
    assert_eq!(status, 400, "{path}: {answer}");
    let field = &answer["fields"][0];
    let text = |name: &str| field[name].as_str().unwrap_or_default().to_owned();
    (text("field"), text("detail"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_import_brought_is_listed_and_taken_back_over_http() {
    let server = Server::start().await;
    let port = server.port;
    until("the newest format", || {
        server.handle.read_stale(State::format) >= 3
    })
    .await;
    let csv = "recipe,hardware,resolution_mp,batch_size,gradient_accumulation_steps,precision,quantization,avg_step_ms,\
               steps_observed\nflux.dev/lora,rtx4090x1,1.0,4,1,bf16,int8,14,150\n";
    done(port, "/v1/records", json!({"source": "test", "csv": csv})).await;
    let listed = get(port, "/v1/records/versions?newest=1").await;
    let [training, validation] = &listed["tables"].as_array().unwrap()[..] else {
        panic!("{listed}")
    };
    assert_eq!(
        (&training["name"], &validation["versions"]),
        (&json!("training_steps"), &json!([]))
    );
    let newest = &training["versions"][0];
    for (name, value) in [
        ("version", json!(1)),
        ("rows", json!(1)),
        ("what", json!("imported")),
        ("source", json!("test")),
        ("is_taken_back", json!(false)),
        ("took_back", Value::Null),
    ] {
        assert_eq!(newest[name], value, "{newest}");
    }
    let since = &newest["committed_at"];

    let would = done(port, ROUTE, json!({"since": since, "dry_run": true})).await;
    let range = json!({"table": "training_steps", "after": 0, "to": 1});
    let table = &would["tables"][0];
    assert_eq!((&table["range"], &table["rows"]), (&range, &json!(1)));
    let of = json!([{"recipe": "flux.dev/lora", "hardware": "rtx4090x1", "rows": 1}]);
    assert_eq!(table["of"], of);
    assert_eq!(get(port, "/v1/records").await["training_rows"], 1);
    for (rows, before) in [(1, 0), (0, 1)] {
        let taken = done(port, ROUTE, json!({"ranges": [range]})).await;
        let table = &taken["tables"][0];
        let told = (&table["rows"], &table["rows_before"]);
        assert_eq!(told, (&json!(rows), &json!(before)), "{taken}");
    }
    assert_eq!(get(port, "/v1/records").await["training_rows"], 0);
    let listed = get(port, "/v1/records/versions").await;
    let versions = &listed["tables"][0]["versions"];
    assert_eq!(
        versions[0]["took_back"],
        json!({"range": range, "rows": 1}),
        "{listed}"
    );
    assert_eq!(versions[1]["is_taken_back"], true);

    let times = "write a time as 2026-10-01T08:00:00Z";
    for (sent, field, what) in [
        (json!({}), "ranges", "say which versions, or since when"),
        (json!({"since": "noon"}), "since", times),
        (json!({"since": since, "until": "noon"}), "until", times),
        (
            json!({"ranges": [range], "until": since}),
            "until",
            "say since when, or leave it out where versions are named",
        ),
        (
            json!({"ranges": [{"table": "training_steps", "after": "0", "to": 1}]}),
            "ranges[0].after",
            "it takes a whole number from 0",
        ),
        (
            json!({"ranges": [{"table": "training_steps", "after": 0}]}),
            "ranges[0]",
            "`to` is missing",
        ),
    ] {
        let told = wrong(port, ROUTE, sent.clone()).await;
        assert_eq!(told, (field.into(), what.into()), "{sent}");
    }
    let none = json!({"ranges": [{"table": "training_steps", "after": 5, "to": 9}]});
    let (status, refused) = post(port, None, ROUTE, none).await;
    assert_eq!((status, &refused["code"]), (400, &json!("RECORDS_INVALID")));
    let subjects: Vec<String> = server.handle.read_stale(|state| {
        let entries = state.accounts().trail().after(0);
        entries.map(|entry| entry.subject.clone()).collect()
    });
    let once = ["records", "records/training_steps/1-1"];
    assert_eq!(subjects, once, "what nothing came of is not written down");
    server.stop().await;
}
