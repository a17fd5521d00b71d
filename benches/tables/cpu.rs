//! How much processor time this program has used: all threads of this process, also those that are over, and the
//! processes of its statements.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel counts in hundredths of a second, so measure many calls together.
const TICK: Duration = Duration::from_millis(10);

/// User and system time since the start.
pub(crate) fn used() -> Result<Duration> {
    let own = Path::new("/proc/self");
    let program = own.join("exe").read_link()?;
    let mut used = of(own)?;
    for thread in own.join("task").read_dir()? {
        // A thread that is over since has no children.
        let children = std::fs::read_to_string(thread?.path().join("children"));
        for child in children.unwrap_or_default().split_whitespace() {
            let child = Path::new("/proc").join(child);
            // DuckDB is a child as well, and counts its own time.
            if child
                .join("exe")
                .read_link()
                .is_ok_and(|file| file == program)
            {
                used += of(&child)?;
            }
        }
    }
    Ok(used)
}

fn of(process: &Path) -> Result<Duration> {
    let stat = std::fs::read_to_string(process.join("stat"))?;
    // The second field is the program's name in brackets and may hold anything.
    let rest = stat.rsplit_once(") ").context("a stat line")?.1;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u32>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("times in a stat line")?;
    Ok(TICK * (user + system))
}
