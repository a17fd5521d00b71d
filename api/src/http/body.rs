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

use super::misfit::{self, Misfit};
use super::route::Shape;
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
pub(crate) fn json<T: DeserializeOwned + Shape>(bytes: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        if error.classify() != serde_json::error::Category::Data {
            return status::bad_field("body", format!("it is no JSON ({place})"));
        }
        let misfit = || misfit::of_body::<T>(&serde_json::from_slice(bytes).ok()?);
        wrong("body", misfit(), &error.to_string(), Some(&place))
    })
}

/// The parameters behind the question mark.
pub(crate) fn query<T: DeserializeOwned + Shape>(query: Option<&str>) -> Result<T, Status> {
    let query = query.unwrap_or_default();
    serde_urlencoded::from_str(query).map_err(|error| {
        let pairs = serde_urlencoded::from_str::<Vec<(String, String)>>(query);
        let misfit = misfit::of_query::<T>(&pairs.unwrap_or_default());
        wrong("query", misfit, &error.to_string(), None)
    })
}

/// What is wrong with a part of a request that is called so. The libraries' words may repeat a value, so no more is taken of
/// them than the name of a member that was given twice.
fn wrong(whole: &str, misfit: Option<Misfit>, words: &str, place: Option<&str>) -> Status {
    let (field, what) = misfit.unwrap_or_else(|| {
        let twice = words.strip_prefix("duplicate field `");
        let what = match twice.and_then(|name| name.split('`').next()) {
            Some(name) => format!("`{name}` is given twice"),
            None => "it is not what this call takes".to_owned(),
        };
        (String::new(), what)
    });
    match (field.as_str(), place) {
        ("", Some(place)) => status::bad_field(whole, format!("{what} ({place})")),
        ("", None) => status::bad_field(whole, what),
        (field, _) => status::bad_field(field, what),
    }
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
    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::{Map, Value};
    use tonic_types::StatusExt;

    use super::*;
    use crate::http::given::Given;

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

    /// A call's own members.
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only read in")]
    struct Asks {
        #[serde(default)]
        wishes: Option<Given<Inner>>,
        #[serde(default)]
        counts: BTreeMap<String, u64>,
        #[serde(default)]
        tasks: Vec<Inner>,
        #[serde(default)]
        changes: Vec<Change>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "it is only read in")]
    struct Change {
        job: String,
        #[serde(flatten)]
        more: More,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "it is only read in")]
    struct More {
        #[serde(default)]
        config: Option<Map<String, Value>>,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        priority: Option<i32>,
        cost: Option<u64>,
        gpus: Option<u32>,
        allow: Option<Vec<String>>,
        ratio: Option<f64>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only read in")]
    struct Page {
        page_size: Option<u32>,
        all: Option<bool>,
        state: Option<String>,
        #[serde(default)]
        sql: String,
    }

    /// What a refusal says is wrong where.
    fn told(refused: &Status) -> (String, String) {
        let bad = refused.get_details_bad_request().expect("a place");
        let field = bad.field_violations.into_iter().next().expect("one");
        (field.field, field.description)
    }

    fn refused(body: &str) -> (String, String) {
        told(&json::<Asks>(body.as_bytes()).expect_err(body))
    }

    #[test]
    fn what_is_of_another_kind_is_told_by_its_members_name_and_what_it_takes() {
        let small = "it takes a whole number from -2147483648 to 2147483647";
        let count = "it takes a whole number from 0 to 4294967295";
        let from_0 = "it takes a whole number from 0";
        for (body, field, what) in [
            (r#"{"wishes": {"priority": "5"}}"#, "wishes.priority", small),
            (r#"{"wishes": {"cost": 1000.0}}"#, "wishes.cost", from_0),
            (r#"{"wishes": {"gpus": -1}}"#, "wishes.gpus", count),
            (r#"{"wishes": {"gpus": 4294967296}}"#, "wishes.gpus", count),
            (
                r#"{"wishes": {"allow": "h100"}}"#,
                "wishes.allow",
                "it takes a list",
            ),
            (
                r#"{"wishes": {"cost": null, "allow": ["", 1]}}"#,
                "wishes.allow[1]",
                "it takes a text",
            ),
            (r#"{"wishes": []}"#, "wishes", "it takes an object"),
            (
                r#"{"tasks": [{}, {"ratio": true}]}"#,
                "tasks[1].ratio",
                "it takes a number",
            ),
            (r#"{"tasks": {}}"#, "tasks", "it takes a list"),
            (r#"{"tasks": null}"#, "tasks", "it takes a list"),
            // Also of members that stand in the place of another.
            (
                r#"{"changes": [{"job": "j", "config": ""}]}"#,
                "changes[0].config",
                "it takes an object",
            ),
            // What is the caller's own is not repeated, neither its name nor what it is.
            (
                r#"{"counts": {"cats": "many"}}"#,
                "counts",
                &format!("one of its members is wrong: {from_0}"),
            ),
            ("7", "body", "it takes an object (line 1 column 1)"),
        ] {
            assert_eq!(refused(body), (field.into(), what.into()), "{body}");
        }
    }

    #[test]
    fn what_is_unknown_missing_or_given_twice_is_told_by_names_of_ours() {
        let none = "a member of it is none that this call takes: write one of";
        let inner = "`priority`, `cost`, `gpus`, `allow`, `ratio`";
        let unknown = refused(r#"{"wishes": {"secret": 1}}"#);
        assert_eq!(unknown, ("wishes".into(), format!("{none} {inner}")));
        let (field, what) = refused(r#"{"secret": 1}"#);
        assert_eq!(field, "body");
        assert!(
            what.starts_with(none) && what.ends_with("(line 1 column 9)"),
            "{what}"
        );
        let missing = refused(r#"{"changes": [{"config": {}}]}"#);
        assert_eq!(missing, ("changes[0]".into(), "`job` is missing".into()));
        let (field, what) = refused(r#"{"counts": {}, "counts": {}}"#);
        assert_eq!(field, "body");
        assert!(
            what.starts_with("`counts` is given twice (line 1"),
            "{what}"
        );
        for body in ["{", "", "{} {}"] {
            let (_, what) = refused(body);
            assert!(what.starts_with("it is no JSON (line 1 column"), "{body}");
        }
        assert!(json::<Asks>(b" {} ").is_ok());
    }

    #[test]
    fn a_wrong_parameter_is_told_by_its_name() {
        let count = "it takes a whole number from 0 to 4294967295";
        for (text, field, what) in [
            ("all=1", "all", "it takes true or false"),
            ("all=", "all", "it takes true or false"),
            ("state=A&page_size=-3", "page_size", count),
            ("state=A&state=B", "query", "`state` is given twice"),
        ] {
            let refused = query::<Page>(Some(text)).expect_err(text);
            assert_eq!(told(&refused), (field.into(), what.into()), "{text}");
        }
        let (field, what) = told(&query::<Page>(Some("secret=1")).expect_err("none of ours"));
        assert_eq!(field, "query");
        assert!(
            what.contains("`page_size`") && !what.contains("secret"),
            "{what}"
        );
        let read = query::<Page>(Some("all=true&sql=%20&page_size=7"));
        assert!(read.is_ok_and(|page| page.all == Some(true)));
        assert!(query::<Page>(None).is_ok());
    }
}
