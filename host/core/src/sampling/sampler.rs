//! One choice's sampler: parameters, and the history that the penalties look at.

use super::noise::Noise;
use super::params::{ParamError, SamplingParams};
use super::penalty::Penalties;
use super::race::race;
use super::select::{Border, Candidate, Field, Nucleus, Scale, top_k, top_p};
use super::transform::{TokenMask, adjust, known, largest, second_largest};

/// Why there is no next token. The logits are the engine's, so none of these is the client's fault but a mask that
/// leaves nothing.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// NaN or plus infinity: the forward pass overflowed or read memory that was never written.
    #[error(
        "the logit of token {id} is {value}: the forward pass went wrong; run it again in higher precision"
    )]
    NotALogit {
        /// The first such id.
        id: u32,
        /// What stands there.
        value: f32,
    },
    /// Every id is masked or has a logit of minus infinity.
    #[error(
        "no token is left to choose: every id is masked or minus infinity; check the grammar's mask and the logits"
    )]
    NothingLeft,
    /// An id whose log-probability was asked for is not one of the tokenizer's or has no logit.
    #[error("token {id} has no logit")]
    UnknownToken {
        /// The id.
        id: u32,
    },
    /// A rollback to more tokens than there are.
    #[error("cannot roll back to {asked} output tokens: there are {have}")]
    Rollback {
        /// Tokens that should be left.
        asked: usize,
        /// Tokens that there are.
        have: usize,
    },
}

/// The next token and how sure the choice was.
///
/// Probabilities are those after all transforms, over the ids that are left. With `T = 0` that is a point: `logprob`
/// 0, `top1` 1, `entropy` 0; [`Sampler::confidence`] tells how sure the model itself was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// The largest probability, whether or not it was picked.
    pub top1: f64,
    /// Entropy of the distribution, in nats.
    pub entropy: f64,
    /// How far the second best lies below: in `log p + g`, or in logits with `T = 0`. Infinite where one id is
    /// left, 0 in a tie. A difference between two runs counts as numerical where this is below the runs' noise.
    pub margin: f64,
}

/// Memory that picks share, some 2.5 MB for a vocabulary of 150,000. Keep one a thread.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    logits: Vec<f32>,
    ids: Vec<u32>,
    kept: Vec<Candidate>,
    kept_ids: Vec<u32>,
    kept_logits: Vec<f32>,
    weights: Vec<f64>,
    nucleus: Nucleus,
}

/// Chooses the tokens of one answer.
///
/// Holds no random state: noise is a function of the parameters' seed and choice, the output index and the id.
/// Two samplers are equal when no pick can tell them apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    params: SamplingParams,
    vocabulary: u32,
    penalties: Penalties,
}

/// Where noise is looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub seed: u64,
    pub choice: u32,
    pub output_index: u32,
}

impl Sampler {
    /// A sampler before its first token.
    ///
    /// `vocabulary` is the number of ids that the tokenizer knows; logits past it are padding and are never chosen.
    /// `prompt` is what the repetition penalty looks at besides the output: the ids before any pruning, so that
    /// draft and target see the same.
    ///
    /// # Errors
    /// A parameter outside its range.
    pub fn new(
        params: SamplingParams,
        vocabulary: u32,
        prompt: &[u32],
    ) -> Result<Self, ParamError> {
        params.validate_for(vocabulary)?;
        let prompt = if params.repetition_penalty == 1.0 {
            &[]
        } else {
            prompt
        };
        Ok(Self {
            params,
            vocabulary,
            penalties: Penalties::new(prompt),
        })
    }

    /// What was asked.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Ids that the tokenizer knows.
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    /// The output so far: committed tokens and the draft.
    pub fn output(&self) -> &[u32] {
        self.penalties.output()
    }

    /// Appends a token to the output, whoever chose it.
    pub fn commit(&mut self, id: u32) {
        self.penalties.commit(id);
    }

    /// Drops tokens from the end until `output_len` are left: afterwards all is as if they had never been.
    ///
    /// # Errors
    /// `output_len` is more than there are; nothing is changed.
    pub fn rollback_to(&mut self, output_len: usize) -> Result<(), SampleError> {
        let have = self.output().len();
        if output_len > have {
            return Err(SampleError::Rollback {
                asked: output_len,
                have,
            });
        }
        self.penalties.rollback_to(output_len);
        Ok(())
    }

