//! Objects of which only what is given is meant: what is not stays as it is.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// What is given, and what it is called; what is given as null is taken back, where there is something to take back.
#[derive(Debug, Clone)]
pub(crate) struct Given<T> {
    pub(crate) what: T,
    /// Of all that is given.
    pub(crate) names: Vec<String>,
    /// Of what is given as null, among them.
    nulls: Vec<String>,
}

impl<T> Given<T> {
    /// The same without what is given as null: where nothing was before, that is as if it were not given.
    pub(crate) fn without_nulls(mut self) -> Self {
        self.names.retain(|name| !self.nulls.contains(name));
        self.nulls.clear();
        self
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let members = Map::<String, Value>::deserialize(reader)?;
        let names = members.keys().cloned().collect();
        let nulls = members.iter().filter(|(_, value)| value.is_null());
        let nulls = nulls.map(|(name, _)| name.clone()).collect();
        let what = T::deserialize(Value::Object(members)).map_err(D::Error::custom)?;
        Ok(Self { what, names, nulls })
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
