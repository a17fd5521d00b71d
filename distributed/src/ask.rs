//! Whoever asks: reads the logs of the tables once, has the workers do the work, and gathers the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use datafusion::error::Result as Planned;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    DistributedExec, DistributedExt, DistributedMetricsFormat, SessionStateBuilderExt,
    WorkerResolver, explain_analyze,
};
use stepcast_estimator::sql::Answer;
use url::Url;

use crate::store;
use crate::table::Snapshot;

/// The tables, and other names for them.
const TABLES: [(&str, &[&str]); 2] = [
    ("training_steps", &["training_steps"]),
    ("validation_prompts", &["validation_prompts", "validation"]),
];
/// What the last merge may hold in memory: it is a part of the answer for each group.
const MEMORY: usize = 1 << 30;

/// One look at the tables.
pub(crate) struct Asker {
    context: SessionContext,
    files: usize,
    versions: BTreeMap<&'static str, u64>,
}

/// The same workers for every question.
struct Fixed(Vec<Url>);

impl WorkerResolver for Fixed {
    fn get_urls(&self) -> Planned<Vec<Url>> {
        Ok(self.0.clone())
    }
}

impl Asker {
    /// The newest version of each table, on these workers.
    pub(crate) async fn new(location: &str, workers: Vec<Url>) -> Result<Self> {
        let mut config = SessionConfig::new();
        config.options_mut().execution.parquet.pushdown_filters = true;
        let tasks = workers.len();
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .with_runtime_env(store::environment(location, MEMORY)?)
            .with_distributed_worker_resolver(Fixed(workers))
            .with_distributed_planner()
            // Whoever starts workers wants them all to work, also on a table that one could read.
            .with_distributed_desired_task_count_handler(tasks)
            .build();
        let context = SessionContext::new_with_state(state);
        let (mut files, mut versions) = (0, BTreeMap::new());
        for (name, names) in TABLES {
            let Some(table) = Snapshot::read(location, name).await? else {
                continue;
            };
            files += table.files();
            versions.insert(name, table.version());
            let table = Arc::new(table);
            for name in names {
                context.register_table(*name, Arc::clone(&table) as _)?;
            }
        }
        ensure!(!versions.is_empty(), "there are no tables in {location}");
        Ok(Self {
            context,
            files,
            versions,
        })
    }

    /// The version of each table that is read.
    pub(crate) fn versions(&self) -> &BTreeMap<&'static str, u64> {
        &self.versions
    }

    /// The answer to one reading statement.
    pub(crate) async fn ask(&self, statement: &str) -> Result<Answer> {
        let began = Instant::now();
        let plan = self.plan(statement).await?;
        let schema = plan.schema();
        let batches = collect(plan, self.context.task_ctx()).await?;
        Ok(Answer {
            schema,
            batches,
            truncated: false,
            objects_read: 0,
            objects: self.files,
            bytes_read: 0,
            elapsed: began.elapsed(),
        })
    }

    /// Runs a statement and says how it was shared out, and what each part took on each worker.
    pub(crate) async fn explain(&self, statement: &str) -> Result<String> {
        let plan = self.plan(statement).await?;
        if plan.downcast_ref::<DistributedExec>().is_none() {
            return Ok(displayable(plan.as_ref()).indent(true).to_string());
        }
        collect(Arc::clone(&plan), self.context.task_ctx()).await?;
        let explained = explain_analyze(plan, DistributedMetricsFormat::PerTask).await;
        explained.context("what the workers took")
    }

    async fn plan(&self, statement: &str) -> Result<Arc<dyn ExecutionPlan>> {
        let reading = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        let frame = self.context.sql_with_options(statement, reading).await?;
        Ok(frame.create_physical_plan().await?)
    }
}