    /// Picks the token for place `output_index` of the output (0 is the first generated token) and commits nothing.
    ///
    /// `logits`: `[ids]`, one for each id, raw from the model; minus infinity is allowed. `allowed` is the
    /// grammar's mask, if there is one. Where penalties are on, the output before `output_index` must have been
    /// committed.
    ///
    /// # Errors
    /// No id is left, or a logit is not a number.
    pub fn pick(
        &self,
        logits: &[f32],
        output_index: u32,
        allowed: Option<TokenMask<'_>>,
        scratch: &mut Scratch,
    ) -> Result<Pick, SampleError> {
        let place = Place {
            seed: self.params.seed,
            choice: self.params.choice,
            output_index,
        };
        self.pick_at(logits, place, allowed, scratch)
    }

    pub(super) fn pick_at(
        &self,
        logits: &[f32],
        place: Place,
        allowed: Option<TokenMask<'_>>,
        scratch: &mut Scratch,
    ) -> Result<Pick, SampleError> {
        let Scratch {
            logits: adjusted,
            ids: all,
            kept,
            kept_ids,
            kept_logits,
            weights,
            nucleus,
        } = scratch;
        let adjusted: &[f32] = if allowed.is_none() && leaves_alone(&self.params) {
            known(logits, self.vocabulary)?
        } else {
            adjust(
                &self.params,
                &self.penalties,
                self.vocabulary,
                allowed,
                logits,
                adjusted,
            )?;
            adjusted
        };
        let (best_id, best) = largest(adjusted).ok_or(SampleError::NothingLeft)?;
        let temperature = self.params.temperature;
        if temperature == 0.0 {
            let margin = f64::from(best) - f64::from(second_largest(adjusted, best_id));
            return Ok(Pick {
                id: best_id,
                logprob: 0.0,
                top1: 1.0,
                entropy: 0.0,
                margin,
            });
        }

        let scale = Scale {
            largest: best,
            temperature,
        };
        let (ids, logits) = if let Some(k) = self.params.top_k {
            top_k(adjusted, k, kept, kept_logits);
            kept_ids.clear();
            kept_ids.extend(kept.iter().map(|candidate| candidate.id));
            kept_logits.clear();
            kept_logits.extend(kept.iter().map(|candidate| candidate.logit));
            (kept_ids.as_slice(), kept_logits.as_slice())
        } else {
            all.extend(
                (0..)
                    .skip(all.len())
                    .take(adjusted.len().saturating_sub(all.len())),
            );
            (all.as_slice(), adjusted)
        };
        weights.clear();
        let mut sums = Sums::default();
        if self.params.top_p < 1.0 {
            weights.extend(logits.iter().map(|logit| scale.weight(*logit)));
        } else {
            // All that is not masked counts: the sums are made in passing.
            weights.extend(logits.iter().map(|&logit| {
                let weight = scale.weight(logit);
                if logit > f32::NEG_INFINITY {
                    sums.add(weight, logit, scale);
                }
                weight
            }));
        }
        let field = Field {
            ids,
            logits,
            weights,
        };
        let border = if self.params.top_p < 1.0 {
            let total = weights.iter().sum();
            let border = top_p(field, scale, self.params.top_p, total, nucleus);
            for candidate in field.each() {
                if border.admits(&candidate) {
                    sums.add(candidate.weight, candidate.logit, scale);
                }
            }
            border
        } else {
            Border::OPEN
        };
        draw(
            field,
            border,
            scale,
            sums,
            Noise::at(place.seed, place.choice, place.output_index),
        )
    }
}

/// Whether the parameters leave the logits as they are until `/T`.
fn leaves_alone(params: &SamplingParams) -> bool {
    params.logit_bias.is_empty()
        && params.repetition_penalty == 1.0
        && params.frequency_penalty == 0.0
        && params.presence_penalty == 0.0
}

/// Sums over the ids that are left, in the order of the ids.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// Of the weights.
    total: f64,
    /// Of `weight * (largest - logit)`.
    below: f64,
}

impl Sums {
    #[inline]
    fn add(&mut self, weight: f64, logit: f32, scale: Scale) {
        self.total += weight;
        self.below += weight * (f64::from(scale.largest) - f64::from(logit));
    }
}

fn draw(
    field: Field<'_>,
    border: Border,
    scale: Scale,
    Sums { total, below }: Sums,
    noise: Noise,
) -> Result<Pick, SampleError> {
    let winner = race(field, border, scale, total, noise).ok_or(SampleError::NothingLeft)?;
    Ok(Pick {
        id: winner.id,
        logprob: winner.log_p,
        // The best logit's weight is exp(0).
        top1: 1.0 / total,
        // -sum p ln p = ln total + sum weight * (largest - logit) / (T * total)
        entropy: total.ln() + below / scale.temperature / total,
        margin: winner.margin,
    })
}
