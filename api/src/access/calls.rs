//! What each gRPC call needs. A call that is not listed here is nobody's.

use super::Permission;

/// The permission that the call at this path needs, such as `/stepcast.v1.JobsService/GetJob`.
pub(crate) fn of_call(path: &str) -> Option<Permission> {
    use Permission::{
        CancelJobs, Estimate, ImportRecords, ReadCluster, ReadJobs, ReadRecords, ReadWorkers,
        RunCluster, RunWorkers, SubmitJobs,
    };
    Some(match path.strip_prefix("/stepcast.v1.")? {
        "JobsService/SubmitJob" | "JobsService/SubmitArray" | "JobsService/UpdateJob" => SubmitJobs,
        "JobsService/GetJob"
        | "JobsService/ListJobs"
        | "JobsService/ExplainJob"
        | "JobsService/WatchJob"
        | "JobsService/GetJobLogs" => ReadJobs,
        "JobsService/CancelJob" | "JobsService/CancelArray" => CancelJobs,
        "EstimatesService/EstimateJob" => Estimate,
        "RecordsService/RunQuery" | "RecordsService/ListTables" | "RecordsService/ListSources" => {
            ReadRecords
        }
        "RecordsService/ImportRecords" => ImportRecords,
        "WorkersService/ListWorkers" => ReadWorkers,
        "WorkersService/CreateWorkerToken"
        | "WorkersService/RevokeWorkerToken"
        | "WorkersService/ListWorkerTokens"
        | "WorkersService/DrainWorker"
        | "WorkersService/ResumeWorker" => RunWorkers,
        "ClusterService/GetClusterStatus"
        | "SchedulingService/ListTeams"
        | "SchedulingService/GetPolicy" => ReadCluster,
        "JobsService/ApproveJob"
        | "SchedulingService/SetTeam"
        | "SchedulingService/RemoveTeam"
        | "SchedulingService/SetPolicy"
        | "ClusterService/CreateJoinToken"
        | "ClusterService/RemoveNode"
        | "ClusterService/TransferLeadership"
        | "ClusterService/Backup" => RunCluster,
        _ => return None,
    })
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
}
