//! Who calls: people by the server's access token, workers by the secret of their own token.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use stepcast_cluster::Handle;
use stepcast_scheduler::ids::{TokenHash, WorkerId};
use stepcast_scheduler::model::Inventory;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::access::{Caller, Claims, TICKET_LIFE, Tickets};
use crate::status;

/// Shortest access token: 128 bits in hexadecimal or base64 are longer than this, words that can be guessed are not.
const ACCESS_TOKEN_BYTES_MIN: usize = 16;

/// Longest secret that is looked at: ours have 68 bytes, and a header is read before anything is known of its sender.
const SECRET_BYTES_MAX: usize = 512;

/// Random bytes of a worker token's secret.
const WORKER_SECRET_BYTES: usize = 32;

/// How a worker token's secret begins, so that it is known for one where it should not be.
const WORKER_SECRET_PREFIX: &str = "scw_";

/// What people must show. Only its hash is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(TokenHash);

/// An access token's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessTokenError {
    /// The file cannot be read.
    #[error("the access token's file cannot be read")]
    Read(#[from] std::io::Error),
    /// It can be guessed.
    #[error(
        "an access token has {ACCESS_TOKEN_BYTES_MIN} to {SECRET_BYTES_MAX} letters, digits or signs and no space"
    )]
    Unusable,
}

impl AccessToken {
    /// The token in a file that holds nothing else.
    ///
    /// # Errors
    /// When the file cannot be read, or the token is too short, too long or not printable.
    pub fn read(file: &Path) -> Result<Self, AccessTokenError> {
        Self::new(std::fs::read_to_string(file)?.trim())
    }

    /// This token.
    ///
    /// # Errors
    /// When it is too short, too long or not printable.
    pub fn new(token: &str) -> Result<Self, AccessTokenError> {
        let length = (ACCESS_TOKEN_BYTES_MIN..=SECRET_BYTES_MAX).contains(&token.len());
        let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        (length && printable)
            .then(|| Self(hash(token)))
            .ok_or(AccessTokenError::Unusable)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken")
    }
}

/// Lets people in: everybody when no token is set, which only a loopback listener may be.
#[derive(Clone)]
pub(crate) struct People {
    access_token: Option<AccessToken>,
    tickets: Tickets,
}

impl People {
    pub(crate) const fn new(access_token: Option<AccessToken>, tickets: Tickets) -> Self {
        Self {
            access_token,
            tickets,
        }
    }

    /// Who calls over HTTP.
    pub(crate) fn caller_of(&self, headers: &HeaderMap) -> Result<Caller, Status> {
        let shown = headers.get(axum::http::header::AUTHORIZATION);
        self.caller(shown.and_then(|value| secret_in(value.to_str().ok()?)))
    }

    /// A short-lived token for who shows a long-lived one, and for how long it is good.
    pub(crate) fn exchange(
        &self,
        refresh_token: &str,
        org: &str,
        now: SystemTime,
    ) -> Result<(String, Duration), Status> {
        let own = self.access_token.as_ref().is_some_and(|AccessToken(own)| {
            refresh_token.len() <= SECRET_BYTES_MAX && equal(&hash(refresh_token), own)
        });
        if !own || org.is_empty() {
            return Err(status::access_denied("the token is not this server's"));
        }
        let claims = Claims { user: 0, org: 0 };
        Ok((self.tickets.issue(claims, now), TICKET_LIFE))
    }

    fn caller(&self, shown: Option<&str>) -> Result<Caller, Status> {
        let Some(AccessToken(own)) = &self.access_token else {
            return Ok(Caller::ANYBODY);
        };
        let shown = shown
            .ok_or_else(|| status::access_denied("this server asks people for an access token"))?;
        if self.tickets.check(shown, SystemTime::now()).is_some() || equal(&hash(shown), own) {
            return Ok(Caller::OPERATOR);
        }
        Err(status::access_denied(
            "the access token is not this server's, or it is over",
        ))
    }
}

/// A worker that has shown the secret of a valid token.
#[derive(Debug, Clone)]
pub(crate) struct WorkerCaller {
    /// The hash of the secret.
    pub(crate) token: TokenHash,
    /// The worker that came with it before, if there is one, with what it offers.
    pub(crate) worker: Option<Known>,
}

/// What is known of a worker that calls.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: WorkerId,
    pub(crate) inventory: Inventory,
}

/// Tells which worker calls by the secret it shows. Nothing of a caller without a valid one goes any further.
pub(crate) async fn worker(
    handle: &Handle,
    metadata: &MetadataMap,
) -> Result<WorkerCaller, Status> {
    let token = hash(bearer(metadata).ok_or_else(status::invalid_token)?);
    let found = handle.read(|state| {
        let known = state.token_by_hash(&token)?;
        let worker = known.worker.and_then(|id| state.worker(id));
        let worker = worker.map(|worker| Known {
            id: worker.id,
            inventory: worker.inventory.clone(),
        });
        Some(WorkerCaller { token, worker })
    });
    found
        .await
        .map_err(status::read)?
        .ok_or_else(status::invalid_token)
}

