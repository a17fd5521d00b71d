//! The accounts that trainers run as where that is not the worker's own: which there are, and which of them an attempt has.
//!
//! With `--trainer-user` a job's programs can read neither what is the worker's own nor what is another job's. An attempt has
//! the account that fewest others have; what it may write to is given to that account (`folders`), its trainer steps down to
//! it ([`step_down`]), and when nothing else runs under it any more, whatever is left of it is killed.

mod clearing;
pub(crate) mod enter;
pub(crate) mod environment;
#[cfg(target_os = "linux")]
pub(crate) mod folders;
#[cfg(not(target_os = "linux"))]
#[path = "account/no_folders.rs"]
pub(crate) mod folders;
mod ids;
#[cfg(target_os = "linux")]
mod look_up;
pub mod step_down;
#[cfg(target_os = "linux")]
mod trial;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use self::clearing::Killer;
pub use self::ids::Ids;
#[cfg(target_os = "linux")]
use crate::sweep;

/// Accounts at most: more than a host has devices are of no use.
const ACCOUNTS_MAX: usize = 64;

/// Pause before an account that something is left of is cleared again.
const CLEAR_AGAIN: Duration = Duration::from_secs(30);

/// How long an attempt waits for an account while all are being cleared: that takes half a minute where it can be done at all.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// An account for trainers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who it is.
    pub ids: Ids,
    /// Its home, where that is a folder of its own.
    pub home: Option<PathBuf>,
}

/// Why trainers cannot run as other accounts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name.
    #[error(
        "there is no account {0} on this host: make one for trainers alone, such as with `useradd --system --shell /usr/sbin/nologin {0}` (--trainer-user)"
    )]
    Unknown(String),
    /// What is known of accounts cannot be read.
    #[error("the account {name} cannot be looked up: {why}")]
    LookUp {
        /// Which one.
        name: String,
        /// What the operating system says.
        why: String,
    },
    /// It may read everything, which is what is to be kept from trainers.
    #[error(
        "{0} is root, from whom nothing is kept: name accounts that are for trainers alone (--trainer-user)"
    )]
    Root(String),
    /// It may read all that the worker may.
    #[error(
        "{0} is the account that this worker runs as: name others, for trainers alone (--trainer-user)"
    )]
    Own(String),
    /// Two names of one account.
    #[error(
        "{0} is named twice, or has the number of another account that is named: name each account once (--trainer-user)"
    )]
    Twice(String),
    /// Somebody else has it.
    #[error(
        "something runs as {0} already, and would be killed: name accounts that are for the trainers of this worker alone (--trainer-user)"
    )]
    Used(String),
    /// More than can be of use.
    #[error(
        "more than {ACCOUNTS_MAX} accounts are named: name as many as there are devices (--trainer-user)"
    )]
    TooMany,
    /// The worker may not do what it takes.
    #[error(
        "trainers cannot be run as {name}: {why}; a worker with --trainer-user runs as root, or with the capabilities CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_FOWNER, CAP_DAC_OVERRIDE, CAP_KILL and CAP_SYS_PTRACE, and its programs and folders lie where those accounts may go"
    )]
    MayNot {
        /// Which account.
        name: String,
        /// What went wrong when it was tried.
        why: String,
    },
    /// A job could put another folder in the place of its own.
    #[error(
        "{} belongs to somebody else, or others may write to it, so that one job could take the place of another: make it this worker's own (chown, chmod go-w), or name another folder (--outputs, --state)",
        .0.display()
    )]
    Open(PathBuf),
    /// All of them are kept from attempts by what earlier ones have left.
    #[error(
        "no account is free: processes that earlier attempts have left under {0} cannot be ended; see on the worker's host what they wait for (ps -fu {0}), or start the host again"
    )]
    NoneFree(String),
    /// Nobody has made it work there.
    #[cfg(not(target_os = "linux"))]
    #[error("trainers run as other accounts on Linux only: leave --trainer-user out")]
    NotHere,
}

/// The accounts of a worker and how many attempts have each.
#[derive(Debug)]
pub(crate) struct Accounts {
    all: Vec<Account>,
    uses: watch::Sender<Vec<Use>>,
    /// For each account that an attempt has, what ends its processes.
    killers: Mutex<BTreeMap<usize, Killer>>,
}

/// What is done with an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Use {
    /// Attempts that have it.
    attempts: usize,
    /// Whatever is left of it is being killed, so that nothing new may begin before a look finds nothing.
    is_clearing: bool,
}

/// An account that an attempt has. Whoever takes it gives it back.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    number: usize,
    pub(crate) account: Account,
}

