//! Sums, differences and products of integers in 64 bits: the tables' columns have 32, and the engine wraps without a word.
//!
//! A step of a minute has 60,000 ms, whose square does not fit into 32 bits. Both sides are made wide where the statement is
//! planned, so that everything around them knows what type they have.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// The engine's planners of expressions, and before them ours.
pub(super) fn planners() -> Vec<Arc<dyn ExprPlanner>> {
    let mut planners = SessionStateDefaults::default_expr_planners();
    planners.insert(0, Arc::new(Wide));
    planners
}

/// Makes both sides wide.
#[derive(Debug)]
struct Wide;

impl ExprPlanner for Wide {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let op = match expr.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let is_narrow = |side: &Expr| side.get_type(schema).is_ok_and(|kind| is_narrow(&kind));
        if !is_narrow(&expr.left) || !is_narrow(&expr.right) {
            return Ok(PlannerResult::Original(expr));
        }
        let of = |left, right| {
            let (left, right) = (Box::new(left), Box::new(right));
            Expr::BinaryExpr(BinaryExpr { left, op, right })
        };
        // It is called as if nothing had been done to it.
        let name = of(expr.left.clone(), expr.right.clone())
            .schema_name()
            .to_string();
        let wide = |side| cast(side, DataType::Int64);
        let wide = of(wide(expr.left), wide(expr.right));
        Ok(PlannerResult::Planned(wide.alias(name)))
    }
}

fn is_narrow(kind: &DataType) -> bool {
    use DataType as T;
    matches!(
        kind,
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 | T::UInt32
    )
}
