//! The operator's prices, by which jobs are charged and limited on workers that say none.

use std::time::Duration;

use serde_json::{Value, json};
use stepcast_proto::v1;

use crate::access::post;
use crate::http;
use crate::scheduling::{named, raised_by, set};
use crate::support::{Agent, Later, Server, reason, submission, until};

/// Has the operator say what an H100 costs an hour.
async fn import(server: &Server, dollars: &str) {
    let columns = "hardware,usd_per_gpu_hour,valid_from,source";
    let request = v1::ImportPricesRequest {
        source: "feed".to_owned(),
        csv: format!("{columns}\nh100,{dollars},2026-01-01,feed\n").into(),
        ..v1::ImportPricesRequest::default()
    };
    let imported = server.estimates().import_prices(request).await.unwrap();
    assert_eq!(imported.into_inner().prices_stored, 1);
}

async fn only_worker(server: &Server) -> v1::Worker {
    let request = v1::ListWorkersRequest {};
    let listed = server.workers().list_workers(request).await.unwrap();
    listed.into_inner().workers.pop().unwrap()
}

/// What GPUs cost by the list that comes with this version is nobody's word, and charges nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_imported_is_charged_and_limits_go_by_it_where_a_worker_says_nothing() {
    let clock = Later::new();
    let server = raised_by(clock.clone()).await;
    let agent = Agent::new(&server, server.token("w").await.secret);
    let registered = agent.register_for('a', &["h100"], "", None).await;
    let worker = registered.unwrap().worker;
    let paying = v1::Team {
        budget_usd_micros: Some(900_000_000),
        ..named("paying")
    };
    set(&server, paying).await.unwrap();
    let asked = || {
        let mut asked = submission('1');
        let wishes = asked.wishes.as_mut().unwrap();
        wishes.trainer = v1::Trainer::Simpletuner.into();
        wishes.team = "teams/paying".to_owned();
        wishes.max_cost_usd_micros = Some(500_000_000);
        asked
    };
    let refused = server.jobs().submit_job(asked()).await.unwrap_err();
    assert_eq!(reason(&refused), "NO_WORKER_FITS");
    let shown = only_worker(&server).await;
    assert_eq!(shown.gpus[0].price_per_hour_usd_micros, None);
    assert!(!shown.price_from_book);

    import(&server, "2.00").await;
    let costs = |micros: u64| {
        server.handle.read_stale(|state| {
            let worker = state.workers().next().unwrap();
            let price = worker.price_per_gpu_hour("h100".parse().unwrap());
            price.is_some_and(|price| price.0 == micros)
        })
    };
    until("the imported price", || costs(2_000_000)).await;
    let shown = only_worker(&server).await;
    assert_eq!(shown.gpus[0].price_per_hour_usd_micros, Some(2_000_000));
    assert!(shown.price_from_book && shown.price_per_gpu_hour_usd_micros.is_none());

    let job = server.jobs().submit_job(asked()).await.unwrap();
    let name = job.into_inner().job.unwrap().name;
    let mut session = agent.attach(worker, 'a').await.unwrap();
    let assignment = session.assigned().await;
    // What runs keeps the price that it has begun at.
    import(&server, "3.00").await;
    until("the next price", || costs(3_000_000)).await;
    clock.pass(Duration::from_secs(9));
    session.succeed(&assignment).await;
    let request = v1::GetJobRequest {
        name,
        ..v1::GetJobRequest::default()
    };
    let job = server.jobs().get_job(request).await.unwrap();
    let job = job.into_inner().job.unwrap();
    assert_eq!(job.attempts[0].price_per_hour_usd_micros, Some(2_000_000));
    let team = server.handle.read_stale(|state| {
        let name = "paying".parse().unwrap();
        let team = state.team_named(&name).unwrap();
        team.spent(state.newest_stamp_ms()).0
    });
    assert!(team >= 5_000, "nine seconds at two dollars an hour: {team}");
    assert_eq!(job.cost_usd_micros, team);

    // By its own word it is at its own price.
    let registered = agent.register_for('a', &["h100"], "", Some(1_000_000));
    registered.await.unwrap();
    let shown = only_worker(&server).await;
    assert_eq!(shown.gpus[0].price_per_hour_usd_micros, Some(1_000_000));
    assert!(!shown.price_from_book);
    drop(session);
    server.stop().await;
}

/// What is told of a job that is only checked: on this hardware with these wishes, over HTTP.
async fn told(server: &Server, on: &str, wishes: Value) -> Value {
    let mut sent = http::submission();
    sent["config"]["--stepcast_on"] = on.into();
    sent["validate_only"] = true.into();
    sent["wishes"] = wishes;
    let (status, told) = post(server.port, None, "/v1/jobs", sent).await;
    assert!(status < 300, "{told}");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_price_before_the_button_is_of_all_that_is_charged() {
    let server = raised_by(Later::new()).await;
    let agent = Agent::new(&server, server.token("w").await.secret);
    let registered = agent.register_for('a', &["h100"], "", Some(2_100_000));
    registered.await.unwrap();
    let told = told(&server, "h100", json!({})).await;
    let first = &told["estimates"][0];
    let [run, set_up, whole] = ["run_ms", "setup_ms", "whole_ms"].map(|part| {
        let half = first[part]["p50"].as_u64();
        half.unwrap_or_else(|| panic!("{part}: {first}"))
    });
    assert!(set_up > 0 && whole == run + set_up, "{first}");
    let costs = |quantile: &str| first["whole_cost_usd_micros"][quantile].as_u64().unwrap();
    assert_eq!(costs("p50"), (whole * 2_100_000 + 1_800_000) / 3_600_000);
    assert_eq!(told["estimated_cost_cents"], costs("p50").div_ceil(10_000));
    assert_eq!(told["estimated_total_cents"], costs("p90").div_ceil(10_000));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_price_told_is_of_a_worker_that_the_job_may_come_to() {
    let server = raised_by(Later::new()).await;
    let cheap = Agent::new(&server, server.token("cheap").await.secret);
    let registered = cheap.register_for('a', &["replay"], "", Some(750_000));
    let cheap = registered.await.unwrap().worker;
    let dear = Agent::new(&server, server.token("dear").await.secret);
    let labels = &[("pace", "real")];
    let registered = dear.register_with('b', &["replay"], "", Some(2_000_001), labels);
    registered.await.unwrap();
    let price = async |wishes: Value| {
        let told = told(&server, "replay", wishes).await;
        told["estimates"][0]["price_per_hour_usd_micros"].clone()
    };
    assert_eq!(price(json!({})).await, 750_000);
    assert_eq!(price(json!({"labels": {"pace": "real"}})).await, 2_000_001);
    assert_eq!(
        price(json!({"avoid_labels": {"pace": "real"}})).await,
        750_000
    );
    let request = v1::DrainWorkerRequest {
        name: cheap,
        ..v1::DrainWorkerRequest::default()
    };
    server.workers().drain_worker(request).await.unwrap();
    assert_eq!(price(json!({})).await, 2_000_001);
    server.stop().await;
}
