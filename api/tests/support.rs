//! A server in a temporary folder, and the callers of it.

mod agents;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stepcast_api::{
    ApiConfig, EstimatedForecasts, EstimatedPrices, EstimatorSink, StagingArea, serve,
};
use stepcast_cluster::credentials::MemoryKeeper;
use stepcast_cluster::{Clock, Config, Handle, HostClock, Node, Ports, RecordSink, Staging, Tasks};
use stepcast_estimator::{Estimator, PriceBook, StoreConfig};
use stepcast_proto::v1;
use stepcast_scheduler::ids::StagingId;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_types::StatusExt;
use v1::estimates_service_client::EstimatesServiceClient;
use v1::jobs_service_client::JobsServiceClient;
use v1::records_service_client::RecordsServiceClient;
use v1::workers_service_client::WorkersServiceClient;

pub(crate) use self::agents::{Agent, Worker};

/// Anything here takes milliseconds; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration that can be read: the policy's own example.
pub(crate) const CONFIG: &str = r#"{
    "model_family": "flux", "model_flavour": "dev", "model_type": "lora", "lora_type": "standard", "lora_rank": 16,
    "optimizer": "adamw_bf16", "output_dir": "/tmp/out", "data_backend_config": "config/multidatabackend.json",
    "resolution": 1024, "train_batch_size": 4, "mixed_precision": "bf16", "base_model_precision": "int8-quanto",
    "gradient_checkpointing": true, "num_train_epochs": 0, "max_train_steps": 150, "checkpoint_step_interval": 50,
    "validation_prompt": "a cat", "validation_negative_prompt": "blurry", "validation_disable_unconditional": true,
    "validation_resolution": "1024x1024", "num_validation_images": 3, "validation_num_inference_steps": 20,
    "validation_step_interval": 75
}"#;

/// Its data loader.
pub(crate) const LOADER: &str = r#"[
    {"id": "cats", "type": "local", "instance_data_dir": "/tmp/cats"},
    {"id": "text", "type": "local", "dataset_type": "text_embeds", "default": true, "cache_dir": "/tmp/text"}
]"#;

/// The host's clocks, and so much later as a test says.
pub(crate) struct Later {
    host: HostClock,
    by_ms: AtomicU64,
}

impl Later {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            host: HostClock::new(),
            by_ms: AtomicU64::new(0),
        })
    }

    pub(crate) fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.by_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Later {
    fn wall_ms(&self) -> u64 {
        self.host.wall_ms() + self.by_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.host.monotonic() + Duration::from_millis(self.by_ms.load(Ordering::SeqCst))
    }
}

pub(crate) struct Server {
    pub(crate) dir: TempDir,
    pub(crate) handle: Handle,
    pub(crate) estimator: Arc<Estimator>,
    pub(crate) channel: Channel,
    pub(crate) port: u16,
    pub(crate) tasks: Arc<Tasks>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), stepcast_api::Error>>,
}

