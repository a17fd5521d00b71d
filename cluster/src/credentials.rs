//! Credentials that jobs need: in the leader's memory from when they come until their attempt has begun, and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stepcast_scheduler::ids::{StagingId, UserId};
use stepcast_scheduler::model::Label;
use zeroize::Zeroizing;

/// Bytes of one credential: the largest private key that is in use, and some spare.
pub const CREDENTIAL_BYTES_MAX: usize = 16 << 10;

/// Bytes of all credentials that one node holds: those of a million jobs with two tokens each.
const HELD_BYTES_MAX: usize = 256 << 20;

/// Those of one person's jobs: an eighth, so that nobody takes the room of all. Of seventy thousand jobs with two tokens each,
/// or of a largest sweep whose tasks hold two of the largest credentials each.
const OF_ONE_BYTES_MAX: usize = HELD_BYTES_MAX / 8;

/// Memory that an entry costs beside its values.
const ENTRY_BYTES: usize = 128;

/// One credential. Its value is overwritten when nobody holds it any more, and shown by no `Debug`.
pub struct Credential {
    /// What it is called, as the log knows it.
    pub name: Label,
    /// What it is.
    pub value: Zeroizing<String>,
}

/// The credentials of one job. Clones share them.
#[derive(Debug, Clone)]
pub struct Credentials(Arc<[Credential]>);

/// More credentials are held than there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Those of everybody together.
    #[error("as many credentials are held in memory as there may be, those of all jobs together")]
    All,
    /// Those of the jobs of whom these are.
    #[error(
        "of one person's jobs {} MiB of credentials are held in memory at most, and those that have not begun hold as much",
        OF_ONE_BYTES_MAX >> 20
    )]
    Yours,
}

/// Holds credentials, each job's under the place of its files. Whoever implements it keeps them out of every file, and
/// overwrites what it forgets.
pub trait Keeper: Send + Sync {
    /// Holds these, in the place of others of the same job, which belongs to `whose` if to anybody.
    ///
    /// # Errors
    /// When there is no room, or none of theirs. What was held stays then.
    fn keep(
        &self,
        of: StagingId,
        whose: Option<UserId>,
        credentials: Credentials,
    ) -> Result<(), Full>;

    /// Those of a job, if they are here.
    fn held(&self, of: &StagingId) -> Option<Credentials>;

    /// Forgets those of a job.
    fn forget(&self, of: &StagingId);

    /// Forgets all: this node does not lead any more.
    fn forget_all(&self);

    /// Forgets what has been here for longer than this and is of no use to anybody.
    fn forget_unused(&self, age: Duration, is_used: &dyn Fn(&StagingId) -> bool);
}

/// Holds them in this process's memory.
#[derive(Default)]
pub struct MemoryKeeper(Mutex<Held>);

#[derive(Default)]
struct Held {
    of: BTreeMap<StagingId, Entry>,
    bytes: usize,
    /// The bytes of each person's jobs.
    people: BTreeMap<UserId, usize>,
}

struct Entry {
    credentials: Credentials,
    whose: Option<UserId>,
    since: Instant,
}

impl Credentials {
    /// The values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Credential> {
        self.0.iter()
    }

    fn bytes(&self) -> usize {
        let values = self.iter().map(|one| one.value.len() + ENTRY_BYTES);
        values.sum::<usize>() + ENTRY_BYTES
    }
}

impl FromIterator<Credential> for Credentials {
    fn from_iter<I: IntoIterator<Item = Credential>>(credentials: I) -> Self {
        Self(credentials.into_iter().collect())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credential").field(&self.name).finish()
    }
}

impl Held {
    fn take(&mut self, of: &StagingId) {
        let Some(entry) = self.of.remove(of) else {
            return;
        };
        let bytes = entry.credentials.bytes();
        self.bytes -= bytes;
        if let Some(whose) = entry.whose
            && let Some(theirs) = self.people.get_mut(&whose)
        {
            *theirs -= bytes;
            if *theirs == 0 {
                self.people.remove(&whose);
            }
        }
    }
}

impl Keeper for MemoryKeeper {
    fn keep(
        &self,
        of: StagingId,
        whose: Option<UserId>,
        credentials: Credentials,
    ) -> Result<(), Full> {
        let mut held = self.0.lock();
        let before = held.of.get(&of);
        let replaced = before.map_or(0, |before| before.credentials.bytes());
        let replaced_theirs = before.filter(|before| before.whose == whose);
        let replaced_theirs = replaced_theirs.map_or(0, |_| replaced);
        let bytes = credentials.bytes();
        if let Some(whose) = whose {
            let theirs = held.people.get(&whose).copied().unwrap_or(0);
            if theirs - replaced_theirs + bytes > OF_ONE_BYTES_MAX {
                return Err(Full::Yours);
            }
        }
        if held.bytes - replaced + bytes > HELD_BYTES_MAX {
            return Err(Full::All);
        }
        held.take(&of);
        held.bytes += bytes;
        if let Some(whose) = whose {
            *held.people.entry(whose).or_default() += bytes;
        }
        let entry = Entry {
            credentials,
            whose,
            since: Instant::now(),
        };
        held.of.insert(of, entry);
        Ok(())
    }

