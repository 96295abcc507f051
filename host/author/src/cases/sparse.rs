//! Fields given sparsely over a default, words instead of numbers where the contract has numbers.

use anyhow::{Context, bail};
use msao_core::offload::{capability, flag, kind, modality, overrides};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Words for a number of the contract.
struct Words {
    field: &'static str,
    words: &'static [(&'static str, u32)],
    /// Whether the number is made of bits, so that several words may be given.
    bits: bool,
}

const WORDS: [Words; 6] = [
    Words {
        field: "modality",
        words: &[
            ("text", modality::TEXT as u32),
            ("image", modality::IMAGE as u32),
            ("video", modality::VIDEO as u32),
            ("audio", modality::AUDIO as u32),
        ],
        bits: false,
    },
    Words {
        field: "flags",
        words: &[
            ("exact", flag::EXACT),
            ("media-at-edge", flag::MEDIA_AT_EDGE),
            ("logprobs", flag::LOGPROBS),
            ("streamed", flag::STREAMED),
            ("probed", flag::PROBED),
        ],
        bits: true,
    },
    Words {
        field: "can",
        words: &[
            ("draft", capability::DRAFT),
            ("target", capability::TARGET),
            ("verify", capability::VERIFY),
            ("same-tokenizer", capability::SAME_TOKENIZER),
        ],
        bits: true,
    },
    Words {
        field: "kind",
        words: &[
            ("drafted", kind::DRAFTED),
            ("verdict", kind::VERDICT),
            ("overdue", kind::OVERDUE),
            ("link-down", kind::LINK_DOWN),
            ("link-up", kind::LINK_UP),
            ("refused", kind::REFUSED),
        ],
        bits: false,
    },
    Words {
        field: "overrides",
        words: &[
            ("route", overrides::ROUTE),
            ("exact", overrides::EXACT),
            ("media", overrides::MEDIA),
            ("retention", overrides::RETENTION),
            ("peer", overrides::PEER),
            ("fallback", overrides::FALLBACK),
        ],
        bits: true,
    },
    Words {
        field: "status",
        words: &[
            ("answered", 0),
            ("degraded", 1),
            ("cancelled", 2),
            ("refused", 3),
            ("failed", 4),
        ],
        bits: false,
    },
];

fn number(words: &Words, word: &str) -> anyhow::Result<u32> {
    (words.words.iter())
        .find(|(name, _)| *name == word)
        .map(|(_, number)| *number)
        .with_context(|| {
            let allowed: Vec<&str> = words.words.iter().map(|(name, _)| *name).collect();
            format!("\"{word}\" is unknown; allowed: {}", allowed.join(", "))
        })
}

fn translated(field: &str, value: &Value) -> anyhow::Result<Value> {
    let Some(words) = WORDS.iter().find(|words| words.field == field) else {
        return Ok(value.clone());
    };
    Ok(match value {
        Value::String(word) => number(words, word)?.into(),
        Value::Array(list) if words.bits => {
            let mut bits = 0;
            for word in list {
                let word = word.as_str().context("a list of words is expected")?;
                bits |= number(words, word)?;
            }
            bits.into()
        }
        other => other.clone(),
    })
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut above_left = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            left = (above_left + usize::from(x != *y))
                .min(above + 1)
                .min(left + 1);
            next.push(left);
            above_left = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// `key` is unknown; what may have been meant.
pub fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = known
        .clone()
        .map(|name| (distance(key, name), name))
        .filter(|(distance, name)| *distance <= name.len() / 3 + 1)
        .min();
    match near {
        Some((_, name)) => format!("there is no \"{key}\"; did you mean \"{name}\"?"),
        None => {
            let all: Vec<&str> = known.collect();
            format!("there is no \"{key}\"; allowed: {}", all.join(", "))
        }
    }
}

/// `default` with the fields of `given` in place of its own.
///
/// # Errors
/// Naming `at` and the field that does not exist or has the wrong type.
pub fn over<T: Serialize + DeserializeOwned>(
    default: &T,
    given: &Map<String, Value>,
    at: &str,
) -> anyhow::Result<T> {
    let mut fields = match serde_json::to_value(default)? {
        Value::Object(fields) => fields,
        _ => bail!("{at} has no fields"),
    };
    for (key, value) in given {
        let name = || format!("{at}.{key}");
        let value = translated(key, value).with_context(name)?;
        let Some(place) = fields.get_mut(key) else {
            bail!("{at}: {}", unknown(key, fields.keys().map(String::as_str)));
        };
        // A probability of 1 is written "1" as readily as "1.0".
        *place = match (&*place, &value) {
            (Value::Number(old), Value::Number(new)) if old.is_f64() => {
                let new = new.as_f64().context("a number is expected")?;
                serde_json::Number::from_f64(new)
                    .map(Value::Number)
                    .with_context(name)?
            }
            _ => value.clone(),
        };
        // One field at a time, so that an error can name it.
        serde_json::from_value::<T>(Value::Object(fields.clone())).with_context(name)?;
    }
    Ok(serde_json::from_value(Value::Object(fields))?)
}

#[cfg(test)]
mod tests {
    use msao_core::offload::{Node, Part, Request};

    use super::*;

    fn map(text: &str) -> Map<String, Value> {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn fields_replace_defaults_and_words_stand_for_numbers() {
        let request = over(
            &Request::default(),
            &map("flags = [\"exact\", \"streamed\"]\nmax-tokens = 7\nnow-ms = 5"),
            "request",
        )
        .unwrap();
        assert_eq!((request.flags, request.max_tokens), (9, 7));
        assert_eq!(request.now_ms, 5.0);
        let part = over(&Part::default(), &map("modality = \"video\""), "part[0]").unwrap();
        assert_eq!(part.modality, 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("rtt_ms = 3", "did you mean \"rtt-ms\"?"),
            ("colour = 3", "allowed: acceptance, age-ms"),
            ("rtt-ms = \"far\"", "peer[0].rtt-ms"),
            (
                "can = [\"fly\"]",
                "\"fly\" is unknown; allowed: draft, target",
            ),
            ("can = [1]", "peer[0].can: a list of words"),
        ] {
            let error = over(&Node::default(), &map(text), "peer[0]").unwrap_err();
            assert!(
                format!("{error:#}").contains(named),
                "{error:#}\nshould name {named}"
            );
        }
    }
}
