//! What would be if something were different: the real commands on a copy of the state, and both run forward.

use std::collections::BTreeSet;

use crate::command::{Command, Envelope};
use crate::ids::{InstanceId, TokenHash};
use crate::model::{Inventory, Label};
use crate::outlook::{Outlook, Whom, outlook};
use crate::placement::ForecastSource;
use crate::rejection::Rejection;
use crate::state::State;

/// How it stands, and how it would.
#[derive(Debug, Clone, PartialEq)]
pub struct WhatIf {
    /// When jobs start and are done as it is.
    pub before: Outlook,
    /// When they would.
    pub after: Outlook,
    /// The state if it were so.
    pub changed: State,
}

/// Something that cannot be supposed, since it could not be done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the change {} cannot be made", .which + 1)]
pub struct Impossible {
    /// Which of the changes, from 0.
    pub which: usize,
    /// What the state says against it.
    pub source: Rejection,
}

/// When jobs start and are done as it is, and if these commands were in the log now. `spent` is as for [`outlook`], for
/// both together.
///
/// # Errors
/// The first command that the state refuses.
pub fn what_if(
    state: &State,
    forecast: &dyn ForecastSource,
    now_ms: u64,
    commands: &[Command],
    whom: Whom<'_>,
    spent: &dyn Fn() -> f64,
) -> Result<WhatIf, Impossible> {
    let changed = supposed(state, now_ms, commands)?;
    let before = outlook(state, forecast, now_ms, whom, &|| spent() * 2.0);
    let begun = spent();
    let left = (1.0 - begun).max(f64::MIN_POSITIVE);
    let after = outlook(&changed, forecast, now_ms, whom, &|| {
        (spent() - begun) / left
    });
    Ok(WhatIf {
        before,
        after,
        changed,
    })
}

/// The state if these commands were in the log now.
///
/// # Errors
/// The first command that the state refuses.
pub fn supposed(state: &State, now_ms: u64, commands: &[Command]) -> Result<State, Impossible> {
    let now_ms = now_ms.max(state.newest_stamp_ms());
    let mut state = state.clone();
    for (which, command) in commands.iter().enumerate() {
        let envelope = Envelope::new(now_ms, None, command.clone());
        let applied = state.apply(state.applied_index() + 1, &envelope);
        applied
            .reply
            .map_err(|source| Impossible { which, source })?;
    }
    Ok(state)
}

/// The commands with which so many more workers join, all with the same to offer.
#[must_use]
pub fn joins(state: &State, inventory: &Inventory, count: usize) -> Vec<Command> {
    let names: BTreeSet<&str> = state.tokens().map(|token| token.name.as_str()).collect();
    let free = (1_u64..).filter_map(|number| {
        let name = format!("supposed-{number}");
        let mut hash = [0xff; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        let hash = TokenHash(hash);
        let is_free = !names.contains(name.as_str()) && state.token_by_hash(&hash).is_none();
        let name: Label = name.parse().ok().filter(|_| is_free)?;
        Some((name, hash))
    });
    free.take(count)
        .flat_map(|(name, hash)| {
            let register = Command::RegisterWorker {
                token_hash: hash,
                instance: InstanceId([0xff; 16]),
                inventory: inventory.clone(),
            };
            [Command::CreateWorkerToken { name, hash }, register]
        })
        .collect()
}
