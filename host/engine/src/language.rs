//! The language model: token embeddings and media features in, logits out.

use tch::{Device, Kind, Tensor};

use crate::config::TextConfig;
use crate::error::{EngineError, Result};
use crate::fixed::{Attention, Plan};
use crate::native;
use crate::nn::{Embedding, GatedMlp, Linear, Norm, Work, index_tensor, rotate};
use crate::paged::{Heads, Paged, Span};
use crate::pool::Region;
use crate::weights::{Holding, Weights};

#[derive(Debug)]
pub(crate) struct LanguageModel {
    config: TextConfig,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    rope: Rope,
    kind: Kind,
    device: Device,
    /// Whether the layers run on this crate's own kernels.
    native: bool,
}

#[derive(Debug)]
pub(crate) struct Layer {
    pub norm1: Norm,
    pub qkv: Linear,
    pub out: Linear,
    pub norm2: Norm,
    pub mlp: GatedMlp,
    pub window: Option<usize>,
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
        let embedding = Embedding::load(
            weights,
            &format!("{prefix}.embed_tokens"),
            config.vocab_size,
            hidden,
        )?;
        let (kind, device) = weights.kind_and_device();
        let head = match head {
            Some(name) => Linear::single(weights, name, config.vocab_size, hidden, false)?,
            None => embedding.as_linear(),
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
            native: matches!(weights.holding(), Holding::Packed(_)),
        })
    }

    /// Where and in what kind keys and values are held.
    pub fn cache_place(&self) -> (Kind, Device) {
        (self.kind, self.device)
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
        self.embedding.rows(ids, (self.kind, self.device))
    }

    /// Runs the layers of one region over `x` `[rows, hidden]`, whose tokens stand at `axes` (time, height, width:
    /// as many positions each) and belong to `spans`, one after the other. Keys and values go to the slots of the
    /// spans' newest tokens. Returns the hidden states after those layers, `[rows, hidden]`.
    ///
    /// `work` is charged for everything but attention, whose cost differs from span to span:
    /// [`LanguageModel::attention_flops`].
    pub fn run(
        &self,
        x: &Tensor,
        axes: [&[i64]; 3],
        region: &Region,
        spans: &[Span],
        work: &mut Work,
    ) -> Result<Tensor> {
        let layers = self.layers.get(region.layers()).ok_or_else(|| {
            EngineError::request("the cache was made for a model of other layers")
        })?;
        if layers.is_empty() {
            return Ok(x.shallow_clone());
        }
        if self.native {
            let angles = self.rope.angles(axes, Kind::Float)?;
            return native::run(self, layers, x, angles, region, spans, work);
        }
        let (cos, sin) = self.rope.angles(axes, self.kind)?;
        let mut paged = Paged::new(spans, self.heads(), self.cache_place())?;
        let start = work.hold(x.shallow_clone());
        work.stack(
            layers.iter().zip(region.layers()),
            start,
            |work, (layer, number), x| {
                self.layer(layer, x, (&cos, &sin), work, |qkv, work| {
                    paged.attend(qkv, region, number, layer.window, work)
                })
            },
        )
    }

    /// Whether the layers run on this crate's own kernels.
    pub fn is_native(&self) -> bool {
        self.native
    }

    /// Runs all layers over a pass of a fixed shape and returns the hidden states, `[rows, hidden]`. Everything that differs
    /// from pass to pass is read from `plan`, on the device. Charged as [`LanguageModel::run`] does.
    pub fn run_fixed(&self, plan: &Plan, regions: &[Region; 2], work: &mut Work) -> Result<Tensor> {
        let mut x = self.embedding.rows_at(&plan.ids, self.kind)?;
        let (cos, sin) = self.rope.angles_at(&plan.axes, self.kind)?;
        for (region, of_region) in regions.iter().zip(&plan.regions) {
            let layers = self.layers.get(region.layers()).unwrap_or_default();
            let mut attention = Attention::new(plan.shape, of_region, self.heads());
            let start = work.hold(x);
            x = work.stack(
                layers.iter().zip(region.layers()),
                start,
                |work, (layer, number), x| {
                    self.layer(layer, x, (&cos, &sin), work, |qkv, work| {
                        attention.attend(qkv, region, number, layer.window, work)
                    })
                },
            )?;
        }
        Ok(x)
    }

    /// Floating-point operations of attention for one span in the layers of a region.
    pub fn attention_flops(&self, region: &Region, span: &Span) -> u64 {
        let width = self.config.heads * self.config.head_dim;
        let layers = self.layers.get(region.layers()).unwrap_or_default();
        layers
            .iter()
            .map(|layer| (4 * width * span.visible(layer.window)) as u64)
            .sum()
    }

    pub fn heads(&self) -> Heads {
        Heads {
            heads: self.config.heads as i64,
            kv_heads: self.config.kv_heads as i64,
            dim: self.config.head_dim as i64,
        }
    }

    /// Bytes of the matrices that a pass multiplies by.
    pub fn pass_bytes(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| {
            let mlp = layer.mlp.gate_up.bytes() + layer.mlp.down.bytes();
            layer.qkv.bytes() + layer.out.bytes() + mlp
        });
        layers.sum::<u64>() + self.head.bytes()
    }

    /// The logits of hidden states: `[n, hidden] -> [n, vocab]`.
    pub fn logits(&self, hidden: &Tensor, work: &mut Work) -> Result<Tensor> {
        let normed = self.norm.forward(hidden, work)?;
        self.head.forward_wide(&normed, work)
    }

    /// The queries `[rows, heads, d]` and keys `[rows, kv heads, d]` with which layer `number` would attend to hidden states
    /// `x` `[rows, hidden]` of tokens at `axes`. Nothing is kept.
    pub fn ahead(
        &self,
        number: usize,
        x: &Tensor,
        axes: [&[i64]; 3],
        work: &mut Work,
    ) -> Result<(Tensor, Tensor)> {
        let layer = self.layers.get(number).ok_or_else(|| {
            EngineError::request(format!("there is no layer {number} to look ahead to"))
        })?;
        let kind = if self.native { Kind::Float } else { self.kind };
        let (cos, sin) = self.rope.angles(axes, kind)?;
        let (q, k, _) = self.attending(layer, x, (&cos, &sin), work)?;
        // On its own, so that keys that are kept hold no queries.
        Ok((q, k.f_contiguous()?))
    }

    /// One layer's queries, keys and values of `[rows, hidden]`, the first two turned to their positions.
    fn attending(
        &self,
        layer: &Layer,
        x: &Tensor,
        (cos, sin): (&Tensor, &Tensor),
        work: &mut Work,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let Heads {
            heads,
            kv_heads,
            dim,
        } = self.heads();
        let rows = x.size().first().copied().unwrap_or(0);
        let normed = layer.norm1.forward(x, work)?;
        let qkv = layer
            .qkv
            .forward(&normed, work)?
            .f_reshape([rows, heads + 2 * kv_heads, dim])?;
        // Queries and keys turn together.
        let turned = rotate(&qkv.f_narrow(1, 0, heads + kv_heads)?, cos, sin)?;
        let turned = work.hold(turned);
        Ok((
            turned.f_narrow(1, 0, heads)?,
            turned.f_narrow(1, heads, kv_heads)?,
            qkv.f_narrow(1, heads + kv_heads, kv_heads)?,
        ))
    }

    /// One layer over `[rows, hidden]`. `attend` gets queries, keys and values (`[rows, heads, d]` each) and returns
    /// `[rows, heads * d]`.
    fn layer(
        &self,
        layer: &Layer,
        x: &Tensor,
        (cos, sin): (&Tensor, &Tensor),
        work: &mut Work,
        attend: impl FnOnce((&Tensor, &Tensor, &Tensor), &mut Work) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (q, k, v) = self.attending(layer, x, (cos, sin), work)?;
        let attended = attend((&q, &k, &v), work)?;
        let x = x.f_add(&layer.out.forward(&attended, work)?)?;
        let x = work.hold(x);
        let normed = layer.norm2.forward(&x, work)?;
        Ok(x.f_add(&layer.mlp.forward(&normed, work)?)?)
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
        self.angles_at(&positions.f_to_device(self.axis.device())?, kind)
    }

    /// The same of positions `[3, L]` on the device.
    fn angles_at(&self, positions: &Tensor, kind: Kind) -> Result<(Tensor, Tensor)> {
        let angles = positions
            .f_to_kind(Kind::Float)?
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
