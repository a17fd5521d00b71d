//! History and estimates: the benchmark tables in object storage, what a run will take, and SQL over what is known.
//!
//! Nothing here knows a user, an organisation, a job, an attempt or a worker. Rows come in under random
//! contribution ids, and only the fields of the privacy policy are stored.
#![warn(missing_docs)]

mod contribution;
mod error;
pub mod estimate;
mod estimator;
pub mod import;
mod index;
mod price;
mod separated;
pub mod sql;
mod store;
mod table;
#[cfg(test)]
mod testing;

pub use contribution::{Committed, Contribution, Recorded};
pub use datafusion::arrow;
pub use error::Error;
pub use estimate::{Ask, Evidence, Offer};
pub use estimator::{
    CONTRIBUTIONS_MAX, Estimator, PricesImported, Stats, TableStats, VERSIONS_MAX, Work,
};
pub use import::{Imported, Mapping, PriceFile, Refusal, Source};
pub use index::{Index, Shelf};
pub use price::{Day, Price, PriceBook};
pub use store::{Requests, S3Options, StoreConfig};
pub use table::{Compacted, How, Kind, Span, TakenBack, Version};
