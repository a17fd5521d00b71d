//! What a job is expected to take and to cost: of hardware that it may run on, and held by prices that somebody has said.

use prost_types::FieldMask;
use stepcast_proto::v1;

use crate::scheduling::{named, raised, set};
use crate::support::{Agent, CONFIG, Server, files, submission};

/// A worker with one GPU, at a price and in a zone.
async fn offer(server: &Server, folder: char, gpu: &str, price: Option<u64>, zone: &str) {
    let agent = Agent::new(server, server.token(gpu).await.secret);
    let (gpus, labels) = (&[gpu], &[("zone", zone)]);
    let registered = agent.register_with(folder, gpus, "", price, labels);
    registered.await.unwrap();
}

fn asked(id: char, wishes: &v1::JobWishes) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        wishes: Some(wishes.clone()),
        ..submission(id)
    }
}

/// What is told of a job that is only checked, best first.
async fn told(server: &Server, wishes: &v1::JobWishes) -> Vec<v1::Estimate> {
    let asked = v1::SubmitJobRequest {
        validate_only: true,
        ..asked('f', wishes)
    };
    let told = server.jobs().submit_job(asked).await.unwrap();
    told.into_inner().estimates
}

fn named_in(rows: &[v1::Estimate]) -> Vec<&str> {
    rows.iter().map(|row| row.hardware.as_str()).collect()
}

fn p90(row: &v1::Estimate) -> u64 {
    row.whole_cost.unwrap().p90_usd_micros
}

/// Long enough from now that a job waits meanwhile.
fn later(server: &Server) -> Option<prost_types::Timestamp> {
    let seconds = server.handle.now_ms() / 1_000 + 3_600;
    Some(prost_types::Timestamp {
        seconds: seconds.try_into().unwrap(),
        nanos: 0,
    })
}

async fn submit(server: &Server, id: char, wishes: &v1::JobWishes) -> v1::Job {
    let waits = v1::JobWishes {
        not_before_time: later(server),
        ..wishes.clone()
    };
    let job = server.jobs().submit_job(asked(id, &waits)).await.unwrap();
    job.into_inner().job.unwrap()
}

/// What a job waits for somebody's word by.
fn expected(server: &Server, job: &v1::Job) -> Option<u64> {
    let id = job.name.trim_start_matches("jobs/").parse().unwrap();
    server.handle.read_stale(|state| {
        let terms = &state.job(id).unwrap().spec.terms;
        terms.expected_cost.map(|cost| cost.0)
    })
}

