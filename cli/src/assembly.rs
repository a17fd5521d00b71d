//! One node put together: the estimator, the log with its duties, the staging area and the front door.

use std::path::Path;
use std::sync::Arc;

use stepcast_api::{AccessToken, ApiConfig, EstimatedForecasts, EstimatorSink, StagingArea, Tls};
use stepcast_cluster::{Config, Handle, HostClock, Node, Ports};
use stepcast_estimator::{Estimator, Follower, PriceBook, StoreConfig};
use tokio::net::TcpListener;

use crate::command::server::ServerConfig;
use crate::failure::{Exit, Failure};

/// A node that is ready to serve.
pub(crate) struct Assembled {
    config: ApiConfig,
    handle: Handle,
    estimator: Arc<Estimator>,
    staging: Arc<StagingArea>,
    listener: TcpListener,
    address: String,
    /// Keeps the index fresh for as long as it lives.
    _follower: Follower,
}

/// Opens everything that a server needs: the port first, since it is what is most often taken.
pub(crate) async fn start(config: ServerConfig) -> Result<Assembled, Failure> {
    let listener = TcpListener::bind(config.listen).await.map_err(|error| {
        refused(&format!("{} cannot be listened on", config.listen), &error)
            .hint("is another server running? choose another with --listen")
    })?;
    let listens = listener
        .local_addr()
        .map_err(|error| refused("the port cannot be told", &error))?;
    std::fs::create_dir_all(&config.data).map_err(|error| {
        refused(
            &format!("the data folder {} cannot be used", config.data.display()),
            &error,
        )
        .hint("choose a folder that this user may write with --data")
    })?;
    let prices = prices(config.prices.as_deref())?;
    let estimator = Estimator::open(StoreConfig::at(config.store.clone()), prices).await;
    let estimator = Arc::new(estimator.map_err(|error| {
        refused(
            &format!("the store {} cannot be used", config.store),
            &error,
        )
    })?);
    let staging = StagingArea::open(config.data.join("staging"))
        .map_err(|error| refused("the staging area cannot be used", &error))?;
    let staging = Arc::new(staging);
    let ports = Ports {
        forecast: Arc::new(EstimatedForecasts(Arc::clone(&estimator))),
        recorder: Arc::new(EstimatorSink(Arc::clone(&estimator))),
        staging: Arc::clone(&staging) as _,
        clock: Arc::new(HostClock::new()),
    };
    let node = Config {
        lease_term: config.lease_term,
        ..Config::new(config.data.join("node"))
    };
    let runtime = tokio::runtime::Handle::current();
    // Reads the whole log, which blocks.
    let started = tokio::task::spawn_blocking(move || {
        let _entered = runtime.enter();
        Node::start(node, ports)
    });
    let handle = started
        .await
        .map_err(|error| Failure::refused(error.to_string()))?;
    let handle = handle.map_err(|error| refused("the log cannot be opened", &error))?;
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    Ok(Assembled {
        config: front_door(&config)?,
        handle,
        _follower: estimator.follow(),
        estimator,
        staging,
        listener,
        address: format!("{scheme}://{listens}"),
    })
}

impl Assembled {
    /// What to give `--server`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Serves until then, and closes the log.
    pub(crate) async fn until(self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let served = stepcast_api::serve(
            self.config,
            self.handle.clone(),
            self.estimator,
            self.staging,
            self.listener,
            stop,
        )
        .await;
        self.handle.shutdown().await;
        served.map_err(|error| refused("the server cannot serve", &error))
    }
}

fn front_door(config: &ServerConfig) -> Result<ApiConfig, Failure> {
    let access_token = config
        .access_token
        .as_deref()
        .map(AccessToken::new)
        .transpose();
    let access_token =
        access_token.map_err(|error| refused("the access token cannot be used", &error))?;
    let tls = config
        .tls
        .clone()
        .map(|(certificate, key)| Tls { certificate, key });
    Ok(ApiConfig {
        access_token,
        tls,
        allow_plaintext: config.allow_plain_text,
        ..ApiConfig::default()
    })
}

/// The operator's prices, and the shipped ones for what they do not say.
fn prices(file: Option<&Path>) -> Result<PriceBook, Failure> {
    let shipped = PriceBook::shipped();
    let Some(file) = file else { return Ok(shipped) };
    let wrong = format!("the price book {} cannot be used", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| refused(&wrong, &error))?;
    let csv = file
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let read = if csv {
        PriceBook::from_csv(&text)
    } else {
        PriceBook::from_toml(&text)
    };
    Ok(read.map_err(|error| refused(&wrong, &error))?.or(shipped))
}

/// A failure with its whole chain of causes, one line each.
pub(crate) fn refused(primary: &str, error: &dyn std::error::Error) -> Failure {
    let mut failure = Failure::new(Exit::Refused, primary).detail(error.to_string());
    let mut cause = error.source();
    while let Some(deeper) = cause {
        failure.details.push(deeper.to_string());
        cause = deeper.source();
    }
    failure.details.dedup();
    failure
}
