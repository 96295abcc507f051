//! The sampler's definition, written to be read: dense, slow, in the order in which the transforms are defined.
//!
//! Nothing here is shared with [`Sampler`](super::Sampler) but the parameters, the mask's layout and the noise. Tests hold the two
//! against each other, and the statistical proof in [`check`](super::check) takes its expected probabilities from
//! here.

use super::noise::Noise;
use super::params::SamplingParams;
use super::transform::TokenMask;

/// What a pick depends on besides logits and place.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// What the client asked.
    pub params: &'a SamplingParams,
    /// Ids that the tokenizer knows.
    pub vocabulary: u32,
    /// The prompt's ids.
    pub prompt: &'a [u32],
    /// The output's ids so far.
    pub output: &'a [u32],
    /// The grammar's mask.
    pub allowed: Option<TokenMask<'a>>,
}

/// The distribution after all transforms.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Natural logarithm of each id's probability; minus infinity for ids that a transform removed. With `T = 0` the
    /// best id has 0 and all others minus infinity.
    pub log_p: Vec<f64>,
    /// How close top-p came to deciding otherwise: the least distance between a cumulative probability and `top_p`.
    /// Infinite where top-p is off.
    pub top_p_distance: f64,
}

/// `None` where no id is left or a logit is not a number.
pub fn distribution(context: &Context<'_>, logits: &[f32]) -> Option<Distribution> {
    let params = context.params;
    let known = logits.get(..context.vocabulary as usize).unwrap_or(logits);
    if known
        .iter()
        .any(|logit| logit.is_nan() || *logit == f32::INFINITY)
    {
        return None;
    }
    let logits: Vec<f64> = (0..)
        .zip(known)
        .map(|(id, logit)| f64::from(adjusted(context, id, *logit)))
        .collect();
    let best = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if best == f64::NEG_INFINITY {
        return None;
    }
    if params.temperature == 0.0 {
        let mut found = false;
        let log_p = logits
            .iter()
            .map(|logit| {
                if *logit == best && !std::mem::replace(&mut found, true) {
                    0.0
                } else {
                    f64::NEG_INFINITY
                }
            })
            .collect();
        return Some(Distribution {
            log_p,
            top_p_distance: f64::INFINITY,
        });
    }

    // All ids, the most probable first and the lower id first among equals (the sort is stable).
    let mut ranked: Vec<(usize, f64)> = logits.iter().copied().enumerate().collect();
    ranked.sort_by(|(_, a), (_, b)| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal));
    ranked.retain(|(_, logit)| *logit > f64::NEG_INFINITY);
    if let Some(k) = params.top_k {
        let kth = ranked
            .get((k as usize - 1).min(ranked.len() - 1))
            .map(|(_, logit)| *logit)?;
        ranked.retain(|(_, logit)| *logit >= kth);
    }
    let weight = |logit: f64| ((logit - best) / params.temperature).exp();
    let mut top_p_distance = f64::INFINITY;
    if params.top_p < 1.0 {
        let total: f64 = ranked.iter().map(|(_, logit)| weight(*logit)).sum();
        let mut sum = 0.0;
        let mut left = 0;
        for (_, logit) in &ranked {
            let enough = left > 0 && sum >= params.top_p * total;
            if !enough {
                left += 1;
            }
            sum += weight(*logit);
            top_p_distance = top_p_distance.min((sum / total - params.top_p).abs());
        }
        ranked.truncate(left);
    }
    let ln_total = ranked
        .iter()
        .map(|(_, logit)| weight(*logit))
        .sum::<f64>()
        .ln();
    let mut log_p = vec![f64::NEG_INFINITY; logits.len()];
    for (id, logit) in ranked {
        *log_p.get_mut(id)? = (logit - best) / params.temperature - ln_total;
    }
    Some(Distribution {
        log_p,
        top_p_distance,
    })
}

/// One logit after bias, penalties and mask, rounded to `f32` after each of the first two.
fn adjusted(context: &Context<'_>, id: u32, logit: f32) -> f32 {
    let params = context.params;
    let largest = f64::from(f32::MAX);
    let bias = f64::from(params.logit_bias.get(&id).copied().unwrap_or(0.0));
    let biased = f64::from((f64::from(logit) + bias).min(largest) as f32);

    let count = context.output.iter().filter(|seen| **seen == id).count();
    let repeated = count > 0 || context.prompt.contains(&id);
    let mut penalised = biased;
    if repeated {
        penalised = if biased < 0.0 {
            biased * params.repetition_penalty
        } else {
            biased / params.repetition_penalty
        };
    }
    if count > 0 {
        penalised -= params.presence_penalty + params.frequency_penalty * count as f64;
    }
    if context.allowed.is_none_or(|mask| mask.allows(id)) {
        penalised.min(largest) as f32
    } else {
        f32::NEG_INFINITY
    }
}

/// `log p + g` of every id, in order of ids; with `T = 0` just `log p`.
pub fn perturbed(context: &Context<'_>, logits: &[f32], output_index: u32) -> Option<Vec<f64>> {
    let params = context.params;
    let noise = Noise::at(params.seed, params.choice, output_index);
    let mut scores = distribution(context, logits)?.log_p;
    if params.temperature > 0.0 {
        for (id, score) in (0..).zip(&mut scores) {
            *score += noise.gumbel(id);
        }
    }
    Some(scores)
}

/// The lowest id with the largest `log p + g`.
pub fn pick(context: &Context<'_>, logits: &[f32], output_index: u32) -> Option<u32> {
    let mut best: Option<(u32, f64)> = None;
    for (id, score) in (0..).zip(perturbed(context, logits, output_index)?) {
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((id, score));
        }
    }
    best.map(|(id, _)| id)
}
