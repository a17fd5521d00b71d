//! One node put together: the estimator, the log with its duties, the staging area and the front door.

mod certificate;
mod ports;
mod staging;
mod tables;

use std::path::Path;
use std::sync::Arc;

use stepcast_api::{
    AccessToken, ApiConfig, Error as ServeError, EstimatedForecasts, EstimatedPrices,
    EstimatorSink, Probes, StagingArea,
};
use stepcast_cluster::consensus::log::Error as LogError;
use stepcast_cluster::credentials::MemoryKeeper;
use stepcast_cluster::peers::{self, JoinConfig, JoinError, JoinToken};
use stepcast_cluster::{
    Config, Handle, HostClock, Network, Node, PeerPort, Places, StartError, Tasks,
};
use stepcast_estimator::{Estimator, PriceBook, StoreConfig, sql};
use stepcast_proto::certificate::Shown;
use stepcast_worker::servers::PlainText;
use tokio::net::TcpListener;

use self::certificate::Certificates;
use crate::child::LISTENING;
use crate::command::server::{Join, ServerConfig};
use crate::failure::{Exit, Failure};

/// Where the node lies in the data folder.
pub(crate) const NODE: &str = "node";

/// A node that is ready to serve.
pub(crate) struct Assembled {
    config: ApiConfig,
    handle: Handle,
    estimator: Arc<Estimator>,
    staging: Arc<StagingArea>,
    listener: TcpListener,
    greeting: String,
    /// What runs for as long as the server does, beside the node's own tasks: without one of them it ends.
    tasks: Arc<Tasks>,
}

/// Opens everything that a server needs, and joins a cluster first if that is wanted. With `new_staging` it takes a staging
/// area that has none of the files of its jobs.
pub(crate) async fn start(config: ServerConfig, new_staging: bool) -> Result<Assembled, Failure> {
    certificate::check(&config)?;
    let ports = ports::Ports::open(&config).await?;
    stepcast_cluster::make_folder(&config.data).map_err(|error| {
        refused(
            &format!("the data folder {} cannot be used", config.data.display()),
            &error,
        )
        .hint("choose a folder that this user may write with --data")
    })?;
    let certificates = Certificates::of(&config)?;
    let greeting = greeting(&ports, &certificates)?;
    let here = called_here(&config, &ports.address, &certificates);
    let tasks = Arc::new(Tasks::default());
    let probes = ports
        .metrics
        .map(|listener| Probes::start(listener, certificates.metrics.as_ref(), &tasks))
        .transpose()
        .map_err(|error| refused("metrics cannot be served", &error))?;
    let prices = prices(config.prices.as_deref())?;
    let store = StoreConfig::at(config.store.location.clone());
    let estimator = Estimator::open(store, prices).await;
    let estimator = Arc::new(estimator.map_err(|error| {
        refused(
            &format!("the store {} cannot be used", config.store.location),
            &error,
        )
    })?);
    let statements = sql::Program::this(["sql-process"]);
    estimator.run_statements_in(
        statements.map_err(|error| refused("this program does not find itself", &error))?,
    );
    let staging = StagingArea::at(&config.staging.location)
        .map_err(|error| refused("the staging area cannot be used", &error))?;
    let staging = Arc::new(staging);
    staging.hold(true);
    if let Some(join) = &config.join {
        self::join(&config, join, &ports.peers).await?;
    }
    let needs = stepcast_cluster::Ports {
        forecast: Arc::new(EstimatedForecasts(Arc::clone(&estimator))),
        prices: Arc::new(EstimatedPrices(Arc::clone(&estimator))),
        recorder: Arc::new(EstimatorSink(Arc::clone(&estimator))),
        staging: Arc::clone(&staging) as _,
        credentials: Arc::new(MemoryKeeper::default()),
        clock: Arc::new(HostClock::new()),
    };
    let node = Config {
        lease_term: config.lease_term,
        places: places(&config),
        log_format: config.log_format,
        ..Config::new(config.data.join(NODE))
    };
    let runtime = tokio::runtime::Handle::current();
    let network = Network::Port(ports.peers);
    // Reads the whole log, which blocks.
    let started = tokio::task::spawn_blocking(move || {
        let _entered = runtime.enter();
        Node::start_in(node, needs, network)
    });
    let handle = started
        .await
        .map_err(|error| Failure::refused(error.to_string()))?;
    let handle = handle.map_err(|error| match error {
        StartError::Log(LogError::InUse { .. }) => {
            let data = config.data.display();
            Failure::refused(format!("another server runs on the data folder {data}"))
                .hint("stop it first, or choose another folder with --data")
        }
        error => refused("the log cannot be opened", &error),
    })?;
    let shared = shared(&config, new_staging, &staging, &estimator, &handle, &tasks);
    if let Err(failure) = shared.await {
        handle.shutdown().await;
        return Err(failure);
    }
    let mut greeting = greeting;
    // Only where others come: on loopback whoever is here is let in until there is an operator.
    if !config.listen.ip().is_loopback()
        && config.access_token.is_none()
        && let Some(token) = stepcast_api::first_operator_token(&handle).await
    {
        greeting +=
            &format!("first operator: stepcast {here} user first {token} NAME --out FILE\n");
    }
    tasks.spawn("follower of the records", estimator.follow());
    if let Some(shown) = certificates.shown().cloned() {
        tasks.spawn("look at the certificate", shown.keep());
    }
    // Who asks whether it is ready wants to know whether it serves, which it does from here on.
    if let Some(probes) = &probes {
        let shown = certificates.shown().cloned();
        probes.attach(handle.clone(), Arc::clone(&estimator), shown);
    }
    Ok(Assembled {
        config: front_door(&config, certificates.client)?,
        handle,
        tasks,
        estimator,
        staging,
        listener: ports.client,
        greeting,
    })
}

