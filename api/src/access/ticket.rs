//! Access tokens: short-lived, and verifiable on every node without a question to anybody.
//!
//! One holds who it is for and when it ends, with an HMAC by a key that every node of the cluster derives for itself.
//! Nothing is stored.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TEXT;
use ring::hmac;

/// How a token begins, so that it is known for one where it should not be; the number is the format.
pub(crate) const PREFIX: &str = "sca1_";

/// How long one is good for. SimpleTuner's client asks for another a minute before the end.
pub(crate) const GOOD_FOR: Duration = Duration::from_secs(15 * 60);

/// Bytes of what is signed: user, organisation, end, and a number that is drawn so that no two are equal.
const SIGNED: usize = 32;

/// Bytes of HMAC-SHA256.
const TAG: usize = 32;

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Whose; 0 for who has shown the server's own access token.
    pub(crate) user: u64,
    /// In which organisation; 0 for none.
    pub(crate) org: u64,
}

/// Makes tokens and checks them.
#[derive(Clone)]
pub(crate) struct Tickets(hmac::Key);

impl Tickets {
    /// With the cluster's key for this.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// A token that is good from now on.
    pub(crate) fn issue(&self, claims: Claims, now: SystemTime) -> String {
        let ends = seconds(now) + GOOD_FOR.as_secs();
        let mut bytes = Vec::with_capacity(SIGNED + TAG);
        for part in [claims.user, claims.org, ends, rand::random()] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        format!("{PREFIX}{}", TEXT.encode(bytes))
    }

    /// What a token says, if it is one of this cluster and not over.
    pub(crate) fn check(&self, token: &str, now: SystemTime) -> Option<Claims> {
        let bytes = TEXT.decode(token.strip_prefix(PREFIX)?).ok()?;
        let (signed, tag) = bytes.split_at_checked(SIGNED)?;
        hmac::verify(&self.0, signed, tag).ok()?;
        let mut parts = signed.chunks_exact(8).map(|part| {
            part.iter()
                .rev()
                .fold(0, |n, byte| n << 8 | u64::from(*byte))
        });
        let claims = Claims {
            user: parts.next()?,
            org: parts.next()?,
        };
        (seconds(now) < parts.next()?).then_some(claims)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: Claims = Claims { user: 7, org: 300 };

    #[test]
    fn a_token_is_good_for_a_while_and_on_every_node_with_the_key() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let token = Tickets::new(&[1; 32]).issue(CLAIMS, now);
        let other_node = Tickets::new(&[1; 32]);
        let just = Duration::from_secs(1);
        assert_eq!(other_node.check(&token, now), Some(CLAIMS));
        assert_eq!(
            other_node.check(&token, now + GOOD_FOR - just),
            Some(CLAIMS)
        );
        assert_eq!(other_node.check(&token, now + GOOD_FOR), None);
        assert_eq!(Tickets::new(&[2; 32]).check(&token, now), None);
    }

    #[test]
    fn no_bit_of_a_token_can_be_changed() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let tickets = Tickets::new(&[1; 32]);
        let token = tickets.issue(CLAIMS, now);
        let body = token.strip_prefix(PREFIX).unwrap_or_default();
        let bytes = TEXT.decode(body).unwrap_or_default();
        assert_eq!(bytes.len(), SIGNED + TAG);
        for place in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[place / 8] ^= 1 << (place % 8);
            let other = format!("{PREFIX}{}", TEXT.encode(other));
            assert_eq!(tickets.check(&other, now), None, "bit {place}");
        }
        for wrong in ["", PREFIX, "sca1_AAAA", body] {
            assert_eq!(tickets.check(wrong, now), None, "{wrong}");
        }
    }
}
