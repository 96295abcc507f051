//! The key-value cache of many sequences: cut into blocks that are counted, shared and copied when written to.
//!
//! Keys and values of a layer lie in one tensor of *slots*, one slot a token. A [`Table`] lists the slots of one
//! sequence in order. Sequences that begin alike (answers to one prompt, a cached prefix) share blocks of
//! [`BLOCK`] slots; the last, partly filled block is copied as soon as one of them writes to it.
//!
//! The layers are held in two [`Region`]s, those before and those after the layer at which a pruned prompt loses
//! tokens, since the tokens that a sequence has differ between them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use tch::{Device, Kind, Tensor};

use crate::config::TextConfig;
use crate::error::{EngineError, Result};
use crate::pages::Pages;

/// Slots in a block.
pub(crate) const BLOCK: usize = 16;
/// A cache that grows makes room for this many blocks at a time, at least.
const GROWTH: usize = 16;

/// Which tokens of a region's slots a sequence has, in order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    blocks: Vec<u32>,
    slots: Vec<u32>,
}

impl Table {
    /// Tokens held.
    pub fn tokens(&self) -> usize {
        self.slots.len()
    }

    /// One slot a token.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }
}

/// The cache of some consecutive layers.
#[derive(Debug)]
pub(crate) struct Region {
    /// Keys and values, `[slots, kv heads, head dim]` each. Declared before the memory that some of them are views of,
    /// so that they go first.
    layers: Vec<(Tensor, Tensor)>,
    /// What the tensors are views of, unless they own their memory.
    _memory: Option<Pages>,
    first_layer: usize,
    /// Values of one token in one of the tensors.
    token_values: i64,
    /// Tables that hold a block, by block.
    holders: Vec<u32>,
    /// Blocks given back, lowest first, so that what is used stays together.
    free: BinaryHeap<Reverse<u32>>,
    /// Blocks that the tensors have room for.
    room: usize,
    /// Most blocks that may be held.
    limit: usize,
}

impl Region {
    fn new(
        config: &TextConfig,
        first_layer: usize,
        layers: usize,
        (kind, device): (Kind, Device),
        room: usize,
        limit: usize,
    ) -> Result<Self> {
        let shape = [
            (room * BLOCK) as i64,
            config.kv_heads as i64,
            config.head_dim as i64,
        ];
        // One stretch of memory for all tensors where it is taken once and for all on a processor.
        let size = shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
        let mut memory = None;
        let layers = if device == Device::Cpu && size > 0 {
            let pages = Pages::reserve(2 * layers * size)?;
            for tensor in 0..2 * layers {
                pages.prefer_huge(tensor * size, size);
            }
            let layers = (0..layers)
                .map(|layer| {
                    Ok((
                        pages.tensor(2 * layer * size, &shape, kind)?,
                        pages.tensor((2 * layer + 1) * size, &shape, kind)?,
                    ))
                })
                .collect::<Result<_>>()?;
            memory = Some(pages);
            layers
        } else {
            (0..layers)
                .map(|_| {
                    Ok((
                        Tensor::f_empty(shape, (kind, device))?,
                        Tensor::f_empty(shape, (kind, device))?,
                    ))
                })
                .collect::<Result<_>>()?
        };
        Ok(Region {
            layers,
            _memory: memory,
            first_layer,
            token_values: (config.kv_heads * config.head_dim) as i64,
            holders: Vec::new(),
            free: BinaryHeap::new(),
            room,
            limit,
        })
    }

    /// The layers whose keys and values are here, by their number in the model.
    pub fn layers(&self) -> std::ops::Range<usize> {
        self.first_layer..self.first_layer + self.layers.len()
    }

    /// Keys and values of one layer, `[slots, kv heads, head dim]` each.
    pub fn layer(&self, layer: usize) -> Result<(&Tensor, &Tensor)> {
        layer
            .checked_sub(self.first_layer)
            .and_then(|index| self.layers.get(index))
            .map(|(keys, values)| (keys, values))
            .ok_or_else(|| EngineError::request(format!("the cache has no layer {layer}")))
    }

    /// Bytes that one token takes here.
    pub fn token_bytes(&self) -> u64 {
        let value = self
            .layers
            .first()
            .map_or(0, |(keys, _)| keys.kind().elt_size_in_bytes());
        2 * self.layers.len() as u64 * self.token_values as u64 * value as u64
    }

    /// Blocks that some table holds.
    pub fn held_blocks(&self) -> usize {
        self.holders.len() - self.free.len()
    }

