//! The way to a server: connecting, the access token, deadlines, and asking again with the same request id.

use std::time::Duration;

use stepcast_proto::v1::cluster_service_client::ClusterServiceClient;
use stepcast_proto::v1::estimates_service_client::EstimatesServiceClient;
use stepcast_proto::v1::jobs_service_client::JobsServiceClient;
use stepcast_proto::v1::records_service_client::RecordsServiceClient;
use stepcast_proto::v1::workers_service_client::WorkersServiceClient;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use crate::failure::{Exit, Failure};
use crate::settings;

/// A call that is not answered by then is given up.
pub(crate) const UNARY_DEADLINE: Duration = Duration::from_secs(10);
/// An import may write many objects.
pub(crate) const IMPORT_DEADLINE: Duration = Duration::from_secs(120);
/// A server that does not accept a connection by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause before asking again; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause: a new leader is found in a few seconds.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The largest answer: a page of a thousand jobs.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A stream on which nothing comes is probed this often, or the network forgets it.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// What the library says when a call's own deadline ends it, on either side, a moment before ours does.
const DEADLINE_WORDS: &str = "Timeout expired";

/// What every call goes through.
pub(crate) type Wire = InterceptedService<Channel, Bearer>;

/// A connection to a server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    wire: Wire,
    server: String,
}

