//! How a node that another one has not heard of yet shows that it belongs to the cluster: the authority's signature is not
//! enough, since whoever was removed has the authority's key as well.
//!
//! A node says by each of the secrets that it knows who it is and whom it calls. Who is called looks at the secret that it
//! knows as the present one: a node that lags behind so hears a newer one, and is behind by itself if it believes one that was
//! removed meanwhile.

use ring::hmac;
use stepcast_proto::raft::v1::{Hello, Proof};
use stepcast_scheduler::model::Generation;

use super::authority::Authority;
use super::token::derived;
use crate::handle::secret::of_generation;

/// What the HMAC's key is derived for.
const PURPOSE: &[u8] = b"stepcast member 1";

/// What a node with this key shows another one by each of these generations.
pub(super) fn of(
    authority: &Authority,
    generations: &[Generation],
    (from, to): (u64, u64),
    key: &[u8; 32],
) -> Vec<Proof> {
    let of_one = |generation: &Generation| {
        let tag = hmac::sign(&secret(authority, generation), &signed(from, to, key));
        Proof {
            generation: generation.number,
            tag: tag.as_ref().to_vec().into(),
        }
    };
    generations.iter().map(of_one).collect()
}

/// Whether who says hello with this key knows the secret of this generation.
pub(super) fn holds(
    authority: &Authority,
    generation: &Generation,
    hello: &Hello,
    key: &[u8; 32],
) -> bool {
    let mut proofs = hello.proofs.iter();
    let proof = proofs.find(|proof| proof.generation == generation.number);
    let signed = signed(hello.from, hello.to, key);
    proof.is_some_and(|proof| {
        hmac::verify(&secret(authority, generation), &signed, &proof.tag).is_ok()
    })
}

fn secret(authority: &Authority, generation: &Generation) -> hmac::Key {
    let root = derived(authority, PURPOSE);
    hmac::Key::new(hmac::HMAC_SHA256, &of_generation(&root, Some(generation)))
}

fn signed(from: u64, to: u64, key: &[u8; 32]) -> Vec<u8> {
    [&from.to_le_bytes()[..], &to.to_le_bytes(), key].concat()
}
