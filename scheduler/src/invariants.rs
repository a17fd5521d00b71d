//! What must hold of every state, whatever the log was.

use crate::state::State;

/// Something that must hold and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What must hold.
    pub invariant: &'static str,
    /// Where it does not.
    pub detail: String,
}
