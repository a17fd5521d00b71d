//! What the load generator writes, and what it reads of the answers: files are not copied, and of answers the rest is
//! skipped, so that it takes little from the servers beside it.

use prost::bytes::Bytes;
use stepcast_proto::v1;

/// Of `SubmitJobRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Submit {
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) files: Vec<SubmittedFile>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) sample_counts: Vec<v1::SampleCount>,
}

/// `JobFile`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SubmittedFile {
    #[prost(enumeration = "v1::FileRole", tag = "1")]
    pub(crate) role: i32,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) content: Bytes,
}

/// Of `SubmitJobResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Submitted {
    #[prost(message, optional, tag = "1")]
    pub(crate) job: Option<Named>,
}

/// Of `Job`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Named {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// Of `AttachResponse`: at most one of these is there.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Told {
    #[prost(message, optional, tag = "1")]
    pub(crate) assign: Option<Assigned>,
    #[prost(message, optional, tag = "4")]
    pub(crate) acknowledged: Option<Acknowledged>,
    #[prost(int32, optional, tag = "6")]
    pub(crate) parting: Option<i32>,
}

/// Of `Assignment`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Assigned {
    #[prost(string, tag = "1")]
    pub(crate) job: String,
    #[prost(uint64, tag = "3")]
    pub(crate) epoch: u64,
}

/// Of `Acknowledged`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Acknowledged {
    #[prost(uint64, tag = "1")]
    pub(crate) epoch: u64,
}

/// Of an answer of which nothing is of use.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Written {}
