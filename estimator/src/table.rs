//! The benchmark tables: two Delta tables under one prefix, whose columns are the policy's fields and nothing else.
//!
//! A commit takes the rows of some contributions and writes, in one log entry, one Parquet file and one
//! application transaction per contribution id. Either all of it is there or nothing is, and an id that is
//! there is skipped, so a contribution counts once however often it is sent.

mod broken;
mod cells;
mod clean;
mod columns;
mod commit;
mod compact;
mod damage;
mod entry;
mod follow;
mod ids;
mod log;
mod parquet;
mod schema;
mod start;
mod take_back;
#[cfg(test)]
mod tests;
mod thin;
mod unhinted;
mod versions;

pub use compact::Compacted;
pub(crate) use follow::News;
pub(crate) use log::{DataFile, Table};
pub use schema::Kind;
pub use take_back::{Span, TakenBack};
pub use versions::{How, Version};

/// The bytes of a file with the columns of a table and these rows, sorted by key.
pub(crate) fn plain_file(
    kind: Kind,
    mut rows: Vec<stepcast_records::Row>,
) -> Result<bytes::Bytes, datafusion::parquet::errors::ParquetError> {
    parquet::write(kind, &mut rows)
}
