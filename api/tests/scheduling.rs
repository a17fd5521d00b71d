//! Teams, terms, sweeps, changes and approvals as callers see them.

use std::sync::Arc;
use std::time::Duration;

use prost_types::FieldMask;
use stepcast_api::ApiConfig;
use stepcast_proto::v1;
use stepcast_proto::v1::scheduling_service_client::SchedulingServiceClient;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use crate::http::ask;
use crate::support::{Agent, CONFIG, Later, Server, files, reason, submission, until};

fn scheduling(server: &Server) -> SchedulingServiceClient<Channel> {
    SchedulingServiceClient::new(server.channel.clone())
}

/// A server whose log has reached the newest format.
pub(crate) async fn raised() -> Server {
    raised_by(Later::new()).await
}

/// The same by this clock.
pub(crate) async fn raised_by(clock: Arc<Later>) -> Server {
    let server = Server::by(ApiConfig::default(), clock).await;
    while server.handle.status().log_format < stepcast_cluster::LOG_FORMAT as u16 {
        tokio::task::yield_now().await;
    }
    server
}

pub(crate) async fn set(server: &Server, team: v1::Team) -> Result<v1::Team, tonic::Status> {
    let request = v1::SetTeamRequest {
        team: Some(team),
        request_id: String::new(),
    };
    let set = scheduling(server).set_team(request).await?;
    Ok(set.into_inner().team.unwrap())
}

pub(crate) fn named(name: &str) -> v1::Team {
    v1::Team {
        name: format!("teams/{name}"),
        ..v1::Team::default()
    }
}

