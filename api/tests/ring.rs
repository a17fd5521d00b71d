//! The ring through the front door: submitted, placed, run, recorded, and the next estimate knows more.

use std::io::Cursor;

use stepcast_estimator::arrow::array::AsArray;
use stepcast_estimator::arrow::datatypes::Int64Type;
use stepcast_estimator::arrow::ipc::reader::StreamReader;
use stepcast_proto::v1;
use stepcast_records::Histogram;
use stepcast_scheduler::State;
use stepcast_scheduler::accounts::Action;
use tonic::Code;
use v1::run_query_response::Part;
use v1::watch_job_response::Update;

use crate::support::{CONFIG, Server, files, reason, submission, until};

const COUNT: &str = "SELECT count(*) AS n FROM training_steps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_round_the_ring_and_the_next_estimate_knows_more() {
    let server = Server::start().await;
    let before = estimate(&server).await;
    let mut worker = server.worker("replay-1", &["replay"]).await;
    let submitted = server
        .jobs()
        .submit_job(submission('1'))
        .await
        .unwrap()
        .into_inner();
    let job = submitted.job.unwrap();
    assert_eq!(submitted.estimates.len(), 1);
    let watch = v1::WatchJobRequest {
        name: job.name.clone(),
        logs: true,
        after_seq: 0,
    };
    let mut watch = server.jobs().watch_job(watch).await.unwrap().into_inner();

    let assignment = worker.assigned().await;
    assert_eq!(
        (assignment.job.as_str(), assignment.attempt),
        (job.name.as_str(), 1)
    );
    assert_eq!(assignment.workload, job.workload);
    assert_eq!(
        worker
            .agent
            .files(&job.name, assignment.epoch)
            .await
            .unwrap(),
        files(CONFIG)
    );
    let log = v1::LogLines {
        epoch: assignment.epoch,
        lines: vec!["loading".to_owned()],
    };
    worker
        .say(v1::attach_request::Report::Log(log.clone()))
        .await;
    let progress = v1::Progress {
        epoch: assignment.epoch,
        phase: v1::Phase::Loading.into(),
        ..v1::Progress::default()
    };
    worker
        .say(v1::attach_request::Report::Progress(progress))
        .await;
    let mut left = None;
    let (mut seq, mut kinds, mut lines) = (0, Vec::new(), Vec::new());
    while left.is_none() {
        let update = watch.message().await.unwrap().unwrap();
        match update.update.unwrap() {
            Update::Current(current) => seq = u64::from_str_radix(&current.etag, 16).unwrap(),
            Update::Event(event) => {
                assert_eq!(event.seq, seq + 1);
                seq = event.seq;
                kinds.push(event.kind);
            }
            Update::Log(log) => lines.extend(log.lines),
            Update::Progress(progress) => left = progress.remaining_time,
        }
    }
    // Nothing was shown yet, so what is left is what was expected: 150 steps and what surrounds them.
    let seconds = |times: &v1::TimeQuantiles| times.p50.as_ref().unwrap().seconds;
    let whole =
        before.run_time.as_ref().map_or(0, seconds) + before.setup_time.as_ref().map_or(0, seconds);
    let told = left.as_ref().map_or(0, seconds);
    // Each is rounded by itself.
    assert!(
        (whole - 10..=whole + 2).contains(&told),
        "{told} of {whole}"
    );
    let mut jobs = server.jobs();
    let running = jobs.get_job(v1::GetJobRequest {
        name: job.name.clone(),
        with_outlook: true,
    });
    let running = running.await.unwrap().into_inner().job.unwrap();
    let outlook = running.outlook.expect("it was asked for");
    assert!(outlook.start_time_p50.is_none() && outlook.worlds > 0);
    let done = [outlook.finish_time_p50, outlook.finish_time_p90];
    let done = done.map(|time| time.expect("it is told").seconds);
    assert!(done.is_sorted(), "{done:?}");
    let again = running
        .progress
        .and_then(|progress| progress.remaining_time);
    assert!((told - 10..=told).contains(&again.as_ref().map_or(0, seconds)));
    worker.succeed(&assignment).await;

    while let Some(update) = watch.message().await.unwrap() {
        match update.update.unwrap() {
            Update::Current(_) => panic!("the job itself comes first and once"),
            Update::Event(event) => {
                assert_eq!(event.seq, seq + 1);
                seq = event.seq;
                kinds.push(event.kind);
            }
            Update::Log(log) => lines.extend(log.lines),
            Update::Progress(_) => {}
        }
    }
    assert_eq!(kinds.last().map(String::as_str), Some("SUCCEEDED"));
    let ends = kinds.iter().filter(|kind| *kind == "ATTEMPT_ENDED").count();
    assert_eq!((ends, lines), (1, log.lines));

    goes_on_where_another_watch_ended(&server, &job.name, seq).await;

    until("the job's files are deleted", || server.staged().is_empty()).await;
    let gone = worker
        .agent
        .files(&job.name, assignment.epoch)
        .await
        .unwrap_err();
    // By this a worker knows that the results may go.
    assert_eq!(
        (gone.code(), reason(&gone).as_str()),
        (tonic::Code::NotFound, "NO_SUCH_JOB")
    );

    for _ in 0..2 {
        worker
            .agent
            .contribute([7; 16], vec![sample(&assignment, "replayx1")])
            .await
            .unwrap();
    }
    let foreign = worker
        .agent
        .contribute([8; 16], vec![sample(&assignment, "h100x1")])
        .await
        .unwrap_err();
    assert_eq!(reason(&foreign), "FOREIGN_HARDWARE");
    assert_eq!(count(&server).await, 1);
    let after = estimate(&server).await;
    assert_eq!((after.basis(), after.rows), (v1::Basis::Exact, 1));
    assert_ne!(before.step_time, after.step_time);
    let sources = server
        .records()
        .list_sources(v1::ListSourcesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((sources.training_rows, sources.cells), (1, 1));
    // What has waited is taken although the worker has fewer GPUs by now.
    worker
        .agent
        .contribute([9; 16], vec![sample(&assignment, "replayx4")])
        .await
        .unwrap();
    assert_eq!(count(&server).await, 2);
    server.stop().await;
}

