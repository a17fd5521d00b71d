//! Submissions: taken once however often they are sent, checked without a trace, refused with a place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use stepcast_proto::v1;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{CONFIG, Server, files, reason, submission};

async fn jobs(server: &Server) -> Vec<v1::Job> {
    server
        .jobs()
        .list_jobs(v1::ListJobsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .jobs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_is_one_job_and_one_folder() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.jobs(), server.jobs());
    // A request that is sent again while the first is being taken is told to come back.
    let (first, second) = tokio::join!(
        one.submit_job(submission('1')),
        two.submit_job(submission('1'))
    );
    let told_to_wait = [&first, &second]
        .into_iter()
        .filter_map(|answer| answer.as_ref().err())
        .all(|status| {
            reason(status) == "REQUEST_UNDER_WAY" && status.get_details_retry_info().is_some()
        });
    assert!(told_to_wait && (first.is_ok() || second.is_ok()));
    let name = first.or(second).unwrap().into_inner().job.unwrap().name;
    let again = server
        .jobs()
        .submit_job(submission('1'))
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!(again.name, name);
    assert_eq!((server.staged().len(), jobs(&server).await.len()), (1, 1));

    let mut other = submission('1');
    other.files = files(&CONFIG.replace("150", "151"));
    let refused = server.jobs().submit_job(other).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    assert_eq!((server.staged().len(), jobs(&server).await.len()), (1, 1));

    let cancel = v1::CancelJobRequest {
        name: name.clone(),
        request_id: String::new(),
    };
    let cancelled = server
        .jobs()
        .cancel_job(cancel)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!(cancelled.state(), v1::JobState::Cancelled);
    let after = server
        .jobs()
        .submit_job(submission('1'))
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!(
        (after.name, after.state),
        (name, v1::JobState::Cancelled.into())
    );
    crate::support::until("nothing is staged for a job that is over", || {
        server.staged().is_empty()
    })
    .await;
    server.stop().await;
}

