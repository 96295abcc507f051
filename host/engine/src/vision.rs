//! The vision encoder of the three families: patches in, merged tokens out.

use msao_core::inputs::{Grid, patch_count};
use tch::{Device, Kind, Tensor};

use crate::attention::Segments;
use crate::config::{Family, VisionConfig};
use crate::error::{EngineError, Result};
use crate::nn::{GatedMlp, Linear, Mlp, Norm, Work, index_tensor, product_kind, rotate};
use crate::weights::Weights;

/// Base of the vision encoder's rotary frequencies, fixed in all families.
const ROPE_THETA: f32 = 10_000.0;
/// Epsilon of every norm in the vision encoders, fixed in all families.
const NORM_EPS: f64 = 1e-6;

#[derive(Debug)]
pub(crate) struct VisionEncoder {
    config: VisionConfig,
    patch_embedding: Linear,
    /// The same for patches all of whose frames are alike, as those of a picture are: given one of them.
    still_embedding: Linear,
    blocks: Vec<Block>,
    merge_norm: Norm,
    merge_mlp: Mlp,
    kind: Kind,
    device: Device,
}

#[derive(Debug)]
struct Block {
    norm1: Norm,
    qkv: Linear,
    proj: Linear,
    norm2: Norm,
    mlp: BlockMlp,
    windowed: bool,
}

#[derive(Debug)]
enum BlockMlp {
    Gated(GatedMlp),
    Plain(Mlp),
}

/// An encoder run that can be left between its blocks.
#[derive(Debug)]
pub(crate) struct VisionRun {
    /// `[patches, width]`, in the windows' order where there are any.
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    frames: Segments,
    windows: Option<Segments>,
    order: Option<Vec<i64>>,
    /// The block that comes next.
    next: usize,
    /// What the account held before the first block.
    mark: u64,
}

impl VisionEncoder {
    /// Loads the encoder whose tensors start with `prefix` (`visual`, `model.visual`, ...).
    pub fn load(
        weights: &mut Weights,
        prefix: &str,
        family: Family,
        config: &VisionConfig,
    ) -> Result<Self> {
        let width = config.hidden_size;
        let kernel = [
            width,
            config.channels,
            config.temporal_patch_size,
            config.patch_size,
            config.patch_size,
        ];
        let conv = weights.take(&format!("{prefix}.patch_embed.proj.weight"), &kernel)?;
        let (kind, device) = (conv.kind(), conv.device());
        // A convolution whose stride is its kernel is a matrix product over flattened patches.
        let embedding = |kernel: &Tensor| -> Result<Linear> {
            let kernel = kernel.f_reshape([width as i64, -1])?;
            let kernel = kernel.f_to_kind(product_kind(kind, device))?;
            Ok(Linear::from_parts(kernel, None))
        };
        let patch_embedding = embedding(&conv)?;
        let still_embedding = embedding(&conv.f_sum_dim_intlist(2, false, Kind::Float)?)?;
        let norm = |weights: &mut Weights, name: &str| match family {
            Family::Qwen2Vl => Norm::layer(weights, name, width, NORM_EPS),
            _ => Norm::rms(weights, name, width, NORM_EPS),
        };
        let mut blocks = Vec::with_capacity(config.depth);
        for layer in 0..config.depth {
            let name = format!("{prefix}.blocks.{layer}");
            let attn = format!("{name}.attn");
            let qkv = match family {
                Family::Qwen2_5Omni => {
                    let parts = [
                        format!("{attn}.q"),
                        format!("{attn}.k"),
                        format!("{attn}.v"),
                    ];
                    let names = parts.each_ref().map(String::as_str);
                    Linear::load(weights, &names, &[width; 3], width, &[true; 3])?
                }
                _ => Linear::single(weights, &format!("{attn}.qkv"), 3 * width, width, true)?,
            };
            let mlp_name = format!("{name}.mlp");
            let mlp = match family {
                Family::Qwen2Vl => BlockMlp::Plain(Mlp::load(
                    weights,
                    (&format!("{mlp_name}.fc1"), &format!("{mlp_name}.fc2")),
                    (width, config.intermediate_size, width),
                    config.activation,
                )?),
                _ => BlockMlp::Gated(GatedMlp::load(
                    weights,
                    &mlp_name,
                    width,
                    config.intermediate_size,
                    true,
                    config.activation,
                )?),
            };
            blocks.push(Block {
                norm1: norm(weights, &format!("{name}.norm1"))?,
                qkv,
                proj: Linear::single(weights, &format!("{attn}.proj"), width, width, true)?,
                norm2: norm(weights, &format!("{name}.norm2"))?,
                mlp,
                windowed: config
                    .windows
                    .as_ref()
                    .is_some_and(|windows| !windows.full_blocks.contains(&layer)),
            });
        }
        let merged = width * config.merge_size * config.merge_size;
        let merger = format!("{prefix}.merger");
        Ok(VisionEncoder {
            config: config.clone(),
            patch_embedding,
            still_embedding,
            blocks,
            merge_norm: norm(weights, &format!("{merger}.ln_q"))?,
            merge_mlp: Mlp::load(
                weights,
                (&format!("{merger}.mlp.0"), &format!("{merger}.mlp.2")),
                (merged, merged, config.out_hidden_size),
                crate::config::Activation::Gelu,
            )?,
            kind,
            device,
        })
    }

