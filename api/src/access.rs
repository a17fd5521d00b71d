//! Who calls, and what they may: one function decides, and what it does not know it denies.

mod calls;
mod ticket;

use stepcast_scheduler::State;
use stepcast_scheduler::accounts::{Actor, User};
use stepcast_scheduler::ids::{OrgId, TokenHash, UserId};
use stepcast_scheduler::model::{Job, Member, Owner, Team};
use tonic::{Code, Request, Status};

pub(crate) use calls::{Needed, of_call};
pub(crate) use stepcast_scheduler::accounts::{Permission, Role};
pub(crate) use ticket::{GOOD_FOR as TICKET_LIFE, PREFIX as TICKET_PREFIX, Tickets};

use crate::status::{self, Refusal};

/// Somebody who calls, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// What they are.
    pub(crate) role: Role,
    /// Where; an operator has no organisation.
    pub(crate) org: Option<OrgId>,
    /// Who; none for who has shown the server's own access token, or was asked for none.
    pub(crate) user: Option<UserId>,
    /// The keyed hash of the long-lived token of theirs that they have shown, or for which they were given what they have
    /// shown; none where there is none.
    pub(crate) key: Option<TokenHash>,
    /// Whether anybody at all may call here, so that nothing is known of them.
    anybody: bool,
}

impl Caller {
    /// Whoever reaches a server that asks nobody who they are.
    pub(crate) const ANYBODY: Self = Self {
        role: Role::Operator,
        org: None,
        user: None,
        key: None,
        anybody: true,
    };

    /// Who has shown the server's own access token.
    pub(crate) const OPERATOR: Self = Self {
        anybody: false,
        ..Self::ANYBODY
    };

    /// Somebody who is known by a long-lived token.
    pub(crate) const fn of(user: &User, key: TokenHash) -> Self {
        Self {
            role: user.role,
            org: user.org,
            user: Some(user.id),
            key: Some(key),
            anybody: false,
        }
    }

    /// Who has made this call, which was let in.
    pub(crate) fn by<T>(request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| status::access_denied("nobody is known to have made this call"))
    }

    /// A number that no other caller has; none for whom nothing is known of.
    pub(crate) fn number(&self) -> Option<u64> {
        let user = self.user.map_or(0, |UserId(user)| user);
        (!self.anybody).then_some(user)
    }

    /// Whether anybody at all may call here, so that nothing is known of them.
    pub(crate) const fn is_anybody(&self) -> bool {
        self.anybody
    }

    /// In whose name a command goes into the log; nobody's where nobody is asked.
    pub(crate) fn actor(&self) -> Option<Actor> {
        (!self.anybody).then_some(Actor {
            user: self.user,
            org: self.org,
            role: self.role,
        })
    }

    /// Whose a job is that they submit.
    pub(crate) fn owner(&self) -> Option<Owner> {
        Some(Owner {
            org: self.org?,
            user: self.user?,
        })
    }

    /// Whether a job is of their organisation; an operator sees all.
    pub(crate) fn sees(&self, job: &Job) -> bool {
        let of = job.spec.terms.owner.map(|owner| owner.org);
        self.role == Role::Operator || (self.org.is_some() && of == self.org)
    }

    /// Whether jobs of theirs may run in a team; an operator's may run in any.
    pub(crate) fn runs_in(&self, team: &Team, state: &State) -> bool {
        let mut chain = state.team_chain(team.id);
        self.role == Role::Operator || chain.all(|team| team.is_open_to(self.owner()))
    }

    /// Whether nobody's jobs run in a team but those of their organisation; an operator sees into all.
    pub(crate) fn sees_into(&self, team: &Team, state: &State) -> bool {
        let of = |member: &Member| match member {
            Member::Org(org) => Some(*org),
            Member::User(user) => state.accounts().user(*user).and_then(|user| user.org),
        };
        let is_own = |member: &Member| self.org.is_some() && of(member) == self.org;
        let is_closed = |team: &Team| !team.only.is_empty() && team.only.iter().all(is_own);
        self.role == Role::Operator || state.team_chain(team.id).any(is_closed)
    }

    /// What they need to end or change this job.
    pub(crate) fn to_change(&self, job: &Job) -> Permission {
        match job.spec.terms.owner {
            Some(owner) if Some(owner.user) == self.user => Permission::ChangeJobs,
            _ => Permission::ChangeJobsOfOthers,
        }
    }
}

/// Whether a caller may do that. Every call of every service asks here, and nothing else decides.
pub(crate) fn authorise(caller: &Caller, permission: Permission) -> Result<(), Status> {
    if caller.role.may(permission) {
        return Ok(());
    }
    let message = format!("this needs the permission {}", permission.name());
    let has_somebody = [Role::Owner, Role::Admin].map(|role| role.may(permission));
    let hint = if has_somebody.contains(&true) {
        "an owner or admin of your organisation, or an operator, can give it"
    } else {
        "only an operator has it"
    };
    Err(Refusal::new(Code::PermissionDenied, "FORBIDDEN", message)
        .with("role", caller.role.name())
        .hint(hint)
        .into())
}
