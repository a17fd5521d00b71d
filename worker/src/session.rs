//! The connection to the leader: registers once, stays attached, and comes back when the connection is lost.

pub(crate) mod backoff;
mod calls;
pub(crate) mod outbox;
mod refusal;
mod servers;
mod wire;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use stepcast_proto::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use self::backoff::Backoff;
pub use self::refusal::Refusal;
use self::refusal::Trouble;
pub(crate) use self::servers::Servers;
pub use self::servers::Unusable;
use self::wire::Said;
use crate::chain::chain;
use crate::gpu::{Device, Offer};
use crate::host::Host;
use crate::order::{Order, Report};
use crate::state_dir::Credential;
use crate::work::News;

/// Reports on their way into the stream. The outbox keeps what waits; this only has to keep the pipe busy.
const REPORTS: usize = 16;

/// How long the answer to a call is waited for: what the conventions set for every call.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// How long the opening of a stream is waited for. It takes no write, and a server that hangs must not hold a worker up
/// whose leases run on.
const OPENING: Duration = Duration::from_secs(3);

/// A leader that says nothing for this part of a lease term after a renewal hangs or is cut off from the others. Renewals
/// are a third of a term apart, so the next leader is found before anything is lost.
const SILENT_PART: u32 = 5;

/// Bounds of that: a busy host is silent for moments, and nothing is won by waiting longer for long leases.
const SILENCE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(10);

/// How long the server may take to hear the last words of a worker that ends. Unheard, it is missed after a lease.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection that lived this long was a good one: the next failure starts with a short wait again. One that is lost at
/// once, again and again, is none.
const GOOD: Duration = Duration::from_secs(1);

/// Speaks with the leader for the whole life of the worker.
pub(crate) struct Session {
    host: Arc<Host>,
    servers: Arc<Servers>,
    offer: v1::RegisterWorkerRequest,
    news: mpsc::Sender<News>,
    /// `workers/{worker}`, once registered.
    worker: Option<String>,
    /// How long an answer to a renewal may take.
    silence: Duration,
    /// Since when it is attached, or was last.
    attached: Option<Instant>,
    said: String,
}

/// What this worker says of itself when it registers.
pub(crate) fn offer(
    config: &crate::config::WorkerConfig,
    devices: &[Device],
    instance: String,
    outputs: Option<String>,
) -> v1::RegisterWorkerRequest {
    let trainer = match config.offer {
        Offer::Gpus | Offer::Cpu => v1::Trainer::Simpletuner,
        Offer::Replay(_) => v1::Trainer::Replay,
    };
    v1::RegisterWorkerRequest {
        instance,
        gpus: devices
            .iter()
            .map(|device| device.model.slug().to_owned())
            .collect(),
        trainers: vec![trainer.into()],
        labels: config.labels.clone().into_iter().collect(),
        price_per_gpu_hour_usd_micros: config.price_usd_micros_per_hour,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        gang_address: config.gang_address.clone().unwrap_or_default(),
        // A stream is played from its beginning, wherever.
        outputs: match config.offer {
            Offer::Gpus | Offer::Cpu => outputs.unwrap_or_default(),
            Offer::Replay(_) => String::new(),
        },
    }
}

impl Session {
    pub(crate) fn new(
        host: Arc<Host>,
        servers: Arc<Servers>,
        offer: v1::RegisterWorkerRequest,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self {
            host,
            servers,
            offer,
            news,
            worker: None,
            silence: *SILENCE.end(),
            attached: None,
            said: String::new(),
        }
    }

    /// Runs until the loop has ended (nothing more to say) or this worker is not wanted any more.
    pub(crate) async fn run(mut self) -> Result<(), Refusal> {
        let (mut backoff, mut tried) = (Backoff::search(), 0);
        while !self.news.is_closed() {
            self.attached = None;
            let trouble = self.connect().await;
            self.host.outbox.connected(false);
            if self.attached.is_some_and(|since| since.elapsed() >= GOOD) {
                backoff.reset();
                tried = 0;
            }
            tried += 1;
            match trouble {
                _ if self.news.is_closed() => return Ok(()),
                Trouble::Stop(refusal) => return Err(refusal),
                Trouble::Leader(hint) => self.servers.follow(hint.as_deref()),
                Trouble::Unknown => self.worker = None,
                Trouble::Again(why) => {
                    self.say_once(why);
                    self.servers.next();
                }
            }
            // Every server is asked once without a wait.
            if tried % self.servers.count() != 0 {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.news.closed() => {}
            }
        }
        Ok(())
    }

