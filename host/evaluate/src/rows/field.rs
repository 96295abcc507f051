//! A value as a field of a CSV file, and back.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Class, Route, Status};
use crate::plan::Purpose;

pub(crate) trait Field: Sized {
    fn text(&self) -> String;
    /// What is allowed, if it is not this.
    fn of(text: &str) -> Result<Self, &'static str>;
    /// It is no number of anything.
    fn is_odd(&self) -> bool {
        false
    }
}

pub(crate) fn read<T: Field>(name: &str, text: Option<&str>) -> Result<T, String> {
    let text = text.ok_or_else(|| format!("has no {name}"))?;
    T::of(text).map_err(|allowed| {
        let text: String = text.chars().take(60).collect();
        format!("has {name} {text:?}; allowed: {allowed}")
    })
}

impl Field for String {
    fn text(&self) -> String {
        self.clone()
    }

    fn of(text: &str) -> Result<String, &'static str> {
        Ok(text.to_owned())
    }
}

macro_rules! whole {
    ($($kind:ty),*) => {$(
        impl Field for $kind {
            fn text(&self) -> String {
                self.to_string()
            }

            fn of(text: &str) -> Result<$kind, &'static str> {
                text.parse().map_err(|_| "a whole number, 0 or more")
            }
        }
    )*};
}
whole!(u32, u64);

impl Field for f64 {
    /// The shortest text that reads as the same number.
    fn text(&self) -> String {
        self.to_string()
    }

    fn of(text: &str) -> Result<f64, &'static str> {
        const ALLOWED: &str = "a finite number, 0 or more";
        let value: f64 = text.parse().map_err(|_| ALLOWED)?;
        if value.is_odd() {
            Err(ALLOWED)
        } else {
            Ok(value)
        }
    }

    fn is_odd(&self) -> bool {
        !self.is_finite() || *self < 0.0
    }
}

impl Field for bool {
    fn text(&self) -> String {
        self.to_string()
    }

    fn of(text: &str) -> Result<bool, &'static str> {
        text.parse().map_err(|_| "true or false")
    }
}

impl<T: Field> Field for Option<T> {
    fn text(&self) -> String {
        self.as_ref().map_or(String::new(), T::text)
    }

    fn of(text: &str) -> Result<Option<T>, &'static str> {
        if text.is_empty() {
            return Ok(None);
        }
        T::of(text).map(Some)
    }

    fn is_odd(&self) -> bool {
        self.as_ref().is_some_and(T::is_odd)
    }
}

/// The word that serde has for it.
pub(crate) fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

fn of_word<T: DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(Value::String(word.to_owned())).ok()
}

macro_rules! words {
    ($($kind:ty: $allowed:literal),*) => {$(
        impl Field for $kind {
            fn text(&self) -> String {
                word(self)
            }

            fn of(text: &str) -> Result<$kind, &'static str> {
                of_word(text).ok_or($allowed)
            }
        }
    )*};
}
words!(
    Purpose: "timed or accuracy",
    Status: "answered, shed, late or failed",
    Route: "edge, cloud, cloud-draft or speculate",
    Class: "exact, confident or edge"
);
