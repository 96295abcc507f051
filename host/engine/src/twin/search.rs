//! Finding the scale at which draft and target agree as often as wanted, one layer in memory at a time.
//!
//! The draft is the target's own beginning, so both start from the same states behind layer N. Those are carried through
//! the other layers for several scales side by side: each layer's weights are made once, applied to every candidate,
//! and dropped. Agreement falls as the scale grows; each pass looks at [`CANDIDATES`] scales inside the bracket that
//! the pass before has left, which is bisection in [`CANDIDATES`]` + 1` parts.
//!
//! Two things are shortened against running the written pair: the text is random tokens instead of the target's own
//! answers (it saves decoding), and the arithmetic is f32. The caller measures the written pair and corrects for both.

use tch::{Kind, Tensor};

use super::agree;
use super::tensors::{Plan, Spec};
use crate::config::TextConfig;
use crate::error::{EngineError, Result};

/// Scales tried in one pass.
const CANDIDATES: usize = 6;
/// Passes: the first bracket is cut into 7 x 7 x 7 parts.
const PASSES: usize = 3;
/// The first bracket: sizes of what the later layers add beside what the draft's layers have added, all together.
const RATIOS: (f64, f64) = (0.002, 50.0);
/// Tokens of one random text.
const LENGTH: usize = 128;
/// Rows of the output matrix made at a time.
const ROWS: usize = 4096;

/// A scale that was tried, and the share of positions at which both models chose the same token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub scale: f64,
    pub agreement: f64,
}

/// Agreement by scale.
#[derive(Debug)]
pub(super) struct Curve {
    /// By growing scale.
    points: Vec<Point>,
    positions: usize,
}

impl Curve {
    /// The scale for an agreement, straight between the points tried.
    pub fn at(&self, wanted: f64) -> Result<Point> {
        if wanted >= 1.0 - 0.5 / self.positions as f64 {
            return Ok(Point {
                scale: 0.0,
                agreement: 1.0,
            });
        }
        let mut before = Point {
            scale: 0.0,
            agreement: 1.0,
        };
        for &after in &self.points {
            if after.agreement <= wanted {
                let fall = before.agreement - after.agreement;
                let share = if fall > 0.0 {
                    (before.agreement - wanted) / fall
                } else {
                    0.0
                };
                let scale = before.scale + share * (after.scale - before.scale);
                return Ok(Point {
                    scale,
                    agreement: wanted,
                });
            }
            before = after;
        }
        Err(EngineError::request(format!(
            "agreement {wanted} cannot be reached: chance alone makes this pair agree at {:.4} of the positions",
            before.agreement
        )))
    }
}

/// Tries scales around the wanted agreement on some `positions` of random text.
pub(super) fn search(plan: &Plan, wanted: f64, positions: usize) -> Result<Curve> {
    let text = &plan.config.text;
    let walker = Walker {
        plan,
        text,
        angles: angles(text)?,
    };
    let texts = agree::prompts(
        positions.div_ceil(LENGTH),
        LENGTH,
        plan.seed ^ agree::SEARCHING,
        &agree::ordinary(text.vocab_size, plan.silent_rows),
    );
    let mut shared = walker.embed(&texts)?;
    for layer in 0..plan.draft_layers {
        let weights = walker.layer_weights(layer)?;
        shared = walker.layer(&weights, &shared, None)?;
    }
    let drafted = walker.choices(&shared)?;

    let later = (text.layers - plan.draft_layers) as f64;
    // Additions of random directions grow as the square root of their number.
    let to_scale = |ratio: f64| ratio * (plan.draft_layers as f64 / later).sqrt();
    let (mut low, mut high) = (RATIOS.0.ln(), RATIOS.1.ln());
    let mut points: Vec<Point> = Vec::new();
    for _ in 0..PASSES {
        let step = (high - low) / (CANDIDATES + 1) as f64;
        let tried: Vec<f64> = (1..=CANDIDATES).map(|i| low + step * i as f64).collect();
        let scales: Vec<f64> = tried.iter().map(|ratio| to_scale(ratio.exp())).collect();
        let agreements = walker.agreements(&shared, &drafted, &scales)?;
        points.extend(
            scales
                .iter()
                .zip(&agreements)
                .map(|(&scale, &agreement)| Point { scale, agreement }),
        );
        let below = agreements.iter().position(|&agreement| agreement <= wanted);
        let first_below = below.unwrap_or(CANDIDATES);
        (low, high) = (
            low + step * first_below as f64,
            low + step * (first_below + 1) as f64,
        );
    }
    points.sort_by(|a, b| a.scale.total_cmp(&b.scale));
    Ok(Curve {
        points,
        positions: texts.len() * LENGTH,
    })
}

