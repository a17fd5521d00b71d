//! Writes out IN (query) and NOT IN (query) where NULL matters and the engine would not see it.
//!
//! DataFusion 55.2 marks which rows have a match, and takes a row without a mark for one that is not in the query, although it
//! is NULL whether it is as soon as it or one of the query's rows is NULL. It knows that of a NOT IN that is a whole condition
//! of WHERE, of a column as it is and a query that asks for nothing of the row; not of what is made of columns (`nullif`, CASE),
//! not under OR, NOT, CASE or IS NULL, and not of a query that does. There
//! `x IN (SELECT m ...)` is made what SQL says that it means: true where such a row exists, NULL where one is NULL that might
//! be it, else false.
//!
//! A query that asks for something of the row is moved into a join, and what it asks for is moved out of its groups and from
//! under its LIMIT, which changes what these are of. Such queries are refused.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{Case, Exists, InList, InSubquery};
use datafusion::logical_expr::logical_plan::{Distinct, Filter, Subquery};
use datafusion::logical_expr::utils::{conjunction, disjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, lit,
};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// Steps of a query that is written out, which makes two of it: queries within one another would make hundreds.
const STEPS_MAX: usize = 256;

/// What a query in IN or EXISTS may not be, each with what to write instead.
pub(super) const REFUSED: [(&str, &str); 4] = [
    (
        SAME_NAME,
        "give the tables names with AS, and write these before the columns",
    ),
    (TOO_MANY, "write EXISTS or NOT EXISTS for the inner ones"),
    (
        GROUPED,
        "group in a query in FROM and join it, or compare with a query in parentheses: x = (SELECT max(y) ...)",
    ),
    (
        LIMITED,
        "leave out LIMIT and OFFSET, or join a query in FROM that has row_number()",
    ),
];
const SAME_NAME: &str =
    "a query in IN has a table of the same name as the one whose rows it is asked for";
const TOO_MANY: &str = "too many queries in IN stand within one another";
const GROUPED: &str =
    "a query in IN or EXISTS that uses the row it is asked for cannot put rows together";
const LIMITED: &str =
    "a query in IN or EXISTS that uses the row it is asked for cannot have this LIMIT or OFFSET";

/// The rule, which comes before all of the engine's.
#[derive(Debug, Default)]
pub(super) struct Members;

impl OptimizerRule for Members {
    fn name(&self) -> &'static str {
        "members"
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Filter(filter) => filtered(filter, config),
            other => Ok(Transformed::no(other)),
        })
    }
}

fn filtered(filter: Filter, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
    let asks = |expr: &Expr| {
        Ok(match expr {
            Expr::InSubquery(_) | Expr::Exists(_) => true,
            Expr::InList(list) => matches!(list.list.as_slice(), [Expr::ScalarSubquery(_)]),
            _ => false,
        })
    };
    if !filter.predicate.exists(asks)? {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let mut rule = Rule {
        outer: filter.input.schema().as_ref(),
        config,
        is_changed: false,
    };
    let conditions = split_conjunction_owned(filter.predicate).into_iter();
    let conditions = conditions.map(|condition| rule.condition(condition));
    let conditions = conditions.collect::<Result<Vec<_>>>()?;
    let is_changed = rule.is_changed;
    let predicate = conjunction(conditions).unwrap_or_else(|| lit(true));
    let filter = LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?);
    Ok(Transformed::new_transformed(filter, is_changed))
}

struct Rule<'a> {
    /// The columns of the rows that are asked about.
    outer: &'a DFSchema,
    config: &'a dyn OptimizerConfig,
    is_changed: bool,
}

