//! A job on two hosts at the front door: refused while there are not as many, and then handed to both.

use stepcast_proto::v1;
use tonic::Code;

use crate::support::{Server, reason, submission, until};

fn on_two(id: char) -> v1::SubmitJobRequest {
    let mut request = submission(id);
    let wishes = request.wishes.as_mut().unwrap();
    (wishes.hosts, wishes.gpu_count) = (2, 2);
    request
}

async fn formed(server: &Server) {
    until("the log's format", || {
        server.handle.status().log_format >= 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_on_more_hosts_than_there_are_is_refused_with_what_would_fit() {
    let server = Server::start().await;
    formed(&server).await;
    let gpus = ["replay", "replay"];
    let _one = server.worker_at("one", 'a', &gpus, "10.0.0.1:29500").await;
    // It has the GPUs, and nobody reaches it.
    let _two = server.worker_on("two", 'b', &gpus).await;
    let refused = server.jobs().submit_job(on_two('1')).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(reason(&refused), "NO_WORKER_FITS");
    let told = format!("{refused:?}");
    for word in ["ask for 1 host", "NO_GANGS", "TOO_FEW_HOSTS"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let mut many = on_two('2');
    many.wishes.as_mut().unwrap().hosts = 17;
    let refused = server.jobs().submit_job(many).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("1 to 16 hosts"), "{refused:?}");
    let bad = server.token("three").await.secret;
    let agent = crate::support::Agent::new(&server, bad);
    let refused = agent.register_at('c', &gpus, "--help:1").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // Its second GPU would have the port of the first.
    let refused = agent.register_at('c', &gpus, "10.0.0.3:65535").await;
    let refused = refused.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_INVENTORY");
    assert!(refused.message().contains("at most 65534"), "{refused:?}");
    agent
        .register_at('c', &gpus, "10.0.0.3:65534")
        .await
        .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_hosts_get_their_place_and_the_files_and_no_estimate_is_made_up() {
    let server = Server::start().await;
    formed(&server).await;
    let gpus = ["replay", "replay"];
    let mut one = server.worker_at("one", 'a', &gpus, "10.0.0.1:29500").await;
    let mut two = server.worker_at("two", 'b', &gpus, "gpu-2:4000").await;
    let answer = server.jobs().submit_job(on_two('1')).await.unwrap();
    let answer = answer.into_inner();
    assert!(answer.estimates.is_empty());
    let codes: Vec<&str> = answer.notes.iter().map(|note| note.code.as_str()).collect();
    assert!(codes.contains(&"SEVERAL_HOSTS"), "{codes:?}");
    let (lead, follow) = (one.assigned().await, two.assigned().await);
    let place = |assignment: &v1::Assignment| {
        let gang = assignment.gang.clone().unwrap();
        (gang.rank, gang.hosts, gang.main_host, gang.main_port)
    };
    assert_eq!(place(&lead), (0, 2, "10.0.0.1".to_owned(), 29_500));
    assert_eq!(place(&follow), (1, 2, "10.0.0.1".to_owned(), 29_500));
    for (worker, assignment) in [(&one, &lead), (&two, &follow)] {
        let files = worker.agent.files(&assignment.job, assignment.epoch).await;
        assert_eq!(files.unwrap().len(), 2);
    }
    let name = answer.job.unwrap().name;
    let request = v1::GetJobRequest {
        name,
        with_outlook: true,
    };
    let job = server.jobs().get_job(request).await.unwrap();
    let job = job.into_inner().job.unwrap();
    assert_eq!(job.wishes.unwrap().hosts, 2);
    let outlook = job.outlook.unwrap();
    assert!(outlook.finish_time_p50.is_none(), "{outlook:?}");
    assert!(outlook.note.contains("not known"), "{outlook:?}");
    let attempt = &job.attempts[0];
    let parts: Vec<(&str, &[u32])> = attempt
        .parts
        .iter()
        .map(|part| (part.worker_display_name.as_str(), part.gpus.as_slice()))
        .collect();
    assert_eq!(parts, [("one", &[0, 1][..]), ("two", &[0, 1][..])]);
    // Four GPUs at 1.08 dollars each.
    assert_eq!(attempt.price_per_hour_usd_micros, Some(4_320_000));
    server.stop().await;
}
