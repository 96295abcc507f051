//! Holds an answer against what a case expects, and shows where they part.
//!
//! An expectation looks like the answer and may leave out what does not matter. In place of a value may stand a check:
//!
//! | check | holds for |
//! |---|---|
//! | `{ min = 1, max = 2 }` | numbers from 1 to 2; either end may be left out |
//! | `{ near = 5, within = 0.1 }` | numbers from 4.9 to 5.1 |
//! | `{ one-of = ["edge", "cloud"] }` | any of these values |
//! | `{ not = "cloud" }` | any value but this |
//! | `{ contains = "slow" }` | texts that contain it; lists that contain the value |
//! | `{ length = 3 }` | lists of three; the length may itself be a check |

use serde_json::{Map, Value};
use similar::{ChangeTag, TextDiff};

use super::sparse::unknown;

const CHECKS: [&str; 8] = [
    "min", "max", "near", "within", "one-of", "not", "contains", "length",
];

/// A place where an answer is not as expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// Where, for instance `parts[1].target.keep`; empty for the whole answer.
    pub at: String,
    /// What was expected there.
    pub expected: String,
    /// What was there.
    pub found: String,
}

fn is_check(table: &Map<String, Value>) -> bool {
    !table.is_empty() && table.keys().all(|key| CHECKS.contains(&key.as_str()))
}

/// Equal, 1 and 1.0 alike.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y || (x.as_f64().is_some() && x.as_f64() == y.as_f64())
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y))
        }
        _ => a == b,
    }
}

/// One line for people.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{text}\""),
        Value::Object(table) if is_check(table) => described(table),
        Value::Null => "nothing".to_owned(),
        Value::Array(list) if list.len() > 16 => format!("a list of {}", list.len()),
        other => other.to_string(),
    }
}

fn described(check: &Map<String, Value>) -> String {
    let get = |name: &str| check.get(name).map(shown);
    let mut said = Vec::new();
    match (get("min"), get("max")) {
        (Some(min), Some(max)) => said.push(format!("{min} to {max}")),
        (Some(min), None) => said.push(format!("at least {min}")),
        (None, Some(max)) => said.push(format!("at most {max}")),
        (None, None) => {}
    }
    if let Some(near) = get("near") {
        said.push(format!(
            "{near} ± {}",
            get("within").unwrap_or("0".to_owned())
        ));
    }
    if let Some(list) = check.get("one-of").and_then(Value::as_array) {
        let list: Vec<String> = list.iter().map(shown).collect();
        said.push(format!("one of {}", list.join(", ")));
    }
    if let Some(not) = get("not") {
        said.push(format!("not {not}"));
    }
    if let Some(part) = get("contains") {
        said.push(format!("containing {part}"));
    }
    if let Some(length) = get("length") {
        said.push(format!("of length {length}"));
    }
    said.join(" and ")
}

fn holds(check: &Map<String, Value>, found: &Value) -> bool {
    check.iter().all(|(name, wanted)| {
        let numbers = found.as_f64().zip(wanted.as_f64());
        match name.as_str() {
            "min" => numbers.is_some_and(|(found, wanted)| found >= wanted),
            "max" => numbers.is_some_and(|(found, wanted)| found <= wanted),
            "near" => numbers.is_some_and(|(found, wanted)| {
                let within = check.get("within").and_then(Value::as_f64).unwrap_or(0.0);
                (found - wanted).abs() <= within
            }),
            "within" => check.contains_key("near"),
            "one-of" => {
                (wanted.as_array()).is_some_and(|list| list.iter().any(|value| equal(value, found)))
            }
            "not" => !equal(wanted, found),
            "contains" => match (found, wanted) {
                (Value::String(found), Value::String(wanted)) => found.contains(wanted.as_str()),
                (Value::Array(found), wanted) => found.iter().any(|value| equal(value, wanted)),
                _ => false,
            },
            "length" => found.as_array().is_some_and(|list| {
                let length = Value::from(list.len());
                match wanted {
                    Value::Object(inner) => holds(inner, &length),
                    wanted => equal(wanted, &length),
                }
            }),
            _ => false,
        }
    })
}

fn walk(expected: &Value, found: &Value, at: &str, mismatches: &mut Vec<Mismatch>) {
    let mut miss = |expected: String, found: String| {
        mismatches.push(Mismatch {
            at: at.to_owned(),
            expected,
            found,
        });
    };
    match (expected, found) {
        (Value::Object(check), found) if is_check(check) && !found.is_object() => {
            if !holds(check, found) {
                miss(described(check), shown(found));
            }
        }
        (Value::Object(expected), Value::Object(found)) => {
            for (key, expected) in expected {
                let below = match at {
                    "" => key.clone(),
                    at => format!("{at}.{key}"),
                };
                match found.get(key) {
                    Some(found) => walk(expected, found, &below, mismatches),
                    None => mismatches.push(Mismatch {
                        at: below,
                        expected: shown(expected),
                        found: unknown(key, found.keys().map(String::as_str)),
                    }),
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            if expected.len() != found.len() {
                miss(
                    format!("{} entries", expected.len()),
                    format!("{} entries", found.len()),
                );
            }
            for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
                walk(expected, found, &format!("{at}[{i}]"), mismatches);
            }
        }
        (expected, found) => {
            if !equal(expected, found) {
                miss(shown(expected), shown(found));
            }
        }
    }
}

/// Where `found` is not as `expected`; empty when it is.
pub fn compare(expected: &Value, found: &Value) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    walk(expected, found, "", &mut mismatches);
    mismatches
}

