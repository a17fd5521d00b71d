//! How fresh an answer has to be: what a caller may ask for with each call that reads.

use stepcast_cluster::{Handle, ReadError};
use stepcast_scheduler::State;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::status;

/// The metadata key in which a caller says it.
const KEY: &str = "stepcast-read";

/// What a read has to contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Everything that was acknowledged before the call. Any node that can reach the leader answers.
    Confirmed,
    /// The same, and what only the leader keeps in memory: progress, lines, who is attached. Another node says who leads.
    Live,
    /// What this node has, which may be a moment old. It answers also when it is cut off from the others.
    Stale,
}

impl Freshness {
    /// What the caller asks for; [`Freshness::Confirmed`] if it says nothing.
    pub(crate) fn of(metadata: &MetadataMap) -> Result<Self, Status> {
        Self::read_word(metadata.get(KEY).map(|value| value.as_bytes()))
    }

    /// The same of a call over HTTP.
    pub(crate) fn of_http(headers: &axum::http::HeaderMap) -> Result<Self, Status> {
        Self::read_word(headers.get(KEY).map(axum::http::HeaderValue::as_bytes))
    }

    fn read_word(word: Option<&[u8]>) -> Result<Self, Status> {
        match word {
            None | Some(b"confirmed") => Ok(Self::Confirmed),
            Some(b"live") => Ok(Self::Live),
            Some(b"stale") => Ok(Self::Stale),
            Some(_) => Err(status::bad_field(KEY, "say confirmed, live or stale")),
        }
    }

    /// Waits until this node may answer. What is read from then on is fresh enough.
    pub(crate) async fn await_at(self, handle: &Handle) -> Result<(), ReadError> {
        match self {
            Self::Stale => Ok(()),
            Self::Live if !handle.leads() => Err(ReadError::NotLeader {
                leader: handle.status().leader,
            }),
            Self::Live | Self::Confirmed => handle.read(|_state| ()).await,
        }
    }

    /// Reads the state with this freshness. The log waits while `read` runs, so it must be quick.
    pub(crate) async fn read<T>(
        self,
        handle: &Handle,
        read: impl FnOnce(&State) -> T,
    ) -> Result<T, Status> {
        self.await_at(handle).await.map_err(status::read)?;
        Ok(handle.read_stale(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_says_nothing_gets_what_was_acknowledged() {
        let mut metadata = MetadataMap::new();
        assert_eq!(Freshness::of(&metadata).ok(), Some(Freshness::Confirmed));
        for (word, freshness) in [
            ("confirmed", Some(Freshness::Confirmed)),
            ("live", Some(Freshness::Live)),
            ("stale", Some(Freshness::Stale)),
            ("fresh", None),
        ] {
            metadata.insert(KEY, tonic::metadata::MetadataValue::from_static(word));
            assert_eq!(Freshness::of(&metadata).ok(), freshness, "{word}");
        }
    }
}
