//! Keeps the engine from comparing without a cast that loses what does not fit.
//!
//! DataFusion 55.2 compares the column instead of what it is cast to, with the literal cast the other way
//! (`unwrap_cast_in_comparison`). That is the same where every value fits. `TRY_CAST(x AS TINYINT)` is NULL for 200, and is no
//! more than 100 then, and CAST ends the statement; to the engine 200 is more than 100. So a cast to a type that does not hold
//! all that it is given stands behind a function that the engine knows nothing of.

use std::cell::Cell;
use std::sync::LazyLock;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, ScalarUDF};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::unique::same;

/// The rule, which comes before all of the engine's.
#[derive(Debug, Default)]
pub(super) struct Narrow;

impl OptimizerRule for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let hide = |expr: Expr| {
            if !is_bare(&expr, &schema) {
                return Ok(Transformed::no(expr));
            }
            let name = names.save(&expr);
            Ok(Transformed::yes(name.restore(hidden(expr, &schema)?)))
        };
        plan.map_expressions(|expr| match expr {
            // Its parts have names, and it has none.
            Expr::GroupingSet(_) => expr.map_children(hide),
            expr => hide(expr),
        })
    }
}

/// Whether there is such a cast in it that is not behind the function yet.
fn is_bare(expr: &Expr, schema: &DFSchema) -> bool {
    let bare = Cell::new(0_i64);
    let _ = expr.apply(|part| {
        bare.set(bare.get() + i64::from(is_narrow(part, schema)) - i64::from(is_kept(part)));
        Ok(TreeNodeRecursion::Continue)
    });
    bare.get() > 0
}

fn hidden(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let hidden = expr.transform_up(|part| match part {
        part if is_narrow(&part, schema) => Ok(Transformed::yes(KEPT.call(vec![part]))),
        // What was in it already is in it twice now.
        Expr::ScalarFunction(ScalarFunction { func, mut args })
            if func.name() == KEPT.name() && args.first().is_some_and(is_kept) =>
        {
            Ok(Transformed::yes(args.swap_remove(0)))
        }
        part => Ok(Transformed::no(part)),
    })?;
    Ok(hidden.data)
}

fn is_kept(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(of) if of.func.name() == KEPT.name())
}

fn is_narrow(expr: &Expr, schema: &DFSchema) -> bool {
    let (Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })) = expr else {
        return false;
    };
    expr.get_type(schema)
        .is_ok_and(|from| loses(&from, field.data_type()))
}

/// Whether a number of the one type may not be one of the other. Of other types the engine leaves out no cast.
fn loses(from: &DataType, to: &DataType) -> bool {
    let (Some(from_length), Some(to_length)) = (length(from), length(to)) else {
        return false;
    };
    let loses_sign = to.is_unsigned_integer() && !from.is_unsigned_integer();
    loses_sign || from_length.0 > to_length.0 || from_length.1 > to_length.1
}

/// How long a number is at most before its point and behind it, in half digits: 16 bits hold all numbers of four digits and not
/// all of five, and without a sign some that they do not hold with one.
fn length(of: &DataType) -> Option<(i32, i32)> {
    let whole = match of {
        DataType::Int8 => 5,
        DataType::UInt8 => 6,
        DataType::Int16 => 9,
        DataType::UInt16 => 10,
        DataType::Int32 => 19,
        DataType::UInt32 => 20,
        DataType::Int64 => 37,
        DataType::UInt64 => 40,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            let (precision, scale) = (i32::from(*precision), i32::from(*scale));
            return Some((2 * (precision - scale), 2 * scale));
        }
        _ => return None,
    };
    Some((whole, 0))
}

static KEPT: LazyLock<ScalarUDF> = LazyLock::new(|| same("kept"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cast_loses_what_does_not_fit() {
        use DataType::{Decimal128, Float64, Int8, Int16, Int32, Int64, UInt64, Utf8};
        for (from, to) in [
            (Int8, Int16),
            (Int32, Int64),
            (Int32, Int32),
            (Int16, Decimal128(5, 0)),
            (Int64, Decimal128(20, 0)),
            (UInt64, Decimal128(20, 0)),
            (Decimal128(4, 0), Int16),
            (Decimal128(18, 0), Int64),
            (Decimal128(6, 2), Decimal128(8, 3)),
            (Int32, Float64),
            (Utf8, Int8),
        ] {
            assert!(!loses(&from, &to), "{from} {to}");
        }
        for (from, to) in [
            (Int32, Int8),
            (Int64, Int32),
            (UInt64, Int64),
            (Int8, UInt64),
            (Int16, Decimal128(4, 0)),
            (Int32, Decimal128(4, 2)),
            (Decimal128(5, 0), Int16),
            (Decimal128(19, 0), Int64),
            (Decimal128(6, 2), Decimal128(8, 1)),
            (Decimal128(6, 2), Decimal128(6, 3)),
            (Decimal128(6, 2), Int64),
        ] {
            assert!(loses(&from, &to), "{from} {to}");
        }
    }
}
