//! Attention of many sequences at once over the paged cache, with libtorch's own operations: the way of every
//! device and precision that `msao-kernels` has no code for.

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::nn::{Work, index_tensor};
use crate::pool::Region;

/// Bytes of keys that are gathered for one batch of sequences in a layer, at most.
pub(crate) const GATHERED: usize = 64 << 20;

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
    /// Spans of one row of which several are computed as one batch.
    singles: Vec<Singles>,
    masks: Vec<Mask>,
}

/// Several sequences that go on by one token each.
struct Singles {
    /// Their spans.
    spans: Vec<usize>,
    /// Their rows.
    rows: Tensor,
    /// `[count * longest]`: slots, padded.
    slots: Tensor,
    count: i64,
    longest: i64,
}

struct Mask {
    of: Of,
    window: Option<usize>,
    mask: Tensor,
}

/// What a mask is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// One span, by number.
    Span(usize),
    /// One batch of spans of one row.
    Singles(usize),
}

/// The spans of one row, by number, in the batches in which they are computed. All of a batch are padded to its longest,
/// so short ones come together, and no batch has more than `most` tokens with its padding unless it is of one span.
fn batches(spans: &[Span], most: usize) -> Vec<Vec<usize>> {
    let single = |(_, span): &(usize, &Span)| span.rows == 1;
    let mut singles: Vec<(usize, usize)> = spans
        .iter()
        .enumerate()
        .filter(single)
        .map(|(index, span)| (span.slots.len(), index))
        .collect();
    singles.sort_unstable();
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for (tokens, index) in singles {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * tokens <= most => batch.push(index),
            _ => batches.push(vec![index]),
        }
    }
    batches
}

