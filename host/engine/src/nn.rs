//! The few layers that the three families are made of, each counting what it does.

use std::sync::Arc;

use msao_core::meter::{Meter, Phase};
use msao_kernels::{Instructions, PackedMatrix};
use tch::{Device, Kind, Tensor};

use crate::config::Activation;
use crate::error::{EngineError, Result};
use crate::native;
use crate::quantized::Quantized;
use crate::weights::{Holding, Weights};

/// What a forward pass carries along: the account and the phase it is charged to.
pub(crate) struct Work<'a> {
    pub meter: &'a mut Meter,
    pub phase: Phase,
}

impl Work<'_> {
    /// Charges floating-point operations.
    pub fn flops(&mut self, flops: usize) {
        self.meter.add_flops(self.phase, flops as u64);
    }

    /// Notes an intermediate result and hands it on.
    pub fn hold(&mut self, tensor: Tensor) -> Tensor {
        self.meter.hold(self.phase, bytes(&tensor));
        tensor
    }

    /// Runs a block: its intermediate results are let go when it ends, even by an error. Its result counts with the
    /// caller's.
    pub fn block(&mut self, run: impl FnOnce(&mut Self) -> Result<Tensor>) -> Result<Tensor> {
        let mark = self.meter.mark();
        let result = run(self);
        self.meter.release_to(mark);
        result.map(|tensor| self.hold(tensor))
    }

    /// Runs `layers` one after the other, each as a block on the last one's result. Of the results between only one
    /// is held at a time.
    pub fn stack<L>(
        &mut self,
        layers: impl IntoIterator<Item = L>,
        start: Tensor,
        mut run: impl FnMut(&mut Self, L, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mark = self.meter.mark();
        let mut x = start;
        for layer in layers {
            let next = self.block(|work| run(work, layer, &x))?;
            self.meter.release_to(mark);
            x = self.hold(next);
        }
        Ok(x)
    }
}

/// The kind in which libtorch is to multiply what is of `kind`. On a processor without instructions for such floats it makes
/// one dot product after the other, several times as slowly as in f32: there it is f32, and what comes out is rounded. For bf16
/// there are instructions where our kernels use them; for f16 none are counted on.
pub(crate) fn product_kind(kind: Kind, device: Device) -> Kind {
    let has_instructions =
        kind == Kind::BFloat16 && msao_kernels::instructions() == Some(Instructions::Avx512);
    if device == Device::Cpu && !has_instructions {
        Kind::Float
    } else {
        kind
    }
}

/// `x W^T + b` of an encoder by libtorch, in the kind of `x`. Where that is not the kind to multiply in, the weights are converted for
/// this once: with the hundreds of rows of a medium that is little beside the product, and held so they would take twice the
/// memory.
fn encoder_product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (kind, inner) = (x.kind(), product_kind(x.kind(), x.device()));
    if inner == kind {
        return Ok(x.f_linear(weight, bias)?);
    }
    let bias = bias.map(|bias| bias.f_to_kind(inner)).transpose()?;
    let y = (x.f_to_kind(inner)?).f_linear(&weight.f_to_kind(inner)?, bias)?;
    Ok(y.f_to_kind(kind)?)
}

/// Bytes that a tensor's values take.
pub(crate) fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

/// A matrix `[out, in]`, as libtorch multiplies it or as our kernels do.
#[derive(Debug)]
pub(crate) enum Matrix {
    /// Row-major, any device.
    Plain(Tensor),
    /// In the kernels' order, with its bias; processor only.
    Packed(Arc<PackedMatrix>),
    /// 8-bit integers for libtorch, any device.
    Quantized(Quantized),
}

/// `y = x W^T + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    matrix: Matrix,
    /// `[out]`. A packed matrix holds its own.
    bias: Option<Tensor>,
    /// It is an encoder's, which has many rows at once.
    encodes: bool,
}

