//! Values with the place where they stand, so that every error names its field.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::{ApiError, excerpt};
use crate::json::Json;

/// A value that is there and is not null, and where it stands in the body, such as `messages[0].content`.
#[derive(Debug)]
pub(super) struct Field<'a> {
    pub path: String,
    pub value: Json<'a>,
}

impl<'a> Field<'a> {
    pub fn wrong(&self, expected: &str) -> ApiError {
        ApiError::wrong_type(&self.path, expected, self.value.kind())
    }

    pub fn object(self) -> Result<Fields<'a>, ApiError> {
        match self.value {
            Json::Object(entries) => Ok(Fields {
                path: self.path,
                entries,
            }),
            _ => Err(self.wrong("an object")),
        }
    }

    /// The elements, at most `limit` of them; `setting` is the limit's name.
    pub fn array(self, setting: &str, limit: usize) -> Result<Vec<Field<'a>>, ApiError> {
        let Json::Array(items) = self.value else {
            return Err(self.wrong("an array"));
        };
        if items.len() > limit {
            return Err(ApiError::too_many(&self.path, setting, limit, items.len()));
        }
        let named = items.into_iter().enumerate().map(|(index, value)| Field {
            path: format!("{}[{index}]", self.path),
            value,
        });
        Ok(named.collect())
    }

    pub fn string(self) -> Result<Cow<'a, str>, ApiError> {
        match self.value {
            Json::String(text) => Ok(text),
            _ => Err(self.wrong("a string")),
        }
    }

    /// A string of at least one byte and at most `limit`; `setting` is the limit's name.
    pub fn bounded_string(self, setting: &str, limit: usize) -> Result<String, ApiError> {
        let path = self.path.clone();
        let text = self.string()?;
        match text.len() {
            0 => Err(ApiError::empty_string(&path)),
            bytes if bytes > limit => Err(ApiError::too_long(&path, setting, limit, bytes)),
            _ => Ok(text.into_owned()),
        }
    }

    pub fn boolean(self) -> Result<bool, ApiError> {
        match self.value {
            Json::Bool(value) => Ok(value),
            _ => Err(self.wrong("a boolean")),
        }
    }

    pub fn number(self) -> Result<f64, ApiError> {
        match &self.value {
            Json::Number(number) => number.as_f64().ok_or_else(|| self.wrong("a number")),
            _ => Err(self.wrong("a number")),
        }
    }

    pub fn integer(&self) -> Result<i128, ApiError> {
        let integer = match &self.value {
            Json::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => Some(value.into()),
                (None, Some(value)) => Some(value.into()),
                (None, None) => None,
            },
            _ => None,
        };
        integer.ok_or_else(|| self.wrong("an integer"))
    }

    pub fn integer_within(self, least: u32, most: u32) -> Result<u32, ApiError> {
        let value = self.integer()?;
        match u32::try_from(value) {
            Ok(value) if (least..=most).contains(&value) => Ok(value),
            _ if value < i128::from(least) => Err(ApiError::below(&self.path, least, value)),
            _ => Err(ApiError::above(&self.path, most, value)),
        }
    }
}

/// An object whose fields are taken out one by one, so that what nobody has asked for is found at the end.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: String,
    entries: BTreeMap<Cow<'a, str>, Json<'a>>,
}

impl<'a> Fields<'a> {
    /// The body as a whole.
    pub fn body(value: Json<'a>) -> Result<Self, ApiError> {
        match value {
            Json::Object(entries) => Ok(Fields {
                path: String::new(),
                entries,
            }),
            other => {
                let message = format!("The body must be a JSON object, but is {}.", other.kind());
                Err(ApiError::invalid("invalid_type", None, message))
            }
        }
    }

    /// Where a field of this object stands.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A field, unless it is absent or null, which OpenAI's API takes for the same.
    pub fn take(&mut self, name: &str) -> Option<Field<'a>> {
        match self.entries.remove(name)? {
            Json::Null => None,
            value => Some(Field {
                path: self.path_of(name),
                value,
            }),
        }
    }

    /// A field that must be there.
    pub fn require(&mut self, name: &str) -> Result<Field<'a>, ApiError> {
        self.take(name)
            .ok_or_else(|| ApiError::missing(&self.path_of(name)))
    }

    /// Lets fields pass, whatever they hold.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.entries.remove(*name);
        }
    }

    /// Refuses what nobody has asked for.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.entries.keys().next() {
            None => Ok(()),
            Some(key) => Err(ApiError::unknown_parameter(&self.path_of(&excerpt(key)))),
        }
    }
}
