//! What a client may ask of the sampler, and the ranges in which it may ask it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the next token is chosen. The defaults leave the model's distribution as it is.
///
/// Ranges are OpenAI's where OpenAI has the field (`temperature`, `top_p`, `presence_penalty`, `frequency_penalty`,
/// `logit_bias`); `top_k` and `repetition_penalty` are Hugging Face's.
///
/// ```
/// use msao_core::sampling::SamplingParams;
/// let asked = SamplingParams { temperature: 3.0, ..SamplingParams::default() };
/// assert_eq!(asked.validate().unwrap_err().to_string(), "temperature must be from 0 to 2, but is 3");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the best token without noise. 0 to 2, default 1.
    pub temperature: f64,
    /// Keeps the ids whose logit is not below the k-th largest (ties at the k-th all stay, as in Hugging Face's
    /// `TopKLogitsWarper`). At least 1; `None`, the default, keeps all.
    pub top_k: Option<u32>,
    /// Keeps the fewest ids, most probable first, whose probabilities sum to at least this; always one, and the
    /// lower id first among equals. 0 to 1, default 1, which keeps all.
    pub top_p: f64,
    /// Divides positive and multiplies negative logits of ids seen in the prompt or the output, once an id. Above 0,
    /// at most 2; default 1.
    pub repetition_penalty: f64,
    /// Subtracted from the logit of every id that the output holds. -2 to 2, default 0.
    pub presence_penalty: f64,
    /// Subtracted from the logit of an id once for each time that the output holds it. -2 to 2, default 0.
    pub frequency_penalty: f64,
    /// Added to the logits of these ids, each -100 to 100; empty by default.
    pub logit_bias: BTreeMap<u32, f32>,
    /// The key of the noise. Where the client gives none the caller draws one: nothing here reads a clock or a
    /// random device.
    pub seed: u64,
    /// Which of the request's `n` answers this is, counted from 0: answers to one seed differ by it.
    pub choice: u32,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: 0,
            choice: 0,
        }
    }
}

/// A parameter outside its range. The message is fit for the client.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} must be {allowed}, but is {given}")]
pub struct ParamError {
    /// The request's field.
    pub field: &'static str,
    /// What the field may be, in words.
    pub allowed: String,
    /// What it was.
    pub given: String,
}

impl SamplingParams {
    /// Checks every range; not-a-number is in none of them.
    ///
    /// # Errors
    /// The first field that is outside its range.
    pub fn validate(&self) -> Result<(), ParamError> {
        closed("temperature", self.temperature, 0.0, 2.0)?;
        closed("top_p", self.top_p, 0.0, 1.0)?;
        closed("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        closed("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty <= 2.0) {
            return Err(refuse(
                "repetition_penalty",
                "above 0 and at most 2",
                self.repetition_penalty,
            ));
        }
        if self.top_k == Some(0) {
            return Err(refuse(
                "top_k",
                "at least 1 (leave it out to keep all ids)",
                0,
            ));
        }
        for (&id, &bias) in &self.logit_bias {
            if !(-100.0..=100.0).contains(&bias) {
                return Err(refuse(
                    "logit_bias",
                    "from -100 to 100 for every id",
                    format!("{bias} for id {id}"),
                ));
            }
        }
        Ok(())
    }

    /// As [`validate`](Self::validate), and every biased id is one of the tokenizer's.
    ///
    /// # Errors
    /// The first field that is outside its range.
    pub fn validate_for(&self, vocabulary: u32) -> Result<(), ParamError> {
        self.validate()?;
        match self.logit_bias.last_key_value() {
            Some((&id, _)) if id >= vocabulary => Err(refuse(
                "logit_bias",
                format!("for ids below {vocabulary}"),
                format!("for id {id}"),
            )),
            _ => Ok(()),
        }
    }
}

fn closed(field: &'static str, given: f64, least: f64, most: f64) -> Result<(), ParamError> {
    if (least..=most).contains(&given) {
        Ok(())
    } else {
        Err(refuse(field, format!("from {least} to {most}"), given))
    }
}

fn refuse(field: &'static str, allowed: impl Into<String>, given: impl ToString) -> ParamError {
    ParamError {
        field,
        allowed: allowed.into(),
        given: given.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut SamplingParams)) -> Result<(), ParamError> {
        let mut params = SamplingParams::default();
        change(&mut params);
        params.validate()
    }

    #[test]
    fn the_ends_of_the_ranges_are_allowed() {
        assert_eq!(with(|_| ()), Ok(()));
        for (least, most) in [(true, false), (false, true)] {
            let end = |low: f64, high: f64| if least && !most { low } else { high };
            assert_eq!(
                with(|p| {
                    p.temperature = end(0.0, 2.0);
                    p.top_p = end(0.0, 1.0);
                    p.presence_penalty = end(-2.0, 2.0);
                    p.frequency_penalty = end(-2.0, 2.0);
                    p.repetition_penalty = end(1e-3, 2.0);
                    p.top_k = Some(if least { 1 } else { u32::MAX });
                    p.logit_bias = BTreeMap::from([(0, end(-100.0, 100.0) as f32)]);
                }),
                Ok(())
            );
        }
    }

    #[test]
    fn what_is_outside_is_refused_by_name() {
        type Change = fn(&mut SamplingParams, f64);
        let cases: [(&str, Change, &[f64]); 6] = [
            (
                "temperature",
                |p, x| p.temperature = x,
                &[-0.1, 2.1, f64::NAN, f64::INFINITY],
            ),
            ("top_p", |p, x| p.top_p = x, &[-0.1, 1.1, f64::NAN]),
            (
                "presence_penalty",
                |p, x| p.presence_penalty = x,
                &[-2.1, 2.1, f64::NAN],
            ),
            (
                "frequency_penalty",
                |p, x| p.frequency_penalty = x,
                &[-2.1, 2.1, f64::NAN],
            ),
            (
                "repetition_penalty",
                |p, x| p.repetition_penalty = x,
                &[-1.0, 0.0, 2.1, f64::NAN],
            ),
            (
                "logit_bias",
                |p, x| p.logit_bias = BTreeMap::from([(3, x as f32)]),
                &[-101.0, 101.0, f64::NAN],
            ),
        ];
        for (field, change, values) in cases {
            for &value in values {
                let refused = with(|p| change(p, value)).unwrap_err();
                assert_eq!(refused.field, field, "{value}");
                assert!(
                    refused
                        .to_string()
                        .starts_with(&format!("{field} must be "))
                );
            }
        }
        assert_eq!(with(|p| p.top_k = Some(0)).unwrap_err().field, "top_k");
    }

    #[test]
    fn a_bias_beyond_the_vocabulary_is_refused() {
        let params = SamplingParams {
            logit_bias: BTreeMap::from([(10, 1.0)]),
            ..SamplingParams::default()
        };
        assert_eq!(params.validate_for(11), Ok(()));
        assert_eq!(
            params.validate_for(10).unwrap_err().to_string(),
            "logit_bias must be for ids below 10, but is for id 10"
        );
    }
}