impl Linear {
    /// Loads one matrix, or several stacked along their outputs (so that one product does the work of all).
    /// `biased` says for each part whether it has a bias; parts without one get zeros where another has.
    pub fn load(
        weights: &mut Weights,
        names: &[&str],
        outs: &[usize],
        inputs: usize,
        biased: &[bool],
    ) -> Result<Self> {
        let total: usize = outs.iter().sum();
        let weight_names: Vec<String> = names.iter().map(|name| format!("{name}.weight")).collect();
        let refs: Vec<&str> = weight_names.iter().map(String::as_str).collect();
        let (kind, device) = weights.kind_and_device();
        let mut matrix = match weights.holding() {
            Holding::Plain | Holding::Encoder => {
                Matrix::Plain(weights.take_rows(&refs, &[total, inputs])?)
            }
            Holding::Packed(format) => {
                Matrix::Packed(Arc::new(weights.take_packed(&refs, total, inputs, format)?))
            }
            Holding::Quantized => Matrix::Quantized(weights.take_quantized(&refs, total, inputs)?),
        };
        let bias = if biased.iter().any(|&b| b) {
            let mut parts = Vec::with_capacity(names.len());
            for ((name, &out), &has) in names.iter().zip(outs).zip(biased) {
                parts.push(if has {
                    weights.take(&format!("{name}.bias"), &[out])?
                } else {
                    Tensor::f_zeros([out as i64], (kind, device))?
                });
            }
            Some(if parts.len() == 1 {
                parts.remove(0)
            } else {
                Tensor::f_cat(&parts, 0)?
            })
        } else {
            None
        };
        let bias = match (&mut matrix, bias) {
            (Matrix::Packed(packed), Some(bias)) => {
                // Nobody else has it yet.
                if let Some(packed) = Arc::get_mut(packed) {
                    packed.set_bias(&floats(&bias)?)?;
                }
                None
            }
            (_, bias) => bias,
        };
        Ok(Linear {
            matrix,
            bias,
            encodes: weights.holding() == Holding::Encoder,
        })
    }

    /// A single matrix `[out, in]`.
    pub fn single(
        weights: &mut Weights,
        name: &str,
        out: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Self> {
        Self::load(weights, &[name], &[out], inputs, &[bias])
    }

    /// A matrix made from another layer's weights.
    pub fn from_parts(weight: Tensor, bias: Option<Tensor>) -> Self {
        Linear {
            matrix: Matrix::Plain(weight),
            bias,
            encodes: false,
        }
    }

    /// `[.., in] -> [.., out]`.
    pub fn forward(&self, x: &Tensor, work: &mut Work) -> Result<Tensor> {
        work.flops(2 * x.numel() * self.outputs());
        let y = match &self.matrix {
            Matrix::Plain(weight) if self.encodes => {
                encoder_product(x, weight, self.bias.as_ref())?
            }
            Matrix::Plain(weight) => x.f_linear(weight, self.bias.as_ref())?,
            Matrix::Packed(weights) => native::product(x, weights, x.kind())?,
            Matrix::Quantized(weights) => weights.product(x, self.bias.as_ref(), x.kind())?,
        };
        Ok(work.hold(y))
    }

    /// As [`Linear::forward`], in f32 where that costs nothing: sums are made in f32 and would only be rounded.
    pub fn forward_wide(&self, x: &Tensor, work: &mut Work) -> Result<Tensor> {
        let y = match &self.matrix {
            Matrix::Plain(_) => return self.forward(x, work),
            Matrix::Packed(weights) => native::product(x, weights, Kind::Float)?,
            Matrix::Quantized(weights) => weights.product(x, self.bias.as_ref(), Kind::Float)?,
        };
        work.flops(2 * x.numel() * self.outputs());
        Ok(work.hold(y))
    }

    /// The packed matrix, where it is one.
    pub fn packed(&self) -> Option<&PackedMatrix> {
        match &self.matrix {
            Matrix::Packed(weights) => Some(weights),
            Matrix::Plain(_) | Matrix::Quantized(_) => None,
        }
    }

    /// Bytes of the matrix.
    pub fn bytes(&self) -> u64 {
        match &self.matrix {
            Matrix::Plain(weight) => bytes(weight),
            Matrix::Packed(weights) => weights.bytes() as u64,
            Matrix::Quantized(weights) => weights.bytes(),
        }
    }

    fn outputs(&self) -> usize {
        match &self.matrix {
            Matrix::Plain(weight) => weight.size().first().map_or(0, |&n| n as usize),
            Matrix::Packed(weights) => weights.outputs(),
            Matrix::Quantized(weights) => weights.outputs(),
        }
    }
}

/// The vectors of the vocabulary, `[vocab, hidden]`.
#[derive(Debug)]
pub(crate) struct Embedding(Matrix);

impl Embedding {
    /// Loads `NAME.weight`.
    pub fn load(weights: &mut Weights, name: &str, vocab: usize, hidden: usize) -> Result<Self> {
        Ok(Embedding(
            Linear::single(weights, name, vocab, hidden, false)?.matrix,
        ))
    }

