//! Whoever asks: reads the logs of the tables once, has the workers do the work, and gathers the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as Planned;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::logical_expr::LogicalPlan;
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
        ensure!(!joins(frame.logical_plan())?, JOINED);
        Ok(frame.create_physical_plan().await?)
    }
}

/// Why a statement is refused that needs a join. `stepcast sql` has a way around both faults, which the workers' plans do not
/// survive: it hands columns through a function that only its own process knows.
const JOINED: &str = "a statement of several tables, or with a query in a condition, is not asked here: DataFusion 55.2 answers \
     some of them wrongly (conditions behind a join, and groups of joined groups); ask `stepcast sql`, or another engine over \
     the same tables";

/// Whether anything in a plan is joined, now or by the optimizer, which makes joins of queries in conditions.
fn joins(plan: &LogicalPlan) -> Planned<bool> {
    plan.exists(|node| {
        let mut found = matches!(node, LogicalPlan::Join(_) | LogicalPlan::Subquery(_));
        node.apply_subqueries(|_| {
            found = true;
            Ok(TreeNodeRecursion::Stop)
        })?;
        Ok(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_needs_a_join_is_seen() {
        let context = SessionContext::new();
        let planned = async |statement: &str| {
            let frame = context.sql(statement).await.expect(statement);
            joins(frame.logical_plan()).expect(statement)
        };
        let one = "(VALUES (1, 2)) AS t(a, b)";
        for statement in [
            format!("SELECT a, sum(b) FROM {one} GROUP BY a HAVING sum(b) > 0"),
            format!("SELECT max(n) FROM (SELECT a, count(*) AS n FROM {one} GROUP BY a) AS u"),
            format!("SELECT a FROM {one} UNION SELECT b FROM {one}"),
        ] {
            assert!(!planned(&statement).await, "{statement}");
        }
        for statement in [
            format!("SELECT t.a FROM {one} JOIN (VALUES (1)) AS u(a) ON t.a = u.a"),
            format!("SELECT t.a FROM {one}, (VALUES (1)) AS u(c)"),
            format!("SELECT a FROM {one} WHERE a IN (SELECT c FROM (VALUES (1)) AS u(c))"),
            format!("SELECT a, (SELECT max(c) FROM (VALUES (1)) AS u(c)) FROM {one}"),
            format!("SELECT n FROM (SELECT count(*) AS n FROM {one}, (VALUES (1)) AS u(c)) AS v"),
        ] {
            assert!(planned(&statement).await, "{statement}");
        }
    }
}
