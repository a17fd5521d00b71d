//! Ends processes that an earlier worker or a lost guard left behind, found by the random word in their environment.

use std::time::Duration;

use crate::replay::JOB_ID_VARIABLE;

/// Looks at /proc before giving up: 10 s of a process not dying of SIGKILL is a driver call that never returns.
const LOOKS: u32 = 200;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Kills every process of the attempt until none is left, and says how many could not be ended.
pub async fn kill_marked(marker: &str) -> usize {
    let mut nothing = 0;
    for _ in 0..LOOKS {
        // A process that has only just been started does not show its environment yet, so nothing is believed twice only.
        nothing = if kill_once(marker) == 0 {
            nothing + 1
        } else {
            0
        };
        if nothing == 2 {
            return 0;
        }
        tokio::time::sleep(PAUSE).await;
    }
    kill_once(marker)
}

#[cfg(target_os = "linux")]
fn kill_once(marker: &str) -> usize {
    use rustix::process::{Pid, Signal, getpid, kill_process};

    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let wanted = format!("{JOB_ID_VARIABLE}={marker}");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let marked = pids
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != getpid() && carries(*pid, wanted.as_bytes()));
    let mut found = 0;
    for pid in marked {
        // Gone already is as good; what does not go is found again by the next look.
        let _gone = kill_process(pid, Signal::KILL);
        found += 1;
    }
    found
}

/// Other users' processes cannot be read, and are not ours; a zombie's environment is empty.
#[cfg(target_os = "linux")]
fn carries(pid: rustix::process::Pid, wanted: &[u8]) -> bool {
    let environment =
        std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == wanted)
}

/// Elsewhere the guard's process group is all there is.
#[cfg(not(target_os = "linux"))]
fn kill_once(_marker: &str) -> usize {
    0
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

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
}
