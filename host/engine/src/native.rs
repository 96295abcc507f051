//! The language model's layers on our own kernels: the way on a processor that has the instructions for them.
//!
//! The same arithmetic as `language.rs` does with libtorch, with the cache written and read in place and a handful
//! of calls a layer: at a few rows a pass libtorch spends more time between its operations than in them.

use std::ffi::c_void;

use msao_kernels::{self as kernels, Element, HeadShape, PackedMatrix, View, ViewMut};
use tch::{Device, Kind, Tensor};

use crate::config::Activation;
use crate::error::{EngineError, Result};
use crate::language::{LanguageModel, Layer};
use crate::nn::{Linear, Work, activate};
use crate::paged::Span;
use crate::pool::Region;

/// The kernels' name of a kind that they compute with.
pub(crate) fn element(kind: Kind) -> Result<Element> {
    match kind {
        Kind::Float => Ok(Element::F32),
        Kind::BFloat16 => Ok(Element::Bf16),
        other => Err(EngineError::request(format!(
            "the kernels do not compute in {other:?}"
        ))),
    }
}

fn threads() -> usize {
    tch::get_num_threads().max(1) as usize
}

/// Rows and width of a matrix that lies in memory row after row.
fn extent(tensor: &Tensor) -> Result<(usize, usize)> {
    match tensor.size().as_slice() {
        [rows, width] if tensor.is_contiguous() && tensor.device() == Device::Cpu => {
            Ok((*rows as usize, *width as usize))
        }
        other => Err(EngineError::request(format!(
            "a tensor of shape {other:?} is no matrix in this processor's memory"
        ))),
    }
}

fn view(tensor: &Tensor) -> Result<View> {
    let (rows, width) = extent(tensor)?;
    Ok(View {
        data: tensor.data_ptr(),
        rows,
        width,
        stride: width,
        element: element(tensor.kind())?,
    })
}

fn view_mut(tensor: &mut Tensor) -> Result<ViewMut> {
    let (rows, width) = extent(tensor)?;
    Ok(ViewMut {
        data: tensor.data_ptr(),
        rows,
        width,
        stride: width,
        element: element(tensor.kind())?,
    })
}

fn buffer(rows: usize, width: usize, kind: Kind) -> Result<Tensor> {
    Ok(Tensor::f_empty(
        [rows as i64, width as i64],
        (kind, Device::Cpu),
    )?)
}

/// `x W^T + b` for `x` `[.., in]`, as values of `kind`: x's own or f32.
pub(crate) fn product(x: &Tensor, weights: &PackedMatrix, kind: Kind) -> Result<Tensor> {
    let mut size = x.size();
    let flat = x.f_reshape([-1, weights.inputs() as i64])?.f_contiguous()?;
    let (rows, _) = extent(&flat)?;
    let mut y = buffer(rows, weights.outputs(), kind)?;
    multiply(&flat, weights, &mut y)?;
    if let Some(last) = size.last_mut() {
        *last = weights.outputs() as i64;
    }
    Ok(y.f_reshape(&size)?)
}

/// Rows of a packed embedding, `[ids, hidden]`. Every id must be below the number of rows.
pub(crate) fn rows(weights: &PackedMatrix, ids: &[u32], kind: Kind) -> Result<Tensor> {
    if ids.iter().any(|&id| id as usize >= weights.outputs()) {
        return Err(EngineError::request(
            "a token id lies outside the embedding",
        ));
    }
    let mut y = buffer(ids.len(), weights.inputs(), kind)?;
    let into = view_mut(&mut y)?;
    // SAFETY: `y` has a row for every id and the matrix's width, and every id is below the matrix's rows.
    unsafe { kernels::gather(weights, ids, into) };
    Ok(y)
}

fn multiply(x: &Tensor, weights: &PackedMatrix, y: &mut Tensor) -> Result<()> {
    let ((rows, width), (y_rows, y_width)) = (extent(x)?, extent(y)?);
    if width != weights.inputs() || y_width != weights.outputs() || rows != y_rows {
        return Err(EngineError::request(format!(
            "a product of [{rows}, {width}] with [{}, {}] does not give [{y_rows}, {y_width}]",
            weights.outputs(),
            weights.inputs()
        )));
    }
    let (x, y) = (view(x)?, view_mut(y)?);
    // SAFETY: both views cover whole tensors whose extents were checked against the matrix.
    unsafe { kernels::linear(x, weights, y, threads()) };
    Ok(())
}

