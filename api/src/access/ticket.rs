//! Access tokens: short-lived, and verifiable on every node without a question to anybody.
//!
//! One holds which long-lived token it was given for and when it ends, with an HMAC by a key that every node of the cluster
//! derives for itself, of the secret that they share at present too: with another secret all tokens are over. Nothing is stored. Whose it is and whether the long-lived token still holds is looked up when it is
//! shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TEXT;
use ring::hmac;
use stepcast_scheduler::ids::TokenHash;

/// How a token begins, so that it is known for one where it should not be; the number is the format.
pub(crate) const PREFIX: &str = "sca1_";

/// How long one is good for at most. SimpleTuner's client asks for another a minute before the end.
pub(crate) const GOOD_FOR: Duration = Duration::from_secs(15 * 60);

/// Bytes of the long-lived token's hash, with which what is signed begins.
const HASH: usize = 32;

/// Bytes of what is signed: that hash, the end, and a number that is drawn so that no two are equal.
const SIGNED: usize = HASH + 16;

/// Bytes of HMAC-SHA256.
const TAG: usize = 32;

/// Makes tokens and checks them.
#[derive(Clone)]
pub(crate) struct Tickets(hmac::Key);

impl Tickets {
    /// With the cluster's key for this.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// A token for who has shown the long-lived one with this keyed hash, good from now on for so long.
    pub(crate) fn issue(
        &self,
        TokenHash(of): TokenHash,
        now: SystemTime,
        good_for: Duration,
    ) -> String {
        let ends = seconds(now) + good_for.min(GOOD_FOR).as_secs();
        let mut bytes = Vec::with_capacity(SIGNED + TAG);
        bytes.extend_from_slice(&of);
        for part in [ends, rand::random()] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        format!("{PREFIX}{}", TEXT.encode(bytes))
    }

    /// The keyed hash of the long-lived token that this one was given for, if it is one of this cluster and not over. Whether
    /// that one still holds is another question.
    pub(crate) fn check(&self, token: &str, now: SystemTime) -> Option<TokenHash> {
        let (signed, tag) = read(token)?;
        hmac::verify(&self.0, &signed, &tag).ok()?;
        let (of, rest) = signed.split_first_chunk::<HASH>()?;
        (seconds(now) < ends(rest)?).then_some(TokenHash(*of))
    }

    /// Whether it could be one by some key: it looks like one and is not over.
    pub(crate) fn may_be(token: &str, now: SystemTime) -> bool {
        let ends = read(token).and_then(|(signed, _)| ends(&signed[HASH..]));
        ends.is_some_and(|ends| seconds(now) < ends)
    }
}

/// What is signed, and with what.
fn read(token: &str) -> Option<([u8; SIGNED], [u8; TAG])> {
    let bytes = TEXT.decode(token.strip_prefix(PREFIX)?).ok()?;
    let (signed, tag) = bytes.split_first_chunk()?;
    Some((*signed, tag.try_into().ok()?))
}

/// The end, in what stands behind the hash.
fn ends(rest: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*rest.first_chunk()?))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: TokenHash = TokenHash([7; 32]);

    #[test]
    fn a_token_is_good_for_a_while_and_on_every_node_with_the_key() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let token = Tickets::new(&[1; 32]).issue(OF, now, GOOD_FOR);
        let other_node = Tickets::new(&[1; 32]);
        let just = Duration::from_secs(1);
        assert_eq!(other_node.check(&token, now), Some(OF));
        assert_eq!(other_node.check(&token, now + GOOD_FOR - just), Some(OF));
        assert_eq!(other_node.check(&token, now + GOOD_FOR), None);
        assert_eq!(Tickets::new(&[2; 32]).check(&token, now), None);
        // A node that does not know its key yet asks the others, unless it is over anyway.
        assert!(Tickets::may_be(&token, now));
        assert!(!Tickets::may_be(&token, now + GOOD_FOR));
        assert!(!Tickets::may_be(&token[1..], now) && !Tickets::may_be(PREFIX, now));
        // Shorter where the long-lived one ends before, and never longer.
        let short = other_node.issue(OF, now, 2 * just);
        assert_eq!(other_node.check(&short, now + just), Some(OF));
        assert_eq!(other_node.check(&short, now + 2 * just), None);
        let long = other_node.issue(OF, now, 2 * GOOD_FOR);
        assert_eq!(other_node.check(&long, now + GOOD_FOR), None);
    }

    #[test]
    fn no_bit_of_a_token_can_be_changed() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let tickets = Tickets::new(&[1; 32]);
        let token = tickets.issue(OF, now, GOOD_FOR);
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
