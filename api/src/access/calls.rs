//! What each gRPC call needs. A call that is not listed here is nobody's.

use super::Permission;

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needed {
    /// Nothing: it is how one becomes somebody.
    Nothing,
    /// Nothing either: the call looks itself at what is shown, and counts it.
    Itself,
    /// A permission.
    This(Permission),
}

/// The permission that the call at this path needs, such as `/stepcast.v1.JobsService/GetJob`.
pub(crate) fn of_call(path: &str) -> Option<Needed> {
    use Permission::{
        ChangeJobs, Estimate, ImportRecords, ManageOrgs, ManageUsers, ReadAudit, ReadCluster,
        ReadJobs, ReadRecords, ReadSelf, ReadUsers, ReadWorkers, RunCluster, RunWorkers,
        SubmitJobs,
    };
    // How one becomes the first operator: whoever shows what the server has printed.
    if path == "/stepcast.v1.AccountsService/ClaimOperator" {
        return Some(Needed::Nothing);
    }
    if let Some(call) = path.strip_prefix("/arrow.flight.protocol.FlightService/") {
        return of_flight(call);
    }
    Some(Needed::This(match path.strip_prefix("/stepcast.v1.")? {
        "JobsService/SubmitJob" | "JobsService/SubmitArray" => SubmitJobs,
        "JobsService/GetJob"
        | "JobsService/ListJobs"
        | "JobsService/ExplainJob"
        | "JobsService/WhatIf"
        | "JobsService/WatchJob"
        | "JobsService/GetJobLogs"
        | "SchedulingService/ListTeams" => ReadJobs,
        "JobsService/CancelJob"
        | "JobsService/CancelArray"
        | "JobsService/UpdateJob"
        | "JobsService/GiveCredentials" => ChangeJobs,
        "EstimatesService/EstimateJob" | "EstimatesService/ListPrices" => Estimate,
        "RecordsService/RunQuery" | "RecordsService/ListTables" | "RecordsService/ListSources" => {
            ReadRecords
        }
        "RecordsService/GetRecordsStatus" => ReadRecords,
        "RecordsService/ImportRecords"
        | "RecordsService/ListVersions"
        | "RecordsService/TakeBackRows" => ImportRecords,
        "WorkersService/ListWorkers" => ReadWorkers,
        "WorkersService/CreateWorkerToken"
        | "WorkersService/RevokeWorkerToken"
        | "WorkersService/ListWorkerTokens"
        | "WorkersService/DrainWorker"
        | "WorkersService/ResumeWorker" => RunWorkers,
        "ClusterService/GetClusterStatus" | "SchedulingService/GetPolicy" => ReadCluster,
        "JobsService/ApproveJob"
        | "EstimatesService/ImportPrices"
        | "SchedulingService/SetTeam"
        | "SchedulingService/RemoveTeam"
        | "SchedulingService/SetTeamMembers"
        | "SchedulingService/SetPolicy"
        | "ClusterService/CreateJoinToken"
        | "ClusterService/RemoveNode"
        | "ClusterService/RotateSecret"
        | "ClusterService/TransferLeadership"
        | "ClusterService/Backup" => RunCluster,
        "AccountsService/CreateOrg" | "AccountsService/ListOrgs" | "AccountsService/DeleteOrg" => {
            ManageOrgs
        }
        "AccountsService/CreateUser"
        | "AccountsService/SetUserRole"
        | "AccountsService/DeleteUser" => ManageUsers,
        "AccountsService/ListUsers" => ReadUsers,
        "AccountsService/CreateToken"
        | "AccountsService/ListTokens"
        | "AccountsService/RevokeToken" => ReadSelf,
        "AccountsService/ListAuditEntries" => ReadAudit,
        _ => return None,
    }))
}

/// What the calls of Arrow Flight need. Nothing is put, so the calls for that are nobody's.
fn of_flight(call: &str) -> Option<Needed> {
    match call {
        // What is shown is a name and a password.
        "Handshake" => Some(Needed::Itself),
        "GetFlightInfo" | "DoGet" | "DoAction" | "ListActions" => {
            Some(Needed::This(Permission::ReadRecords))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorSet;
    use stepcast_proto::FILE_DESCRIPTOR_SET;
    use tonic::codegen::http;

    use super::*;

    /// Every call of every service that is in the descriptors, so that a new one cannot be forgotten.
    #[test]
    fn every_call_of_people_needs_a_permission() {
        let set = <FileDescriptorSet as prost::Message>::decode(FILE_DESCRIPTOR_SET);
        let set = set.expect("the descriptors can be read");
        let mut seen = 0;
        for file in set
            .file
            .iter()
            .filter(|file| file.package() == "stepcast.v1")
        {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/stepcast.v1.{}/{}", service.name(), method.name());
                    assert!(path.parse::<http::Uri>().is_ok());
                    // Workers show a secret of their own.
                    let of_workers = service.name() == "AgentService";
                    assert_eq!(of_call(&path).is_none(), of_workers, "{path}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 20, "only {seen} calls were found");
    }

    #[test]
    fn flight_reads_and_puts_nothing() {
        let of = |call: &str| of_call(&format!("/arrow.flight.protocol.FlightService/{call}"));
        for call in ["GetFlightInfo", "DoGet", "DoAction"] {
            assert_eq!(of(call), Some(Needed::This(Permission::ReadRecords)));
        }
        for call in [
            "DoPut",
            "DoExchange",
            "PollFlightInfo",
            "ListFlights",
            "GetSchema",
        ] {
            assert_eq!(of(call), None);
        }
    }
}