/// The language model, walked through layer by layer. All states are `[texts, LENGTH, hidden]` in f32.
struct Walker<'a> {
    plan: &'a Plan<'a>,
    text: &'a TextConfig,
    /// Cosines and sines, `[LENGTH, d]`: for text alone the three axes of M-RoPE are one.
    angles: (Tensor, Tensor),
}

/// One layer's tensors, in the order of [`Plan::layer`].
struct LayerWeights {
    qkv: [(Tensor, Tensor); 3],
    out: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

impl Walker<'_> {
    fn tensor(&self, spec: &Spec) -> Result<Tensor> {
        let mut values = vec![0f32; spec.values()];
        self.plan.fill(spec, 0, &mut values);
        let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
        Ok(Tensor::f_from_slice(&values)?.f_reshape(shape)?)
    }

    fn layer_weights(&self, layer: usize) -> Result<LayerWeights> {
        // At scale 1 throughout: the candidates' scales multiply what the two last matrices give.
        let specs = self.plan.layer(layer, 1.0);
        let named = |part: &str| -> Result<Tensor> {
            let name = format!("model.layers.{layer}.{part}");
            let spec = specs.iter().find(|spec| spec.name == name);
            self.tensor(spec.ok_or_else(|| EngineError::request(format!("no tensor {name}")))?)
        };
        let with_bias = |part: &str| -> Result<(Tensor, Tensor)> {
            let name = format!("self_attn.{part}_proj");
            Ok((
                named(&format!("{name}.weight"))?,
                named(&format!("{name}.bias"))?,
            ))
        };
        Ok(LayerWeights {
            qkv: [with_bias("q")?, with_bias("k")?, with_bias("v")?],
            out: named("self_attn.o_proj.weight")?,
            gate: named("mlp.gate_proj.weight")?,
            up: named("mlp.up_proj.weight")?,
            down: named("mlp.down_proj.weight")?,
        })
    }

    fn embed(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        let (spec, width) = (self.plan.embedding(), self.text.hidden_size);
        let mut values = vec![0f32; texts.len() * LENGTH * width];
        for (&id, row) in texts.iter().flatten().zip(values.chunks_mut(width)) {
            self.plan.fill(&spec, id as usize * width, row);
        }
        let shape = [texts.len() as i64, LENGTH as i64, width as i64];
        Ok(Tensor::f_from_slice(&values)?.f_reshape(shape)?)
    }

    /// One layer; `scales` `[texts, 1, 1]` multiply what it adds.
    fn layer(&self, weights: &LayerWeights, x: &Tensor, scales: Option<&Tensor>) -> Result<Tensor> {
        let (heads, kv_heads, dim) = (
            self.text.heads as i64,
            self.text.kv_heads as i64,
            self.text.head_dim as i64,
        );
        let scaled = |y: Tensor| -> Result<Tensor> {
            Ok(match scales {
                Some(scales) => y.f_mul(scales)?,
                None => y,
            })
        };
        let texts = x.size().first().copied().unwrap_or(0);
        let normed = self.rms_norm(x)?;
        let split = |(weight, bias): &(Tensor, Tensor), heads: i64| -> Result<Tensor> {
            Ok(normed
                .f_linear(weight, Some(bias))?
                .f_reshape([texts, LENGTH as i64, heads, dim])?
                .f_transpose(1, 2)?)
        };
        let [q, k, v] = &weights.qkv;
        let (q, k, v) = (split(q, heads)?, split(k, kv_heads)?, split(v, kv_heads)?);
        let (q, k) = (self.rotate(&q)?, self.rotate(&k)?);
        let spread = |x: &Tensor| x.f_repeat_interleave_self_int(heads / kv_heads, 1, None);
        let attended = Tensor::f_scaled_dot_product_attention(
            &q,
            &spread(&k)?,
            &spread(&v)?,
            None::<Tensor>,
            0.0,
            true,
            None,
            false,
        )?;
        let attended =
            attended
                .f_transpose(1, 2)?
                .f_reshape([texts, LENGTH as i64, heads * dim])?;
        let x = x.f_add(&scaled(attended.f_linear(&weights.out, None::<Tensor>)?)?)?;
        let normed = self.rms_norm(&x)?;
        let gate = normed.f_linear(&weights.gate, None::<Tensor>)?.f_silu()?;
        let gated = gate.f_mul(&normed.f_linear(&weights.up, None::<Tensor>)?)?;
        Ok(x.f_add(&scaled(gated.f_linear(&weights.down, None::<Tensor>)?)?)?)
    }

