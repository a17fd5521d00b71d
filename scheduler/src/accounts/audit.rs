//! The trail of what was done by whom: each entry holds a hash of itself and of the one before, so that none can be
//! changed, left out or put in between without the chain saying where.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::role::Role;
use crate::ids::{OrgId, UserId};

/// Entries kept: a year of an organisation's work. The oldest go first; what is left still is one chain.
const ENTRIES_MAX: usize = 100_000;

/// How long an entry is kept, in milliseconds: a year.
const KEPT_MS: u64 = 365 * 24 * 3_600_000;

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Who; none for who has shown the server's own access token, or was asked for none.
    pub user: Option<UserId>,
    /// In which organisation; none for an operator.
    pub org: Option<OrgId>,
    /// What they were then.
    pub role: Role,
}

impl Actor {
    /// Whoever runs the cluster, where nobody asks who that is.
    pub const OPERATOR: Self = Self {
        user: None,
        org: None,
        role: Role::Operator,
    };
}

/// What was done. Their order is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A job was put into the queue.
    SubmitJob,
    /// A job was ended.
    CancelJob,
    /// A job was changed or approved.
    ChangeJob,
    /// A worker was let in.
    CreateWorkerToken,
    /// A worker was shut out.
    RevokeWorkerToken,
    /// A worker was drained.
    DrainWorker,
    /// A worker was given work again.
    ResumeWorker,
    /// What the cluster goes by was changed: a team, a policy, prices, imported figures.
    ChangeRules,
    /// An organisation was made.
    CreateOrg,
    /// An organisation was removed.
    RemoveOrg,
    /// Somebody was let in.
    CreateUser,
    /// Somebody was made something else.
    SetRole,
    /// Somebody was shut out.
    RemoveUser,
    /// A token was made.
    CreateKey,
    /// A token was taken back.
    RevokeKey,
    /// A node was let in or out, or leadership was moved.
    ChangeNodes,
    /// The state was copied out of the cluster.
    Backup,
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// One more than that of the entry before.
    pub seq: u64,
    /// When, by stamp.
    pub stamp_ms: u64,
    /// Who did it.
    pub actor: Actor,
    /// What.
    pub action: Action,
    /// To what, as its resource name.
    pub subject: String,
    /// Of the hash before, and of everything above.
    pub hash: [u8; 32],
}

/// The newest entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    /// The hash before the oldest entry that is kept.
    pub(crate) base: [u8; 32],
    pub(crate) last: u64,
    pub(crate) entries: Arc<BTreeMap<u64, AuditEntry>>,
}

/// A chain that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "entry {seq} of the audit log does not follow from the one before: it, or one before it, was changed or is missing"
)]
pub struct Broken {
    /// The first entry that does not follow.
    pub seq: u64,
}

impl Trail {
    /// Writes down what was done.
    pub(crate) fn add(&mut self, stamp_ms: u64, actor: Actor, action: Action, subject: String) {
        let before = self
            .entries
            .last_key_value()
            .map_or(self.base, |(_, last)| last.hash);
        self.last += 1;
        let mut entry = AuditEntry {
            seq: self.last,
            stamp_ms,
            actor,
            action,
            subject,
            hash: [0; 32],
        };
        entry.hash = hash(&before, &entry);
        let entries = Arc::make_mut(&mut self.entries);
        entries.insert(entry.seq, entry);
        while let Some(oldest) = entries.first_entry()
            && (self.last - oldest.key() >= ENTRIES_MAX as u64
                || oldest.get().stamp_ms.saturating_add(KEPT_MS) < stamp_ms)
        {
            self.base = oldest.remove().hash;
        }
    }

    /// The hash before the oldest entry that is kept: where a check begins.
    #[must_use]
    pub const fn base(&self) -> &[u8; 32] {
        &self.base
    }

    /// The entries behind `after`, oldest first.
    pub fn after(&self, after: u64) -> impl Iterator<Item = &AuditEntry> {
        self.entries
            .range(after.saturating_add(1)..)
            .map(|(_, entry)| entry)
    }

    /// Whether every entry follows from the one before.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), Broken> {
        verify(&self.base, self.entries.values())
    }

    /// The same where it was found before that everything up to an entry follows: only what came after it is looked at, as
    /// long as that entry is still the same one here. Gives the newest entry, up to which it holds now, if there is one.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check_on(&self, checked: Option<Checked>) -> Result<Option<Checked>, Broken> {
        let is_here = |checked: &Checked| {
            let entry = self.entries.get(&checked.seq);
            entry.is_some_and(|entry| entry.hash == checked.hash)
        };
        match checked.filter(is_here) {
            Some(checked) => {
                let newer = self.after(checked.seq);
                verify(&checked.hash, newer)?;
            }
            None => self.check()?,
        }
        let last = self.entries.last_key_value();
        Ok(last.map(|(seq, last)| Checked {
            seq: *seq,
            hash: last.hash,
        }))
    }
}

/// An entry up to which a trail was found to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    seq: u64,
    hash: [u8; 32],
}

/// Whether these entries follow from each other, and the first from this hash.
///
/// # Errors
/// The first that does not.
pub fn verify<'a>(
    base: &[u8; 32],
    entries: impl IntoIterator<Item = &'a AuditEntry>,
) -> Result<(), Broken> {
    let (mut before, mut seq) = (*base, None);
    for entry in entries {
        let follows = seq.is_none_or(|seq: u64| entry.seq == seq + 1);
        if !follows || hash(&before, entry) != entry.hash {
            return Err(Broken { seq: entry.seq });
        }
        (before, seq) = (entry.hash, Some(entry.seq));
    }
    Ok(())
}

