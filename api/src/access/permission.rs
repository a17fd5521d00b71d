//! What can be done, and which role may do it.

/// What somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Runs the cluster.
    Operator,
}

/// One thing that can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Permission {
    /// See jobs, their history and their lines.
    ReadJobs,
    /// Put jobs into the queue.
    SubmitJobs,
    /// End jobs.
    CancelJobs,
    /// Ask what a run would take.
    Estimate,
    /// Ask the benchmark tables.
    ReadRecords,
    /// Add measured figures to them.
    ImportRecords,
    /// See workers.
    ReadWorkers,
    /// Let workers in and out, drain and resume them.
    RunWorkers,
    /// See where the cluster stands.
    ReadCluster,
    /// Change the cluster: its nodes, its leader, its backups.
    RunCluster,
    /// See one's own account.
    ReadSelf,
}

impl Permission {
    /// Its stable name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ReadJobs => "READ_JOBS",
            Self::SubmitJobs => "SUBMIT_JOBS",
            Self::CancelJobs => "CANCEL_JOBS",
            Self::Estimate => "ESTIMATE",
            Self::ReadRecords => "READ_RECORDS",
            Self::ImportRecords => "IMPORT_RECORDS",
            Self::ReadWorkers => "READ_WORKERS",
            Self::RunWorkers => "RUN_WORKERS",
            Self::ReadCluster => "READ_CLUSTER",
            Self::RunCluster => "RUN_CLUSTER",
            Self::ReadSelf => "READ_SELF",
        }
    }
}

impl Role {
    /// Its stable name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
        }
    }

    /// Whether it may do that: only what is listed here.
    pub(crate) const fn may(self, permission: Permission) -> bool {
        use Permission::{
            CancelJobs, Estimate, ImportRecords, ReadCluster, ReadJobs, ReadRecords, ReadSelf,
            ReadWorkers, RunCluster, RunWorkers, SubmitJobs,
        };
        match self {
            Self::Operator => matches!(
                permission,
                ReadJobs
                    | SubmitJobs
                    | CancelJobs
                    | Estimate
                    | ReadRecords
                    | ImportRecords
                    | ReadWorkers
                    | RunWorkers
                    | ReadCluster
                    | RunCluster
                    | ReadSelf
            ),
        }
    }
}