    /// The same matrix as the output layer of a model that ties both.
    pub fn as_linear(&self) -> Linear {
        Linear {
            matrix: match &self.0 {
                Matrix::Plain(weight) => Matrix::Plain(weight.shallow_clone()),
                Matrix::Packed(weights) => Matrix::Packed(Arc::clone(weights)),
                Matrix::Quantized(weights) => Matrix::Quantized(weights.share()),
            },
            bias: None,
            encodes: false,
        }
    }

    /// The vectors of tokens, `[ids, hidden]`. Every id must be below the vocabulary.
    pub fn rows(&self, ids: &[u32], (kind, device): (Kind, Device)) -> Result<Tensor> {
        if let Matrix::Packed(weights) = &self.0 {
            return native::rows(weights, ids, kind);
        }
        let wide: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        self.rows_at(&index_tensor(&wide, device)?, kind)
    }

    /// The same for ids that lie on the model's device, `[ids]`. Not for packed matrices.
    pub fn rows_at(&self, ids: &Tensor, kind: Kind) -> Result<Tensor> {
        match &self.0 {
            Matrix::Plain(weight) => Ok(weight.f_index_select(0, ids)?),
            Matrix::Quantized(weights) => weights.rows(ids, kind),
            Matrix::Packed(_) => Err(EngineError::request(
                "rows of a packed matrix are asked for by numbers of the host",
            )),
        }
    }
}

/// A tensor's values in f32, in order.
pub(crate) fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor
        .f_to_kind(Kind::Float)?
        .f_to_device(Device::Cpu)?
        .f_contiguous()?;
    let mut values = vec![0f32; flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}

/// RMSNorm or LayerNorm over the last axis.
#[derive(Debug)]
pub(crate) struct Norm {
    pub weight: Tensor,
    /// LayerNorm's bias; RMSNorm has none.
    bias: Option<Tensor>,
    pub eps: f64,
}

impl Norm {
    /// RMSNorm: `x / rms(x) * w`.
    pub fn rms(weights: &mut Weights, name: &str, width: usize, eps: f64) -> Result<Self> {
        Ok(Norm {
            weight: weights.take(&format!("{name}.weight"), &[width])?,
            bias: None,
            eps,
        })
    }

    /// LayerNorm: `(x - mean) / std * w + b`.
    pub fn layer(weights: &mut Weights, name: &str, width: usize, eps: f64) -> Result<Self> {
        let weight = weights.take(&format!("{name}.weight"), &[width])?;
        let bias = Some(weights.take(&format!("{name}.bias"), &[width])?);
        Ok(Norm { weight, bias, eps })
    }

