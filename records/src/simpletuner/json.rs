//! A JSON value that borrows its texts from the file it was read from: a configuration is read and forgotten.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'a, str>),
    Array(Vec<Self>),
    Object(Map<'a>),
}

/// An object's keys in the order in which they are written. Of a key that is written twice the later value counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Map<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'a> Value<'a> {
    /// The value of a key; `None` for what is no object.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(map) => map.get(key),
            _ => None,
        }
    }

    /// The first value of an array; `None` for what is none.
    pub(super) fn first(&self) -> Option<&Self> {
        match self {
            Self::Array(values) => values.first(),
            _ => None,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }
}

impl<'a> Map<'a> {
    /// Looks through the keys: objects of configurations are small, and a search costs less than a table would.
    pub(super) fn get(&self, key: &str) -> Option<&Value<'a>> {
        let mut entries = self.0.iter().rev();
        entries
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    pub(super) fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The keys, one that is written twice twice.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a key's value out.
    pub(super) fn remove(&mut self, key: &str) -> Option<Value<'a>> {
        let mut removed = None;
        self.0
            .extract_if(.., |(name, _)| name == key)
            .for_each(|(_, value)| removed = Some(value));
        removed
    }

    /// Adds a key behind all others.
    pub(super) fn push(&mut self, key: Cow<'a, str>, value: Value<'a>) {
        self.0.push((key, value));
    }
}

impl<'a> IntoIterator for Map<'a> {
    type Item = (Cow<'a, str>, Value<'a>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for Map<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match from.deserialize_map(Any)? {
            Value::Object(map) => Ok(map),
            _ => Err(serde::de::Error::custom("an object belongs here")),
        }
    }
}

/// A key or text, borrowed where nothing in it is escaped.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        from.deserialize_str(Borrowing)
    }
}

/// Takes whatever value comes.
struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::String(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Value::String(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = Vec::new();
        while let Some(Text(key)) = entries.next_key()? {
            map.push((key, entries.next_value()?));
        }
        Ok(Value::Object(Map(map)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_written() {
        let text = r#"{"a": [null, true, -1, 1.50, "x", "\u00e9\n"], "b": {}, "a": 7, "c": 18446744073709551615}"#;
        let value: Value<'_> = serde_json::from_str(text).expect("it is JSON");
        let Value::Object(mut map) = value else {
            panic!("an object")
        };
        assert_eq!(map.keys().collect::<Vec<_>>(), ["a", "b", "a", "c"]);
        assert_eq!(
            map.get("a").and_then(Value::as_u64),
            Some(7),
            "the later one counts"
        );
        assert_eq!(map.get("c").and_then(Value::as_u64), Some(u64::MAX));
        assert_eq!(map.remove("a").and_then(|value| value.as_u64()), Some(7));
        assert!(!map.contains_key("a") && map.keys().count() == 2 && !map.is_empty());
        let list = serde_json::from_str::<Value<'_>>(text).expect("it is JSON");
        let Value::Object(map) = list else {
            panic!("an object")
        };
        let first = map.into_iter().next().expect("a first key").1;
        assert_eq!(first.first(), Some(&Value::Null));
        let Value::Array(list) = first else {
            panic!("an array")
        };
        assert_eq!(list[1], Value::Bool(true));
        let said = |value: &Value<'_>| match value {
            Value::Number(number) => number.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        };
        assert_eq!(
            list.iter().skip(2).map(said).collect::<Vec<_>>(),
            ["-1", "1.5", "x", "é\n"]
        );
        assert!(
            matches!(&list[4], Value::String(Cow::Borrowed("x"))),
            "nothing is copied"
        );
    }

    #[test]
    fn nesting_is_bounded_by_the_reader_of_json() {
        let deep = "[".repeat(100_000);
        assert!(serde_json::from_str::<Value<'_>>(&deep).is_err());
    }
}