    fn held(&self, of: &StagingId) -> Option<Credentials> {
        let held = self.0.lock();
        held.of.get(of).map(|entry| entry.credentials.clone())
    }

    fn forget(&self, of: &StagingId) {
        self.0.lock().take(of);
    }

    fn forget_all(&self) {
        *self.0.lock() = Held::default();
    }

    fn forget_unused(&self, age: Duration, is_used: &dyn Fn(&StagingId) -> bool) {
        let old: Vec<StagingId> = {
            let held = self.0.lock();
            let old = held.of.iter();
            let old = old.filter(|(_, entry)| entry.since.elapsed() >= age);
            old.map(|(of, _)| *of).collect()
        };
        // The state is asked without the lock: whoever holds the state may wait for it.
        for of in old.iter().filter(|of| !is_used(of)) {
            self.forget(of);
        }
    }
}

impl fmt::Debug for MemoryKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryKeeper")
            .field(&self.0.lock().of.len())
            .finish()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn credentials(value: &str) -> Credentials {
        let one = Credential {
            name: "hub_token".parse().unwrap(),
            value: Zeroizing::new(value.to_owned()),
        };
        [one].into_iter().collect()
    }

    fn value(keeper: &MemoryKeeper, of: StagingId) -> Option<String> {
        let held = keeper.held(&of)?;
        held.iter().next().map(|one| one.value.to_string())
    }

    #[test]
    fn what_is_kept_is_held_until_it_is_forgotten() {
        let (one, two) = (StagingId([1; 16]), StagingId([2; 16]));
        let keeper = MemoryKeeper::default();
        keeper.keep(one, None, credentials("a")).unwrap();
        keeper.keep(one, None, credentials("b")).unwrap();
        keeper.keep(two, None, credentials("c")).unwrap();
        assert_eq!(value(&keeper, one).as_deref(), Some("b"));
        keeper.forget(&one);
        assert_eq!(value(&keeper, one), None);
        keeper.forget_unused(Duration::from_secs(60), &|_| false);
        assert_eq!(value(&keeper, two).as_deref(), Some("c"), "it is new");
        keeper.forget_unused(Duration::ZERO, &|_| true);
        assert_eq!(value(&keeper, two).as_deref(), Some("c"), "it is used");
        keeper.forget_unused(Duration::ZERO, &|_| false);
        assert_eq!(value(&keeper, two), None);
        keeper.keep(two, None, credentials("d")).unwrap();
        keeper.forget_all();
        assert_eq!((value(&keeper, two), keeper.0.lock().bytes), (None, 0));
    }

    #[test]
    fn there_is_no_room_for_any_number_of_them() {
        let keeper = MemoryKeeper::default();
        let large = "x".repeat(HELD_BYTES_MAX / 4);
        for n in 0..3 {
            keeper
                .keep(StagingId([n; 16]), None, credentials(&large))
                .unwrap();
        }
        assert_eq!(
            keeper.keep(StagingId([9; 16]), None, credentials(&large)),
            Err(Full::All)
        );
        let small = StagingId([7; 16]);
        keeper.keep(small, None, credentials("a")).unwrap();
        assert_eq!(
            keeper.keep(small, None, credentials(&large)),
            Err(Full::All)
        );
        assert_eq!(
            value(&keeper, small).as_deref(),
            Some("a"),
            "it has not been replaced"
        );
        keeper.keep(small, None, credentials("b")).unwrap();
        assert_eq!(value(&keeper, small).as_deref(), Some("b"));
        keeper.forget(&StagingId([0; 16]));
        assert_eq!(
            keeper.keep(StagingId([9; 16]), None, credentials(&large)),
            Ok(())
        );
    }

    #[test]
    fn nobody_takes_the_room_of_all() {
        let keeper = MemoryKeeper::default();
        let (bob, ann) = (Some(UserId(1)), Some(UserId(2)));
        let half = "x".repeat(OF_ONE_BYTES_MAX / 2);
        let place = |n| StagingId([n; 16]);
        keeper.keep(place(1), bob, credentials(&half)).unwrap();
        let more = keeper.keep(place(2), bob, credentials(&half));
        assert_eq!(more, Err(Full::Yours));
        // The same job again takes the place that it has; others have their own, and who has no name the rest.
        keeper.keep(place(1), bob, credentials(&half)).unwrap();
        keeper.keep(place(3), ann, credentials(&half)).unwrap();
        for n in 4..8 {
            keeper.keep(place(n), None, credentials(&half)).unwrap();
        }
        // What has begun makes room, and so does what is somebody else's now.
        keeper.forget(&place(1));
        keeper.keep(place(2), bob, credentials(&half)).unwrap();
        keeper.keep(place(2), ann, credentials("a")).unwrap();
        keeper.keep(place(1), bob, credentials(&half)).unwrap();
        keeper.forget(&place(1));
        assert_eq!(keeper.0.lock().people.get(&UserId(1)), None);
        keeper.forget_all();
        assert!(keeper.0.lock().people.is_empty());
    }

    #[test]
    fn no_value_is_shown() {
        let shown = format!("{:?}", credentials("canary"));
        assert!(
            shown.contains("hub_token") && !shown.contains("canary"),
            "{shown}"
        );
    }
}