    pub fn forward(&self, x: &Tensor, work: &mut Work) -> Result<Tensor> {
        let width = self.weight.size();
        let y = match &self.bias {
            Some(bias) => {
                x.f_layer_norm(&width, Some(&self.weight), Some(bias), self.eps, false)?
            }
            None => x.f_rms_norm(&width, Some(&self.weight), self.eps)?,
        };
        Ok(work.hold(y))
    }
}

/// Applies an activation function.
pub(crate) fn activate(x: &Tensor, activation: Activation, work: &mut Work) -> Result<Tensor> {
    let y = match activation {
        Activation::Silu => x.f_silu()?,
        Activation::Gelu => x.f_gelu("none")?,
        Activation::QuickGelu => x.f_mul(&x.f_mul_scalar(1.702)?.f_sigmoid()?)?,
    };
    Ok(work.hold(y))
}

/// The gated MLP: `down(act(gate x) * up x)`, gate and up in one matrix.
#[derive(Debug)]
pub(crate) struct GatedMlp {
    pub gate_up: Linear,
    pub down: Linear,
    pub width: i64,
    pub activation: Activation,
}

impl GatedMlp {
    pub fn load(
        weights: &mut Weights,
        name: &str,
        hidden: usize,
        width: usize,
        bias: bool,
        activation: Activation,
    ) -> Result<Self> {
        let (gate, up) = (format!("{name}.gate_proj"), format!("{name}.up_proj"));
        Ok(GatedMlp {
            gate_up: Linear::load(
                weights,
                &[&gate, &up],
                &[width, width],
                hidden,
                &[bias, bias],
            )?,
            down: Linear::single(weights, &format!("{name}.down_proj"), hidden, width, bias)?,
            width: width as i64,
            activation,
        })
    }

    pub fn forward(&self, x: &Tensor, work: &mut Work) -> Result<Tensor> {
        let both = self.gate_up.forward(x, work)?;
        let gate = both.f_narrow(-1, 0, self.width)?;
        let up = both.f_narrow(-1, self.width, self.width)?;
        let gated = activate(&gate, self.activation, work)?.f_mul(&up)?;
        let gated = work.hold(gated);
        self.down.forward(&gated, work)
    }
}

/// The plain MLP: `second(act(first x))`.
#[derive(Debug)]
pub(crate) struct Mlp {
    first: Linear,
    second: Linear,
    activation: Activation,
}

impl Mlp {
    /// Loads `first` (`hidden -> width`) and `second` (`width -> out`), both with bias.
    pub fn load(
        weights: &mut Weights,
        (first, second): (&str, &str),
        (hidden, width, out): (usize, usize, usize),
        activation: Activation,
    ) -> Result<Self> {
        Ok(Mlp {
            first: Linear::single(weights, first, width, hidden, true)?,
            second: Linear::single(weights, second, out, width, true)?,
            activation,
        })
    }

    pub fn forward(&self, x: &Tensor, work: &mut Work) -> Result<Tensor> {
        let hidden = self.first.forward(x, work)?;
        let hidden = activate(&hidden, self.activation, work)?;
        self.second.forward(&hidden, work)
    }
}

/// A `[len]` tensor of indices.
pub(crate) fn index_tensor(indices: &[i64], device: Device) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(indices)?.f_to_device(device)?)
}

/// Turns pairs by their angles: `x * cos + rotate_half(x) * sin`.
///
/// `x`: `[n, heads, d]`; `cos`, `sin`: `[n, 1, d]` in f32 or x's kind; both halves of `d` carry the same angles
/// (Su et al. 2021, in the half-split layout that Hugging Face checkpoints use). Computed in `cos`'s kind.
pub(crate) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let kind = x.kind();
    let x = if kind == cos.kind() {
        x.shallow_clone()
    } else {
        x.f_to_kind(Kind::Float)?
    };
    let half = x.size().last().copied().unwrap_or(0) / 2;
    let first = x.f_narrow(-1, 0, half)?;
    let second = x.f_narrow(-1, half, half)?;
    let turned = Tensor::f_cat(&[second.f_neg()?, first], -1)?;
    let y = x.f_mul(cos)?.f_add(&turned.f_mul(sin)?)?;
    Ok(if kind == y.kind() {
        y
    } else {
        y.f_to_kind(kind)?
    })
}
