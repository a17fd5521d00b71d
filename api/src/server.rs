//! The server: every service on one listener, with its limits, until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use stepcast_cluster::{Ended, Handle, Tasks};
use stepcast_estimator::Estimator;
use stepcast_proto::v1;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Router;
use v1::accounts_service_server::AccountsServiceServer;
use v1::agent_service_server::AgentServiceServer;
use v1::cluster_service_server::ClusterServiceServer;
use v1::estimates_service_server::EstimatesServiceServer;
use v1::jobs_service_server::JobsServiceServer;
use v1::records_service_server::RecordsServiceServer;
use v1::scheduling_service_server::SchedulingServiceServer;
use v1::workers_service_server::WorkersServiceServer;

use crate::admission::{Admission, Admitted, OfWorkers};
use crate::auth::People;
use crate::certificate;
use crate::config::ApiConfig;
use crate::context::{Context, FINISH_WITHIN, Places};
use crate::flight::Flight;
use crate::grpc::{
    Accounts, Agent, Cluster, Credits, Estimates, Jobs, Records, Scheduling, Workers,
};
use crate::listen::Incoming;
use crate::open::Open;
use crate::oversize::Explained;
use crate::ports::EstimatedForecasts;
use crate::service;
use crate::service::ahead;
use crate::spoken::Spoken;
use crate::staging::StagingArea;
use crate::submission::FILES_BYTES_MAX;
use crate::{health, http, reading};

/// A message with a submission's files, and what stands round them.
const SUBMISSION_MESSAGE_BYTES: usize = FILES_BYTES_MAX + (256 << 10);

/// A message with a file of measured figures.
const IMPORT_MESSAGE_BYTES: usize = (16 << 20) + (64 << 10);

/// Any other message: the largest is a contribution of a workload's every histogram.
const MESSAGE_BYTES: usize = 8 << 20;

/// A message of few words: the names of somebody or of an organisation, what makes the first operator.
const SMALL_MESSAGE_BYTES: usize = 64 << 10;

/// A message of those that anybody may send: the name of a service.
const NAME_BYTES: usize = 1 << 10;

/// What a client may be sent in one message: a page of a thousand jobs with their attempts.
const ANSWER_BYTES: usize = 32 << 20;

/// Calls of one connection at once. A worker has a handful, the command line one; beyond it calls wait.
const CALLS_PER_CONNECTION: usize = 128;

/// Streams of one connection at once, those that wait included.
const STREAMS_PER_CONNECTION: u32 = 256;

/// Bytes of one call's headers.
const HEADER_BYTES: u32 = 16 << 10;

/// A call without a deadline of its own ends after this long; streams may go on.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// An idle connection is asked whether it is still there this often, and given up without an answer in this time. Workers
/// ask by themselves every 20 s, which is allowed on idle connections too.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// At the end, calls under way may finish for this long: those that are told that they do not are told before.
const DRAIN: Duration = FINISH_WITHIN.saturating_add(Duration::from_secs(2));

