//! The wire: messages and services generated from `proto/stepcast/v1`, and their descriptors for reflection.
//!
//! Only the edges (`api`, `worker`, `cli`) use these types; everything behind them has types of its own. Beside them is
//! what the ports of servers and workers have in common: the certificate that they show.

pub mod certificate;
mod hidden;

/// Package `stepcast.v1`.
pub mod v1 {
    #![expect(
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    tonic::include_proto!("stepcast.v1");
}

/// Package `stepcast.raft.v1`: what the nodes of a cluster say to each other.
pub mod raft {
    /// The only version there is.
    pub mod v1 {
        #![expect(
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            reason = "generated code"
        )]
        tonic::include_proto!("stepcast.raft.v1");
    }
}

/// All files of `stepcast.v1` as a serialised `google.protobuf.FileDescriptorSet`, for the reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
