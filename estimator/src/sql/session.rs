//! One statement's session: two tables, the listed functions, its own memory and the counted store.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::cache::cache_manager::{CacheManagerConfig, FileMetadataCache};
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion::optimizer::eliminate_limit::EliminateLimit;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::push_down_limit::PushDownLimit;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as Parsed;
use futures::StreamExt;
use object_store::ObjectStore;
use url::Url;

use super::answer::Answer;
use super::lists::Simplify;
use super::measure;
use super::members::Members;
use super::narrow::Narrow;
use super::passed::{Memory, Passed};
use super::reads::{Pieces, Reads};
use super::table::{STORE, Table, View};
use super::totals::Totals;
use super::unique::Forgetful;
use super::unsaid::Unsaid;
use super::{ANSWER_BYTES_MAX, MEMORY_MAX, ROWS_MAX, Wanted, catalog, functions, wide, words};
use crate::error::Error;

/// Rows that move through a plan at once: enough that the work between batches does not show, few enough that what one
/// step holds beside the counted memory stays small.
const BATCH_ROWS: usize = 8_192;
/// The same where tables are joined: a join compares every row of one side with so many of the other before it can be
/// stopped, which are ten thousand million of ten million rows.
const BATCH_ROWS_JOINED: usize = 1_024;

/// What a statement may reach, before anything is known of it.
pub(super) struct Reach {
    pub(super) pieces: Arc<dyn Pieces>,
    /// Footers that are known from statements before.
    pub(super) footers: Arc<FileMetadataCache>,
    pub(super) views: Vec<View>,
}

/// Everything a statement can reach.
pub(super) struct Session {
    context: SessionContext,
    reads: Arc<Reads>,
    objects: usize,
}

impl Session {
    /// For one statement; a plain one reads one table and has no query within it.
    pub(super) fn new(reach: Reach, is_plain: bool) -> Result<Self, Error> {
        let views = reach.views;
        let reads = Reads::new(reach.pieces, &views);
        let caches = CacheManagerConfig::default().with_file_metadata_cache(Some(reach.footers));
        let environment = RuntimeEnvBuilder::new()
            .with_cache_manager(caches)
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(MEMORY_MAX)))
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            )
            .build_arc()
            .map_err(words::of)?;
        let address = Url::parse(STORE).map_err(|error| Error::Config(error.to_string()))?;
        environment.register_object_store(&address, Arc::clone(&reads) as Arc<dyn ObjectStore>);
        let mut config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(if is_plain {
                BATCH_ROWS
            } else {
                BATCH_ROWS_JOINED
            })
            .with_information_schema(false);
        // Rows that a WHERE leaves out are not even read from the file, column by column.
        let parquet = &mut config.options_mut().execution.parquet;
        parquet.pushdown_filters = true;
        parquet.reorder_filters = true;
        if is_plain {
            // Its rules have nothing to find in a second look.
            config.options_mut().optimizer.max_passes = 1;
        }
        // The defaults of the engine would bring table functions, file formats and factories of external tables.
        let mut builder = SessionStateBuilder::new();
        builder = match is_plain {
            true => builder
                .with_optimizer_rules(plain_rules())
                .with_physical_optimizer_rules(physical_rules()),
            false => builder
                .with_optimizer_rules(all_rules())
                .with_relation_planners(vec![Arc::new(Forgetful::default())])
                .with_physical_optimizer_rules(rules_without_pushdown()),
        };
        let state = builder
            .with_config(config)
            .with_runtime_env(environment)
            .with_expr_planners(wide::planners())
            .with_scalar_functions(functions::scalar().to_vec())
            .with_aggregate_functions(functions::aggregate().to_vec())
            .with_window_functions(functions::window().to_vec())
            .build();
        let context = SessionContext::new_with_state(state);
        let objects = views.iter().map(|view| view.files.len()).sum();
        for view in views {
            let kind = view.kind;
            let also = catalog::ALSO.into_iter();
            let also = also.filter(move |(_, of)| *of == kind);
            let names = also.map(|(name, _)| name).chain([kind.name()]);
            let table = Arc::new(Table {
                view,
                is_asked_by_the_engine: is_plain,
            });
            for name in names {
                let table = Arc::clone(&table) as Arc<dyn TableProvider>;
                context.register_table(name, table).map_err(words::of)?;
            }
        }
        Ok(Self {
            context,
            reads,
            objects,
        })
    }

    /// Plans a query and, where rows are wanted, runs it until it ends or its answer is large enough.
    pub(super) async fn query(&self, statement: Parsed, wanted: Wanted) -> Result<Answer, Error> {
        let answer = self.planned_and_run(statement, wanted).await;
        answer.map_err(|error| match error {
            // Whoever reads a file tells both in the same way.
            Error::Unreachable { source } if !self.reads.have_failed() => Error::Damaged { source },
            other => other,
        })
    }

    async fn planned_and_run(&self, statement: Parsed, wanted: Wanted) -> Result<Answer, Error> {
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
        if wanted == Wanted::Columns {
            let none = RecordBatch::new_empty(plain(&plan.schema()));
            return Ok(Answer::of(none));
        }
        let plan = bounded(plan).map_err(words::of)?;
        let mut stream = execute_stream(plan, self.context.task_ctx()).map_err(words::of)?;
        let schema = plain(&stream.schema());
        let (mut batches, mut rows, mut bytes, mut truncated) = (Vec::new(), 0, 0, false);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(words::of)?;
            if batch.num_rows() == 0 {
                continue;
            }
            let room = ANSWER_BYTES_MAX - bytes;
            let fitting = measure::fitting(&batch, ROWS_MAX - rows, room).map_err(words::of)?;
            if fitting.rows == 0 && rows == 0 {
                return Err(too_long());
            }
            truncated = fitting.rows < batch.num_rows();
            rows += fitting.rows;
            bytes += fitting.bytes;
            if fitting.rows > 0 {
                let fitting = batch.slice(0, fitting.rows);
                batches.push(in_schema(&fitting, &schema).map_err(words::of)?);
            }
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

fn too_long() -> Error {
    let mib = ANSWER_BYTES_MAX >> 20;
    Error::Query {
        message: format!("one row takes more than the {mib} MiB that an answer may have"),
        hint: Some("ask for fewer columns, or for shorter texts".into()),
    }
}

/// The plan, made to pause now and then where rows are put together, to hand on groups without what they are slices of, and
/// to count what windows hold: all rows of what they look at, which the engine does not count.
///
/// The engine lets go of its thread where it reads. A join makes rows from rows it has read already, billions of them
/// from a few, and what asks it for them takes them all in one turn: nothing would be left that notices that the time
/// is over.
fn bounded(plan: Arc<dyn ExecutionPlan>) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let passed = |rows, memory| Arc::new(Passed { rows, memory }) as Arc<dyn ExecutionPlan>;
    let paused = plan.transform_up(|node| {
        if node.children().len() > 1 {
            let paused = CooperativeExec::new(node);
            return Ok(Transformed::yes(Arc::new(paused) as Arc<dyn ExecutionPlan>));
        }
        if node.is::<AggregateExec>() {
            return Ok(Transformed::yes(passed(node, Memory::Compact)));
        }
        if node.is::<WindowAggExec>() {
            let rows = node.children().into_iter().cloned();
            let held = rows.map(|rows| passed(rows, Memory::Held)).collect();
            return Ok(Transformed::yes(replace_children_if_necessary(node, held)?));
        }
        Ok(Transformed::no(node))
    });
    Ok(paused?.data)
}

