//! Makes the engine forget what a query within another says of its own rows: that a column tells all others apart.
//!
//! A query that groups says that its keys are unique, and the engine's planner and optimizer use that. A join makes several
//! rows of one, and DataFusion 55.2 still takes keys that were unique before it for keys of what is grouped behind it
//! (`aggregate_functional_dependencies`): it groups by what nobody asked for, leaves out DISTINCT, keys of GROUP BY and ORDER
//! BY, and whole joins, and answers wrongly. So what groups and stands in a FROM hands its columns through a function that the
//! engine knows nothing of.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, Result, internal_err};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::TableFactor;

/// Plans what stands in a FROM as the engine does, for one statement.
#[derive(Debug, Default)]
pub(super) struct Forgetful {
    /// Whether the next thing in a FROM is one that this planner has asked the engine for.
    is_asked: AtomicBool,
}

impl RelationPlanner for Forgetful {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let is_query = matches!(
            relation,
            TableFactor::Derived { .. } | TableFactor::Table { .. }
        );
        if self.is_asked.swap(false, Ordering::Relaxed) || !is_query {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        self.is_asked.store(true, Ordering::Relaxed);
        let plan = forgotten(context.plan(relation)?)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation {
            plan,
            alias: None,
        })))
    }
}

/// Whether rows are put together somewhere in it, and not in a query within an expression.
fn groups(plan: &LogicalPlan) -> bool {
    let found = plan.exists(|node| {
        Ok(matches!(
            node,
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_)
        ))
    });
    found.unwrap_or(true)
}

fn forgotten(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !groups(&plan) {
        return Ok(plan);
    }
    let columns = plan.schema().iter().map(|(table, field)| {
        let column = Expr::Column(Column::new(table.cloned(), field.name()));
        SAME.call(vec![column])
            .alias_qualified(table.cloned(), field.name())
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::new(plan).project(columns)?.build()
}

static SAME: LazyLock<ScalarUDF> = LazyLock::new(|| same("same"));

/// A function that gives what it is given, which the engine does not know.
pub(super) fn same(name: &'static str) -> ScalarUDF {
    ScalarUDF::from(Same {
        name,
        signature: Signature::any(1, Volatility::Immutable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Same {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Same {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, of: &[DataType]) -> Result<DataType> {
        match of {
            [one] => Ok(one.clone()),
            _ => internal_err!("it is given one value"),
        }
    }

    fn return_field_from_args(&self, of: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match of.arg_fields {
            [one] => Ok(Arc::clone(one)),
            _ => internal_err!("it is given one value"),
        }
    }

    fn invoke_with_args(&self, of: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match of.args.into_iter().next() {
            Some(column) => Ok(column),
            None => internal_err!("it is given one value"),
        }
    }
}