impl Accounts {
    /// Finds these accounts on this host.
    ///
    /// # Errors
    /// When one of them is not there, or would keep nothing from anybody.
    pub(crate) fn look_up(names: &[String]) -> Result<Self, Error> {
        if names.len() > ACCOUNTS_MAX {
            return Err(Error::TooMany);
        }
        #[cfg(not(target_os = "linux"))]
        if !names.is_empty() {
            return Err(Error::NotHere);
        }
        #[cfg_attr(
            not(target_os = "linux"),
            expect(unused_mut, reason = "there are none")
        )]
        let mut all: Vec<Account> = Vec::new();
        #[cfg(target_os = "linux")]
        for name in names {
            let account = look_up::account(name)?;
            if all.iter().any(|one| one.ids.uid == account.ids.uid) {
                return Err(Error::Twice(name.clone()));
            }
            all.push(account);
        }
        Ok(Self::of(all))
    }

    /// Sees that nothing runs as one of them but for those `left` to earlier attempts, by their numbers: it would be killed,
    /// and may be a person's, or a trainer of another worker's.
    ///
    /// # Errors
    /// When something does.
    #[cfg(target_os = "linux")]
    pub(crate) fn unused(&self, left: &[u32]) -> Result<(), Error> {
        let mut others = self.all.iter().filter(|one| !left.contains(&one.ids.uid));
        let used = others.find(|one| sweep::runs_as(one.ids.uid));
        used.map_or(Ok(()), |one| Err(Error::Used(one.ids.name.clone())))
    }

    /// There are none.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn unused(&self, _: &[u32]) -> Result<(), Error> {
        Ok(())
    }

    /// Sees that trainers can run as each of them, from this worker's folders and with what this `helper` starts.
    ///
    /// # Errors
    /// Why they cannot, and what to do.
    #[cfg(target_os = "linux")]
    pub(crate) fn tried(
        &self,
        helper: &[OsString],
        state: &Path,
        outputs: &Path,
    ) -> Result<(), Error> {
        trial::all(&self.all, helper, state, outputs)
    }

    /// There are none.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn tried(&self, _: &[OsString], _: &Path, _: &Path) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn of(all: Vec<Account>) -> Self {
        let uses = vec![Use::default(); all.len()];
        Self {
            all,
            uses: watch::Sender::new(uses),
            killers: Mutex::default(),
        }
    }

    /// All of them; none where trainers run as the worker does.
    pub(crate) fn all(&self) -> &[Account] {
        &self.all
    }

    /// Their numbers.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.all.iter().map(|one| one.ids.uid).collect()
    }

    /// Kills whatever runs as any of them, and as those `left` to earlier attempts, by their numbers, which may not be named
    /// any more: before a worker's first attempt that is what earlier ones have left. Says of which of its own something is
    /// left; those have to be [cleared](Self::clear_on) further.
    pub(crate) async fn clear(&self, left: &[u32], helper: &[OsString]) -> Vec<Taken> {
        let own = rustix::process::geteuid().as_raw();
        for uid in left {
            let is_named = self.all.iter().any(|one| one.ids.uid == *uid);
            if is_named || [0, u32::MAX, own].contains(uid) {
                continue;
            }
            let ids = Ids {
                name: uid.to_string(),
                uid: *uid,
                gid: *uid,
                groups: Vec::new(),
            };
            clearing::clear(&ids, helper, None).await;
        }
        let mut left = Vec::new();
        for (number, account) in self.all.iter().cloned().enumerate() {
            let taken = Taken { number, account };
            self.change(number, |one| one.is_clearing = true);
            if !self.clear_once(&taken, helper).await {
                left.push(taken);
            }
        }
        left
    }

    /// Clears an account of which something was left, until nothing is.
    pub(crate) async fn clear_on(&self, taken: &Taken, helper: &[OsString]) {
        loop {
            tokio::time::sleep(CLEAR_AGAIN).await;
            if self.clear_once(taken, helper).await {
                tracing::info!(
                    account = taken.account.ids.name,
                    "nothing is left of the account's earlier attempts; it is given out again"
                );
                return;
            }
        }
    }

    async fn clear_once(&self, taken: &Taken, helper: &[OsString]) -> bool {
        let waits = self.killers().remove(&taken.number);
        let left = clearing::clear(&taken.account.ids, helper, waits).await;
        self.cleared(taken.number, left)
    }

    fn killers(&self) -> MutexGuard<'_, BTreeMap<usize, Killer>> {
        self.killers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what will end an account's processes wait before any of them runs.
    fn arm(&self, taken: &Taken, helper: &[OsString]) {
        let mut killers = self.killers();
        if killers.contains_key(&taken.number) {
            return;
        }
        match Killer::start(&taken.account.ids, helper) {
            Ok(killer) => drop(killers.insert(taken.number, killer)),
            Err(error) => tracing::warn!(
                account = taken.account.ids.name,
                %error,
                "what ends the processes of an account cannot be started yet; it is when they are to be ended"
            ),
        }
    }

    /// Whether an account may be given out again, of which so many processes are left.
    fn cleared(&self, number: usize, left: usize) -> bool {
        if left == 0 {
            self.change(number, |one| *one = Use::default());
        }
        left == 0
    }

    /// The account for an attempt that begins, if there are any: one that fewest others have. Waits a while where all are cleared
    /// of what earlier attempts have left.
    ///
    /// # Errors
    /// When that cannot be ended.
    pub(crate) async fn take(&self, helper: &[OsString]) -> Result<Option<Taken>, Error> {
        let taken = self.take_within(WAIT_MAX).await?;
        if let Some(taken) = &taken {
            self.arm(taken, helper);
        }
        Ok(taken)
    }

    async fn take_within(&self, most: Duration) -> Result<Option<Taken>, Error> {
        if self.all.is_empty() {
            return Ok(None);
        }
        let mut changes = self.uses.subscribe();
        loop {
            let mut chosen = None;
            self.uses.send_if_modified(|uses| {
                chosen = choose(uses);
                if let Some(one) = chosen.and_then(|number| uses.get_mut(number)) {
                    one.attempts += 1;
                }
                chosen.is_some()
            });
            if let Some(number) = chosen {
                let account = self.all.get(number).cloned();
                return Ok(account.map(|account| Taken { number, account }));
            }
            // The sender is here, so there is an answer unless it takes too long.
            let free = changes.wait_for(|uses| choose(uses).is_some());
            if tokio::time::timeout(most, free).await.is_err() {
                let names: Vec<_> = self.all.iter().map(|one| one.ids.name.as_str()).collect();
                return Err(Error::NoneFree(names.join(",")));
            }
        }
    }

    /// Takes an account back from an attempt that has ended. Where no other has it, every process of it is killed: one that has
    /// left its guard's tree and cleaned its environment is found by nothing else. Says whether nothing is left; else it has to be
    /// [cleared](Self::clear_on) further.
    pub(crate) async fn give_back(&self, taken: &Taken, helper: &[OsString]) -> bool {
        let mut is_last = false;
        self.change(taken.number, |one| {
            is_last = one.attempts == 1;
            match is_last {
                true => one.is_clearing = true,
                false => one.attempts -= 1,
            }
        });
        !is_last || self.clear_once(taken, helper).await
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut Use)) {
        self.uses.send_modify(|uses| {
            if let Some(one) = uses.get_mut(number) {
                change(one);
            }
        });
    }
}