/// What can make a plan of one table better. The engine's other rules are about joins, unions and queries within queries;
/// looking for these takes most of the time of planning a lookup.
fn plain_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    vec![
        Arc::new(Narrow),
        Arc::new(Simplify::default()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(EliminateLimit::new()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(PushDownLimit::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(SingleDistinctToGroupBy::new()),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ]
}

/// The engine's rules, with ours where its own answer wrongly.
fn all_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let simplify: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(Simplify::default());
    let mut rules = Optimizer::new().rules;
    for rule in &mut rules {
        if rule.name() == simplify.name() {
            *rule = Arc::clone(&simplify);
        }
    }
    let moves_conditions = PushDownFilter::new();
    let moves_conditions = rules
        .iter()
        .position(|rule| rule.name() == moves_conditions.name());
    rules.insert(moves_conditions.unwrap_or_default(), Arc::new(Totals));
    rules.insert(0, Arc::new(Members));
    rules.insert(0, Arc::new(Narrow));
    rules
}

/// The engine's rules for plans of several tables or queries, but the one that moves conditions towards the files: DataFusion
/// 55.2 finds columns by their names there, and applies a condition behind a join to the wrong one of two tables that have the
/// same columns (apache/datafusion 25244, 25259). Conditions that are of one table come to it with its scan instead.
fn rules_without_pushdown() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let all = physical_rules().into_iter();
    all.filter(|rule| !rule.name().starts_with("FilterPushdown"))
        .collect()
}

/// The engine's rules for plans as they are run, with ours before them.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    rules.insert(0, Arc::new(Unsaid));
    rules
}

/// The schema with texts as every reader of Arrow knows them. The engine works with views of texts, which are quicker
/// to compare and copy, and which share buffers that are larger than the answer.
fn plain(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Utf8View => DataType::Utf8,
            other => other.clone(),
        };
        Field::new(field.name(), kind, field.is_nullable())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn in_schema(batch: &RecordBatch, schema: &SchemaRef) -> datafusion::error::Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options =
        datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}