    /// Begins to encode images or clips, given by their patches' values one after the other.
    pub fn start(&self, values: &[f32], grids: &[Grid], work: &mut Work) -> Result<VisionRun> {
        self.check(values, grids)?;
        let unit = (self.config.merge_size * self.config.merge_size) as i64;
        let frames: Vec<usize> = grids
            .iter()
            .flat_map(|g| std::iter::repeat_n(g.h * g.w, g.t))
            .collect();
        let frames = Segments::new(&frames, self.device)?;
        let (order, windows) = match &self.config.windows {
            Some(windows) => {
                let side = windows.size / self.config.merge_size / self.config.patch_size;
                let (order, lengths) = window_order(grids, self.config.merge_size, side);
                (Some(order), Some(Segments::new(&lengths, self.device)?))
            }
            None => (None, None),
        };

        let rows = patch_count(grids) as i64;
        let mut pixels = Tensor::f_from_slice(values)?;
        let mut embedding = &self.patch_embedding;
        if self.is_still(values) {
            let frames = self.config.temporal_patch_size as i64;
            let side = self.config.patch_size as i64;
            pixels = pixels
                .f_reshape([-1, frames, side * side])?
                .f_select(1, 0)?;
            embedding = &self.still_embedding;
        }
        let pixels = pixels
            .f_reshape([rows, -1])?
            .f_to_device(self.device)?
            .f_to_kind(product_kind(self.kind, self.device))?;
        let pixels = work.hold(pixels);
        let mut x = (embedding.forward(&pixels, work)?).f_to_kind(self.kind)?;
        let (mut cos, mut sin) = self.rotary(grids)?;
        if let Some(order) = &order {
            let index = index_tensor(order, self.device)?;
            let permute = |t: &Tensor| -> Result<Tensor> {
                let size = t.size();
                let width = size.last().copied().unwrap_or(1);
                Ok(t.f_reshape([rows / unit, unit * width])?
                    .f_index_select(0, &index)?
                    .f_reshape(&size)?)
            };
            x = permute(&x)?;
            cos = permute(&cos)?;
            sin = permute(&sin)?;
        }
        Ok(VisionRun {
            x,
            cos,
            sin,
            frames,
            windows,
            order,
            next: 0,
            mark: work.meter.mark(),
        })
    }

    /// Runs the next block. Behind the last it gives the tokens: one row of `[tokens, out_hidden_size]` for each
    /// `merge_size²` patches, in the patches' order.
    pub fn step(&self, run: &mut VisionRun, work: &mut Work) -> Result<Option<Tensor>> {
        let Some(block) = self.blocks.get(run.next) else {
            return self.merge(run, work).map(Some);
        };
        let seen = run.windows.as_ref().filter(|_| block.windowed);
        let seen = seen.unwrap_or(&run.frames);
        let heads = self.config.heads as i64;
        let next =
            work.block(|work| block.forward(&run.x, seen, (&run.cos, &run.sin), heads, work))?;
        work.meter.release_to(run.mark);
        run.x = work.hold(next);
        run.next += 1;
        Ok(None)
    }

    fn merge(&self, run: &VisionRun, work: &mut Work) -> Result<Tensor> {
        let unit = (self.config.merge_size * self.config.merge_size) as i64;
        let rows = run.x.size().first().copied().unwrap_or(0);
        let merged = self
            .merge_norm
            .forward(&run.x, work)?
            .f_reshape([rows / unit, -1])?;
        let tokens = self.merge_mlp.forward(&merged, work)?;
        match &run.order {
            None => Ok(tokens),
            Some(order) => {
                let mut back = vec![0i64; order.len()];
                for (place, &token) in order.iter().enumerate() {
                    if let Some(slot) = back.get_mut(token as usize) {
                        *slot = place as i64;
                    }
                }
                Ok(tokens.f_index_select(0, &index_tensor(&back, self.device)?)?)
            }
        }
    }

    /// Whether all frames of each patch are alike: the kernel's product with them is that of its sum over frames with one.
    fn is_still(&self, values: &[f32]) -> bool {
        let frame = self.config.patch_size * self.config.patch_size;
        let mut patches = values.chunks_exact(self.config.temporal_patch_size * frame);
        patches.all(|patch| {
            let (first, others) = patch.split_at(frame);
            others.chunks_exact(frame).all(|other| other == first)
        })
    }

