//! The guard: what kind of statement it is, and whether planning it is affordable.
//!
//! The engine refuses to write or to leave its two tables by itself. What it does not bound is the work before a
//! plan runs: a name that stands for a query is worked through again wherever it is used, text that is joined to
//! itself doubles, and constants are computed while planning. These are counted here, before the engine sees them.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParser, Statement as Parsed};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, ObjectName, ObjectNamePart, Query, SetExpr, Statement as Sql,
    TableFactor, Value, ValueWithSpan, Visit, Visitor,
};

use super::{catalog, words};
use crate::error::Error;

/// Tables a statement may read, each counted as often as the names that stand for queries bring it in.
const TABLES_MAX: u64 = 16;
/// Times a statement may join text: each may double it.
const TEXT_JOINS_MAX: usize = 6;
/// The longest text written out in a statement, as [`TEXT_JOINS_MAX`] may double it.
const TEXT_BYTES_MAX: usize = 256;
/// Names, numbers, calls and operators in one statement.
const EXPRESSIONS_MAX: usize = 1_000;
/// The most a statement's expressions may be nested.
const DEPTH_MAX: usize = 64;

/// A statement that may run.
#[derive(Debug)]
pub(super) enum Statement {
    /// `SHOW TABLES`.
    Tables,
    /// `DESCRIBE` or `SHOW COLUMNS` of a table.
    Columns(String),
    /// A query, or an `EXPLAIN` of one.
    Query {
        query: Box<Parsed>,
        /// It reads one table, and there is no query within it.
        is_plain: bool,
    },
}

/// Reads a statement, and refuses it if it is not one reading statement of bounded size.
pub(super) fn read(text: &str) -> Result<Statement, Error> {
    let mut parsed = DFParser::parse_sql(text).map_err(words::of)?;
    let statement = parsed
        .pop_front()
        .ok_or_else(|| refused("there is no statement", None))?;
    if !parsed.is_empty() {
        return Err(refused(
            "one statement at a time",
            Some("leave out everything after the first `;`"),
        ));
    }
    let is_plain = match &statement {
        Parsed::Statement(sql) => match sql.as_ref() {
            Sql::Query(query) => check(query)?,
            Sql::ExplainTable { table_name, .. } => {
                return Ok(Statement::Columns(last(table_name)));
            }
            Sql::ShowColumns { show_options, .. } => {
                let name = show_options
                    .show_in
                    .as_ref()
                    .and_then(|place| place.parent_name.as_ref());
                let name = name.ok_or_else(|| {
                    refused(
                        "SHOW COLUMNS needs a table",
                        Some("write SHOW COLUMNS FROM training_steps"),
                    )
                })?;
                return Ok(Statement::Columns(last(name)));
            }
            Sql::ShowTables { .. } => return Ok(Statement::Tables),
            other => return Err(only_reading(&other.to_string())),
        },
        Parsed::Explain(explain) => match explain.statement.as_ref() {
            Parsed::Statement(sql) => match sql.as_ref() {
                Sql::Query(query) => check(query)?,
                other => return Err(only_reading(&other.to_string())),
            },
            other => return Err(only_reading(&other.to_string())),
        },
        other => return Err(only_reading(&other.to_string())),
    };
    let query = Box::new(statement);
    Ok(Statement::Query { query, is_plain })
}

/// Refuses what costs too much; otherwise says whether the query is a plain one.
fn check(query: &Query) -> Result<bool, Error> {
    let mut cost = Cost::default();
    match query.visit(&mut cost) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => {
            let is_select = matches!(query.body.as_ref(), SetExpr::Select(_));
            Ok(is_select && cost.queries_seen == 1 && cost.tables_seen <= 1)
        }
    }
}

fn refused(message: &str, hint: Option<&str>) -> Error {
    Error::Refused {
        message: message.into(),
        hint: hint.map(str::to_owned),
    }
}

/// The first word of a statement says enough about it; the rest may hold anything.
fn only_reading(statement: &str) -> Error {
    let verb: String = statement
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .collect();
    refused(
        &format!("{} is not allowed here", verb.to_ascii_uppercase()),
        Some(
            "the tables can only be read: SELECT, EXPLAIN, DESCRIBE, SHOW COLUMNS and SHOW TABLES",
        ),
    )
}