/// What is paid from a limit needs to know what it costs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_workers_without_a_price_could_hold_is_refused_where_money_is_limited() {
    let server = raised().await;
    let agent = Agent::new(&server, server.token("w").await.secret);
    let registered = agent.register_for('a', &["replay"], "", None).await;
    registered.unwrap();
    let paying = v1::Team {
        budget_usd_micros: Some(9_000_000),
        ..named("paying")
    };
    set(&server, paying).await.unwrap();
    let asked = |team: &str, max_cost_usd_micros| {
        let mut asked = submission('1');
        let wishes = asked.wishes.as_mut().unwrap();
        wishes.team = team.to_owned();
        wishes.max_cost_usd_micros = max_cost_usd_micros;
        asked
    };
    let priced = "have its workers' GPUs given a price";
    for (team, max_cost, other) in [
        ("teams/paying", None, ""),
        ("", Some(10_000_000), "set no limit on the cost, or "),
    ] {
        let refused = server.jobs().submit_job(asked(team, max_cost)).await;
        let refused = refused.unwrap_err();
        assert_eq!(reason(&refused), "NO_WORKER_FITS");
        let why = refused.get_details_precondition_failure().unwrap();
        assert_eq!(why.violations[0].r#type, "NO_PRICE");
        let hint = &refused.get_details_error_info().unwrap().metadata["hint"];
        let wanted = format!("it would fit if you {other}{priced}");
        assert!(hint.starts_with(&wanted), "{hint}");
    }
    // With a price it is taken, unless it is a slip of the hand.
    let slip = agent.register_for('a', &["replay"], "", Some(1_000_000_001));
    assert_eq!(slip.await.unwrap_err().code(), Code::InvalidArgument);
    let registered = agent
        .register_for('a', &["replay"], "", Some(1_000_000))
        .await;
    registered.unwrap();
    let taken = server.jobs().submit_job(asked("teams/paying", None)).await;
    taken.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn teams_are_made_listed_and_forgotten() {
    let server = raised().await;
    let part = v1::Team {
        weight: 3,
        gpu_quota: Some(2),
        budget_usd_micros: Some(9_000_000),
        budget_period: v1::BudgetPeriod::Month.into(),
        ..named("acme/vision")
    };
    let orphan = set(&server, part.clone()).await.unwrap_err();
    assert_eq!(
        (orphan.code(), reason(&orphan).as_str()),
        (Code::NotFound, "NO_SUCH_TEAM")
    );
    set(&server, named("acme")).await.unwrap();
    let made = set(&server, part).await.unwrap();
    assert_eq!(
        (made.weight, made.gpu_quota, made.budget_usd_micros),
        (3, Some(2), Some(9_000_000))
    );
    for (weight, quota) in [(-1, None), (10_001, None), (1, Some(0))] {
        let wrong = v1::Team {
            weight,
            gpu_quota: quota,
            ..named("acme")
        };
        let refused = set(&server, wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{weight} {quota:?}");
    }
    let listed = scheduling(&server)
        .list_teams(v1::ListTeamsRequest {})
        .await
        .unwrap()
        .into_inner();
    let names: Vec<&str> = listed.teams.iter().map(|team| team.name.as_str()).collect();
    assert_eq!(names, ["teams/default", "teams/acme", "teams/acme/vision"]);

    let mut wide = submission('1');
    wide.wishes = Some(v1::JobWishes {
        team: "teams/acme/vision".to_owned(),
        gpu_count: 4,
        ..v1::JobWishes::default()
    });
    let refused = server.jobs().submit_job(wide.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "OVER_QUOTA", "{refused:?}");
    wide.wishes.as_mut().unwrap().gpu_count = 2;
    let job = server
        .jobs()
        .submit_job(wide)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!(job.wishes.unwrap().team, "teams/acme/vision");

    let remove = |name: &str| v1::RemoveTeamRequest {
        name: format!("teams/{name}"),
        request_id: String::new(),
    };
    let refused = scheduling(&server)
        .remove_team(remove("acme/vision"))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "TEAM_IN_USE");
    let cancel = v1::CancelJobRequest {
        name: job.name,
        request_id: String::new(),
    };
    server.jobs().cancel_job(cancel).await.unwrap();
    scheduling(&server)
        .remove_team(remove("acme/vision"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_job_is_changed_and_approved() {
    let server = raised().await;
    let job = server
        .jobs()
        .submit_job(submission('1'))
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    let change = |path: &str, etag: &str, wishes: v1::JobWishes| v1::UpdateJobRequest {
        name: job.name.clone(),
        wishes: Some(wishes),
        update_mask: Some(FieldMask {
            paths: vec![path.to_owned()],
        }),
        etag: etag.to_owned(),
        request_id: String::new(),
    };
    let eager = v1::JobWishes {
        priority: 7,
        allow: vec!["h100".to_owned()],
        ..v1::JobWishes::default()
    };
    let changed = server
        .jobs()
        .update_job(change("priority", &job.etag, eager.clone()))
        .await
        .unwrap();
    let changed = changed.into_inner().job.unwrap();
    let wishes = changed.wishes.unwrap();
    // Only what was named has changed.
    assert_eq!((wishes.priority, wishes.allow.len()), (7, 0));
    let stale = server
        .jobs()
        .update_job(change("priority", &job.etag, eager.clone()))
        .await
        .unwrap_err();
    assert_eq!(
        (stale.code(), reason(&stale).as_str()),
        (Code::Aborted, "CHANGED")
    );
    let unknown = server
        .jobs()
        .update_job(change("trainer", "", eager))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);

    let approve = async |etag: &str| {
        let request = v1::ApproveJobRequest {
            name: job.name.clone(),
            request_id: String::new(),
            etag: etag.to_owned(),
        };
        let approved = server.jobs().approve_job(request).await;
        approved.map(|approved| approved.into_inner().job.unwrap())
    };
    // Who has looked at what it asked for before has not seen what it may cost now.
    let stale = approve(&job.etag).await.unwrap_err();
    assert_eq!(
        (stale.code(), reason(&stale).as_str()),
        (Code::Aborted, "CHANGED")
    );
    let wrong = approve("none").await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    let path = format!("/v1/{}/approve", job.name);
    let http = async |path: &str| ask(server.port, "POST", path, None, None).await;
    let stale = http(&format!("{path}?etag={}", job.etag)).await;
    assert_eq!(
        (stale.status, &stale.json()["code"]),
        (409, &serde_json::Value::from("CHANGED"))
    );
    let approved = approve(&changed.etag).await.unwrap();
    assert!(approved.approve_time.is_some());
    // It is approved, whoever looked at what.
    assert!(approve(&job.etag).await.is_ok() && approve("").await.is_ok());
    assert_eq!(http(&path).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_asks_for_less_goes_by_what_it_costs_then() {
    let server = raised().await;
    let mut worker = server.worker("h", &["h100"; 8]).await;
    let on = |gpu_count| v1::JobWishes {
        team: "teams/frugal".to_owned(),
        allow: vec!["h100".to_owned()],
        gpu_count,
        ..v1::JobWishes::default()
    };
    let submission = |id, gpu_count| v1::SubmitJobRequest {
        wishes: Some(on(gpu_count)),
        ..submission(id)
    };
    set(&server, named("frugal")).await.unwrap();
    let costs = async |gpu_count| {
        let asked = v1::SubmitJobRequest {
            validate_only: true,
            ..submission('1', gpu_count)
        };
        let told = server.jobs().submit_job(asked).await.unwrap().into_inner();
        told.estimates[0].whole_cost.unwrap().p90_usd_micros
    };
    let (dear, cheap) = (costs(8).await, costs(1).await);
    assert!(cheap < dear, "{cheap} {dear}");
    let rules = v1::Team {
        approve_above_usd_micros: Some(cheap.midpoint(dear)),
        ..named("frugal")
    };
    set(&server, rules).await.unwrap();
    let job = server.jobs().submit_job(submission('1', 8)).await.unwrap();
    let job = job.into_inner().job.unwrap();
    let expected = || {
        let id = job.name.trim_start_matches("jobs/").parse().unwrap();
        server.handle.read_stale(|state| {
            let terms = &state.job(id).unwrap().spec.terms;
            terms.expected_cost.map(|cost| cost.0)
        })
    };
    assert_eq!(expected(), Some(dear));
    let why = v1::ExplainJobRequest {
        name: job.name.clone(),
    };
    let why = server.jobs().explain_job(why).await.unwrap().into_inner();
    assert!(why.headline.contains("must be approved"), "{why:?}");

    let update = async |path: &str, wishes| {
        let request = v1::UpdateJobRequest {
            name: job.name.clone(),
            wishes: Some(wishes),
            update_mask: Some(FieldMask {
                paths: vec![path.to_owned()],
            }),
            ..v1::UpdateJobRequest::default()
        };
        server.jobs().update_job(request).await.unwrap()
    };
    // What changes nothing of it leaves the sum as it was told.
    let eager = v1::JobWishes {
        priority: 7,
        ..on(1)
    };
    update("priority", eager).await;
    assert_eq!(expected(), Some(dear));
    update("gpu_count", on(1)).await;
    assert_eq!(expected(), Some(cheap));
    // Nobody has to approve it any more.
    assert_eq!(worker.assigned().await.job, job.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_is_taken_whole_or_not_at_all() {
    let server = raised().await;
    let task = |config: String| v1::ArrayTaskFiles {
        files: files(&config).into_iter().take(1).collect(),
    };
    let rate = |rate: u32| task(CONFIG.replacen('{', &format!("{{\"learning_rate\": {rate},"), 1));
    let sweep = |tasks: Vec<v1::ArrayTaskFiles>| v1::SubmitArrayRequest {
        request_id: "5".repeat(32),
        files: files(CONFIG),
        sample_counts: submission('5').sample_counts,
        tasks,
        parallel: 2,
        ..v1::SubmitArrayRequest::default()
    };
    for (tasks, why) in [
        (vec![], "none"),
        (vec![rate(1), rate(1)], "twice the same"),
        (
            vec![rate(1), task(CONFIG.replace("150", "151"))],
            "other work",
        ),
        (vec![rate(1); 1_001], "too many"),
    ] {
        let refused = server.jobs().submit_array(sweep(tasks)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{why}: {refused:?}");
        assert_eq!(server.staged().len(), 0, "{why}");
    }
    // What tasks have in common is read and kept for each of them.
    let mut shared = sweep((1..=50).map(rate).collect());
    shared.files.push(v1::JobFile {
        role: v1::FileRole::Prompts.into(),
        name: "prompts.json".to_owned(),
        content: vec![b' '; 2_900 << 10],
    });
    let refused = server.jobs().submit_array(shared).await.unwrap_err();
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "tasks", "{refused:?}");
    assert!(fields[0].description.contains("128 MiB"), "{refused:?}");
    let array = server
        .jobs()
        .submit_array(sweep(vec![rate(1), rate(2), rate(3)]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((array.jobs.len(), server.staged().len()), (3, 3));
    // The same request has the same answer.
    let again = server
        .jobs()
        .submit_array(sweep(vec![rate(1), rate(2), rate(3)]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (again.array.as_str(), server.staged().len()),
        (array.array.as_str(), 3)
    );
    let last = v1::GetJobRequest {
        name: array.jobs[2].clone(),
        ..v1::GetJobRequest::default()
    };
    let last = server
        .jobs()
        .get_job(last)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    let part = last.array_task.unwrap();
    assert_eq!((part.index, part.tasks, part.parallel), (2, 3, 2));
    let cancel = v1::CancelArrayRequest {
        name: array.jobs[1].clone(),
        request_id: String::new(),
    };
    assert_eq!(
        server
            .jobs()
            .cancel_array(cancel)
            .await
            .unwrap()
            .into_inner()
            .count,
        3
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_keeps_its_name_when_its_first_task_is_forgotten() {
    let clock = Later::new();
    let server = raised_by(Arc::clone(&clock)).await;
    let mut worker = server.worker("w", &["replay"]).await;
    let task = |rate: u32| {
        let config = CONFIG.replacen('{', &format!("{{\"learning_rate\": {rate},"), 1);
        v1::ArrayTaskFiles {
            files: files(&config).into_iter().take(1).collect(),
        }
    };
    let sweep = v1::SubmitArrayRequest {
        files: files(CONFIG),
        tasks: vec![task(1), task(2)],
        wishes: submission('5').wishes,
        ..v1::SubmitArrayRequest::default()
    };
    let sweep = server.jobs().submit_array(sweep).await.unwrap();
    let sweep = sweep.into_inner();
    let first = worker.assigned().await;
    assert_eq!((&first.job, &sweep.array), (&sweep.jobs[0], &sweep.jobs[0]));
    worker.succeed(&first).await;
    // What runs does not end by itself because it was in the queue for too long.
    assert_eq!(worker.assigned().await.job, sweep.jobs[1]);
    clock.pass(Duration::from_secs(91 * 24 * 3600));
    let id = sweep.array.trim_start_matches("jobs/").parse().unwrap();
    let is_known = || server.handle.read_stale(|state| state.job(id).is_some());
    until("the first task is forgotten", || !is_known()).await;

    let cancel = v1::CancelArrayRequest {
        name: sweep.array.clone(),
        request_id: String::new(),
    };
    let cancelled = server.jobs().cancel_array(cancel).await.unwrap();
    assert_eq!(cancelled.into_inner().count, 1);
    // There is nothing to be known of the task itself.
    let get = v1::GetJobRequest {
        name: sweep.array,
        ..v1::GetJobRequest::default()
    };
    let gone = server.jobs().get_job(get).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_set_and_one_that_is_none_is_refused() {
    let server = raised().await;
    let set = |aim: &str, preemptions_max| v1::SetPolicyRequest {
        policy: Some(v1::Policy {
            aim: aim.to_owned(),
            preemptions_max,
            ..v1::Policy::default()
        }),
        request_id: String::new(),
    };
    let policy = scheduling(&server)
        .set_policy(set("fifo", None))
        .await
        .unwrap()
        .into_inner()
        .policy
        .unwrap();
    assert_eq!(
        (policy.aim.as_str(), policy.preemption.as_str()),
        ("fifo", "for-priority")
    );
    for (aim, times) in [("quickest", None), ("", Some(200)), ("", Some(400))] {
        let refused = scheduling(&server)
            .set_policy(set(aim, times))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{aim} {times:?}");
    }
    let kept = scheduling(&server)
        .get_policy(v1::GetPolicyRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(kept.policy, Some(policy));
}
