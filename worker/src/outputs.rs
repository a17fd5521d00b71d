//! Removes jobs' results some time after the jobs are over: what people have not fetched by then is not kept for ever.
//!
//! Only folders that this worker has made itself are looked at ([`Made`]). When a job is over is the leader's to say: one
//! whose attempt has ended here may wait for its next one, and goes on from what lies in its folder.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::chain::chain;
use crate::disk::beside;
use crate::host::{Host, Standing};
use crate::state_dir::{Made, Removal};

/// How often folders are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);

/// How soon they are looked at again when the leader could not be asked.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Looks at once and then regularly, for as long as the worker runs. Nothing is removed where all is to be kept.
pub(crate) async fn run(host: Arc<Host>) {
    let Some(kept) = host.config.outputs_kept else {
        return std::future::pending().await;
    };
    let hours = kept.as_secs() / 3600;
    tracing::info!(
        hours,
        "results are removed so long after their job is over; --outputs-kept says how long"
    );
    say_what_stays(&host);
    loop {
        let wait = match sweep(&host, kept, unix_ms()).await {
            Ok(()) => LOOK_EVERY,
            Err(why) => {
                tracing::debug!(why, "whether jobs are over is not known");
                ASK_AGAIN
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Counts the folders that nobody will remove. In a place that the user chose, others may put theirs.
fn say_what_stays(host: &Host) {
    match host.state.unknown_outputs() {
        Ok(0) => {}
        Ok(folders) => tracing::info!(
            folders,
            path = %host.state.outputs().display(),
            "results that this worker does not know to have made itself stay, such as those of an older version or of a time \
             in which all was to be kept: `stepcast job show JOB` says which jobs are over: remove their folders by hand"
        ),
        Err(error) => tracing::warn!(
            error = chain(&error),
            "it is not known which results nobody will remove"
        ),
    }
}

/// Looks at each folder at this moment and removes it if its job has been over for so long.
///
/// # Errors
/// Why the leader did not say which jobs are over. Those that are known to be were looked at all the same.
async fn sweep(host: &Arc<Host>, kept: Duration, now_ms: u64) -> Result<(), String> {
    let mut asked = Ok(());
    let made = host.state.made().map_err(|error| chain(&error))?;
    for mut made in made {
        match is_over(host, &mut made, now_ms, &mut asked).await {
            Ok(Some(since_ms)) if now_ms - since_ms >= millis(kept) => remove(host, made).await,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(
                    job = made.job,
                    error = chain(&error),
                    "it is not known whether a folder of results may go"
                );
            }
        }
    }
    asked
}

/// Since when a job is known to be over, if it is and nothing of it is here any more. The leader is asked until it has failed
/// to answer once.
async fn is_over(
    host: &Arc<Host>,
    made: &mut Made,
    now_ms: u64,
    asked: &mut Result<(), String>,
) -> Result<Option<u64>, crate::state_dir::Error> {
    if host.state.has_attempt(&made.job)? {
        return Ok(None);
    }
    // A clock that was set back must not keep a folder for longer than it was ahead.
    if let Some(since_ms) = made.over_since_ms.filter(|since_ms| *since_ms <= now_ms) {
        return Ok(Some(since_ms));
    }
    if asked.is_err() {
        return Ok(None);
    }
    match host.wire.stands(&made.job, made.epoch).await {
        Ok(Standing::JobOver) => {
            tracing::info!(
                job = made.job,
                folder = %made.path.display(),
                "a job is over, or not known to the cluster: its results stay for as long as --outputs-kept says"
            );
            // An account has them still where the host that ran it has never come back.
            let (on, folder) = (Arc::clone(host), made.path.clone());
            beside(move || on.shut_results(&folder)).await?;
            made.over_since_ms = Some(now_ms);
            host.state.remember(made)?;
            Ok(Some(now_ms))
        }
        Ok(Standing::Live | Standing::AttemptOver) => Ok(None),
        Err(why) => {
            *asked = Err(why);
            Ok(None)
        }
    }
}

async fn remove(host: &Arc<Host>, made: Made) {
    let (job, folder) = (made.job.clone(), made.path.display().to_string());
    let state = Arc::clone(host);
    // Weights are large, and disks may be far away.
    let removing = tokio::task::spawn_blocking(move || state.state.remove_output(&made));
    match removing.await {
        Ok(Ok(Removal::Removed)) => {
            tracing::info!(
                job,
                folder,
                "the results of a job that is over were removed"
            );
        }
        Ok(Ok(Removal::Missing)) => {
            tracing::info!(
                job,
                folder,
                "the results of a job that is over are gone already"
            );
        }
        Ok(Ok(Removal::OutOfReach)) => {
            tracing::info!(
                job,
                folder,
                "the results of a job that is over are out of reach, as while a disk is not mounted: they are looked for again"
            );
        }
        Ok(Ok(Removal::InUse)) => {
            tracing::info!(
                job,
                folder,
                "the results of a job that is over are locked and stay for now"
            );
        }
        Ok(Ok(Removal::Foreign)) => {
            tracing::warn!(
                job,
                folder,
                "this is no longer the folder that was made for the job: it stays"
            );
        }
        Ok(Err(error)) => {
            tracing::warn!(
                job,
                error = chain(&error),
                "the results of a job that is over cannot be removed yet"
            );
        }
        Err(error) => tracing::error!(job, %error, "the removal of results broke off"),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, millis)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::host::tests::Leader;
    use crate::state_dir::AttemptRecord;

    const HOUR_MS: u64 = 60 * 60 * 1_000;
    const KEPT: Duration = Duration::from_secs(72 * 60 * 60);

    struct Place {
        _root: tempfile::TempDir,
        host: Arc<Host>,
        leader: Arc<Leader>,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let leader = Arc::new(Leader::default());
            let host = Arc::new(leader.host(root.path()));
            Self {
                _root: root,
                host,
                leader,
            }
        }

        /// A folder for this job, as an attempt of it leaves it.
        fn made(&self, job: &str) -> PathBuf {
            let folder = self.host.outputs.join(job);
            self.host.state.make_output(&folder, job, 7).unwrap();
            fs::write(folder.join("weights"), "w").unwrap();
            folder
        }

        async fn look(&self, at_ms: u64) -> Result<(), String> {
            sweep(&self.host, KEPT, at_ms).await
        }
    }

    #[tokio::test]
    async fn results_go_when_the_job_has_been_over_for_long_enough_and_not_before() {
        let place = Place::new();
        let (cats, dogs) = (place.made("jcats"), place.made("jdogs"));
        let foreign = place.host.outputs.join("jmine");
        fs::create_dir(&foreign).unwrap();
        // Neither is over: one may go on here after a week in the queue.
        place.look(0).await.unwrap();
        place.look(1_000 * HOUR_MS).await.unwrap();
        place.leader.over.lock().unwrap().push("jcats".to_owned());
        place.look(1_001 * HOUR_MS).await.unwrap();
        // From here on it is known, whether anybody can be asked or not.
        place.leader.is_away.store(true, Ordering::SeqCst);
        let why = place.look(1_073 * HOUR_MS - 1).await;
        assert_eq!(why, Err("away".to_owned()));
        assert!(cats.join("weights").exists());
        assert!(place.look(1_073 * HOUR_MS).await.is_err());
        assert!(!cats.exists() && dogs.join("weights").exists() && foreign.exists());
    }

    #[tokio::test]
    async fn results_that_an_account_still_has_when_their_job_is_over_are_shut_off() {
        use std::os::unix::fs::PermissionsExt;

        use crate::account::{Account, Accounts, Ids};

        let mut place = Place::new();
        let (cats, dogs) = (place.made("jcats"), place.made("jdogs"));
        let own = Ids {
            name: "trainer".to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            gid: 0,
            groups: Vec::new(),
        };
        let account = Account {
            ids: own,
            home: None,
        };
        Arc::get_mut(&mut place.host).unwrap().accounts = Accounts::of(vec![account]);
        for folder in [&cats, &dogs] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap();
        }
        place.leader.over.lock().unwrap().push("jcats".to_owned());
        place.look(0).await.unwrap();
        let mode = |folder| fs::metadata(folder).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&cats), mode(&dogs)), (0o700, 0o711));
    }

    #[tokio::test]
    async fn nothing_goes_while_an_attempt_of_the_job_is_here() {
        let place = Place::new();
        let cats = place.made("jcats");
        let record = AttemptRecord {
            epoch: 7,
            job: "jcats".to_owned(),
            marker: "m".to_owned(),
            shared: None,
            account: None,
        };
        place.host.state.begin_attempt(&record).unwrap();
        place.leader.over.lock().unwrap().push("jcats".to_owned());
        place.look(0).await.unwrap();
        place.look(100 * HOUR_MS).await.unwrap();
        assert!(cats.exists());
        // Its time begins when its end is known here.
        place.host.state.remove_attempt(7).unwrap();
        place.look(100 * HOUR_MS).await.unwrap();
        place.look(171 * HOUR_MS).await.unwrap();
        assert!(cats.exists());
        place.look(172 * HOUR_MS).await.unwrap();
        assert!(!cats.exists());
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_keeps_nothing_for_ever() {
        let place = Place::new();
        let cats = place.made("jcats");
        place.leader.over.lock().unwrap().push("jcats".to_owned());
        place.look(9_000 * HOUR_MS).await.unwrap();
        place.look(10 * HOUR_MS).await.unwrap();
        place.look(81 * HOUR_MS).await.unwrap();
        assert!(cats.exists());
        place.look(82 * HOUR_MS).await.unwrap();
        assert!(!cats.exists());
    }
}
