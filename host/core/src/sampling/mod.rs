//! The coupled sampler: the next token as a function of logits, parameters, history and a seed.
//!
//! The draft on the edge and the target in the cloud run the same function on their own logits with the same seed.
//! Each token id has its own noise, so the two agree wherever their distributions do, and what the target commits
//! does not depend on who drafted it.
//!
//! In this order: bias, penalties, mask, `/T`, top-k, top-p, then `argmax(log p + g)` in `f64` over the ids that are
//! left, `g` being Gumbel noise. By the Gumbel-max trick that draws an id with probability `p`. With `T = 0` there
//! is no noise and the best logit wins. A tie goes to the lowest id.
//!
//! Two samplers with distributions `p` and `q` pick the same id with probability at least `(1 - TV) / (1 + TV)`,
//! `TV` being the total variation distance of `p` and `q`, although neither knows the other's (M. Daliri, C. Musco,
//! A. T. Suresh, "Coupling without communication and drafter-invariant speculative decoding", arXiv 2408.07978).
//!
//! Read first: [`SamplingParams`] (what a client asks), [`Sampler`] (one a choice; follows a draft and rolls back with
//! it), [`Pick`] (what comes out). [`mod@reference`] is the same function written to be read; [`check`] holds the
//! statistical proof that draws follow their probabilities.
//!
//! ```
//! use msao_core::sampling::{Sampler, SamplingParams, Scratch};
//!
//! let params = SamplingParams { seed: 7, frequency_penalty: 0.5, ..SamplingParams::default() };
//! let mut sampler = Sampler::new(params, 4, &[])?;
//! let mut scratch = Scratch::default();
//! let logits = [0.1, 2.0, -1.0, 0.5];
//!
//! let first = sampler.pick(&logits, 0, None, &mut scratch)?;
//! sampler.commit(first.id);
//! let second = sampler.pick(&logits, 1, None, &mut scratch)?;
//! sampler.commit(second.id);
//!
//! // The target disagreed with the second token: forget it and pick again.
//! sampler.rollback_to(1)?;
//! assert_eq!(sampler.pick(&logits, 1, None, &mut scratch)?, second);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod check;
mod gamma;
mod logprobs;
mod noise;
mod params;
mod penalty;
mod philox;
mod race;
pub mod reference;
mod sampler;
mod select;
mod transform;

pub use logprobs::{Confidence, TokenLogprob, TopLogprobs};
pub use noise::Noise;
pub use params::{ParamError, SamplingParams};
pub use philox::philox4x32_10;
pub use sampler::{Pick, SampleError, Sampler, Scratch};
pub use transform::TokenMask;
