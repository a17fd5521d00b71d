//! The receiver of one attempt's webhooks: on loopback, behind a random token, answering at once.
//!
//! SimpleTuner posts from inside its training loop and waits for the answer, so a slow receiver would both slow the
//! training and spoil the next step's time. A body is therefore parsed (which drops media) and queued, nothing more.

mod listen;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};

use self::listen::CONNECTIONS;
use crate::agent::{Epoch, Input};
use crate::capture::{LONGEST_SECRET_BYTES, cut};
use crate::event::{self, Event, RAW_ERROR_BYTES, Received};
use crate::redact::Redactor;

/// Largest body taken: a validation with several 4-megapixel PNGs in base64 stays below; the bytes live only while parsed.
pub const BODY_BYTES: usize = 64 * 1024 * 1024;

/// Longest title or message of an error that is passed on.
const ERROR_TEXT_BYTES: usize = 2048;

/// Bodies read at the same time. The trainer sends one, its log thread another; this bounds them to 256 MiB, and what is made of
/// them to about twice as much: long texts are copied, and nothing else is built.
const BODIES_AT_ONCE: usize = 4;

/// How long one request may take, from its head to its answer, also to send its body. The trainer gives up after 5 s.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// Free places below which `log.message` events are dropped, so that step events find room.
const KEPT_FOR_STEPS: usize = 256;

/// How long a step event waits for room before it is counted as lost. The trainer gives up after 5 s.
const FULL_QUEUE_WAIT: Duration = Duration::from_secs(3);

/// A running receiver; it ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    token: String,
    counts: Arc<Counts>,
    room: Arc<Semaphore>,
    /// What takes the connections.
    serving: JoinSet<()>,
}

/// What was not passed on.
#[derive(Debug, Default)]
pub struct Counts {
    /// `log.message` events dropped because the queue was nearly full.
    pub logs_dropped: AtomicU64,
    /// Other events lost because the queue stayed full, or their bodies were too large or too slow: never silent, the
    /// attempt's log says so.
    pub events_lost: AtomicU64,
    /// Bodies that were no JSON object.
    pub malformed: AtomicU64,
}

/// How much was not passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Events lost because the queue stayed full, or their bodies were too large or too slow.
    pub events: u64,
    /// `log.message` events dropped because it was nearly full.
    pub logs: u64,
    /// Bodies that were no JSON object.
    pub unreadable: u64,
}

impl Counts {
    /// What was not passed on by now.
    pub fn lost(&self) -> Lost {
        Lost {
            events: self.events_lost.load(Ordering::Relaxed),
            logs: self.logs_dropped.load(Ordering::Relaxed),
            unreadable: self.malformed.load(Ordering::Relaxed),
        }
    }
}

struct Shared {
    epoch: Epoch,
    token: String,
    redactor: Redactor,
    events: mpsc::Sender<Input>,
    counts: Arc<Counts>,
    bodies: Semaphore,
    /// How long one request may take.
    within: Duration,
}

