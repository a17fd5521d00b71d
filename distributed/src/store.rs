//! The store of the tables, as both sides see it: rooted at the prefix of the tables, and nothing else within reach.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use object_store::prefix::PrefixStore;
use stepcast_estimator::StoreConfig;
use url::Url;

/// The address that plans name. What it stands for is each process's own affair: a folder may be mounted elsewhere on
/// another host.
const ADDRESS: &str = "stepcast://records/";

/// The address of that store in plans.
pub(crate) fn address() -> Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse(ADDRESS).context("the address of the store")
}

/// What plans run in: so much memory, that store, and no file of this host.
pub(crate) fn environment(location: &str, memory: usize) -> Result<Arc<RuntimeEnv>> {
    let environment = RuntimeEnvBuilder::new()
        .with_memory_limit(memory, 1.0)
        .build_arc()?;
    let files = Url::parse("file:///")?;
    environment
        .deregister_object_store(&files)
        .map_err(|error| anyhow!("the files of this host stay within reach: {error}"))?;
    let (store, prefix) = StoreConfig::at(location).object_store()?;
    let store = Arc::new(PrefixStore::new(store, prefix));
    environment.register_object_store(&Url::parse(ADDRESS)?, store);
    Ok(environment)
}
