//! Who calls: people by the server's access token, workers by the secret of their own token.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use ring::hmac;
use sha2::{Digest, Sha256};
use stepcast_cluster::Handle;
use stepcast_scheduler::accounts::{Key, User};
use stepcast_scheduler::ids::{OrgId, TokenHash, WorkerId};
use stepcast_scheduler::model::Inventory;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::access::{Caller, TICKET_LIFE, TICKET_PREFIX, Tickets};
use crate::status;

/// Shortest access token: 128 bits in hexadecimal or base64 are longer than this, words that can be guessed are not.
const ACCESS_TOKEN_BYTES_MIN: usize = 16;

/// Longest secret that is looked at: ours have 68 bytes, and a header is read before anything is known of its sender.
const SECRET_BYTES_MAX: usize = 512;

/// The organisation of who has nothing but the server's own access token.
const OWN_ORG: &str = "main";

/// What operators call where they are, when they exchange a token.
const OPERATORS: &str = "operators";

/// What the server's own access token is told apart from people's by, where both are hashed.
const OWN_KEY: &[u8] = b"own access token ";

/// How a person's long-lived token begins.
const REFRESH_PREFIX: &str = "scr1_";

/// How what lets the first operator in begins.
const FIRST_PREFIX: &str = "sco1_";

/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;

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

/// Lets people in: by the server's own access token, by a long-lived token of their own, or by a short-lived one that was
/// given for either and holds no longer than it. A server without an access token of its own, which only listens on loopback,
/// asks nobody until there is an operator.
#[derive(Clone)]
pub(crate) struct People {
    access_token: Option<AccessToken>,
    /// Whether only this host reaches the server.
    loopback: bool,
    handle: Handle,
    /// What the keys of short-lived tokens are made of, with what the cluster's nodes share at the time.
    root: [u8; 32],
    /// What long-lived tokens are hashed with.
    pepper: hmac::Key,
    /// What lets the first operator in.
    first: hmac::Key,
}