/// The one that fewest attempts have, of those in which one may begin; the first of several.
fn choose(uses: &[Use]) -> Option<usize> {
    let open = uses.iter().enumerate().filter(|(_, one)| !one.is_clearing);
    open.min_by_key(|(_, one)| one.attempts)
        .map(|(number, _)| number)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Numbers that no process on this host has.
    fn accounts(count: u32) -> Accounts {
        let account = |number: u32| Account {
            ids: Ids {
                name: format!("t{number}"),
                uid: 4_000_000_000 + number,
                gid: 4_000_000_000,
                groups: Vec::new(),
            },
            home: None,
        };
        Accounts::of((0..count).map(account).collect())
    }

    fn taken(accounts: &Accounts) -> Taken {
        let taken = accounts.take(&[]).now_or_never().unwrap();
        taken.unwrap().unwrap()
    }

    #[tokio::test]
    async fn attempts_side_by_side_share_no_account_while_there_are_enough() {
        let accounts = accounts(3);
        let held = [(); 3].map(|()| taken(&accounts));
        assert_eq!(held.each_ref().map(|one| one.number), [0, 1, 2]);
        let fourth = taken(&accounts);
        assert_eq!(fourth.number, 0, "all have one");
        accounts.give_back(&held[1], &[]).await;
        assert_eq!(taken(&accounts).number, 1);
        accounts.give_back(&held[0], &[]).await;
        accounts.give_back(&fourth, &[]).await;
        assert_eq!(taken(&accounts).number, 0);
        let none = Accounts::of(Vec::new());
        assert!(none.take(&[]).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn nothing_begins_under_an_account_that_is_being_cleared() {
        let accounts = accounts(1);
        let first = taken(&accounts);
        let clearing = accounts.give_back(&first, &[]);
        tokio::pin!(clearing);
        assert!(
            clearing.as_mut().now_or_never().is_none(),
            "processes are looked for"
        );
        assert!(accounts.take(&[]).now_or_never().is_none());
        let (second, is_free) = tokio::join!(accounts.take(&[]), clearing);
        assert!(is_free);
        assert_eq!(second.unwrap().unwrap().number, 0);
    }

    #[tokio::test]
    async fn nothing_begins_under_an_account_of_which_something_is_left() {
        let accounts = accounts(2);
        for number in [0, 1] {
            accounts.change(number, |one| one.is_clearing = true);
            assert!(!accounts.cleared(number, 1));
        }
        let why = accounts.take_within(Duration::ZERO).await;
        let why = why.unwrap_err().to_string();
        assert!(
            why.starts_with("no account is free") && why.contains("under t0,t1 cannot be ended"),
            "{why}"
        );
        assert!(accounts.cleared(1, 0));
        assert_eq!(taken(&accounts).number, 1);
        assert_eq!(taken(&accounts).number, 1, "the other is still kept");
        assert!(accounts.clear(&[], &[]).await.is_empty());
        assert_eq!(taken(&accounts).number, 0);
    }
}
