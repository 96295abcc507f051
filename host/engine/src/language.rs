//! The language model: token embeddings and media features in, logits out.

use tch::{Device, Kind, Tensor};

use crate::cache::KvCache;
use crate::config::TextConfig;
use crate::error::{EngineError, Result};
use crate::nn::{GatedMlp, Linear, Norm, Work, index_tensor, rotate};
use crate::weights::Weights;

#[derive(Debug)]
pub(crate) struct LanguageModel {
    config: TextConfig,
    /// `[vocab, hidden]`.
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    rope: Rope,
    kind: Kind,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    norm1: Norm,
    qkv: Linear,
    out: Linear,
    norm2: Norm,
    mlp: GatedMlp,
    window: Option<usize>,
}

/// The tables of M-RoPE.
#[derive(Debug)]
struct Rope {
    /// `[d/2]`: angle a position.
    frequencies: Tensor,
    /// `[d/2]`: the axis (0 time, 1 height, 2 width) that each frequency turns with.
    axis: Tensor,
}

impl LanguageModel {
    /// Loads the model whose layers start with `prefix` (`model`, `model.language_model`); `head` names the output
    /// matrix unless it is tied to the embedding.
    pub fn load(
        weights: &mut Weights,
        prefix: &str,
        head: Option<&str>,
        config: &TextConfig,
    ) -> Result<Self> {
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let embedding = weights.take(
            &format!("{prefix}.embed_tokens.weight"),
            &[config.vocab_size, hidden],
        )?;
        let (kind, device) = (embedding.kind(), embedding.device());
        let head = match head {
            Some(name) => Linear::single(weights, name, config.vocab_size, hidden, false)?,
            None => Linear::shared(&embedding),
        };
        let outs = [
            config.heads * dim,
            config.kv_heads * dim,
            config.kv_heads * dim,
        ];
        let mut layers = Vec::with_capacity(config.layers);
        for (layer, window) in config.windows.iter().enumerate() {
            let name = format!("{prefix}.layers.{layer}");
            let parts = ["q", "k", "v"].map(|part| format!("{name}.self_attn.{part}_proj"));
            let names = parts.each_ref().map(String::as_str);
            layers.push(Layer {
                norm1: Norm::rms(
                    weights,
                    &format!("{name}.input_layernorm"),
                    hidden,
                    config.norm_eps,
                )?,
                qkv: Linear::load(weights, &names, &outs, hidden, &[true; 3])?,
                out: Linear::single(
                    weights,
                    &format!("{name}.self_attn.o_proj"),
                    hidden,
                    config.heads * dim,
                    false,
                )?,
                norm2: Norm::rms(
                    weights,
                    &format!("{name}.post_attention_layernorm"),
                    hidden,
                    config.norm_eps,
                )?,
                mlp: GatedMlp::load(
                    weights,
                    &format!("{name}.mlp"),
                    hidden,
                    config.intermediate_size,
                    false,
                    config.activation,
                )?,
                window: *window,
            });
        }
        Ok(LanguageModel {
            norm: Norm::rms(weights, &format!("{prefix}.norm"), hidden, config.norm_eps)?,
            rope: Rope::new(config, device)?,
            config: config.clone(),
            embedding,
            layers,
            head,
            kind,
            device,
        })
    }

    pub fn new_cache(&self) -> Result<KvCache> {
        KvCache::new(&self.config, self.kind, self.device)
    }

