//! Attention over segments that do not see each other: vision windows, frames, audio chunks.

use tch::{Device, Tensor};

use crate::error::Result;
use crate::nn::{Work, index_tensor, product_kind};
use crate::paged::sdpa;

/// A run of rows cut into segments; each row attends to its own segment only.
///
/// Segments of equal length are computed as one batch, however they are scattered.
#[derive(Debug)]
pub(crate) struct Segments {
    groups: Vec<Group>,
    rows: usize,
}

#[derive(Debug)]
struct Group {
    length: usize,
    count: usize,
    /// Rows of these segments, where they are not simply all rows in order.
    index: Option<Tensor>,
}

impl Segments {
    /// Segments of the given lengths, one after the other.
    pub fn new(lengths: &[usize], device: Device) -> Result<Self> {
        let mut by_length: std::collections::BTreeMap<usize, Vec<i64>> =
            std::collections::BTreeMap::new();
        let mut start = 0i64;
        for &length in lengths {
            by_length
                .entry(length)
                .or_default()
                .extend(start..start + length as i64);
            start += length as i64;
        }
        by_length.remove(&0);
        let alone = by_length.len() == 1;
        let groups = by_length
            .into_iter()
            .map(|(length, rows)| {
                let count = rows.len() / length;
                let index = if alone {
                    None
                } else {
                    Some(index_tensor(&rows, device)?)
                };
                Ok(Group {
                    length,
                    count,
                    index,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Segments {
            groups,
            rows: start as usize,
        })
    }

    /// `q`, `k`, `v`: `[rows, heads, d]`. Returns `[rows, heads * d]`.
    pub fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, work: &mut Work) -> Result<Tensor> {
        let (heads, dim) = match q.size().as_slice() {
            [_, heads, dim] => (*heads, *dim),
            _ => (1, 1),
        };
        let mut whole = None;
        for group in &self.groups {
            let (count, length) = (group.count as i64, group.length as i64);
            work.flops(4 * group.count * group.length * group.length * (heads * dim) as usize);
            let batch = |x: &Tensor| -> Result<Tensor> {
                let rows = match &group.index {
                    Some(index) => x.f_index_select(0, index)?,
                    None => x.shallow_clone(),
                };
                Ok(rows
                    .f_reshape([count, length, heads, dim])?
                    .f_transpose(1, 2)?)
            };
            let kind = q.kind();
            let inner = product_kind(kind, q.device());
            let wide = |x: &Tensor| -> Result<Tensor> { Ok(batch(x)?.f_to_kind(inner)?) };
            let out = sdpa(&wide(q)?, &wide(k)?, &wide(v)?, None, false)?
                .f_to_kind(kind)?
                .f_transpose(1, 2)?
                .f_reshape([count * length, heads * dim])?;
            match &group.index {
                None => whole = Some(out),
                Some(index) => {
                    let into = match whole.take() {
                        Some(into) => into,
                        None => Tensor::f_empty(
                            [self.rows as i64, heads * dim],
                            (out.kind(), out.device()),
                        )?,
                    };
                    let mut into: Tensor = into;
                    let _ = into.f_index_copy_(0, index, &out)?;
                    whole = Some(into);
                }
            }
        }
        let out = match whole {
            Some(out) => out,
            None => Tensor::f_zeros([0, heads * dim], (q.kind(), q.device()))?,
        };
        Ok(work.hold(out))
    }
}