    /// Blocks that may still be taken.
    pub fn free_blocks(&self) -> usize {
        self.limit - self.held_blocks()
    }

    /// Most blocks that may be held.
    pub fn limit_blocks(&self) -> usize {
        self.limit
    }

    /// Blocks that nobody but the given tables holds.
    fn held_only_by<'a>(&self, tables: impl Iterator<Item = &'a Table>) -> usize {
        let mut theirs: HashMap<u32, u32> = HashMap::new();
        for &block in tables.flat_map(|table| &table.blocks) {
            *theirs.entry(block).or_default() += 1;
        }
        let alone =
            |(block, count): &(&u32, &u32)| self.holders.get(**block as usize) == Some(*count);
        theirs.iter().filter(alone).count()
    }

    /// Blocks that `more` tokens behind the table's would newly take.
    pub fn blocks_for(&self, table: &Table, more: usize) -> usize {
        let filled = table.slots.len() % BLOCK;
        let copied = more > 0 && filled != 0 && self.shared(table);
        let room = if filled == 0 { 0 } else { BLOCK - filled };
        more.saturating_sub(room).div_ceil(BLOCK) + usize::from(copied)
    }

    /// Whether another table holds this one's last block too.
    fn shared(&self, table: &Table) -> bool {
        table
            .blocks
            .last()
            .and_then(|&block| self.holders.get(block as usize))
            .is_some_and(|&holders| holders > 1)
    }

    /// Adds slots for `more` tokens to the table, or fails and leaves it as it was.
    pub fn extend(&mut self, table: &mut Table, more: usize) -> Result<()> {
        let fresh = self.blocks_for(table, more);
        if fresh > self.free_blocks() {
            return Err(EngineError::CacheFull {
                wanted: more,
                free: self.free_blocks() * BLOCK,
                limit: self.limit * BLOCK,
            });
        }
        // Blocks given back lie within the room; only the rest can need more.
        let beyond = fresh.saturating_sub(self.free.len());
        self.make_room(self.holders.len() + beyond)?;
        if more > 0 && !table.slots.len().is_multiple_of(BLOCK) && self.shared(table) {
            self.copy_last(table)?;
        }
        for _ in 0..more {
            if table.slots.len().is_multiple_of(BLOCK) {
                let block = self.take();
                table.blocks.push(block);
            }
            let block = table.blocks.last().copied().unwrap_or(0);
            table
                .slots
                .push(block * BLOCK as u32 + (table.slots.len() % BLOCK) as u32);
        }
        Ok(())
    }

    /// Forgets every token from position `tokens` on.
    pub fn truncate(&mut self, table: &mut Table, tokens: usize) {
        if tokens >= table.slots.len() {
            return;
        }
        table.slots.truncate(tokens);
        while table.blocks.len() > tokens.div_ceil(BLOCK) {
            if let Some(block) = table.blocks.pop() {
                self.give_back(block);
            }
        }
    }

    /// A table of its own with the first `tokens` of another, whose blocks both hold from now on.
    pub fn share(&mut self, table: &Table, tokens: usize) -> Table {
        let slots: Vec<u32> = table.slots.iter().take(tokens).copied().collect();
        let blocks: Vec<u32> = table
            .blocks
            .iter()
            .take(slots.len().div_ceil(BLOCK))
            .copied()
            .collect();
        for &block in &blocks {
            if let Some(holders) = self.holders.get_mut(block as usize) {
                *holders += 1;
            }
        }
        Table { blocks, slots }
    }

    /// A fresh block, held once. There must be one ([`Region::free_blocks`], [`Region::make_room`]).
    fn take(&mut self) -> u32 {
        match self.free.pop() {
            Some(Reverse(block)) => {
                if let Some(holders) = self.holders.get_mut(block as usize) {
                    *holders = 1;
                }
                block
            }
            None => {
                self.holders.push(1);
                (self.holders.len() - 1) as u32
            }
        }
    }

    fn give_back(&mut self, block: u32) {
        if let Some(holders) = self.holders.get_mut(block as usize) {
            *holders = holders.saturating_sub(1);
            if *holders == 0 {
                self.free.push(Reverse(block));
            }
        }
    }

    /// Gives the table a last block of its own.
    fn copy_last(&mut self, table: &mut Table) -> Result<()> {
        let Some(old) = table.blocks.last().copied() else {
            return Ok(());
        };
        let new = self.take();
        let filled = table.slots.len() % BLOCK;
        let start = |block: u32| i64::from(block) * BLOCK as i64;
        for (keys, values) in &self.layers {
            for tensor in [keys, values] {
                let from = tensor.f_narrow(0, start(old), filled as i64)?;
                tensor
                    .f_narrow(0, start(new), filled as i64)?
                    .f_copy_(&from)?;
            }
        }
        self.give_back(old);
        if let Some(last) = table.blocks.last_mut() {
            *last = new;
        }
        let first = table.slots.len() - filled;
        for (slot, offset) in table.slots.iter_mut().skip(first).zip(0u32..) {
            *slot = new * BLOCK as u32 + offset;
        }
        Ok(())
    }

    /// Grows the tensors to hold `blocks` at least.
    fn make_room(&mut self, blocks: usize) -> Result<()> {
        if blocks <= self.room {
            return Ok(());
        }
        let room = blocks.max(self.room * 3 / 2).div_ceil(GROWTH) * GROWTH;
        let room = room.min(self.limit).max(blocks);
        let held = (self.room * BLOCK) as i64;
        for (keys, values) in &mut self.layers {
            for tensor in [keys, values] {
                let mut size = tensor.size();
                if let Some(n) = size.first_mut() {
                    *n = (room * BLOCK) as i64;
                }
                let grown = Tensor::f_empty(&size, (tensor.kind(), tensor.device()))?;
                grown.f_narrow(0, 0, held)?.f_copy_(tensor)?;
                *tensor = grown;
            }
        }
        self.room = room;
        Ok(())
    }
}

