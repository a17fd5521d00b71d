//! What the load generator reads of the answers: the rest is skipped, so that it takes little from the servers beside it.

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