impl<'a> Paged<'a> {
    /// `place`: kind and device of keys and values.
    pub fn new(spans: &'a [Span<'a>], heads: Heads, place: (Kind, Device)) -> Result<Self> {
        let (kind, device) = place;
        let token = (heads.kv_heads * heads.dim) as usize * kind.elt_size_in_bytes();
        Self::in_batches(spans, heads, device, GATHERED / token.max(1))
    }

    /// With at most so many tokens in a batch of spans of one row.
    fn in_batches(
        spans: &'a [Span<'a>],
        heads: Heads,
        device: Device,
        most: usize,
    ) -> Result<Self> {
        let indices = |slots: &[u32]| -> Result<Tensor> {
            let slots: Vec<i64> = slots.iter().map(|&slot| i64::from(slot)).collect();
            index_tensor(&slots, device)
        };
        let new: Vec<u32> = spans
            .iter()
            .flat_map(|span| span.slots.iter().skip(span.held()))
            .copied()
            .collect();
        let mut singles = Vec::new();
        let mut batched = vec![false; spans.len()];
        for batch in batches(spans, most) {
            if batch.len() < 2 {
                continue;
            }
            let members = || batch.iter().filter_map(|&index| spans.get(index));
            let longest = members().map(|span| span.slots.len()).max().unwrap_or(0);
            let mut rows = Vec::with_capacity(batch.len());
            let mut padded = Vec::with_capacity(batch.len() * longest);
            for span in members() {
                rows.push(span.first_row as i64);
                padded.extend_from_slice(span.slots);
                padded.resize(rows.len() * longest, 0);
            }
            for &index in &batch {
                if let Some(batched) = batched.get_mut(index) {
                    *batched = true;
                }
            }
            singles.push(Singles {
                rows: index_tensor(&rows, device)?,
                slots: indices(&padded)?,
                count: batch.len() as i64,
                longest: longest as i64,
                spans: batch,
            });
        }
        let scattered = spans
            .iter()
            .zip(batched)
            .map(|(span, batched)| {
                let in_row = span
                    .slots
                    .windows(2)
                    .all(|pair| matches!(pair, [a, b] if a + 1 == *b));
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
        let mut done = self.attend_singles(q, (keys, values), window, work)?;
        for (index, span) in self.spans.iter().enumerate() {
            if let Some(part) = done.get_mut(index).and_then(Option::take) {
                parts.push(part);
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

    /// The spans of one row that come in batches: for each span of the pass `[1, heads * d]` if it is one of them.
    fn attend_singles(
        &mut self,
        q: &Tensor,
        (keys, values): (&Tensor, &Tensor),
        window: Option<usize>,
        work: &mut Work,
    ) -> Result<Vec<Option<Tensor>>> {
        let mut done: Vec<Option<Tensor>> = Vec::new();
        done.resize_with(self.spans.len(), || None);
        let Heads {
            heads,
            kv_heads,
            dim,
        } = self.heads;
        for number in 0..self.singles.len() {
            let mask = self.mask(Of::Singles(number), window)?;
            let Some(singles) = self.singles.get(number) else {
                continue;
            };
            let (count, longest) = (singles.count, singles.longest);
            let gathered = |x: &Tensor| -> Result<Tensor> {
                Ok(x.f_index_select(0, &singles.slots)?
                    .f_view([count, longest, kv_heads, dim])?
                    .f_transpose(1, 2)?)
            };
            let mark = work.meter.mark();
            let (k, v) = (work.hold(gathered(keys)?), work.hold(gathered(values)?));
            let q = q.f_index_select(0, &singles.rows)?.f_reshape([
                count,
                kv_heads,
                heads / kv_heads,
                dim,
            ])?;
            let out = sdpa(&q, &k, &v, Some(&mask), false)?.f_reshape([count, heads * dim])?;
            let out = work.hold(out);
            // What was gathered for one batch is let go before the next.
            work.meter.release_to(mark);
            let out = work.hold(out);
            for (&span, row) in singles.spans.iter().zip(0..) {
                if let Some(done) = done.get_mut(span) {
                    *done = Some(out.f_narrow(0, row, 1)?);
                }
            }
        }
        Ok(done)
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
            let mask = self.mask(Of::Span(index), window)?.f_repeat([group, 1])?;
            let mask = work.hold(mask);
            let first = |x: &Tensor| -> Result<Tensor> { Ok(x.f_transpose(0, 1)?.f_unsqueeze(0)?) };
            sdpa(&q, &first(k)?, &first(v)?, Some(&mask), false)?.f_reshape([heads, rows, dim])?
        };
        Ok(out.f_transpose(0, 1)?.f_reshape([rows, heads * dim])?)
    }

    /// The mask of one span `[rows, held + rows]` or of a batch of spans of one row `[count, 1, 1, longest]`: true where
    /// the query may see the key.
    fn mask(&mut self, of: Of, window: Option<usize>) -> Result<Tensor> {
        let made = self
            .masks
            .iter()
            .find(|mask| mask.of == of && mask.window == window);
        if let Some(made) = made {
            return Ok(made.mask.shallow_clone());
        }
        let mask = match of {
            Of::Span(index) => self.mask_of_span(index, window)?,
            Of::Singles(number) => self.mask_of_singles(number, window)?,
        };
        self.masks.push(Mask {
            of,
            window,
            mask: mask.shallow_clone(),
        });
        Ok(mask)
    }

    fn mask_of_span(&self, index: usize, window: Option<usize>) -> Result<Tensor> {
        let (rows, held) = self
            .spans
            .get(index)
            .map_or((0, 0), |span| (span.rows as i64, span.held() as i64));
        let seen = Tensor::f_ones([rows, held + rows], (Kind::Bool, self.device))?.f_tril(held)?;
        Ok(match window {
            Some(window) => seen.f_triu(held - window as i64 + 1)?,
            None => seen,
        })
    }

    fn mask_of_singles(&self, number: usize, window: Option<usize>) -> Result<Tensor> {
        let singles = self.singles.get(number);
        let members = singles.map_or(&[][..], |singles| &singles.spans);
        let (mut first, mut end) = (Vec::new(), Vec::new());
        for span in members.iter().filter_map(|&index| self.spans.get(index)) {
            let all = span.slots.len() as i64;
            end.push(all);
            first.push(window.map_or(0, |window| (all - window as i64).max(0)));
        }
        let column = |values: &[i64]| -> Result<Tensor> {
            Ok(index_tensor(values, self.device)?.f_view([values.len() as i64, 1, 1, 1])?)
        };
        let longest = singles.map_or(0, |singles| singles.longest);
        let places = Tensor::f_arange(longest, (Kind::Int64, self.device))?;
        Ok(places
            .f_lt_tensor(&column(&end)?)?
            .f_logical_and(&places.f_ge_tensor(&column(&first)?)?)?)
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

#[cfg(test)]
mod tests {
    use msao_core::meter::{Meter, Phase};

    use super::*;
    use crate::pool::{Pool, Table};

    /// One row behind each of so many tokens.
    fn spans<'a>(slots: &'a [u32], tokens: &[usize]) -> Vec<Span<'a>> {
        let spans = tokens.iter().enumerate();
        spans
            .map(|(first_row, &tokens)| Span {
                first_row,
                rows: 1,
                slots: &slots[..tokens],
            })
            .collect()
    }

    #[test]
    fn a_long_context_is_not_what_short_ones_are_padded_to() {
        let slots: Vec<u32> = (0..32_768).collect();
        let most = 131_072;
        let mut tokens = vec![500; 63];
        tokens.insert(20, 32_768);
        let spans = spans(&slots, &tokens);
        let found = batches(&spans, most);
        let padded = |batch: &Vec<usize>| {
            let longest = batch.iter().map(|&index| tokens[index]).max().unwrap();
            batch.len() * longest
        };
        assert!(found.iter().all(|batch| padded(batch) <= most));
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], [20]);
        // Each is in one of them, and what is longer than all may be is by itself.
        let mut all: Vec<usize> = batches(&spans, 600).concat();
        assert_eq!(batches(&spans, 600).len(), 64);
        all.sort_unstable();
        assert_eq!(all, (0..64).collect::<Vec<_>>());
    }

    #[test]
    fn how_sequences_are_batched_changes_no_attention() {
        let mut pool = Pool::of_blocks(24);
        let tokens = [3, 40, 5, 20, 1, 41];
        let mut tables: Vec<Table> = Vec::new();
        let [lower, _] = &mut pool.regions;
        // Interleaved, so that the slots of most are scattered.
        tables.resize_with(tokens.len(), Table::default);
        for step in 0..41 {
            for (table, &tokens) in tables.iter_mut().zip(&tokens) {
                lower.extend(table, usize::from(step < tokens)).unwrap();
            }
        }
        let heads = Heads {
            heads: 1,
            kv_heads: 1,
            dim: 2,
        };
        let spans: Vec<Span> = tables
            .iter()
            .enumerate()
            .map(|(first_row, table)| Span {
                first_row,
                rows: 1,
                slots: table.slots(),
            })
            .collect();
        tch::manual_seed(3);
        let random = |rows: i64| Tensor::randn([rows, 1, 2], (Kind::Float, Device::Cpu));
        let (keys, values) = lower.layer(0).unwrap();
        for cache in [keys, values] {
            cache.shallow_clone().copy_(&random(cache.size()[0]));
        }
        let [q, k, v] = [random(6), random(6), random(6)];
        for window in [None, Some(7)] {
            let run = |most: usize| {
                let mut paged = Paged::in_batches(&spans, heads, Device::Cpu, most).unwrap();
                let mut work = Work {
                    meter: &mut Meter::new(),
                    phase: Phase::Decode,
                };
                let out = paged.attend((&q, &k, &v), lower, 0, window, &mut work);
                (out.unwrap(), paged.singles.len())
            };
            let (alone, batches) = run(0);
            assert_eq!(batches, 0);
            for (most, batches) in [(15, 1), (82, 2), (1000, 1)] {
                let (out, found) = run(most);
                assert_eq!(found, batches, "{most}");
                let apart = (&out - &alone).abs().max().double_value(&[]);
                assert!(apart < 1e-6, "{apart} with {most} and {window:?}");
            }
        }
    }
}