impl Receiver {
    /// Listens on a free loopback port and passes events on to `events`.
    pub async fn start(
        epoch: Epoch,
        token: String,
        redactor: Redactor,
        events: mpsc::Sender<Input>,
    ) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let shared = Arc::new(Shared {
            epoch,
            token: token.clone(),
            redactor,
            events,
            counts: Arc::clone(&counts),
            bodies: Semaphore::new(BODIES_AT_ONCE),
            within: REQUEST_WITHIN,
        });
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut serving = JoinSet::new();
        serving.spawn(listen::serve(listener, Arc::clone(&room), app(shared)));
        Ok(Self {
            address,
            token,
            counts,
            room,
            serving,
        })
    }

    /// How many more connections would be taken now.
    pub fn room(&self) -> usize {
        self.room.available_permits()
    }

    /// Waits until it takes no more connections because it has failed: for ever, as a rule.
    pub async fn failed(&mut self) -> JoinError {
        loop {
            match self.serving.join_next().await {
                Some(Err(error)) => return error,
                Some(Ok(())) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Where the trainer posts to.
    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// What the trainer sends as `X-API-Key`.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What was not passed on so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

fn app(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/events", post(receive))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit))
        .with_state(shared)
}

/// Lets a request in only with the token, and only a few at a time, before any of its body is read.
async fn admit(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Result<Response, StatusCode> {
    let given = request
        .headers()
        .get("x-api-key")
        .map(|value| value.as_bytes());
    if !given.is_some_and(|given| same(given, shared.token.as_bytes())) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let answering = async {
        let _permit = shared
            .bodies
            .acquire()
            .await
            .map_err(|_closed| StatusCode::SERVICE_UNAVAILABLE)?;
        Ok(next.run(request).await)
    };
    tokio::time::timeout(shared.within, answering)
        .await
        .unwrap_or_else(|_late| {
            shared.counts.events_lost.fetch_add(1, Ordering::Relaxed);
            Err(StatusCode::REQUEST_TIMEOUT)
        })
}

/// Compares without telling by its duration where two tokens differ.
fn same(given: &[u8], token: &[u8]) -> bool {
    given.len() == token.len()
        && given
            .iter()
            .zip(token)
            .fold(0, |different, (a, b)| different | (a ^ b))
            == 0
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    body: Result<Bytes, BytesRejection>,
) -> StatusCode {
    let body = match body {
        Ok(body) => body,
        // Too large, or its connection broke.
        Err(refused) => {
            shared.counts.events_lost.fetch_add(1, Ordering::Relaxed);
            return refused.status();
        }
    };
    let Ok(mut received) = event::parse(&body) else {
        shared.counts.malformed.fetch_add(1, Ordering::Relaxed);
        return StatusCode::BAD_REQUEST;
    };
    drop(body);
    if let Event::Error { title, message } = &mut received.event {
        *title = shared.clean(title);
        *message = shared.clean(message);
    }
    shared.pass_on(received).await;
    StatusCode::NO_CONTENT
}

impl Shared {
    /// An error's text without secrets, and then as short as it is kept.
    fn clean(&self, text: &str) -> String {
        let lines = text.lines().map(|line| self.redactor.clean(line));
        let mut clean = lines.collect::<Vec<_>>().join("\n");
        // It was cut when it was read, at a character's border, and may end in the middle of a secret.
        if text.len() + char::MAX.len_utf8() > RAW_ERROR_BYTES {
            let keep = clean.len().saturating_sub(LONGEST_SECRET_BYTES);
            cut(&mut clean, keep);
        }
        cut(&mut clean, ERROR_TEXT_BYTES);
        clean
    }

    async fn pass_on(&self, received: Received) {
        if received.event == Event::Log
            && self.events.capacity() < KEPT_FOR_STEPS.min(self.events.max_capacity() / 2)
        {
            self.counts.logs_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let input = Input::Event(self.epoch, received);
        if self
            .events
            .send_timeout(input, FULL_QUEUE_WAIT)
            .await
            .is_err()
        {
            self.counts.events_lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const STEP: &str = r#"{"type":"training.status","data":{"status":"running","global_step":3},"progress":{"metrics":{"step_speed_seconds":0.5}}}"#;

    async fn receiver(queue: usize) -> (Receiver, mpsc::Receiver<Input>) {
        let (sender, events) = mpsc::channel(queue);
        let redactor = Redactor::new([("HF_TOKEN", "hf_valuevaluevalue11")], &[]);
        (
            Receiver::start(7, "attempt-token".to_owned(), redactor, sender)
                .await
                .unwrap(),
            events,
        )
    }

    fn event(input: Input) -> (Epoch, Received) {
        let Input::Event(epoch, received) = input else {
            panic!("no event: {input:?}")
        };
        (epoch, received)
    }

    async fn post(receiver: &Receiver, token: &str, body: impl Into<reqwest::Body>) -> u16 {
        let request = reqwest::Client::new()
            .post(receiver.url())
            .header("X-API-Key", token)
            .body(body);
        request.send().await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn one_that_takes_no_more_connections_says_so() {
        let (mut receiver, _events) = receiver(1).await;
        assert!(futures::poll!(std::pin::pin!(receiver.failed())).is_pending());
        receiver.serving.spawn(async { panic!("no port") });
        assert!(receiver.failed().await.is_panic());
    }

    #[tokio::test]
    async fn a_step_arrives_with_its_epoch_and_a_wrong_token_is_refused() {
        let (receiver, mut events) = receiver(8).await;
        assert_eq!(post(&receiver, "attempt-tokem", STEP).await, 401);
        assert_eq!(post(&receiver, "attempt-token", STEP).await, 204);
        let (epoch, received) = event(events.recv().await.unwrap());
        assert_eq!(epoch, 7);
        assert!(matches!(received.event, Event::Step { step: 3, .. }));
        assert!(
            events.try_recv().is_err(),
            "the refused one must not arrive"
        );
    }

    #[tokio::test]
    async fn media_are_taken_and_too_large_bodies_are_refused() {
        let (receiver, mut events) = receiver(8).await;
        let media = format!(
            r#"{{"type":"training.validation","message":"p","images":["{}"]}}"#,
            "A".repeat(5_000_000)
        );
        assert_eq!(post(&receiver, "attempt-token", media).await, 204);
        assert_eq!(
            event(events.recv().await.unwrap()).1.event,
            Event::ValidationPrompt
        );
        assert_eq!(
            post(&receiver, "attempt-token", vec![b' '; BODY_BYTES + 1]).await,
            413
        );
        assert_eq!(receiver.counts().lost().events, 1);
        assert_eq!(post(&receiver, "attempt-token", "not json").await, 400);
        assert_eq!(receiver.counts().malformed.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn who_opens_connections_and_says_nothing_holds_up_no_trainer() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio::net::TcpStream;

        let (receiver, mut events) = receiver(8).await;
        let mut silent = Vec::new();
        for number in 0..CONNECTIONS + 4 {
            let mut stream = TcpStream::connect(receiver.address).await.unwrap();
            if number % 2 == 0 {
                stream
                    .write_all(b"POST /events HTTP/1.1\r\nHost:")
                    .await
                    .unwrap();
            }
            silent.push(stream);
        }
        // No more than there is room for are taken.
        while receiver.room() > 0 {
            tokio::task::yield_now().await;
        }
        // It waits for the first of them to be closed, and no longer.
        assert_eq!(post(&receiver, "attempt-token", STEP).await, 204);
        assert!(event(events.recv().await.unwrap()).1.event != Event::Log);
        for mut stream in silent {
            let mut said = Vec::new();
            // Closed, whether with a word or without.
            let _reset = stream.read_to_end(&mut said).await;
            assert!(!said.starts_with(b"HTTP/1.1 2"));
        }
        while receiver.room() < CONNECTIONS - 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_gives_its_place_back() {
        use axum::body::Body;
        use hyper::service::Service;

        let (events, _queue) = mpsc::channel(8);
        let shared = Arc::new(Shared {
            epoch: 7,
            token: "attempt-token".to_owned(),
            redactor: Redactor::new([], &[]),
            events,
            counts: Arc::default(),
            bodies: Semaphore::new(1),
            within: Duration::ZERO,
        });
        let app = hyper_util::service::TowerToHyperService::new(app(Arc::clone(&shared)));
        let post = |body: Body| {
            let request = Request::post("/events").header("X-API-Key", "attempt-token");
            app.call(request.body(body).unwrap())
        };
        let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let late = post(Body::from_stream(never)).await.unwrap();
        assert_eq!(late.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(shared.counts.lost().events, 1);
        // The only place is free again, and what is there at once has all the time that it needs.
        let whole = post(Body::from(STEP)).await.unwrap();
        assert_eq!(whole.status(), StatusCode::NO_CONTENT);
    }

    #[tokio::test]
    async fn a_full_queue_drops_logs_first_and_keeps_steps() {
        let (receiver, mut events) = receiver(4).await;
        let log = r#"{"type":"log.message","message":"x"}"#;
        for _ in 0..6 {
            assert_eq!(post(&receiver, "attempt-token", log).await, 204);
        }
        assert_eq!(post(&receiver, "attempt-token", STEP).await, 204);
        assert_eq!(receiver.counts().logs_dropped.load(Ordering::Relaxed), 3);
        assert_eq!(receiver.counts().events_lost.load(Ordering::Relaxed), 0);
        let mut kinds = Vec::new();
        while let Ok(input) = events.try_recv() {
            let (_, received) = event(input);
            kinds.push(matches!(received.event, Event::Step { .. }));
        }
        assert_eq!(kinds, [false, false, false, true]);
    }

    #[tokio::test]
    async fn errors_are_redacted_before_they_are_queued() {
        let (receiver, mut events) = receiver(8).await;
        let body = r#"{"type":"error","title":"t","message":"bad hf_valuevaluevalue11 given"}"#;
        assert_eq!(post(&receiver, "attempt-token", body).await, 204);
        let Event::Error { message, .. } = event(events.recv().await.unwrap()).1.event else {
            panic!("no error event")
        };
        assert_eq!(message, "bad [redacted] given");
    }

    #[tokio::test]
    async fn a_secret_is_found_before_its_text_is_cut() {
        const SECRET: &str = "hf_valuevaluevalue11";
        let (receiver, mut events) = receiver(8).await;
        for limit in [ERROR_TEXT_BYTES, RAW_ERROR_BYTES] {
            for before in limit - SECRET.len()..=limit {
                let text = format!("{}{SECRET} refused", "-".repeat(before));
                let body = format!(r#"{{"type":"error","title":"{text}","message":"{text}"}}"#);
                assert_eq!(post(&receiver, "attempt-token", body).await, 204);
                let Event::Error { title, message } = event(events.recv().await.unwrap()).1.event
                else {
                    panic!("no error event")
                };
                assert_eq!(title, message);
                assert!(message.len() <= ERROR_TEXT_BYTES, "{}", message.len());
                assert!(!message.contains("hf_"), "{before} of {limit}");
                assert!(message.starts_with(&"-".repeat(1024)));
            }
        }
    }
}