    fn check(&self, values: &[f32], grids: &[Grid]) -> Result<()> {
        let wanted = patch_count(grids).saturating_mul(self.config.patch_values());
        if values.len() != wanted {
            return Err(EngineError::request(format!(
                "{} pixel values were given; the grids and the model ask for {wanted}",
                values.len()
            )));
        }
        let merge = self.config.merge_size;
        match grids
            .iter()
            .find(|g| g.patches() == 0 || g.h % merge != 0 || g.w % merge != 0)
        {
            Some(g) => Err(EngineError::request(format!(
                "grid {}x{}x{}: height and width must be positive multiples of {merge}",
                g.t, g.h, g.w
            ))),
            None => Ok(()),
        }
    }

    /// Cosines and sines `[patches, 1, head dim]` in f32: the first half of the pairs turns with the row, the second
    /// with the column.
    fn rotary(&self, grids: &[Grid]) -> Result<(Tensor, Tensor)> {
        let merge = self.config.merge_size;
        let mut coordinates: Vec<f32> = Vec::new();
        for grid in grids {
            for _ in 0..grid.t {
                for block_row in 0..grid.h / merge {
                    for block_column in 0..grid.w / merge {
                        for row in 0..merge {
                            for column in 0..merge {
                                coordinates.push((block_row * merge + row) as f32);
                                coordinates.push((block_column * merge + column) as f32);
                            }
                        }
                    }
                }
            }
        }
        let quarter = self.config.hidden_size / self.config.heads / 4;
        let frequencies: Vec<f32> = (0..quarter)
            .map(|i| 1.0 / ROPE_THETA.powf(2.0 * i as f32 / (2 * quarter) as f32))
            .collect();
        let angles = Tensor::f_from_slice(&coordinates)?
            .f_reshape([-1, 2, 1])?
            .f_mul(&Tensor::f_from_slice(&frequencies)?)?
            .f_reshape([-1, 1, 2 * quarter as i64])?;
        let angles = Tensor::f_cat(&[&angles, &angles], -1)?.f_to_device(self.device)?;
        Ok((angles.f_cos()?, angles.f_sin()?))
    }
}

impl Block {
    fn forward(
        &self,
        x: &Tensor,
        segments: &Segments,
        (cos, sin): (&Tensor, &Tensor),
        heads: i64,
        work: &mut Work,
    ) -> Result<Tensor> {
        let normed = self.norm1.forward(x, work)?;
        let rows = normed.size().first().copied().unwrap_or(0);
        let qkv = self
            .qkv
            .forward(&normed, work)?
            .f_reshape([rows, 3, heads, -1])?;
        // Queries and keys turn together: one pass over `[rows, 2 * heads, d]`.
        let turned = rotate(&qkv.f_narrow(1, 0, 2)?.f_flatten(1, 2)?, cos, sin)?;
        let turned = work.hold(turned);
        let (q, k) = (
            turned.f_narrow(1, 0, heads)?,
            turned.f_narrow(1, heads, heads)?,
        );
        let attended = segments.attend(&q, &k, &qkv.f_select(1, 2)?, work)?;
        let x = x.f_add(&self.proj.forward(&attended, work)?)?;
        let x = work.hold(x);
        let normed = self.norm2.forward(&x, work)?;
        let out = match &self.mlp {
            BlockMlp::Gated(mlp) => mlp.forward(&normed, work)?,
            BlockMlp::Plain(mlp) => mlp.forward(&normed, work)?,
        };
        Ok(x.f_add(&out)?)
    }
}

/// The order that puts the merged tokens of each window next to each other, and the windows' lengths in patches.
///
/// Windows of `side` x `side` merged tokens tile each frame from its top left; those at the right and bottom edges
/// may be smaller.
fn window_order(grids: &[Grid], merge: usize, side: usize) -> (Vec<i64>, Vec<usize>) {
    let mut order = Vec::new();
    let mut lengths = Vec::new();
    let mut start = 0;
    for grid in grids {
        let (rows, columns) = (grid.h / merge, grid.w / merge);
        for _ in 0..grid.t {
            for top in (0..rows).step_by(side) {
                for left in (0..columns).step_by(side) {
                    let before = order.len();
                    for row in top..rows.min(top + side) {
                        for column in left..columns.min(left + side) {
                            order.push((start + row * columns + column) as i64);
                        }
                    }
                    lengths.push((order.len() - before) * merge * merge);
                }
            }
            start += rows * columns;
        }
    }
    (order, lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_tile_each_frame_and_edges_are_smaller() {
        // 3 x 5 merged tokens in two frames, windows of 2 x 2.
        let (order, lengths) = window_order(&[Grid { t: 2, h: 6, w: 10 }], 2, 2);
        assert_eq!(
            &order[..15],
            &[0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]
        );
        assert_eq!(order[15], 15);
        assert_eq!(&lengths[..6], &[16, 16, 8, 8, 8, 4]);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..30).collect::<Vec<i64>>());
        assert_eq!(lengths.iter().sum::<usize>(), 2 * 60);
    }
}
