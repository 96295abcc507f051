//! The Omni audio encoder: log-mel spectrograms in, 25 tokens a second out.

use msao_core::inputs::Mels;
use tch::{Device, Kind, Tensor};

use crate::attention::Segments;
use crate::config::AudioConfig;
use crate::error::{EngineError, Result};
use crate::nn::{Linear, Mlp, Norm, Work, index_tensor, product_kind};
use crate::repeats::Repeats;
use crate::weights::Weights;

const NORM_EPS: f64 = 1e-5;

#[derive(Debug)]
pub(crate) struct AudioEncoder {
    config: AudioConfig,
    conv1: Conv,
    conv2: Conv,
    /// `[half_chunk, d]`: sines and cosines, starting anew in each chunk.
    place: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    proj: Linear,
    kind: Kind,
    device: Device,
}

/// A convolution over time with kernel 3 and padding 1.
#[derive(Debug)]
struct Conv {
    /// `[out, in, 3]`.
    weight: Tensor,
    bias: Tensor,
    stride: i64,
}

#[derive(Debug)]
struct Layer {
    norm1: Norm,
    qkv: Linear,
    out: Linear,
    norm2: Norm,
    mlp: Mlp,
}

/// Tokens that `frames` mel frames become: halved by the strided convolution and again by the pooling.
pub(crate) fn token_count(frames: usize) -> usize {
    let convolved = if frames == 0 { 0 } else { (frames - 1) / 2 + 1 };
    convolved / 2
}

/// An encoder run that can be left between its layers.
#[derive(Debug)]
pub(crate) struct AudioRun {
    /// `[rows, width]`; nothing where no sound is long enough for a row.
    x: Option<Tensor>,
    segments: Segments,
    /// Where chunks repeat others: for each row of all chunks the row of the encoded ones that it takes.
    spread: Option<Vec<i64>>,
    valid_frames: Vec<usize>,
    /// The layer that comes next.
    next: usize,
    /// What the account held before the first layer.
    mark: u64,
}

