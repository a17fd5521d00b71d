//! The benchmark tables: two Delta tables under one prefix, whose columns are the policy's fields and nothing else.
//!
//! A commit takes the rows of some contributions and writes, in one log entry, one Parquet file and one
//! application transaction per contribution id. Either all of it is there or nothing is, and an id that is
//! there is skipped, so a contribution counts once however often it is sent.

mod columns;
mod commit;
mod compact;
mod follow;
mod ids;
mod log;
mod parquet;
mod schema;
#[cfg(test)]
mod tests;

pub use compact::Compacted;
pub(crate) use follow::News;
pub(crate) use log::{DataFile, Table};
pub use schema::Kind;

/// The bytes of a file of rows, for tests of what reads such files.
#[cfg(test)]
pub(crate) fn data_file(kind: Kind, mut rows: Vec<stepcast_records::Row>) -> bytes::Bytes {
    parquet::write(kind, &mut rows).expect("file")
}
