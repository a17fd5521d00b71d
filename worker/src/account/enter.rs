//! Whether an account may enter folders, found out by a process that becomes it.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::Ids;

/// How long a folder may take to be entered: one on a far disk takes a moment, and one that does not answer takes for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest word of why it may not.
const WHY_BYTES: u64 = 4_096;

/// Whether the account may enter all of these.
///
/// # Errors
/// What it may not, or what went wrong when it was tried.
pub(crate) fn may_enter(
    account: &Ids,
    helper: &[OsString],
    folders: &[&Path],
) -> Result<(), String> {
    let Some((program, leading)) = helper.split_first() else {
        return Err("no helper is configured".to_owned());
    };
    let mut command = Command::new(program);
    command
        .args(leading)
        .arg("step-down")
        .arg("--account")
        .arg(account.to_string());
    for folder in folders {
        command.arg("--enter").arg(folder);
    }
    command.env_clear().stdin(Stdio::null());
    // It gives a pipe that it prints to away, which is not to be the worker's own.
    command.stderr(Stdio::null());
    said_within(command, PATIENCE)
}

/// What a process says that does not end well. One that takes longer is killed and not waited for: a disk may hold it.
fn said_within(mut command: Command, most: Duration) -> Result<(), String> {
    let told = |error: io::Error| error.to_string();
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(told)?;
    let output = child.stdout.take();
    let (closed, waits) = mpsc::channel();
    thread::spawn(move || {
        let mut said = String::new();
        let read = output.map(|output| output.take(WHY_BYTES).read_to_string(&mut said));
        let _late = closed.send(read.transpose().map(|_length| said));
    });
    // Its output closes with its end.
    let Ok(said) = waits.recv_timeout(most) else {
        let _gone = child.kill();
        thread::spawn(move || child.wait());
        return Err("it takes too long".to_owned());
    };
    let said = said.map_err(told)?;
    match child.wait().map_err(told)?.success() {
        true => Ok(()),
        false => Err(said.trim().to_owned()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_answer_is_killed_and_holds_nobody_up() {
        let mut command = Command::new("/bin/sh");
        let (mut pipe, its) = std::io::pipe().unwrap();
        command.args(["-c", "exec sleep 600"]).stderr(its);
        let said = said_within(command, Duration::ZERO);
        assert_eq!(said, Err("it takes too long".to_owned()));
        // Only its end closes it.
        assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo why; exit 1"]);
        assert_eq!(said_within(command, PATIENCE), Err("why".to_owned()));
    }
}