/// A worker's token is no leave to write into everybody's records: samples are of attempts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_contributes_no_more_than_it_was_given() {
    let server = Server::start().await;
    let mut worker = server.worker("replay-1", &["replay"]).await;
    let submitted = server.jobs().submit_job(submission('1')).await.unwrap();
    let job = submitted.into_inner().job.unwrap().name;
    let assignment = worker.assigned().await;
    // It asks for the files of its one attempt as often as it likes.
    for _ in 0..40 {
        let files = worker.agent.files(&job, assignment.epoch).await;
        files.unwrap();
    }
    let contribute = |number: u8| {
        let samples = vec![sample(&assignment, "replayx1")];
        worker.agent.contribute([number; 16], samples)
    };
    let mut taken = 0;
    let refused = loop {
        match contribute(taken).await {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (tonic::Code::ResourceExhausted, "MORE_THAN_WAS_RUN")
    );
    assert_eq!(taken, 17, "some to begin with, and one of an attempt");
    assert_eq!(count(&server).await, 17);
    let three = vec![sample(&assignment, "replayx1"); 3];
    let three = worker.agent.contribute([99; 16], three).await.unwrap_err();
    assert_eq!(three.code(), tonic::Code::InvalidArgument);
    server.stop().await;
}

/// A watch that goes on from an event tells every later one once, then the job, and never goes back.
async fn goes_on_where_another_watch_ended(server: &Server, job: &str, newest: u64) {
    let watch = |after_seq| {
        let request = v1::WatchJobRequest {
            name: job.to_owned(),
            logs: false,
            after_seq,
        };
        let mut jobs = server.jobs();
        async move {
            let mut watch = jobs.watch_job(request).await.unwrap().into_inner();
            let mut told = Vec::new();
            while let Some(update) = watch.message().await? {
                told.push((
                    update.seq,
                    matches!(update.update, Some(Update::Current(_))),
                ));
            }
            Ok::<_, tonic::Status>(told)
        }
    };
    for known in 1..=newest {
        let mut expected: Vec<_> = (known + 1..=newest).map(|seq| (seq, false)).collect();
        expected.push((newest, true));
        assert_eq!(watch(known).await.unwrap(), expected, "after {known}");
    }
    assert_eq!(watch(0).await.unwrap(), [(newest, true)]);
    let ahead = watch(newest + 1).await.unwrap_err();
    assert_eq!(reason(&ahead), "WATCH_AHEAD");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_stand_in_the_audit_log_without_what_they_are_called() {
    let server = Server::start().await;
    // The audit log is of the newest format, which a new log reaches in a moment.
    until("the newest format", || {
        server.handle.read_stale(State::format) >= 3
    })
    .await;
    let figures = v1::ImportRecordsRequest {
        source: "anas-desk".into(),
        csv: "recipe,hardware\n".into(),
        mapping: String::new(),
    };
    let unknown = v1::ImportRecordsRequest {
        mapping: "nobody-s".into(),
        ..figures.clone()
    };
    let refused = server.records().import_records(unknown).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    // Written down before it is done, and so whatever becomes of it.
    let _ = server.records().import_records(figures).await;
    let prices = v1::ImportPricesRequest {
        source: "anas-desk".into(),
        csv: "hardware,usd_per_gpu_hour,valid_from,source\nh100,2.5,2026-11-01,a\n".into(),
        ..v1::ImportPricesRequest::default()
    };
    server.estimates().import_prices(prices).await.unwrap();
    let told: Vec<(Action, String)> = server.handle.read_stale(|state| {
        let entries = state.accounts().trail().after(0);
        let told = entries.map(|entry| (entry.action, entry.subject.clone()));
        told.collect()
    });
    let rules = |subject: &str| (Action::ChangeRules, subject.to_owned());
    assert_eq!(told, [rules("records"), rules("prices")]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_figures_are_asked_in_sql() {
    let server = Server::start().await;
    let csv = "recipe,hardware,resolution_mp,batch_size,gradient_accumulation_steps,precision,quantization,avg_step_ms,\
               steps_observed\nflux.dev/lora,rtx4090x1,1.0,4,1,bf16,int8,14000,150\nnobody/knows,rtx4090x1,1.0,4,1,bf16,\
               int8,14000,150\n";
    let import = v1::ImportRecordsRequest {
        source: "test".into(),
        csv: csv.into(),
        mapping: String::new(),
    };
    let imported = server
        .records()
        .import_records(import.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (imported.lines, imported.rows_stored, imported.refused.len()),
        (2, 1, 1)
    );
    assert_eq!(imported.refused[0].first_line, 3);
    let again = server
        .records()
        .import_records(import)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((again.rows_stored, again.rows_known), (0, 1));
    assert_eq!(count(&server).await, 1);
    let refused = query(&server, "DROP TABLE training_steps")
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "STATEMENT_REFUSED");
    let tables = server
        .records()
        .list_tables(v1::ListTablesRequest {})
        .await
        .unwrap()
        .into_inner()
        .tables;
    assert_eq!(tables[0].columns.len(), 9);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_import_brought_is_taken_back_in_somebodys_name() {
    let server = Server::start().await;
    until("the newest format", || {
        server.handle.read_stale(State::format) >= 3
    })
    .await;
    let import = v1::ImportRecordsRequest {
        source: "test".into(),
        csv: "recipe,hardware,resolution_mp,batch_size,gradient_accumulation_steps,precision,quantization,avg_step_ms,\
              steps_observed\nflux.dev/lora,rtx4090x1,1.0,4,1,bf16,int8,14,150\n"
            .into(),
        mapping: String::new(),
    };
    let imported = server.records().import_records(import.clone()).await;
    assert_eq!(imported.unwrap().into_inner().rows_stored, 1);
    let mut records = server.records();
    let versions = records.list_versions(v1::ListVersionsRequest { newest: 1 });
    let tables = versions.await.unwrap().into_inner().tables;
    let [training, validation] = &tables[..] else {
        panic!("{tables:?}")
    };
    assert!(validation.versions.is_empty(), "nothing came there");
    let [newest] = &training.versions[..] else {
        panic!("one was asked for: {training:?}")
    };
    assert_eq!((newest.version, newest.rows), (1, 1));
    assert_eq!(
        (newest.what.as_str(), newest.source.as_str()),
        ("imported", "test")
    );

    let take_back = |request: v1::TakeBackRowsRequest| {
        let mut records = server.records();
        async move { Ok::<_, tonic::Status>(records.take_back_rows(request).await?.into_inner().tables) }
    };
    let nothing = take_back(v1::TakeBackRowsRequest::default()).await;
    assert_eq!(nothing.unwrap_err().code(), Code::InvalidArgument);
    let since = v1::TakeBackRowsRequest {
        since: newest.commit_time,
        dry_run: true,
        ..v1::TakeBackRowsRequest::default()
    };
    let would = take_back(since).await.unwrap();
    let [would] = &would[..] else {
        panic!("{would:?}")
    };
    assert_eq!((would.rows, would.rows_before), (1, 0));
    let of = (would.of[0].recipe.as_str(), would.of[0].hardware.as_str());
    assert_eq!(of, ("flux.dev/lora", "rtx4090x1"));
    assert_eq!(count(&server).await, 1);
    let range = v1::VersionRange {
        table: "training_steps".into(),
        after: 0,
        to: 1,
    };
    let named = v1::TakeBackRowsRequest {
        ranges: vec![range],
        ..v1::TakeBackRowsRequest::default()
    };
    let taken = take_back(named.clone()).await.unwrap();
    assert_eq!((taken[0].rows, taken[0].rows_before), (1, 0));
    assert_eq!(count(&server).await, 0);
    let again = take_back(named.clone()).await.unwrap();
    assert_eq!((again[0].rows, again[0].rows_before), (0, 1));
    // There is no such version, nor a time without a beginning.
    let mut none = named;
    for (after, to) in [(1, 9), (u64::MAX, u64::MAX), (1, 0)] {
        (none.ranges[0].after, none.ranges[0].to) = (after, to);
        let refused = take_back(none.clone()).await.unwrap_err();
        assert_eq!(reason(&refused), "RECORDS_INVALID", "{refused:?}");
    }
    none.until = newest.commit_time;
    let refused = take_back(none).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let again = server.records().import_records(import).await.unwrap();
    assert_eq!(again.into_inner().rows_known, 1);
    assert_eq!(count(&server).await, 0);
    let told: Vec<String> = server.handle.read_stale(|state| {
        let entries = state.accounts().trail().after(0);
        entries.map(|entry| entry.subject.clone()).collect()
    });
    let taken = "records/training_steps/1-1";
    assert_eq!(told, ["records", taken, "records"], "once, as it went");
    server.stop().await;
}

async fn estimate(server: &Server) -> v1::Estimate {
    let request = v1::EstimateJobRequest {
        files: files(CONFIG),
        sample_counts: vec![],
        hardware: vec!["replay".into()],
    };
    let answer = server
        .estimates()
        .estimate_job(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.steps_total, answer.validation_passes), (150, 3));
    answer.estimates[0].clone()
}

/// What a run of the assignment measured.
fn sample(assignment: &v1::Assignment, hardware: &str) -> v1::Sample {
    let mut histogram = Histogram::new();
    (0..40).for_each(|_| histogram.record_ms(1_400.0).unwrap());
    let workload = assignment.workload.as_ref().unwrap();
    let key = v1::TrainingKey {
        recipe: workload.recipe.clone(),
        hardware: hardware.to_owned(),
        half_megapixels: workload.datasets[0].half_megapixels,
        batch_size: workload.datasets[0].batch_size,
        gradient_accumulation_steps: workload.gradient_accumulation_steps,
        precision: workload.precision.clone(),
        quantization: workload.quantization.clone(),
    };
    v1::Sample {
        key: Some(v1::sample::Key::Training(key)),
        histogram_v2: histogram.to_v2_bytes(),
    }
}

async fn count(server: &Server) -> i64 {
    let (arrow, summary) = query(server, COUNT).await.unwrap();
    assert_eq!(summary.rows, 1);
    let mut rows = StreamReader::try_new(Cursor::new(arrow), None).unwrap();
    rows.next()
        .unwrap()
        .unwrap()
        .column(0)
        .as_primitive::<Int64Type>()
        .value(0)
}

/// The pieces of the Arrow stream together, and the summary, which comes last.
async fn query(server: &Server, sql: &str) -> Result<(Vec<u8>, v1::QuerySummary), tonic::Status> {
    let request = v1::RunQueryRequest {
        sql: sql.to_owned(),
        max_rows: 0,
    };
    let mut parts = server.records().run_query(request).await?.into_inner();
    let mut arrow = Vec::new();
    loop {
        match parts
            .message()
            .await?
            .expect("a summary comes last")
            .part
            .unwrap()
        {
            Part::ArrowIpc(piece) => arrow.extend(piece),
            Part::Summary(summary) => {
                assert!(parts.message().await?.is_none());
                return Ok((arrow, summary));
            }
        }
    }
}
