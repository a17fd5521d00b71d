//! The process between a guard and a trainer of another account: it becomes that account for good and then the trainer.
//!
//! The guard stays the worker's own, so that it can end the trainer and its environment cannot be read by it. This process is
//! started by the guard with the end of a pipe as its stdin, into which it writes why the trainer cannot be started; where that
//! works the pipe closes without a word. It has one thread.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Ids;

/// Becomes `account` and then `command`; without one it only says whether it may enter these folders, and why not on stdout.
#[cfg(target_os = "linux")]
pub fn run(account: &Ids, enter: &[PathBuf], command: &[OsString]) -> ExitCode {
    linux::run(account, enter, command)
}

/// There is nothing that could start this.
#[cfg(not(target_os = "linux"))]
pub fn run(_account: &Ids, _enter: &[PathBuf], _command: &[OsString]) -> ExitCode {
    ExitCode::FAILURE
}

/// What [`kill`] waits for.
pub(crate) const KILL: u8 = b'k';

/// Waits until stdin says so, and kills whatever else runs as `account`, all in one moment. Why it cannot be done it says on
/// stdout.
#[cfg(target_os = "linux")]
pub fn kill(account: &Ids) -> ExitCode {
    linux::kill(account)
}

/// There is nothing that could start this.
#[cfg(not(target_os = "linux"))]
pub fn kill(_account: &Ids) -> ExitCode {
    ExitCode::FAILURE
}

