//! What a run is made of; everything follows from these.

use crate::kernel::{Micros, SECOND};
use crate::mutant::Mutant;

/// Nodes that may join in one run.
const JOINING: u64 = 4;

/// One run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Every chance in it follows from this.
    pub seed: u64,
    /// A deliberate bug.
    pub mutant: Option<Mutant>,
    /// Whether to keep the trace as text.
    pub traced: bool,
    /// Control-plane nodes.
    pub(crate) nodes: u64,
    /// Whether the cluster grows and shrinks.
    pub(crate) changes: bool,
    /// GPU hosts.
    pub(crate) workers: u64,
    /// People who submit.
    pub(crate) submitters: u64,
    /// Jobs each of them submits.
    pub(crate) jobs_each: u64,
    /// How long things go wrong.
    pub(crate) troubled: Micros,
}

impl Options {
    /// The run of a seed: its size follows from the seed too.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let nodes = match seed % 8 {
            0 => 1,
            1 | 2 => 5,
            _ => 3,
        };
        Self {
            seed,
            mutant: None,
            traced: false,
            nodes,
            changes: seed % 4 == 3 || seed.is_multiple_of(16),
            workers: 2 + seed % 3,
            submitters: 2,
            jobs_each: 6,
            troubled: 60 * SECOND,
        }
    }

    /// The greatest id that a node may come to have: callers go round so many.
    pub(crate) const fn most_nodes(&self) -> u64 {
        if self.changes {
            self.nodes + JOINING
        } else {
            self.nodes
        }
    }
}
