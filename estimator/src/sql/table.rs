//! A table as the engine reads it: the Parquet objects of one version, and no other object.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ToDFSchema;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetFileReaderFactory,
};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;

use crate::table::{DataFile, Kind};

/// The address under which the engine finds the store. It is an address of nothing else.
pub(super) const STORE: &str = "stepcast://history/";

/// One table at one version.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) kind: Kind,
    /// Paths are under the table's folder.
    pub(crate) files: Vec<DataFile>,
}

impl View {
    /// Where its objects lie in the store, and how large they are.
    pub(super) fn objects(&self) -> impl Iterator<Item = (Path, u64)> {
        let files = self.files.iter();
        files.map(|file| (self.place(file), file.bytes))
    }

    fn place(&self, file: &DataFile) -> Path {
        Path::from(format!("{}/{}", self.kind.name(), file.path))
    }
}

/// A table as one statement asks it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) view: View,
    /// Whether the engine moves conditions into the scan by itself, as it does for a plain statement. Otherwise the scan takes
    /// them from the plan, and the engine looks again at the rows that are left.
    pub(super) is_asked_by_the_engine: bool,
}

#[async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        let schema = self.view.kind.arrow_schema();
        let fields = schema.fields().iter().map(|field| {
            // Texts as views of the file's dictionary, which nothing copies.
            let kind = match field.data_type() {
                DataType::Utf8 => DataType::Utf8View,
                other => other.clone(),
            };
            Field::new(field.name(), kind, field.is_nullable())
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // Whoever moves them into the scan, the engine keeps those that the scan does not answer.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        if self.view.files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(schema.project(columns)?),
                None => schema,
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let address = ObjectStoreUrl::parse(STORE)?;
        let environment = session.runtime_env();
        let footers = environment.cache_manager.get_file_metadata_cache();
        let reads = environment.object_store(&address)?;
        let readers = WithIndex(CachedParquetFileReaderFactory::new(reads, footers));
        let known = schema.as_ref().clone().to_dfschema()?;
        let mut source =
            ParquetSource::new(schema).with_parquet_file_reader_factory(Arc::new(readers));
        let own = filters.iter().filter(|_| !self.is_asked_by_the_engine);
        if let Some(condition) = conjunction(own.cloned()) {
            let condition = session.create_physical_expr(condition, &known)?;
            source = source.with_predicate(condition).with_pushdown_filters(true);
        }
        let files = self.view.files.iter();
        let files =
            files.map(|file| PartitionedFile::new(self.view.place(file).to_string(), file.bytes));
        let scan = FileScanConfigBuilder::new(address, Arc::new(source))
            .with_file_group(FileGroup::new(files.collect()))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit.filter(|_| filters.is_empty()))
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}

/// Readers whose footers come with the index of pages, so that it is kept with them. Without this the engine keeps footers
/// alone, and reads the index of every object for every statement that has a WHERE.
#[derive(Debug)]
struct WithIndex(CachedParquetFileReaderFactory);

impl ParquetFileReaderFactory for WithIndex {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let reader = self
            .0
            .create_reader(partition, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Indexed(reader)))
    }
}

struct Indexed(Box<dyn AsyncFileReader + Send>);

impl AsyncFileReader for Indexed {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.0.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.0.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let options = options.cloned().unwrap_or_default();
        let options = options.with_page_index_policy(PageIndexPolicy::Optional);
        Box::pin(async move {
            // A footer that says that it is longer than its file makes the reader of parquet 59.3 panic.
            let read = AssertUnwindSafe(self.0.get_metadata(Some(&options)));
            read.catch_unwind().await.unwrap_or_else(|_| {
                let why = "the footer cannot be read";
                Err(ParquetError::General(why.to_owned()))
            })
        })
    }
}
