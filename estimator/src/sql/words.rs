//! The engine's errors in words for the person who wrote the statement, with the nearest name where one is wrong.

use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;

use super::functions;
use super::members::REFUSED;
use crate::error::Error;
use crate::table::Kind;

/// A name so far from every known one is no misspelling of it.
const TYPOS_MAX: usize = 3;

/// What an error of the engine means here.
pub(super) fn of(error: DataFusionError) -> Error {
    let root = error.find_root();
    if let DataFusionError::ParquetError(inner) = root
        // What a condition cannot compute is told by whoever reads the file, since it looks at the condition there.
        && let Some(told) = computed(inner)
    {
        return query(told, None);
    }
    match root {
        DataFusionError::ResourcesExhausted(_) => Error::OutOfMemory,
        // What a condition cannot compute is told by whoever reads the file, since it looks at the condition there.
        DataFusionError::ObjectStore(_)
        | DataFusionError::IoError(_)
        | DataFusionError::ParquetError(_) => Error::unreachable(error),
        DataFusionError::External(source) if source.is::<object_store::Error>() => {
            Error::unreachable(error)
        }
        DataFusionError::SQL(parser, _) => {
            let message = parser.to_string();
            let message = message.trim_start_matches("sql parser error: ");
            query(format!("the statement cannot be read: {message}"), None)
        }
        DataFusionError::SchemaError(schema, _) => schema_error(schema),
        DataFusionError::Plan(message)
        | DataFusionError::Execution(message)
        | DataFusionError::NotImplemented(message) => plan_error(message),
        DataFusionError::ArrowError(error, _) => query(arrow(error), None),
        DataFusionError::Internal(fault) => {
            tracing::warn!(fault, "the engine has met a fault of its own");
            query(
                "the engine has met a fault of its own and cannot answer this".to_owned(),
                Some(
                    "write it another way, such as with fewer queries within one another"
                        .to_owned(),
                ),
            )
        }
        other => query(other.strip_backtrace(), None),
    }
}

fn arrow(error: &ArrowError) -> String {
    let message = error.to_string();
    message.trim_start_matches("Cast error: ").to_owned()
}

/// What a condition on rows of a file could not compute; `None` where the file itself is the matter.
fn computed(error: &ParquetError) -> Option<String> {
    let ParquetError::External(wrapped) = error else {
        return None;
    };
    let ArrowError::ComputeError(told) = wrapped.downcast_ref::<ArrowError>()? else {
        return None;
    };
    // The engine tells its error as a programmer would write it; what is between quotation marks is for people.
    let told = told.strip_prefix("Error evaluating filter predicate: ")?;
    let sentence = told
        .split('"')
        .nth(1)
        .filter(|sentence| !sentence.is_empty());
    let unsaid = "a condition cannot be computed for some row, such as a division by zero";
    Some(sentence.unwrap_or(unsaid).to_owned())
}

/// There is no table of this name.
pub(super) fn no_table(name: &str) -> Error {
    let tables = Kind::ALL.map(Kind::name);
    let hint = match nearest(name, tables) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the tables are {}", tables.join(" and ")),
    };
    query(format!("there is no table `{}`", short(name)), Some(hint))
}

fn schema_error(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            let known: Vec<&str> = valid_fields
                .iter()
                .map(|field| field.name.as_str())
                .collect();
            let of_table = field.relation.as_ref().map(|table| table.table());
            let hint = match nearest(&field.name, known.iter().copied()) {
                Some(near) if near == field.name => of_table.map(|table| {
                    format!(
                        "`{}` is not to be reached here: what else is in FROM cannot use it",
                        short(table)
                    )
                }),
                Some(near) => Some(format!("did you mean `{near}`?")),
                None if known.is_empty() => None,
                None => Some(format!("the columns are {}", known.join(", "))),
            };
            let name = match of_table {
                Some(table) => format!("{}.{}", short(table), short(&field.name)),
                None => short(&field.name),
            };
            query(format!("there is no column `{name}`"), hint)
        }
        SchemaError::AmbiguousReference { field } => query(
            format!("the column `{}` is in several tables", short(&field.name)),
            Some(format!(
                "write the table before it, such as training_steps.{}",
                short(&field.name)
            )),
        ),
        other => query(other.to_string(), None),
    }
}

fn plan_error(message: &str) -> Error {
    let first = message.lines().next().unwrap_or_default();
    if let Some(name) = first
        .strip_prefix("Invalid function '")
        .and_then(|rest| rest.split('\'').next())
    {
        let known = functions::names();
        let hint = nearest(name, known.iter().map(String::as_str))
            .map(|near| format!("did you mean `{near}`?"));
        return query(format!("there is no function `{}` here", short(name)), hint);
    }
    if let Some((message, hint)) = REFUSED.into_iter().find(|(message, _)| first == *message) {
        return query(message.to_owned(), Some(hint.to_owned()));
    }
    if first.starts_with("Cannot access field at argument 1") {
        return query(
            "a name before a point is a column here, and has no parts".to_owned(),
            Some("a table has the name of a column: give the table another one with AS".to_owned()),
        );
    }
    if first.starts_with("Physical plan does not support logical expression") {
        return query(
            "a query in an expression cannot be answered where it stands".to_owned(),
            Some(
                "IN (query) and EXISTS work in WHERE and HAVING; elsewhere join the query, or ask for it in FROM".to_owned(),
            ),
        );
    }
    query(first.to_owned(), None)
}

fn query(message: String, hint: Option<String>) -> Error {
    Error::Query { message, hint }
}

/// Enough of a name to know it again.
fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The known name that a misspelt one is nearest to.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = short(name).to_lowercase();
    let distance = |other: &str| edits(&name, other);
    let (distance, near) = known
        .into_iter()
        .map(|other| (distance(other), other))
        .min()?;
    let part = near.contains(&name) && name.len() >= 3;
    (part || distance <= TYPOS_MAX && distance * 2 < name.len().max(2)).then_some(near)
}

/// How many letters must be added, dropped or changed to turn one text into the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut corner = row[0];
        row[0] = above + 1;
        for (index, other) in to.iter().enumerate() {
            let changed = corner + usize::from(letter != *other);
            corner = row[index + 1];
            row[index + 1] = changed.min(corner + 1).min(row[index] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_a_near_one() {
        let tables = Kind::ALL.map(Kind::name);
        for (name, near) in [
            ("trainig_steps", Some("training_steps")),
            ("TRAINING_STEP", Some("training_steps")),
            ("validation", Some("validation_prompts")),
            ("jobs", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, tables), near, "{name}");
        }
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
    }
}
