//! Keeps conditions above what makes a row of no rows: `count(*)` without GROUP BY, and the totals of ROLLUP and its like.
//!
//! DataFusion 55.2 moves a condition that names no column below every aggregate, as if it were one of the keys
//! (`PushDownFilter`). A condition of a query of its own names none, and one of a column that is nothing but a value no longer
//! does where the value stands in its place. What it leaves out below still makes a row, of nothing: of `SELECT 'steps' AS what,
//! count(*)` a condition `what = 'prompts'` kept a row with 0. No condition passes a LIMIT, so these aggregates stand below one
//! that leaves out nothing.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::logical_plan::Limit;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, lit};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// More rows than any statement has.
const ROWS: i64 = 1 << 60;

/// The rule, which comes before the engine's that moves conditions.
#[derive(Debug, Default)]
pub(super) struct Totals;

impl OptimizerRule for Totals {
    fn name(&self) -> &'static str {
        "totals"
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        kept(plan, Above::Nothing)
    }
}

/// What stands above a part of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Above {
    /// No condition.
    Nothing,
    /// Conditions.
    Conditions,
    /// Conditions, and right above it a limit.
    Limit,
}

/// The plan with a limit between conditions and each such aggregate.
fn kept(plan: LogicalPlan, above: Above) -> Result<Transformed<LogicalPlan>> {
    let below = match &plan {
        LogicalPlan::Filter(_) | LogicalPlan::Join(_) => Above::Conditions,
        LogicalPlan::Limit(_) if above != Above::Nothing => Above::Limit,
        _ if above == Above::Limit => Above::Conditions,
        _ => above,
    };
    let plan = plan
        .map_subqueries(|query| kept(query, Above::Nothing))?
        .transform_sibling(|plan| plan.map_children(|input| kept(input, below)))?;
    let is_total = match &plan.data {
        LogicalPlan::Aggregate(total) => above == Above::Conditions && makes_a_row_of_none(total),
        _ => false,
    };
    if !is_total {
        return Ok(plan);
    }
    Ok(Transformed::yes(LogicalPlan::Limit(Limit {
        skip: None,
        fetch: Some(Box::new(lit(ROWS))),
        input: Arc::new(plan.data),
    })))
}

/// Whether it does, and does not depend on the rows of a query round it, which the engine would not move it out of any more.
fn makes_a_row_of_none(total: &Aggregate) -> bool {
    let has_totals = match total.group_expr.as_slice() {
        [] => true,
        keys => keys.iter().any(|key| matches!(key, Expr::GroupingSet(_))),
    };
    has_totals && total.input.all_out_ref_exprs().is_empty()
}
