//! Keeps the engine from putting lists of IN together where one of them may hold or meet NULL.
//!
//! The simplifier of DataFusion 55.2 makes one list of two on the same expression: `x NOT IN (1) OR x NOT IN (2)` is true to it
//! and NULL for an `x` that is NULL, `x IN (1) AND x IN (2)` is false to it, and what a list has beside NULL is taken from
//! another as if NULL were a value like others. It does so too with `x = 1 OR x = 2`, which it makes a list of first. Where two
//! lists on the same columns meet so, the simplifier is shown each comparison behind a function that it knows nothing of.

use std::collections::HashSet;
use std::sync::LazyLock;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr::{InList, Like, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, ScalarUDF};
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::unique::same;

/// The engine's simplifier, but for what it would put together wrongly.
#[derive(Debug, Default)]
pub(super) struct Simplify(SimplifyExpressions);

impl OptimizerRule for Simplify {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let names = NamePreserver::new(&plan);
        let hide = |expr: Expr| {
            if !Meeting::in_expression(&expr) {
                return Ok(Transformed::no(expr));
            }
            let name = names.save(&expr);
            Ok(Transformed::yes(name.restore(apart(expr)?)))
        };
        let hidden = plan.map_expressions(|expr| match expr {
            // Its parts have names, and it has none.
            Expr::GroupingSet(_) => expr.map_children(hide),
            expr => hide(expr),
        })?;
        let is_hidden = hidden.transformed;
        let simple = self.0.rewrite(hidden.data, config)?;
        if !is_hidden {
            return Ok(simple);
        }
        let shown = simple
            .data
            .map_expressions(|expr| expr.transform_up(|expr| Ok(shown(expr))))?;
        Ok(Transformed::yes(shown.data))
    }
}

/// Each comparison behind the function.
fn apart(expr: Expr) -> Result<Expr> {
    let apart = expr.transform_up(|expr| match Compared::of(&expr) {
        Some(_) => Ok(Transformed::yes(APART.call(vec![expr]))),
        None => Ok(Transformed::no(expr)),
    })?;
    Ok(apart.data)
}

fn shown(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, mut args })
            if func.name() == APART.name() && args.len() == 1 =>
        {
            Transformed::yes(args.swap_remove(0))
        }
        other => Transformed::no(other),
    }
}

/// A comparison that is a list, or that the simplifier may make a list of.
struct Compared {
    /// Whether it is one by itself, and not only together with another.
    is_list: bool,
    /// Whether it says what is not in the list.
    is_negated: bool,
}

impl Compared {
    fn of(expr: &Expr) -> Option<Self> {
        let (is_list, is_negated) = match expr {
            Expr::InList(InList { negated, .. }) => (true, *negated),
            Expr::BinaryExpr(BinaryExpr { op, .. }) => match op {
                Operator::Eq | Operator::IsNotDistinctFrom => (false, false),
                Operator::NotEq | Operator::IsDistinctFrom => (false, true),
                // One that has nothing but alternatives is a list.
                Operator::RegexMatch | Operator::RegexIMatch => (true, false),
                Operator::RegexNotMatch | Operator::RegexNotIMatch => (true, true),
                _ => return None,
            },
            // One without a wildcard is an equation.
            Expr::Like(Like { negated, .. }) | Expr::SimilarTo(Like { negated, .. }) => {
                (false, *negated)
            }
            _ => return None,
        };
        Some(Self {
            is_list,
            is_negated,
        })
    }
}

/// One comparison, as the conditions around it see it.
struct Seen {
    columns: HashSet<Column>,
    is_list: bool,
    /// Whether it may come to say what is in a list, and whether it may come to say what is not.
    is_in: bool,
    is_out: bool,
}

impl Seen {
    /// Whether both may come to be of one expression, which may lose columns before it is compared.
    fn is_alike(&self, other: &Self) -> bool {
        self.columns.is_empty()
            || other.columns.is_empty()
            || !self.columns.is_disjoint(&other.columns)
    }
}