fn hash(before: &[u8; 32], entry: &AuditEntry) -> [u8; 32] {
    let what = (
        "stepcast audit 1",
        before,
        entry.seq,
        entry.stamp_ms,
        entry.actor,
        entry.action,
        &entry.subject,
    );
    match postcard::to_extend(&what, Vec::new()) {
        Ok(bytes) => Sha256::digest(bytes).into(),
        // Memory grows as needed and every length is known beforehand, so there is nothing left that could fail.
        Err(error) => unreachable!("an entry is always encodable: {error}"),
    }
}

impl Action {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SubmitJob => "SUBMIT_JOB",
            Self::CancelJob => "CANCEL_JOB",
            Self::ChangeJob => "CHANGE_JOB",
            Self::CreateWorkerToken => "CREATE_WORKER_TOKEN",
            Self::RevokeWorkerToken => "REVOKE_WORKER_TOKEN",
            Self::DrainWorker => "DRAIN_WORKER",
            Self::ResumeWorker => "RESUME_WORKER",
            Self::ChangeRules => "CHANGE_RULES",
            Self::CreateOrg => "CREATE_ORG",
            Self::RemoveOrg => "REMOVE_ORG",
            Self::CreateUser => "CREATE_USER",
            Self::SetRole => "SET_ROLE",
            Self::RemoveUser => "REMOVE_USER",
            Self::CreateKey => "CREATE_KEY",
            Self::RevokeKey => "REVOKE_KEY",
            Self::ChangeNodes => "CHANGE_NODES",
            Self::Backup => "BACKUP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTOR: Actor = Actor {
        user: Some(UserId(3)),
        org: Some(OrgId(1)),
        role: Role::Member,
    };

    fn trail(entries: u64) -> Trail {
        let mut trail = Trail::default();
        for n in 1..=entries {
            trail.add(n * 1_000, ACTOR, Action::CancelJob, format!("jobs/j{n}"));
        }
        trail
    }

    #[test]
    fn what_was_checked_is_not_looked_at_again() {
        let mut trail = trail(20);
        let checked = trail.check_on(None);
        let checked = checked.expect("it is whole").expect("an entry");
        assert_eq!(checked.seq, 20);
        let entries = Arc::make_mut(&mut trail.entries);
        entries.get_mut(&7).expect("an entry").stamp_ms += 1;
        assert_eq!(trail.check_on(Some(checked)), Ok(Some(checked)));
        // What is new is looked at, and everything where the entry is another one.
        trail.add(21_000, ACTOR, Action::Backup, String::new());
        let newer = trail.check_on(Some(checked));
        let newer = newer.expect("it follows").expect("an entry");
        assert_eq!(newer.seq, 21);
        let other = Checked {
            hash: [0; 32],
            ..checked
        };
        assert_eq!(trail.check_on(Some(other)), Err(Broken { seq: 7 }));
        let entries = Arc::make_mut(&mut trail.entries);
        entries.get_mut(&21).expect("an entry").stamp_ms += 1;
        assert_eq!(trail.check_on(Some(checked)), Err(Broken { seq: 21 }));
        assert_eq!(Trail::default().check_on(Some(checked)), Ok(None));
    }

    #[test]
    fn tampering_with_one_entry_is_found_and_named() {
        let honest = trail(20);
        assert_eq!(honest.check(), Ok(()));
        type Tamper = fn(&mut AuditEntry);
        let tamper: [(&str, Tamper); 5] = [
            ("when", |entry| entry.stamp_ms += 1),
            ("who", |entry| entry.actor.user = Some(UserId(4))),
            ("as what", |entry| entry.actor.role = Role::Admin),
            ("what", |entry| entry.action = Action::SubmitJob),
            ("to what", |entry| entry.subject.push('x')),
        ];
        for (what, tamper) in tamper {
            let mut changed = honest.clone();
            let entries = Arc::make_mut(&mut changed.entries);
            entries.get_mut(&9).into_iter().for_each(tamper);
            assert_eq!(changed.check(), Err(Broken { seq: 9 }), "{what}");
        }
        let mut shorter = honest.clone();
        Arc::make_mut(&mut shorter.entries).remove(&9);
        assert_eq!(shorter.check(), Err(Broken { seq: 10 }), "one is missing");
        let mut rehashed = honest;
        let entries = Arc::make_mut(&mut rehashed.entries);
        let before = entries[&8].hash;
        if let Some(entry) = entries.get_mut(&9) {
            entry.subject.push('x');
            entry.hash = hash(&before, entry);
        }
        assert_eq!(
            rehashed.check(),
            Err(Broken { seq: 10 }),
            "the next one tells"
        );
    }

    #[test]
    fn the_oldest_go_and_the_rest_is_still_one_chain() {
        let mut trail = trail(5);
        let (actor, late) = (trail.entries[&1].actor, KEPT_MS + 3_500);
        trail.add(late, actor, Action::CancelJob, "jobs/late".to_owned());
        let left: Vec<u64> = trail.after(0).map(|entry| entry.seq).collect();
        assert_eq!(left, [4, 5, 6]);
        assert_eq!(trail.check(), Ok(()));
    }
}
