//! The small process between worker and trainer: it ends the whole trainer when the worker is gone or falls silent.
//!
//! A worker that is killed with signal 9, stopped, or swapped out cannot end its trainer before its lease ends. The
//! guard can: it reads `deadline MS`, `term` and `kill` on its stdin, and treats the end of stdin and a passed deadline
//! as `kill`. It says `started PID`, then `exited CODE` or `signaled NUMBER` on its stdout, once nothing of the trainer
//! is left. What the trainer prints goes to the guard's stderr.
//!
//! A process group is not enough: SimpleTuner's own command starts the real trainer in a session of its own. So on
//! Linux the guard becomes the reaper of all its descendants and ends the tree; elsewhere it ends the group.

mod client;
mod tree;

use std::ffi::OsString;
use std::io::{BufRead, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::account::{Ids, step_down};

pub use self::client::{Error, Guard, Status};
use self::tree::Tree;

/// Commands and exits waiting to be handled. The worker sends a few a minute; a reader that waits is fine.
const QUEUE: usize = 64;

/// Pause between two looks at what is left of a killed tree: a dying process takes milliseconds.
const SWEEP_EVERY: Duration = Duration::from_millis(20);

/// Sweeps before the guard gives up on processes that not even SIGKILL ends (a driver call that never returns): 30 s.
const SWEEPS: u32 = 1_500;

/// Longest word of why a trainer cannot be started.
const WHY_BYTES: u64 = 4_096;

/// Longest command line read from the worker.
const LINE_BYTES: u64 = 256;

/// The last of the descriptors that every process has: its stderr.
#[cfg(target_os = "linux")]
const LAST_STANDARD: i32 = 2;

#[derive(Debug)]
enum Message {
    Deadline(Duration),
    Term,
    Kill,
    /// Stdin ended: the worker is gone.
    Orphaned,
    /// The trainer's first process ended; others may be left.
    Gone(WaitStatus),
}

/// Runs `command` under guard until it is gone, as this account or as whoever runs this. The exit code says only whether it
/// could be started.
pub fn run(account: Option<&Ids>, command: &[OsString]) -> ExitCode {
    #[cfg(target_os = "linux")]
    close_inherited();
    let Some((program, arguments)) = command.split_first() else {
        say("failed no command was given");
        return ExitCode::from(2);
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        // Still works for trainers that stay in their group; the worker's own clean-up finds the others.
        eprintln!("stepcast guard: cannot become the reaper of the trainer's processes: {error}");
    }
    // Nothing runs before it is known for how long it may: the worker may have been stopped since it started this guard.
    let Some(left) = first_deadline() else {
        say("failed nobody said how long it may run");
        return ExitCode::FAILURE;
    };
    let started = match account {
        Some(account) => start_as(account, command),
        None => start(program, arguments),
    };
    let pid = match started {
        Ok(pid) => pid,
        Err(error) => {
            say(&format!("failed {error}"));
            return ExitCode::FAILURE;
        }
    };
    say(&format!("started {}", pid.as_raw_nonzero()));
    let (sender, messages) = sync_channel(QUEUE);
    let commands = sender.clone();
    std::thread::spawn(move || read_commands(&commands));
    std::thread::spawn(move || reap(pid, &sender));
    let status = watch(&messages, Tree::of(pid), Instant::now() + left);
    match status.and_then(|status| status.terminating_signal()) {
        Some(signal) => say(&format!("signaled {signal}")),
        None => say(&format!(
            "exited {}",
            status.and_then(|status| status.exit_status()).unwrap_or(-1)
        )),
    }
    ExitCode::SUCCESS
}

/// Closes whatever the worker itself was started with, such as the lock or the log of a script: it would be the trainer's, also
/// where that may not open it. This process has opened nothing yet, and what it opens from here on is no child's.
#[cfg(target_os = "linux")]
fn close_inherited() {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > LAST_STANDARD)
        .collect();
    for number in open {
        // The list's own is closed by now.
        let _closed = nix::unistd::close(number);
    }
}