/// The format of the log unless a test says another one.
const NEWEST: u16 = stepcast_cluster::LOG_FORMAT as u16;

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(ApiConfig::default()).await
    }

    pub(crate) async fn with(api: ApiConfig) -> Self {
        Self::by(api, Arc::new(HostClock::new())).await
    }

    /// One whose log stays in this format.
    pub(crate) async fn held_at(log_format: u16) -> Self {
        let (api, clock) = (ApiConfig::default(), Arc::new(HostClock::new()));
        let recorder = |estimator| Arc::new(EstimatorSink(estimator)) as Arc<dyn RecordSink>;
        Self::of(api, clock, log_format, None, recorder).await
    }

    /// One in whose staging area the files of one person take so many bytes.
    pub(crate) async fn sharing(api: ApiConfig, bytes: usize) -> Self {
        let recorder = |estimator| Arc::new(EstimatorSink(estimator)) as Arc<dyn RecordSink>;
        let clock = Arc::new(HostClock::new());
        Self::of(api, clock, NEWEST, Some(bytes), recorder).await
    }

    /// A server that goes by this clock.
    pub(crate) async fn by(api: ApiConfig, clock: Arc<dyn Clock>) -> Self {
        let recorder = |estimator| Arc::new(EstimatorSink(estimator)) as Arc<dyn RecordSink>;
        Self::of(api, clock, NEWEST, None, recorder).await
    }

    /// One with a recorder of its own.
    pub(crate) async fn recording(
        api: ApiConfig,
        recorder: impl FnOnce(Arc<Estimator>) -> Arc<dyn RecordSink>,
    ) -> Self {
        Self::of(api, Arc::new(HostClock::new()), NEWEST, None, recorder).await
    }

    async fn of(
        api: ApiConfig,
        clock: Arc<dyn Clock>,
        log_format: u16,
        share: Option<usize>,
        recorder: impl FnOnce(Arc<Estimator>) -> Arc<dyn RecordSink>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreConfig::folder(dir.path().join("records"));
        let estimator = Arc::new(Estimator::open(store, PriceBook::shipped()).await.unwrap());
        let staging = StagingArea::open(dir.path().join("staging")).unwrap();
        let staging = Arc::new(match share {
            Some(bytes) => staging.with_share(bytes),
            None => staging,
        });
        let ports = Ports {
            forecast: Arc::new(EstimatedForecasts(Arc::clone(&estimator))),
            prices: Arc::new(EstimatedPrices(Arc::clone(&estimator))),
            recorder: recorder(Arc::clone(&estimator)),
            staging: Arc::clone(&staging) as Arc<dyn Staging>,
            credentials: Arc::new(MemoryKeeper::default()),
            clock,
        };
        let config = Config {
            sweep_every: Duration::from_millis(100),
            log_format,
            ..Config::new(dir.path().join("node"))
        };
        let handle = Node::start(config, ports).unwrap();
        assert!(handle.leading().await);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = endpoint(&api, port);
        let tasks = Arc::new(Tasks::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(serve(
            api,
            handle.clone(),
            Arc::clone(&estimator),
            staging,
            listener,
            Arc::clone(&tasks),
            stopped,
        ));
        let channel = endpoint.connect().await.unwrap();
        Self {
            dir,
            handle,
            estimator,
            channel,
            port,
            tasks,
            stop,
            serving,
        }
    }

    pub(crate) fn jobs(&self) -> JobsServiceClient<Channel> {
        JobsServiceClient::new(self.channel.clone())
    }

    pub(crate) fn estimates(&self) -> EstimatesServiceClient<Channel> {
        EstimatesServiceClient::new(self.channel.clone())
    }

    pub(crate) fn records(&self) -> RecordsServiceClient<Channel> {
        RecordsServiceClient::new(self.channel.clone())
    }

    pub(crate) fn workers(&self) -> WorkersServiceClient<Channel> {
        WorkersServiceClient::new(self.channel.clone())
    }

    /// The submissions in the staging area, as another node finds them.
    pub(crate) fn staged(&self) -> Vec<StagingId> {
        let area = StagingArea::open(self.dir.path().join("staging")).unwrap();
        futures::executor::block_on(area.older_than(Duration::ZERO, 1_000)).unwrap()
    }

    /// A new worker's token.
    pub(crate) async fn token(&self, name: &str) -> v1::CreateWorkerTokenResponse {
        let request = v1::CreateWorkerTokenRequest {
            display_name: name.to_owned(),
        };
        self.workers()
            .create_worker_token(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// A worker with these GPUs that has registered and attached.
    pub(crate) async fn worker(&self, name: &str, gpus: &[&str]) -> Worker {
        self.worker_on(name, 'a', gpus).await
    }

    /// The same on a state folder of its own.
    pub(crate) async fn worker_on(&self, name: &str, folder: char, gpus: &[&str]) -> Worker {
        let agent = Agent::new(self, self.token(name).await.secret);
        let registered = agent.register(folder, gpus).await.unwrap();
        agent.attach(registered.worker, folder).await.unwrap()
    }

    /// The same at an address that other hosts reach.
    pub(crate) async fn worker_at(
        &self,
        name: &str,
        folder: char,
        gpus: &[&str],
        gang_address: &str,
    ) -> Worker {
        let agent = Agent::new(self, self.token(name).await.secret);
        let registered = agent.register_at(folder, gpus, gang_address).await.unwrap();
        agent.attach(registered.worker, folder).await.unwrap()
    }

    /// Stops the server; whatever streams are open end.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        timeout(PATIENCE, self.serving)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.handle.shutdown().await;
    }

    /// Waits until the server ends by itself, and why; then the rest of it is stopped.
    pub(crate) async fn ended(self) -> stepcast_api::Error {
        let served = timeout(PATIENCE, self.serving).await.unwrap().unwrap();
        self.handle.shutdown().await;
        served.unwrap_err()
    }
}

/// The way to a server on this port: by TLS if it has a certificate, which is all that is trusted then.
pub(crate) fn endpoint(api: &ApiConfig, port: u16) -> Endpoint {
    let Some(tls) = &api.tls else {
        return Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trusted = Certificate::from_pem(std::fs::read(&tls.files().certificate).unwrap());
    Endpoint::from_shared(format!("https://localhost:{port}"))
        .unwrap()
        .tls_config(ClientTlsConfig::new().ca_certificate(trusted))
        .unwrap()
}

/// The files of a submission.
pub(crate) fn files(config: &str) -> Vec<v1::JobFile> {
    let file = |role: v1::FileRole, name: &str, content: &str| v1::JobFile {
        role: role.into(),
        name: name.to_owned(),
        content: content.into(),
    };
    vec![
        file(v1::FileRole::Config, "config.json", config),
        file(v1::FileRole::DataLoader, "multidatabackend.json", LOADER),
    ]
}

/// A submission of a replay with this request id, one digit repeated.
pub(crate) fn submission(id: char) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        request_id: id.to_string().repeat(32),
        files: files(CONFIG),
        wishes: Some(v1::JobWishes {
            trainer: v1::Trainer::Replay.into(),
            ..v1::JobWishes::default()
        }),
        ..v1::SubmitJobRequest::default()
    }
}

/// The stable reason of a refusal.
pub(crate) fn reason(status: &Status) -> String {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("{status:?} has no reason"));
    assert_eq!(info.domain, stepcast_api::status::DOMAIN);
    info.reason
}

/// Waits until something holds, for what nothing tells of.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    let looking = async {
        while !holds() {
            looks.tick().await;
        }
    };
    timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| panic!("in time: {what}"));
}