impl People {
    pub(crate) fn new(access_token: Option<AccessToken>, loopback: bool, handle: Handle) -> Self {
        // A node that no other can join needs a key for as long as it runs.
        let key = |purpose: &[u8]| handle.key_for(purpose).unwrap_or_else(rand::random);
        let hmac = |purpose: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, &key(purpose));
        Self {
            access_token,
            loopback,
            root: key(b"stepcast access token 1"),
            pepper: hmac(b"stepcast refresh token 1"),
            first: hmac(b"stepcast first operator 1"),
            handle,
        }
    }

    /// Who calls, by the headers of their request.
    pub(crate) fn caller_of(&self, headers: &HeaderMap) -> Result<Caller, Status> {
        let shown = headers.get(axum::http::header::AUTHORIZATION);
        self.caller(shown.and_then(|value| secret_in(value.to_str().ok()?)))
    }

    /// Whether what a request shows may be a token that was made on another node a moment ago: a long-lived one, or a
    /// short-lived one by a secret of the cluster's that is not known here yet.
    pub(crate) fn may_be_new(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(axum::http::header::AUTHORIZATION);
        let shown = shown.and_then(|value| secret_in(value.to_str().ok()?));
        shown.is_some_and(|shown| {
            Tickets::may_be(shown, SystemTime::now()) || self.refresh_key(shown).is_some()
        })
    }

    /// Waits until this node knows everything that was acknowledged anywhere when it was asked; false where it cannot be had.
    pub(crate) async fn catch_up(&self) -> bool {
        self.handle.read(|_| ()).await.is_ok()
    }

    /// [`Self::exchange_known`], also of a token that was made on another node a moment ago.
    pub(crate) async fn exchange(
        &self,
        refresh_token: &str,
        org: &str,
        now: SystemTime,
    ) -> Result<(String, Duration), Status> {
        // What would be over within a moment is not given out, as by a secret that is not the newest. Who shows no token of
        // ours has nobody asked.
        if self.is_own(refresh_token) || self.refresh_key(refresh_token).is_some() {
            self.handle.has_settled().await;
        }
        self.exchange_known(refresh_token, org, now)
    }

    /// A short-lived token for who shows a long-lived one, and for how long it is good.
    fn exchange_known(
        &self,
        refresh_token: &str,
        org: &str,
        now: SystemTime,
    ) -> Result<(String, Duration), Status> {
        let found = if self.is_own(refresh_token) {
            let own = self.own_key().filter(|_| org == OWN_ORG);
            own.map(|own| (own, TICKET_LIFE))
        } else {
            let hash = self.refresh_key(refresh_token);
            hash.and_then(|hash| {
                let (key, user) = self.holder(&hash)?;
                let left_ms = key
                    .expires_ms
                    .map(|ends| ends.saturating_sub(self.handle.now_ms()));
                let left = left_ms.map_or(TICKET_LIFE, Duration::from_millis);
                self.is_called(user.org, org)
                    .then_some((hash, left.min(TICKET_LIFE)))
            })
        };
        // Which of both is wrong is not said: whoever guesses tokens learns nothing about organisations.
        let (of, good_for) = found.ok_or_else(|| {
            status::access_denied("the refresh token is not good, or not for this organisation")
        })?;
        Ok((self.tickets().issue(of, now, good_for), good_for))
    }

    /// A new long-lived token, and the hash that is kept of it.
    pub(crate) fn new_refresh_token(&self) -> (String, TokenHash) {
        let secret = format!("{REFRESH_PREFIX}{}", random_digits());
        let hash = self.keyed(secret.as_bytes());
        (secret, hash)
    }

    /// What lets the first operator in, as long as there is none. Every node of the cluster knows the same.
    pub(crate) fn first_token(&self) -> Option<String> {
        if self.access_token.is_some() || self.has_operator() {
            return None;
        }
        let cluster = self.handle.status().cluster_id;
        let tag = hmac::sign(&self.first, &cluster.to_le_bytes());
        let digits: String = tag.as_ref()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Some(format!("{FIRST_PREFIX}{digits}"))
    }

    /// Whether this is what lets the first operator in.
    pub(crate) fn is_first(&self, shown: &str) -> bool {
        self.first_token()
            .is_some_and(|token| equal(&hash(&token), &hash(shown)))
    }

    /// Whether everybody on this machine may call, whatever they show but a token that is not good.
    pub(crate) fn ask_nobody(&self) -> bool {
        self.loopback && self.access_token.is_none() && !self.has_operator()
    }

    fn caller(&self, shown: Option<&str>) -> Result<Caller, Status> {
        let known = shown.and_then(|shown| self.known(shown));
        if let Some(caller) = known {
            return Ok(caller);
        }
        // A token of ours that is not good is never taken for none at all.
        let ours = shown.is_some_and(|shown| {
            shown.starts_with(REFRESH_PREFIX) || shown.starts_with(TICKET_PREFIX)
        });
        if !ours && self.ask_nobody() {
            return Ok(Caller::ANYBODY);
        }
        Err(status::access_denied(match shown {
            None => "this server asks people for an access token",
            Some(_) => "the access token is not this server's, or it is over",
        }))
    }

    fn known(&self, shown: &str) -> Option<Caller> {
        let ticket = self.tickets().check(shown, SystemTime::now());
        let is_own = match &ticket {
            Some(of) => self.own_key().is_some_and(|own| equal(&own, of)),
            None => self.is_own(shown),
        };
        if is_own {
            return Some(Caller::OPERATOR);
        }
        // Looked up in memory, so that a token that was taken back a moment ago is so at once, with what was given for it, and
        // so is who was shut out or is something else now.
        let hash = ticket.or_else(|| self.refresh_key(shown))?;
        let (_, user) = self.holder(&hash)?;
        Some(Caller::of(&user, hash))
    }

    /// By the key that counts now: none of before counts, since nodes that were removed since knew it.
    fn tickets(&self) -> Tickets {
        Tickets::new(&self.handle.present_key(&self.root))
    }

    /// The keyed hash of what may be a long-lived token.
    fn refresh_key(&self, token: &str) -> Option<TokenHash> {
        let is_one = token.starts_with(REFRESH_PREFIX) && token.len() <= SECRET_BYTES_MAX;
        is_one.then(|| self.keyed(token.as_bytes()))
    }

    /// The long-lived token with this keyed hash, if it still holds, and whose it is.
    fn holder(&self, hash: &TokenHash) -> Option<(Key, User)> {
        let now_ms = self.handle.now_ms();
        self.handle.read_stale(|state| {
            let holder = state.accounts().holder(hash, now_ms);
            holder.map(|(key, user)| (key.clone(), user.clone()))
        })
    }

    /// What short-lived tokens that were given for the server's own access token hold of it: another one than for any token
    /// of a person, since those begin with letters that this does not.
    fn own_key(&self) -> Option<TokenHash> {
        let AccessToken(TokenHash(own)) = self.access_token.as_ref()?;
        Some(self.keyed(&[OWN_KEY, own.as_slice()].concat()))
    }

    fn is_own(&self, token: &str) -> bool {
        let fits = token.len() <= SECRET_BYTES_MAX;
        let own = self.access_token.as_ref();
        fits && own.is_some_and(|AccessToken(own)| equal(&hash(token), own))
    }

    /// Whether an organisation is called that, by its id or its name.
    fn is_called(&self, org: Option<OrgId>, name: &str) -> bool {
        let Some(org) = org else {
            return name == OPERATORS;
        };
        org.to_string() == name
            || self.handle.read_stale(|state| {
                let org = state.accounts().org(org);
                org.is_some_and(|org| org.name.as_str() == name)
            })
    }

    fn has_operator(&self) -> bool {
        let has = |state: &stepcast_scheduler::State| state.accounts().has_operator();
        self.handle.read_stale(has)
    }

    fn keyed(&self, secret: &[u8]) -> TokenHash {
        let tag = hmac::sign(&self.pepper, secret);
        let mut hash = [0; 32];
        hash.copy_from_slice(tag.as_ref());
        TokenHash(hash)
    }
}

