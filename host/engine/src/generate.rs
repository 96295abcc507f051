//! The whole loop for one answer: prompt in, tokens out one by one.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use msao_core::inputs::ModelInputs;
use msao_core::meter::Meter;
use msao_core::sampling::{Pick, Sampler, Scratch, TokenLogprob};

use crate::error::{EngineError, Result};
use crate::model::Model;

/// When to end an answer and what to tell about each token.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; the context may end the answer earlier.
    pub max_new_tokens: usize,
    /// Ids that end the answer. They are not part of it.
    pub end_of_sequence: Vec<u32>,
    /// Most likely tokens to report for each place, by the model's own distribution; `None` reports none and saves
    /// the work.
    pub top_logprobs: Option<u32>,
}

/// One generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its place in the answer.
    pub index: u32,
    /// The token and how sure the choice was.
    pub pick: Pick,
    /// Its log-probability in the model's own distribution, and the most likely tokens there, if asked for.
    pub logprobs: Option<(TokenLogprob, Vec<TokenLogprob>)>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model said so.
    EndOfSequence,
    /// As many tokens as were asked for, or as the context holds.
    Length,
    /// The caller said so.
    Caller,
}

/// A finished answer.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The tokens, without the one that ended the sequence.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// What it cost.
    pub meter: Meter,
    /// From the start of the encoders to the first token.
    pub time_to_first_token: Duration,
    /// From the first token to the last.
    pub decode_time: Duration,
}

/// Generates an answer to `inputs`, calling `on_step` for each token as soon as it is chosen.
///
/// The sampler's output is extended by the answer. Greedy decoding is temperature 0.
pub fn generate(
    model: &Model,
    inputs: &ModelInputs,
    sampler: &mut Sampler,
    options: &GenerateOptions,
    on_step: &mut dyn FnMut(&Step) -> ControlFlow<()>,
) -> Result<Generated> {
    let room = model
        .config()
        .text
        .max_positions
        .saturating_sub(inputs.extent());
    let most = options.max_new_tokens.min(room).min(u32::MAX as usize);
    if options.max_new_tokens == 0 {
        return Err(EngineError::request(
            "max_new_tokens is 0; at least one token must be generated",
        ));
    }
    let started = Instant::now();
    let mut sequence = model.start()?;
    let mut logits = model.prefill(inputs, &mut sequence)?;
    let mut scratch = Scratch::default();
    let mut tokens = Vec::new();
    let mut first: Option<Instant> = None;
    let mut stop = Stop::Length;
    for index in 0..most as u32 {
        let pick = sampler.pick(&logits, index, None, &mut scratch)?;
        first.get_or_insert_with(Instant::now);
        if options.end_of_sequence.contains(&pick.id) {
            stop = Stop::EndOfSequence;
            break;
        }
        let logprobs = match options.top_logprobs {
            Some(count) => {
                let told = sampler.top_logprobs(&logits, pick.id, count)?;
                Some((told.chosen, told.top))
            }
            None => None,
        };
        sampler.commit(pick.id);
        tokens.push(pick.id);
        if on_step(&Step {
            index,
            pick,
            logprobs,
        })
        .is_break()
        {
            stop = Stop::Caller;
            break;
        }
        if index + 1 < most as u32 {
            logits = model.extend(&[pick.id], &mut sequence)?;
        }
    }
    let ended = Instant::now();
    sequence.charge_cache();
    let first = first.unwrap_or(ended);
    Ok(Generated {
        tokens,
        stop,
        meter: sequence.meter().clone(),
        time_to_first_token: first - started,
        decode_time: ended - first,
    })
}
