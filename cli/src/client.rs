//! The way to the servers: connecting, the access token, deadlines, and asking again with the same request id.

mod heard;
mod servers;
mod services;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stepcast_worker::servers::PlainText;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use self::heard::Heard;
use self::servers::{Servers, distrust_hint};
use crate::failure::{Exit, Failure, tls_hint};
use crate::settings;

/// A call that is not answered by then is given up.
pub(crate) const UNARY_DEADLINE: Duration = Duration::from_secs(10);
/// An import may write many objects.
pub(crate) const IMPORT_DEADLINE: Duration = Duration::from_secs(120);
/// A sweep sends many files, and the server keeps each of them before it answers: in a bucket far away that takes seconds.
/// Of several servers each is waited for a third of it.
pub(crate) const SWEEP_DEADLINE: Duration = Duration::from_secs(60);
/// A change of who belongs to the cluster takes several steps, each of them an entry of the log.
pub(crate) const CHANGE_DEADLINE: Duration = Duration::from_secs(60);
/// With several servers, one that is silent for this part of a call's deadline is left for the next: a node that hangs
/// accepts connections and answers nothing.
const SILENT_PART: u32 = 3;
/// The first pause before asking again; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause: a new leader is found in a few seconds.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The same with several servers, any of which may be the one that is elected next.
const PAUSE_MAX_OF_SEVERAL: Duration = Duration::from_millis(500);
/// The largest answer: a page of a thousand jobs.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A server with TLS hangs up on plain text before this; a connection that breaks later was understood.
const HANGS_UP_WITHIN: Duration = Duration::from_secs(2);

/// What the library says when a call's own deadline ends it, on either side, a moment before ours does.
const DEADLINE_WORDS: &str = "Timeout expired";

/// Metadata that says how fresh an answer has to be.
const READ: &str = "stepcast-read";
/// Everything that was acknowledged, and what only the leader keeps: how far jobs are, and which workers are there.
const LIVE: &str = "live";
/// Whatever the server that is asked has.
const STALE: &str = "stale";

/// What every call goes through.
pub(crate) type Wire = InterceptedService<Channel, Caller>;

/// The servers of one cluster. Clones share what they learn of who leads.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    servers: Arc<Servers>,
    caller: Caller,
    connected: Instant,
    /// Whether a call was answered: all of them are spoken to alike, with TLS or without.
    answered: Arc<AtomicBool>,
}

/// Puts on every call what it carries: the access token, and whether an old answer will do.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    token: Option<MetadataValue<Ascii>>,
    stale: bool,
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(token) = &self.token {
            metadata.insert("authorization", token.clone());
        }
        let freshness = if self.stale { STALE } else { LIVE };
        metadata.insert(READ, MetadataValue::from_static(freshness));
        Ok(request)
    }
}

/// Where the servers are and how they are talked to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Address {
    /// Such as `https://10.0.0.1:7070`, several separated by commas; without a scheme it is `https`, and `http` on this host.
    pub(crate) server: String,
    /// Where they may be called in plain text.
    pub(crate) plain: PlainText,
    /// The token that the servers ask for.
    pub(crate) token: Option<String>,
    /// A certificate authority to trust, as a PEM file.
    pub(crate) ca_file: Option<std::path::PathBuf>,
    /// Whether reads may be answered by any server from what it has.
    pub(crate) stale: bool,
}

impl Client {
    /// Connects to the first server that can be reached.
    pub(crate) async fn connect(address: &Address) -> Result<Self, Failure> {
        let servers = Servers::new(address)?;
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
        servers.reach(address.ca_file.as_deref()).await?;
        Ok(Self {
            servers: Arc::new(servers),
            caller: Caller {
                token,
                stale: address.stale,
            },
            connected: Instant::now(),
            answered: Arc::default(),
        })
    }

    fn wire(&self) -> Wire {
        InterceptedService::new(self.servers.channel(), self.caller.clone())
    }

