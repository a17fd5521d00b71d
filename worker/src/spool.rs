//! Hands waiting samples to the leader, one contribution at a time, until it has said that it keeps them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use stepcast_records::Sample;
use tokio::sync::Notify;

use crate::agent::Epoch;
use crate::chain::chain;
use crate::disk;
use crate::host::{Host, Refused};
use crate::random;
use crate::session::backoff::Backoff;
use crate::state_dir::{Contribution, Look};

/// How often the folder is looked at without being told: samples that could not be sent before a restart wait there.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Contributions that are held in memory while the disk takes none: a day of ends on a host with eight GPUs. Each is a few
/// kilobytes.
const HELD: usize = 256;

/// So many refusals end a round: one contribution that is not taken holds up no others, and a leader that takes none is not
/// asked for each that waits.
const REFUSALS: usize = 8;

/// After which file the next round begins, so that in the end each has its turn however many are refused.
#[derive(Debug, Default)]
pub(crate) struct Turn(Option<PathBuf>);

/// Samples that the disk has no room for: in memory until the leader or the disk takes them, and lost with the process.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<VecDeque<Contribution>>);

impl Held {
    /// How many contributions there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Adds one. The oldest goes when there are too many.
    fn push(&self, contribution: Contribution) {
        let mut held = self.lock();
        if held.len() == HELD {
            held.pop_front();
            tracing::error!("too many samples wait in memory; the oldest are dropped");
        }
        held.push_back(contribution);
    }

    fn first(&self) -> Option<Contribution> {
        self.lock().front().cloned()
    }

