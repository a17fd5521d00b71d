//! Objects of which only what is given is meant: what is not stays as it is.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// What is given, and what it is called; what is given as null is taken back.
#[derive(Debug, Clone)]
pub(crate) struct Given<T> {
    pub(crate) what: T,
    pub(crate) names: Vec<String>,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let members = Map::<String, Value>::deserialize(reader)?;
        let names = members.keys().cloned().collect();
        let what = T::deserialize(Value::Object(members)).map_err(D::Error::custom)?;
        Ok(Self { what, names })
    }
}

/// In the document it is what it holds.
impl<T: JsonSchema> JsonSchema for Given<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }
}
