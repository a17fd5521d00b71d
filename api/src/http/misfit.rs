//! Which member of a request is not what a call takes: found by the shapes of the document, and told by names that stand
//! there and never by a caller's own.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::route::Shape;

/// A member that is wrong, such as `wishes.priority`, and what is wrong with it. The name of the whole is empty.
pub(super) type Misfit = (String, String);

/// The first member of a body of the shape `T` that is none that it takes, is missing, or is of another kind. Of a member
/// whose name is the caller's own, as a data set's is, it is told what it is in. Nothing is found where another rule than a
/// shape's is broken.
pub(super) fn of_body<T: Shape>(body: &Value) -> Option<Misfit> {
    of(body, &shape::<T>()?, "")
}

/// The same of a parameter behind the question mark.
pub(super) fn of_query<T: Shape>(pairs: &[(String, String)]) -> Option<Misfit> {
    let shape = shape::<T>()?;
    let wrong = |(name, text): &(String, String)| {
        let Some(schema) = shape["properties"].get(name) else {
            return unknown(&shape).map(|what| (String::new(), what));
        };
        let value = match kind(schema)? {
            "string" => return None,
            _ => serde_json::from_str(text).unwrap_or(Value::Null),
        };
        let fits = !value.is_null() && of(&value, schema, "").is_none();
        (!fits).then(|| (name.clone(), takes(schema)))
    };
    pairs.iter().find_map(wrong)
}

/// The shape with what each member is where it stands.
fn shape<T: Shape>() -> Option<Value> {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    T::schema(&mut settings.into_generator()).map(Value::from)
}

fn of(value: &Value, schema: &Value, field: &str) -> Option<Misfit> {
    // What is anything, or one of several shapes, is not looked into.
    let kind = kind(schema)?;
    if value.is_null() && kinds(schema).any(|kind| kind == "null") {
        return None;
    }
    match (kind, value) {
        ("object", Value::Object(members)) => of_members(members, schema, field),
        ("array", Value::Array(items)) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(at, item)| of(item, &schema["items"], &format!("{field}[{at}]")))
        }
        ("string", Value::String(_))
        | ("boolean", Value::Bool(_))
        | ("number", Value::Number(_)) => None,
        ("integer", Value::Number(number)) if is_within(number, schema) => None,
        _ => Some((field.to_owned(), takes(schema))),
    }
}

fn of_members(members: &Map<String, Value>, schema: &Value, field: &str) -> Option<Misfit> {
    let wrong = |(name, value): (&String, &Value)| {
        if let Some(schema) = schema["properties"].get(name) {
            let between = if field.is_empty() { "" } else { "." };
            return of(value, schema, &format!("{field}{between}{name}"));
        }
        let what = match unknown(schema) {
            Some(what) => what,
            None => {
                let (_, what) = of(value, &schema["additionalProperties"], "")?;
                format!("one of its members is wrong: {what}")
            }
        };
        Some((field.to_owned(), what))
    };
    let missing = || {
        let mut needed = schema["required"]
            .as_array()?
            .iter()
            .filter_map(Value::as_str);
        let name = needed.find(|name| !members.contains_key(*name))?;
        Some((field.to_owned(), format!("`{name}` is missing")))
    };
    members.iter().find_map(wrong).or_else(missing)
}

/// That a member is none of a shape, if no other may be there.
fn unknown(schema: &Value) -> Option<String> {
    if schema["additionalProperties"] != Value::Bool(false) {
        return None;
    }
    let names = schema["properties"].as_object()?.keys();
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    let one_of = if names.len() > 1 { "one of " } else { "" };
    let names = names.join(", ");
    Some(format!(
        "a member of it is none that this call takes: write {one_of}{names}"
    ))
}

/// What a schema takes, and null besides where it may be that.
fn kinds(schema: &Value) -> impl Iterator<Item = &str> {
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.as_slice(),
        kind => std::slice::from_ref(kind),
    };
    kinds.iter().filter_map(Value::as_str)
}

fn kind(schema: &Value) -> Option<&str> {
    kinds(schema).find(|kind| *kind != "null")
}

/// The bounds of a whole number, by the name of its size.
fn bounds(schema: &Value) -> (i128, i128) {
    match schema["format"].as_str() {
        Some("uint8") => (0, u8::MAX.into()),
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("uint64" | "uint") => (0, u64::MAX.into()),
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

fn is_within(number: &serde_json::Number, schema: &Value) -> bool {
    let (least, most) = bounds(schema);
    let whole = number.as_i128();
    whole.is_some_and(|whole| (least..=most).contains(&whole))
}

/// What a member takes, in words.
fn takes(schema: &Value) -> String {
    let what = match kind(schema).unwrap_or_default() {
        "integer" => match bounds(schema) {
            (0, most) if most == u64::MAX.into() => "a whole number from 0",
            (least, _) if least == i64::MIN.into() => "a whole number",
            (least, most) => return format!("it takes a whole number from {least} to {most}"),
        },
        "number" => "a number",
        "string" => "a text",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "an object",
        _ => "something else",
    };
    format!("it takes {what}")
}