    /// Forgets one, which may have gone meanwhile.
    fn forget(&self, id: &str) {
        self.lock().retain(|contribution| contribution.id != id);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Contribution>> {
        // The data is whole after any panic: no step in here leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what an attempt has measured until the leader has it: on the disk, and in memory where that takes nothing.
pub(crate) fn keep(host: &Host, epoch: Epoch, samples: Vec<Sample>) {
    let id = match random::token() {
        Ok(id) => id,
        Err(error) => {
            tracing::error!(epoch, %error, "the samples cannot be kept: no id can be drawn for them");
            return;
        }
    };
    let made = Contribution::new(id, samples, SystemTime::now());
    put(host, epoch, made);
}

fn put(host: &Host, epoch: Epoch, contribution: Contribution) {
    if let Err(error) = host.state.spool(&contribution) {
        tracing::error!(
            epoch,
            error = chain(&error),
            "the samples cannot be kept on disk; they wait in memory and are lost if the worker ends before they are sent"
        );
        host.held.push(contribution);
    }
}

/// Sends whatever waits, for as long as the worker runs.
pub(crate) async fn run(host: Arc<Host>, added: Arc<Notify>) {
    let mut backoff = Backoff::default();
    let mut turn = Turn::default();
    loop {
        let wait = match send_all(&host, &mut turn).await {
            Ok(()) => {
                backoff.reset();
                LOOK_EVERY
            }
            Err(why) => {
                tracing::debug!(why, "samples wait");
                backoff.next()
            }
        };
        let _told = tokio::time::timeout(wait, added.notified()).await;
    }
}

/// Sends everything that waits now, first what would be lost with the process, where the first refusal for now ends it.
/// What is refused of the rest waits for another round, with the reason of the first.
pub(crate) async fn send_all(host: &Arc<Host>, turn: &mut Turn) -> Result<(), String> {
    while let Some(contribution) = host.held.first() {
        if let Err(why) = send(host, &contribution).await {
            settle(host).await;
            return Err(why);
        }
        host.held.forget(&contribution.id);
    }
    let kept = Arc::clone(host);
    let waiting = disk::beside(move || kept.state.spooled()).await;
    let mut waiting = waiting.map_err(|error| chain(&error))?;
    waiting.sort_unstable();
    let after = turn.0.take();
    let first = waiting.partition_point(|path| Some(path) <= after.as_ref());
    waiting.rotate_left(first);
    let mut left = Ok(());
    let mut refusals = 0;
    for path in waiting {
        // One at a time: in memory each takes a hundred times as much as on the disk.
        let kept = Arc::clone(host);
        let file = path.clone();
        let read = move || kept.state.read_spooled(&file, Look::now());
        let contribution = match disk::beside(read).await {
            Ok(Some(contribution)) => contribution,
            Ok(None) => continue,
            // What stands behind it is sent all the same.
            Err(error) => {
                left = left.and(Err(chain(&error)));
                continue;
            }
        };
        if let Err(why) = send(host, &contribution).await {
            left = left.and(Err(why));
            refusals += 1;
            if refusals == REFUSALS {
                turn.0 = Some(path);
                break;
            }
            continue;
        }
        let kept = Arc::clone(host);
        let gone = disk::beside(move || kept.state.unspool(&contribution.id)).await;
        gone.map_err(|error| chain(&error))?;
    }
    left
}

/// Hands one over. One that is refused for good is as good as taken.
async fn send(host: &Host, contribution: &Contribution) -> Result<(), String> {
    match host.wire.contribute(contribution).await {
        Ok(()) => Ok(()),
        Err(Refused::Never(why)) => {
            tracing::warn!(why, "a contribution is refused for good and dropped");
            Ok(())
        }
        Err(Refused::Later(why)) => Err(why),
    }
}

/// Puts what is held in memory on the disk, as far as there is room by now.
pub(crate) async fn settle(host: &Arc<Host>) {
    let host = Arc::clone(host);
    let settle = move || {
        while let Some(contribution) = host.held.first() {
            if host.state.spool(&contribution).is_err() {
                return;
            }
            host.held.forget(&contribution.id);
        }
    };
    disk::beside(settle).await;
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::host::tests::Leader;

    fn contribution(id: &str) -> Contribution {
        Contribution {
            id: id.to_owned(),
            ..Contribution::default()
        }
    }

    #[tokio::test]
    async fn what_the_disk_does_not_take_is_sent_from_memory() {
        let root = tempfile::tempdir().unwrap();
        let leader = Arc::new(Leader::default());
        let host = Arc::new(leader.host(root.path()));
        // A file that cannot be begun, as where there is no room.
        let spool = root.path().join("state/spool");
        fs::create_dir(spool.join("0a.tmp")).unwrap();
        leader.is_away.store(true, Ordering::SeqCst);
        put(&host, 7, contribution("0a"));
        put(&host, 8, contribution("0b"));
        assert_eq!(host.held.count(), 1);
        assert!(host.metrics_text(None).contains("{what=\"samples\"} 2\n"));
        assert_eq!(
            send_all(&host, &mut Turn::default()).await,
            Err("away".to_owned())
        );
        assert_eq!(host.held.count(), 1);
        leader.is_away.store(false, Ordering::SeqCst);
        send_all(&host, &mut Turn::default()).await.unwrap();
        assert_eq!(*leader.taken.lock().unwrap(), ["0a", "0b"]);
        assert_eq!(
            (host.held.count(), host.state.spooled_count().unwrap()),
            (0, 0)
        );
    }

    /// Whatever it is about them, others are not held up, and a leader that takes none is not asked for each.
    #[tokio::test]
    async fn refused_ones_hold_up_no_others() {
        let root = tempfile::tempdir().unwrap();
        let leader = Arc::new(Leader::default());
        let host = Arc::new(leader.host(root.path()));
        let id = |number: usize| format!("{number:02}");
        for number in 0..3 * REFUSALS {
            put(&host, 7, contribution(&id(number)));
        }
        let mut turn = Turn::default();
        // All but the last are refused.
        let refused = (0..3 * REFUSALS - 1).map(id).collect();
        *leader.refused.lock().unwrap() = refused;
        for round in 1..=3 {
            let sent = send_all(&host, &mut turn).await;
            assert_eq!(sent, Err("not these".to_owned()));
            let taken = leader.taken.lock().unwrap().len();
            assert_eq!(taken, usize::from(round == 3), "round {round}");
        }
        leader.refused.lock().unwrap().clear();
        send_all(&host, &mut turn).await.unwrap();
        assert_eq!(leader.taken.lock().unwrap().len(), 3 * REFUSALS);
        assert_eq!(host.state.spooled_count().unwrap(), 0);
    }

    #[tokio::test]
    async fn it_is_put_on_the_disk_once_there_is_room() {
        let root = tempfile::tempdir().unwrap();
        let leader = Arc::new(Leader::default());
        let host = Arc::new(leader.host(root.path()));
        let full = root.path().join("state/spool/0a.tmp");
        fs::create_dir(&full).unwrap();
        leader.is_away.store(true, Ordering::SeqCst);
        put(&host, 7, contribution("0a"));
        fs::remove_dir(&full).unwrap();
        assert_eq!(
            send_all(&host, &mut Turn::default()).await,
            Err("away".to_owned())
        );
        assert_eq!(host.held.count(), 0);
        let path = root.path().join("state/spool/0a.json");
        let kept = host.state.read_spooled(&path, Look::now()).unwrap();
        assert_eq!(kept, Some(contribution("0a")));
    }

    #[test]
    fn what_is_held_is_bounded_and_the_oldest_goes() {
        let held = Held::default();
        for number in 0..=HELD {
            held.push(contribution(&number.to_string()));
        }
        assert_eq!(held.count(), HELD);
        assert_eq!(held.first(), Some(contribution("1")));
    }

    #[test]
    fn the_reason_is_told() {
        let root = tempfile::tempdir().unwrap();
        let host = Arc::new(Leader::default()).host(root.path());
        fs::create_dir(root.path().join("state/spool/0a.tmp")).unwrap();
        let error = host.state.spool(&contribution("0a")).unwrap_err();
        let told = chain(&error);
        assert!(
            told.contains("0a.tmp") && told.contains("directory"),
            "{told}"
        );
    }
}