/// Puts the access token on every call.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Where the server is and how it is talked to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Address {
    /// Such as `http://127.0.0.1:7070`; without a scheme it is `http`.
    pub(crate) server: String,
    /// The token that the server asks for.
    pub(crate) token: Option<String>,
    /// A certificate authority to trust, as a PEM file.
    pub(crate) ca_file: Option<std::path::PathBuf>,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(address: &Address) -> Result<Self, Failure> {
        let server = with_scheme(&address.server);
        let endpoint = endpoint(&server, address)?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| unreachable(&server, &error))?;
        let token = match &address.token {
            Some(token) => {
                let value: Result<MetadataValue<Ascii>, _> = format!("Bearer {token}").parse();
                let mut value = value.map_err(|_bad| {
                    Failure::refused("the access token has letters that no token has")
                })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Self {
            wire: InterceptedService::new(channel, Bearer(token)),
            server,
        })
    }

    /// Jobs.
    pub(crate) fn jobs(&self) -> JobsServiceClient<Wire> {
        JobsServiceClient::new(self.wire.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Estimates.
    pub(crate) fn estimates(&self) -> EstimatesServiceClient<Wire> {
        EstimatesServiceClient::new(self.wire.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Workers.
    pub(crate) fn workers(&self) -> WorkersServiceClient<Wire> {
        WorkersServiceClient::new(self.wire.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Records.
    pub(crate) fn records(&self) -> RecordsServiceClient<Wire> {
        RecordsServiceClient::new(self.wire.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> ClusterServiceClient<Wire> {
        ClusterServiceClient::new(self.wire.clone())
    }

    /// Asks until there is an answer or the deadline is over, again and again while the server says that it does not
    /// lead or cannot tell what became of it. Only for calls that may be repeated: those that read, and those with a
    /// request id.
    pub(crate) async fn ask<T, Call, Answer>(&self, call: Call) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask_within(UNARY_DEADLINE, call).await
    }

    /// The same with another deadline.
    pub(crate) async fn ask_within<T, Call, Answer>(
        &self,
        deadline: Duration,
        mut call: Call,
    ) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        let ends = Instant::now() + deadline;
        let mut pause = PAUSE_FIRST;
        let mut unknown = false;
        loop {
            let mut failure = match tokio::time::timeout_at(ends, call()).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) if status.message() == DEADLINE_WORDS => self.silent(deadline),
                Ok(Err(status)) => self.failure(&status),
                Err(_elapsed) => self.silent(deadline),
            };
            // Once an outcome was in doubt it stays in doubt until there is an answer.
            unknown |= failure.exit == Exit::Unknown;
            let wait = failure.retry_after.unwrap_or(pause).min(PAUSE_MAX);
            if !worth_repeating(&failure) || Instant::now() + wait >= ends {
                if unknown && failure.exit == Exit::Unreachable {
                    failure.exit = Exit::Unknown;
                }
                return Err(failure);
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// What a refusal means, with the server's address where it helps.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        let mut failure = Failure::from_status(status);
        if failure.exit == Exit::Unreachable && failure.reason.is_empty() {
            failure.details.insert(0, format!("asked {}", self.server));
        }
        failure
    }

    fn silent(&self, deadline: Duration) -> Failure {
        Failure::new(
            Exit::Unreachable,
            format!("no answer within {} seconds", deadline.as_secs()),
        )
        .detail(format!("asked {}", self.server))
    }
}

/// A request that the server need not answer after the usual deadline.
pub(crate) fn timed<T>(message: T) -> Request<T> {
    timed_within(UNARY_DEADLINE, message)
}

/// The same with another deadline.
pub(crate) fn timed_within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// A new request id: 32 hexadecimal digits.
pub(crate) fn request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Whether the same question may find another answer in a moment.
fn worth_repeating(failure: &Failure) -> bool {
    matches!(
        failure.reason.as_str(),
        "NOT_LEADER" | "NO_LEADER" | "OUTCOME_UNKNOWN" | "OVERLOADED" | "STARTING"
    )
}

fn with_scheme(server: &str) -> String {
    let server = server
        .split(',')
        .next()
        .unwrap_or(server)
        .trim()
        .trim_end_matches('/');
    if server.contains("://") {
        server.to_owned()
    } else {
        format!("http://{server}")
    }
}

fn endpoint(server: &str, address: &Address) -> Result<Endpoint, Failure> {
    let wrong = |why: String| {
        Failure::usage(format!("`{server}` is no server's address"))
            .detail(why)
            .hint("write one such as http://127.0.0.1:7070")
    };
    let endpoint =
        Endpoint::from_shared(server.to_owned()).map_err(|error| wrong(error.to_string()))?;
    if endpoint.uri().host().is_none_or(str::is_empty) {
        return Err(wrong("it names no host".to_owned()));
    }
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_while_idle(true)
        .user_agent(concat!("stepcast/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| wrong(error.to_string()))?;
    if endpoint.uri().scheme_str() != Some("https") {
        return Ok(endpoint);
    }
    let mut tls = ClientTlsConfig::new().with_enabled_roots();
    if let Some(file) = &address.ca_file {
        let pem = std::fs::read(file).map_err(|error| {
            Failure::refused(format!("{} cannot be read", file.display())).detail(error.to_string())
        })?;
        tls = tls.ca_certificate(Certificate::from_pem(pem));
    }
    endpoint
        .tls_config(tls)
        .map_err(|error| wrong(error.to_string()))
}

fn unreachable(server: &str, error: &tonic::transport::Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Failure::new(Exit::Unreachable, format!("no server answers at {server}"))
        .detail(cause.to_string())
        .hint("start one with `stepcast dev`, or name another with --server or STEPCAST_SERVER")
}

/// The address that these settings say.
pub(crate) fn address(
    server: String,
    token_file: Option<&str>,
    ca_file: Option<&str>,
) -> Result<Address, Failure> {
    let token = token_file
        .map(|path| settings::secret(path.as_ref()))
        .transpose()?;
    Ok(Address {
        server,
        token,
        ca_file: ca_file.map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_its_scheme() {
        assert_eq!(with_scheme("127.0.0.1:7070"), "http://127.0.0.1:7070");
        assert_eq!(with_scheme("https://a:1/,http://b:2"), "https://a:1");
    }

    #[test]
    fn request_ids_are_32_digits_and_differ() {
        let (first, second) = (request_id(), request_id());
        assert_eq!(first.len(), 32);
        assert!(first.chars().all(|digit| digit.is_ascii_hexdigit()));
        assert_ne!(first, second);
    }

    #[tokio::test]
    async fn nobody_there_is_its_own_exit_code() {
        let address = Address {
            server: "http://127.0.0.1:1".to_owned(),
            ..Address::default()
        };
        let failure = Client::connect(&address)
            .await
            .expect_err("nobody listens on port 1");
        assert_eq!(failure.exit, Exit::Unreachable);
        assert_eq!(failure.primary, "no server answers at http://127.0.0.1:1");
    }
}