    /// `[L] -> [L, hidden]`.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids
            .iter()
            .find(|&&id| id as usize >= self.config.vocab_size)
        {
            return Err(EngineError::request(format!(
                "token id {id} is not below the model's vocabulary of {}",
                self.config.vocab_size
            )));
        }
        let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        Ok(self
            .embedding
            .f_index_select(0, &index_tensor(&ids, self.device)?)?)
    }

    /// Runs all layers over `x` `[L, hidden]` whose tokens stand at `axes` (time, height, width: `L` positions
    /// each), behind what the cache holds; the new tokens are added to the cache. Returns the final hidden states
    /// before the last norm, `[L, hidden]`.
    pub fn forward(
        &self,
        x: &Tensor,
        axes: [&[i64]; 3],
        cache: &mut KvCache,
        work: &mut Work,
    ) -> Result<Tensor> {
        let new = x.size().first().copied().unwrap_or(0) as usize;
        cache.reserve(new)?;
        let (cos, sin) = self.rope.angles(axes, self.kind)?;
        let mut masks = Masks {
            held: cache.tokens(),
            new,
            device: self.device,
            made: Vec::new(),
        };
        let start = work.hold(x.shallow_clone());
        let x = work.stack(
            self.layers.iter().enumerate(),
            start,
            |work, (index, layer), x| {
                self.layer(layer, index, x, (&cos, &sin), cache, &mut masks, work)
            },
        )?;
        cache.advance(new);
        Ok(x)
    }

    /// The logits of hidden states: `[n, hidden] -> [n, vocab]`.
    pub fn logits(&self, hidden: &Tensor, work: &mut Work) -> Result<Tensor> {
        let normed = self.norm.forward(hidden, work)?;
        self.head.forward(&normed, work)
    }

    #[allow(clippy::too_many_arguments)] // one call site; a struct would only rename the arguments
    fn layer(
        &self,
        layer: &Layer,
        index: usize,
        x: &Tensor,
        (cos, sin): (&Tensor, &Tensor),
        cache: &mut KvCache,
        masks: &mut Masks,
        work: &mut Work,
    ) -> Result<Tensor> {
        let (heads, kv_heads, dim) = (
            self.config.heads as i64,
            self.config.kv_heads as i64,
            self.config.head_dim as i64,
        );
        let rows = masks.new as i64;
        let normed = layer.norm1.forward(x, work)?;
        let qkv = layer
            .qkv
            .forward(&normed, work)?
            .f_reshape([rows, heads + 2 * kv_heads, dim])?;
        // Queries and keys turn together.
        let turned = rotate(&qkv.f_narrow(1, 0, heads + kv_heads)?, cos, sin)?;
        let turned = work.hold(turned);
        let q = turned.f_narrow(1, 0, heads)?;
        let (k, v) = cache.write(
            index,
            &turned.f_narrow(1, heads, kv_heads)?,
            &qkv.f_narrow(1, heads + kv_heads, kv_heads)?,
        )?;
        let attended = self.attend(&q, &k, &v, layer.window, masks, work)?;
        let x = x.f_add(&layer.out.forward(&attended, work)?)?;
        let x = work.hold(x);
        let normed = layer.norm2.forward(&x, work)?;
        Ok(x.f_add(&layer.mlp.forward(&normed, work)?)?)
    }

    /// `q`: `[L, heads, d]`; `k`, `v`: `[kv heads, S, d]` with the queries' own tokens last. Returns `[L, heads * d]`.
    fn attend(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        window: Option<usize>,
        masks: &mut Masks,
        work: &mut Work,
    ) -> Result<Tensor> {
        let (heads, kv_heads, dim) = (
            self.config.heads as i64,
            self.config.kv_heads as i64,
            self.config.head_dim as i64,
        );
        let (rows, all) = (masks.new as i64, (masks.held + masks.new) as i64);
        work.flops(4 * (heads * dim) as usize * masks.visible(window));
        let sdpa = |q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, causal: bool| {
            Tensor::f_scaled_dot_product_attention(q, k, v, mask, 0.0, causal, None, false)
        };
        let out = if rows == 1 {
            // One query sees all that is held: the heads that share a key head become its queries, no mask, no copies.
            let seen = window.map_or(all, |window| all.min(window as i64));
            let q = q.f_reshape([1, kv_heads, heads / kv_heads, dim])?;
            let last = |x: &Tensor| x.f_narrow(1, all - seen, seen)?.f_unsqueeze(0);
            sdpa(&q, &last(k)?, &last(v)?, None, false)?.f_reshape([1, heads * dim])?
        } else {
            let group = heads / kv_heads;
            let causal = masks.held == 0 && window.is_none_or(|window| window >= masks.new);
            let out = if causal {
                // Keys and values are as many as the queries here: spread once over the heads that share them.
                let mut spread = |x: &Tensor| -> Result<Tensor> {
                    let wide = x
                        .f_unsqueeze(1)?
                        .f_expand([kv_heads, group, all, dim], false)?
                        .f_reshape([1, heads, all, dim])?;
                    Ok(work.hold(wide))
                };
                let q = q.f_transpose(0, 1)?.f_unsqueeze(0)?;
                sdpa(&q, &spread(k)?, &spread(v)?, None, true)?.f_squeeze_dim(0)?
            } else {
                // Few queries on a long cache: fold the heads that share a key head into the queries instead.
                let q = q
                    .f_reshape([rows, kv_heads, group, dim])?
                    .f_permute([1, 2, 0, 3])?
                    .f_reshape([1, kv_heads, group * rows, dim])?;
                let mask = work.hold(masks.get(window)?.f_repeat([group, 1])?);
                let (k, v) = (k.f_unsqueeze(0)?, v.f_unsqueeze(0)?);
                sdpa(&q, &k, &v, Some(&mask), false)?.f_reshape([heads, rows, dim])?
            };
            out.f_transpose(0, 1)?.f_reshape([rows, heads * dim])?
        };
        Ok(work.hold(out))
    }
}