/// Lets this node into a cluster, unless it belongs to one already.
async fn join(config: &ServerConfig, join: &Join, port: &PeerPort) -> Result<(), Failure> {
    let data_dir = config.data.join(NODE);
    if stepcast_cluster::is_node(&data_dir) {
        return Ok(());
    }
    for (address, flag) in [
        (&port.peer_address, "--peer-address HOST:PORT"),
        (&port.client_address, "--client-address URL"),
    ] {
        if address.is_empty() {
            return Err(Failure::usage(format!(
                "the other nodes cannot reach this one at {}: say where they can with {flag}",
                config.listen.ip()
            )));
        }
    }
    let token = join.token()?;
    let token = JoinToken::parse(&token)
        .map_err(|error| refused("the join token cannot be used", &error))?;
    tracing::info!(through = join.servers.join(", "), "joining a cluster");
    let joined = peers::join(JoinConfig {
        servers: join.servers.clone(),
        token,
        data_dir,
        peer_address: port.peer_address.clone(),
        client_address: port.client_address.clone(),
        log_format: config.log_format.into(),
        store: config.store.shared(),
        staging: config.staging.shared(),
    });
    let joined = joined.await.map_err(|error| {
        let failure = refused("this node has not joined the cluster", &error);
        match error {
            JoinError::Unreached { .. } => failure.hint(
                "--join takes the address for other nodes, the port after the client port unless --peer-listen says \
                 another; `stepcast cluster token` prints it",
            ),
            _ => failure,
        }
    })?;
    tracing::info!(node = joined.node_id, "joined");
    Ok(())
}

/// Makes sure that a node of several uses the places that the others use, also when it has joined long ago. A place that does
/// not answer is asked again by a task.
async fn shared(
    config: &ServerConfig,
    new_staging: bool,
    area: &Arc<StagingArea>,
    estimator: &Arc<Estimator>,
    handle: &Handle,
    tasks: &Tasks,
) -> Result<(), Failure> {
    let alone = staging::is_alone(handle).await;
    let chosen = config.store.chosen && config.staging.chosen;
    if !(alone || chosen) {
        return Err(Failure::refused(
            "a node of a cluster of several needs the places that all nodes share: give --store and --staging",
        )
        .detail("without them its tables and the files of jobs would lie in its own data folder, where no other node comes")
        .hint("`stepcast cluster token` prints both as the other nodes have them"));
    }
    let claim = staging::Claim {
        staging: Arc::clone(area),
        cluster: handle.status().cluster_id,
        alone,
        jobs: (alone && !new_staging).then(|| handle.clone()),
    };
    if !claim.check().await? {
        tasks.spawn_saying("check of the staging area", claim.known(staging::AGAIN));
    }
    let (node, location) = (config.data.join(NODE), config.store.location.clone());
    if !tables::check(estimator, &node, &location).await? {
        let known = tables::known(Arc::clone(estimator), node, location, tables::AGAIN);
        tasks.spawn_saying("check of the tables", known);
    }
    Ok(())
}

/// The places that every node shares, if both are such.
fn places(config: &ServerConfig) -> Option<Places> {
    let shared = config.store.chosen && config.staging.chosen;
    shared.then(|| Places {
        store: config.store.shared(),
        staging: config.staging.shared(),
    })
}

/// How the command line reaches this server from its own host.
fn called_here(config: &ServerConfig, address: &str, certificates: &Certificates) -> String {
    match (&config.tls, &certificates.client) {
        (None, Some(own)) => called(address, Some(&own.files().certificate)),
        _ => called(address, None),
    }
}

