//! The OpenAPI document: made of the same routes that are served, and of the shapes that are read and written.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::answer::Refused;
use super::route::{EVENTS, Route, Shape};

/// Statuses that any call may end with, whatever it is about.
const ALWAYS: [u16; 6] = [400, 408, 413, 429, 500, 503];

/// A document in the making.
pub(crate) struct Document {
    paths: Map<String, Value>,
    generator: SchemaGenerator,
}

impl Default for Document {
    fn default() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
        });
        Self {
            paths: Map::new(),
            generator: settings.into_generator(),
        }
    }
}

impl Document {
    /// Adds a route with these parameters, this body and this answer.
    pub(crate) fn add<Q: Shape, B: Shape, A: JsonSchema>(&mut self, route: &Route) {
        let mut operation = json!({
            "summary": route.summary,
            "operationId": name_of(route),
            "parameters": self.parameters::<Q>(route.path),
            "responses": self.responses::<A>(route),
        });
        match route.permission {
            Some(permission) => {
                operation["security"] = json!([{"bearer": []}]);
                operation["x-permission"] = permission.name().into();
            }
            None => operation["security"] = json!([]),
        }
        if let Some(schema) = B::schema(&mut self.generator) {
            let is_required = !route.body_may_be_missing;
            operation["requestBody"] = json!({"required": is_required, "content": {"application/json": {"schema": schema}}});
        }
        let path = self.paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation;
    }

    fn parameters<Q: Shape>(&mut self, path: &str) -> Vec<Value> {
        let names = path.split('/').filter_map(|part| {
            let name = part.strip_prefix('{')?.strip_suffix('}')?;
            Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}))
        });
        let mut parameters: Vec<Value> = names.collect();
        // In a generator of its own: parameters are no components.
        let mut generator = SchemaSettings::draft2020_12()
            .with(|settings| settings.inline_subschemas = true)
            .into_generator();
        let schema = Q::schema(&mut generator).map(Value::from);
        let properties = schema
            .as_ref()
            .and_then(|schema| schema["properties"].as_object());
        let required = schema
            .as_ref()
            .and_then(|schema| schema["required"].as_array());
        for (name, shape) in properties.into_iter().flatten() {
            let required = required.is_some_and(|names| names.iter().any(|one| one == name));
            parameters
                .push(json!({"name": name, "in": "query", "required": required, "schema": shape}));
        }
        parameters
    }

    fn responses<A: JsonSchema>(&mut self, route: &Route) -> Value {
        let answer = Value::from(self.generator.subschema_for::<A>());
        // Of a stream it is one event, and its data are the answer as text.
        let answer = if route.kind == EVENTS {
            json!({
                "type": "object",
                "properties": {
                    "event": {"type": "string"},
                    "id": {"type": "string"},
                    "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": answer},
                },
            })
        } else {
            answer
        };
        let refused = self.generator.subschema_for::<Refused>();
        let mut responses = json!({
            route.status.to_string(): {
                "description": "What was asked for.",
                "content": {route.kind: {"schema": answer}},
            }
        });
        let mut refusals = ALWAYS.to_vec();
        if route.permission.is_some() {
            refusals.extend([401, 403]);
        } else {
            refusals.push(401);
        }
        refusals.extend([404, 409, 504]);
        for status in refusals {
            responses[status.to_string()] = json!({
                "description": "Refused.",
                "content": {"application/json": {"schema": refused}},
            });
        }
        responses
    }

    /// The whole document.
    pub(crate) fn text(&self) -> String {
        let mut document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Stepcast",
                "version": env!("CARGO_PKG_VERSION"),
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": self.paths,
            "components": {
                "schemas": self.generator.definitions(),
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
        });
        write_plainly(&mut document);
        document.to_string()
    }
}

/// Writes out what programs that read the document take in another sense, or not at all. That a member is null unless given
/// stands nowhere: where null takes a wish back, it is the opposite of leaving the member out. And a schema that anything
/// meets is an empty object, which means the same as `true` and is known to every generator.
fn write_plainly(value: &mut Value) {
    let anything = |schema: &mut Value| {
        if *schema == Value::Bool(true) {
            *schema = json!({});
        }
    };
    match value {
        Value::Object(members) => {
            if members.get("default").is_some_and(Value::is_null) {
                members.remove("default");
            }
            for name in ["schema", "contentSchema", "items"] {
                if let Some(schema) = members.get_mut(name) {
                    anything(schema);
                }
            }
            if let Some(Value::Object(properties)) = members.get_mut("properties") {
                properties.values_mut().for_each(anything);
            }
            members.values_mut().for_each(write_plainly);
        }
        Value::Array(items) => items.iter_mut().for_each(write_plainly),
        _ => {}
    }
}

/// A name for programs that are made of the document, such as `get_jobs_id_logs`.
fn name_of(route: &Route) -> String {
    let path = route.path.trim_start_matches("/v1");
    let words = path.replace(['{', '}', '.'], "").replace('/', "_");
    format!("{}{words}", route.method.as_str().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_member_is_null_unless_given_and_anything_is_an_empty_schema() {
        let mut document = json!({
            "required": true,
            "schema": true,
            "properties": {"default": {"type": "null", "default": null}, "any": true, "list": {"items": true}},
            "anyOf": [{"default": false}, {"additionalProperties": false}],
        });
        write_plainly(&mut document);
        let plain = json!({
            "required": true,
            "schema": {},
            "properties": {"default": {"type": "null"}, "any": {}, "list": {"items": {}}},
            "anyOf": [{"default": false}, {"additionalProperties": false}],
        });
        assert_eq!(document, plain);
    }
}
