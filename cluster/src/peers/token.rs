//! Join tokens: text that lets a new node in until a time, which any node of the cluster can make and check.
//!
//! A token holds when it ends, a number that is drawn for it, the first half of the SHA-256 of the authority's certificate
//! (so that the new node knows whom to trust before it says anything) and an HMAC over all of that, with a key that only those
//! can derive who hold the authority's key and the secret that the cluster's nodes share at present. Nothing is stored.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TEXT;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use stepcast_scheduler::model::Generation;

use super::authority::Authority;
use crate::handle::secret::of_generation;

/// What every token begins with, for people and for scanners of leaked secrets; the number is the format.
const PREFIX: &str = "stepcast-join-1.";

/// Bytes of the authority's fingerprint: nobody finds a second certificate with the same half of SHA-256.
const FINGERPRINT: usize = 16;

/// Bytes of the drawn number, so that no two tokens are equal.
const DRAWN: usize = 8;

/// End, drawn number, fingerprint: what the HMAC is over.
const SIGNED: usize = 8 + DRAWN + FINGERPRINT;

/// Bytes of HMAC-SHA256.
const TAG: usize = 32;

/// What the HMAC's key is derived for, so that it is no other key of the authority's.
const PURPOSE: &[u8] = b"stepcast join token 1";

/// A token as it is handed from a member's operator to a new node. A secret until it ends.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    bytes: [u8; SIGNED + TAG],
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the text of a token.
    #[error(
        "this is no join token: one begins with {PREFIX} and is printed by `stepcast cluster token`"
    )]
    Malformed,
    /// Its time is over.
    #[error(
        "the join token has expired: make another with `stepcast cluster token`, and check this host's clock"
    )]
    Expired,
    /// Another authority's.
    #[error("the join token is of another cluster")]
    OtherCluster,
    /// This cluster's by name, but not made by a member of it, as it is now.
    #[error(
        "the join token was not made by a member of this cluster, or a node was removed or the secret renewed since: make another with `stepcast cluster token`"
    )]
    Forged,
}

impl JoinToken {
    /// Makes one that is good for this long from now, and in this generation.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub(crate) fn mint(
        authority: &Authority,
        generation: Option<&Generation>,
        now: SystemTime,
        valid_for: Duration,
    ) -> std::io::Result<Self> {
        let ends = seconds(now).saturating_add(valid_for.as_secs());
        let mut bytes = [0; SIGNED + TAG];
        bytes[..8].copy_from_slice(&ends.to_le_bytes());
        SystemRandom::new()
            .fill(&mut bytes[8..8 + DRAWN])
            .map_err(|_| std::io::Error::other("the system has no random bytes"))?;
        bytes[8 + DRAWN..SIGNED].copy_from_slice(&authority.fingerprint()[..FINGERPRINT]);
        let tag = hmac::sign(&key(authority, generation), &bytes[..SIGNED]);
        bytes[SIGNED..].copy_from_slice(tag.as_ref());
        Ok(Self { bytes })
    }

    /// Reads the text of a token; white space round it is let pass.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(Error::Malformed)?;
        let bytes = TEXT.decode(encoded).map_err(|_| Error::Malformed)?;
        let bytes = bytes.try_into().map_err(|_| Error::Malformed)?;
        Ok(Self { bytes })
    }

    /// Whether it lets somebody into this authority's cluster now, in this generation.
    pub(crate) fn check(
        &self,
        authority: &Authority,
        generation: Option<&Generation>,
        now: SystemTime,
    ) -> Result<(), Error> {
        if !self.names(&authority.fingerprint()) {
            return Err(Error::OtherCluster);
        }
        // In constant time: how much of a guess was right must not show.
        hmac::verify(
            &key(authority, generation),
            &self.bytes[..SIGNED],
            &self.bytes[SIGNED..],
        )
        .map_err(|_| Error::Forged)?;
        if seconds(now) >= self.ends() {
            return Err(Error::Expired);
        }
        Ok(())
    }

    /// Whether this is the fingerprint of the authority that it names.
    pub(crate) fn names(&self, fingerprint: &[u8; 32]) -> bool {
        self.bytes[8 + DRAWN..SIGNED] == fingerprint[..FINGERPRINT]
    }

    /// As it is pasted.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", TEXT.encode(self.bytes))
    }

    /// Seconds since 1970 from which it is good no longer.
    #[must_use]
    pub fn ends(&self) -> u64 {
        let mut ends = [0; 8];
        ends.copy_from_slice(&self.bytes[..8]);
        u64::from_le_bytes(ends)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("ends", &self.ends())
            .finish_non_exhaustive()
    }
}

