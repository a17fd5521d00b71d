//! A leader to test workers against: the real gRPC service on a real socket, with a script in place of a scheduler.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test file uses its own part"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stepcast_proto::v1;
use stepcast_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};
use v1::attach_request::Report;
use v1::attach_response::Order;

/// How long a thing that must happen may take on a busy machine before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The token that is good.
pub(crate) const TOKEN: &str = "scw_goodgoodgoodgood";

/// What the worker did.
#[derive(Debug)]
pub(crate) enum Event {
    Registered(v1::RegisterWorkerRequest),
    Attached(v1::Hello, Orders),
    Report(Report),
    Samples(v1::ContributeSamplesRequest),
}

pub(crate) type Orders = mpsc::Sender<Result<v1::AttachResponse, Status>>;

/// The files of a small LoRA, with these settings behind the others.
pub(crate) fn files(more: &str) -> Vec<v1::JobFile> {
    let config = format!(r#"{{"--model_family": "flux", "--model_type": "lora"{more}}}"#);
    let loader = br#"[{"id": "text", "type": "local", "dataset_type": "text_embeds", "default": true, "cache_dir": "x"}]"#;
    let file = |role: v1::FileRole, name: &str, content: &[u8]| v1::JobFile {
        role: role.into(),
        name: name.to_owned(),
        content: content.to_vec(),
    };
    vec![
        file(v1::FileRole::Config, "config.json", config.as_bytes()),
        file(v1::FileRole::DataLoader, "multidatabackend.json", loader),
    ]
}

/// The leader's answers, changed by the test while it runs.
pub(crate) struct Ways {
    /// Whether renewals are answered at all.
    pub(crate) answers: AtomicBool,
    /// Whether an answered renewal grants anything.
    pub(crate) grants: AtomicBool,
    /// When the last granted renewal came in.
    pub(crate) granted: Mutex<Option<Instant>>,
    pub(crate) lease_term_ms: u64,
    /// What every call is refused with: code, reason, leader.
    pub(crate) refusal: Mutex<Option<(Code, &'static str, Option<String>)>>,
    pub(crate) files: Vec<v1::JobFile>,
    /// Whether every job is over.
    pub(crate) over: AtomicBool,
    /// Whether ends are acknowledged.
    pub(crate) acknowledges: AtomicBool,
}

pub(crate) struct Leader {
    pub(crate) address: String,
    pub(crate) ways: Arc<Ways>,
    events: mpsc::UnboundedReceiver<Event>,
    serving: tokio::task::JoinHandle<()>,
    orders: Option<Orders>,
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Leader {
    pub(crate) async fn start() -> Self {
        Self::with(10_000, Vec::new()).await
    }

    pub(crate) async fn with(lease_term_ms: u64, files: Vec<v1::JobFile>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, lease_term_ms, files)
    }

    pub(crate) fn on(listener: TcpListener, lease_term_ms: u64, files: Vec<v1::JobFile>) -> Self {
        let address: SocketAddr = listener.local_addr().unwrap();
        let ways = Arc::new(Ways {
            answers: AtomicBool::new(true),
            grants: AtomicBool::new(true),
            granted: Mutex::new(None),
            lease_term_ms,
            refusal: Mutex::new(None),
            files,
            over: AtomicBool::new(false),
            acknowledges: AtomicBool::new(true),
        });
        let (events, received) = mpsc::unbounded_channel();
        let service = AgentServiceServer::new(Service {
            ways: Arc::clone(&ways),
            events,
        });
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            address: format!("http://{address}"),
            ways,
            events: received,
            serving,
            orders: None,
        }
    }

    /// The next thing the worker does.
    pub(crate) async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .expect("the worker does nothing")
            .unwrap();
        if let Event::Attached(_, orders) = &event {
            self.orders = Some(orders.clone());
        }
        event
    }

    /// Goes on until the worker does what is looked for.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    pub(crate) async fn attached(&mut self) -> v1::Hello {
        self.until(|event| {
            if let Event::Attached(hello, _) = event {
                Some(hello)
            } else {
                None
            }
        })
        .await
    }

    /// The epochs of the next renewal.
    pub(crate) async fn renewed(&mut self) -> Vec<u64> {
        self.until(|event| {
            if let Event::Report(Report::Renew(renew)) = event {
                Some(renew.epochs)
            } else {
                None
            }
        })
        .await
    }

    pub(crate) async fn started(&mut self) -> u64 {
        self.until(|event| {
            if let Event::Report(Report::Started(started)) = event {
                Some(started.epoch)
            } else {
                None
            }
        })
        .await
    }

    /// Waits for the word that the worker leaves, before which nothing of what it runs has ended.
    pub(crate) async fn left(&mut self) {
        self.until(|event| match event {
            Event::Report(Report::Leaving(_)) => Some(()),
            Event::Report(Report::Ended(ended)) => panic!("it ended first: {ended:?}"),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn ended(&mut self) -> v1::AttemptEnded {
        self.until(|event| {
            if let Event::Report(Report::Ended(ended)) = event {
                Some(ended)
            } else {
                None
            }
        })
        .await
    }

    pub(crate) async fn order(&self, order: Order) {
        let response = v1::AttachResponse { order: Some(order) };
        self.orders
            .as_ref()
            .expect("attached")
            .send(Ok(response))
            .await
            .unwrap();
    }

    /// Cuts the stream off.
    pub(crate) async fn cut(&mut self) {
        let orders = self.orders.take().expect("attached");
        let _gone = orders.send(Err(Status::unavailable("cut"))).await;
    }

    pub(crate) async fn assign(&self, epoch: u64, trainer: v1::Trainer, workload: v1::Workload) {
        let assignment = v1::Assignment {
            job: format!("jobs/j{epoch}"),
            attempt: 1,
            epoch,
            gpus: vec![0],
            trainer: trainer.into(),
            workload: Some(workload),
            lease_term_ms: self.ways.lease_term_ms,
            max_runtime_ms: None,
            gang: None,
            resume_step: 0,
        };
        self.order(Order::Assign(Box::new(assignment))).await;
    }

    pub(crate) async fn stop(&self, epoch: u64, grace_ms: u64) {
        let reason = v1::StopReason::Cancelled.into();
        self.order(Order::Stop(v1::StopAttempt {
            epoch,
            reason,
            grace_ms,
        }))
        .await;
    }
}

/// A FLUX LoRA of so many steps.
pub(crate) fn workload(steps: u64) -> v1::Workload {
    v1::Workload {
        recipe: "flux.dev/lora".to_owned(),
        precision: "bf16".to_owned(),
        quantization: "none".to_owned(),
        gradient_accumulation_steps: 1,
        context_parallel_size: 1,
        datasets: vec![v1::Dataset {
            half_megapixels: 2,
            batch_size: 1,
            samples: Some(20),
            frames: 1,
            ..Default::default()
        }],
        length: Some(v1::workload::Length::MaxTrainSteps(steps)),
        checkpoint_step_interval: Some(50),
        validation: Some(v1::Validation {
            step_interval: Some(50),
            generations: 3,
            half_megapixels: vec![2],
            inference_steps: 20,
            frames: 1,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A worker process that does not outlive its test.
pub(crate) struct Process(pub(crate) std::process::Child);

impl Process {
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(
            std::process::Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> std::process::ExitStatus {
        tokio::task::spawn_blocking(move || self.0.wait().unwrap())
            .await
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

struct Service {
    ways: Arc<Ways>,
    events: mpsc::UnboundedSender<Event>,
}

impl Service {
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        if let Some((code, reason, leader)) = self.ways.refusal.lock().unwrap().clone() {
            let metadata: HashMap<String, String> = leader
                .map(|leader| ("leader".to_owned(), leader))
                .into_iter()
                .collect();
            return Err(Status::with_error_details(
                code,
                "refused",
                ErrorDetails::with_error_info(reason, "stepcast", metadata),
            ));
        }
        let given = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        if given == Some(&format!("Bearer {TOKEN}")) {
            return Ok(());
        }
        let details = ErrorDetails::with_error_info("INVALID_TOKEN", "stepcast", HashMap::new());
        Err(Status::with_error_details(
            Code::Unauthenticated,
            "the token is not valid",
            details,
        ))
    }

    fn tell(&self, event: Event) {
        let _test_over = self.events.send(event);
    }
}

#[tonic::async_trait]
impl AgentService for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::AttachResponse, Status>> + Send>>;

    async fn register_worker(
        &self,
        request: Request<v1::RegisterWorkerRequest>,
    ) -> Result<Response<v1::RegisterWorkerResponse>, Status> {
        self.admit(&request)?;
        self.tell(Event::Registered(request.into_inner()));
        Ok(Response::new(v1::RegisterWorkerResponse {
            worker: "workers/w2".to_owned(),
            display_name: "test".to_owned(),
        }))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        self.admit(&request)?;
        let mut reports = request.into_inner();
        let Some(Report::Hello(hello)) = reports.message().await?.and_then(|first| first.report)
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (orders, outgoing) = mpsc::channel(64);
        self.tell(Event::Attached(hello, orders.clone()));
        let (ways, events) = (Arc::clone(&self.ways), self.events.clone());
        tokio::spawn(async move {
            while let Some(Ok(request)) = reports.next().await {
                let Some(report) = request.report else {
                    continue;
                };
                let answer = answer(&ways, &report);
                let _test_over = events.send(Event::Report(report));
                if let Some(order) = answer {
                    let _gone = orders
                        .send(Ok(v1::AttachResponse { order: Some(order) }))
                        .await;
                }
            }
            // The worker says nothing more, and hears that all of it has arrived.
            let _gone = orders.send(Err(Status::unavailable("over"))).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn get_assignment_files(
        &self,
        request: Request<v1::GetAssignmentFilesRequest>,
    ) -> Result<Response<v1::GetAssignmentFilesResponse>, Status> {
        self.admit(&request)?;
        if self.ways.over.load(Ordering::SeqCst) {
            let details = ErrorDetails::with_error_info("NO_SUCH_JOB", "stepcast", HashMap::new());
            let message = "there is no such job";
            return Err(Status::with_error_details(Code::NotFound, message, details));
        }
        Ok(Response::new(v1::GetAssignmentFilesResponse {
            files: self.ways.files.clone(),
            ..v1::GetAssignmentFilesResponse::default()
        }))
    }

    async fn contribute_samples(
        &self,
        request: Request<v1::ContributeSamplesRequest>,
    ) -> Result<Response<v1::ContributeSamplesResponse>, Status> {
        self.admit(&request)?;
        self.tell(Event::Samples(request.into_inner()));
        Ok(Response::new(v1::ContributeSamplesResponse {}))
    }
}

fn answer(ways: &Ways, report: &Report) -> Option<Order> {
    match report {
        Report::Renew(renew) if ways.answers.load(Ordering::SeqCst) => {
            let grants = ways.grants.load(Ordering::SeqCst);
            if grants {
                *ways.granted.lock().unwrap() = Some(Instant::now());
            }
            let epochs = if grants {
                renew.epochs.clone()
            } else {
                Vec::new()
            };
            Some(Order::Renewed(v1::Renewed {
                renewal: renew.renewal,
                epochs,
                lease_term_ms: ways.lease_term_ms,
            }))
        }
        Report::Ended(ended) if ways.acknowledges.load(Ordering::SeqCst) => {
            Some(Order::Acknowledged(v1::Acknowledged { epoch: ended.epoch }))
        }
        _ => None,
    }
}
