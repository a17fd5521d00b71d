//! What a caller sends: read within a bound and a time, and understood or refused with the place that is wrong.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::response::Response;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::status::{self, Refusal};

/// Bytes of a request that are passed over once it has its answer, so that the next one on the connection is found: more
/// than any submission has.
const REST_BYTES: usize = 4 << 20;

/// They come within this time.
const REST_WITHIN: Duration = Duration::from_secs(5);

/// How many bytes a body of at most so many will have: as many as are said, or as there may be. One that says it is longer
/// is not read at all.
pub(crate) fn said(headers: &HeaderMap, most: usize) -> Result<usize, Status> {
    match length(headers) {
        None => Ok(most),
        Some(bytes) if bytes <= most => Ok(bytes),
        Some(_) => Err(too_large(most)),
    }
}

/// How many bytes a request says that its body has.
fn length(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    let bytes = length.parse::<u64>().ok()?;
    Some(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// A body that comes in, as far as it was read.
pub(crate) struct Sent {
    stream: BodyDataStream,
    /// Whether nothing of it is to come.
    ended: bool,
    /// Whether what is left of it is not waited for: it is long, late or broken, or comes only once it is asked for.
    given_up: bool,
    /// Whether requests come one after the other on its connection.
    in_turn: bool,
}

impl Sent {
    /// The body of the request with this head.
    pub(crate) fn new(head: &Parts, body: Body) -> Self {
        let expects = head.headers.contains_key(header::EXPECT);
        Self {
            stream: body.into_data_stream(),
            ended: false,
            given_up: expects || length(&head.headers).is_some_and(|bytes| bytes > REST_BYTES),
            in_turn: head.version <= Version::HTTP_11,
        }
    }

    /// Reads all of it, at most so many bytes, which come within this time.
    pub(crate) async fn read(&mut self, time: Duration, most: usize) -> Result<Vec<u8>, Status> {
        let read = async {
            let mut bytes = Vec::new();
            while let Some(piece) = self.next().await {
                // Whoever has cut it off does not read the answer.
                let piece = piece.map_err(|_| {
                    status::bad_field("body", "it is broken off, or not sent as HTTP has it")
                })?;
                if piece.len() > most - bytes.len() {
                    return Err(too_large(most));
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        };
        match timeout(time, read).await {
            Ok(read) => read,
            Err(_) => {
                self.given_up = true;
                Err(Refusal::new(
                    Code::DeadlineExceeded,
                    "BODY_TOO_SLOW",
                    "the request's body did not come in time",
                )
                .into())
            }
        }
    }

    /// The answer to the request, which may have come before all of its body. What is left of that is passed over; where
    /// that takes too much, the answer says that the connection ends with it.
    pub(crate) async fn answered(mut self, mut answer: Response) -> Response {
        if self.in_turn && !self.passed_over().await {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        answer
    }

    async fn passed_over(&mut self) -> bool {
        if self.ended || self.given_up {
            return self.ended;
        }
        let rest = async {
            let mut bytes = 0;
            while let Some(piece) = self.next().await {
                bytes += piece.map_or(REST_BYTES, |piece| piece.len());
                if bytes >= REST_BYTES {
                    return false;
                }
            }
            true
        };
        timeout(REST_WITHIN, rest).await.unwrap_or(false)
    }

    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        let next = self.stream.next().await;
        self.ended = next.is_none();
        // After an error the library knows of no more.
        self.given_up |= next.as_ref().is_some_and(Result::is_err);
        next
    }
}

/// The JSON of a body.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(bytes).map_err(|error| {
        // The library's words may repeat a value, so only the place is told.
        let words = error.to_string();
        let what = match error.classify() {
            serde_json::error::Category::Data if words.starts_with("missing field") => {
                words.split(" at line").next().unwrap_or_default()
            }
            // What it is called is the caller's; what there is besides is this call's own.
            serde_json::error::Category::Data if words.starts_with("unknown field") => {
                let taken = words.split(" at line").next().unwrap_or_default();
                let taken = taken.rsplit_once("expected ");
                return status::bad_field(
                    "body",
                    format!(
                        "a member of it is none that this call takes: write {} ({})",
                        taken.map_or("none", |(_, taken)| taken),
                        place(&error)
                    ),
                );
            }
            serde_json::error::Category::Data => "it is not what this call takes",
            _ => "it is no JSON",
        };
        status::bad_field("body", format!("{what} ({})", place(&error)))
    })
}

fn place(error: &serde_json::Error) -> String {
    format!("line {} column {}", error.line(), error.column())
}

/// The parameters behind the question mark.
pub(crate) fn query<T: DeserializeOwned>(query: Option<&str>) -> Result<T, Status> {
    serde_urlencoded::from_str(query.unwrap_or_default())
        .map_err(|_| status::bad_field("query", "a parameter is not what this call takes"))
}

fn too_large(most: usize) -> Status {
    Refusal::new(
        Code::ResourceExhausted,
        "BODY_TOO_LARGE",
        format!("the body of this request has at most {} kB", most >> 10),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(60);

    fn sent(body: Body) -> Sent {
        let (head, body) = axum::http::Request::new(body).into_parts();
        Sent::new(&head, body)
    }

    async fn says_close(sent: Sent) -> bool {
        let answer = sent.answered(Response::default()).await;
        answer.headers().get(header::CONNECTION) == Some(&HeaderValue::from_static("close"))
    }

    #[tokio::test]
    async fn the_connection_of_a_body_that_does_not_come_ends_with_an_answer_that_says_so() {
        let pending = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let mut slow = sent(Body::from_stream(pending));
        let read = slow.read(Duration::ZERO, 10).await;
        let refused = read.expect_err("nothing comes");
        assert_eq!(refused.code(), Code::DeadlineExceeded);
        assert!(says_close(slow).await);
    }

    #[tokio::test]
    async fn what_is_left_of_a_body_is_passed_over_within_a_bound() {
        let mut read = sent(Body::from("0123456789"));
        assert_eq!(
            read.read(TIME, 10).await.ok().as_deref(),
            Some(&b"0123456789"[..])
        );
        assert!(!says_close(read).await);
        let mut refused = sent(Body::from("0123456789"));
        assert!(refused.read(TIME, 9).await.is_err());
        assert!(!says_close(refused).await);
        assert!(!says_close(sent(Body::from(vec![0; REST_BYTES - 1]))).await);
        assert!(says_close(sent(Body::from(vec![0; REST_BYTES]))).await);
    }

    #[tokio::test]
    async fn nothing_is_expected_behind_a_body_that_is_broken_off() {
        let broken = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let mut cut = sent(Body::from_stream(futures::stream::iter([
            Ok("01"),
            Err(broken),
        ])));
        assert!(cut.read(TIME, 10).await.is_err());
        assert!(says_close(cut).await);
    }
}
