//! Callers that may not, and messages that are too much: a clear refusal each, and the server goes on.

use stepcast_api::{AccessToken, ApiConfig};
use stepcast_proto::v1;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::support::{Agent, CONFIG, Server, files, reason, submission};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_need_the_access_token_and_workers_their_own() {
    let access_token = Some(AccessToken::new("0123456789abcdef").unwrap());
    let server = Server::with(ApiConfig {
        access_token,
        ..ApiConfig::default()
    })
    .await;
    let mut request = Request::new(v1::ListJobsRequest::default());
    let without = server
        .jobs()
        .list_jobs(v1::ListJobsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (without.code(), reason(&without).as_str()),
        (Code::Unauthenticated, "ACCESS_TOKEN_REQUIRED")
    );
    request
        .metadata_mut()
        .insert("authorization", "Bearer 0123456789abcdef".parse().unwrap());
    server.jobs().list_jobs(request).await.unwrap();
    // The access token is no worker's.
    let worker = Agent::new(&server, "0123456789abcdef".to_owned())
        .register('a', &["h100"])
        .await
        .unwrap_err();
    assert_eq!(
        (worker.code(), reason(&worker).as_str()),
        (Code::Unauthenticated, "INVALID_TOKEN")
    );
    assert!(
        worker.get_details_error_info().unwrap().metadata["hint"].contains("--join-token-file")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_lets_one_worker_in() {
    let server = Server::start().await;
    let token = server.token("h100-a1").await;
    let agent = Agent::new(&server, token.secret);
    let worker = agent.register('a', &["h100"]).await.unwrap();
    assert_eq!(worker.display_name, "h100-a1");
    let second = agent.register('b', &["h100"]).await.unwrap_err();
    assert_eq!(
        (second.code(), reason(&second).as_str()),
        (Code::FailedPrecondition, "TOKEN_IN_USE")
    );
    let mut session = agent.attach(worker.worker.clone(), 'a').await.unwrap();
    let stale = agent
        .attach(worker.worker.clone(), 'b')
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&stale), "STALE_INSTANCE");
    let _newer = agent.attach(worker.worker, 'a').await.unwrap();
    assert_eq!(session.parted().await.unwrap(), v1::Parting::Replaced);
    let twice = v1::CreateWorkerTokenRequest {
        display_name: "h100-a1".to_owned(),
    };
    assert_eq!(
        reason(
            &server
                .workers()
                .create_worker_token(twice)
                .await
                .unwrap_err()
        ),
        "NAME_TAKEN"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_worker_is_sent_away() {
    let server = Server::start().await;
    let token = server.token("h100-a1").await;
    let agent = Agent::new(&server, token.secret);
    let worker = agent.register('a', &["h100"]).await.unwrap();
    let mut session = agent.attach(worker.worker, 'a').await.unwrap();
    let revoke = v1::RevokeWorkerTokenRequest {
        name: token.token.unwrap().name,
    };
    server.workers().revoke_worker_token(revoke).await.unwrap();
    assert_eq!(session.parted().await.unwrap(), v1::Parting::Revoked);
    assert_eq!(
        reason(&agent.register('a', &["h100"]).await.unwrap_err()),
        "INVALID_TOKEN"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_for_the_worker_that_holds_the_lease() {
    let server = Server::start().await;
    let mut mine = server.worker("replay-1", &["replay"]).await;
    let job = server
        .jobs()
        .submit_job(submission('1'))
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    let assignment = mine.assigned().await;
    let other = server.worker("replay-2", &["replay"]).await;
    let refused = other
        .agent
        .files(&job.name, assignment.epoch)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "STALE_EPOCH")
    );
    let older = mine
        .agent
        .files(&job.name, assignment.epoch - 1)
        .await
        .unwrap_err();
    assert_eq!(reason(&older), "STALE_EPOCH");
    server.stop().await;
}

/// No second look makes them whole, and the GPUs wait while they are looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_as_good_as_gone() {
    let server = Server::start().await;
    let job = server.jobs().submit_job(submission('1')).await.unwrap();
    let job = job.into_inner().job.unwrap();
    for file in std::fs::read_dir(server.dir.path().join("staging/segments")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(4).position(|four| four == b"flux") {
            bytes[at] = b'F';
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let mut worker = server.worker("replay-1", &["replay"]).await;
    let assignment = worker.assigned().await;
    let files = worker.agent.files(&job.name, assignment.epoch).await;
    let refused = files.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::NotFound, "STAGING_MISSING")
    );
    assert!(refused.message().contains("damaged"), "{refused:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_and_what_is_too_large_is_said_and_the_server_goes_on() {
    let server = Server::start().await;
    let unknown = server
        .jobs()
        .get_job(v1::GetJobRequest {
            name: "jobs/jzzzz".into(),
            ..v1::GetJobRequest::default()
        })
        .await
        .unwrap_err();
    assert_eq!(
        (unknown.code(), reason(&unknown).as_str()),
        (Code::NotFound, "NO_SUCH_JOB")
    );
    assert_eq!(
        unknown.get_details_resource_info().unwrap().resource_name,
        "jobs/jzzzz"
    );
    let watched = v1::WatchJobRequest {
        name: "jobs/jzzzz".into(),
        ..v1::WatchJobRequest::default()
    };
    assert_eq!(
        reason(&server.jobs().watch_job(watched).await.unwrap_err()),
        "NO_SUCH_JOB"
    );

    let cancel = v1::CancelJobRequest {
        name: "jobs/jzzzz".into(),
        request_id: String::new(),
    };
    let cancelled = server.jobs().cancel_job(cancel).await.unwrap_err();
    assert_eq!(cancelled.message(), "there is no such job: jobs/jzzzz");

    let mut large = submission('1');
    large.files[0].content = vec![b' '; 2 << 20];
    assert_eq!(
        reason(&server.jobs().submit_job(large.clone()).await.unwrap_err()),
        "FILES_TOO_LARGE"
    );
    large.files[0].content = vec![b' '; 100 << 20];
    let refused = server.jobs().submit_job(large).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
    );
    assert!(server.staged().is_empty());
    server.jobs().submit_job(submission('1')).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_told_by_service_and_streams_end_with_the_server() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel.clone());
    for service in ["", "stepcast.v1.JobsService", "stepcast.v1.AgentService"] {
        let mut told = health
            .watch(HealthCheckRequest {
                service: service.to_owned(),
            })
            .await
            .unwrap()
            .into_inner();
        while told.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    }
    let mut worker = server.worker("replay-1", &["replay"]).await;
    let (_, ended) = tokio::join!(server.stop(), worker.parted());
    assert_eq!(reason(&ended.unwrap_err()), "STOPPED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_of_gpus_is_suggested_that_the_run_cannot_have() {
    let server = Server::start().await;
    let _worker = server.worker("replay-1", &["replay"]).await;
    let shared = CONFIG.replacen('{', "{\"context_parallel_size\": 2,", 1);
    let mut asked = submission('1');
    asked.files = files(&shared);
    asked.wishes.as_mut().unwrap().gpu_count = 2;
    let refused = server.jobs().submit_job(asked).await.unwrap_err();
    assert_eq!(reason(&refused), "NO_WORKER_FITS");
    let hint = &refused.get_details_error_info().unwrap().metadata["hint"];
    assert!(hint.contains("no single change"), "{hint}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hardware_that_cannot_be_divided_is_left_out_by_name() {
    let server = Server::start().await;
    let few = v1::EstimateJobRequest {
        files: files(CONFIG),
        sample_counts: vec![v1::SampleCount {
            dataset: "cats".to_owned(),
            samples: 10,
        }],
        hardware: ["h100x4", "h100x2", "H100", "h100x8", "a100"]
            .map(str::to_owned)
            .into(),
    };
    let mut estimates = server.estimates();
    let estimated = estimates
        .estimate_job(few.clone())
        .await
        .unwrap()
        .into_inner();
    let mut hardware: Vec<_> = estimated
        .estimates
        .iter()
        .map(|one| &*one.hardware)
        .collect();
    hardware.sort_unstable();
    assert_eq!(hardware, ["a100-80x1", "h100x1", "h100x2"]);
    // Of two boards of one name it is said which was meant.
    let mut notes = estimated.notes.iter();
    let read_as = notes.find(|note| note.code == "HARDWARE_READ_AS");
    let text = &read_as.expect("a note").text;
    assert!(text.starts_with("a100 is read as a100-80, "), "{text}");
    let left_out = estimated
        .notes
        .iter()
        .find(|note| note.code == "HARDWARE_LEFT_OUT");
    let text = &left_out.expect("a note").text;
    assert!(
        text.starts_with("H100 x4, H100 x8 left out: data set 1 "),
        "{text}"
    );
    assert!(text.contains("one step on 4 GPUs takes 16"), "{text}");
    let none = v1::EstimateJobRequest {
        hardware: vec!["h100x8".to_owned()],
        ..few
    };
    let refused = estimates.estimate_job(none).await.unwrap_err();
    assert_eq!(reason(&refused), "TOO_FEW_SAMPLES");
    server.stop().await;
}

/// The prompts of a library are dealt out to the GPUs, and eight of them make as many images as one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validation_on_several_gpus_is_told_as_long_as_the_busiest_takes() {
    let server = Server::start().await;
    let told = async |more: &str| {
        let config = CONFIG.replacen('{', &format!("{{{more}"), 1);
        let request = v1::EstimateJobRequest {
            files: files(&config),
            sample_counts: Vec::new(),
            hardware: vec!["h100x8".to_owned()],
        };
        let answer = server.estimates().estimate_job(request).await.unwrap();
        answer.into_inner()
    };
    let dealt_out = told(r#""validation_prompt_library": true, "#).await;
    let by_one =
        told(r#""validation_prompt_library": true, "validation_multigpu": "single-gpu", "#).await;
    assert_eq!(dealt_out.validation_prompts, 3 * 54 * 3);
    assert_eq!(dealt_out.validation_prompts, by_one.validation_prompts);
    let passes = |answer: &v1::EstimateJobResponse| {
        let workload = answer.workload.clone().unwrap();
        workload.validation.unwrap().prompts_dealt_out
    };
    assert_eq!((passes(&dealt_out), passes(&by_one)), (54, 0));
    let time = |answer: &v1::EstimateJobResponse| {
        let time = answer.estimates[0].validation_time.unwrap();
        time.p50.unwrap().seconds as f64
    };
    // Seven prompts of 54 on the busiest of eight.
    let share = time(&dealt_out) / time(&by_one);
    assert!((share * 54.0 / 7.0 - 1.0).abs() < 0.1, "{share}");
    server.stop().await;
}

#[tokio::test]
async fn a_checkpoint_that_no_worker_has_is_refused_for_simpletuner_alone() {
    let server = Server::start().await;
    let from = |checkpoint: &str, trainer: v1::Trainer| {
        let mut asked = submission('e');
        let config = v1::FileRole::Config;
        for file in asked.files.iter_mut().filter(|file| file.role() == config) {
            let mut settings: serde_json::Value = serde_json::from_slice(&file.content).unwrap();
            settings["resume_from_checkpoint"] = checkpoint.into();
            file.content = settings.to_string().into_bytes();
        }
        asked.validate_only = true;
        asked.wishes.get_or_insert_default().trainer = trainer.into();
        asked
    };
    let (real, played) = (v1::Trainer::Simpletuner, v1::Trainer::Replay);
    let missing = "/results/checkpoint-500";
    for (checkpoint, trainer) in [
        (missing, played),
        ("latest", real),
        ("s3://b/checkpoint-5", real),
    ] {
        let asked = from(checkpoint, trainer);
        server.jobs().submit_job(asked).await.unwrap();
    }
    let asked = from(missing, real);
    let sweep = v1::SubmitArrayRequest {
        files: asked.files.clone(),
        tasks: vec![v1::ArrayTaskFiles::default()],
        wishes: asked.wishes.clone(),
        validate_only: true,
        ..v1::SubmitArrayRequest::default()
    };
    for refused in [
        server.jobs().submit_job(asked).await.map(|_| ()),
        server.jobs().submit_array(sweep).await.map(|_| ()),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().contains("resume_from_checkpoint"),
            "{refused:?}"
        );
    }
    server.stop().await;
}