/// The options that reach an address, with the file of whom to trust there: what must be asked for stands among them.
fn called(address: &str, ca_file: Option<&Path>) -> String {
    let address = address
        .replace("0.0.0.0", "localhost")
        .replace("[::]", "localhost");
    let mut options = format!("--server {address}");
    if let Some(file) = ca_file {
        options += &format!(" --ca-file {}", file.display());
    }
    if !PlainText::ThisHost.may_call(&address) {
        options += " --allow-plain-text";
    }
    options
}

/// What is printed once people may call: the first line says where.
fn greeting(ports: &ports::Ports, certificates: &Certificates) -> Result<String, Failure> {
    use std::fmt::Write;
    let told = |error: std::io::Error| refused("the port cannot be told", &error);
    let mut text = format!("{LISTENING}{}\n", ports.address);
    let peers = ports.peers.listener.local_addr().map_err(told)?;
    // Writing into a string cannot fail.
    let _ = writeln!(text, "for other nodes on {peers}");
    if let Some(metrics) = &ports.metrics {
        let address = metrics.local_addr().map_err(told)?;
        let scheme = certificates.metrics.as_ref().map_or("http", |_| "https");
        let _ = writeln!(text, "metrics on {scheme}://{address}/metrics");
    }
    text += &certificates.greeting;
    Ok(text)
}

impl Assembled {
    /// What to print on stdout: where people, other nodes and machines may call, a line each.
    pub(crate) fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Serves until then, and closes the log. A task that ends before is a failure: what would be left is half a server, and
    /// whoever has started it starts it again.
    pub(crate) async fn until(self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let served = stepcast_api::serve(
            self.config,
            self.handle.clone(),
            self.estimator,
            self.staging,
            self.listener,
            Arc::clone(&self.tasks),
            stop,
        )
        .await;
        self.handle.shutdown().await;
        self.tasks.shutdown().await;
        served.map_err(|error| unserved(&error))
    }
}

/// Why a server ends that nobody has asked to.
fn unserved(error: &ServeError) -> Failure {
    match error {
        ServeError::Ended(ended) if ended.again => refused("the server has stopped", error).hint(
            "start it again; what it has logged says more, and `Restart=on-failure` has systemd do so",
        ),
        // What it says is what to do first.
        ServeError::Ended(_) => refused("the server has stopped", error),
        _ => refused("the server cannot serve", error),
    }
}

fn front_door(config: &ServerConfig, tls: Option<Arc<Shown>>) -> Result<ApiConfig, Failure> {
    let access_token = config
        .access_token
        .as_deref()
        .map(AccessToken::new)
        .transpose();
    let access_token =
        access_token.map_err(|error| refused("the access token cannot be used", &error))?;
    Ok(ApiConfig {
        access_token,
        tls,
        allow_plaintext: config.allow_plain_text,
        store: config.store.shared(),
        staging: config.staging.shared(),
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

#[cfg(test)]
mod tests {
    use stepcast_cluster::Ended;

    use super::*;

    #[test]
    fn what_is_printed_to_be_typed_asks_for_plain_text_where_it_must_be_asked_for() {
        let trusted = Path::new("/var/lib/stepcast/tls/certificate.pem");
        for (address, ca_file, options) in [
            (
                "http://10.0.0.1:7070",
                None,
                "--server http://10.0.0.1:7070 --allow-plain-text",
            ),
            (
                "http://0.0.0.0:7070",
                None,
                "--server http://localhost:7070",
            ),
            ("http://[::]:7070", None, "--server http://localhost:7070"),
            (
                "https://10.0.0.1:7070",
                Some(trusted),
                "--server https://10.0.0.1:7070 --ca-file /var/lib/stepcast/tls/certificate.pem",
            ),
        ] {
            assert_eq!(called(address, ca_file), options);
        }
    }

    #[test]
    fn a_server_whose_task_has_ended_fails_and_says_which() {
        let failure = unserved(&ServeError::Ended(Ended {
            task: "recorder",
            why: "it has failed: no reason given".to_owned(),
            again: true,
        }));
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(
            failure.text(),
            "error: the server has stopped\n  \
             the recorder has ended: it has failed: no reason given\n  \
             hint: start it again; what it has logged says more, and `Restart=on-failure` has systemd do so\n"
        );
        let failure = unserved(&ServeError::Ended(Ended {
            task: "consensus",
            why: "this node was removed from the cluster".to_owned(),
            again: false,
        }));
        assert_eq!(
            failure.text(),
            "error: the server has stopped\n  \
             the consensus has ended: this node was removed from the cluster\n"
        );
    }
}