/// What the guard starts for a trainer of this account: this program itself, in the place of the trainer's command.
pub(crate) fn command(account: &Ids) -> [OsString; 5] {
    // The guard's own file, also where another has taken its place since.
    let program = "/proc/self/exe".to_owned();
    let (option, account) = ("--account".to_owned(), account.to_string());
    [
        program,
        "step-down".to_owned(),
        option,
        account,
        "--".to_owned(),
    ]
    .map(OsString::from)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsString;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::process::{Command, ExitCode, Stdio};

    use nix::sys::signal::Signal;
    use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
    use rustix::fs::{FileType, Mode};

    use super::super::Ids;

    pub(super) fn run(account: &Ids, enter: &[PathBuf], command: &[OsString]) -> ExitCode {
        // Closed in whatever this becomes.
        let told = std::io::stdin().as_fd().try_clone_to_owned();
        let why = match (become_account(account), command.split_first()) {
            (Err(why), _) => why,
            (Ok(()), None) => match may_enter(enter) {
                Ok(()) => return ExitCode::SUCCESS,
                Err(why) => why,
            },
            (Ok(()), Some((program, arguments))) => {
                let mut trainer = Command::new(program);
                let error = trainer.args(arguments).stdin(Stdio::null()).exec();
                let (name, program) = (&account.name, program.to_string_lossy());
                format!("the account {name} cannot start {program}: {error}")
            }
        };
        match (command.is_empty(), told) {
            (false, Ok(told)) => tell(told, &why),
            _ => tell_stdout(&why),
        }
        ExitCode::FAILURE
    }

    fn tell(told: OwnedFd, why: &str) {
        let _gone = std::fs::File::from(told).write_all(why.as_bytes());
    }

    fn tell_stdout(why: &str) {
        let _gone = writeln!(std::io::stdout(), "{why}");
    }

    /// A number that nobody has, so that nothing of the account's may kill this process first.
    const NOBODY_S: u32 = 4_294_967_280;

    /// More than anything that the account may take for itself: however many of its processes are busy, this one has its turn.
    const MOST_URGENT: i32 = -20;

    pub(super) fn kill(account: &Ids) -> ExitCode {
        // Without it this takes longer at most.
        let _as_it_is = rustix::process::setpriority_process(None, MOST_URGENT);
        match asked().and_then(|()| kill_others(account)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                tell_stdout(&why);
                ExitCode::FAILURE
            }
        }
    }

    /// Waits for the word. Who was to say it may be gone.
    fn asked() -> Result<(), String> {
        let mut word = [0];
        let read = std::io::stdin().read_exact(&mut word);
        let is_asked = read.is_ok() && word == [super::KILL];
        is_asked
            .then_some(())
            .ok_or_else(|| "nobody has asked for it".to_owned())
    }

    fn kill_others(account: &Ids) -> Result<(), String> {
        let (uid, nobody_s) = (Uid::from_raw(account.uid), Uid::from_raw(NOBODY_S));
        let may_not = |error: nix::Error| format!("it may not act as {} ({error})", account.name);
        by_way_of_root().map_err(may_not)?;
        // Whoever sends a signal is known by the middle one; whoever gets one, by the others.
        setresuid(nobody_s, uid, nobody_s)
            .or_else(|_unknown_here| setresuid(uid, uid, uid))
            .map_err(may_not)?;
        // As anybody else this would be the end of the host.
        let is_account = nix::unistd::geteuid() == uid && !nix::unistd::getuid().is_root();
        if !is_account || !Status::read()?.has_no_capability() {
            return Err(LEFT.to_owned());
        }
        match nix::sys::signal::kill(Pid::from_raw(-1), Signal::SIGKILL) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(error) => Err(format!("they cannot be killed ({error})")),
        }
    }

    /// So that the kernel takes every capability away with the next step, also from a worker that is not root.
    fn by_way_of_root() -> nix::Result<()> {
        let root = Uid::from_raw(0);
        setresuid(root, root, root)
    }

    /// Everything that this process may is what the account may, from here on and for whatever it starts.
    fn become_account(account: &Ids) -> Result<(), String> {
        // No terminal of the worker's is left, into which another account could type.
        rustix::process::setsid().map_err(|error| format!("no session of its own: {error}"))?;
        own_output(account);
        let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
        let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
        let may_not = |what: &str| {
            let name = account.name.clone();
            let what = what.to_owned();
            move |error: nix::Error| format!("it may not take {what} of {name} ({error})")
        };
        setgroups(&groups).map_err(may_not("the groups"))?;
        setresgid(gid, gid, gid).map_err(may_not("the group"))?;
        by_way_of_root().map_err(may_not("the number"))?;
        setresuid(uid, uid, uid).map_err(may_not("the number"))?;
        nix::sys::prctl::set_no_new_privs().map_err(may_not("the rights"))?;
        rustix::process::umask(Mode::from_raw_mode(0o077));
        seen(account)
    }

    /// What is printed goes through a pipe, which only its owner may open by a name such as `/dev/stderr`.
    fn own_output(account: &Ids) {
        let owner = Some(rustix::process::Uid::from_raw(account.uid));
        for output in [std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
            let is_pipe = rustix::fs::fstat(output)
                .is_ok_and(|data| FileType::from_raw_mode(data.st_mode) == FileType::Fifo);
            if is_pipe {
                // Without it all is printed that is written to what is open already.
                let _as_it_is = rustix::fs::fchown(output, owner, None);
            }
        }
    }

    /// Nothing of what this process was may be left.
    fn seen(account: &Ids) -> Result<(), String> {
        let status = Status::read()?;
        let sorted = |mut groups: Vec<u32>| {
            groups.sort_unstable();
            groups.dedup();
            groups
        };
        let groups = status.values("Groups");
        let groups = groups.iter().filter_map(|group| group.parse().ok());
        let is_all = status.is_all("Uid", account.uid)
            && status.is_all("Gid", account.gid)
            && sorted(groups.collect()) == sorted(account.groups.clone())
            && status.values("NoNewPrivs") == ["1"]
            && status.has_no_capability();
        is_all.then_some(()).ok_or_else(|| LEFT.to_owned())
    }

    const LEFT: &str = "something of the worker's own rights would be left to it";

    /// What the kernel says that this process is.
    struct Status(String);

    impl Status {
        fn read() -> Result<Self, String> {
            let status = std::fs::read_to_string("/proc/self/status");
            let unknown =
                |error| format!("what is left of the worker's rights is not known: {error}");
            status.map(Self).map_err(unknown)
        }

        fn values(&self, name: &str) -> Vec<&str> {
            let mut lines = self.0.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map_or_else(Vec::new, |values| values.split_whitespace().collect())
        }

        /// Whether the four numbers of this name are this one.
        fn is_all(&self, name: &str, number: u32) -> bool {
            self.values(name) == [number.to_string().as_str(); 4]
        }

        fn has_no_capability(&self) -> bool {
            let is_nothing = |name: &str| {
                let sets = self.values(name);
                sets.len() == 1
                    && sets
                        .iter()
                        .all(|set| set.bytes().all(|digit| digit == b'0'))
            };
            ["CapPrm", "CapEff", "CapAmb"].into_iter().all(is_nothing)
        }
    }

    fn may_enter(folders: &[PathBuf]) -> Result<(), String> {
        for folder in folders {
            std::fs::metadata(folder.join("."))
                .map_err(|error| format!("it may not enter {}: {error}", folder.display()))?;
        }
        Ok(())
    }
}
