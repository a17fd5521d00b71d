//! Ends everything that runs as an account for trainers.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::Ids;
use crate::sweep;

/// How long the process that kills the others may take: it starts, makes two calls and ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills every process of an account, which no attempt has meanwhile, and says how many could not be ended.
pub(super) async fn clear(account: &Ids, helper: &[OsString]) -> usize {
    let name = &account.name;
    if let Err(why) = kill_at_once(account, helper).await {
        tracing::error!(
            account = name,
            why,
            "the processes of an account cannot be ended all at once; they are ended one by one"
        );
    }
    let left = sweep::kill_account(account.uid).await;
    if left > 0 {
        tracing::error!(
            account = name,
            left,
            "processes of an account cannot be ended; no attempt gets it before they have"
        );
    }
    left
}

/// All of them in one call: one that starts another and ends, again and again, is never seen by who looks through a list.
async fn kill_at_once(account: &Ids, helper: &[OsString]) -> Result<(), String> {
    let Some((program, leading)) = helper.split_first() else {
        return Err("no helper is configured".to_owned());
    };
    let mut command = Command::new(program);
    command.args(leading).arg("step-down").arg("--kill");
    command.arg("--account").arg(account.to_string());
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let tried = tokio::time::timeout(PATIENCE, command.output()).await;
    let tried = tried.map_err(|_late| "it takes too long".to_owned())?;
    let tried = tried.map_err(|error| error.to_string())?;
    match tried.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&tried.stdout).trim().to_owned()),
    }
}
