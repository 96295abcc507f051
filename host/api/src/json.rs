//! JSON as it came, with strings borrowed from the body where they hold no escapes: a picture in base64 is not copied before
//! it is decoded. Depth, number of values and repeated keys are looked at while parsing, so that what is refused is not built
//! first.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::error::{ApiError, excerpt};
use crate::limits::Limits;

/// A value of the body.
#[derive(Debug, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    /// Sorted: a repeated key is found in time whatever the number of keys.
    Object(BTreeMap<Cow<'a, str>, Json<'a>>),
}

impl Json<'_> {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(number) if number.is_f64() => "a decimal number",
            Json::Number(_) => "an integer",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        }
    }
}

/// serde_json gives up at 128, without naming a field.
const PARSER_DEPTH: usize = 120;

/// Parses a whole body.
pub(crate) fn parse<'a>(body: &'a [u8], limits: &Limits) -> Result<Json<'a>, ApiError> {
    if body.len() > limits.max_body_bytes {
        return Err(ApiError::too_large(
            None,
            format!(
                "The body has {} bytes; at most {} are allowed (max_body_bytes).",
                body.len(),
                limits.max_body_bytes
            ),
        ));
    }
    let budget = Budget {
        depth: limits.max_depth.min(PARSER_DEPTH),
        values: limits.max_values,
        seen: Cell::new(0),
        field: Cell::new(None),
        broken: Cell::new(None),
    };
    let mut parser = serde_json::Deserializer::from_slice(body);
    let parsed = Seed {
        budget: &budget,
        depth: 0,
    }
    .deserialize(&mut parser)
    .and_then(|value| parser.end().map(|()| value));
    parsed.map_err(|error| {
        budget
            .broken
            .take()
            .unwrap_or_else(|| ApiError::invalid_json(&error.to_string()))
    })
}

/// What is left of the limits while parsing, and what broke them.
struct Budget {
    depth: usize,
    values: usize,
    seen: Cell<usize>,
    /// The body's own key that is being read: the field that an error names.
    field: Cell<Option<String>>,
    broken: Cell<Option<ApiError>>,
}

impl Budget {
    /// Keeps the error that the client will see; serde only carries that there is one.
    fn refuse<E: Error>(&self, error: impl FnOnce(Option<String>) -> ApiError) -> E {
        self.broken.set(Some(error(self.field.take())));
        E::custom("refused")
    }
}

#[derive(Clone, Copy)]
struct Seed<'b> {
    budget: &'b Budget,
    /// Objects and arrays around the value.
    depth: usize,
}

impl Seed<'_> {
    fn count<E: Error>(&self) -> Result<(), E> {
        let budget = self.budget;
        budget.seen.set(budget.seen.get() + 1);
        if budget.seen.get() <= budget.values {
            return Ok(());
        }
        Err(budget.refuse(|field| {
            let message = format!(
                "The body holds too many JSON values; at most {} are allowed (max_values).",
                budget.values
            );
            ApiError::invalid("too_many_values", field, message)
        }))
    }

    /// The seed of what lies within.
    fn enter<E: Error>(self) -> Result<Self, E> {
        let budget = self.budget;
        if self.depth < budget.depth {
            return Ok(Seed {
                depth: self.depth + 1,
                ..self
            });
        }
        Err(budget.refuse(|field| {
            let message = format!(
                "The body is nested too deeply; at most {} objects and arrays may lie within each other (max_depth).",
                budget.depth
            );
            ApiError::invalid("nesting_too_deep", field, message)
        }))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        self.count().map(|()| Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json<'de>, E> {
        self.count().map(|()| Json::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json<'de>, E> {
        self.count().map(|()| Json::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json<'de>, E> {
        self.count().map(|()| Json::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json<'de>, E> {
        self.count()?;
        // JSON has no way to write anything else than a finite number.
        Number::from_f64(value)
            .map(Json::Number)
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Json<'de>, E> {
        self.count().map(|()| Json::String(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json<'de>, E> {
        self.count()
            .map(|()| Json::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        self.count()?;
        let inner = self.enter()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json<'de>, A::Error> {
        self.count()?;
        let inner = self.enter()?;
        let mut object = BTreeMap::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            if self.depth == 0 {
                self.budget.field.set(Some(excerpt(&key)));
            }
            // Two parsers on the way may each believe another of the two.
            if object.contains_key(&key) {
                return Err(self.budget.refuse(|field| {
                    let message = format!(
                        "The key '{}' appears twice in one object; leave one out.",
                        excerpt(&key)
                    );
                    ApiError::invalid("duplicate_key", field, message)
                }));
            }
            let value = entries.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Json::Object(object))
    }
}

/// A key, borrowed where it can be.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str, limits: &Limits) -> (u16, &'static str, Option<String>) {
        let error = parse(body.as_bytes(), limits).unwrap_err();
        (error.status, error.code, error.param)
    }

    #[test]
    fn strings_without_escapes_are_not_copied() {
        let borrowed = |body| match parse(body, &Limits::default()).unwrap() {
            Json::Object(object) => object.into_iter().all(|(key, value)| {
                matches!(key, Cow::Borrowed(_)) && matches!(value, Json::String(Cow::Borrowed(_)))
            }),
            _ => false,
        };
        assert!(borrowed(br#"{"a": "AAAA/+=="}"#));
        assert!(!borrowed(br#"{"a": "AAAA\/"}"#));
    }

    #[test]
    fn depth_is_counted_from_the_body_on() {
        let limits = Limits {
            max_depth: 2,
            ..Limits::default()
        };
        assert!(parse(br#"{"a": [1]}"#, &limits).is_ok());
        assert_eq!(
            refused(r#"{"b": 1, "a": [[]]}"#, &limits),
            (400, "nesting_too_deep", Some("a".into()))
        );
        // However high the limit is set.
        let limits = Limits {
            max_depth: usize::MAX,
            ..Limits::default()
        };
        let deep = "[".repeat(100_000);
        assert_eq!(refused(&deep, &limits), (400, "nesting_too_deep", None));
    }

    #[test]
    fn values_are_counted() {
        let limits = Limits {
            max_values: 4,
            ..Limits::default()
        };
        assert!(parse(br#"{"a": [1, 2]}"#, &limits).is_ok());
        assert_eq!(
            refused(r#"{"a": [1, 2, 3]}"#, &limits),
            (400, "too_many_values", Some("a".into()))
        );
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        let limits = Limits::default();
        for body in [
            "",
            "{",
            "{]",
            "nul",
            "{} {}",
            "{\"a\": 1e999}",
            "\"\\ud800\"",
        ] {
            assert_eq!(
                refused(body, &limits),
                (400, "invalid_json", None),
                "{body}"
            );
        }
        let error = parse(b"{\"a\": \xff}", &limits).unwrap_err();
        assert!(error.message.contains("line 1 column"), "{error}");
        assert_eq!(
            refused(r#"{"a": {"b": 1, "\u0062": 2}}"#, &limits),
            (400, "duplicate_key", Some("a".into()))
        );
    }
}
