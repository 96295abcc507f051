//! How often a draft chooses what its target chooses.

use msao_core::inputs::ModelInputs;
use msao_core::sampling::philox4x32_10;
use serde::Serialize;

use crate::error::Result;
use crate::model::Model;

/// Parts of the seed that keep the texts of the search and of the measurement apart.
pub(super) const SEARCHING: u64 = 0x5EA2_C400_0000_0000;
pub(super) const MEASURING: u64 = 0x3EA5_0000_0000_0000;

/// Greedy agreement over the target's own answers.
#[derive(Clone, Debug, Serialize)]
pub struct Agreement {
    /// Share of tokens of the target's greedy answers that the draft, given all tokens before, would have chosen.
    pub rate: f64,
    /// Tokens looked at.
    pub tokens: usize,
    /// Share of those tokens that are not in their answer before: near 0, the answers run in circles.
    pub fresh: f64,
}

impl Agreement {
    /// The standard error of the rate, were the tokens independent.
    pub fn error(&self) -> f64 {
        (self.rate * (1.0 - self.rate) / self.tokens.max(1) as f64).sqrt()
    }
}

/// Lets `target` answer each prompt greedily with `length` tokens, and asks `draft` for each of them.
///
/// # Errors
/// As [`Model::prefill`] and [`Model::extend`].
pub fn agreement(
    target: &Model,
    draft: &Model,
    prompts: &[Vec<u32>],
    length: usize,
) -> Result<Agreement> {
    let (mut same, mut tokens, mut fresh) = (0, 0, 0);
    for prompt in prompts {
        let inputs = ModelInputs {
            input_ids: prompt.clone(),
            ..ModelInputs::default()
        };
        let mut sequence = target.start()?;
        let mut answer: Vec<u32> = Vec::with_capacity(length);
        let mut logits = target.prefill(&inputs, &mut sequence)?;
        loop {
            let next = largest(&logits);
            fresh += usize::from(!answer.contains(&next));
            answer.push(next);
            if answer.len() >= length {
                break;
            }
            logits = target.extend(&[next], &mut sequence)?;
        }
        let mut sequence = draft.start()?;
        let first = draft.prefill(&inputs, &mut sequence)?;
        let given = answer.split_last().map_or(&[][..], |(_, before)| before);
        let others = if given.is_empty() {
            Vec::new()
        } else {
            draft.extend(given, &mut sequence)?
        };
        let drafted =
            std::iter::once(largest(&first)).chain(others.chunks(first.len().max(1)).map(largest));
        same += answer
            .iter()
            .zip(drafted)
            .filter(|(a, b)| **a == *b)
            .count();
        tokens += answer.len();
    }
    let share = |count: usize| count as f64 / tokens.max(1) as f64;
    Ok(Agreement {
        rate: share(same),
        tokens,
        fresh: share(fresh),
    })
}

/// The index of the largest value, the first of equal ones.
fn largest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &value) in (0u32..).zip(logits) {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// Ids below `vocabulary` that are not special.
pub(super) fn ordinary(vocabulary: usize, special: &[u32]) -> Vec<u32> {
    (0..vocabulary as u32)
        .filter(|id| !special.contains(id))
        .collect()
}

/// Random texts of the given ids.
pub(super) fn prompts(count: usize, length: usize, seed: u64, ids: &[u32]) -> Vec<Vec<u32>> {
    let key = [seed as u32, (seed >> 32) as u32];
    let pick = |text: usize, place: usize| {
        let [word, ..] = philox4x32_10([text as u32, place as u32, 0, 1], key);
        let index = (u64::from(word) * ids.len() as u64) >> 32;
        ids.get(index as usize).copied().unwrap_or(0)
    };
    (0..count)
        .map(|text| (0..length).map(|place| pick(text, place)).collect())
        .collect()
}
