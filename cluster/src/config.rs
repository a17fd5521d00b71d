//! What an operator may choose about one node.

use std::path::PathBuf;
use std::time::Duration;

/// Places that are the same for every node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where the benchmark tables lie.
    pub store: String,
    /// Where submitted files lie.
    pub staging: String,
}

/// One node's settings. [`Config::new`] has defaults for everything but the directory.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory for the log, the snapshots and the node's identity; made if it is missing.
    pub data_dir: PathBuf,
    /// The node's id in its cluster, never 0. `None`: the one the directory holds, or 1 for a new directory.
    pub node_id: Option<u64>,
    /// Where the tables and the submitted files lie, if every node can reach both; only then can other nodes join.
    pub places: Option<Places>,
    /// How long a worker may run an attempt after its last renewal. Longer survives longer pauses, shorter notices a
    /// dead worker sooner.
    pub lease_term: Duration,
    /// How often the planner looks at the queue when nothing called it.
    pub plan_every: Duration,
    /// How often leases, limits on time and money, retention, and jobs of people who were removed are looked at.
    pub lease_check_every: Duration,
    /// How often the staging area is looked through.
    pub sweep_every: Duration,
    /// A file in the staging area that no job refers to is deleted after this long: a submission in progress is younger.
    pub staging_grace: Duration,
    /// Contributions are collected for this long before they are recorded together.
    pub record_every: Duration,
    /// With less free space than this on the data directory's disk, submissions are refused; ends still go through.
    pub disk_reserve_bytes: u64,
    /// A snapshot is taken after this many log entries.
    pub snapshot_entries: u64,
    /// A snapshot is taken after this many bytes of log entries.
    pub snapshot_bytes: u64,
    /// A snapshot is taken after this long even if little was written, so that what was deleted leaves the log as well.
    pub snapshot_every: Duration,
    /// Entries kept in the log behind a snapshot, so that a slow follower needs no snapshot.
    pub log_tail_entries: u64,
    /// The newest format of the log that this node goes along with: what it knows, or an older one, so that the program
    /// before this one can still take its place.
    pub log_format: u16,
}

impl Config {
    /// The defaults, in this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            node_id: None,
            places: None,
            lease_term: Duration::from_secs(30),
            plan_every: Duration::from_secs(5),
            lease_check_every: Duration::from_secs(1),
            sweep_every: Duration::from_secs(60),
            staging_grace: Duration::from_secs(3600),
            record_every: Duration::from_millis(150),
            disk_reserve_bytes: 64 << 20,
            snapshot_entries: 50_000,
            snapshot_bytes: 64 << 20,
            snapshot_every: Duration::from_secs(12 * 3600),
            log_tail_entries: 5_000,
            log_format: stepcast_scheduler::codec::VERSION,
        }
    }
}
