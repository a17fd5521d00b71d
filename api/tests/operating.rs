//! What people and operators do over HTTP and JSON alone: jobs changed and approved, sweeps, teams and the policy, workers
//! let in and drained, figures brought in, nodes looked after.

use serde_json::{Value, json};

use crate::access::{Town, post};
use crate::http::{ask, submission};

async fn get(port: u16, by: Option<&str>, path: &str) -> (u16, Value) {
    let answer = ask(port, "GET", path, by, None).await;
    (answer.status, answer.json())
}

/// A request that is taken; the answer.
async fn done(port: u16, by: Option<&str>, path: &str, sent: Value) -> Value {
    let (status, answer) = post(port, by, path, sent).await;
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

/// A request that is not; its status and its code.
async fn refused(port: u16, by: Option<&str>, path: &str, sent: Value) -> (u16, String) {
    let (status, answer) = post(port, by, path, sent).await;
    assert!(status >= 400, "{path}: {status} {answer}");
    (status, answer["code"].as_str().unwrap().to_owned())
}

/// The status of a refusal and its code.
fn of(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_job_asks_for_something_else() {
    let town = Town::build().await;
    let port = town.server.port;
    let by = |role| Some(&*town.person(1, role).ticket);
    let mut sent = submission();
    // What stands beside the configuration counts over what stands in it.
    sent["config"]["--stepcast_priority"] = 1.into();
    sent["config"]["--stepcast_gpus"] = 2.into();
    sent["wishes"] = json!({"priority": 3, "max_cost_usd_micros": 5_000_000});
    let job = done(port, by('m'), "/v1/jobs", sent.clone()).await;
    let wishes = &job["job"]["wishes"];
    assert_eq!(
        [&wishes["priority"], &wishes["gpu_count"], &wishes["allow"]],
        [&json!(3), &json!(2), &json!(["replay"])]
    );
    assert_eq!(wishes["max_runtime_ms"], 240 * 60_000);
    sent["wishes"] = json!({"max_cost": 5});
    let unknown = refused(port, by('m'), "/v1/jobs", sent).await;
    assert_eq!(unknown, of(400, "INVALID_FIELD"));

    let update = format!("/v1/jobs/{}/update", job["id"].as_str().unwrap());
    let change = json!({"wishes": {"priority": 7, "max_cost_usd_micros": null},
                        "etag": job["job"]["etag"], "request_id": "a".repeat(32)});
    let changed = done(port, by('m'), &update, change.clone()).await;
    let wishes = &changed["job"]["wishes"];
    assert_eq!(
        [
            &wishes["priority"],
            &wishes["max_cost_usd_micros"],
            &wishes["gpu_count"]
        ],
        [&json!(7), &Value::Null, &json!(2)]
    );
    // The same request has the same answer, and another one by what was seen before is refused.
    let again = done(port, by('m'), &update, change.clone()).await;
    assert_eq!(again["job"]["etag"], changed["job"]["etag"]);
    let stale = json!({"wishes": {"priority": 1}, "etag": change["etag"]});
    for (role, sent, status, code) in [
        ('m', stale, 409, "CHANGED"),
        ('m', json!({"wishes": {}}), 400, "INVALID_FIELD"),
        ('m', json!({"wishes": {"priorty": 1}}), 400, "INVALID_FIELD"),
        (
            'm',
            json!({"wishes": {"priority": 1}, "etags": ""}),
            400,
            "INVALID_FIELD",
        ),
        (
            'm',
            json!({"wishes": {"priority": 11}}),
            400,
            "INVALID_FIELD",
        ),
        (
            'm',
            json!({"wishes": {"team": "nowhere"}}),
            404,
            "NO_SUCH_TEAM",
        ),
        ('v', json!({"wishes": {"priority": 1}}), 403, "FORBIDDEN"),
    ] {
        let told = refused(port, by(role), &update, sent.clone()).await;
        assert_eq!(told, of(status, code), "{role} {sent}");
    }
    let elsewhere = Some(&*town.person(2, 'o').ticket);
    let sent = json!({"wishes": {"priority": 1}});
    assert_eq!(
        refused(port, elsewhere, &update, sent.clone()).await,
        of(404, "NO_SUCH_JOB")
    );
    // Who misspells a member is told what there is.
    let wrong = json!({"wishes": {"priorty": 1}});
    let told = post(port, by('m'), &update, wrong).await.1;
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("`priority`"), "{detail}");
    done(
        port,
        by('m'),
        &update.replace("update", "cancel"),
        json!({}),
    )
    .await;
    assert_eq!(
        refused(port, by('m'), &update, sent).await,
        of(409, "NOT_WAITING")
    );
    town.server.stop().await;
}
