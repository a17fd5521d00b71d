//! People who submit jobs to a server that keeps dying: each asks with one request id until there is an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stepcast_proto::v1::{self, jobs_service_client::JobsServiceClient};
use stepcast_tests::random::Random;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

use crate::work;

/// Jobs that are not over at one time: the pretend devices stay busy though many wait for a retry.
const UNFINISHED: usize = 40;

/// After the last kill, what waits for a long retry is cancelled after this long.
const PATIENCE: Duration = Duration::from_secs(45);

/// Everything must be over this long after the last kill: leases end, retries start, or are cancelled.
const END: Duration = Duration::from_secs(240);

/// Between two looks at the queue.
const LOOK: Duration = Duration::from_millis(100);

/// Those people.
pub(crate) struct People {
    jobs: JobsServiceClient<Channel>,
    random: Mutex<Random>,
    /// Acknowledged jobs by their names, each with its request id.
    wishes: Mutex<BTreeMap<String, String>>,
}

impl People {
    pub(crate) fn new(address: String, random: Random) -> Arc<Self> {
        let channel = Endpoint::from_shared(address)
            .unwrap()
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(5))
            .connect_lazy();
        let jobs = JobsServiceClient::new(channel);
        Arc::new(Self {
            jobs,
            random: Mutex::new(random),
            wishes: Mutex::default(),
        })
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.wishes.lock().unwrap().len()
    }

    /// Acknowledged jobs by their names, each with its request id.
    pub(crate) fn wishes(&self) -> BTreeMap<String, String> {
        self.wishes.lock().unwrap().clone()
    }

    /// Keeps the queue filled until it is closed; one job in eight is cancelled soon after.
    pub(crate) async fn submit_until(self: Arc<Self>, closing: Arc<AtomicBool>) {
        let mut number = 0;
        while !closing.load(Ordering::Acquire) {
            let unfinished = self.list().await.iter().filter(|job| !is_over(job)).count();
            if unfinished >= UNFINISHED {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let job = self.submit(number).await;
            number += 1;
            if self.random.lock().unwrap().within(0..8) == 0 {
                self.cancel(&job).await;
            }
        }
    }

    /// Waits until everything is over and gives it back.
    pub(crate) async fn await_ends(&self) -> Vec<v1::Job> {
        let begun = Instant::now();
        loop {
            let jobs = self.list().await;
            let open: Vec<&v1::Job> = jobs.iter().filter(|job| !is_over(job)).collect();
            if open.is_empty() {
                return jobs;
            }
            assert!(begun.elapsed() < END, "these jobs do not end: {open:#?}");
            if begun.elapsed() > PATIENCE {
                for job in &open {
                    self.cancel(&job.name).await;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn submit(&self, number: u64) -> String {
        let request_id = self.random.lock().unwrap().request_id();
        let request = v1::SubmitJobRequest {
            request_id: request_id.clone(),
            validate_only: false,
            files: work::files(number),
            sample_counts: vec![v1::SampleCount {
                dataset: String::new(),
                samples: 20,
            }],
            wishes: Some(v1::JobWishes {
                allow: vec!["replay".to_owned()],
                trainer: v1::Trainer::Replay.into(),
                ..v1::JobWishes::default()
            }),
        };
        loop {
            match self.jobs.clone().submit_job(request.clone()).await {
                Ok(answer) => {
                    let job = answer.into_inner().job.unwrap().name;
                    let before = self.wishes.lock().unwrap().insert(job.clone(), request_id);
                    assert_eq!(before, None, "two requests gave one job");
                    return job;
                }
                Err(status) => again(&status).await,
            }
        }
    }

    async fn cancel(&self, job: &str) {
        loop {
            let request = v1::CancelJobRequest {
                name: job.to_owned(),
                request_id: String::new(),
            };
            match self.jobs.clone().cancel_job(request).await {
                Ok(_) => return,
                // It was over already.
                Err(status) if status.code() == Code::FailedPrecondition => return,
                Err(status) => again(&status).await,
            }
        }
    }

    async fn list(&self) -> Vec<v1::Job> {
        let mut jobs = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListJobsRequest {
                page_size: 1_000,
                page_token: page_token.clone(),
                states: Vec::new(),
                with_outlook: false,
            };
            match self.jobs.clone().list_jobs(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    jobs.extend(answer.jobs);
                    if answer.next_page_token.is_empty() {
                        return jobs;
                    }
                    page_token = answer.next_page_token;
                }
                Err(status) => again(&status).await,
            }
        }
    }
}

/// Whether a job has ended.
pub(crate) fn is_over(job: &v1::Job) -> bool {
    matches!(
        job.state(),
        v1::JobState::Succeeded | v1::JobState::Failed | v1::JobState::Cancelled
    )
}

/// A server that is away or just back says so in one of these ways; anything else is a mistake.
async fn again(status: &tonic::Status) {
    let told = status.get_details_error_info();
    let away = match &told {
        // The server itself has spoken: that something went wrong inside is no way of being away.
        Some(_) => matches!(status.code(), Code::Unavailable | Code::ResourceExhausted),
        // What a connection that was cut in the middle of an answer looks like.
        None => matches!(
            status.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Unknown
                | Code::Internal
        ),
    };
    assert!(away, "{status:?} {told:?}");
    tokio::time::sleep(Duration::from_millis(30)).await;
}
