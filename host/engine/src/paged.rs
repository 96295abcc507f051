//! Attention of many sequences at once over the paged cache, with libtorch's own operations: the way of every
//! device and precision that `msao-kernels` has no code for.

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::nn::{Work, index_tensor};
use crate::pool::Region;

/// One sequence's rows in a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    /// Its first row among all rows of the pass.
    pub first_row: usize,
    /// Its rows: its newest tokens.
    pub rows: usize,
    /// Slots of all its tokens, those of the rows last.
    pub slots: &'a [u32],
}

impl Span<'_> {
    /// Tokens before the first row.
    pub fn held(&self) -> usize {
        self.slots.len() - self.rows
    }

    /// Pairs of query and key that see each other.
    pub fn visible(&self, window: Option<usize>) -> usize {
        (self.held() + 1..=self.slots.len())
            .map(|seen| window.map_or(seen, |window| seen.min(window)))
            .sum()
    }
}

/// How heads share keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Query heads.
    pub heads: i64,
    /// Key and value heads.
    pub kv_heads: i64,
    /// Width of a head.
    pub dim: i64,
}

/// What the layers of a region need to know of a pass, made once and used by each.
pub(crate) struct Paged<'a> {
    spans: &'a [Span<'a>],
    heads: Heads,
    device: Device,
    /// Slots of all rows.
    new: Tensor,
    /// For each span its slots, where they are not one after the other.
    scattered: Vec<Option<Tensor>>,
    /// Spans of one row, if there are several: they are computed as one batch.
    singles: Option<Singles>,
    masks: Vec<Mask>,
}

/// Many sequences that go on by one token each.
struct Singles {
    /// Their rows.
    rows: Tensor,
    /// `[count * longest]`: slots, padded.
    slots: Tensor,
    count: i64,
    longest: i64,
}

struct Mask {
    /// The span that it is for; `None` for all spans of one row.
    span: Option<usize>,
    window: Option<usize>,
    mask: Tensor,
}

