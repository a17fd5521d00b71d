//! Sums, differences and products of integers in 64 bits and with a sign: the tables' columns have 32, ranks and sums of columns
//! have no sign, and the engine wraps without a word.
//!
//! A step of a minute has 60,000 ms, whose square does not fit into 32 bits; and the second rank less the third is -1. Both
//! sides are made wide where the statement is planned, so that everything around them knows what type they have.

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
        let kinds = [&expr.left, &expr.right].map(|side| side.get_type(schema));
        let [Ok(left), Ok(right)] = kinds else {
            return Ok(PlannerResult::Original(expr));
        };
        let is_wide = [&left, &right].iter().all(|kind| **kind == DataType::Int64);
        if is_wide || !left.is_integer() || !right.is_integer() {
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