impl AudioEncoder {
    pub fn load(weights: &mut Weights, prefix: &str, config: &AudioConfig) -> Result<Self> {
        let width = config.hidden_size;
        let conv1 = Conv::load(
            weights,
            &format!("{prefix}.conv1"),
            width,
            config.mel_bins,
            1,
        )?;
        let conv2 = Conv::load(weights, &format!("{prefix}.conv2"), width, width, 2)?;
        let (kind, device) = weights.kind_and_device();
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let name = format!("{prefix}.layers.{layer}");
            let attn = format!("{name}.self_attn");
            let parts = ["q", "k", "v"].map(|part| format!("{attn}.{part}_proj"));
            let names = parts.each_ref().map(String::as_str);
            layers.push(Layer {
                norm1: Norm::layer(weights, &format!("{attn}_layer_norm"), width, NORM_EPS)?,
                qkv: Linear::load(weights, &names, &[width; 3], width, &[true, false, true])?,
                out: Linear::single(weights, &format!("{attn}.out_proj"), width, width, true)?,
                norm2: Norm::layer(
                    weights,
                    &format!("{name}.final_layer_norm"),
                    width,
                    NORM_EPS,
                )?,
                mlp: Mlp::load(
                    weights,
                    (&format!("{name}.fc1"), &format!("{name}.fc2")),
                    (width, config.intermediate_size, width),
                    config.activation,
                )?,
            });
        }
        let place = Tensor::f_from_slice(&sinusoids(config.half_chunk, width))?
            .f_reshape([config.half_chunk as i64, width as i64])?
            .f_to_device(device)?
            .f_to_kind(product_kind(kind, device))?;
        Ok(AudioEncoder {
            norm: Norm::layer(weights, &format!("{prefix}.ln_post"), width, NORM_EPS)?,
            proj: Linear::single(
                weights,
                &format!("{prefix}.proj"),
                config.output_size,
                width,
                true,
            )?,
            config: config.clone(),
            conv1,
            conv2,
            place,
            layers,
            kind,
            device,
        })
    }

    /// Begins to encode sounds.
    pub fn start(&self, mels: &Mels, work: &mut Work) -> Result<AudioRun> {
        let (items, bins, frames) = match mels.features.shape.as_slice() {
            [items, bins, frames] => (*items, *bins, *frames),
            other => {
                return Err(EngineError::request(format!(
                    "input_features has shape {other:?}; three axes are needed"
                )));
            }
        };
        if bins != self.config.mel_bins
            || items != mels.valid_frames.len()
            || mels.features.data.len() != items * bins * frames
            || mels.valid_frames.iter().any(|&valid| valid > frames)
        {
            return Err(EngineError::request(format!(
                "input_features has shape {:?} for {} sounds; the model reads {} mel bins, and no sound may be longer than the array",
                mels.features.shape,
                mels.valid_frames.len(),
                self.config.mel_bins
            )));
        }
        let features = Tensor::f_from_slice(&mels.features.data)?
            .f_reshape([items as i64, bins as i64, frames as i64])?
            .f_to_device(self.device)?
            .f_to_kind(product_kind(self.kind, self.device))?;
        let features = work.hold(features);
        let mut rows = Vec::new();
        let mut chunks: Vec<usize> = Vec::new();
        let mut spread: Vec<i64> = Vec::new();
        let mut repeated = false;
        let sounds = mels.features.data.chunks((bins * frames).max(1));
        for (item, (&valid, sound)) in mels.valid_frames.iter().zip(sounds).enumerate() {
            let chunk = 2 * self.config.half_chunk;
            let repeats = Repeats::of_sound(sound, frames, chunk, valid / chunk);
            let before: usize = chunks.iter().sum();
            self.convolve(
                &features.f_get(item as i64)?,
                valid,
                repeats.as_ref(),
                &mut rows,
                &mut chunks,
                work,
            )?;
            let after: usize = chunks.iter().sum();
            // A full chunk becomes half as many rows; what follows the full ones is as it is.
            let half = self.config.half_chunk;
            let full = match &repeats {
                Some(repeats) => {
                    let rows = repeats.rows(half).into_iter();
                    spread.extend(rows.map(|row| row + before as i64));
                    repeats.encoded().len() * half
                }
                None => 0,
            };
            spread.extend((before + full) as i64..after as i64);
            repeated |= repeats.is_some();
        }
        let x = if rows.is_empty() {
            None
        } else {
            Some(work.hold(Tensor::f_cat(&rows, 0)?))
        };
        Ok(AudioRun {
            x,
            segments: Segments::new(&chunks, self.device)?,
            spread: repeated.then_some(spread),
            valid_frames: mels.valid_frames.clone(),
            next: 0,
            mark: work.meter.mark(),
        })
    }

    /// Runs the next layer. Behind the last it gives the tokens: `[tokens of all sounds, output_size]`, one sound after
    /// the other.
    pub fn step(&self, run: &mut AudioRun, work: &mut Work) -> Result<Option<Tensor>> {
        let Some(x) = &run.x else {
            let nothing = [0, self.config.output_size as i64];
            return Ok(Some(Tensor::f_zeros(nothing, (self.kind, self.device))?));
        };
        let Some(layer) = self.layers.get(run.next) else {
            let all = match &run.spread {
                Some(rows) => work.hold(x.f_index_select(0, &index_tensor(rows, self.device)?)?),
                None => x.shallow_clone(),
            };
            return self.pool(&all, &run.valid_frames, work).map(Some);
        };
        let heads = self.config.heads as i64;
        let next = work.block(|work| layer.forward(x, &run.segments, heads, work))?;
        work.meter.release_to(run.mark);
        run.x = Some(work.hold(next));
        run.next += 1;
        Ok(None)
    }

    fn pool(&self, x: &Tensor, valid_frames: &[usize], work: &mut Work) -> Result<Tensor> {
        let mut pooled = Vec::new();
        let mut start = 0i64;
        for &valid in valid_frames {
            let convolved = if valid == 0 { 0 } else { (valid - 1) / 2 + 1 };
            let pairs = token_count(valid) as i64;
            let pair = x.f_narrow(0, start, 2 * pairs)?.f_reshape([pairs, 2, -1])?;
            pooled.push(
                pair.f_select(1, 0)?
                    .f_add(&pair.f_select(1, 1)?)?
                    .f_div_scalar(2.0)?,
            );
            start += convolved as i64;
        }
        let normed = self.norm.forward(&Tensor::f_cat(&pooled, 0)?, work)?;
        self.proj.forward(&normed, work)
    }

    /// Cuts one sound `[bins, frames]` into chunks, convolves each alone, of full ones those alone that repeat no other,
    /// and adds rows and chunk lengths.
    fn convolve(
        &self,
        sound: &Tensor,
        valid: usize,
        repeats: Option<&Repeats>,
        rows: &mut Vec<Tensor>,
        chunks: &mut Vec<usize>,
        work: &mut Work,
    ) -> Result<()> {
        let (bins, chunk) = (self.config.mel_bins as i64, 2 * self.config.half_chunk);
        let (full, tail) = (valid / chunk, valid % chunk);
        let mut one = |start: usize, count: usize, length: usize| -> Result<()> {
            if count == 0 || length == 0 {
                return Ok(());
            }
            let batch = sound
                .f_narrow(1, start as i64, (count * length) as i64)?
                .f_reshape([bins, count as i64, length as i64])?
                .f_transpose(0, 1)?;
            let (batch, count) = match repeats.filter(|_| length == chunk) {
                Some(repeats) => {
                    let encoded: Vec<i64> = (repeats.encoded().iter())
                        .map(|&number| number as i64)
                        .collect();
                    let index = index_tensor(&encoded, self.device)?;
                    (batch.f_index_select(0, &index)?, encoded.len())
                }
                None => (batch, count),
            };
            let y = self.conv1.forward(&batch, work)?.f_gelu("none")?;
            let y = self
                .conv2
                .forward(&y, work)?
                .f_gelu("none")?
                .f_transpose(1, 2)?;
            let convolved = (length - 1) / 2 + 1;
            let y = y.f_add(&self.place.f_narrow(0, 0, convolved as i64)?)?;
            let y = y.f_reshape([(count * convolved) as i64, -1])?;
            rows.push(y.f_to_kind(self.kind)?);
            chunks.extend(std::iter::repeat_n(convolved, count));
            Ok(())
        };
        one(0, full, chunk)?;
        one(full * chunk, 1, tail)
    }
}

