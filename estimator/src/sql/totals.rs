//! Keeps conditions above what makes a row of no rows: `count(*)` without GROUP BY, and the totals of ROLLUP and its like.
//!
//! DataFusion 55.2 moves a condition that names no column below every aggregate, as if it were one of the keys
//! (`PushDownFilter`). Where the condition has a query of its own it is such a one until it is run, and what it leaves out there
//! still makes a row, of nothing: `HAVING (SELECT count(*) FROM validation) > 1000` kept a row that it does not allow. No
//! condition passes a LIMIT, so these aggregates stand below one that leaves out nothing.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
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
        if has_query(&plan)? {
            kept(plan, false)
        } else {
            Ok(Transformed::no(plan))
        }
    }
}

/// Whether some expression has a query whose value is not known before it is run.
fn has_query(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_))))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// The plan with a limit above each such aggregate that has none yet.
fn kept(plan: LogicalPlan, has_limit: bool) -> Result<Transformed<LogicalPlan>> {
    let is_limit = matches!(plan, LogicalPlan::Limit(_));
    let plan = plan
        .map_subqueries(|query| kept(query, false))?
        .transform_sibling(|plan| plan.map_children(|input| kept(input, is_limit)))?;
    let is_total = match &plan.data {
        LogicalPlan::Aggregate(total) => !has_limit && makes_a_row_of_none(total),
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