    /// Asks until there is an answer or the deadline is over: of the leader where a server says who that is, of the next
    /// server where one cannot be reached, and again while nobody leads or it is not known what became of it. Only for
    /// calls that may be repeated: those that read, and those with a request id.
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
        call: Call,
    ) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.repeat(deadline, Kind::Reads, call).await
    }

    /// The same for what changes something and carries a request id: silence leaves in doubt whether it was done.
    pub(crate) async fn change<T, Call, Answer>(&self, call: Call) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.change_within(UNARY_DEADLINE, call).await
    }

    /// The same with another deadline.
    pub(crate) async fn change_within<T, Call, Answer>(
        &self,
        deadline: Duration,
        call: Call,
    ) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.repeat(deadline, Kind::Changes, call).await
    }

    /// The same for what removes something, and is told by a second time that it is not there.
    pub(crate) async fn remove<T, Call, Answer>(&self, call: Call) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.repeat(UNARY_DEADLINE, Kind::Removes, call).await
    }

    /// Asks for what must not happen twice: again only where a server has said that it has not taken it.
    pub(crate) async fn ask_once<T, Call, Answer>(&self, call: Call) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask_once_within(UNARY_DEADLINE, call).await
    }

    /// The same with another deadline.
    pub(crate) async fn ask_once_within<T, Call, Answer>(
        &self,
        deadline: Duration,
        call: Call,
    ) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.repeat(deadline, Kind::ChangesOnce, call).await
    }

    /// Opens a stream: of the leader if only it can.
    pub(crate) async fn open<T, Call, Answer>(&self, call: Call) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask(call).await
    }

    /// A client of this server alone, if it may be called with what this one carries.
    pub(crate) fn only(&self, address: &str) -> Option<Self> {
        Some(Self {
            servers: Arc::new(self.servers.only(address)?),
            caller: self.caller.clone(),
            connected: Instant::now(),
            answered: Arc::default(),
        })
    }

    async fn repeat<T, Call, Answer>(
        &self,
        deadline: Duration,
        kind: Kind,
        mut call: Call,
    ) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        let ends = begun + deadline;
        let (mut pause, mut asked, mut heard) = (PAUSE_FIRST, 1, Heard::default());
        loop {
            let patience = self.patience(deadline);
            let tried_until = ends.min(Instant::now() + patience);
            let (mut sent, address) = (true, self.servers.address());
            let failure = match tokio::time::timeout_at(tried_until, call()).await {
                Ok(Ok(answer)) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) if was_not_sent(&status) => {
                    sent = false;
                    self.failure(&status)
                }
                Ok(Err(status)) if status.message() == DEADLINE_WORDS => self.silent(patience),
                Ok(Err(status)) => self.failure(&status),
                Err(_elapsed) => self.silent(patience),
            };
            let moved = self.go_on(&failure);
            heard.of(&failure, &address, sent && kind != Kind::Reads);
            heard.next_is(&failure, &self.servers.address());
            let count = self.servers.count();
            let again = match kind {
                Kind::ChangesOnce => was_not_taken(&failure, count > 1),
                Kind::Reads | Kind::Changes | Kind::Removes => may_be_repeated(&failure, count > 1),
            };
            let repeated = again || (!sent && count > 1);
            let wait = if moved && asked < count {
                // Every server is asked once without a pause.
                asked += 1;
                Duration::ZERO
            } else if count > 1 {
                asked = 1;
                pause.min(PAUSE_MAX_OF_SEVERAL)
            } else {
                let asked_for = failure.again.as_ref().and_then(|again| again.after);
                asked_for.unwrap_or(pause).min(PAUSE_MAX)
            };
            if !repeated || Instant::now() + wait >= given_up(&failure, begun, ends) {
                return Err(heard.in_the_end(failure, kind == Kind::Removes));
            }
            tokio::time::sleep(wait).await;
            if !wait.is_zero() {
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// Chooses whom to ask next after a failure: the leader if its address was told, the next server if this one cannot
    /// help. Says whether it is another one.
    pub(crate) fn go_on(&self, failure: &Failure) -> bool {
        let before = self.servers.address();
        let lost = failure.exit == Exit::Unreachable || failure.exit == Exit::Unknown;
        if failure.reason == "NOT_LEADER" {
            let again = failure.again.as_ref();
            self.servers
                .follow(again.and_then(|again| again.leader.as_deref()));
        } else if lost {
            self.servers.next();
        }
        self.servers.address() != before
    }

    /// Asks another server from now on, if there are several.
    pub(crate) fn next_server(&self) {
        self.servers.next();
    }

    /// How many servers there are to go round.
    pub(crate) fn server_count(&self) -> usize {
        self.servers.count()
    }

    /// How long one server is waited for.
    fn patience(&self, deadline: Duration) -> Duration {
        if self.servers.count() > 1 {
            deadline / SILENT_PART
        } else {
            deadline
        }
    }

    /// What a refusal means, with the server's address where it helps.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        let mut failure = Failure::from_status(status);
        if failure.exit == Exit::Unreachable && failure.reason.is_empty() {
            let address = self.servers.address();
            let fresh = self.connected.elapsed() < HANGS_UP_WITHIN
                && !self.answered.load(Ordering::Relaxed);
            if failure.hint.is_none() && fresh && address.starts_with("http://") {
                failure.hint = tls_hint(status);
            }
            if failure.hint.is_none() {
                failure.hint = distrust_hint(&failure.details);
            }
            failure.details.insert(0, format!("asked {address}"));
        }
        failure
    }

    /// What to say where the servers are asked again and again and none answers any more.
    pub(crate) fn gone(&self, last: &Failure) -> Failure {
        let mut failure = self.servers.gone();
        failure.details.clone_from(&last.details);
        failure
    }

    fn silent(&self, patience: Duration) -> Failure {
        let failure = if patience.as_secs() == 0 {
            Failure::new(Exit::Unreachable, "no answer in time")
        } else {
            Failure::new(
                Exit::Unreachable,
                format!("no answer within {} seconds", patience.as_secs()),
            )
        };
        failure.detail(format!("asked {}", self.servers.address()))
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

/// Whether the same question may find another answer in a moment, or from another of several servers.
fn may_be_repeated(failure: &Failure, several: bool) -> bool {
    matches!(
        failure.reason.as_str(),
        "NOT_LEADER" | "OUTCOME_UNKNOWN" | "BUSY" | "READ_TIMEOUT"
    ) || (several && failure.exit == Exit::Unreachable)
}

/// What a call does, and so what may be done where there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing is changed by it.
    Reads,
    /// It changes something, and its request id keeps that from being done twice.
    Changes,
    /// What it removes is not there the second time.
    Removes,
    /// It changes something each time.
    ChangesOnce,
}