impl<'a> Paged<'a> {
    pub fn new(spans: &'a [Span<'a>], heads: Heads, device: Device) -> Result<Self> {
        let indices = |slots: &[u32]| -> Result<Tensor> {
            let slots: Vec<i64> = slots.iter().map(|&slot| i64::from(slot)).collect();
            index_tensor(&slots, device)
        };
        let new: Vec<u32> = spans
            .iter()
            .flat_map(|span| span.slots.iter().skip(span.held()))
            .copied()
            .collect();
        let single = |span: &&Span| span.rows == 1;
        let count = spans.iter().filter(single).count();
        let singles = if count > 1 {
            let longest = spans.iter().filter(single).map(|span| span.slots.len());
            let longest = longest.max().unwrap_or(0);
            let mut rows = Vec::with_capacity(count);
            let mut padded = Vec::with_capacity(count * longest);
            for span in spans.iter().filter(single) {
                rows.push(span.first_row as i64);
                padded.extend_from_slice(span.slots);
                padded.resize(rows.len() * longest, 0);
            }
            Some(Singles {
                rows: index_tensor(&rows, device)?,
                slots: indices(&padded)?,
                count: count as i64,
                longest: longest as i64,
            })
        } else {
            None
        };
        let scattered = spans
            .iter()
            .map(|span| {
                let in_row = span
                    .slots
                    .windows(2)
                    .all(|pair| matches!(pair, [a, b] if a + 1 == *b));
                let batched = span.rows == 1 && singles.is_some();
                if in_row || batched {
                    Ok(None)
                } else {
                    indices(span.slots).map(Some)
                }
            })
            .collect::<Result<_>>()?;
        Ok(Paged {
            new: indices(&new)?,
            scattered,
            singles,
            masks: Vec::new(),
            spans,
            heads,
            device,
        })
    }

    /// Attends in one layer. `q`: `[rows, heads, d]`; `k`, `v`: `[rows, kv heads, d]`, the rows' own, which are added
    /// to the cache. Returns `[rows, heads * d]`.
    pub fn attend(
        &mut self,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        region: &Region,
        layer: usize,
        window: Option<usize>,
        work: &mut Work,
    ) -> Result<Tensor> {
        let (keys, values) = region.layer(layer)?;
        let _ = keys.shallow_clone().f_index_copy_(0, &self.new, k)?;
        let _ = values.shallow_clone().f_index_copy_(0, &self.new, v)?;
        let mut parts: Vec<Tensor> = Vec::with_capacity(self.spans.len());
        let singles = self.attend_singles(q, (keys, values), window, work)?;
        let mut single = 0;
        for (index, span) in self.spans.iter().enumerate() {
            if let (1, Some(all)) = (span.rows, &singles) {
                parts.push(all.f_narrow(0, single, 1)?);
                single += 1;
                continue;
            }
            let rows = (span.first_row as i64, span.rows as i64);
            let q = q.f_narrow(0, rows.0, rows.1)?;
            let (all_keys, all_values) = if span.held() == 0 {
                // All of its tokens are in this pass.
                (
                    k.f_narrow(0, rows.0, rows.1)?,
                    v.f_narrow(0, rows.0, rows.1)?,
                )
            } else {
                match self.scattered.get(index) {
                    Some(Some(slots)) => (
                        work.hold(keys.f_index_select(0, slots)?),
                        work.hold(values.f_index_select(0, slots)?),
                    ),
                    _ => {
                        let first = span.slots.first().map_or(0, |&slot| i64::from(slot));
                        let all = span.slots.len() as i64;
                        (
                            keys.f_narrow(0, first, all)?,
                            values.f_narrow(0, first, all)?,
                        )
                    }
                }
            };
            parts.push(self.attend_span(index, &q, &all_keys, &all_values, window, work)?);
        }
        let out = match parts.as_slice() {
            [alone] => alone.shallow_clone(),
            _ => Tensor::f_cat(&parts, 0)?,
        };
        Ok(work.hold(out))
    }

    /// All spans of one row as one padded batch: `[count, heads * d]`.
    fn attend_singles(
        &mut self,
        q: &Tensor,
        (keys, values): (&Tensor, &Tensor),
        window: Option<usize>,
        work: &mut Work,
    ) -> Result<Option<Tensor>> {
        let Some(singles) = &self.singles else {
            return Ok(None);
        };
        let Heads {
            heads,
            kv_heads,
            dim,
        } = self.heads;
        let (count, longest) = (singles.count, singles.longest);
        let gathered = |x: &Tensor| -> Result<Tensor> {
            Ok(x.f_index_select(0, &singles.slots)?
                .f_view([count, longest, kv_heads, dim])?
                .f_transpose(1, 2)?)
        };
        let (k, v) = (work.hold(gathered(keys)?), work.hold(gathered(values)?));
        let q = q.f_index_select(0, &singles.rows)?.f_reshape([
            count,
            kv_heads,
            heads / kv_heads,
            dim,
        ])?;
        let mask = self.mask(None, window)?;
        let out = sdpa(&q, &k, &v, Some(&mask), false)?.f_reshape([count, heads * dim])?;
        Ok(Some(work.hold(out)))
    }

    /// One span: `q` `[rows, heads, d]`, `k` and `v` `[held + rows, kv heads, d]`. Returns `[rows, heads * d]`.
    fn attend_span(
        &mut self,
        index: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        window: Option<usize>,
        work: &mut Work,
    ) -> Result<Tensor> {
        let Some(span) = self.spans.get(index).copied() else {
            return Ok(q.f_flatten(1, 2)?);
        };
        let Heads {
            heads,
            kv_heads,
            dim,
        } = self.heads;
        let group = heads / kv_heads;
        let (rows, all) = (span.rows as i64, span.slots.len() as i64);
        if rows == 1 {
            // One query sees all that is held: the heads that share a key head become its queries, no mask, no copies.
            let seen = window.map_or(all, |window| all.min(window as i64));
            let q = q.f_reshape([1, kv_heads, group, dim])?;
            let last = |x: &Tensor| -> Result<Tensor> {
                Ok(x.f_narrow(0, all - seen, seen)?
                    .f_transpose(0, 1)?
                    .f_unsqueeze(0)?)
            };
            return Ok(sdpa(&q, &last(k)?, &last(v)?, None, false)?.f_reshape([1, heads * dim])?);
        }
        let causal = span.held() == 0 && window.is_none_or(|window| window >= span.rows);
        let out = if causal {
            // Keys and values are as many as the queries here: spread once over the heads that share them.
            let mut spread = |x: &Tensor| -> Result<Tensor> {
                let wide = x
                    .f_transpose(0, 1)?
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
            let mask = self.mask(Some(index), window)?.f_repeat([group, 1])?;
            let mask = work.hold(mask);
            let first = |x: &Tensor| -> Result<Tensor> { Ok(x.f_transpose(0, 1)?.f_unsqueeze(0)?) };
            sdpa(&q, &first(k)?, &first(v)?, Some(&mask), false)?.f_reshape([heads, rows, dim])?
        };
        Ok(out.f_transpose(0, 1)?.f_reshape([rows, heads * dim])?)
    }

    /// The mask of one span `[rows, held + rows]` or of all spans of one row `[count, 1, 1, longest]`: true where the
    /// query may see the key.
    fn mask(&mut self, span: Option<usize>, window: Option<usize>) -> Result<Tensor> {
        let made = self
            .masks
            .iter()
            .find(|mask| mask.span == span && mask.window == window);
        if let Some(made) = made {
            return Ok(made.mask.shallow_clone());
        }
        let options = (Kind::Bool, self.device);
        let mask = match (span.and_then(|index| self.spans.get(index)), &self.singles) {
            (Some(span), _) => {
                let (new, held) = (span.rows as i64, span.held() as i64);
                let mask = Tensor::f_ones([new, held + new], options)?.f_tril(held)?;
                match window {
                    Some(window) => mask.f_triu(held - window as i64 + 1)?,
                    None => mask,
                }
            }
            (None, Some(singles)) => {
                let (mut first, mut end) = (Vec::new(), Vec::new());
                for span in self.spans.iter().filter(|span| span.rows == 1) {
                    let all = span.slots.len() as i64;
                    end.push(all);
                    first.push(window.map_or(0, |window| (all - window as i64).max(0)));
                }
                let column = |values: &[i64]| -> Result<Tensor> {
                    Ok(index_tensor(values, self.device)?.f_view([singles.count, 1, 1, 1])?)
                };
                let places = Tensor::f_arange(singles.longest, (Kind::Int64, self.device))?;
                places
                    .f_lt_tensor(&column(&end)?)?
                    .f_logical_and(&places.f_ge_tensor(&column(&first)?)?)?
            }
            (None, None) => Tensor::f_ones([0, 0], options)?,
        };
        self.masks.push(Mask {
            span,
            window,
            mask: mask.shallow_clone(),
        });
        Ok(mask)
    }
}

pub(crate) fn sdpa(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
) -> Result<Tensor> {
    Ok(Tensor::f_scaled_dot_product_attention(
        q, k, v, mask, 0.0, causal, None, false,
    )?)
}