/// What lets the first operator of a cluster in, as long as it has none. Every node knows the same, and it is stored
/// nowhere; whoever is shown it can take the cluster over.
///
/// Waits until this node has all that was acknowledged, for a node that has just started may not know of its operator yet.
/// Without a leader it gives up after some seconds, with `None`.
pub async fn first_operator_token(handle: &Handle) -> Option<String> {
    handle.read(|_| ()).await.ok()?;
    People::new(None, false, handle.clone()).first_token()
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

/// The token that is shown. Who shows no secret of a valid one is refused before anything of their call is read: out of
/// memory, and where this node does not know the token, by a question to the others, if `guessed` lets it be asked.
pub(crate) async fn check_worker(
    handle: &Handle,
    headers: &HeaderMap,
    is_leaders: bool,
    guessed: impl FnOnce() -> Result<(), Status>,
) -> Result<TokenHash, Status> {
    let shown = headers.get(axum::http::header::AUTHORIZATION);
    let secret = shown.and_then(|value| secret_in(value.to_str().ok()?));
    let token = hash(secret.ok_or_else(status::invalid_token)?);
    if handle.read_stale(|state| state.token_by_hash(&token).is_some()) {
        return Ok(token);
    }
    if is_leaders && !handle.leads() {
        return Err(status::not_leader(handle.status().leader));
    }
    guessed()?;
    let metadata = MetadataMap::from_headers(headers.clone());
    worker(handle, &metadata).await.map(|_| token)
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
    let secret = format!("{WORKER_SECRET_PREFIX}{}", random_digits());
    let hash = hash(&secret);
    (secret, hash)
}

fn random_digits() -> String {
    // The thread's generator is a cryptographic one, seeded by the system.
    let bytes: [u8; SECRET_BYTES] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
    use std::sync::Arc;

    use stepcast_cluster::credentials::MemoryKeeper;
    use stepcast_cluster::{Config, HostClock, Node, Ports};
    use stepcast_estimator::{Estimator, PriceBook, StoreConfig};

    use super::*;
    use crate::{EstimatedForecasts, EstimatedPrices, EstimatorSink, StagingArea};

    #[test]
    fn tokens_that_can_be_guessed_are_refused_and_none_is_shown() {
        for token in ["", "short", "has a space in it", "0123456789abcdé"] {
            assert!(AccessToken::new(token).is_err(), "{token:?}");
        }
        let token = AccessToken::new("canary-0123456789").unwrap();
        assert_eq!(format!("{token:?}"), "AccessToken");
    }

    /// Whoever knew the old one keeps nothing of it.
    #[tokio::test]
    async fn a_server_with_another_access_token_takes_nothing_that_was_given_for_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreConfig::folder(dir.path().join("records"));
        let estimator = Arc::new(Estimator::open(store, PriceBook::shipped()).await.unwrap());
        let ports = Ports {
            forecast: Arc::new(EstimatedForecasts(Arc::clone(&estimator))),
            prices: Arc::new(EstimatedPrices(Arc::clone(&estimator))),
            recorder: Arc::new(EstimatorSink(estimator)),
            staging: Arc::new(StagingArea::open(dir.path().join("staging")).unwrap()),
            credentials: Arc::new(MemoryKeeper::default()),
            clock: Arc::new(HostClock::new()),
        };
        let handle = Node::start(Config::new(dir.path().join("node")), ports).unwrap();
        handle.has_secret().await;
        let (old, new) = ("0123456789abcdef-old", "0123456789abcdef-new");
        let with = |token| AccessToken::new(token).ok();
        let before = People::new(with(old), true, handle.clone());
        // The same keys, as on another node or after a restart of one in a cluster.
        let after = |access_token| People {
            access_token,
            ..before.clone()
        };
        let (ticket, _) = before
            .exchange_known(old, OWN_ORG, SystemTime::now())
            .unwrap();
        assert_eq!(before.caller(Some(&ticket)).unwrap(), Caller::OPERATOR);
        assert_eq!(
            after(with(old)).caller(Some(&ticket)).unwrap(),
            Caller::OPERATOR
        );
        assert!(after(with(new)).caller(Some(&ticket)).is_err());
        assert!(after(None).caller(Some(&ticket)).is_err());
        handle.shutdown().await;
    }

    #[test]
    fn worker_secrets_differ_and_hash_to_what_is_kept() {
        let (secret, kept) = new_worker_secret();
        assert_eq!(secret.len(), WORKER_SECRET_PREFIX.len() + 2 * SECRET_BYTES);
        assert!(equal(&hash(&secret), &kept));
        assert_ne!(new_worker_secret().0, secret);
    }
}