/// Which tokens the new ones may attend to; made once a pass and shared by the layers.
struct Masks {
    held: usize,
    new: usize,
    device: Device,
    made: Vec<(Option<usize>, Tensor)>,
}

impl Masks {
    /// Pairs of query and key that see each other.
    fn visible(&self, window: Option<usize>) -> usize {
        (self.held + 1..=self.held + self.new)
            .map(|seen| window.map_or(seen, |window| seen.min(window)))
            .sum()
    }

    /// `[new, held + new]`, true where the query (row) may see the key.
    fn get(&mut self, window: Option<usize>) -> Result<Tensor> {
        if let Some((_, mask)) = self.made.iter().find(|(made, _)| *made == window) {
            return Ok(mask.shallow_clone());
        }
        let options = (Kind::Bool, self.device);
        let (new, held) = (self.new as i64, self.held as i64);
        let mut mask = Tensor::f_ones([new, held + new], options)?.f_tril(held)?;
        if let Some(window) = window {
            mask = mask.f_triu(held - window as i64 + 1)?;
        }
        self.made.push((window, mask.shallow_clone()));
        Ok(mask)
    }
}

impl Rope {
    fn new(config: &TextConfig, device: Device) -> Result<Self> {
        let half = config.head_dim / 2;
        let theta = config.rope_theta as f32;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| 1.0 / theta.powf((2 * i) as f32 / config.head_dim as f32))
            .collect();
        let axis: Vec<i64> = config
            .mrope_section
            .iter()
            .zip(0i64..)
            .flat_map(|(&count, axis)| std::iter::repeat_n(axis, count))
            .collect();
        Ok(Rope {
            frequencies: Tensor::f_from_slice(&frequencies)?.f_to_device(device)?,
            axis: index_tensor(&axis, device)?,
        })
    }

    /// Cosines and sines `[L, 1, d]` in `kind`.
    fn angles(&self, axes: [&[i64]; 3], kind: Kind) -> Result<(Tensor, Tensor)> {
        let [time, height, width] = axes;
        let flat: Vec<f32> = [time, height, width]
            .into_iter()
            .flatten()
            .map(|&p| p as f32)
            .collect();
        let positions = Tensor::f_from_slice(&flat)?.f_reshape([3, time.len() as i64])?;
        let angles = positions
            .f_to_device(self.axis.device())?
            .f_index_select(0, &self.axis)?
            .f_transpose(0, 1)?
            .f_mul(&self.frequencies)?;
        let angles = Tensor::f_cat(&[&angles, &angles], -1)?.f_unsqueeze(1)?;
        Ok((
            angles.f_cos()?.f_to_kind(kind)?,
            angles.f_sin()?.f_to_kind(kind)?,
        ))
    }
}
