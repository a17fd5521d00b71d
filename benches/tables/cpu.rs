//! How much processor time this process has used, all of its threads together, also those that are over.

use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel counts in hundredths of a second, so measure many calls together.
const TICK: Duration = Duration::from_millis(10);

/// User and system time since the start.
pub(crate) fn used() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the program's name in brackets and may hold anything.
    let rest = stat.rsplit_once(") ").context("a stat line")?.1;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u32>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("times in a stat line")?;
    Ok(TICK * (user + system))
}