/// How much a cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capacity {
    /// Whatever is asked for; memory is taken as it is needed.
    Growing,
    /// This many bytes. On a processor pages are taken as they are written to, on a GPU all at once.
    Bytes(u64),
}

/// The cache of all layers.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The layers before a pruned prompt loses tokens, and those after.
    pub regions: [Region; 2],
}

impl Pool {
    pub fn new(
        config: &TextConfig,
        (kind, device): (Kind, Device),
        capacity: Capacity,
    ) -> Result<Self> {
        let lower = lower_layers(config.layers);
        let token_bytes =
            2 * config.layers * config.kv_heads * config.head_dim * kind.elt_size_in_bytes();
        let (room, limit) = match capacity {
            Capacity::Growing => (0, u32::MAX as usize / BLOCK),
            Capacity::Bytes(bytes) => {
                let blocks = bytes as usize / (token_bytes * BLOCK).max(1);
                if blocks == 0 {
                    return Err(EngineError::request(format!(
                        "a cache of {bytes} bytes holds not one block of {BLOCK} tokens of {token_bytes} bytes each"
                    )));
                }
                (blocks, blocks)
            }
        };
        let at = (kind, device);
        Ok(Pool {
            regions: [
                Region::new(config, 0, lower, at, room, limit)?,
                Region::new(config, lower, config.layers - lower, at, room, limit)?,
            ],
        })
    }

    /// Forgets all tokens.
    pub fn release(&mut self, tables: &mut [Table; 2]) {
        for (region, table) in self.regions.iter_mut().zip(tables) {
            region.truncate(table, 0);
        }
    }

    /// A copy of the tables, sharing their blocks.
    pub fn fork(&mut self, tables: &[Table; 2]) -> [Table; 2] {
        let [lower, upper] = &mut self.regions;
        let [low, up] = tables;
        [lower.share(low, low.tokens()), upper.share(up, up.tokens())]
    }

    /// Bytes that the tables' tokens take, shared ones counted for each who shares.
    pub fn bytes(&self, tables: &[Table; 2]) -> u64 {
        let pairs = self.regions.iter().zip(tables);
        pairs
            .map(|(region, table)| region.token_bytes() * table.tokens() as u64)
            .sum()
    }

    /// Tokens' worth of blocks that may still be taken.
    pub fn free_tokens(&self) -> usize {
        let free = self.regions.iter().map(Region::free_blocks);
        free.min().unwrap_or(0) * BLOCK
    }

    /// Blocks, of both regions together, that nobody but the given sequences holds.
    pub fn held_only_by<'a>(&self, tables: impl Iterator<Item = &'a [Table; 2]> + Clone) -> usize {
        let regions = self.regions.iter().enumerate();
        regions
            .map(|(index, region)| {
                region.held_only_by(tables.clone().filter_map(|tables| tables.get(index)))
            })
            .sum()
    }

    /// Blocks held in both regions together.
    pub fn held_blocks(&self) -> usize {
        self.regions.iter().map(Region::held_blocks).sum()
    }
}

/// Layers that the probe runs and that see every token of a prompt: `max(1, layers / 8)`.
pub(crate) fn lower_layers(layers: usize) -> usize {
    (layers / 8).max(1).min(layers)
}
