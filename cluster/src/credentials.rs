//! Credentials that jobs need: in the leader's memory from when they come until their attempt has begun, and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stepcast_scheduler::ids::StagingId;
use stepcast_scheduler::model::Label;
use zeroize::Zeroizing;

/// Bytes of one credential: the largest private key that is in use, and some spare.
pub const CREDENTIAL_BYTES_MAX: usize = 16 << 10;

/// Bytes of all credentials that one node holds: those of a million jobs with two tokens each.
const HELD_BYTES_MAX: usize = 256 << 20;

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
#[error("as many credentials are held in memory as there may be")]
pub struct Full;

/// Holds credentials, each job's under the place of its files. Whoever implements it keeps them out of every file, and
/// overwrites what it forgets.
pub trait Keeper: Send + Sync {
    /// Holds these, in the place of others of the same job.
    ///
    /// # Errors
    /// When there is no room. What was held stays then.
    fn keep(&self, of: StagingId, credentials: Credentials) -> Result<(), Full>;

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
    of: BTreeMap<StagingId, (Credentials, Instant)>,
    bytes: usize,
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
        if let Some((credentials, _)) = self.of.remove(of) {
            self.bytes -= credentials.bytes();
        }
    }
}

impl Keeper for MemoryKeeper {
    fn keep(&self, of: StagingId, credentials: Credentials) -> Result<(), Full> {
        let mut held = self.0.lock();
        let replaced = held.of.get(&of).map_or(0, |(before, _)| before.bytes());
        let bytes = credentials.bytes();
        if held.bytes - replaced + bytes > HELD_BYTES_MAX {
            return Err(Full);
        }
        held.take(&of);
        held.bytes += bytes;
        held.of.insert(of, (credentials, Instant::now()));
        Ok(())
    }

    fn held(&self, of: &StagingId) -> Option<Credentials> {
        let held = self.0.lock();
        held.of.get(of).map(|(credentials, _)| credentials.clone())
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
            let old = held.of.iter().filter(|(_, (_, at))| at.elapsed() >= age);
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
        keeper.keep(one, credentials("a")).unwrap();
        keeper.keep(one, credentials("b")).unwrap();
        keeper.keep(two, credentials("c")).unwrap();
        assert_eq!(value(&keeper, one).as_deref(), Some("b"));
        keeper.forget(&one);
        assert_eq!(value(&keeper, one), None);
        keeper.forget_unused(Duration::from_secs(60), &|_| false);
        assert_eq!(value(&keeper, two).as_deref(), Some("c"), "it is new");
        keeper.forget_unused(Duration::ZERO, &|_| true);
        assert_eq!(value(&keeper, two).as_deref(), Some("c"), "it is used");
        keeper.forget_unused(Duration::ZERO, &|_| false);
        assert_eq!(value(&keeper, two), None);
        keeper.keep(two, credentials("d")).unwrap();
        keeper.forget_all();
        assert_eq!((value(&keeper, two), keeper.0.lock().bytes), (None, 0));
    }

    #[test]
    fn there_is_no_room_for_any_number_of_them() {
        let keeper = MemoryKeeper::default();
        let large = "x".repeat(HELD_BYTES_MAX / 4);
        for n in 0..3 {
            keeper
                .keep(StagingId([n; 16]), credentials(&large))
                .unwrap();
        }
        assert_eq!(
            keeper.keep(StagingId([9; 16]), credentials(&large)),
            Err(Full)
        );
        let small = StagingId([7; 16]);
        keeper.keep(small, credentials("a")).unwrap();
        assert_eq!(keeper.keep(small, credentials(&large)), Err(Full));
        assert_eq!(
            value(&keeper, small).as_deref(),
            Some("a"),
            "it has not been replaced"
        );
        keeper.keep(small, credentials("b")).unwrap();
        assert_eq!(value(&keeper, small).as_deref(), Some("b"));
        keeper.forget(&StagingId([0; 16]));
        assert_eq!(keeper.keep(StagingId([9; 16]), credentials(&large)), Ok(()));
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
