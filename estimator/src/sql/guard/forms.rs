//! The forms that a query may have: what questions about two tables need, and nothing that the engine would ignore
//! without a word or make gigabytes of while it plans.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr,
    Ident, Query, Select, SelectFlavor, SelectItem, SetExpr, SetOperator, SetQuantifier,
    TableAlias, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};

use super::{last, only_reading, stop};
use crate::error::Error;

const PLAIN: &str =
    "plain SELECT ... FROM ... WHERE ... GROUP BY ... HAVING ... ORDER BY ... LIMIT works";

fn not_here(what: &str) -> ControlFlow<Error> {
    stop(&format!("{what} is not understood here"), Some(PLAIN))
}

/// Gives each query in FROM a name that has none: the engine takes columns of the same name for one another where such
/// queries stand within one another, and `SELECT x FROM (SELECT x + x AS x FROM (SELECT x + x AS x FROM (SELECT 1 AS x)))`
/// is 2 to it (<https://github.com/apache/datafusion/pull/24686>).
pub(super) fn name_each(query: &mut Query) {
    struct Names(usize);
    impl VisitorMut for Names {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::Derived { alias, .. } = factor
                && alias.is_none()
            {
                self.0 += 1;
                *alias = Some(TableAlias {
                    explicit: true,
                    name: Ident::with_quote('"', format!("query {}", self.0)),
                    columns: Vec::new(),
                    at: None,
                });
            }
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(query, &mut Names(0));
}

/// What a query may have around its SELECT, and the SELECT itself.
pub(super) fn query(query: &Query) -> ControlFlow<Error> {
    let extras = !query.locks.is_empty()
        || query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
        || !query.pipe_operators.is_empty();
    if extras {
        return not_here("this part of the statement");
    }
    body(&query.body)
}

fn body(of: &SetExpr) -> ControlFlow<Error> {
    match of {
        SetExpr::Select(one) => select(one),
        SetExpr::Query(_) | SetExpr::Values(_) => ControlFlow::Continue(()),
        SetExpr::SetOperation {
            op,
            set_quantifier,
            left,
            right,
        } => {
            let is_all = matches!(
                set_quantifier,
                SetQuantifier::All | SetQuantifier::AllByName
            );
            if is_all && *op != SetOperator::Union {
                return stop(
                    &format!("{op} ALL is not understood here: the engine does not count the rows"),
                    Some("leave out ALL, or number the rows that are the same with row_number()"),
                );
            }
            body(left)?;
            body(right)
        }
        other => ControlFlow::Break(only_reading(&other.to_string())),
    }
}

fn select(of: &Select) -> ControlFlow<Error> {
    if of.into.is_some() {
        return ControlFlow::Break(only_reading("INTO"));
    }
    let modifiers = match &of.group_by {
        GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => modifiers,
    };
    let picks_by_name = of.projection.iter().any(|item| match item {
        SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => {
            options.opt_ilike.is_some()
        }
        _ => false,
    });
    // The engine passes over some of these, and answers as if they were not there.
    let ignored = [
        (of.top.is_some(), "TOP"),
        (of.select_modifiers.is_some(), "a modifier of SELECT"),
        (!of.optimizer_hints.is_empty(), "a hint"),
        (!of.lateral_views.is_empty(), "LATERAL VIEW"),
        (of.prewhere.is_some(), "PREWHERE"),
        (!of.connect_by.is_empty(), "CONNECT BY"),
        (!of.cluster_by.is_empty(), "CLUSTER BY"),
        (!of.distribute_by.is_empty(), "DISTRIBUTE BY"),
        (!of.sort_by.is_empty(), "SORT BY"),
        (of.value_table_mode.is_some(), "SELECT AS"),
        (!modifiers.is_empty(), "WITH behind GROUP BY"),
        (picks_by_name, "ILIKE behind *"),
        (of.flavor != SelectFlavor::Standard, "FROM before SELECT"),
    ];
    match ignored.iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => not_here(what),
        None => ControlFlow::Continue(()),
    }
}

/// What may stand in FROM.
pub(super) fn table(factor: &TableFactor) -> ControlFlow<Error> {
    match factor {
        TableFactor::Table {
            args: None,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
            ..
        } => {
            let more = !with_hints.is_empty()
                || version.is_some()
                || *with_ordinality
                || !partitions.is_empty()
                || json_path.is_some()
                || sample.is_some()
                || !index_hints.is_empty();
            if more {
                return not_here("what stands behind the table's name");
            }
            ControlFlow::Continue(())
        }
        TableFactor::Derived {
            sample: Some(_), ..
        } => not_here("TABLESAMPLE"),
        TableFactor::Derived { lateral: true, .. } => stop(
            "LATERAL is not understood here",
            Some(
                "group in a query in FROM and join it, or ask by a query in parentheses: (SELECT max(y) ...)",
            ),
        ),
        TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
        _ => stop(
            "functions that make tables are not allowed here",
            Some("read from training_steps or validation_prompts"),
        ),
    }
}

