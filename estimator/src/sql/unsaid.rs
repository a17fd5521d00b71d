//! Makes the engine forget which columns are the same in all rows, where it is wrong about that.
//!
//! A condition `column = value` makes the column constant in the rows that meet it, and what is constant need not be sorted by.
//! DataFusion 55.2 takes it for constant behind an outer join too, which fills it up with NULL, and in rows of several grouping
//! sets, most of which have NULL there: ORDER BY and PARTITION BY passed over it, so that LIMIT gave other rows and windows
//! other numbers.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};

/// The rule, which comes before all of the engine's.
#[derive(Debug)]
pub(super) struct Unsaid;

impl PhysicalOptimizerRule for Unsaid {
    fn name(&self) -> &str {
        "unsaid"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let forgotten = plan.transform_up(|node| {
            Ok(match is_told_wrongly(node.as_ref()) {
                true => Transformed::yes(Arc::new(Untold::over(node)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(node),
            })
        });
        Ok(forgotten?.data)
    }
}

/// Whether rows come out of it in which something may be NULL that goes in as a constant.
fn is_told_wrongly(node: &dyn ExecutionPlan) -> bool {
    if let Some(total) = node.downcast_ref::<AggregateExec>() {
        return total.group_expr().has_grouping_set();
    }
    let hash = node
        .downcast_ref()
        .map(|join: &HashJoinExec| join.join_type);
    let nested = node
        .downcast_ref()
        .map(|join: &NestedLoopJoinExec| *join.join_type());
    let merged = node
        .downcast_ref()
        .map(|join: &SortMergeJoinExec| join.join_type);
    let kind = hash.or(nested).or(merged);
    matches!(
        kind,
        Some(JoinType::Left | JoinType::Right | JoinType::Full)
    )
}

/// Passes rows on, and says nothing of them.
#[derive(Debug)]
struct Untold {
    rows: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Untold {
    fn over(rows: Arc<dyn ExecutionPlan>) -> Self {
        let of_rows = rows.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(rows.schema()),
            of_rows.partitioning.clone(),
            of_rows.emission_type,
            of_rows.boundedness,
        );
        Self {
            rows,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for Untold {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ExecutionPlan for Untold {
    fn name(&self) -> &'static str {
        "Untold"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.rows]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let first = children.into_iter().next();
        let rows = first.unwrap_or_else(|| Arc::clone(&self.rows));
        Ok(Arc::new(Self::over(rows)))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let anew = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, anew)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.rows.execute(partition, context)
    }
}
