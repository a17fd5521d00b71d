//! Members of a JSON object that are taken where they have the type that is expected, and passed over as they are read where
//! they have not: nothing of a member that is not needed is built, however large it is.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A member of the expected type, or nothing: another version's shape must not lose the whole event.
#[derive(Debug)]
pub(super) struct Lenient<T>(Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Lenient<T> {
    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T: AsRef<str>> Lenient<T> {
    pub(super) fn text(&self) -> Option<Cow<'_, str>> {
        self.get().map(|text| Cow::Borrowed(text.as_ref()))
    }
}

/// What can be made of some kinds of JSON values, and of the others not.
pub(super) trait Expected<'de>: Sized {
    fn of_text(_text: &str) -> Option<Self> {
        None
    }

    fn of_borrowed(text: &'de str) -> Option<Self> {
        Self::of_text(text)
    }

    fn of_whole(_number: u64) -> Option<Self> {
        None
    }

    fn of_number(_number: f64) -> Option<Self> {
        None
    }

    /// Reads the object to its end in any case.
    fn of_object<A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl Expected<'_> for String {
    fn of_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl<'de: 'a, 'a> Expected<'de> for Cow<'a, str> {
    fn of_text(text: &str) -> Option<Self> {
        Some(Cow::Owned(text.to_owned()))
    }

    fn of_borrowed(text: &'de str) -> Option<Self> {
        Some(Cow::Borrowed(text))
    }
}

impl Expected<'_> for u64 {
    fn of_whole(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl Expected<'_> for f64 {
    fn of_whole(number: u64) -> Option<Self> {
        #[expect(clippy::cast_precision_loss, reason = "seconds are no exact numbers")]
        let number = number as Self;
        Some(number)
    }

    fn of_number(number: f64) -> Option<Self> {
        Some(number)
    }
}

impl<'de, T: Expected<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Taken(PhantomData))
    }
}

struct Taken<T>(PhantomData<T>);

impl<'de, T: Expected<'de>> Visitor<'de> for Taken<T> {
    type Value = Lenient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Lenient(None))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Lenient(None))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        #[expect(clippy::cast_precision_loss, reason = "seconds are no exact numbers")]
        let number = number as f64;
        Ok(Lenient(T::of_number(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Lenient(T::of_whole(number)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Lenient(T::of_number(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Lenient(T::of_text(text)))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Lenient(T::of_borrowed(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lenient(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        Ok(Lenient(T::of_object(object)?))
    }
}

/// Objects of which these members are taken.
macro_rules! members {
    ($($object:ident { $($name:ident: $kind:ty,)+ })+) => {$(
        #[derive(Debug, Default)]
        struct $object {
            $($name: $crate::event::lenient::Lenient<$kind>,)+
        }

        impl<'de> $crate::event::lenient::Expected<'de> for $object {
            fn of_object<A: serde::de::MapAccess<'de>>(
                mut object: A,
            ) -> Result<Option<Self>, A::Error> {
                let mut taken = Self::default();
                while let Some(name) = object.next_key::<std::borrow::Cow<'de, str>>()? {
                    match &*name {
                        $(stringify!($name) => taken.$name = object.next_value()?,)+
                        _ => drop(object.next_value::<serde::de::IgnoredAny>()?),
                    }
                }
                Ok(Some(taken))
            }
        }
    )+};
}

pub(super) use members;