/// What may be computed: numbers, texts and truth from columns, and no lists, maps or structures.
pub(super) fn expression(expr: &Expr) -> ControlFlow<Error> {
    match expr {
        Expr::Cast {
            data_type,
            array: false,
            format: None,
            ..
        } => match is_plain(data_type) {
            true => ControlFlow::Continue(()),
            false => stop(
                "nothing is made a value of this type here",
                Some(
                    "types are signed integers, floating point numbers, DECIMAL, TEXT without a length and BOOLEAN",
                ),
            ),
        },
        Expr::Function(function) => call(function),
        Expr::SimilarTo { .. } => stop(
            "SIMILAR TO is not understood here",
            Some("write LIKE for a pattern with % and _, or ~ for a regular expression"),
        ),
        Expr::BinaryOp {
            op: BinaryOperator::BitwiseXor | BinaryOperator::PGExp,
            ..
        } => stop("^ is not understood here", Some("write power(x, 2)")),
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::InList { .. }
        | Expr::InSubquery { .. }
        | Expr::Between { .. }
        | Expr::BinaryOp { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. }
        | Expr::UnaryOp { .. }
        | Expr::Ceil { .. }
        | Expr::Floor { .. }
        | Expr::Substring { .. }
        | Expr::Trim { .. }
        | Expr::Nested(_)
        | Expr::Value(_)
        | Expr::Case { .. }
        | Expr::Exists { .. }
        | Expr::Subquery(_)
        | Expr::GroupingSets(_)
        | Expr::Cube(_)
        | Expr::Rollup(_)
        | Expr::Tuple(_)
        | Expr::Wildcard(_)
        | Expr::QualifiedWildcard(..) => ControlFlow::Continue(()),
        _ => stop(
            "this kind of expression is not understood here",
            Some(
                "there are operators, CASE, CAST, IN, BETWEEN, LIKE, and the functions of docs/sql.md",
            ),
        ),
    }
}

fn call(function: &Function) -> ControlFlow<Error> {
    let distinct = match &function.args {
        FunctionArguments::List(list) => {
            list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
        }
        _ => false,
    };
    // It takes each row for so many steps, and has no other meaning for the same row twice.
    if distinct && last(&function.name).starts_with("histogram_") {
        return stop("a histogram counts every row: leave out DISTINCT", None);
    }
    ControlFlow::Continue(())
}

/// Whether a value of the type is as large as what it is made of, and no larger.
const fn is_plain(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Boolean
            | DataType::Bool
            | DataType::TinyInt(_)
            | DataType::SmallInt(_)
            | DataType::Int(_)
            | DataType::Integer(_)
            | DataType::BigInt(_)
            | DataType::Int2(_)
            | DataType::Int4(_)
            | DataType::Int8(_)
            | DataType::Real
            | DataType::Float(_)
            | DataType::Float4
            | DataType::Float8
            | DataType::Double(_)
            | DataType::DoublePrecision
            | DataType::Decimal(_)
            | DataType::Numeric(_)
            | DataType::Text
            // The engine cuts no text to a length.
            | DataType::String(None)
            | DataType::Varchar(None)
            | DataType::Char(None)
    )
}

/// How often an expression joins text: each time may double it.
pub(super) fn text_joins(expr: &Expr) -> usize {
    match expr {
        Expr::BinaryOp {
            op: BinaryOperator::StringConcat,
            ..
        } => 1,
        Expr::Function(function) if last(&function.name).starts_with("concat") => {
            match &function.args {
                FunctionArguments::List(list) => list.args.len().saturating_sub(1),
                _ => 0,
            }
        }
        _ => 0,
    }
}

/// By how many sets an expression of GROUP BY has rows grouped at once.
pub(super) fn grouping_sets(expr: &Expr) -> usize {
    match expr {
        Expr::Cube(parts) => 1 << parts.len().min(32),
        Expr::Rollup(parts) => parts.len() + 1,
        Expr::GroupingSets(sets) => sets.len(),
        _ => 1,
    }
}

/// How many names an item of a query's list has at most, and how many there are in its conditions and groups.
pub(super) fn names_in(body: &SetExpr) -> (u64, u64) {
    match body {
        SetExpr::Select(select) => {
            let items = select.projection.iter().map(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    names(expr)
                }
                _ => 1,
            });
            let conditions = [&select.selection, &select.having, &select.qualify];
            let conditions = conditions.into_iter().flatten().map(names);
            (items.max().unwrap_or(1).max(1), conditions.sum())
        }
        SetExpr::SetOperation { left, right, .. } => {
            let (left, right) = (names_in(left), names_in(right));
            (left.0.max(right.0), left.1.saturating_add(right.1))
        }
        _ => (1, 0),
    }
}

fn names(of: &impl Visit) -> u64 {
    struct Names(u64);
    impl Visitor for Names {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let is_name = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
            self.0 += u64::from(is_name);
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(0);
    let _ = of.visit(&mut names);
    names.0
}
