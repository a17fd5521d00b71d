//! One statement's session: two tables, the listed functions, its own memory and the counted store.

use std::sync::Arc;

use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionStateBuilder, SessionStateDefaults};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as Parsed;
use futures::StreamExt;
use object_store::ObjectStore;
use tokio::runtime::Handle;
use url::Url;

use super::answer::Answer;
use super::reads::Reads;
use super::table::{STORE, View};
use super::{ANSWER_BYTES_MAX, MEMORY_MAX, ROWS_MAX, functions, words};
use crate::error::Error;

/// Rows that move through a plan at once: few, so that what one step holds beside the counted memory stays small.
const BATCH_ROWS: usize = 2_048;

/// Everything a statement can reach.
pub(super) struct Session {
    context: SessionContext,
    reads: Arc<Reads>,
    objects: usize,
}

impl Session {
    pub(super) fn new(
        store: &Arc<dyn ObjectStore>,
        runtime: Handle,
        views: Vec<View>,
    ) -> Result<Self, Error> {
        let reads = Reads::new(store, runtime);
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(MEMORY_MAX)))
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            )
            .build_arc()
            .map_err(words::of)?;
        let address = Url::parse(STORE).map_err(|error| Error::Config(error.to_string()))?;
        environment.register_object_store(&address, Arc::clone(&reads) as Arc<dyn ObjectStore>);
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(BATCH_ROWS)
            .with_information_schema(false);
        // The defaults of the engine would bring table functions, file formats and factories of external tables.
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(environment)
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(functions::scalar())
            .with_aggregate_functions(functions::aggregate())
            .with_window_functions(functions::window())
            .build();
        let context = SessionContext::new_with_state(state);
        let objects = views.iter().map(|view| view.files.len()).sum();
        for view in views {
            context
                .register_table(view.kind.name(), Arc::new(view))
                .map_err(words::of)?;
        }
        Ok(Self {
            context,
            reads,
            objects,
        })
    }

    /// Plans and runs a query until it ends or its answer is large enough.
    pub(super) async fn query(&self, statement: Parsed) -> Result<Answer, Error> {
        let state = self.context.state();
        let plan = state
            .statement_to_plan(statement)
            .await
            .map_err(words::of)?;
        // The guard has refused these already; this is the engine's own lock on the same door.
        let reading = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        reading.verify_plan(&plan).map_err(words::of)?;
        let plan = state.create_physical_plan(&plan).await.map_err(words::of)?;
        let mut stream = execute_stream(plan, self.context.task_ctx()).map_err(words::of)?;
        let schema = stream.schema();
        let (mut batches, mut rows, mut bytes, mut truncated) = (Vec::new(), 0, 0, false);
        while let Some(batch) = stream.next().await {
            let mut batch = batch.map_err(words::of)?;
            if batch.num_rows() == 0 {
                continue;
            }
            if bytes > ANSWER_BYTES_MAX || rows == ROWS_MAX {
                truncated = true;
                break;
            }
            if rows + batch.num_rows() > ROWS_MAX {
                batch = batch.slice(0, ROWS_MAX - rows);
                truncated = true;
            }
            bytes += batch.get_array_memory_size();
            rows += batch.num_rows();
            batches.push(batch);
            if truncated {
                break;
            }
        }
        let (objects_read, bytes_read) = self.reads.counted();
        Ok(Answer {
            schema,
            batches,
            truncated,
            objects_read,
            objects: self.objects,
            bytes_read,
            elapsed: std::time::Duration::ZERO,
        })
    }
}
