//! Looks for members where an operator says that they may be: without that, nodes that have all moved would call each other
//! where nobody is any more.
//!
//! Who is found is only called there: the link makes sure, as everywhere, that it is who it should be, and both ends tell
//! each other where they are.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::sleep;

use super::dial::{Watch, chain, dial};
use super::link::Seen;
use super::shared::{LINKS_MAX, Shared};

/// This long passes before the first look, as members are mostly where they were; twice that before each further one, up to
/// the second. A node that is started last is found within it, and one that stays away costs next to nothing.
const LOOK_AFTER: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A place, and why nobody was found there last; said once in the log.
struct Place {
    address: String,
    failure: Option<String>,
}

/// Looks at these places, one after the other, again and again, for as long as some member is not reached. Of more than
/// [`LINKS_MAX`] only so many.
pub(super) async fn run(shared: Arc<Shared>, tls: Arc<ClientConfig>, addresses: Vec<String>) {
    if addresses.len() > LINKS_MAX {
        tracing::warn!(
            "too many addresses to look for nodes at: only the first {LINKS_MAX} are used"
        );
    }
    let place = |address| Place {
        address,
        failure: None,
    };
    let mut places: Vec<Place> = addresses.into_iter().take(LINKS_MAX).map(place).collect();
    let mut wait = LOOK_AFTER.0;
    loop {
        sleep(wait).await;
        wait = (wait * 2).min(LOOK_AFTER.1);
        for place in &mut places {
            let seen: Vec<Seen> = shared.links().iter().map(|link| link.seen()).collect();
            if place.address == shared.me.peer_address || !is_worth_a_look(&seen, &place.address) {
                continue;
            }
            let failure = look(&shared, &tls, &place.address).await.err();
            if failure.is_some() && failure != place.failure {
                let (address, why) = (&place.address, failure.as_deref());
                tracing::info!(address, why, "no node is found where one may be");
            }
            place.failure = failure;
        }
    }
}

/// Whether somebody is missed who may be there: not where one who answers is known to be. Pure.
fn is_worth_a_look(seen: &[Seen], address: &str) -> bool {
    seen.iter().any(|peer| !peer.reachable)
        && !seen
            .iter()
            .any(|peer| peer.reachable && peer.address == address)
}

/// Has whoever is there called there, if it is a member that is missed.
async fn look(shared: &Arc<Shared>, tls: &Arc<ClientConfig>, address: &str) -> Result<(), String> {
    let dialled = dial(address, None, Arc::clone(tls), Watch::Caller).await;
    let certificate = dialled.map_err(|error| chain(&error))?.certificate;
    let certificate = certificate.ok_or("it has shown no certificate")?;
    let node = shared
        .roster
        .who(&certificate)
        .ok_or("whoever is there is none of the nodes that are looked for")?;
    let link = shared.link(node);
    if !link.is_some_and(|link| link.is_reached() || link.address() == address) {
        tracing::info!(node, address, "a node is found where one may be");
        shared.connect(node, address);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u64, address: &str, reachable: bool) -> Seen {
        Seen {
            id,
            address: address.to_owned(),
            reachable,
            round_trip: None,
            version: String::new(),
            log_format: None,
            failure: None,
            dropped: 0,
        }
    }

    #[test]
    fn nobody_is_looked_for_where_one_answers_or_when_all_do() {
        let all = [peer(2, "b:1", true), peer(3, "c:1", true)];
        assert!(!is_worth_a_look(&all, "b:1") && !is_worth_a_look(&all, "x:1"));
        let some = [peer(2, "b:1", true), peer(3, "c:1", false)];
        assert!(!is_worth_a_look(&some, "b:1"));
        assert!(is_worth_a_look(&some, "x:1"));
        // Addresses may have been dealt out anew: another member may be where this one was.
        assert!(is_worth_a_look(&some, "c:1"));
        assert!(!is_worth_a_look(&[], "x:1"), "a node alone misses nobody");
    }
}
