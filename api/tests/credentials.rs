//! Credentials in configurations: taken out before anything is kept, handed to the worker with the lease, gone when its
//! trainer runs, and missed rather than done without.

use std::path::Path;

use serde_json::json;
use stepcast_proto::v1;
use stepcast_scheduler::Command;
use stepcast_scheduler::ids::JobId;
use tonic::{Code, Status};

use crate::http::ask;
use crate::support::{CONFIG, LOADER, Server, Worker, files, reason, submission, until};

/// What no file may hold.
const CANARY: &str = "canary-5be1c3d7";

fn with_secret(id: char) -> v1::SubmitJobRequest {
    let mut request = submission(id);
    let config = CONFIG.replacen('{', &format!("{{\"--hub_token\": \"{CANARY}\","), 1);
    request.files = files(&config);
    request
}

/// Every file below a folder that holds a text.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
            {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

async fn handed(
    worker: &Worker,
    assignment: &v1::Assignment,
) -> Result<v1::GetAssignmentFilesResponse, Status> {
    worker.agent.handed(&assignment.job, assignment.epoch).await
}

async fn job(server: &Server, name: &str) -> v1::Job {
    let request = v1::GetJobRequest {
        name: name.to_owned(),
        ..v1::GetJobRequest::default()
    };
    let answer = server.jobs().get_job(request).await.unwrap();
    answer.into_inner().job.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_handed_what_no_file_holds_until_its_trainer_runs() {
    let server = Server::start().await;
    until("the log's format", || {
        server.handle.status().log_format >= 3
    })
    .await;
    let submitted = server.jobs().submit_job(with_secret('1')).await.unwrap();
    let name = submitted.into_inner().job.unwrap().name;
    let shown = job(&server, &name).await;
    assert_eq!(
        (shown.credentials.as_slice(), shown.awaits_credentials),
        (["hub_token".to_owned()].as_slice(), false)
    );
    let mut worker = server.worker("replay-1", &["replay"]).await;
    let assignment = worker.assigned().await;
    let given = handed(&worker, &assignment).await.unwrap();
    let config = String::from_utf8(given.files[0].content.clone()).unwrap();
    assert!(!config.contains("hub_token") && config.contains("model_family"));
    assert_eq!(
        (
            given.credentials[0].name.as_str(),
            given.credentials[0].value.as_str()
        ),
        ("hub_token", CANARY)
    );
    // An answer that was lost on its way is asked for again.
    assert!(handed(&worker, &assignment).await.is_ok());
    // Nobody but the worker with the lease.
    let other = server.worker_on("replay-2", 'b', &["replay"]).await;
    let refused = handed(&other, &assignment).await.unwrap_err();
    assert_eq!(reason(&refused), "STALE_EPOCH");

    worker
        .say(v1::attach_request::Report::Started(v1::AttemptStarted {
            job: assignment.job.clone(),
            epoch: assignment.epoch,
            begun_step: None,
        }))
        .await;
    let id: JobId = name.trim_start_matches("jobs/").parse().unwrap();
    let staging = server
        .handle
        .read_stale(|state| state.job(id).unwrap().spec.staging);
    until("they are gone once the trainer runs", || {
        server.handle.credentials().held(&staging).is_none()
    })
    .await;
    let refused = handed(&worker, &assignment).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "CREDENTIALS_GONE")
    );
    worker.succeed(&assignment).await;
    assert_eq!(holding(server.dir.path(), CANARY), [""; 0]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_for_its_credentials_rather_than_run_without() {
    let server = Server::start().await;
    let port = server.port;
    until("the log's format", || {
        server.handle.status().log_format >= 3
    })
    .await;
    let submitted = server.jobs().submit_job(with_secret('1')).await.unwrap();
    let name = submitted.into_inner().job.unwrap().name;
    let id: JobId = name.trim_start_matches("jobs/").parse().unwrap();
    // What the next leader finds, and does.
    server.handle.credentials().forget_all();
    let missing = Command::MissCredentials { jobs: vec![id] };
    server.handle.propose(missing, None).await.unwrap();
    let mut worker = server.worker("replay-1", &["replay"]).await;
    let path = format!("/v1/{name}");
    let why = ask(port, "GET", &format!("{path}/why"), None, None)
        .await
        .json();
    assert_eq!(why["tier"], "HELD");
    assert!(
        why["headline"].as_str().unwrap().contains("credentials"),
        "{why}"
    );
    let shown = ask(port, "GET", &path, None, None).await.json();
    assert_eq!(
        (
            &shown["job"]["awaits_credentials"],
            &shown["job"]["credentials"]
        ),
        (&json!(true), &json!(["hub_token"]))
    );
    // Another job passes it, and is not hindered by it.
    server.jobs().submit_job(submission('2')).await.unwrap();
    let other = worker.assigned().await;
    assert_ne!(other.job, name);
    worker.succeed(&other).await;

    let give = async |body: serde_json::Value| {
        let answer = ask(
            port,
            "POST",
            &format!("{path}/credentials"),
            None,
            Some(&body),
        )
        .await;
        (answer.status, answer.json())
    };
    for (body, word) in [
        (json!({}), "hub_token is missing"),
        (
            json!({"config": {"model_family": "flux"}}),
            "hub_token is missing",
        ),
        (json!({"credentials": {"hub_token": ""}}), "not empty"),
        (
            json!({"config": {"hub_token": CANARY, "wandb_api_key": CANARY}}),
            "submit the job anew",
        ),
        (
            json!({"credentials": {"hub_token": CANARY, "other": CANARY}}),
            "nothing else",
        ),
    ] {
        let (status, refused) = give(body).await;
        assert_eq!(status, 400, "{refused}");
        let told = refused.to_string();
        assert!(told.contains(word) && !told.contains(CANARY), "{told}");
    }
    let (status, given) =
        give(json!({"config": {"hub_token": CANARY}, "dataloader_config": []})).await;
    assert_eq!(
        (status, &given["job"]["awaits_credentials"]),
        (200, &json!(false)),
        "{given}"
    );
    let assignment = worker.assigned().await;
    assert_eq!(assignment.job, name);
    let given = handed(&worker, &assignment).await.unwrap();
    assert_eq!(given.credentials[0].value, CANARY);

    // An attempt that is over has taken them with it; the same submission once more gives them again.
    let outcome = v1::Outcome::TrainerError.into();
    worker
        .say(v1::attach_request::Report::Ended(v1::AttemptEnded {
            job: assignment.job.clone(),
            epoch: assignment.epoch,
            outcome,
            step: 0,
            detail: String::new(),
            lease_lost: false,
            credentials_gone: false,
        }))
        .await;
    until("it waits for them again", || {
        let job = server
            .handle
            .read_stale(|state| state.open_job(id).cloned());
        job.is_some_and(|job| job.standing.awaits_credentials)
    })
    .await;
    let again = server.jobs().submit_job(with_secret('1')).await.unwrap();
    assert_eq!(again.into_inner().job.unwrap().name, name);
    assert!(!job(&server, &name).await.awaits_credentials);

    let cancel = v1::CancelJobRequest {
        name: name.clone(),
        request_id: String::new(),
    };
    server.jobs().cancel_job(cancel).await.unwrap();
    let (status, over) = give(json!({"credentials": {"hub_token": CANARY}})).await;
    assert_eq!((status, &over["code"]), (409, &json!("JOB_OVER")));
    let (status, none) = ask_give(port, &other.job).await;
    assert_eq!((status, none), (409, "NEEDS_NO_CREDENTIALS".to_owned()));
    assert_eq!(holding(server.dir.path(), CANARY), [""; 0]);
    server.stop().await;
}

async fn ask_give(port: u16, job: &str) -> (u16, String) {
    let body = json!({"credentials": {"hub_token": CANARY}});
    let path = format!("/v1/{job}/credentials");
    let answer = ask(port, "POST", &path, None, Some(&body)).await;
    let code = answer.json()["code"].as_str().unwrap().to_owned();
    (answer.status, code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_taken_leaves_no_credentials_and_a_sweep_has_them_for_each_task() {
    let server = Server::start().await;
    until("the log's format", || {
        server.handle.status().log_format >= 3
    })
    .await;
    let _worker = server.worker("replay-1", &["replay"]).await;
    let mut large = with_secret('1');
    large.wishes.as_mut().unwrap().gpu_count = 8;
    let refused = server.jobs().submit_job(large).await.unwrap_err();
    assert_eq!(reason(&refused), "NO_WORKER_FITS");
    let mut checked = with_secret('2');
    checked.validate_only = true;
    server.jobs().submit_job(checked).await.unwrap();

    let task = |rate: &str, more: &str| {
        let config = format!("{{\"learning_rate\": {rate}, {more}");
        let task = files(&CONFIG.replacen('{', &config, 1)).remove(0);
        v1::ArrayTaskFiles { files: vec![task] }
    };
    let secret = |number: u8| format!("\"hub_token\": \"{CANARY}-{number}\",");
    let mut request = v1::SubmitArrayRequest {
        request_id: "3".repeat(32),
        files: files(CONFIG),
        tasks: vec![task("1e-4", &secret(1)), task("2e-4", "")],
        wishes: submission('3').wishes,
        ..v1::SubmitArrayRequest::default()
    };
    let refused = server
        .jobs()
        .submit_array(request.clone())
        .await
        .unwrap_err();
    assert!(refused.message().starts_with("tasks[1]"), "{refused}");
    request.tasks[1] = task("2e-4", &secret(2));
    let array = server
        .jobs()
        .submit_array(request)
        .await
        .unwrap()
        .into_inner();
    let held: Vec<String> = array
        .jobs
        .iter()
        .filter_map(|name| {
            let id: JobId = name.trim_start_matches("jobs/").parse().unwrap();
            let staging = server
                .handle
                .read_stale(|state| state.job(id).unwrap().spec.staging);
            let held = server.handle.credentials().held(&staging)?;
            held.iter().next().map(|one| one.value.to_string())
        })
        .collect();
    assert_eq!(held, [format!("{CANARY}-1"), format!("{CANARY}-2")]);
    let cancel = v1::CancelArrayRequest {
        name: array.array,
        request_id: String::new(),
    };
    server.jobs().cancel_array(cancel).await.unwrap();
    assert!(!LOADER.contains(CANARY));
    assert_eq!(holding(server.dir.path(), CANARY), [""; 0]);
    server.stop().await;
}
