//! Who calls, and what they may: one function decides, and what it does not know it denies.

mod calls;
mod permission;
mod ticket;

use std::fmt;

use tonic::{Code, Status};

pub(crate) use calls::of_call;
pub(crate) use permission::{Permission, Role};
pub(crate) use ticket::{Claims, GOOD_FOR as TICKET_LIFE, Tickets};

use crate::status::Refusal;

/// Somebody who calls, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// What they are.
    pub(crate) role: Role,
    /// Whether anybody at all may call here, so that nothing is known of them.
    pub(crate) anybody: bool,
}

impl Caller {
    /// Whoever reaches a server that asks nobody who they are.
    pub(crate) const ANYBODY: Self = Self {
        role: Role::Operator,
        anybody: true,
    };

    /// Who has shown the server's own access token.
    pub(crate) const OPERATOR: Self = Self {
        role: Role::Operator,
        anybody: false,
    };
}

impl Caller {
    /// A number that no other caller has; none for whom nothing is known of.
    pub(crate) fn number(&self) -> Option<u64> {
        (!self.anybody).then_some(0)
    }

    /// Who they are, as an account says it.
    pub(crate) fn user_text(&self) -> String {
        self.role.name().to_owned()
    }

    /// Where, as an account says it.
    pub(crate) fn org_text(&self) -> String {
        String::new()
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.role.name())
    }
}

/// Whether a caller may do that. Every call of every service asks here, and nothing else decides.
pub(crate) fn authorise(caller: &Caller, permission: Permission) -> Result<(), Status> {
    if caller.role.may(permission) {
        return Ok(());
    }
    let message = format!("this needs the permission {}", permission.name());
    Err(Refusal::new(Code::PermissionDenied, "FORBIDDEN", message)
        .with("role", caller.role.name())
        .hint("an owner or admin of your organisation, or an operator, can give it")
        .into())
}