fn key(authority: &Authority, generation: Option<&Generation>) -> hmac::Key {
    let root = derived(authority, PURPOSE);
    hmac::Key::new(hmac::HMAC_SHA256, &of_generation(&root, generation))
}

/// A key for one purpose that every holder of the authority's key can derive, and nobody else.
pub(super) fn derived(authority: &Authority, purpose: &[u8]) -> [u8; 32] {
    let root = hmac::Key::new(hmac::HMAC_SHA256, authority.key());
    let mut key = [0; 32];
    key.copy_from_slice(hmac::sign(&root, purpose).as_ref());
    key
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use stepcast_scheduler::model::Secret;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_good_on_every_node_until_it_ends() {
        let authority = Authority::found(7).unwrap();
        let copy = Authority::of(7, authority.certificate().to_vec(), authority.key()).unwrap();
        let now = SystemTime::now();
        let token = JoinToken::mint(&authority, None, now, HOUR).unwrap();
        assert_eq!(token.text().len(), PREFIX.len() + 86);
        let read = JoinToken::parse(&format!("  {}\n", token.text())).unwrap();
        assert_eq!(read, token);
        assert_eq!(read.check(&copy, None, now), Ok(()));
        let late = now + HOUR;
        assert_eq!(read.check(&copy, None, late), Err(Error::Expired));
        assert_eq!(
            read.check(&copy, None, late - Duration::from_secs(1)),
            Ok(())
        );
        let other = JoinToken::mint(&authority, None, now, HOUR).unwrap();
        assert_ne!(other, token);
    }

    #[test]
    fn no_changed_byte_is_taken() {
        let authority = Authority::found(7).unwrap();
        let now = SystemTime::now();
        let token = JoinToken::mint(&authority, None, now, HOUR).unwrap();
        for at in 0..token.bytes.len() {
            let mut forged = token.clone();
            forged.bytes[at] ^= 1;
            let expected = if (8 + DRAWN..SIGNED).contains(&at) {
                Error::OtherCluster
            } else {
                Error::Forged
            };
            assert_eq!(
                forged.check(&authority, None, now),
                Err(expected),
                "byte {at}"
            );
        }
    }

    #[test]
    fn a_token_of_another_cluster_says_so() {
        let now = SystemTime::now();
        let token = JoinToken::mint(&Authority::found(7).unwrap(), None, now, HOUR).unwrap();
        let other = Authority::found(7).unwrap();
        assert_eq!(token.check(&other, None, now), Err(Error::OtherCluster));
    }

    /// Whoever has the authority's key and an older secret, or none, lets nobody in.
    #[test]
    fn a_token_ends_with_its_generation() {
        let authority = Authority::found(7).unwrap();
        let now = SystemTime::now();
        let generation = |number: u8| Generation {
            number: number.into(),
            secret: Secret([number; 32]),
        };
        let (first, second) = (generation(1), generation(2));
        for (made_in, checked_in, is_good) in [
            (None, None, true),
            (None, Some(&first), false),
            (Some(&first), Some(&first), true),
            (Some(&first), Some(&second), false),
            (Some(&second), Some(&first), false),
        ] {
            let token = JoinToken::mint(&authority, made_in, now, HOUR).unwrap();
            let expected = if is_good { Ok(()) } else { Err(Error::Forged) };
            assert_eq!(token.check(&authority, checked_in, now), expected);
        }
    }

    #[test]
    fn other_text_is_no_token() {
        let whole = JoinToken::mint(&Authority::found(7).unwrap(), None, SystemTime::now(), HOUR)
            .unwrap()
            .text();
        let texts = [
            "",
            "stepcast-join-1.",
            "stepcast-join-1.????",
            &whole[1..],
            &whole[..whole.len() - 1],
            &format!("{whole}A"),
        ];
        for text in texts {
            assert_eq!(JoinToken::parse(text), Err(Error::Malformed), "{text}");
        }
    }

    #[test]
    fn a_token_is_in_no_debug_output() {
        let token = JoinToken::mint(&Authority::found(7).unwrap(), None, UNIX_EPOCH, HOUR).unwrap();
        assert_eq!(format!("{token:?}"), "JoinToken { ends: 3600, .. }");
    }
}
