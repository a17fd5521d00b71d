//! What a measurement takes of the processors: the server that leads, the other servers, and this program, which calls.
//!
//! On a machine whose processors are shared with others this says more than a rate does: it hardly changes with what else
//! runs, and as many processors as there are, divided by all of it, is the rate that cannot be surpassed.

use std::time::Duration;

use anyhow::Context;

/// The unit in which Linux tells a process's times, the same on every machine.
const TICK: Duration = Duration::from_millis(10);

/// Processes at the beginning of a measurement.
pub(crate) struct Meter {
    servers: Vec<(u32, Duration)>,
    callers: Duration,
    writes: u64,
}

/// What a number of writes took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    writes: u64,
    leader: Duration,
    others: Duration,
    callers: Duration,
}

impl Meter {
    /// Begins with these servers' processes, which may be none, after so many writes.
    pub(crate) fn begin(servers: &[u32], writes: u64) -> anyhow::Result<Self> {
        let servers = servers.iter().map(|pid| Ok((*pid, taken(*pid)?)));
        Ok(Self {
            servers: servers.collect::<anyhow::Result<_>>()?,
            callers: taken(std::process::id())?,
            writes,
        })
    }

    /// What was spent since, when there have been so many writes, by a cluster that this server led.
    pub(crate) fn end(&self, leader: usize, writes: u64) -> anyhow::Result<Spent> {
        let mut spent = Spent {
            writes: writes - self.writes,
            callers: taken(std::process::id())? - self.callers,
            ..Spent::default()
        };
        for (number, (pid, before)) in self.servers.iter().enumerate() {
            let took = taken(*pid)? - *before;
            if number == leader {
                spent.leader += took;
            } else {
                spent.others += took;
            }
        }
        Ok(spent)
    }
}

impl Spent {
    /// Microseconds of a processor for each write, by everybody together.
    pub(crate) fn us(&self) -> f64 {
        self.each(self.leader + self.others + self.callers)
    }

    /// The same, and by whom.
    pub(crate) fn words(&self) -> String {
        format!(
            "{:.0} µs ({:.0} leader, {:.0} others, {:.0} callers)",
            self.us(),
            self.each(self.leader),
            self.each(self.others),
            self.each(self.callers)
        )
    }

    fn each(&self, took: Duration) -> f64 {
        took.as_secs_f64() * 1e6 / self.writes as f64
    }
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.leader += other.leader;
        self.others += other.others;
        self.callers += other.callers;
    }
}

/// The time that a process has had of the processors, in its own code and in the kernel's.
fn taken(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    // The second field is the program's name, which may hold anything; what follows its last bracket is numbers.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(str::parse::<u32>).sum::<Result<u32, _>>();
    Ok(TICK * ticks.with_context(|| format!("{path} is not understood"))?)
}