fn last(name: &ObjectName) -> String {
    match name.0.last() {
        Some(ObjectNamePart::Identifier(part)) => part.value.clone(),
        _ => String::new(),
    }
}

/// What a query costs to plan.
#[derive(Default)]
struct Cost {
    /// The queries around the place that is visited, outermost first.
    queries: Vec<Frame>,
    /// How many tables stand behind each name that a `WITH` gave.
    weights: HashMap<String, u64>,
    expressions: usize,
    depth: usize,
    text_joins: usize,
    queries_seen: usize,
    tables_seen: usize,
}

#[derive(Default)]
struct Frame {
    tables: u64,
    /// Names of the `WITH` clause, whose queries are visited first, in their order.
    names: std::vec::IntoIter<String>,
}

impl Visitor for Cost {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let mut names = Vec::new();
        if let Some(with) = &query.with {
            if with.recursive {
                return stop("WITH RECURSIVE is not allowed here", None);
            }
            names.extend(
                with.cte_tables
                    .iter()
                    .map(|table| table.alias.name.value.to_lowercase()),
            );
        }
        let extras = !query.locks.is_empty()
            || query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        if extras {
            return stop(
                "this part of the statement is not understood here",
                Some("plain SELECT ... FROM ... WHERE ... GROUP BY ... ORDER BY ... LIMIT works"),
            );
        }
        check_body(&query.body)?;
        self.queries_seen += 1;
        self.queries.push(Frame {
            tables: 0,
            names: names.into_iter(),
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        let tables = self.queries.pop().map_or(0, |frame| frame.tables);
        let Some(outer) = self.queries.last_mut() else {
            return within(tables);
        };
        match outer.names.next() {
            Some(name) => {
                self.weights.insert(name, tables.max(1));
            }
            None => outer.tables = outer.tables.saturating_add(tables),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Error> {
        self.tables_seen += 1;
        let name = last(relation);
        let weight = self.weights.get(&name.to_lowercase()).copied();
        if weight.is_none() && (relation.0.len() > 1 || catalog::find(&name).is_none()) {
            return ControlFlow::Break(words::no_table(&relation.to_string()));
        }
        if let Some(frame) = self.queries.last_mut() {
            frame.tables = frame.tables.saturating_add(weight.unwrap_or(1));
            return within(frame.tables);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        match factor {
            TableFactor::Table { args: None, .. }
            | TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            _ => stop(
                "functions that make tables are not allowed here",
                Some("read from training_steps or validation_prompts"),
            ),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        self.expressions += 1;
        self.depth += 1;
        if self.expressions > EXPRESSIONS_MAX || self.depth > DEPTH_MAX {
            return stop(
                "the statement is too long or too deeply nested",
                Some("ask in several statements"),
            );
        }
        let joins_text = match expr {
            Expr::BinaryOp { op, .. } => *op == BinaryOperator::StringConcat,
            Expr::Function(function) => last(&function.name).to_lowercase().starts_with("concat"),
            _ => false,
        };
        self.text_joins += usize::from(joins_text);
        if self.text_joins > TEXT_JOINS_MAX {
            return stop("the statement joins text too often", None);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Error> {
        match &value.value {
            Value::Placeholder(_) => stop(
                "there are no parameters here",
                Some("write the value into the statement"),
            ),
            value if value.to_string().len() > TEXT_BYTES_MAX => {
                stop("a text in the statement is too long", None)
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn check_body(body: &SetExpr) -> ControlFlow<Error> {
    match body {
        SetExpr::Select(select) if select.into.is_some() => {
            ControlFlow::Break(only_reading("INTO"))
        }
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => ControlFlow::Continue(()),
        SetExpr::SetOperation { left, right, .. } => {
            check_body(left)?;
            check_body(right)
        }
        other => ControlFlow::Break(only_reading(&other.to_string())),
    }
}

fn within(tables: u64) -> ControlFlow<Error> {
    if tables > TABLES_MAX {
        return stop(
            &format!(
                "a statement may read at most {TABLES_MAX} tables, each counted as often as it is used"
            ),
            None,
        );
    }
    ControlFlow::Continue(())
}

fn stop(message: &str, hint: Option<&str>) -> ControlFlow<Error> {
    ControlFlow::Break(refused(message, hint))
}
