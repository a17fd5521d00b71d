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

/// A change of one wish, under this request id.
fn change(
    name: &str,
    etag: &str,
    id: u32,
    path: &str,
    wishes: v1::JobWishes,
) -> v1::UpdateJobRequest {
    v1::UpdateJobRequest {
        name: name.to_owned(),
        wishes: Some(wishes),
        update_mask: Some(FieldMask {
            paths: vec![path.to_owned()],
        }),
        etag: etag.to_owned(),
        request_id: format!("{id:032x}"),
    }
}

fn priority(priority: i32) -> v1::JobWishes {
    v1::JobWishes {
        priority,
        ..v1::JobWishes::default()
    }
}

fn max_cost(micros: u64) -> v1::JobWishes {
    v1::JobWishes {
        max_cost_usd_micros: Some(micros),
        ..v1::JobWishes::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_changes_at_once_neither_undoes_the_other() {
    let server = raised().await;
    let job = server.jobs().submit_job(submission('1')).await.unwrap();
    let mut job = job.into_inner().job.unwrap();
    for round in 1..=30 {
        let (id, name, etag) = (2 * round, job.name.as_str(), job.etag.as_str());
        let (one, two) = (
            i32::try_from(round % 10).unwrap(),
            u64::from(round) * 1_000_000,
        );
        let update = async |request| server.jobs().update_job(request).await;
        // Both go by the same job: one of them is told that it is another one by now.
        let was = job.wishes.clone().unwrap();
        let (first, second) = tokio::join!(
            update(change(name, etag, id, "priority", priority(one))),
            update(change(
                name,
                etag,
                id + 1,
                "max_cost_usd_micros",
                max_cost(two)
            )),
        );
        let (taken, refused) = match (first, second) {
            (Ok(taken), Err(refused)) | (Err(refused), Ok(taken)) => (taken, refused),
            other => panic!("one of both: {other:?}"),
        };
        assert_eq!(reason(&refused), "CHANGED");
        let is = taken.into_inner().job.unwrap().wishes.unwrap();
        assert!(
            (is.priority, is.max_cost_usd_micros) == (one, was.max_cost_usd_micros)
                || (is.priority, is.max_cost_usd_micros) == (was.priority, Some(two)),
            "{is:?}"
        );
        // Neither says what it has seen: both are done.
        let id = 1_000 + id;
        let (first, second) = tokio::join!(
            update(change(name, "", id, "priority", priority(-one))),
            update(change(
                name,
                "",
                id + 1,
                "max_cost_usd_micros",
                max_cost(two + 1)
            )),
        );
        for both in [first, second] {
            both.unwrap();
        }
        let request = v1::GetJobRequest {
            name: name.to_owned(),
            ..v1::GetJobRequest::default()
        };
        let is = server.jobs().get_job(request).await.unwrap();
        job = is.into_inner().job.unwrap();
        let is = job.wishes.as_ref().unwrap();
        assert_eq!((is.priority, is.max_cost_usd_micros), (-one, Some(two + 1)));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_comes_again_is_answered_and_changes_nothing() {
    let server = raised().await;
    let job = server.jobs().submit_job(submission('1')).await.unwrap();
    let job = job.into_inner().job.unwrap();
    let (name, etag) = (job.name.as_str(), job.etag.as_str());
    let update = async |request| {
        let answer = server.jobs().update_job(request).await?;
        let wishes = answer.into_inner().job.unwrap().wishes.unwrap();
        Ok::<_, tonic::Status>((wishes.priority, wishes.max_cost_usd_micros))
    };
    let mut first = change(name, etag, 1, "priority", priority(5));
    let labels = ["zone", "room", "rack", "row"].map(|key| (key.to_owned(), "x".to_owned()));
    first.wishes.as_mut().unwrap().labels = labels.clone().into();
    assert_eq!(update(first.clone()).await.unwrap(), (5, None));
    let cost = change(name, "", 2, "max_cost_usd_micros", max_cost(9_000_000));
    assert_eq!(update(cost).await.unwrap(), (5, Some(9_000_000)));
    let other = change(name, "", 3, "priority", priority(7));
    assert_eq!(update(other).await.unwrap(), (7, Some(9_000_000)));
    // The answer was lost and the caller asks again, with what it saw then; a map is sent in any order.
    first.wishes.as_mut().unwrap().labels = labels.into_iter().rev().collect();
    assert_eq!(update(first.clone()).await.unwrap(), (7, Some(9_000_000)));
    let reused = change(name, "", 1, "priority", priority(6));
    assert_eq!(
        reason(&update(reused).await.unwrap_err()),
        "REQUEST_ID_REUSED"
    );
    // Also when the job does not wait any more, when nothing else can be changed.
    let cancel = v1::CancelJobRequest {
        name: name.to_owned(),
        request_id: String::new(),
    };
    server.jobs().cancel_job(cancel).await.unwrap();
    assert_eq!(update(first).await.unwrap(), (7, Some(9_000_000)));
    let late = change(name, "", 4, "priority", priority(1));
    assert_eq!(reason(&update(late).await.unwrap_err()), "NOT_WAITING");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_known_of_a_change_is_said_with_it() {
    let server = raised().await;
    let asked = v1::SubmitJobRequest {
        wishes: Some(v1::JobWishes {
            allow: vec!["h100".to_owned()],
            ..v1::JobWishes::default()
        }),
        ..submission('1')
    };
    let job = server.jobs().submit_job(asked).await.unwrap().into_inner();
    let change = async |path: &str, seconds| {
        let limit = prost_types::Duration { seconds, nanos: 0 };
        let request = v1::UpdateJobRequest {
            name: job.job.clone().unwrap().name,
            wishes: Some(v1::JobWishes {
                max_runtime: Some(limit),
                allow: vec!["a100".to_owned()],
                ..v1::JobWishes::default()
            }),
            update_mask: Some(FieldMask {
                paths: vec![path.to_owned()],
            }),
            ..v1::UpdateJobRequest::default()
        };
        let answer = server.jobs().update_job(request).await.unwrap();
        let notes = answer.into_inner().notes.into_iter();
        notes.map(|note| note.code).collect::<Vec<_>>()
    };
    // A limit that ends it before it is done.
    assert_eq!(change("max_runtime", 1).await, ["MAX_RUNTIME_TOO_SHORT"]);
    assert_eq!(change("max_runtime", 864_000).await, [""; 0]);
    // Which of several boards is meant.
    assert_eq!(change("allow", 864_000).await, ["HARDWARE_READ_AS"]);
}