/// Whether two lists meet so that the simplifier would make a wrong one of them.
#[derive(Default)]
struct Meeting {
    has_met: bool,
}

impl Meeting {
    fn in_expression(expr: &Expr) -> bool {
        let mut meeting = Self::default();
        meeting.seen(expr, false);
        meeting.has_met
    }

    fn seen(&mut self, expr: &Expr, is_negated: bool) -> Vec<Seen> {
        match expr {
            Expr::Not(inner) => return self.seen(inner, !is_negated),
            Expr::Alias(alias) => return self.seen(&alias.expr, is_negated),
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: op @ (Operator::And | Operator::Or),
                right,
            }) => {
                let sides = [self.seen(left, is_negated), self.seen(right, is_negated)];
                return self.met(sides, (*op == Operator::And) != is_negated);
            }
            _ => {}
        }
        // What stands within anything else may be turned round, and each part may come to stand beside the others.
        let mut within: Vec<Seen> = Vec::new();
        let _ = expr.apply_children(|child| {
            let mut found = self.seen(child, false);
            for one in &mut found {
                (one.is_in, one.is_out) = (true, true);
            }
            let before = std::mem::take(&mut within);
            within = self.met([before, found], true);
            Ok(TreeNodeRecursion::Continue)
        });
        if let Some(compared) = Compared::of(expr) {
            let is_out = compared.is_negated != is_negated;
            within.push(Seen {
                columns: expr.column_refs().into_iter().cloned().collect(),
                is_list: compared.is_list,
                is_in: !is_out,
                is_out,
            });
        }
        within
    }

    /// What both sides of an AND or an OR hold.
    fn met(&mut self, [mut left, mut right]: [Vec<Seen>; 2], is_and: bool) -> Vec<Seen> {
        for one in &mut left {
            for other in &mut right {
                if !one.is_alike(other) {
                    continue;
                }
                let (both_in, both_out) = (one.is_in && other.is_in, one.is_out && other.is_out);
                let is_mixed = one.is_in && other.is_out || one.is_out && other.is_in;
                let is_wrong = match is_and {
                    true => both_in || is_mixed,
                    false => both_out,
                };
                self.has_met |= is_wrong && one.is_list && other.is_list;
                let is_one_list = if is_and { both_out } else { both_in };
                one.is_list |= is_one_list;
                other.is_list |= is_one_list;
            }
        }
        left.append(&mut right);
        left
    }
}

static APART: LazyLock<ScalarUDF> = LazyLock::new(|| same("apart"));

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn among<const N: usize>(column: &str, values: [i32; N], is_negated: bool) -> Expr {
        col(column).in_list(values.map(lit).to_vec(), is_negated)
    }

    /// What people write every day is simplified as ever.
    #[test]
    fn only_lists_that_would_be_put_together_wrongly_are_hidden() {
        let a = |values| among("a", values, false);
        let not_a = |values| among("a", values, true);
        for left_alone in [
            a([1, 2]).and(among("b", [3, 4], false)),
            a([1, 2]).or(not_a([3, 4])),
            col("a").eq(lit(1)).or(col("a").eq(lit(2))).or(a([3, 4])),
            not_a([1, 2]).and(not_a([3, 4])),
            a([1, 2]).and(col("a").not_eq(lit(2))),
            col("a").gt(lit(1)).and(col("a").lt(lit(5))),
            among("b", [1, 2], true).or(not_a([1, 2])),
        ] {
            assert!(!Meeting::in_expression(&left_alone), "{left_alone}");
        }
        for hidden in [
            not_a([1, 2]).or(not_a([3, 4])),
            a([1, 2]).and(a([2, 3])),
            a([1, 2]).and(not_a([2, 3])),
            Expr::Not(Box::new(a([1, 2]).or(a([2, 3]).and(a([3, 4]))))),
            Expr::Not(Box::new(a([1, 2]).and(a([2, 3])))),
            (col("a").eq(lit(1)).or(col("a").eq(lit(2)))).and(a([3, 4])),
        ] {
            assert!(Meeting::in_expression(&hidden), "{hidden}");
        }
    }
}
