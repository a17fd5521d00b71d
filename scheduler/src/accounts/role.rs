//! What somebody is, what can be done, and the one list of who may do what.

use serde::{Deserialize, Serialize};

/// What somebody is. Their order is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// May do everything in their organisation, and give it away.
    Owner,
    /// May do everything in their organisation but touch its owners.
    Admin,
    /// Submits jobs and ends their own.
    Member,
    /// Looks.
    Viewer,
    /// Runs the cluster for everybody, and belongs to no organisation.
    Operator,
}

/// One thing that can be done. Whether it is done to everybody's or to one's own organisation's things is not said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// See jobs, their history and their lines.
    ReadJobs,
    /// Put jobs into the queue.
    SubmitJobs,
    /// End or change one's own jobs.
    ChangeJobs,
    /// End or change the jobs of others.
    ChangeJobsOfOthers,
    /// Ask what a run would take.
    Estimate,
    /// Ask the benchmark tables.
    ReadRecords,
    /// Add measured figures to them, and take back what should not have come.
    ImportRecords,
    /// See workers and what they offer.
    ReadWorkers,
    /// Let workers in and out, drain and resume them.
    RunWorkers,
    /// See where the cluster stands.
    ReadCluster,
    /// Change the cluster: its nodes, its leader, its rules, its backups.
    RunCluster,
    /// See one's own account, and make and take back one's own tokens.
    ReadSelf,
    /// See who is in the organisation.
    ReadUsers,
    /// Let people in and out, and say what they are.
    ManageUsers,
    /// Make and remove organisations.
    ManageOrgs,
    /// See what was done by whom.
    ReadAudit,
}

impl Role {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Owner,
        Self::Admin,
        Self::Member,
        Self::Viewer,
        Self::Operator,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether it may do that: only what is listed here.
    #[must_use]
    pub const fn may(self, permission: Permission) -> bool {
        use Permission as P;
        let looks = matches!(
            permission,
            P::ReadJobs | P::Estimate | P::ReadRecords | P::ReadWorkers | P::ReadSelf
        );
        let works = looks || matches!(permission, P::SubmitJobs | P::ChangeJobs);
        let leads = works
            || matches!(
                permission,
                P::ChangeJobsOfOthers | P::ReadUsers | P::ManageUsers | P::ReadAudit
            );
        match self {
            Self::Viewer => looks,
            Self::Member => works,
            Self::Admin | Self::Owner => leads,
            Self::Operator => {
                leads
                    || matches!(
                        permission,
                        P::ImportRecords
                            | P::RunWorkers
                            | P::ReadCluster
                            | P::RunCluster
                            | P::ManageOrgs
                    )
            }
        }
    }

    /// Whether somebody of this role may make somebody of that role, or change or remove one.
    #[must_use]
    pub const fn rules_over(self, other: Self) -> bool {
        match self {
            Self::Operator => true,
            Self::Owner => !matches!(other, Self::Operator),
            Self::Admin => matches!(other, Self::Admin | Self::Member | Self::Viewer),
            Self::Member | Self::Viewer => false,
        }
    }
}

impl Permission {
    /// Each of them.
    pub const ALL: [Self; 16] = [
        Self::ReadJobs,
        Self::SubmitJobs,
        Self::ChangeJobs,
        Self::ChangeJobsOfOthers,
        Self::Estimate,
        Self::ReadRecords,
        Self::ImportRecords,
        Self::ReadWorkers,
        Self::RunWorkers,
        Self::ReadCluster,
        Self::RunCluster,
        Self::ReadSelf,
        Self::ReadUsers,
        Self::ManageUsers,
        Self::ManageOrgs,
        Self::ReadAudit,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadJobs => "READ_JOBS",
            Self::SubmitJobs => "SUBMIT_JOBS",
            Self::ChangeJobs => "CHANGE_JOBS",
            Self::ChangeJobsOfOthers => "CHANGE_JOBS_OF_OTHERS",
            Self::Estimate => "ESTIMATE",
            Self::ReadRecords => "READ_RECORDS",
            Self::ImportRecords => "IMPORT_RECORDS",
            Self::ReadWorkers => "READ_WORKERS",
            Self::RunWorkers => "RUN_WORKERS",
            Self::ReadCluster => "READ_CLUSTER",
            Self::RunCluster => "RUN_CLUSTER",
            Self::ReadSelf => "READ_SELF",
            Self::ReadUsers => "READ_USERS",
            Self::ManageUsers => "MANAGE_USERS",
            Self::ManageOrgs => "MANAGE_ORGS",
            Self::ReadAudit => "READ_AUDIT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who may do what, a row a permission, in the words of the test and not of the list above.
    #[test]
    fn the_matrix_is_what_it_is_meant_to_be() {
        let table = "
            READ_JOBS              owner admin member viewer operator
            SUBMIT_JOBS            owner admin member operator
            CHANGE_JOBS            owner admin member operator
            CHANGE_JOBS_OF_OTHERS  owner admin operator
            ESTIMATE               owner admin member viewer operator
            READ_RECORDS           owner admin member viewer operator
            IMPORT_RECORDS         operator
            READ_WORKERS           owner admin member viewer operator
            RUN_WORKERS            operator
            READ_CLUSTER           operator
            RUN_CLUSTER            operator
            READ_SELF              owner admin member viewer operator
            READ_USERS             owner admin operator
            MANAGE_USERS           owner admin operator
            MANAGE_ORGS            operator
            READ_AUDIT             owner admin operator";
        let rows = table.lines().map(str::split_whitespace).map(Vec::from_iter);
        let rows: Vec<Vec<&str>> = rows.filter(|row| !row.is_empty()).collect();
        assert_eq!(rows.len(), Permission::ALL.len());
        for (permission, row) in Permission::ALL.into_iter().zip(rows) {
            assert_eq!(permission.name(), row[0]);
            for role in Role::ALL {
                let meant = row[1..].contains(&role.name());
                assert_eq!(role.may(permission), meant, "{} {}", role.name(), row[0]);
            }
        }
    }

    #[test]
    fn nobody_makes_somebody_above_themselves() {
        for (role, others) in [
            (Role::Viewer, vec![]),
            (Role::Member, vec![]),
            (Role::Admin, vec![Role::Admin, Role::Member, Role::Viewer]),
            (
                Role::Owner,
                vec![Role::Owner, Role::Admin, Role::Member, Role::Viewer],
            ),
            (Role::Operator, Role::ALL.to_vec()),
        ] {
            for other in Role::ALL {
                assert_eq!(
                    role.rules_over(other),
                    others.contains(&other),
                    "{role:?} {other:?}"
                );
            }
        }
    }
}
