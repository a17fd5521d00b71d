//! The services of a server, each by the way that the client has to it.

use stepcast_proto::v1::accounts_service_client::AccountsServiceClient;
use stepcast_proto::v1::cluster_service_client::ClusterServiceClient;
use stepcast_proto::v1::estimates_service_client::EstimatesServiceClient;
use stepcast_proto::v1::jobs_service_client::JobsServiceClient;
use stepcast_proto::v1::records_service_client::RecordsServiceClient;
use stepcast_proto::v1::scheduling_service_client::SchedulingServiceClient;
use stepcast_proto::v1::workers_service_client::WorkersServiceClient;

use super::{ANSWER_BYTES_MAX, Client, Wire};

impl Client {
    /// Jobs.
    pub(crate) fn jobs(&self) -> JobsServiceClient<Wire> {
        JobsServiceClient::new(self.wire()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Teams and policies.
    pub(crate) fn scheduling(&self) -> SchedulingServiceClient<Wire> {
        SchedulingServiceClient::new(self.wire())
    }

    /// Estimates.
    pub(crate) fn estimates(&self) -> EstimatesServiceClient<Wire> {
        EstimatesServiceClient::new(self.wire()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Workers.
    pub(crate) fn workers(&self) -> WorkersServiceClient<Wire> {
        WorkersServiceClient::new(self.wire()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Organisations, people and tokens.
    pub(crate) fn accounts(&self) -> AccountsServiceClient<Wire> {
        AccountsServiceClient::new(self.wire()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Records.
    pub(crate) fn records(&self) -> RecordsServiceClient<Wire> {
        RecordsServiceClient::new(self.wire()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> ClusterServiceClient<Wire> {
        ClusterServiceClient::new(self.wire())
    }
}