async fn update(server: &Server, job: &v1::Job, path: &str, wishes: &v1::JobWishes) {
    let request = v1::UpdateJobRequest {
        name: job.name.clone(),
        wishes: Some(wishes.clone()),
        update_mask: Some(FieldMask {
            paths: vec![path.to_owned()],
        }),
        ..v1::UpdateJobRequest::default()
    };
    server.jobs().update_job(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_told_and_held_for_what_it_costs_where_it_may_run() {
    let server = raised().await;
    offer(&server, 'a', "rtx4090", Some(500_000), "cheap").await;
    offer(&server, 'b', "h100", Some(20_000_000), "dear").await;
    let rules = v1::Team {
        approve_above_usd_micros: Some(1_000_000_000),
        ..named("frugal")
    };
    set(&server, rules).await.unwrap();
    let fastest = v1::JobWishes {
        objective: v1::Objective::Fastest.into(),
        team: "teams/frugal".to_owned(),
        ..v1::JobWishes::default()
    };
    let all = told(&server, &fastest).await;
    assert_eq!(named_in(&all), ["h100x1", "rtx4090x1"]);
    let (dear, cheap) = (p90(&all[0]), p90(&all[1]));
    assert!(cheap < dear, "{cheap} {dear}");

    let large = v1::JobWishes {
        min_memory_gib: 40,
        objective: v1::Objective::Cheapest.into(),
        ..fastest.clone()
    };
    assert_eq!(named_in(&told(&server, &large).await), ["h100x1"]);
    let capped = v1::JobWishes {
        max_price_per_hour_usd_micros: Some(1_000_000),
        ..fastest.clone()
    };
    assert_eq!(named_in(&told(&server, &capped).await), ["rtx4090x1"]);
    // It ends at once where an hour costs that much.
    let limited = v1::JobWishes {
        max_cost_usd_micros: Some(400_000),
        ..fastest.clone()
    };
    assert_eq!(named_in(&told(&server, &limited).await), ["rtx4090x1"]);
    // Of what it names, what nobody has may come yet.
    let several = v1::JobWishes {
        allow: ["h100", "l40s", "rtx4090"].map(str::to_owned).into(),
        ..capped.clone()
    };
    let rows = told(&server, &several).await;
    let mut rows = named_in(&rows);
    rows.sort_unstable();
    assert_eq!(rows, ["l40sx1", "rtx4090x1"]);

    let job = submit(&server, '1', &capped).await;
    assert_eq!(expected(&server, &job), Some(cheap));
    update(&server, &job, "max_price_per_hour_usd_micros", &fastest).await;
    assert_eq!(expected(&server, &job), Some(dear));
    let at_home = v1::JobWishes {
        labels: [("zone".to_owned(), "cheap".to_owned())].into(),
        ..fastest.clone()
    };
    update(&server, &job, "labels", &at_home).await;
    assert_eq!(expected(&server, &job), Some(cheap));
    server.stop().await;
}

/// The list that comes with this version is nobody's word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_approved_goes_by_prices_that_somebody_has_said() {
    let server = raised().await;
    offer(&server, 'a', "rtx4090", Some(500_000), "here").await;
    offer(&server, 'b', "h100", None, "here").await;
    let rules = v1::Team {
        approve_above_usd_micros: Some(1),
        ..named("frugal")
    };
    set(&server, rules).await.unwrap();
    let fastest = v1::JobWishes {
        objective: v1::Objective::Fastest.into(),
        team: "teams/frugal".to_owned(),
        ..v1::JobWishes::default()
    };
    let rows = told(&server, &fastest).await;
    assert_eq!(named_in(&rows), ["h100x1", "rtx4090x1"]);
    assert!(rows[0].price_per_hour_usd_micros.is_some(), "by the list");
    let job = submit(&server, '1', &fastest).await;
    assert_eq!(expected(&server, &job), Some(p90(&rows[1])));
    let unpriced = v1::JobWishes {
        allow: vec!["h100".to_owned()],
        ..fastest
    };
    update(&server, &job, "allow", &unpriced).await;
    assert_eq!(expected(&server, &job), None);
    server.stop().await;
}

/// What takes long is done aside, and the answer is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_many_data_sets_is_estimated_and_changed_like_any_other() {
    let server = raised().await;
    offer(&server, 'a', "h100", Some(2_000_000), "here").await;
    let datasets = (0..200).map(|number| {
        format!(r#"{{"id": "d{number}", "type": "local", "instance_data_dir": "/tmp/d{number}"}},"#)
    });
    let text = r#"{"id": "text", "type": "local", "dataset_type": "text_embeds", "default": true, "cache_dir": "/tmp/t"}"#;
    let loader = format!("[{}{text}]", datasets.collect::<String>());
    let mut files = files(CONFIG);
    files[1].content = loader.into();
    let waits = v1::JobWishes {
        not_before_time: later(&server),
        ..v1::JobWishes::default()
    };
    let many = v1::SubmitJobRequest {
        files,
        sample_counts: vec![v1::SampleCount {
            dataset: String::new(),
            samples: 10,
        }],
        ..asked('1', &waits)
    };
    let answer = server.jobs().submit_job(many).await.unwrap().into_inner();
    assert_eq!(named_in(&answer.estimates), ["h100x1"]);
    assert!(p90(&answer.estimates[0]) > 0);
    let job = answer.job.unwrap();
    let wishes = v1::JobWishes {
        max_runtime: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..v1::JobWishes::default()
    };
    update(&server, &job, "max_runtime", &wishes).await;
    server.stop().await;
}
