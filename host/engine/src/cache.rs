//! The key-value cache of one sequence.

use tch::{Device, Kind, Tensor};

use crate::config::TextConfig;
use crate::error::{EngineError, Result};

/// Room is made for this many tokens at a time, at least.
const GROWTH: usize = 256;

/// Keys and values of every layer for the tokens seen so far.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Slot>,
    tokens: usize,
    capacity: usize,
}

/// One layer's keys and values, `[kv heads, capacity, head dim]` each.
#[derive(Debug)]
struct Slot {
    keys: Tensor,
    values: Tensor,
}

impl KvCache {
    pub(crate) fn new(config: &TextConfig, kind: Kind, device: Device) -> Result<Self> {
        let empty = || {
            Tensor::f_empty(
                [config.kv_heads as i64, 0, config.head_dim as i64],
                (kind, device),
            )
        };
        let layers = (0..config.layers)
            .map(|_| {
                Ok(Slot {
                    keys: empty()?,
                    values: empty()?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(KvCache {
            layers,
            tokens: 0,
            capacity: 0,
        })
    }

    /// Tokens held.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes that the held tokens take (room made in advance is not counted).
    pub fn bytes(&self) -> u64 {
        let per_layer = |slot: &Slot| match slot.keys.size().as_slice() {
            [heads, _, dim] => {
                2 * heads * dim * self.tokens as i64 * slot.keys.kind().elt_size_in_bytes() as i64
            }
            _ => 0,
        };
        self.layers.iter().map(per_layer).sum::<i64>() as u64
    }

    /// Forgets every token from position `tokens` on. What was never held cannot be returned to.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens);
    }

    /// Makes room for `more` tokens.
    pub(crate) fn reserve(&mut self, more: usize) -> Result<()> {
        let needed = self.tokens + more;
        if needed <= self.capacity {
            return Ok(());
        }
        let capacity = needed.max(self.capacity * 3 / 2).div_ceil(GROWTH) * GROWTH;
        for slot in &mut self.layers {
            for tensor in [&mut slot.keys, &mut slot.values] {
                let mut size = tensor.size();
                if let Some(n) = size.get_mut(1) {
                    *n = capacity as i64;
                }
                let grown = Tensor::f_empty(&size, (tensor.kind(), tensor.device()))?;
                let held = self.tokens as i64;
                grown
                    .f_narrow(1, 0, held)?
                    .f_copy_(&tensor.f_narrow(1, 0, held)?)?;
                *tensor = grown;
            }
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Writes `[new, kv heads, d]` keys and values of one layer behind the held tokens and returns that layer's keys
    /// and values, `[kv heads, held + new, d]`. The tokens count as held once [`KvCache::advance`] says so.
    pub(crate) fn write(
        &self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let held = self.tokens as i64;
        let slot = self
            .layers
            .get(layer)
            .ok_or_else(|| EngineError::request("the cache has no such layer"))?;
        let new = keys.size().first().copied().unwrap_or(0);
        slot.keys
            .f_narrow(1, held, new)?
            .f_copy_(&keys.f_transpose(0, 1)?)?;
        slot.values
            .f_narrow(1, held, new)?
            .f_copy_(&values.f_transpose(0, 1)?)?;
        Ok((
            slot.keys.f_narrow(1, 0, held + new)?,
            slot.values.f_narrow(1, 0, held + new)?,
        ))
    }

    /// Counts `new` written tokens as held.
    pub(crate) fn advance(&mut self, new: usize) {
        self.tokens += new;
    }
}
