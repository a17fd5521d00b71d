//! Removes what attempts have left, once their ends are known: beside the loop that renews leases, and again where it fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::account::folders;
use crate::agent::Epoch;
use crate::chain::chain;
use crate::host::{Host, Standing};
use crate::state_dir::{self, AttemptRecord};
use crate::work::at;

/// Removals at once: caches are large, and one far disk that does not answer must not hold up what lies on another.
const TOGETHER: usize = 4;

/// Attempts that may wait, months of a disk that lets nothing go. What is beyond is found at the worker's next start.
const WAITING: usize = 4_096;

/// How soon a removal is tried again. Each time it takes twice as long, up to the longest.
const FIRST: Duration = Duration::from_secs(1);

/// A person who has mended a disk, or mounted it again, need not wait for longer.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// How long the disk of the results may take to say whose they are. It is asked again later.
const SAID_WITHIN: Duration = Duration::from_secs(5);

/// Attempts whose ends are acknowledged and of which something may still be there.
#[derive(Debug)]
pub(crate) struct Cleanup {
    left: watch::Sender<BTreeMap<Epoch, Left>>,
    /// Who asks the disk of the results.
    asking: Arc<Semaphore>,
}

/// What is known of one.
#[derive(Debug, Clone, Copy)]
struct Left {
    /// When it is to be removed; none while that is done.
    at: Option<Instant>,
    failures: u32,
}

/// Why something of an attempt stays for now.
enum Stays {
    /// It is still needed, or nobody can say.
    NotYet(String),
    /// It cannot be removed.
    Failed(String),
}

impl Default for Cleanup {
    fn default() -> Self {
        Self {
            left: watch::Sender::new(BTreeMap::new()),
            asking: Arc::new(Semaphore::new(TOGETHER)),
        }
    }
}

impl Cleanup {
    /// Has everything of an attempt removed but its results.
    pub(crate) fn add(&self, epoch: Epoch) {
        self.left.send_modify(|left| {
            if left.len() >= WAITING {
                tracing::error!(
                    epoch,
                    "too many attempts wait to be removed; this one is removed when the worker is started again"
                );
                return;
            }
            left.entry(epoch).or_insert(Left {
                at: Some(Instant::now()),
                failures: 0,
            });
        });
    }

    /// Waits until each attempt is gone, or could not be removed once.
    pub(crate) async fn all_tried(&self) {
        let tried = |left: &BTreeMap<Epoch, Left>| left.values().all(|one| one.failures > 0);
        // The sender is here, so there is always an answer.
        let mut changes = self.left.subscribe();
        let _answered = changes.wait_for(tried).await;
    }

    /// When the next one is due, if any waits.
    fn next(&self) -> Option<Instant> {
        self.left.borrow().values().filter_map(|one| one.at).min()
    }

    /// One that is due by `now`. It is the caller's until it is given back.
    fn take(&self, now: Instant) -> Option<Epoch> {
        let mut taken = None;
        self.left.send_if_modified(|left| {
            let is_due = |one: &Left| one.at.is_some_and(|at| at <= now);
            if let Some((epoch, one)) = left.iter_mut().find(|(_, one)| is_due(one)) {
                one.at = None;
                taken = Some(*epoch);
            }
            taken.is_some()
        });
        taken
    }

    /// Forgets one that is gone; one that stays is tried again.
    fn give_back(&self, epoch: Epoch, is_gone: bool, now: Instant) {
        self.left.send_modify(|left| {
            if is_gone {
                left.remove(&epoch);
            } else if let Some(one) = left.get_mut(&epoch) {
                let wait = FIRST.saturating_mul(2_u32.saturating_pow(one.failures));
                one.at = Some(now + wait.min(LONGEST));
                one.failures += 1;
            }
        });
    }
}

/// Removes whatever is due, for as long as the worker runs.
pub(crate) async fn run(host: Arc<Host>) {
    let mut changes = host.cleanup.left.subscribe();
    let mut removing = FuturesUnordered::new();
    loop {
        while removing.len() < TOGETHER
            && let Some(epoch) = host.cleanup.take(Instant::now())
        {
            let host = &host;
            removing.push(async move { (epoch, remove(host, epoch).await) });
        }
        let next = host.cleanup.next().filter(|_| removing.len() < TOGETHER);
        tokio::select! {
            Some((epoch, removed)) = removing.next() => {
                match &removed {
                    Ok(()) => {}
                    Err(Stays::NotYet(why)) => {
                        tracing::debug!(epoch, why, "something of an attempt stays for now");
                    }
                    Err(Stays::Failed(error)) => {
                        tracing::warn!(epoch, error, "the attempt's folder cannot be removed yet; it is tried again");
                    }
                }
                host.cleanup.give_back(epoch, removed.is_ok(), Instant::now());
            }
            Ok(()) = changes.changed() => {}
            () = at(next) => {}
        }
    }
}