impl Rule<'_> {
    /// One condition that rows must meet: the engine understands one that is all of it, if its query stands by itself.
    fn condition(&mut self, expr: Expr) -> Result<Expr> {
        let expr = self.one_query(expr)?;
        let (asked, is_not) = match &expr {
            Expr::Not(inner) => (inner.as_ref(), true),
            other => (other, false),
        };
        match asked {
            Expr::InSubquery(asked)
                if is_alone(&asked.subquery)
                    && match is_not || asked.negated {
                        true => self.is_told(&asked.expr),
                        false => has_column(&asked.expr),
                    } =>
            {
                Ok(expr)
            }
            _ => self.filtering(expr),
        }
    }

    /// Whether the engine knows when this is NULL: it looks at what the table says of its columns, and not at what is made of
    /// them.
    fn is_told(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Column(_) | Expr::OuterReferenceColumn(..))
            || (has_column(expr) && expr.nullable(self.outer).is_ok_and(|is_null| !is_null))
    }

    /// Whether a row stays, so that NULL is as good as false.
    fn filtering(&mut self, expr: Expr) -> Result<Expr> {
        match self.one_query(expr)? {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: op @ (Operator::And | Operator::Or),
                right,
            }) => {
                let (left, right) = (self.filtering(*left)?, self.filtering(*right)?);
                Ok(Expr::BinaryExpr(BinaryExpr::new(
                    Box::new(left),
                    op,
                    Box::new(right),
                )))
            }
            Expr::InSubquery(asked) if !asked.negated => self.written_out(asked, false),
            other => self.exact(other),
        }
    }

    /// What an expression is, NULL and false told apart.
    fn exact(&mut self, expr: Expr) -> Result<Expr> {
        let exact = expr.transform_up(|expr| match self.one_query(expr)? {
            Expr::InSubquery(asked) => Ok(Transformed::yes(self.written_out(asked, true)?)),
            Expr::Exists(asked) => {
                refuse_moved(&asked.subquery, false)?;
                Ok(Transformed::no(Expr::Exists(asked)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(exact.data)
    }

    /// A list that has nothing but a query: the engine takes it for that query itself.
    fn one_query(&mut self, expr: Expr) -> Result<Expr> {
        match expr {
            Expr::InList(InList {
                expr,
                mut list,
                negated,
            }) if matches!(list.as_slice(), [Expr::ScalarSubquery(_)]) => {
                let Some(Expr::ScalarSubquery(subquery)) = list.pop() else {
                    return plan_err!("a list has lost its query");
                };
                self.is_changed = true;
                Ok(Expr::InSubquery(InSubquery::new(expr, subquery, negated)))
            }
            Expr::Not(inner) => Ok(Expr::Not(Box::new(self.one_query(*inner)?))),
            other => Ok(other),
        }
    }

    /// Whether there is such a member; where it is to be `exact`, NULL if one may be it.
    fn written_out(&mut self, asked: InSubquery, exact: bool) -> Result<Expr> {
        refuse_moved(&asked.subquery, true)?;
        refuse_large(&asked.subquery)?;
        self.is_changed = true;
        let given = asked.subquery.subquery.schema().qualified_field(0);
        let is_null_given = given.1.is_nullable();
        let is_null_asked = asked.expr.nullable(self.outer).unwrap_or(true);
        // A name of its own: the query may read the same table as the row that is asked about.
        let name = self.config.alias_generator().next("__member");
        let members = named(&asked.subquery.subquery, &name)?;
        let member = Expr::Column(Column::from_name(&name));
        let row = self.of_row(*asked.expr, &asked.subquery)?;
        let nulls = [(is_null_given, &member), (is_null_asked, &row)];
        let nulls = nulls.into_iter().filter(|(is_null, _)| *is_null);
        let nulls = disjunction(nulls.map(|(_, side)| side.clone().is_null()));
        let exists = |condition: Expr| {
            let plan = LogicalPlanBuilder::from(members.clone())
                .filter(condition)?
                .build()?;
            Ok::<_, datafusion::error::DataFusionError>(Box::new(Expr::Exists(Exists {
                subquery: Subquery {
                    outer_ref_columns: plan.all_out_ref_exprs(),
                    subquery: Arc::new(plan),
                    spans: asked.subquery.spans.clone(),
                },
                negated: false,
            })))
        };
        let is_there = exists(row.clone().eq(member.clone()))?;
        let is_member = match nulls.filter(|_| exact) {
            None => *is_there,
            Some(nulls) => Expr::Case(Case {
                expr: None,
                when_then_expr: vec![
                    (is_there, Box::new(lit(true))),
                    (
                        exists(nulls)?,
                        Box::new(Expr::Literal(ScalarValue::Boolean(None), None)),
                    ),
                ],
                else_expr: Some(Box::new(lit(false))),
            }),
        };
        Ok(match asked.negated {
            true => Expr::Not(Box::new(is_member)),
            false => is_member,
        })
    }

    /// The row's side as the query sees it.
    fn of_row(&self, expr: Expr, subquery: &Subquery) -> Result<Expr> {
        let of_row = expr.transform_up(|expr| {
            let Expr::Column(column) = expr else {
                return Ok(Transformed::no(expr));
            };
            // The engine would take the one for the other.
            if !is_alone(subquery) && reads(&subquery.subquery, &column)? {
                return plan_err!("{SAME_NAME}");
            }
            let field = self.outer.field_from_column(&column)?;
            Ok(Transformed::yes(Expr::OuterReferenceColumn(
                Arc::clone(field),
                column,
            )))
        })?;
        Ok(of_row.data)
    }
}

/// Whether a query has such a column somewhere of its own.
fn reads(query: &LogicalPlan, column: &Column) -> Result<bool> {
    query.exists(|step| Ok(step.schema().has_column(column)))
}

/// The query with its column under a name. What the query asks of the row needs columns beside it, and these may have the
/// name that its column had.
fn named(query: &LogicalPlan, name: &str) -> Result<LogicalPlan> {
    let (from, column) = match query {
        LogicalPlan::Projection(list) if list.expr.len() == 1 => {
            (list.input.as_ref(), list.expr[0].clone().unalias())
        }
        other => {
            let column = Column::from(other.schema().qualified_field(0));
            (other, Expr::Column(column))
        }
    };
    LogicalPlanBuilder::from(from.clone())
        .project([column.alias(name)])?
        .build()
}

fn is_alone(subquery: &Subquery) -> bool {
    subquery.outer_ref_columns.is_empty()
}

/// Whether it differs from row to row. The engine takes one that is NULL for none of an empty query's rows.
fn has_column(expr: &Expr) -> bool {
    let is_column = |expr: &Expr| {
        Ok(matches!(
            expr,
            Expr::Column(_) | Expr::OuterReferenceColumn(..)
        ))
    };
    expr.exists(is_column).unwrap_or(false)
}

/// Refuses a query that uses the row and whose rows are put together or counted behind that.
fn refuse_moved(subquery: &Subquery, is_in: bool) -> Result<()> {
    if is_alone(subquery) {
        return Ok(());
    }
    subquery.subquery.apply(|step| {
        let uses_the_row = || !step.all_out_ref_exprs().is_empty();
        match step {
            LogicalPlan::Aggregate(of) if of.group_expr.is_empty() && uses_the_row() => {
                plan_err!("{GROUPED}")
            }
            LogicalPlan::Window(_) if uses_the_row() => plan_err!("{GROUPED}"),
            LogicalPlan::Distinct(Distinct::On(_)) if uses_the_row() => plan_err!("{GROUPED}"),
            LogicalPlan::Limit(of) if (is_in || of.skip.is_some()) && uses_the_row() => {
                plan_err!("{LIMITED}")
            }
            _ => Ok(TreeNodeRecursion::Continue),
        }
    })?;
    Ok(())
}

fn refuse_large(subquery: &Subquery) -> Result<()> {
    let mut steps = 0;
    subquery.subquery.apply_with_subqueries(|_| {
        steps += 1;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if steps > STEPS_MAX {
        return plan_err!("{TOO_MANY}");
    }
    Ok(())
}