/// Whether there was no connection, so that nothing was sent.
fn was_not_sent(status: &Status) -> bool {
    use std::io::ErrorKind;
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| {
            matches!(
                io.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
            )
        }) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether the server has said that nothing came of the question.
fn was_not_taken(failure: &Failure, _several: bool) -> bool {
    failure.reason == "NOT_LEADER"
}

/// When a call is not tried again that has failed like this. Where nobody leads, no call gains by more time: an election takes
/// seconds, and a majority that is away stays away.
fn given_up(failure: &Failure, begun: Instant, ends: Instant) -> Instant {
    let again = failure.again.as_ref();
    let leader = again.and_then(|again| again.leader.as_deref());
    if failure.reason == "NOT_LEADER" && leader.is_none() {
        ends.min(begun + UNARY_DEADLINE)
    } else {
        ends
    }
}

/// The address that these settings say.
pub(crate) fn address(
    server: String,
    token_file: Option<&str>,
    ca_file: Option<&str>,
    plain: PlainText,
    stale: bool,
) -> Result<Address, Failure> {
    let token = token_file
        .map(|path| settings::secret(path.as_ref()))
        .transpose()?;
    Ok(Address {
        server,
        plain,
        token,
        ca_file: ca_file.map(Into::into),
        stale,
    })
}
