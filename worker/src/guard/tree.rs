//! All processes that a trainer started, wherever they hide: sent SIGTERM or SIGKILL together.

use rustix::process::{Pid, Signal};

/// The trainer's first process; its own process group has the same number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree(
    #[cfg_attr(
        target_os = "linux",
        expect(
            dead_code,
            reason = "Linux finds the tree by its parents, the others by the group's number"
        )
    )]
    Pid,
);

impl Tree {
    pub(super) fn of(first: Pid) -> Self {
        Self(first)
    }

    pub(super) fn terminate(self) {
        self.signal(Signal::TERM);
    }

    /// Kills what is there now and says how many processes that were.
    pub(super) fn kill(self) -> usize {
        self.signal(Signal::KILL)
    }

    /// How many processes there are now.
    #[cfg(target_os = "linux")]
    pub(super) fn count(self) -> usize {
        descendants(rustix::process::getpid().as_raw_nonzero().get()).len()
    }

    /// 1 while the group exists, else 0.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn count(self) -> usize {
        usize::from(rustix::process::test_kill_process_group(self.0).is_ok())
    }

    #[cfg(target_os = "linux")]
    fn signal(self, signal: Signal) -> usize {
        let pids = descendants(rustix::process::getpid().as_raw_nonzero().get());
        for &pid in &pids {
            if let Some(pid) = Pid::from_raw(pid) {
                // Gone already is as good.
                let _gone = rustix::process::kill_process(pid, signal);
            }
        }
        pids.len()
    }

    #[cfg(not(target_os = "linux"))]
    fn signal(self, signal: Signal) -> usize {
        usize::from(rustix::process::kill_process_group(self.0, signal).is_ok())
    }
}

/// Every living descendant of a process, nearest first, by the parent numbers under /proc.
///
/// Zombies are left out: they only wait to be reaped. One that has threads is none: only its first thread has ended.
#[cfg(target_os = "linux")]
fn descendants(root: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let processes: Vec<(i32, i32, bool)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (parent, zombie) = parent(&stat)?;
            Some((pid, parent, zombie))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            processes
                .iter()
                .filter(|process| process.1 == parent)
                .map(|process| process.0),
        );
        next += 1;
    }
    let zombies: Vec<i32> = processes
        .iter()
        .filter(|process| process.2)
        .map(|process| process.0)
        .collect();
    found
        .into_iter()
        .skip(1)
        .filter(|pid| !zombies.contains(pid))
        .collect()
}

/// Fields of /proc/PID/stat between the parent's number and how many threads there are.
#[cfg(target_os = "linux")]
const BEFORE_THREADS: usize = 15;

/// Parent and whether it is a zombie, from a line of /proc/PID/stat. The name in parentheses may hold anything.
#[cfg(target_os = "linux")]
fn parent(stat: &str) -> Option<(i32, bool)> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let threads: u32 = fields
        .nth(BEFORE_THREADS)
        .and_then(|count| count.parse().ok())
        .unwrap_or(1);
    Some((parent, state == "X" || state == "Z" && threads <= 1))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::parent;

    #[test]
    fn a_process_name_with_parentheses_and_spaces_is_no_trap() {
        assert_eq!(parent("42 (a) Z 1 (b)) S 7 42 42 0 -1"), Some((7, false)));
        assert_eq!(parent("42 (x) Z 7 42"), Some((7, true)));
        assert_eq!(parent("nonsense"), None);
    }

    #[test]
    fn who_has_threads_left_is_no_zombie() {
        let stat = |state, threads| {
            format!("42 (x) {state} 7 42 42 0 -1 4227084 1 1 0 0 2 0 2 0 20 0 {threads} 0 5325766")
        };
        assert_eq!(parent(&stat("Z", 2)), Some((7, false)));
        assert_eq!(parent(&stat("Z", 1)), Some((7, true)));
        assert_eq!(parent(&stat("X", 2)), Some((7, true)));
    }
}
