//! What a change of a waiting job is refused for, and what is said to start one.

use std::sync::Arc;
use std::time::Duration;

use prost_types::FieldMask;
use stepcast_proto::v1;

use crate::scheduling::{raised, raised_by};
use crate::support::{CONFIG, Later, Server, files, reason, submission};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_submission_could_not_be_done_by_a_change_cannot_either() {
    let clock = Later::new();
    let server = raised_by(Arc::clone(&clock)).await;
    let minutes = |count: u64| {
        let ms = server.handle.now_ms() + count * 60_000;
        Some(prost_types::Timestamp {
            seconds: i64::try_from(ms / 1_000).unwrap(),
            nanos: 0,
        })
    };
    let wishes = |allow: &[&str], finish_by_time| v1::JobWishes {
        allow: allow.iter().map(|gpu| (*gpu).to_owned()).collect(),
        finish_by_time,
        ..v1::JobWishes::default()
    };
    let asked = |id, wishes| v1::SubmitJobRequest {
        wishes: Some(wishes),
        ..submission(id)
    };
    let both = &["h100", "rtx3090"];
    let job = asked('1', wishes(both, minutes(30)));
    let job = server.jobs().submit_job(job).await.unwrap().into_inner();
    let name = job.job.unwrap().name;
    let mask = |path: &str| {
        Some(FieldMask {
            paths: vec![path.to_owned()],
        })
    };
    let suppose = async |path: &str, wishes: &v1::JobWishes| {
        let request = v1::WhatIfRequest {
            wishes: vec![v1::SupposedWishes {
                job: name.clone(),
                wishes: Some(wishes.clone()),
                update_mask: mask(path),
            }],
            ..v1::WhatIfRequest::default()
        };
        server.jobs().what_if(request).await
    };
    let change = async |path: &str, wishes: &v1::JobWishes| {
        let request = v1::UpdateJobRequest {
            name: name.clone(),
            wishes: Some(wishes.clone()),
            update_mask: mask(path),
            ..v1::UpdateJobRequest::default()
        };
        server.jobs().update_job(request).await
    };
    let by_then = job_time(&server, &name).await;
    for (path, wishes) in [
        ("finish_by_time", wishes(both, minutes(1))),
        ("allow", wishes(&["rtx3090"], by_then)),
    ] {
        let refused = change(path, &wishes).await.unwrap_err();
        let supposed = suppose(path, &wishes).await.unwrap_err();
        let new = server.jobs().submit_job(asked('2', wishes)).await;
        let new = new.unwrap_err();
        assert_eq!(reason(&new), "TOO_LATE");
        assert_eq!(
            (refused.code(), reason(&refused), refused.message()),
            (new.code(), reason(&new), new.message()),
            "{path}"
        );
        assert_eq!(
            (supposed.code(), supposed.message()),
            (new.code(), new.message()),
            "{path}"
        );
    }
    // What is late by now runs nevertheless, and changes what does not ask for a time.
    clock.pass(Duration::from_secs(1_800));
    let slower = v1::JobWishes {
        priority: 7,
        ..wishes(&["rtx3090"], by_then)
    };
    for path in ["priority", "allow"] {
        change(path, &slower).await.unwrap();
    }
    let later = wishes(both, minutes(1));
    let refused = change("finish_by_time", &later).await.unwrap_err();
    assert_eq!(reason(&refused), "TOO_LATE");
    let enough = wishes(both, minutes(24 * 60));
    suppose("finish_by_time", &enough).await.unwrap();
    change("finish_by_time", &enough).await.unwrap();
    server.stop().await;
}

async fn job_time(server: &Server, name: &str) -> Option<prost_types::Timestamp> {
    let request = v1::GetJobRequest {
        name: name.to_owned(),
        ..v1::GetJobRequest::default()
    };
    let job = server.jobs().get_job(request).await.unwrap().into_inner();
    job.job.unwrap().wishes.unwrap().finish_by_time
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_would_be_refused_is_not_said_to_start_a_job() {
    let server = raised().await;
    let mut worker = server.worker("h", &["h100"; 2]).await;
    let one = v1::SubmitJobRequest {
        wishes: Some(v1::JobWishes::default()),
        ..submission('1')
    };
    server.jobs().submit_job(one).await.unwrap();
    worker.assigned().await;
    let sooner = async |id, config: &str| {
        let asked = v1::SubmitJobRequest {
            files: files(config),
            wishes: Some(v1::JobWishes {
                gpu_count: 2,
                ..v1::JobWishes::default()
            }),
            ..submission(id)
        };
        let job = server.jobs().submit_job(asked).await.unwrap().into_inner();
        let name = job.job.unwrap().name;
        let why = v1::ExplainJobRequest { name: name.clone() };
        let why = server.jobs().explain_job(why).await.unwrap().into_inner();
        let cancel = v1::CancelJobRequest {
            name,
            request_id: String::new(),
        };
        server.jobs().cancel_job(cancel).await.unwrap();
        why.sooner.into_iter().map(|sooner| sooner.text)
    };
    assert_eq!(
        sooner('2', CONFIG).await.collect::<Vec<_>>(),
        ["ask for 1 GPU"]
    );
    // Two GPUs share each sample, so that one alone is none.
    let shared = CONFIG.replacen('{', r#"{ "context_parallel_size": 2,"#, 1);
    assert_eq!(sooner('3', &shared).await.count(), 0);
    server.stop().await;
}