/// Starts the trainer as another account. It is started once its process is no longer the one that steps down, and else that one
/// says why not.
fn start_as(account: &Ids, trainer: &[OsString]) -> std::io::Result<Pid> {
    let (told, tells) = std::io::pipe()?;
    let [program, arguments @ ..] = &step_down::command(account);
    let arguments = [arguments, trainer].concat();
    // It makes a session of its own, and a group with that.
    let pid = spawn(Command::new(program).args(arguments).stdin(tells))?;
    let mut why = String::new();
    std::io::Read::take(told, WHY_BYTES).read_to_string(&mut why)?;
    if why.is_empty() {
        return Ok(pid);
    }
    let _reaped = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    Err(std::io::Error::other(why.replace('\n', " ")))
}

fn start(program: &OsString, arguments: &[OsString]) -> std::io::Result<Pid> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    spawn(command.process_group(0))
}

/// Starts a process that prints to where this one's stderr goes.
fn spawn(command: &mut Command) -> std::io::Result<Pid> {
    let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
    let stdout = stderr.try_clone()?;
    command.stdout(stdout).stderr(stderr);
    // The child handle is not kept: `reap` waits for every descendant, this one included.
    let child = command.spawn()?;
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
        .ok_or_else(|| std::io::Error::other("no process id"))
}

/// Handles commands until nothing of the trainer is left.
///
/// When the first process ends by itself, what it left behind is killed. After SIGTERM the others may still be saving,
/// so they have until the worker says `kill` or the deadline passes.
fn watch(messages: &Receiver<Message>, tree: Tree, mut deadline: Instant) -> Option<WaitStatus> {
    let mut asked = false;
    let mut killed = false;
    let mut gone = None;
    let mut sweeps = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = if killed || gone.is_some() {
            left.min(SWEEP_EVERY)
        } else {
            left
        };
        match messages.recv_timeout(wait) {
            Ok(Message::Deadline(left)) => deadline = Instant::now() + left,
            Ok(Message::Term) => {
                asked = true;
                tree.terminate();
            }
            Ok(Message::Gone(status)) => {
                gone = Some(status);
                killed |= !asked;
            }
            Ok(Message::Kill | Message::Orphaned) | Err(RecvTimeoutError::Disconnected) => {
                killed = true
            }
            Err(RecvTimeoutError::Timeout) => killed |= Instant::now() >= deadline,
        }
        // Again and again, for a process may start another while it is looked at.
        let living = if killed { tree.kill() } else { tree.count() };
        sweeps += u32::from(killed);
        if (gone.is_some() && living == 0) || sweeps > SWEEPS {
            return gone;
        }
        if killed && living > 0 {
            std::thread::sleep(SWEEP_EVERY);
        }
    }
}

/// How long the trainer may run, which the worker says first; nothing if it says something else or is gone.
fn first_deadline() -> Option<Duration> {
    let mut line = String::new();
    let mut stdin = std::io::stdin().lock();
    std::io::Read::take(&mut stdin, LINE_BYTES)
        .read_line(&mut line)
        .ok()?;
    match parse(line.trim()) {
        Some(Message::Deadline(left)) => Some(left),
        _ => None,
    }
}

fn read_commands(commands: &SyncSender<Message>) {
    let mut stdin = std::io::stdin().lock();
    loop {
        let mut line = String::new();
        let read = std::io::Read::take(&mut stdin, LINE_BYTES).read_line(&mut line);
        let message = match read {
            Ok(0) | Err(_) => Message::Orphaned,
            Ok(_) => match parse(line.trim()) {
                Some(message) => message,
                None => continue,
            },
        };
        let last = matches!(message, Message::Orphaned);
        if commands.send(message).is_err() || last {
            return;
        }
    }
}

fn parse(line: &str) -> Option<Message> {
    match line.split_once(' ') {
        Some(("deadline", ms)) => Some(Message::Deadline(Duration::from_millis(ms.parse().ok()?))),
        None if line == "term" => Some(Message::Term),
        None if line == "kill" => Some(Message::Kill),
        _ => None,
    }
}

/// Waits for every child, adopted ones included, and reports the first one's status.
fn reap(first: Pid, exits: &SyncSender<Message>) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == first => {
                if exits.send(Message::Gone(status)).is_err() {
                    return;
                }
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// One line to the worker. It may be gone, and then there is nobody to tell.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _gone = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