/// Removes what there is of an attempt. What it shares with other hosts goes when the last of them is done with it; where its
/// account still has the job's results, these are shut off when the job is over.
async fn remove(host: &Arc<Host>, epoch: Epoch) -> Result<(), Stays> {
    let stays = blocking(host, move |host| {
        host.state
            .remove_own(epoch, |attempt| host.may_be_open(attempt))
    });
    let Some(attempt) = stays.await? else {
        return Ok(());
    };
    if attempt.shared.is_none() && !is_open(host, attempt.clone()).await? {
        return blocking(host, move |host| host.state.remove_attempt(epoch)).await;
    }
    let is_over = match host.wire.stands(&attempt.job, epoch).await {
        Ok(Standing::Live) => return Err(Stays::NotYet("other hosts are not done".to_owned())),
        Ok(standing) => standing == Standing::JobOver,
        Err(why) => return Err(Stays::NotYet(why)),
    };
    let is_gone = blocking(host, move |host| {
        host.state.remove_shared(&attempt)?;
        if host.is_open(&attempt) {
            if !is_over {
                return Ok(false);
            }
            // Also where that account is not named any more.
            folders::shut(&host.results(&attempt.job))?;
        }
        host.state.remove_attempt(epoch)?;
        Ok(true)
    });
    match is_gone.await? {
        true => Ok(()),
        false => Err(Stays::NotYet(
            "its account has the results until the job, or its next attempt, is over".to_owned(),
        )),
    }
}

/// Asks whether an account still has the results of an attempt. Their disk may not answer: it keeps nothing waiting that lies on
/// another for longer than a moment, and not more threads than removals.
async fn is_open(host: &Arc<Host>, attempt: AttemptRecord) -> Result<bool, Stays> {
    let silent = || Stays::NotYet("the disk of its results does not answer".to_owned());
    let asking = Arc::clone(&host.cleanup.asking).try_acquire_owned();
    let asking = asking.map_err(|_| silent())?;
    let open = blocking(host, move |host| {
        let _asking = asking;
        Ok(host.is_open(&attempt))
    });
    timeout(SAID_WITHIN, open).await.map_err(|_| silent())?
}

