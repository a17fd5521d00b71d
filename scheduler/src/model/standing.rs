//! Where a job stands beyond its state: what was decided about it, and what is promised to it.

use serde::{Deserialize, Serialize};
use stepcast_records::UsdMicros;

use crate::ids::{JobId, TeamId};

/// What is known of a job from format 3 on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The team that its team is a part of.
    pub parent: Option<TeamId>,
    /// When somebody approved what it costs, by stamp.
    pub approved_ms: Option<u64>,
    /// How often its GPUs were taken back for other jobs.
    pub preemptions: u8,
    /// The team's money that is set aside for its live attempt.
    pub reserved: UsdMicros,
    /// For which job its live attempt's GPUs are taken back. Itself: to go on where it fares better.
    pub yields_to: Option<JobId>,
    /// Whether nobody holds the credentials that it needs: it waits until they are given again. Written behind their names.
    #[serde(skip)]
    pub awaits_credentials: bool,
}
