//! The guard: what kind of statement it is, and whether planning it is affordable.
//!
//! The engine refuses to write or to leave its two tables by itself. What it does not bound is the work before a
//! plan runs: a name that stands for a query is worked through again wherever it is used, text that is joined to
//! itself doubles, and constants are computed while planning. These are counted here, before the engine sees them, and
//! forms that questions about two tables do not need are refused ([`forms`]).

mod forms;

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParser, Statement as Parsed};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, SetExpr, Statement as Sql, TableFactor, Value,
    ValueWithSpan, Visit, Visitor,
};

use super::{catalog, words};
use crate::error::Error;

/// Tables a statement may read, each counted as often as the names that stand for queries bring it in.
const TABLES_MAX: u64 = 16;
/// Times a statement may join text: each may double it.
const TEXT_JOINS_MAX: usize = 6;
/// The longest text written out in a statement, as [`TEXT_JOINS_MAX`] may double it.
const TEXT_BYTES_MAX: usize = 256;
/// Columns of tables that one column may be made of, through all queries between them.
const COLUMNS_MAX: u64 = 4_096;
/// Queries within one another: some of them are looked at twice for each time that the one around them is.
const QUERIES_DEEP_MAX: usize = 12;
/// Sets that rows are grouped by at once: a group holds memory in each.
const GROUPING_SETS_MAX: usize = 64;
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
    let mut statement = parsed.pop_front().ok_or_else(|| {
        refused(
            "there is no statement",
            Some("write one, such as SELECT * FROM training_steps LIMIT 5"),
        )
    })?;
    if !parsed.is_empty() {
        return Err(refused(
            "one statement at a time",
            Some("leave out everything after the first `;`"),
        ));
    }
    let is_plain = match &mut statement {
        Parsed::Statement(sql) => match sql.as_mut() {
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
        Parsed::Explain(explain) => match explain.statement.as_mut() {
            Parsed::Statement(sql) => match sql.as_mut() {
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

/// Refuses what costs too much; otherwise makes it ready, and says whether the query is a plain one.
fn check(query: &mut Query) -> Result<bool, Error> {
    let mut cost = Cost::default();
    match query.visit(&mut cost) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => {
            forms::name_each(query);
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
        Some(ObjectNamePart::Identifier(part)) => known_as(part),
        _ => String::new(),
    }
}

/// A name as the engine knows it: in lower case unless it stands in quotation marks.
fn known_as(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

/// What a query costs to plan.
#[derive(Default)]
struct Cost {
    /// The queries around the place that is visited, outermost first.
    queries: Vec<Frame>,
    /// What stands behind each name that a `WITH` gave. A name that was given twice stands for the larger one.
    named: HashMap<String, Weight>,
    expressions: usize,
    depth: usize,
    text_joins: usize,
    grouping_sets: usize,
    queries_seen: usize,
    tables_seen: usize,
}

/// What reading from a query costs.
#[derive(Debug, Clone, Copy)]
struct Weight {
    /// How many tables it reads.
    tables: u64,
    /// How many columns of tables one of its own may be made of: the engine writes out what a name stands for wherever
    /// it looks at that name.
    columns: u64,
}

struct Frame {
    tables: u64,
    /// The most that a column of what it reads from is made of.
    source: u64,
    /// How many names an item of its list has.
    item: u64,
    /// How many names its conditions have.
    conditions: u64,
    /// Names of the `WITH` clause, whose queries are visited first, in their order.
    names: std::vec::IntoIter<String>,
}

impl Frame {
    fn reads(&mut self, other: Weight) {
        self.tables = self.tables.saturating_add(other.tables);
        self.source = self.source.max(other.columns);
    }

    fn weight(&self) -> Weight {
        Weight {
            tables: self.tables.max(1),
            columns: self.source.saturating_mul(self.item),
        }
    }
}

impl Visitor for Cost {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let mut names = Vec::new();
        if let Some(with) = &query.with {
            if with.recursive {
                return stop("WITH RECURSIVE is not allowed here", None);
            }
            let given = with.cte_tables.iter();
            names.extend(given.map(|table| known_as(&table.alias.name)));
        }
        forms::query(query)?;
        let (item, conditions) = forms::names_in(&query.body);
        self.queries_seen += 1;
        if self.queries.len() == QUERIES_DEEP_MAX {
            return stop(
                "too many queries stand within one another",
                Some("ask in several statements"),
            );
        }
        self.queries.push(Frame {
            tables: 0,
            source: 1,
            item,
            conditions,
            names: names.into_iter(),
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        let Some(frame) = self.queries.pop() else {
            return ControlFlow::Continue(());
        };
        let weight = frame.weight();
        let written = frame.source.saturating_mul(frame.conditions);
        if weight.columns.max(written) > COLUMNS_MAX {
            return stop(
                "columns are made of columns too often, one within the other",
                Some("use fewer queries within one another, or name each column once"),
            );
        }
        let Some(outer) = self.queries.last_mut() else {
            return within(frame.tables);
        };
        match outer.names.next() {
            Some(name) => {
                let known = self.named.entry(name).or_insert(weight);
                known.tables = known.tables.max(weight.tables);
                known.columns = known.columns.max(weight.columns);
            }
            None => outer.reads(weight),
        }
        within(weight.tables)
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Error> {
        self.tables_seen += 1;
        let name = last(relation);
        let named = self.named.get(&name).copied();
        // The engine has the tables by their names in lower case only.
        let is_table = relation.0.len() == 1
            && name.chars().all(|letter| !letter.is_uppercase())
            && catalog::find(&name).is_some();
        if named.is_none() && !is_table {
            return ControlFlow::Break(words::no_table(&relation.to_string()));
        }
        if let Some(frame) = self.queries.last_mut() {
            let table = Weight {
                tables: 1,
                columns: 1,
            };
            frame.reads(named.unwrap_or(table));
            return within(frame.tables);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        forms::table(factor)
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
        forms::expression(expr)?;
        self.text_joins += forms::text_joins(expr);
        if self.text_joins > TEXT_JOINS_MAX {
            return stop("the statement joins text too often", None);
        }
        let sets = forms::grouping_sets(expr).saturating_mul(self.grouping_sets.max(1));
        self.grouping_sets = sets;
        if sets > GROUPING_SETS_MAX {
            return stop(
                "the statement groups in too many ways",
                Some("ask in several statements"),
            );
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