/// The log and the staging area take a submission side by side, so that its job may be in the log when its files turn out
/// to be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_files_cannot_be_kept_has_no_job() {
    let server = Server::start().await;
    let segments = server.dir.path().join("staging/segments");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    // Takes away whatever is written there, again and again.
    let taking = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            for file in std::fs::read_dir(&segments).unwrap() {
                let _ = std::fs::remove_file(file.unwrap().path());
            }
        }
    });
    let callers = (0..8_u64).map(|caller| {
        let mut client = server.jobs();
        tokio::spawn(async move {
            let (mut kept, mut refused) = (Vec::new(), 0);
            for number in 0..25 {
                let mut request = submission('1');
                request.request_id = format!("{:032x}", caller << 32 | number);
                match client.submit_job(request).await {
                    Ok(answer) => kept.push(answer.into_inner().job.unwrap().name),
                    Err(status) => {
                        assert_eq!(reason(&status), "STAGING_UNUSABLE");
                        refused += 1;
                    }
                }
            }
            (kept, refused)
        })
    });
    let (mut kept, mut refused) = (Vec::new(), 0);
    for caller in callers.collect::<Vec<_>>() {
        let (some, others) = caller.await.unwrap();
        kept.extend(some);
        refused += others;
    }
    stop.store(true, Ordering::Relaxed);
    taking.join().unwrap();
    let all = server
        .handle
        .read_stale(stepcast_scheduler::State::unfinished_count);
    assert_eq!((all, kept.len() + refused), (kept.len(), 200));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_checked_leaves_nothing() {
    let server = Server::start().await;
    let mut request = submission('2');
    request.validate_only = true;
    let answer = server
        .jobs()
        .submit_job(request)
        .await
        .unwrap()
        .into_inner();
    let job = answer.job.unwrap();
    assert_eq!(
        (job.name.as_str(), job.workload.unwrap().recipe.as_str()),
        ("", "flux.dev/lora+ckpt")
    );
    assert_eq!(answer.estimates.len(), 1);
    assert_eq!((server.staged().len(), jobs(&server).await.len()), (0, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn problems_are_told_with_their_place_and_secrets_are_not_repeated() {
    let server = Server::start().await;
    let refuse = async |config: &str| {
        let mut request = submission('3');
        request.files = files(config);
        server.jobs().submit_job(request).await.unwrap_err()
    };
    let problem = refuse(&CONFIG.replace("\"1024x1024\"", "\"very large\"")).await;
    let fields = problem.get_details_bad_request().unwrap().field_violations;
    assert_eq!(
        (problem.code(), reason(&problem).as_str()),
        (Code::InvalidArgument, "CONFIG_INVALID")
    );
    assert!(
        fields[0].field.contains("config.json")
            && fields[0].field.contains("validation_resolution"),
        "{fields:?}"
    );

    let broken = refuse("{ not json").await;
    assert_eq!(reason(&broken), "CONFIG_INVALID");

    // Its name says that it is a secret, and nothing can be put in the place of a name.
    let key = "hf_canarycanarycanarycanary";
    let secret = refuse(&CONFIG.replacen('{', &format!("{{\"{key}\": 1,"), 1)).await;
    assert_eq!(reason(&secret), "SECRET_IN_CONFIG");
    let fields = secret.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "config.json $");
    assert!(!format!("{secret:?}").contains("canary"));
    assert_eq!((server.staged().len(), jobs(&server).await.len()), (0, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_worker_can_ever_run_is_refused_once_there_are_workers() {
    let server = Server::start().await;
    let mut large = submission('4');
    large.wishes.as_mut().unwrap().gpu_count = 8;
    server.jobs().submit_job(large.clone()).await.unwrap();
    let _worker = server.worker("replay-1", &["replay", "replay"]).await;
    // The same request has the same answer, whatever has changed since.
    server.jobs().submit_job(large.clone()).await.unwrap();
    large.request_id = "5".repeat(32);
    let refused = server.jobs().submit_job(large).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "NO_WORKER_FITS")
    );
    let why = refused
        .get_details_precondition_failure()
        .unwrap()
        .violations;
    assert_eq!(why[0].r#type, "TOO_FEW_GPUS");
    let hint =
        |status: &tonic::Status| status.get_details_error_info().unwrap().metadata["hint"].clone();
    assert_eq!(hint(&refused), "it would fit if you ask for 2 GPUs");
    let real = v1::SubmitJobRequest {
        wishes: Some(v1::JobWishes::default()),
        ..submission('f')
    };
    let refused = server.jobs().submit_job(real).await.unwrap_err();
    assert!(hint(&refused).contains("--trainer replay"), "{refused:?}");
    // What would fit is said of every wish that is in the way alone, and that two are in the way together.
    let wishes = [
        (
            v1::JobWishes {
                labels: [("zone".to_owned(), "eu".to_owned())].into(),
                ..v1::JobWishes::default()
            },
            "ask for no labels",
            "MISSING_LABEL",
        ),
        (
            v1::JobWishes {
                max_price_per_hour_usd_micros: Some(1),
                ..v1::JobWishes::default()
            },
            "an hour",
            "TOO_DEAR",
        ),
        (
            v1::JobWishes {
                gpu_count: 8,
                labels: [("zone".to_owned(), "eu".to_owned())].into(),
                ..v1::JobWishes::default()
            },
            "no single change would do",
            "MISSING_LABEL",
        ),
        (
            v1::JobWishes {
                max_cost_usd_micros: Some(10_000),
                ..v1::JobWishes::default()
            },
            // Two minutes and a second at $1.08 an hour.
            "set a limit of at least $0.04 on the cost",
            "BUDGET_TOO_SMALL",
        ),
    ];
    for (number, (wishes, remedy, cause)) in (6..).zip(wishes) {
        let mut asked = submission('4');
        asked.request_id = number.to_string().repeat(32);
        asked.wishes = Some(v1::JobWishes {
            trainer: v1::Trainer::Replay.into(),
            ..wishes
        });
        let refused = server.jobs().submit_job(asked).await.unwrap_err();
        assert_eq!(reason(&refused), "NO_WORKER_FITS");
        assert!(hint(&refused).contains(remedy), "{}", hint(&refused));
        let told = refused.get_details_precondition_failure().unwrap();
        assert_eq!(told.violations[0].r#type, cause);
    }
    server.stop().await;
}

/// What a limit makes of nearly every run is said, and the job is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_ends_a_job_before_it_is_done_is_said_with_its_submission() {
    let server = Server::start().await;
    let _worker = server.worker("replay-1", &["replay"]).await;
    let mut short = submission('1');
    let wishes = short.wishes.as_mut().unwrap();
    wishes.max_runtime = Some(prost_types::Duration {
        seconds: 1,
        nanos: 0,
    });
    wishes.max_cost_usd_micros = Some(40_000);
    for validate_only in [true, false] {
        short.validate_only = validate_only;
        let answer = server.jobs().submit_job(short.clone()).await.unwrap();
        let notes = answer.into_inner().notes;
        let codes: Vec<&str> = notes.iter().map(|note| note.code.as_str()).collect();
        for code in ["MAX_RUNTIME_TOO_SHORT", "MAX_COST_TOO_LOW"] {
            assert!(codes.contains(&code), "{code}: {notes:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contradictory_wishes_and_times_that_are_past_are_refused_and_nothing_is_kept() {
    let server = Server::start().await;
    while server.handle.status().log_format < stepcast_cluster::LOG_FORMAT as u16 {
        tokio::task::yield_now().await;
    }
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let zone = || [("zone".to_owned(), "eu".to_owned())].into();
    let default = v1::JobWishes::default;
    let far = 32_000_000_000;
    for (wishes, code, what) in [
        (
            v1::JobWishes {
                labels: zone(),
                avoid_labels: zone(),
                ..default()
            },
            "INVALID_FIELD",
            "cannot both carry a label",
        ),
        (
            v1::JobWishes {
                not_before_time: at(far),
                finish_by_time: at(far - 60),
                ..default()
            },
            "INVALID_FIELD",
            "before it may begin",
        ),
        (
            v1::JobWishes {
                finish_by_time: at(1),
                ..default()
            },
            "TOO_LATE",
            "could be done by then",
        ),
        (
            v1::JobWishes {
                not_before_time: at(far),
                ..default()
            },
            "INVALID_SPEC",
            "at most 30 days",
        ),
        (
            v1::JobWishes {
                finish_by_time: at(-5),
                ..default()
            },
            "INVALID_FIELD",
            "no time after 1970",
        ),
        (
            v1::JobWishes {
                max_cost_usd_micros: Some(0),
                ..default()
            },
            "INVALID_FIELD",
            "greater than zero",
        ),
        (
            v1::JobWishes {
                gpu_count: 3,
                ..default()
            },
            "INVALID_FIELD",
            "1, 2, 4 or 8 GPUs",
        ),
        (
            v1::JobWishes {
                priority: 11,
                ..default()
            },
            "INVALID_FIELD",
            "from -10 to 10",
        ),
        (
            v1::JobWishes {
                team: "teams/nobody".to_owned(),
                ..default()
            },
            "NO_SUCH_TEAM",
            "no such team",
        ),
    ] {
        let mut asked = submission('1');
        asked.wishes = Some(v1::JobWishes {
            trainer: v1::Trainer::Replay.into(),
            ..wishes
        });
        let refused = server.jobs().submit_job(asked).await.unwrap_err();
        assert_eq!(reason(&refused), code, "{refused:?}");
        assert!(refused.message().contains(what), "{}", refused.message());
    }
    assert_eq!((server.staged().len(), jobs(&server).await.len()), (0, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_page_by_page_newest_first() {
    let server = Server::start().await;
    for id in ['1', '2', '3'] {
        server.jobs().submit_job(submission(id)).await.unwrap();
    }
    let mut request = v1::ListJobsRequest {
        page_size: 2,
        ..v1::ListJobsRequest::default()
    };
    let first = server
        .jobs()
        .list_jobs(request.clone())
        .await
        .unwrap()
        .into_inner();
    request.page_token = first.next_page_token.clone();
    let second = server.jobs().list_jobs(request).await.unwrap().into_inner();
    assert_eq!(
        (
            first.jobs.len(),
            second.jobs.len(),
            second.next_page_token.as_str()
        ),
        (2, 1, "")
    );
    assert!(
        first.jobs[0].submit_time.unwrap().seconds >= second.jobs[0].submit_time.unwrap().seconds
    );
    let why = v1::ExplainJobRequest {
        name: second.jobs[0].name.clone(),
    };
    let why = server.jobs().explain_job(why).await.unwrap().into_inner();
    assert_eq!(why.tier(), v1::WhyTier::Never);
    server.stop().await;
}

/// SimpleTuner needs settings for the worker's own host, which are not written as variables for a shell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_older_log_cannot_hold_is_refused_when_it_is_checked_as_when_it_is_submitted() {
    let server = Server::held_at(2).await;
    for validate_only in [true, false] {
        let mut plain = submission('3');
        plain.validate_only = validate_only;
        let mut later = plain.clone();
        server.jobs().submit_job(plain.clone()).await.unwrap();
        if let Some(wishes) = &mut later.wishes {
            let hence = SystemTime::now() + Duration::from_secs(3_600);
            wishes.not_before_time = Some(hence.into());
        }
        let refused = server.jobs().submit_job(later).await.unwrap_err();
        assert_eq!(reason(&refused), "NOT_YET", "{validate_only}");
        let sweep = v1::SubmitArrayRequest {
            files: plain.files.clone(),
            tasks: vec![v1::ArrayTaskFiles::default()],
            wishes: plain.wishes,
            validate_only,
            ..v1::SubmitArrayRequest::default()
        };
        let refused = server.jobs().submit_array(sweep).await.unwrap_err();
        assert_eq!(reason(&refused), "NOT_YET", "{validate_only}");
    }
    assert_eq!((server.staged().len(), jobs(&server).await.len()), (1, 1));
    server.stop().await;
}

#[tokio::test]
async fn a_configuration_that_a_worker_cannot_rewrite_is_refused_for_simpletuner_alone() {
    let server = Server::start().await;
    let mut asked = submission('e');
    let env = "MODEL_FAMILY=flux\nMODEL_TYPE=lora\nMODEL_NAME=a/model\nMAX_NUM_STEPS=150\nNUM_EPOCHS=0\nRESOLUTION=1024\n\
               TRAIN_BATCH_SIZE=1\nDATALOADER_CONFIG=multidatabackend.json\nOPTIMIZER=adamw_bf16\nLEARNING_RATE=1e-4\n";
    let config = v1::FileRole::Config;
    for file in &mut asked.files {
        if file.role() == config {
            file.name = "config.env".to_owned();
            file.content = env.into();
        }
    }
    asked.validate_only = true;
    server.jobs().submit_job(asked.clone()).await.unwrap();
    if let Some(wishes) = &mut asked.wishes {
        wishes.trainer = v1::Trainer::Simpletuner.into();
    }
    let sweep = v1::SubmitArrayRequest {
        files: asked.files.clone(),
        tasks: vec![v1::ArrayTaskFiles::default()],
        wishes: asked.wishes.clone(),
        validate_only: true,
        ..v1::SubmitArrayRequest::default()
    };
    let refused = server.jobs().submit_job(asked).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("config.json"), "{refused:?}");
    let refused = server.jobs().submit_array(sweep).await.unwrap_err();
    assert!(refused.message().contains("config.json"), "{refused:?}");
}