/// Why the server did not start or went on no longer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener's address cannot be told.
    #[error("the listener cannot be used")]
    Listener(#[source] io::Error),
    /// Plain text on an address that others can reach.
    #[error(
        "{address} can be reached from other machines, and everything would travel in plain text: give a certificate and \
         its key, or allow plain text if a proxy in front speaks TLS"
    )]
    Plaintext {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// A file of the certificate cannot be read.
    #[error("{} cannot be read", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate cannot be used, or the connections cannot be served.
    #[error("the server cannot go on")]
    Transport(#[from] tonic::transport::Error),
    /// The certificate and its key are no pair that a server can show.
    #[error("the certificate cannot be used")]
    Tls(#[from] rustls::Error),
    /// No certificate can be made.
    #[error("no certificate can be made for these names")]
    Made(#[from] rcgen::Error),
    /// One of the tasks has ended that run for as long as the server does. What is left would be half a server.
    #[error(transparent)]
    Ended(Ended),
    /// The descriptors of the services cannot be read.
    #[error("the descriptors of the services cannot be read")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `shutdown` is done: every service of `stepcast.v1`, Arrow Flight SQL, `grpc.health.v1` and reflection, and
/// `/v1` over HTTP with JSON. Streams are told to
/// end then, and other calls may finish for a few seconds. What runs beside the services is added to `tasks`, which their
/// owner ends; it holds the node's handle.
///
/// # Errors
/// When the configuration does not fit the address, a certificate cannot be used, the listener fails, or one of the `tasks`
/// or of the node's own ends before `shutdown` is done.
pub async fn serve(
    config: ApiConfig,
    handle: Handle,
    estimator: Arc<Estimator>,
    staging: Arc<StagingArea>,
    listener: TcpListener,
    tasks: Arc<Tasks>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::Listener)?;
    check(&config, address)?;
    let mut server = builder();
    let shown = config.tls.as_ref();
    let tls = shown.map(|shown| shown.greeting(&certificate::PROTOCOLS));
    let tls = tls.transpose()?;
    let (close, closing) = watch::channel(false);
    let context = Context {
        forecasts: Arc::new(EstimatedForecasts(Arc::clone(&estimator))),
        handle,
        estimator,
        staging,
        offers: Arc::default(),
        estimating: ahead::estimates(),
        reading: reading::turns(),
        sweeps: service::sweeps(),
        entries: Arc::default(),
        privacy_mode: config.privacy_mode,
        places: Arc::new(Places {
            store: config.store,
            staging: config.staging,
        }),
        began: Instant::now(),
        certificate: config.tls.clone(),
        closing,
    };
    let people = People::new(
        config.access_token,
        address.ip().is_loopback(),
        context.handle.clone(),
    );
    let way = http::Way::new(config.tls.clone());
    let admission = Admission::new(people);
    let router = router(&mut server, &context, admission, way, &tasks).await?;
    let kept = Arc::clone(&context.staging);
    tasks.spawn("keeper of logs", async move { kept.lines().keep().await });
    let handle = context.handle.clone();
    let incoming = Incoming::new(listener, tls, config.connections);
    let mut stopped = close.subscribe();
    let stop = async move {
        // The sender lives until the end of this call.
        let _ = stopped.wait_for(|closing| *closing).await;
    };
    let serving = router.serve_with_incoming_shutdown(incoming, stop);
    tokio::pin!(serving, shutdown);
    tracing::info!(%address, tls = config.tls.is_some(), "serving");
    let ended = tokio::select! {
        served = &mut serving => return Err(served.map_or_else(Error::from, |()| port_ended())),
        ended = tasks.ended() => Some(ended),
        ended = handle.ended() => Some(ended),
        () = &mut shutdown => None,
    };
    close.send_replace(true);
    // What has not finished by then is cut off.
    let drained = tokio::time::timeout(DRAIN, serving).await;
    match ended {
        Some(ended) => Err(Error::Ended(ended)),
        None => Ok(drained.unwrap_or(Ok(()))?),
    }
}

/// Nobody has asked the server to end, and yet no connection comes any more.
fn port_ended() -> Error {
    Error::Ended(Ended {
        task: "port for clients",
        why: "it takes no more connections".to_owned(),
        again: true,
    })
}

fn builder() -> Server {
    Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .timeout(CALL_TIMEOUT)
        // For HTTP with JSON beside gRPC; a head that does not come within 30 s ends the connection.
        .accept_http1(true)
}

/// Every service on the server, and what runs beside them.
async fn router(
    server: &mut Server,
    context: &Context,
    admission: Admission,
    way: http::Way,
    tasks: &Tasks,
) -> Result<Router, Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(stepcast_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?
        .max_decoding_message_size(NAME_BYTES);
    let (reporter, health) = tonic_health::server::health_reporter();
    let health = health.max_decoding_message_size(NAME_BYTES);
    health::register(&reporter, &SERVICES).await;
    tasks.spawn(
        "health reporter",
        health::report(reporter, context.handle.clone(), SERVICES.to_vec()),
    );
    let jobs_service = service::Jobs::new(context.clone());
    let http = http::router(
        context.clone(),
        admission.clone(),
        jobs_service.clone(),
        way,
    );
    let jobs = JobsServiceServer::new(Jobs(jobs_service))
        .max_decoding_message_size(SUBMISSION_MESSAGE_BYTES)
        .max_encoding_message_size(ANSWER_BYTES);
    let estimates = EstimatesServiceServer::new(Estimates(service::Estimates(context.clone())))
        .max_decoding_message_size(SUBMISSION_MESSAGE_BYTES)
        .max_encoding_message_size(ANSWER_BYTES);
    let records = RecordsServiceServer::new(Records(service::Records(context.clone())))
        .max_decoding_message_size(IMPORT_MESSAGE_BYTES)
        .max_encoding_message_size(ANSWER_BYTES);
    let flight = FlightServiceServer::new(Flight {
        records: service::Records(context.clone()),
        admission: admission.clone(),
    })
    .max_decoding_message_size(MESSAGE_BYTES)
    .max_encoding_message_size(ANSWER_BYTES);
    let workers = WorkersServiceServer::new(Workers(service::Workers(context.clone())))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(ANSWER_BYTES);
    let scheduling = SchedulingServiceServer::new(Scheduling(service::Scheduling(context.clone())))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(ANSWER_BYTES);
    let cluster = ClusterServiceServer::new(Cluster(service::Cluster(context.clone())))
        .max_decoding_message_size(MESSAGE_BYTES);
    let accounts = service::Accounts::new(context.clone(), People::clone(&admission.people));
    let accounts = AccountsServiceServer::new(Accounts(accounts))
        .max_decoding_message_size(SMALL_MESSAGE_BYTES);
    let agent = AgentServiceServer::new(Agent(context.clone(), Credits::default()))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(ANSWER_BYTES);
    let (handle, limits) = (context.handle.clone(), Arc::clone(&admission.limits));
    let agent = Explained(OfWorkers(agent, handle.clone(), limits), handle);
    let mut routes = Routes::default();
    *routes.axum_router_mut() = http;
    let routes = routes
        .add_service(Spoken(Open::new(health, &admission.limits)))
        .add_service(Spoken(Open::new(reflection, &admission.limits)))
        .add_service(admitted(jobs, context, &admission))
        .add_service(admitted(estimates, context, &admission))
        .add_service(admitted(records, context, &admission))
        .add_service(admitted(flight, context, &admission))
        .add_service(admitted(workers, context, &admission))
        .add_service(admitted(scheduling, context, &admission))
        .add_service(admitted(accounts, context, &admission))
        .add_service(admitted(cluster, context, &admission))
        .add_service(Spoken(agent));
    Ok(server.add_routes(routes))
}

/// A service for people, as it is reached.
fn admitted<S>(
    service: S,
    context: &Context,
    admission: &Admission,
) -> Spoken<Admitted<Explained<S>>> {
    let explained = Explained(service, context.handle.clone());
    Spoken(Admitted(explained, admission.clone()))
}

/// The services whose health is told one by one.
const SERVICES: [&str; 9] = [
    <SchedulingServiceServer<Scheduling> as NamedService>::NAME,
    <JobsServiceServer<Jobs> as NamedService>::NAME,
    <EstimatesServiceServer<Estimates> as NamedService>::NAME,
    <RecordsServiceServer<Records> as NamedService>::NAME,
    <FlightServiceServer<Flight> as NamedService>::NAME,
    <WorkersServiceServer<Workers> as NamedService>::NAME,
    <ClusterServiceServer<Cluster> as NamedService>::NAME,
    <AgentServiceServer<Agent> as NamedService>::NAME,
    <AccountsServiceServer<Accounts> as NamedService>::NAME,
];

/// What others can reach needs TLS.
fn check(config: &ApiConfig, address: SocketAddr) -> Result<(), Error> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    if config.tls.is_none() && !config.allow_plaintext {
        return Err(Error::Plaintext { address });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use stepcast_proto::certificate::Shown;

    use super::*;
    use crate::certificate::own;

    #[test]
    fn what_others_can_reach_needs_tls() {
        let open: SocketAddr = ([0, 0, 0, 0], 1).into();
        let loopback: SocketAddr = ([127, 0, 0, 1], 1).into();
        let mut config = ApiConfig::default();
        assert!(check(&config, loopback).is_ok());
        assert!(matches!(check(&config, open), Err(Error::Plaintext { .. })));
        config.allow_plaintext = true;
        assert!(check(&config, open).is_ok());
        config.allow_plaintext = false;
        let folder = tempfile::tempdir().expect("a folder");
        let own = own(folder.path(), &["localhost".to_owned()]).expect("a certificate");
        config.tls = Some(Shown::read(own.files).expect("a pair"));
        assert!(check(&config, open).is_ok());
    }
}
