//! Ends everything that runs as an account for trainers.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::{Ids, step_down};
use crate::sweep;

/// How long the process that kills the others may take: it reads a word, makes two calls and ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that waits to be told to kill every process of an account. Whoever fills its control group with processes, so that
/// none can be started any more, does so in vain where it was there before. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Killer(Child);

impl Killer {
    /// Starts one, which does nothing yet.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(super) fn start(account: &Ids, helper: &[OsString]) -> io::Result<Self> {
        let Some((program, leading)) = helper.split_first() else {
            return Err(io::Error::other("no helper is configured"));
        };
        let mut command = Command::new(program);
        command.args(leading).arg("step-down").arg("--kill");
        command.arg("--account").arg(account.to_string());
        command.env_clear().kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C at a terminal is for the worker alone.
        command.stderr(Stdio::null()).process_group(0);
        command.spawn().map(Self)
    }

    /// Kills all of them in one call: one that starts another and ends, again and again, is never seen by who looks through a
    /// list.
    ///
    /// # Errors
    /// Why it could not.
    async fn kill(mut self) -> Result<(), String> {
        let told = |error: io::Error| error.to_string();
        if let Some(mut stdin) = self.0.stdin.take() {
            stdin.write_all(&[step_down::KILL]).await.map_err(told)?;
        }
        let ended = tokio::time::timeout(PATIENCE, self.0.wait_with_output()).await;
        let ended = ended.map_err(|_late| "it takes too long".to_owned())?;
        let ended = ended.map_err(told)?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&ended.stdout).trim().to_owned()),
        }
    }
}

/// Kills every process of an account, which no attempt has meanwhile, by one that `waits` for that or else by another, and says
/// how many could not be ended.
pub(super) async fn clear(account: &Ids, helper: &[OsString], waits: Option<Killer>) -> usize {
    let name = &account.name;
    if let Err(why) = kill_at_once(account, helper, waits).await {
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

async fn kill_at_once(
    account: &Ids,
    helper: &[OsString],
    waits: Option<Killer>,
) -> Result<(), String> {
    // It may have been ended meanwhile.
    if let Some(killer) = waits
        && killer.kill().await.is_ok()
    {
        return Ok(());
    }
    let started = Killer::start(account, helper).map_err(|error| error.to_string())?;
    started.kill().await
}