/// One `name = value` a line, nested names joined by dots.
pub fn flat(value: &Value) -> Vec<(String, String)> {
    fn go(value: &Value, at: &str, lines: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    let below = match at {
                        "" => key.clone(),
                        at => format!("{at}.{key}"),
                    };
                    go(value, &below, lines);
                }
            }
            Value::Array(list) if list.iter().any(Value::is_object) => {
                for (i, value) in list.iter().enumerate() {
                    go(value, &format!("{at}[{i}]"), lines);
                }
            }
            value => lines.push((at.to_owned(), shown(value))),
        }
    }
    let mut lines = Vec::new();
    go(value, "", &mut lines);
    lines
}

fn line(name: &str, value: &str) -> String {
    match name {
        "" => format!("{value}\n"),
        name => format!("{name} = {value}\n"),
    }
}

/// The answer with lines that were expected otherwise marked `-` (expected) and `+` (found), two lines of the rest around
/// them.
pub fn diff(found: &Value, mismatches: &[Mismatch]) -> String {
    let lines = flat(found);
    let right: String = lines
        .iter()
        .map(|(name, value)| line(name, value))
        .collect();
    let mut left = String::new();
    let mut told = vec![false; mismatches.len()];
    for (name, value) in &lines {
        let mut expected = None;
        for (mismatch, told) in mismatches.iter().zip(&mut told) {
            // A list of numbers is one line; what is wrong inside it stands there.
            let inside = mismatch
                .at
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.starts_with('['));
            if mismatch.at == *name || inside {
                *told = true;
                let place = mismatch.at.strip_prefix(name.as_str()).unwrap_or_default();
                let said = match place {
                    "" => mismatch.expected.clone(),
                    place => format!("{} at {place}", mismatch.expected),
                };
                expected = Some(match expected {
                    None => said,
                    Some(before) => format!("{before}, {said}"),
                });
            }
        }
        left.push_str(&line(name, expected.as_ref().unwrap_or(value)));
    }
    let diff = TextDiff::from_lines(&left, &right);
    let mut text = String::new();
    for (i, group) in diff.grouped_ops(2).iter().enumerate() {
        if i > 0 {
            text.push_str("  ...\n");
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Delete => "- ",
                ChangeTag::Insert => "+ ",
                ChangeTag::Equal => "  ",
            };
            text.push_str(sign);
            text.push_str(change.value());
        }
    }
    for (mismatch, _) in mismatches.iter().zip(&told).filter(|(_, told)| !**told) {
        text.push_str(&format!(
            "- {}! {}\n",
            line(&mismatch.at, &mismatch.expected).replace('\n', "\n  "),
            mismatch.found
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(expected: Value, found: &Value) -> Vec<String> {
        compare(&expected, found)
            .into_iter()
            .map(|mismatch| mismatch.at)
            .collect()
    }

    #[test]
    fn what_is_left_out_does_not_matter_and_what_is_said_does() {
        let found = json!({
            "route": "edge", "gamma-max": 4, "patience-ms": 100.0, "memo": [1, 2, 3],
            "parts": [{ "target": { "keep": 0.5 } }], "terms": { "upload-ms": 12.5 },
        });
        for holds in [
            json!({}),
            json!({ "route": "edge", "gamma-max": 4.0 }),
            json!({ "route": { "one-of": ["edge", "cloud"] } }),
            json!({ "route": { "not": "cloud" } }),
            json!({ "patience-ms": { "min": 100, "max": 100 } }),
            json!({ "terms": { "upload-ms": { "near": 12, "within": 0.5 } } }),
            json!({ "memo": { "length": { "min": 3 }, "contains": 2 } }),
            json!({ "parts": [{ "target": { "keep": { "max": 0.5 } } }] }),
        ] {
            assert_eq!(compare(&holds, &found), [], "{holds}");
        }
        assert_eq!(at(json!({ "route": "cloud" }), &found), ["route"]);
        assert_eq!(
            at(json!({ "patience-ms": { "min": 101 } }), &found),
            ["patience-ms"]
        );
        assert_eq!(at(json!({ "route": { "min": 1 } }), &found), ["route"]);
        assert_eq!(at(json!({ "memo": [1, 5, 3] }), &found), ["memo[1]"]);
        assert_eq!(at(json!({ "memo": [1] }), &found), ["memo"]);
        assert_eq!(
            at(json!({ "parts": [{ "target": { "keep": 1 } }] }), &found),
            ["parts[0].target.keep"]
        );
        let mismatches = compare(&json!({ "gama-max": 1 }), &found);
        assert!(mismatches[0].found.contains("did you mean \"gamma-max\"?"));
        // A range with only a width says nothing, so it does not hold.
        assert_eq!(
            at(json!({ "gamma-max": { "within": 1 } }), &found),
            ["gamma-max"]
        );
    }

    #[test]
    fn a_diff_shows_the_wrong_lines_among_their_neighbours() {
        let found = json!({ "a": 1, "b": 2, "c": 3, "d": [1, 2], "e": 5, "f": 6, "route": "edge" });
        let mismatches = compare(
            &json!({ "route": "cloud", "a": { "min": 4 }, "x": 1 }),
            &found,
        );
        let text = diff(&found, &mismatches);
        assert!(
            text.contains("- a = at least 4\n+ a = 1\n  b = 2\n  c = 3\n  ...\n"),
            "{text}"
        );
        assert!(
            text.contains("  f = 6\n- route = \"cloud\"\n+ route = \"edge\"\n"),
            "{text}"
        );
        assert!(text.contains("- x = 1\n  ! there is no \"x\""), "{text}");
        assert!(!text.contains("d ="), "{text}");
        let text = diff(&json!("send"), &compare(&json!("draft"), &json!("send")));
        assert_eq!(text, "- \"draft\"\n+ \"send\"\n");
    }
}
