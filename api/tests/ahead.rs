//! What is to come, as callers see it: when a job starts, and what would be if something were different.

use std::collections::BTreeSet;

use serde_json::json;
use stepcast_proto::v1;
use stepcast_records::units::display_duration;
use tonic::Code;

use crate::http::ask;
use crate::support::{Server, reason, submission};

/// A server whose log has reached the newest format.
async fn raised() -> Server {
    let server = Server::start().await;
    while server.handle.status().log_format < stepcast_cluster::LOG_FORMAT as u16 {
        tokio::task::yield_now().await;
    }
    server
}

async fn submitted(server: &Server, id: char) -> v1::Job {
    let answer = server.jobs().submit_job(submission(id)).await.unwrap();
    answer.into_inner().job.unwrap()
}

fn more(gpu: &str, count: u32) -> v1::SupposedWorkers {
    v1::SupposedWorkers {
        count,
        gpu: gpu.to_owned(),
        gpus: 1,
        ..v1::SupposedWorkers::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_would_join_start_what_waits_and_nothing_changes() {
    let server = raised().await;
    let job = submitted(&server, '1').await;
    let suppose = |add_workers| v1::WhatIfRequest {
        add_workers,
        ..v1::WhatIfRequest::default()
    };
    let ask_for = async |request| {
        let answer = server.jobs().what_if(request).await.unwrap();
        answer.into_inner().jobs
    };
    let stands = ask_for(suppose(Vec::new())).await;
    assert_eq!(stands.len(), 1);
    assert_eq!(
        (&stands[0].name, stands[0].state()),
        (&job.name, v1::JobState::Pending)
    );
    assert_eq!(stands[0].before, stands[0].after);
    let before = stands[0].before.clone().unwrap();
    assert!(before.start_time_p50.is_none() && !before.note.is_empty());
    assert_eq!(before.worlds, 16);

    let with = ask_for(suppose(vec![more("replay", 1)])).await;
    assert!(with[0].before.as_ref().unwrap().start_time_p50.is_none());
    assert!(with[0].after.as_ref().unwrap().start_time_p90.is_some());
    // Of two jobs one waits for the other, unless there are two workers.
    submitted(&server, '2').await;
    let one = ask_for(suppose(vec![more("replay", 1)])).await;
    let two = ask_for(suppose(vec![more("replay", 1), more("replay", 1)])).await;
    let starts = |jobs: &[v1::JobTimes]| -> Vec<i64> {
        let after = jobs.iter().filter_map(|job| job.after.as_ref());
        let times = after.filter_map(|after| after.start_time_p50.as_ref());
        times.map(|time| time.seconds).collect()
    };
    let apart = |jobs: &[v1::JobTimes]| {
        let starts = starts(jobs);
        assert_eq!(starts.len(), 2);
        starts[0].abs_diff(starts[1])
    };
    assert!(apart(&one) > 60, "{one:?}");
    assert_eq!(apart(&two), 0);
    let gone = ask_for(v1::WhatIfRequest {
        cancel_jobs: vec![job.name.clone()],
        ..suppose(vec![more("replay", 1)])
    });
    let gone = gone.await;
    let first = gone.iter().find(|other| other.name == job.name).unwrap();
    assert!(first.before.is_some() && first.after.is_none());
    assert_eq!(starts(&gone).len(), 1);

    // Nothing of it has happened.
    let workers = server
        .workers()
        .list_workers(v1::ListWorkersRequest::default())
        .await
        .unwrap();
    assert!(workers.into_inner().workers.is_empty());
    let why = v1::ExplainJobRequest { name: job.name };
    let why = server.jobs().explain_job(why).await.unwrap().into_inner();
    assert_eq!(
        (why.tier(), why.outlook.unwrap().worlds),
        (v1::WhyTier::Never, 16)
    );
}

/// Jobs of a list say when they start if that is asked for, and only then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_says_when_its_jobs_start() {
    let server = raised().await;
    submitted(&server, '1').await;
    let listed = async |with_outlook| {
        let request = v1::ListJobsRequest {
            with_outlook,
            ..v1::ListJobsRequest::default()
        };
        let answer = server.jobs().list_jobs(request).await.unwrap();
        answer.into_inner().jobs.remove(0).outlook
    };
    assert_eq!(listed(false).await, None);
    let outlook = listed(true).await.expect("nobody else asks");
    // There is no worker.
    assert!(outlook.start_time_p50.is_none() && !outlook.note.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_and_a_reason_say_the_same_of_when_a_job_starts() {
    let server = raised().await;
    let mut worker = server.worker("h", &["h100"]).await;
    let submit = async |id| {
        let submission = v1::SubmitJobRequest {
            wishes: Some(v1::JobWishes {
                allow: vec!["h100".to_owned()],
                ..v1::JobWishes::default()
            }),
            ..submission(id)
        };
        let answer = server.jobs().submit_job(submission).await.unwrap();
        answer.into_inner().job.unwrap()
    };
    let runs = submit('1').await;
    assert_eq!(worker.assigned().await.job, runs.name);
    let waits = submit('2').await;
    let request = v1::ListJobsRequest {
        with_outlook: true,
        ..v1::ListJobsRequest::default()
    };
    let listed = server.jobs().list_jobs(request).await.unwrap();
    let listed = listed.into_inner().jobs.remove(0);
    let outlook = listed.outlook.expect("nobody else asks");
    let ms = |at: &Option<prost_types::Timestamp>| {
        let at = at.as_ref().expect("there is a forecast");
        u64::try_from(at.seconds).unwrap() * 1_000 + u64::try_from(at.nanos).unwrap() / 1_000_000
    };
    let before = server.handle.now_ms();
    let request = v1::ExplainJobRequest { name: waits.name };
    let why = server.jobs().explain_job(request).await.unwrap();
    let after = server.handle.now_ms();
    let why = why.into_inner();
    let (headline, same) = (why.headline, why.outlook.unwrap());
    let (likely, late) = (ms(&same.start_time_p50), ms(&same.start_time_p90));
    assert!(likely.abs_diff(ms(&outlook.start_time_p50)) < 60_000);
    let said = |now| {
        let [likely, late] = [likely, late].map(|ms| display_duration(ms.saturating_sub(now)));
        format!("expected to start in {likely}, nine times in ten within {late}")
    };
    let said: BTreeSet<String> = (before..=after).map(said).collect();
    assert!(
        said.iter().any(|said| headline.ends_with(said)),
        "{headline}: {said:?}"
    );
}

/// Two changes of one job, or of one team, are together what one change of both is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_changes_of_one_thing_come_together() {
    let server = raised().await;
    let limited = v1::JobWishes {
        trainer: v1::Trainer::Replay.into(),
        labels: [("zone".to_owned(), "north".to_owned())].into(),
        max_price_per_hour_usd_micros: Some(1),
        ..v1::JobWishes::default()
    };
    let job = v1::SubmitJobRequest {
        wishes: Some(limited),
        ..submission('1')
    };
    let job = server.jobs().submit_job(job).await.unwrap().into_inner();
    let name = job.job.unwrap().name;
    let change = |path: &str| v1::SupposedWishes {
        job: name.clone(),
        wishes: Some(v1::JobWishes {
            max_price_per_hour_usd_micros: Some(200),
            ..v1::JobWishes::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![path.to_owned()],
        }),
    };
    let team = |budget_usd_micros, weight| v1::SupposedTeam {
        name: "teams/default".to_owned(),
        budget_usd_micros,
        weight,
        ..v1::SupposedTeam::default()
    };
    let starts = async |paths: &[&str], teams: Vec<v1::SupposedTeam>| {
        let request = v1::WhatIfRequest {
            add_workers: vec![v1::SupposedWorkers {
                price_per_gpu_hour_usd_micros: Some(100),
                ..more("replay", 1)
            }],
            wishes: paths.iter().map(|path| change(path)).collect(),
            teams,
            ..v1::WhatIfRequest::default()
        };
        let answer = server.jobs().what_if(request).await.unwrap().into_inner();
        let after = answer.jobs[0].after.clone().unwrap();
        after.start_time_p50.is_some()
    };
    let (labels, price) = ("labels", "max_price_per_hour_usd_micros");
    assert!(!starts(&[labels], vec![]).await && !starts(&[price], vec![]).await);
    assert!(starts(&[labels, price], vec![]).await);
    assert!(starts(&[price, labels], vec![]).await);
    // The second says nothing of the budget, which pays for nothing, so the first one's stays.
    let poor = vec![team(Some(1), None), team(None, Some(2))];
    assert!(!starts(&[labels, price], poor).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_what_is_wrong() {
    let server = raised().await;
    let job = submitted(&server, '1').await;
    let nothing = v1::WhatIfRequest::default;
    let team = |name: &str, quota| v1::SupposedTeam {
        name: name.to_owned(),
        gpu_quota: Some(quota),
        ..v1::SupposedTeam::default()
    };
    let wishes = |priority, path: &str| v1::SupposedWishes {
        job: job.name.clone(),
        wishes: Some(v1::JobWishes {
            priority,
            ..v1::JobWishes::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![path.to_owned()],
        }),
    };
    let asked = [
        (
            v1::WhatIfRequest {
                jobs: vec!["jobs/jzzzz".to_owned()],
                ..nothing()
            },
            Code::NotFound,
            "NO_SUCH_JOB",
        ),
        (
            v1::WhatIfRequest {
                jobs: vec!["job".to_owned()],
                ..nothing()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            v1::WhatIfRequest {
                add_workers: vec![more("h1000", 1)],
                ..nothing()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            v1::WhatIfRequest {
                add_workers: vec![more("h100", 1_001)],
                ..nothing()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            v1::WhatIfRequest {
                add_workers: vec![more("h100", 600); 2],
                ..nothing()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            v1::WhatIfRequest {
                add_workers: vec![v1::SupposedWorkers {
                    gpus: 17,
                    ..more("h100", 1)
                }],
                ..nothing()
            },
            Code::InvalidArgument,
            "INVALID_INVENTORY",
        ),
        (
            v1::WhatIfRequest {
                remove_workers: vec!["workers/w9999".to_owned()],
                ..nothing()
            },
            Code::NotFound,
            "NO_SUCH_WORKER",
        ),
        (
            v1::WhatIfRequest {
                cancel_jobs: vec!["jobs/jzzzz".to_owned()],
                ..nothing()
            },
            Code::NotFound,
            "NO_SUCH_JOB",
        ),
        (
            v1::WhatIfRequest {
                teams: vec![team("teams/acme", 1)],
                ..nothing()
            },
            Code::NotFound,
            "NO_SUCH_TEAM",
        ),
        (
            v1::WhatIfRequest {
                teams: vec![team("teams/default", 0)],
                ..nothing()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            v1::WhatIfRequest {
                aim: "quickest".to_owned(),
                ..nothing()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            v1::WhatIfRequest {
                wishes: vec![wishes(11, "priority")],
                ..nothing()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            v1::WhatIfRequest {
                wishes: vec![wishes(1, "trainer")],
                ..nothing()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            v1::WhatIfRequest {
                jobs: vec![job.name.clone(); 201],
                ..nothing()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
    ];
    for (request, code, why) in asked {
        let what = format!("{request:?}");
        let refused = server.jobs().what_if(request).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (code, why),
            "{what}"
        );
    }
    let eager = v1::WhatIfRequest {
        wishes: vec![wishes(5, "priority")],
        ..nothing()
    };
    server.jobs().what_if(eager).await.unwrap();
    let kept = v1::GetJobRequest {
        name: job.name,
        ..v1::GetJobRequest::default()
    };
    let kept = server
        .jobs()
        .get_job(kept)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!(kept.wishes.unwrap().priority, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_is_asked_over_http() {
    let server = raised().await;
    let job = submitted(&server, '1').await;
    let id = job.name.trim_start_matches("jobs/");
    let body = json!({"jobs": [id], "add_workers": [{"gpu": "replay"}]});
    let answer = ask(server.port, "POST", "/v1/what-if", None, Some(&body)).await;
    let told = answer.json();
    assert_eq!(
        (answer.status, &told["items"][0]["job"]),
        (200, &json!(id)),
        "{told}"
    );
    assert!(told["items"][0]["before"]["start_time_p50"].is_null());
    assert!(
        told["items"][0]["after"]["start_time_p50"].is_string(),
        "{told}"
    );
    // Whatever a job can ask for can be supposed.
    let tomorrow = prost_types::Timestamp {
        seconds: i64::try_from(server.handle.now_ms() / 1_000 + 86_400).unwrap(),
        nanos: 0,
    };
    let tomorrow = tomorrow.to_string();
    let late = json!([{"job": id, "not_before_time": tomorrow}]);
    let body = json!({"jobs": [id], "add_workers": [{"gpu": "replay"}], "wishes": late});
    let answer = ask(server.port, "POST", "/v1/what-if", None, Some(&body)).await;
    let told = answer.json();
    let after = &told["items"][0]["after"]["start_time_p50"];
    let is_late = after
        .as_str()
        .is_none_or(|time| time[..19] >= tomorrow[..19]);
    assert!(answer.status == 200 && is_late, "{told}");
    for wrong in [json!({"job": id}), json!({"job": id, "priorty": 1})] {
        let wrong = json!({"wishes": [wrong]});
        let refused = ask(server.port, "POST", "/v1/what-if", None, Some(&wrong)).await;
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (400, &json!("INVALID_FIELD"))
        );
    }
    let why = ask(
        server.port,
        "GET",
        &format!("/v1/jobs/{id}/why"),
        None,
        None,
    )
    .await;
    assert_eq!(why.json()["outlook"]["worlds"], 16);
    assert!(why.json()["sooner"].is_array());
}