    /// With a weight of 1, as all norms of the layers have.
    fn rms_norm(&self, x: &Tensor) -> Result<Tensor> {
        let width = [self.text.hidden_size as i64];
        Ok(x.f_rms_norm(width, None::<Tensor>, self.text.norm_eps)?)
    }

    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let (cos, sin) = &self.angles;
        let half = self.text.head_dim as i64 / 2;
        let (first, second) = (x.f_narrow(-1, 0, half)?, x.f_narrow(-1, half, half)?);
        let turned = Tensor::f_cat(&[second.f_neg()?, first], -1)?;
        Ok(x.f_mul(cos)?.f_add(&turned.f_mul(sin)?)?)
    }

    /// The most likely token at every position, `[texts * LENGTH]`.
    fn choices(&self, x: &Tensor) -> Result<Tensor> {
        let (vocabulary, width) = (self.text.vocab_size, self.text.hidden_size);
        // The last norm's weight is the same everywhere and changes no choice.
        let normed = self.rms_norm(x)?.f_reshape([-1, width as i64])?;
        let spec = self.plan.head().unwrap_or_else(|| self.plan.embedding());
        let mut best: Option<(Tensor, Tensor)> = None;
        for first in (0..vocabulary).step_by(ROWS) {
            let rows = ROWS.min(vocabulary - first);
            let mut values = vec![0f32; rows * width];
            self.plan.fill(&spec, first * width, &mut values);
            let block = Tensor::f_from_slice(&values)?.f_reshape([rows as i64, width as i64])?;
            let (value, index) = normed
                .f_linear(&block, None::<Tensor>)?
                .f_max_dim(-1, false)?;
            let index = index.f_add_scalar(first as i64)?;
            best = Some(match best {
                None => (value, index),
                Some((best, at)) => {
                    let better = value.f_gt_tensor(&best)?;
                    (
                        value.f_where_self(&better, &best)?,
                        index.f_where_self(&better, &at)?,
                    )
                }
            });
        }
        let (_, index) = best.ok_or_else(|| EngineError::request("the vocabulary is empty"))?;
        Ok(index)
    }

    /// For each scale, the share of positions at which the target chooses what the draft has chosen.
    fn agreements(&self, shared: &Tensor, drafted: &Tensor, scales: &[f64]) -> Result<Vec<f64>> {
        let count = scales.len() as i64;
        let texts = shared.size().first().copied().unwrap_or(0);
        let mut x = shared.f_repeat([count, 1, 1])?;
        let each = Tensor::f_from_slice(scales)?
            .f_to_kind(Kind::Float)?
            .f_repeat_interleave_self_int(texts, 0, None)?
            .f_reshape([-1, 1, 1])?;
        for layer in self.plan.draft_layers..self.text.layers {
            let weights = self.layer_weights(layer)?;
            x = self.layer(&weights, &x, Some(&each))?;
        }
        let same = self
            .choices(&x)?
            .f_reshape([count, -1])?
            .f_eq_tensor(drafted)?
            .f_to_kind(Kind::Double)?
            .f_mean_dim([1i64].as_slice(), false, Kind::Double)?;
        let mut shares = vec![0f64; scales.len()];
        same.f_copy_data(&mut shares, scales.len())?;
        Ok(shares)
    }
}

fn angles(text: &TextConfig) -> Result<(Tensor, Tensor)> {
    let half = text.head_dim / 2;
    let angle = |place: usize, i: usize| {
        let frequency = text
            .rope_theta
            .powf(-((2 * i) as f64) / text.head_dim as f64);
        (place as f64 * frequency) as f32
    };
    let all: Vec<f32> = (0..LENGTH)
        .flat_map(|place| (0..2 * half).map(move |i| angle(place, i % half)))
        .collect();
    let angles = Tensor::f_from_slice(&all)?.f_reshape([LENGTH as i64, 2 * half as i64])?;
    Ok((angles.f_cos()?, angles.f_sin()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_points_the_curve_is_straight() {
        let point = |scale, agreement| Point { scale, agreement };
        let curve = Curve {
            points: vec![point(0.1, 0.9), point(0.3, 0.5), point(1.0, 0.01)],
            positions: 1000,
        };
        assert!((curve.at(0.7).unwrap().scale - 0.2).abs() < 1e-9);
        assert!((curve.at(0.95).unwrap().scale - 0.05).abs() < 1e-9);
        assert_eq!(curve.at(1.0).unwrap().scale, 0.0);
        let error = curve.at(0.001).unwrap_err().to_string();
        assert!(
            error.contains("0.001") && error.contains("0.0100"),
            "{error}"
        );
    }
}
