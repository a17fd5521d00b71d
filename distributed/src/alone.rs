//! The same question to the engine of a server, in one process: what others must say, too.

use anyhow::Result;
use stepcast_estimator::sql::Answer;
use stepcast_estimator::{Estimator, PriceBook, StoreConfig};

/// Opens the tables as a server does and asks.
pub(crate) async fn ask(location: &str, statement: &str) -> Result<Answer> {
    let estimator = Estimator::open(StoreConfig::at(location), PriceBook::shipped()).await?;
    // Opening does not wait for large tables, nor for a store that is away.
    estimator.refresh().await?;
    Ok(estimator.sql(statement).await?)
}