fn packed(linear: &Linear) -> Result<&PackedMatrix> {
    linear
        .packed()
        .ok_or_else(|| EngineError::request("a matrix of the language model was not packed"))
}

/// Buffers that every layer of a pass uses anew.
struct Scratch {
    /// `[rows, hidden]`.
    normed: Tensor,
    /// `[rows, (heads + 2 kv heads) * d]`.
    qkv: Tensor,
    /// `[rows, heads * d]`.
    attended: Tensor,
    /// `[rows, 2 * width]` and `[rows, width]` of the MLP.
    gate_up: Tensor,
    gated: Tensor,
}

/// Runs `layers`, which are those of `region`: see [`LanguageModel::run`]. `angles`: cosines and sines, `[rows, 1, d]`
/// in f32.
pub(crate) fn run(
    model: &LanguageModel,
    layers: &[Layer],
    x: &Tensor,
    angles: (Tensor, Tensor),
    region: &Region,
    spans: &[Span],
    work: &mut Work,
) -> Result<Tensor> {
    let mark = work.meter.mark();
    let (rows, hidden) = extent(x)?;
    // The layers add to it in place; what was handed in stays as it is.
    let mut x = {
        let mut copied = buffer(rows, hidden, x.kind())?;
        copied.f_copy_(x)?;
        work.hold(copied)
    };
    let heads = model.heads();
    let shape = HeadShape {
        heads: heads.heads as usize,
        kv_heads: heads.kv_heads as usize,
        dim: heads.dim as usize,
    };
    let kind = x.kind();
    let width = layers.first().map_or(0, |layer| layer.mlp.width as usize);
    let mut scratch = Scratch {
        normed: work.hold(buffer(rows, hidden, kind)?),
        qkv: work.hold(buffer(
            rows,
            (shape.heads + 2 * shape.kv_heads) * shape.dim,
            kind,
        )?),
        attended: work.hold(buffer(rows, shape.heads * shape.dim, kind)?),
        gate_up: work.hold(buffer(rows, 2 * width, kind)?),
        gated: work.hold(buffer(rows, width, kind)?),
    };
    let spans: Vec<kernels::Span> = spans
        .iter()
        .map(|span| kernels::Span {
            first_row: span.first_row,
            rows: span.rows,
            slots: span.slots,
        })
        .collect();
    let new: Vec<u32> = spans
        .iter()
        .flat_map(|span| span.slots.iter().skip(span.slots.len() - span.rows))
        .copied()
        .collect();
    let (cos, sin) = (angles.0.f_contiguous()?, angles.1.f_contiguous()?);
    let pass = Pass {
        cos: &cos,
        sin: &sin,
        shape,
        spans: &spans,
        new: &new,
    };
    pass.check(region, rows)?;
    for (layer, number) in layers.iter().zip(region.layers()) {
        let (keys, values) = region.layer(number)?;
        pass.layer(
            layer,
            &mut x,
            &mut scratch,
            (keys.data_ptr(), values.data_ptr()),
            work,
        )?;
    }
    work.meter.release_to(mark);
    Ok(work.hold(x))
}

/// What every layer needs to know.
struct Pass<'a> {
    cos: &'a Tensor,
    sin: &'a Tensor,
    shape: HeadShape,
    spans: &'a [kernels::Span<'a>],
    new: &'a [u32],
}

