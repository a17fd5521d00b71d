//! A table at one version: the Parquet objects that its Delta log names, and no other object.

use std::sync::Arc;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result as Planned};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use deltalake::DeltaTable;
use deltalake::logstore::{StorageConfig, default_logstore};
use object_store::prefix::PrefixStore;
use stepcast_estimator::StoreConfig;
use url::Url;

use crate::store;

/// The protocol of the tables: newer ones may mean something else by the same files, such as rows that are deleted.
const READER_VERSION: i32 = 1;

/// One table at one version.
#[derive(Debug)]
pub(crate) struct Snapshot {
    schema: SchemaRef,
    version: u64,
    /// Places under the tables' prefix, and sizes.
    files: Vec<(String, u64)>,
}

impl Snapshot {
    /// Reads the log of a table as it is now; `None` where there is no such table.
    pub(crate) async fn read(location: &str, name: &str) -> Result<Option<Self>> {
        let (store, prefix) = StoreConfig::at(location).object_store()?;
        // The log's reader looks at the kind of an address: what a folder lists has no order.
        let address = if location.contains("://") {
            location
        } else {
            "file:///"
        };
        let mut address = Url::parse(address)?;
        address.set_path(&format!("/{prefix}/{name}/"));
        let prefixed = PrefixStore::new(Arc::clone(&store), prefix.join(name));
        let log = default_logstore(
            Arc::new(prefixed),
            store,
            &address,
            &StorageConfig::default(),
        );
        let mut table = DeltaTable::new(log);
        if !table.verify_deltatable_existence().await? {
            return Ok(None);
        }
        table.load().await?;
        let snapshot = table.snapshot()?;
        let reader = snapshot.protocol().min_reader_version();
        ensure!(
            reader <= READER_VERSION,
            "{name} needs a reader of version {reader}, and this is one of version {READER_VERSION}"
        );
        let log = snapshot.log_data();
        let files = log.iter().map(|file| {
            let size = u64::try_from(file.size()).unwrap_or(0);
            (format!("{name}/{}", file.object_store_path()), size)
        });
        Ok(Some(Self {
            files: files.collect(),
            version: snapshot.version(),
            schema: viewed(&snapshot.snapshot().arrow_schema()),
        }))
    }

    /// The version that was read.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// How many objects there are.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }
}

/// Texts as views of what was read, which nothing copies.
fn viewed(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Utf8 => DataType::Utf8View,
            other => other.clone(),
        };
        Field::new(field.name(), kind, field.is_nullable())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

#[async_trait]
impl TableProvider for Snapshot {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Planned<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Planned<Arc<dyn ExecutionPlan>> {
        if self.files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let address = store::address().map_err(|error| DataFusionError::External(error.into()))?;
        let source = Arc::new(ParquetSource::new(self.schema()));
        let files = self.files.iter();
        let files = files.map(|(path, size)| PartitionedFile::new(path.clone(), *size));
        let shares =
            FileGroup::new(files.collect()).split_files(session.config().target_partitions());
        let scan = FileScanConfigBuilder::new(address, source)
            .with_file_groups(shares)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit.filter(|_| filters.is_empty()))
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}
