//! How many entries of the audit log one person may make: it keeps the newest of everybody, so that who makes many pushes out
//! those of others.

use std::time::Duration;

use parking_lot::Mutex;
use stepcast_scheduler::ids::UserId;
use tokio::time::Instant;
use tonic::Status;

use super::Buckets;
use crate::access::{Caller, Role};
use crate::status;

/// Tokens of one's own that somebody makes at once, after a pause: one for each of their machines.
const TOKENS_BURST: u32 = 10;

/// And over a while: so many a second. What is taken back was made before, so it needs no bound of its own.
const TOKENS_PER_SECOND: f64 = 1.0 / 60.0;

/// Jobs and sweeps that somebody submits, and changes that they make, at once, after a pause: a day of a script that goes
/// through them one by one.
const CHANGES_BURST: u32 = 2_000;

/// And over a while. At that pace one person needs days to push out what was there before.
const CHANGES_PER_SECOND: f64 = 0.1;

/// What people write.
pub(crate) struct Entries {
    tokens: Mutex<Buckets<UserId>>,
    changes: Mutex<Buckets<UserId>>,
    /// Of their own, so that who has submitted much can end it.
    ends: Mutex<Buckets<UserId>>,
}

impl Default for Entries {
    fn default() -> Self {
        let changes = || Mutex::new(Buckets::new(CHANGES_PER_SECOND, CHANGES_BURST));
        Self {
            tokens: Mutex::new(Buckets::new(TOKENS_PER_SECOND, TOKENS_BURST)),
            changes: changes(),
            ends: changes(),
        }
    }
}

impl Entries {
    /// One more token of their own.
    pub(crate) fn token(&self, caller: &Caller) -> Result<(), Status> {
        let what = format!(
            "one person makes {TOKENS_BURST} tokens at once and one a minute from then on, since each is written down: use one that you have, or wait"
        );
        take(&self.tokens, caller, &what)
    }

    /// One more submission, or a change of a job or of somebody.
    pub(crate) fn change(&self, caller: &Caller) -> Result<(), Status> {
        let what = format!(
            "one person submits and changes {CHANGES_BURST} things one by one and six a minute from then on, since each is written down: submit many jobs as sweeps (`--sweep`), or wait"
        );
        take(&self.changes, caller, &what)
    }

    /// One more end of a job or sweep.
    pub(crate) fn end(&self, caller: &Caller) -> Result<(), Status> {
        let what = format!(
            "one person ends {CHANGES_BURST} jobs one by one and six a minute from then on, since each is written down: end sweeps as a whole (`stepcast job cancel JOB --array`), or wait"
        );
        take(&self.ends, caller, &what)
    }
}

/// Takes one of somebody's. Operators run the installation, and so does who has no name.
fn take(of: &Mutex<Buckets<UserId>>, caller: &Caller, what: &str) -> Result<(), Status> {
    let Some(user) = caller.user.filter(|_| caller.role != Role::Operator) else {
        return Ok(());
    };
    let taken = of.lock().take(user, Instant::now());
    taken.map_err(|wait: Duration| status::busy(what, wait))
}

#[cfg(test)]
mod tests {
    use stepcast_scheduler::accounts::User;
    use stepcast_scheduler::ids::{OrgId, TokenHash};

    use super::*;

    fn caller(user: u64, role: Role) -> Caller {
        let user = User {
            id: UserId(user),
            org: Some(OrgId(1)),
            name: "somebody".parse().expect("a label"),
            role,
            created_ms: 0,
        };
        Caller::of(&user, TokenHash([0; 32]))
    }

    #[test]
    fn nobody_writes_the_log_full_and_what_they_have_submitted_can_be_ended() {
        let entries = Entries::default();
        let member = caller(1, Role::Member);
        // A few may come back meanwhile.
        let many = 2 * CHANGES_BURST as usize;
        let taken = (0..many).take_while(|_| entries.change(&member).is_ok());
        let taken = taken.count();
        assert!(taken >= CHANGES_BURST as usize && taken < many, "{taken}");
        assert!(entries.end(&member).is_ok() && entries.token(&member).is_ok());
        assert!(entries.change(&caller(2, Role::Admin)).is_ok());
        for who in [Caller::OPERATOR, caller(3, Role::Operator)] {
            assert!((0..many).all(|_| entries.change(&who).is_ok()), "{who:?}");
        }
    }
}