impl Conv {
    fn load(
        weights: &mut Weights,
        name: &str,
        out: usize,
        inputs: usize,
        stride: i64,
    ) -> Result<Self> {
        let (kind, device) = weights.kind_and_device();
        let kind = product_kind(kind, device);
        let mut take = |part: &str, shape: &[usize]| -> Result<Tensor> {
            Ok((weights.take(&format!("{name}.{part}"), shape)?).f_to_kind(kind)?)
        };
        Ok(Conv {
            weight: take("weight", &[out, inputs, 3])?,
            bias: take("bias", &[out])?,
            stride,
        })
    }

    /// `[n, in, frames] -> [n, out, ceil(frames / stride)]`.
    fn forward(&self, x: &Tensor, work: &mut Work) -> Result<Tensor> {
        let y = x.f_conv1d(
            &self.weight,
            Some(&self.bias),
            [self.stride],
            [1i64],
            [1i64],
            1,
        )?;
        let taps: i64 = self.weight.size().iter().skip(1).product();
        work.flops(2 * y.numel() * taps as usize);
        Ok(work.hold(y))
    }
}

impl Layer {
    fn forward(
        &self,
        x: &Tensor,
        segments: &Segments,
        heads: i64,
        work: &mut Work,
    ) -> Result<Tensor> {
        let normed = self.norm1.forward(x, work)?;
        let rows = normed.size().first().copied().unwrap_or(0);
        let qkv = self
            .qkv
            .forward(&normed, work)?
            .f_reshape([rows, 3, heads, -1])?;
        let attended = segments.attend(
            &qkv.f_select(1, 0)?,
            &qkv.f_select(1, 1)?,
            &qkv.f_select(1, 2)?,
            work,
        )?;
        let x = x.f_add(&self.out.forward(&attended, work)?)?;
        let x = work.hold(x);
        let normed = self.norm2.forward(&x, work)?;
        let x = x.f_add(&self.mlp.forward(&normed, work)?)?;
        if x.kind() != Kind::Half {
            return Ok(x);
        }
        // f16 overflows to infinity where the reference saturates.
        const LARGEST: f64 = 65_504.0 - 1000.0;
        Ok(x.f_clamp(-LARGEST, LARGEST)?)
    }
}

/// Sines, then cosines, of `place / 10000^(i / (d/2 - 1))` (Vaswani et al. 2017, in Whisper's layout): `[length, d]`.
fn sinusoids(length: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = (10_000f64.ln() / (half - 1) as f64) as f32;
    let mut values = Vec::with_capacity(length * width);
    for place in 0..length {
        let angle = |i: usize| place as f32 * (-step * i as f32).exp();
        values.extend((0..half).map(|i| angle(i).sin()));
        values.extend((0..half).map(|i| angle(i).cos()));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts_follow_the_two_halvings() {
        for (frames, tokens) in [
            (0, 0),
            (1, 0),
            (2, 0),
            (3, 1),
            (4, 1),
            (5, 1),
            (6, 1),
            (7, 2),
            (100, 25),
            (3000, 750),
        ] {
            assert_eq!(token_count(frames), tokens, "{frames} frames");
        }
    }
}