    /// One connection, from its first call to its loss.
    async fn connect(&mut self) -> Trouble {
        let worker = match self.registered().await {
            Ok(worker) => worker,
            Err(trouble) => return trouble,
        };
        match self.attach(worker).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        }
    }

    async fn registered(&mut self) -> Result<String, Trouble> {
        if let Some(worker) = &self.worker {
            return Ok(worker.clone());
        }
        let mut request = tonic::Request::new(self.offer.clone());
        request.set_timeout(ANSWER);
        let answer = self
            .servers
            .client()
            .register_worker(request)
            .await
            .map_err(Trouble::from)?
            .into_inner();
        let credential = Credential {
            worker: answer.worker.clone(),
            secret: self.servers.secret().to_owned(),
        };
        if let Err(error) = self.host.state.store_credential(&credential) {
            tracing::warn!(
                error = chain(&error),
                "the credential cannot be kept: the next start needs the join token again"
            );
        }
        tracing::info!(
            worker = answer.worker,
            name = answer.display_name,
            gpus = self.offer.gpus.len(),
            "registered"
        );
        Ok(self.worker.insert(answer.worker).clone())
    }

    /// Opens the stream, and has things passed on until it or the worker ends.
    async fn attach(&mut self, worker: String) -> Result<std::convert::Infallible, Trouble> {
        let (reports, outgoing) = mpsc::channel(REPORTS);
        let hello = v1::Hello {
            worker,
            instance: self.offer.instance.clone(),
            leaving: self.host.outbox.is_leaving(),
        };
        let _room = reports.try_send(wire::hello(hello));
        let mut client = self.servers.client();
        let opening = client.attach(ReceiverStream::new(outgoing));
        let answer = tokio::time::timeout(OPENING, opening).await;
        let mut orders = answer
            .map_err(|_late| Trouble::Again("the server does not answer".to_owned()))?
            .map_err(Trouble::from)?
            .into_inner();
        self.host.outbox.connected(true);
        self.attached = Some(Instant::now());
        tracing::info!(server = self.servers.address(), "attached");
        self.said.clear();
        let trouble = match self.speak(&mut orders, &reports).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        };
        if self.news.is_closed() {
            let farewell = say_farewell(&self.host, reports, &mut orders);
            if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
                tracing::debug!("the server does not hear that the worker ends");
            }
        }
        Err(trouble)
    }

    /// Passes things on in both directions for as long as it goes well.
    async fn speak(
        &mut self,
        orders: &mut Streaming<v1::AttachResponse>,
        reports: &mpsc::Sender<v1::AttachRequest>,
    ) -> Result<std::convert::Infallible, Trouble> {
        self.tell(News::Connected).await?;
        let mut silent_at = None;
        loop {
            tokio::select! {
                biased;
                order = orders.message() => {
                    silent_at = None;
                    self.order(order).await?;
                }
                sent = send_next(&self.host, reports) => match sent {
                    Some(true) => drop(silent_at.get_or_insert_with(|| Instant::now() + self.silence)),
                    Some(false) => {}
                    // The server reads no more; its last word says why.
                    None => return Err(last_word(orders).await),
                },
                () = until(silent_at) => return Err(Trouble::Again("the leader does not answer a renewal".to_owned())),
                () = self.news.closed() => return Err(Trouble::Again("the worker ends".to_owned())),
            }
        }
    }

    async fn order(
        &mut self,
        order: Result<Option<v1::AttachResponse>, tonic::Status>,
    ) -> Result<(), Trouble> {
        let order = order.map_err(Trouble::from)?;
        let response =
            order.ok_or_else(|| Trouble::Again("the server ended the stream".to_owned()))?;
        match wire::said(response) {
            Said::Order(order) => {
                if let Order::Renewed { term_ms, .. } = order {
                    self.silence = silence(term_ms);
                }
                self.tell(News::Order(order)).await
            }
            Said::Parting(parting) => Err(Trouble::from(parting)),
            Said::Unusable(ended) => {
                tracing::error!(
                    epoch = ended.epoch,
                    why = ended.detail,
                    "an assignment is refused"
                );
                self.host.outbox.push(Report::Ended(ended));
                Ok(())
            }
            Said::Unknown => {
                tracing::debug!("the server says something this version does not know");
                Ok(())
            }
        }
    }

    async fn tell(&self, news: News) -> Result<(), Trouble> {
        self.news
            .send(news)
            .await
            .map_err(|_closed| Trouble::Again("the worker ends".to_owned()))
    }

    /// A server that is away for an hour is one line in the log, not a thousand.
    fn say_once(&mut self, why: String) {
        if why != self.said {
            tracing::warn!(
                server = self.servers.address(),
                why,
                "no connection to the leader; trying again"
            );
            self.said = why;
        }
    }
}

/// Sends the next report that waits; true if an answer is due, none if the stream is closed. Cancel-safe.
async fn send_next(host: &Host, reports: &mpsc::Sender<v1::AttachRequest>) -> Option<bool> {
    let room = reports.reserve().await.ok()?;
    let report = host.outbox.next().await;
    let answered = matches!(report, Report::Renew { .. });
    room.send(wire::report(report));
    Some(answered)
}

/// Says what still waits, closes this side of the stream, and waits until the server, which has heard it all, closes the other.
async fn say_farewell(
    host: &Host,
    reports: mpsc::Sender<v1::AttachRequest>,
    orders: &mut Streaming<v1::AttachResponse>,
) {
    while let Some(report) = host.outbox.take() {
        if reports.send(wire::report(report)).await.is_err() {
            break;
        }
    }
    drop(reports);
    while let Ok(Some(_)) = orders.message().await {}
}

/// How long an answer to a renewal may take under leases of this term.
fn silence(term_ms: u64) -> Duration {
    (Duration::from_millis(term_ms) / SILENT_PART).clamp(*SILENCE.start(), *SILENCE.end())
}

async fn last_word(orders: &mut Streaming<v1::AttachResponse>) -> Trouble {
    match tokio::time::timeout(ANSWER, orders.message()).await {
        Ok(Err(status)) => Trouble::from(status),
        _ => Trouble::Again("the server ended the stream".to_owned()),
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
