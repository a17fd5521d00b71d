//! Ends processes that an earlier worker or a lost guard left behind, found by the random word in their environment.

use std::time::Duration;

use crate::replay::JOB_ID_VARIABLE;

/// Looks at /proc before giving up: 10 s of a process not dying of SIGKILL is a driver call that never returns.
const LOOKS: u32 = 200;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Kills every process of the attempt until none is left, and says how many could not be ended.
pub async fn kill_marked(marker: &str) -> usize {
    kill_all(|| kill_once(marker)).await
}

/// Kills every process of an account until none is left, and says how many could not be ended. Only for accounts that are for
/// trainers alone, and while no attempt has it.
pub async fn kill_account(uid: u32) -> usize {
    kill_all(|| kill_once_of(uid)).await
}

async fn kill_all(kill_once: impl Fn() -> usize) -> usize {
    let mut nothing = 0;
    for _ in 0..LOOKS {
        // A process that has only just been started does not show its environment yet, so nothing is believed twice only.
        nothing = if kill_once() == 0 { nothing + 1 } else { 0 };
        if nothing == 2 {
            return 0;
        }
        tokio::time::sleep(PAUSE).await;
    }
    kill_once()
}

#[cfg(target_os = "linux")]
fn kill_once(marker: &str) -> usize {
    let wanted = format!("{JOB_ID_VARIABLE}={marker}");
    kill_where(|pid| carries(pid, wanted.as_bytes()))
}

#[cfg(target_os = "linux")]
fn kill_once_of(uid: u32) -> usize {
    kill_where(|pid| is_pid_of(pid, uid))
}

#[cfg(target_os = "linux")]
fn is_pid_of(pid: rustix::process::Pid, uid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    status.is_ok_and(|status| is_of(&status, uid))
}

/// Whether anything runs as this account.
#[cfg(target_os = "linux")]
pub(crate) fn runs_as(uid: u32) -> bool {
    processes().any(|pid| is_pid_of(pid, uid))
}

/// Whether a process lives that has a number of this account's, by its /proc/PID/status. A zombie that has threads lives: only
/// its first thread has ended.
#[cfg(target_os = "linux")]
fn is_of(status: &str, uid: u32) -> bool {
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let state = value("State:").unwrap_or_default().trim_start();
    let ids = value("Uid:").unwrap_or_default();
    let is_its = ids.split_whitespace().any(|id| id.parse() == Ok(uid));
    let threads = value("Threads:").and_then(|count| count.trim().parse().ok());
    let is_dead = state.starts_with('X') || state.starts_with('Z') && threads.unwrap_or(1) <= 1;
    is_its && !is_dead
}

#[cfg(target_os = "linux")]
fn processes() -> impl Iterator<Item = rustix::process::Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(rustix::process::Pid::from_raw)
}

#[cfg(target_os = "linux")]
fn kill_where(is_meant: impl Fn(rustix::process::Pid) -> bool) -> usize {
    use rustix::process::{Signal, getpid, kill_process};

    let meant = processes().filter(|pid| *pid != getpid() && is_meant(*pid));
    let mut found = 0;
    for pid in meant {
        // Gone already is as good; what does not go is found again by the next look.
        let _gone = kill_process(pid, Signal::KILL);
        found += 1;
    }
    found
}

/// Other users' processes cannot be read, and are not ours, but for those of accounts for trainers, which root or CAP_SYS_PTRACE
/// may read; a zombie's environment is empty. Where a process's first thread has
/// ended, only those that go on have it.
#[cfg(target_os = "linux")]
fn carries(pid: rustix::process::Pid, wanted: &[u8]) -> bool {
    let process = std::path::PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let is_in = |environment: &[u8]| {
        environment
            .split(|byte| *byte == 0)
            .any(|one| one == wanted)
    };
    match std::fs::read(process.join("environ")) {
        Ok(environment) if !environment.is_empty() => is_in(&environment),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => false,
        Ok(_) | Err(_) => {
            let threads = std::fs::read_dir(process.join("task"))
                .into_iter()
                .flatten();
            let mut folders = threads.filter_map(|thread| Some(thread.ok()?.path()));
            folders.any(|thread| {
                std::fs::read(thread.join("environ")).is_ok_and(|environment| is_in(&environment))
            })
        }
    }
}

/// Elsewhere the guard's process group is all there is.
#[cfg(not(target_os = "linux"))]
fn kill_once(_marker: &str) -> usize {
    0
}

/// There are no accounts for trainers.
#[cfg(not(target_os = "linux"))]
fn kill_once_of(_uid: u32) -> usize {
    0
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_process_is_an_account_s_by_any_of_its_numbers_while_it_lives() {
        let status = |state: &str, uids: &str| {
            format!("Name:\tsh\nState:\t{state}\nUid:\t{uids}\nGid:\t7\t7\t7\t7\n")
        };
        assert!(is_of(&status("S (sleeping)", "998\t998\t998\t998"), 998));
        assert!(is_of(&status("R (running)", "0\t0\t998\t0"), 998));
        assert!(!is_of(&status("S (sleeping)", "9980\t0\t0\t0"), 998));
        assert!(!is_of(&status("S (sleeping)", "0\t0\t0\t0"), 7));
        let zombie = status("Z (zombie)", "998\t998\t998\t998");
        assert!(!is_of(&zombie, 998));
        assert!(!is_of(&format!("{zombie}Threads:\t1\n"), 998));
        assert!(is_of(&format!("{zombie}Threads:\t2\n"), 998));
    }

    #[tokio::test]
    async fn a_marked_process_is_found_and_another_is_not() {
        let start = |marker: &str| {
            tokio::process::Command::new("sleep")
                .arg("600")
                .env(JOB_ID_VARIABLE, marker)
                .spawn()
                .unwrap()
        };
        let (mut marked, mut other) = (start("marker-a"), start("marker-b"));
        // The kernel lets the parent go on a moment before the child's environment can be read.
        let shown =
            |pid: Option<u32>| std::fs::read(format!("/proc/{}/environ", pid.unwrap())).unwrap();
        while shown(marked.id()).is_empty() || shown(other.id()).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(kill_marked("marker-a").await, 0);
        assert_eq!(marked.wait().await.unwrap().signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().await.unwrap();
    }

    #[tokio::test]
    async fn a_marked_process_whose_first_thread_has_ended_is_found() {
        use tokio::io::AsyncReadExt;

        let mut python = tokio::process::Command::new("python3");
        python.args(["-c", include_str!("../tests/first_thread_ends.py")]);
        python.env(JOB_ID_VARIABLE, "marker-c");
        python.stdout(std::process::Stdio::piped());
        let Ok(mut marked) = python.spawn() else {
            eprintln!("not tried: there is no python3");
            return;
        };
        let mut output = marked.stdout.take().unwrap();
        assert_ne!(output.read_u8().await.unwrap(), 0, "its number");
        assert_eq!(kill_marked("marker-c").await, 0);
        // Only its end closes it.
        output.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(marked.wait().await.unwrap().signal(), Some(9));
    }
}
