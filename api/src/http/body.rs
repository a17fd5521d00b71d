//! What a caller sends: read within a bound and a time, and understood or refused with the place that is wrong.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::status::{self, Refusal};

/// A body comes within this time, or its sender does not mean it.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// How many bytes a body of at most so many will have: as many as are said, or as there may be. One that says it is longer
/// is not read at all.
pub(crate) fn said(headers: &HeaderMap, most: usize) -> Result<usize, Status> {
    let said = headers.get(header::CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let bytes = said.map_or(Ok(most), usize::try_from);
    let fits = bytes.ok().filter(|bytes| *bytes <= most);
    fits.ok_or_else(|| too_large(most))
}

/// Reads a body of at most so many bytes.
pub(crate) async fn read(body: Body, most: usize) -> Result<Vec<u8>, Status> {
    match timeout(BODY_WITHIN, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) if is_too_long(&error) => Err(too_large(most)),
        // Whoever has cut it off does not read the answer.
        Ok(Err(_)) => Err(status::bad_field(
            "body",
            "it is broken off, or not sent as HTTP has it",
        )),
        Err(_) => Err(Refusal::new(
            Code::DeadlineExceeded,
            "BODY_TOO_SLOW",
            "the request's body did not come in time",
        )
        .into()),
    }
}

/// Whether the bound was what ended it; the library tells it by words alone.
fn is_too_long(error: &axum::Error) -> bool {
    error.to_string().contains("length limit exceeded")
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
            serde_json::error::Category::Data => "it is not what this call takes",
            _ => "it is no JSON",
        };
        let place = format!("line {} column {}", error.line(), error.column());
        status::bad_field("body", format!("{what} ({place})"))
    })
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
