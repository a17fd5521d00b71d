//! What one person may have of what is there for all: room for files, and entries of the audit log.

use serde_json::json;
use stepcast_proto::v1;
use tonic::{Code, Status};

use crate::access;
use crate::http::ask;
use crate::limits::{OWN, Town};
use crate::support::{CONFIG, Server, files, reason, submission};

/// Bytes of files of one person's jobs.
const SHARE: usize = 64 << 10;

/// A submission that takes more than a third of it.
fn large(id: char) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        files: files(&padded(0)),
        ..submission(id)
    }
}

/// A configuration with spaces behind it, which say nothing.
fn padded(more: usize) -> String {
    format!("{CONFIG}{}", " ".repeat(SHARE * 3 / 8 + more))
}

/// Refused with what to do, and for no time that a program would wait for.
fn assert_is_full(refused: &Status) {
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(reason(refused), "YOURS_FULL");
    let told = format!("{refused:?}");
    assert!(told.contains("cancel"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_the_staging_area_of_all() {
    let town = Town::on(Server::sharing(Town::api(), SHARE).await).await;
    let mut jobs = town.jobs(&town.token);
    let first = jobs.submit_job(large('2')).await.unwrap();
    let first = first.into_inner().job.unwrap().name;
    jobs.submit_job(large('3')).await.unwrap();
    let staged = town.server.staged().len();
    assert_is_full(&jobs.submit_job(large('4')).await.unwrap_err());
    // A sweep too; the same request again takes nothing more.
    let task = |more| v1::ArrayTaskFiles {
        files: files(&padded(more)),
    };
    let sweep = v1::SubmitArrayRequest {
        request_id: "5".repeat(32),
        wishes: submission('5').wishes,
        tasks: vec![task(1), task(2)],
        ..v1::SubmitArrayRequest::default()
    };
    assert_is_full(&jobs.submit_array(sweep.clone()).await.unwrap_err());
    jobs.submit_job(large('3')).await.unwrap();
    assert_eq!(town.server.staged().len(), staged);
    // Others are not held up.
    let mut own = town.jobs(OWN);
    own.submit_array(sweep).await.unwrap();
    own.submit_job(large('6')).await.unwrap();
    // What is over makes room, once its files are deleted.
    let cancel = v1::CancelJobRequest {
        name: first.clone(),
        ..v1::CancelJobRequest::default()
    };
    jobs.cancel_job(cancel).await.unwrap();
    let taken = async {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(50));
        while let Err(refused) = jobs.submit_job(large('4')).await {
            assert_is_full(&refused);
            looks.tick().await;
        }
    };
    let taken = tokio::time::timeout(std::time::Duration::from_secs(60), taken).await;
    taken.expect("its files are deleted");
    // A request of before is answered as it was, whatever room there is.
    let again = jobs.submit_job(large('2')).await.unwrap().into_inner();
    assert_eq!(again.job.unwrap().name, first);
    town.server.stop().await;
}

#[tokio::test]
async fn nobody_washes_the_audit_log_by_making_tokens() {
    let town = access::Town::build().await;
    let port = town.server.port;
    let viewer = &town.person(1, 'v').refresh;
    let make = async |by: &str| {
        let answer = ask(port, "POST", "/v1/tokens", Some(by), Some(&json!({}))).await;
        (answer.status, answer.head.to_lowercase(), answer.json())
    };
    let mut made = Vec::new();
    let refused = loop {
        let (status, head, answer) = make(viewer).await;
        match status {
            201 => made.push(answer["token"]["id"].as_str().unwrap().to_owned()),
            _ => break (status, head, answer),
        }
        assert!(made.len() < 20, "nobody has said no");
    };
    let (status, head, answer) = refused;
    assert_eq!((status, &answer["code"]), (429, &json!("BUSY")), "{answer}");
    assert!(head.contains("retry-after"), "{head}");
    let told = answer["detail"].as_str().unwrap();
    assert!(told.contains("use one that you have"), "{told}");
    assert!(made.len() >= 10, "{made:?}");
    // It is said to this person alone, and what was made can be taken back all the same.
    assert_eq!(make(&town.person(1, 'm').refresh).await.0, 201);
    let other = json!({"user_id": town.person(1, 'v').user});
    let by_admin = &town.person(1, 'a').refresh;
    let by_admin = ask(port, "POST", "/v1/tokens", Some(by_admin), Some(&other)).await;
    assert_eq!(by_admin.status, 201, "{}", by_admin.body);
    for id in made {
        let revoke = format!("/v1/tokens/{id}/revoke");
        let revoked = ask(port, "POST", &revoke, Some(viewer), None).await;
        assert_eq!(revoked.status, 200, "{}", revoked.body);
    }
    town.server.stop().await;
}