/// Caches are large, and disks may be far away.
async fn blocking<T: Send + 'static>(
    host: &Arc<Host>,
    work: impl FnOnce(&Host) -> Result<T, state_dir::Error> + Send + 'static,
) -> Result<T, Stays> {
    let host = Arc::clone(host);
    match tokio::task::spawn_blocking(move || work(&host)).await {
        Ok(done) => done.map_err(|error| Stays::Failed(chain(&error))),
        Err(error) => Err(Stays::Failed(error.to_string())),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::host::tests::Leader;

    struct Place {
        root: tempfile::TempDir,
        host: Arc<Host>,
        leader: Arc<Leader>,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let leader = Arc::new(Leader::default());
            let host = Arc::new(leader.host(root.path()));
            Self { root, host, leader }
        }

        /// The folder of an attempt that has ended, with its settings in it.
        fn attempt(&self, epoch: Epoch, shared: Option<&Path>) -> PathBuf {
            let record = AttemptRecord {
                epoch,
                job: "jcats".to_owned(),
                marker: "m".to_owned(),
                shared: shared.map(Path::to_owned),
                account: None,
            };
            let folder = self.host.state.begin_attempt(&record).unwrap();
            for part in ["cache", "config"] {
                fs::create_dir(folder.join(part)).unwrap();
            }
            fs::write(folder.join("config/config.json"), "{}").unwrap();
            fs::write(folder.join("signals.json"), "{}").unwrap();
            folder
        }

        /// Lets removals go on until there is nothing left of any attempt.
        async fn all_gone(&self) {
            let mut changes = self.host.cleanup.left.subscribe();
            tokio::select! {
                () = run(Arc::clone(&self.host)) => {}
                gone = changes.wait_for(BTreeMap::is_empty) => drop(gone.unwrap()),
            }
        }

        /// What waits is due at once.
        fn is_due(&self) {
            self.host.cleanup.left.send_modify(|left| {
                for one in left.values_mut() {
                    one.at = Some(Instant::now());
                }
            });
        }

        /// Lets removals go on until each was tried.
        async fn all_tried(&self) {
            tokio::select! {
                () = run(Arc::clone(&self.host)) => {}
                () = self.host.cleanup.all_tried() => {}
            }
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn of_more_attempts_than_are_removed_at_once_nothing_is_left() {
        let place = Place::new();
        for epoch in 1..=9 {
            place.attempt(epoch, None);
            place.host.cleanup.add(epoch);
            place.host.cleanup.add(epoch);
        }
        place.all_gone().await;
        assert!(place.host.state.left_over().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_settings_go_first_and_what_cannot_be_removed_is_tried_again() {
        let place = Place::new();
        // Whoever runs this test, below a file there is no folder to look into.
        let file = place.root.path().join("away");
        fs::write(&file, "f").unwrap();
        let folder = place.attempt(7, Some(&file.join("cache-7")));
        place.host.cleanup.add(7);
        place.all_tried().await;
        assert_eq!(names(&folder), ["attempt.json"]);
        assert!(place.host.state.has_attempt("jcats").unwrap());
        fs::remove_file(&file).unwrap();
        place.is_due();
        place.all_gone().await;
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn what_other_hosts_still_write_to_goes_when_the_last_of_them_is_done() {
        let place = Place::new();
        let shared = place.root.path().join("jcats/cache-7");
        fs::create_dir_all(&shared).unwrap();
        fs::write(shared.join("image"), "i").unwrap();
        let folder = place.attempt(7, Some(&shared));
        place.leader.live.lock().unwrap().push(7);
        place.host.cleanup.add(7);
        place.all_tried().await;
        assert!(shared.join("image").exists());
        assert_eq!(names(&folder), ["attempt.json"]);
        place.leader.live.lock().unwrap().clear();
        fs::write(shared.join("late"), "l").unwrap();
        place.is_due();
        place.all_gone().await;
        assert!(!shared.exists() && !folder.exists());
        assert!(shared.parent().unwrap().exists(), "results stay");
    }

    #[tokio::test]
    async fn results_that_an_account_still_has_are_shut_off_when_their_job_is_over() {
        let root = tempfile::tempdir().unwrap();
        let leader = Arc::new(Leader::default());
        let mut host = leader.host(root.path());
        host.config.outputs = Some(host.outputs.clone());
        let host = Arc::new(host);
        let place = Place { root, host, leader };
        let output = place.host.outputs.join("jcats");
        fs::create_dir(&output).unwrap();
        let mode = || fs::metadata(&output).unwrap().permissions().mode() & 0o777;
        let with_account = |epoch: Epoch, account: u32| {
            let record = AttemptRecord {
                epoch,
                job: "jcats".to_owned(),
                marker: "m".to_owned(),
                shared: None,
                account: Some(account),
            };
            place.host.cleanup.add(epoch);
            place.host.state.begin_attempt(&record).unwrap()
        };
        // Whoever runs this test has the folder, as an account has that of a worker that was killed.
        let own = rustix::process::geteuid().as_raw();
        fs::set_permissions(&output, Permissions::from_mode(0o711)).unwrap();
        let (folder, other) = (with_account(7, own), with_account(8, own + 1));
        place.all_tried().await;
        assert!(folder.exists() && !other.exists());
        assert_eq!(mode(), 0o711, "the job may run on another host");
        place.leader.over.lock().unwrap().push("jcats".to_owned());
        place.is_due();
        place.all_gone().await;
        assert!(!folder.exists());
        assert_eq!(mode(), 0o700);
    }

    #[tokio::test]
    async fn a_disk_of_results_that_does_not_answer_keeps_no_attempt_s_own_folder() {
        let root = tempfile::tempdir().unwrap();
        let leader = Arc::new(Leader::default());
        let mut host = leader.host(root.path());
        host.config.outputs = Some(host.outputs.clone());
        let host = Arc::new(host);
        let place = Place { root, host, leader };
        // So many ask it already.
        let asking = Arc::clone(&place.host.cleanup.asking);
        let asked = asking.try_acquire_many(u32::try_from(TOGETHER).unwrap());
        let asked = asked.unwrap();
        let all = Epoch::try_from(2 * TOGETHER).unwrap();
        let folders = (1..=all).map(|epoch| {
            let record = AttemptRecord {
                epoch,
                job: "jcats".to_owned(),
                marker: "m".to_owned(),
                shared: None,
                account: Some(4_000_000),
            };
            let folder = place.host.state.begin_attempt(&record).unwrap();
            fs::create_dir(folder.join("config")).unwrap();
            place.host.cleanup.add(epoch);
            folder
        });
        let folders: Vec<PathBuf> = folders.collect();
        place.all_tried().await;
        for folder in &folders {
            assert_eq!(names(folder), ["attempt.json"]);
        }
        drop(asked);
        place.is_due();
        place.all_gone().await;
        assert!(folders.iter().all(|folder| !folder.exists()));
    }

    #[test]
    fn it_is_tried_again_less_and_less_often() {
        let (cleanup, now) = (Cleanup::default(), Instant::now());
        cleanup.add(7);
        let waits = [(); 11].map(|()| {
            let due = cleanup.next().unwrap().max(now);
            assert_eq!(cleanup.take(due - FIRST / 2), None);
            assert_eq!(cleanup.take(due), Some(7));
            assert_eq!(cleanup.take(due + LONGEST), None, "it is being removed");
            cleanup.give_back(7, false, now);
            (cleanup.next().unwrap() - now).as_secs()
        });
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        cleanup.give_back(7, true, now);
        assert_eq!(cleanup.next(), None);
    }
}