impl Pass<'_> {
    /// Holds everything that the kernels take on trust against the tensors' sizes.
    fn check(&self, region: &Region, rows: usize) -> Result<()> {
        let (keys, _) = region.layer(region.layers().start)?;
        let room = keys.size().first().copied().unwrap_or(0) as usize;
        let slots = self.spans.iter().flat_map(|span| span.slots);
        let inside = slots.max().is_none_or(|&slot| (slot as usize) < room);
        let mut next = 0;
        let in_order = self.spans.iter().all(|span| {
            let fits = span.first_row == next && span.rows > 0 && span.rows <= span.slots.len();
            next += span.rows;
            fits
        });
        if !inside || !in_order || next != rows || self.new.len() != rows {
            return Err(EngineError::request(
                "the rows of a pass do not match its sequences",
            ));
        }
        if self.cos.numel() != rows * self.shape.dim || self.sin.numel() != rows * self.shape.dim {
            return Err(EngineError::request(
                "the positions of a pass do not match its rows",
            ));
        }
        Ok(())
    }

    fn layer(
        &self,
        layer: &Layer,
        x: &mut Tensor,
        scratch: &mut Scratch,
        (keys, values): (*mut c_void, *mut c_void),
        work: &mut Work,
    ) -> Result<()> {
        let threads = threads();
        norm(x, &layer.norm1, &mut scratch.normed)?;
        self.multiply(&scratch.normed, &layer.qkv, &mut scratch.qkv, work)?;
        let qkv = view_mut(&mut scratch.qkv)?;
        let q = View {
            data: qkv.data,
            rows: qkv.rows,
            width: self.shape.heads * self.shape.dim,
            stride: qkv.stride,
            element: qkv.element,
        };
        // SAFETY: `check` has held rows, spans and angles against each other and every slot against the pool's size;
        // the pool's tensors are of the model's kind and head shape, and `qkv` was made of that width.
        unsafe {
            kernels::rotate_and_store(
                qkv,
                self.cos.data_ptr().cast(),
                self.sin.data_ptr().cast(),
                self.shape,
                self.new,
                keys,
                values,
            );
            kernels::attend(
                q,
                self.shape,
                keys,
                values,
                self.spans,
                layer.window,
                view_mut(&mut scratch.attended)?,
                threads,
            );
        }
        self.multiply(&scratch.attended, &layer.out, &mut scratch.normed, work)?;
        add(x, &scratch.normed)?;
        norm(x, &layer.norm2, &mut scratch.normed)?;
        self.multiply(
            &scratch.normed,
            &layer.mlp.gate_up,
            &mut scratch.gate_up,
            work,
        )?;
        if layer.mlp.activation == Activation::Silu {
            let (both, gated) = (view(&scratch.gate_up)?, view_mut(&mut scratch.gated)?);
            // SAFETY: `gate_up` is twice as wide as `gated` and has as many rows.
            unsafe { kernels::gated_silu(both, gated, threads) };
        } else {
            let width = layer.mlp.width;
            let gate = scratch.gate_up.f_narrow(-1, 0, width)?;
            let up = scratch.gate_up.f_narrow(-1, width, width)?;
            let gated = activate(&gate, layer.mlp.activation, work)?.f_mul(&up)?;
            scratch.gated.f_copy_(&gated)?;
        }
        self.multiply(&scratch.gated, &layer.mlp.down, &mut scratch.normed, work)?;
        add(x, &scratch.normed)
    }

    fn multiply(&self, x: &Tensor, by: &Linear, y: &mut Tensor, work: &mut Work) -> Result<()> {
        let weights = packed(by)?;
        work.flops(2 * x.numel() * weights.outputs());
        multiply(x, weights, y)
    }
}

/// `y = rms_norm(x)`.
fn norm(x: &Tensor, norm: &crate::nn::Norm, y: &mut Tensor) -> Result<()> {
    if norm.weight.numel() != extent(x)?.1 || norm.weight.kind() != x.kind() {
        return Err(EngineError::request(
            "a norm's weight does not match its input",
        ));
    }
    let (x, y) = (view(x)?, view_mut(y)?);
    // SAFETY: both views cover whole tensors of one shape, and the weight has their width and kind.
    unsafe { kernels::rms_norm(x, norm.weight.data_ptr(), norm.eps as f32, y) };
    Ok(())
}

/// `x += y`.
fn add(x: &mut Tensor, y: &Tensor) -> Result<()> {
    let (x, y) = (view_mut(x)?, view(y)?);
    // SAFETY: both views cover whole tensors of one shape and kind.
    unsafe { kernels::add(x, y) };
    Ok(())
}
