//! How the client wants tokens to be chosen.

use std::collections::BTreeMap;

use msao_core::sampling::SamplingParams;

use super::fields::{Field, Fields};
use crate::error::{ApiError, excerpt};
use crate::json::Json;
use crate::limits::Limits;

/// How the client wants tokens to be chosen; `None` is for the model's files, or the node, to say. Ranges are those of
/// [`SamplingParams`], and have been checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// 0 takes the best token without noise. 0 to 2.
    pub temperature: Option<f64>,
    /// Keeps the most probable tokens that sum to it. 0 to 1.
    pub top_p: Option<f64>,
    /// -2 to 2; 0 where the client says nothing.
    pub frequency_penalty: f64,
    /// -2 to 2; 0 where the client says nothing.
    pub presence_penalty: f64,
    /// Added to the logits of these ids, each -100 to 100. Whether the tokenizer has them is for
    /// [`SamplingParams::validate_for`] to say.
    pub logit_bias: BTreeMap<u32, f32>,
    /// The key of the noise. A negative one, as OpenAI's API allows, is taken by its bits.
    pub seed: Option<u64>,
}

impl Sampling {
    /// The sampler's parameters: what the client says, else what `model` says. `drawn` is the seed where the client gives
    /// none; see [`drawn_seed`]. `choice` is 0: each of `n` answers has its own.
    pub fn params(&self, model: &SamplingParams, drawn: u64) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature.unwrap_or(model.temperature),
            top_p: self.top_p.unwrap_or(model.top_p),
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.unwrap_or(drawn),
            choice: 0,
            ..model.clone()
        }
    }

    pub(super) fn read(fields: &mut Fields, limits: &Limits) -> Result<Sampling, ApiError> {
        let mut number = |name| fields.take(name).map(Field::number).transpose();
        let temperature = number("temperature")?;
        let top_p = number("top_p")?;
        let frequency_penalty = number("frequency_penalty")?.unwrap_or(0.0);
        let presence_penalty = number("presence_penalty")?.unwrap_or(0.0);
        let logit_bias = match fields.take("logit_bias") {
            Some(field) => biases(field, limits)?,
            None => BTreeMap::new(),
        };
        let seed = fields.take("seed").map(seed).transpose()?;
        let asked = Sampling {
            temperature,
            top_p,
            frequency_penalty,
            presence_penalty,
            logit_bias,
            seed,
        };
        // One place for the ranges: the sampler's own.
        asked.params(&SamplingParams::default(), 0).validate()?;
        Ok(asked)
    }
}

/// A seed for a client that gives none, out of 64 random bits: below 2^53, so that the client can send back the number that
/// it was told even where numbers are doubles.
pub fn drawn_seed(random: u64) -> u64 {
    random >> 11
}

fn seed(field: Field) -> Result<u64, ApiError> {
    let value = field.integer()?;
    match (u64::try_from(value), i64::try_from(value)) {
        (Ok(seed), _) => Ok(seed),
        (_, Ok(seed)) => Ok(seed.cast_unsigned()),
        _ => Err(ApiError::invalid_value(
            &field.path,
            "expected an integer of 64 bits.",
        )),
    }
}

fn biases(field: Field, limits: &Limits) -> Result<BTreeMap<u32, f32>, ApiError> {
    let Json::Object(entries) = field.value else {
        return Err(field.wrong("an object"));
    };
    if entries.len() > limits.max_logit_bias {
        let limit = limits.max_logit_bias;
        return Err(ApiError::too_many(
            &field.path,
            "max_logit_bias",
            limit,
            entries.len(),
        ));
    }
    let entries = entries.into_iter().map(|(key, value)| {
        // Written in one way only, or two keys could mean the same id.
        let id = key.parse().ok().filter(|id: &u32| id.to_string() == key);
        let id = id.ok_or_else(|| {
            let rule = format!(
                "'{}' is no token id; ids are written as '123'.",
                excerpt(&key)
            );
            ApiError::invalid_value(&field.path, &rule)
        })?;
        let bias = Field {
            path: format!("{}.{key}", field.path),
            value,
        };
        Ok((id, bias.number()? as f32))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_leaves_open_the_model_says() {
        let model = SamplingParams {
            temperature: 0.7,
            top_k: Some(20),
            top_p: 0.8,
            repetition_penalty: 1.05,
            ..SamplingParams::default()
        };
        let params = Sampling::default().params(&model, 5);
        assert_eq!(
            params,
            SamplingParams {
                seed: 5,
                ..model.clone()
            }
        );
        let asked = Sampling {
            temperature: Some(0.0),
            seed: Some(9),
            frequency_penalty: 0.5,
            ..Sampling::default()
        };
        let params = asked.params(&model, 5);
        assert_eq!((params.temperature, params.top_p), (0.0, 0.8));
        assert_eq!((params.seed, params.frequency_penalty), (9, 0.5));
    }

    #[test]
    fn a_drawn_seed_survives_a_double() {
        for random in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let seed = drawn_seed(random);
            assert_eq!(seed as f64 as u64, seed);
        }
    }
}