/// The same for calls that only the leader takes: another node says so at once, without asking a leader that may be gone.
pub(crate) async fn worker_of_leader(
    handle: &Handle,
    metadata: &MetadataMap,
) -> Result<WorkerCaller, Status> {
    if !handle.leads() {
        return Err(status::not_leader(handle.status().leader));
    }
    worker(handle, metadata).await
}

/// A new worker token's secret, and the hash that is kept of it.
pub(crate) fn new_worker_secret() -> (String, TokenHash) {
    // The thread's generator is a cryptographic one, seeded by the system.
    let bytes: [u8; WORKER_SECRET_BYTES] = rand::random();
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = format!("{WORKER_SECRET_PREFIX}{digits}");
    let hash = hash(&secret);
    (secret, hash)
}

fn bearer(metadata: &MetadataMap) -> Option<&str> {
    secret_in(metadata.get("authorization")?.to_str().ok()?)
}

/// The secret in a header.
fn secret_in(value: &str) -> Option<&str> {
    let (scheme, secret) = value.split_once(' ')?;
    let secret = secret.trim();
    let fits = !secret.is_empty() && secret.len() <= SECRET_BYTES_MAX;
    (scheme.eq_ignore_ascii_case("bearer") && fits).then_some(secret)
}

fn hash(secret: &str) -> TokenHash {
    TokenHash(Sha256::digest(secret.as_bytes()).into())
}

/// Compares every byte whatever the first ones are, so that the time taken tells nothing.
fn equal(TokenHash(a): &TokenHash, TokenHash(b): &TokenHash) -> bool {
    let difference = a
        .iter()
        .zip(b)
        .fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use tonic::Code;

    use super::*;

    fn asks(people: &People, header: Option<&str>) -> Option<Code> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert("authorization", header.parse().unwrap());
        }
        people.caller_of(&headers).err().map(|status| status.code())
    }

    #[test]
    fn people_show_the_token_when_there_is_one() {
        let tickets = Tickets::new(&[1; 32]);
        let token = AccessToken::new("0123456789abcdef").unwrap();
        let people = People::new(Some(token), tickets.clone());
        assert_eq!(asks(&people, Some("Bearer 0123456789abcdef")), None);
        assert_eq!(asks(&people, Some("bearer 0123456789abcdef")), None);
        for wrong in [
            None,
            Some("Bearer 0123456789abcdeg"),
            Some("Basic 0123456789abcdef"),
            Some("Bearer "),
        ] {
            assert_eq!(
                asks(&people, wrong),
                Some(Code::Unauthenticated),
                "{wrong:?}"
            );
        }
        assert_eq!(asks(&People::new(None, tickets), None), None);
    }

    #[test]
    fn a_long_lived_token_is_exchanged_for_a_short_lived_one() {
        let token = AccessToken::new("0123456789abcdef").unwrap();
        let people = People::new(Some(token), Tickets::new(&[1; 32]));
        let (ticket, life) = people
            .exchange("0123456789abcdef", "main", SystemTime::now())
            .unwrap();
        assert!(life > Duration::from_secs(600));
        assert_eq!(asks(&people, Some(&format!("Bearer {ticket}"))), None);
        for (wrong, org) in [("0123456789abcdeg", "main"), ("0123456789abcdef", "")] {
            assert!(people.exchange(wrong, org, SystemTime::now()).is_err());
        }
        let before = SystemTime::now() - life;
        let (over, _) = people.exchange("0123456789abcdef", "main", before).unwrap();
        assert_eq!(
            asks(&people, Some(&format!("Bearer {over}"))),
            Some(Code::Unauthenticated)
        );
    }

    #[test]
    fn tokens_that_can_be_guessed_are_refused_and_none_is_shown() {
        for token in ["", "short", "has a space in it", "0123456789abcdé"] {
            assert!(AccessToken::new(token).is_err(), "{token:?}");
        }
        let token = AccessToken::new("canary-0123456789").unwrap();
        assert_eq!(format!("{token:?}"), "AccessToken");
    }

    #[test]
    fn worker_secrets_differ_and_hash_to_what_is_kept() {
        let (secret, kept) = new_worker_secret();
        assert_eq!(
            secret.len(),
            WORKER_SECRET_PREFIX.len() + 2 * WORKER_SECRET_BYTES
        );
        assert!(equal(&hash(&secret), &kept));
        assert_ne!(new_worker_secret().0, secret);
    }
}
