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
use crate::fixed::Shapes;
use crate::pages::Pages;

/// Slots in a block.
pub const BLOCK: usize = 16;
/// A cache that grows makes room for this many blocks at a time, at least.
const GROWTH: usize = 16;

/// Which tokens of a region's slots a sequence has, in order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    blocks: Vec<u32>,
    slots: Vec<u32>,
    /// Whether it is kept for later: it gives way when somebody needs its blocks.
    kept: bool,
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

    /// The blocks that these slots are in: slot i lies in block i / [`BLOCK`], at place i modulo [`BLOCK`].
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }
}

/// How many tables hold a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holders {
    all: u32,
    /// Of these, tables that are kept for later.
    kept: u32,
}

impl Holders {
    /// Whether the block comes free when all that is kept for later gives way.
    fn only_kept(self) -> bool {
        self.all > 0 && self.all == self.kept
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
    /// By block.
    holders: Vec<Holders>,
    /// Blocks that only tables kept for later hold.
    only_kept: usize,
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
                    // What pads a pass reads slots that nobody wrote: a weight of 0 makes nothing of any number, but not of
                    // what is none.
                    Ok((
                        Tensor::f_zeros(shape, (kind, device))?,
                        Tensor::f_zeros(shape, (kind, device))?,
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
            only_kept: 0,
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

    /// A block that no table ever holds, in a cache that does not grow.
    pub fn spare_block(&self) -> u32 {
        self.limit as u32
    }

    /// Blocks that only tables kept for later hold.
    pub fn kept_blocks(&self) -> usize {
        self.only_kept
    }

    /// Blocks that nobody but the given tables holds, found by a walk over them.
    fn held_only_by<'a>(&self, tables: impl Iterator<Item = &'a Table>) -> usize {
        let mut theirs: HashMap<u32, u32> = HashMap::new();
        for &block in tables.flat_map(|table| &table.blocks) {
            *theirs.entry(block).or_default() += 1;
        }
        let alone = |(block, count): &(&u32, &u32)| {
            let holders = self.holders.get(**block as usize);
            holders.is_some_and(|holders| holders.all == **count)
        };
        theirs.iter().filter(alone).count()
    }

    /// Whether only tables kept for later hold one of this table's blocks.
    fn only_keeps(&self, table: &Table) -> bool {
        let holders = |block: &u32| self.holders.get(*block as usize);
        let mut held = table.blocks.iter().filter_map(holders);
        held.any(|holders| holders.only_kept())
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
            .is_some_and(|holders| holders.all > 1)
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
                self.give_back(block, table.kept);
            }
        }
    }

    /// A table of its own with the first `tokens` of another, whose blocks both hold from now on.
    pub fn share(&mut self, table: &Table, tokens: usize) -> Table {
        self.share_as(table, tokens, false)
    }

    fn share_as(&mut self, table: &Table, tokens: usize, kept: bool) -> Table {
        let slots: Vec<u32> = table.slots.iter().take(tokens).copied().collect();
        let blocks: Vec<u32> = table
            .blocks
            .iter()
            .take(slots.len().div_ceil(BLOCK))
            .copied()
            .collect();
        for &block in &blocks {
            self.hold(block, kept);
        }
        Table {
            blocks,
            slots,
            kept,
        }
    }

    /// Counts one more table that holds a block.
    fn hold(&mut self, block: u32, kept: bool) {
        self.change(block, |holders| {
            holders.all += 1;
            holders.kept += u32::from(kept);
        });
    }

    /// Changes who holds a block, and with that what is free and what is only kept.
    fn change(&mut self, block: u32, change: impl FnOnce(&mut Holders)) {
        let Some(holders) = self.holders.get_mut(block as usize) else {
            return;
        };
        let before = *holders;
        change(holders);
        self.only_kept += usize::from(holders.only_kept());
        self.only_kept -= usize::from(before.only_kept());
        if before.all > 0 && holders.all == 0 {
            self.free.push(Reverse(block));
        }
    }

    /// A fresh block, held once. There must be one ([`Region::free_blocks`], [`Region::make_room`]).
    fn take(&mut self) -> u32 {
        match self.free.pop() {
            Some(Reverse(block)) => {
                self.hold(block, false);
                block
            }
            None => {
                self.holders.push(Holders { all: 1, kept: 0 });
                (self.holders.len() - 1) as u32
            }
        }
    }

    fn give_back(&mut self, block: u32, kept: bool) {
        self.change(block, |holders| {
            holders.all = holders.all.saturating_sub(1);
            holders.kept = holders.kept.saturating_sub(u32::from(kept));
        });
    }

    fn recount<'a>(&mut self, tables: impl Iterator<Item = &'a Table>) {
        let blocks = self.holders.len();
        self.holders = vec![Holders::default(); blocks];
        self.only_kept = 0;
        for table in tables {
            for &block in &table.blocks {
                self.hold(block, table.kept);
            }
        }
        let free = |(block, holders): (u32, &Holders)| (holders.all == 0).then_some(Reverse(block));
        self.free = (0..).zip(&self.holders).filter_map(free).collect();
    }

    /// Gives the table a last block of its own.
    fn copy_last(&mut self, table: &mut Table) -> Result<()> {
        let Some(old) = table.blocks.last().copied() else {
            return Ok(());
        };
        let new = self.take();
        let filled = table.slots.len() % BLOCK;
        if let Err(error) = self.copy(old, new, filled) {
            self.give_back(new, false);
            return Err(error);
        }
        self.give_back(old, table.kept);
        if let Some(last) = table.blocks.last_mut() {
            *last = new;
        }
        let first = table.slots.len() - filled;
        for (slot, offset) in table.slots.iter_mut().skip(first).zip(0u32..) {
            *slot = new * BLOCK as u32 + offset;
        }
        Ok(())
    }

    /// Copies the first `filled` slots of a block in all layers.
    fn copy(&self, from: u32, to: u32, filled: usize) -> Result<()> {
        let start = |block: u32| i64::from(block) * BLOCK as i64;
        for (keys, values) in &self.layers {
            for tensor in [keys, values] {
                let from = tensor.f_narrow(0, start(from), filled as i64)?;
                tensor
                    .f_narrow(0, start(to), filled as i64)?
                    .f_copy_(&from)?;
            }
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
    /// The fixed shapes of passes, where they pay. Before the regions: graphs name their memory.
    pub shapes: Option<Shapes>,
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
                // One more is never given to anybody: rows that pad a pass write there.
                (blocks + 1, blocks)
            }
        };
        let at = (kind, device);
        Ok(Pool {
            shapes: match capacity {
                // A cache that grows moves.
                Capacity::Growing => None,
                Capacity::Bytes(_) => Shapes::on(device),
            },
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

    /// A copy of the tables to be kept for later, sharing their blocks.
    pub fn keep(&mut self, tables: &[Table; 2]) -> [Table; 2] {
        let [lower, upper] = &mut self.regions;
        let [low, up] = tables;
        [
            lower.share_as(low, low.tokens(), true),
            upper.share_as(up, up.tokens(), true),
        ]
    }

    /// Bytes that the tables' tokens take, shared ones counted for each who shares.
    pub fn bytes(&self, tables: &[Table; 2]) -> u64 {
        let pairs = self.regions.iter().zip(tables);
        pairs
            .map(|(region, table)| region.token_bytes() * table.tokens() as u64)
            .sum()
    }

    /// Bytes of the blocks that the tables hold, shared ones counted for each who shares.
    pub fn held_bytes(&self, tables: &[Table; 2]) -> u64 {
        let pairs = self.regions.iter().zip(tables);
        pairs
            .map(|(region, table)| region.token_bytes() * (table.blocks.len() * BLOCK) as u64)
            .sum()
    }

    /// Blocks that may still be taken in both regions once all kept prefixes have given way.
    pub fn blocks_to_be_had(&self) -> usize {
        let regions = self.regions.iter();
        let each = regions.map(|region| region.free_blocks() + region.kept_blocks());
        each.min().unwrap_or(0)
    }

    /// Tokens that it can hold in all.
    pub fn capacity_tokens(&self) -> usize {
        let limits = self.regions.iter().map(|region| region.limit_blocks());
        limits.min().unwrap_or(0) * BLOCK
    }

    /// Blocks that so many more tokens in each region would newly take, in the region that needs most.
    pub fn blocks_for(&self, tables: &[Table; 2], more: [usize; 2]) -> usize {
        let each = self.regions.iter().zip(tables).zip(more);
        let blocks = each.map(|((region, table), more)| region.blocks_for(table, more));
        blocks.max().unwrap_or(0)
    }

    /// Blocks that these tables together would newly take for so many more tokens each, by region.
    pub fn blocks_for_all<'a>(
        &self,
        growing: impl Iterator<Item = (&'a [Table; 2], [usize; 2])>,
    ) -> [usize; 2] {
        let [lower, upper] = &self.regions;
        growing.fold(
            [0, 0],
            |[below, above], ([low, up], [more_low, more_up])| {
                [
                    below + lower.blocks_for(low, more_low),
                    above + upper.blocks_for(up, more_up),
                ]
            },
        )
    }

    /// The first region that has fewer free blocks than are wanted of it.
    pub fn short_of(&self, wanted: [usize; 2]) -> Option<usize> {
        let mut regions = self.regions.iter().zip(wanted);
        regions.position(|(region, wanted)| region.free_blocks() < wanted)
    }

    /// Whether giving up these tables, which are kept for later, brings a block of a region nearer to being free: nobody
    /// but other kept ones holds it.
    pub fn only_keeps(&self, tables: &[Table; 2], region: usize) -> bool {
        match (self.regions.get(region), tables.get(region)) {
            (Some(region), Some(table)) => region.only_keeps(table),
            _ => false,
        }
    }

    /// Blocks, of both regions together, that only tables kept for later hold.
    pub fn kept_blocks(&self) -> usize {
        self.regions.iter().map(Region::kept_blocks).sum()
    }

    /// Blocks, of both regions together, that nobody but the given sequences holds, found by a walk over them.
    pub fn held_only_by<'a>(&self, tables: impl Iterator<Item = &'a [Table; 2]> + Clone) -> usize {
        let regions = self.regions.iter().enumerate();
        regions
            .map(|(index, region)| {
                region.held_only_by(tables.clone().filter_map(|tables| tables.get(index)))
            })
            .sum()
    }

    /// Counts anew who holds what, `tables` being all that there are: where a panic may have lost a table, its blocks
    /// come free. Without a panic it changes nothing.
    pub fn recount<'a>(&mut self, tables: impl Iterator<Item = &'a [Table; 2]> + Clone) {
        for (index, region) in self.regions.iter_mut().enumerate() {
            region.recount(tables.clone().filter_map(|tables| tables.get(index)));
        }
    }

    /// Blocks held in both regions together.
    pub fn held_blocks(&self) -> usize {
        self.regions.iter().map(Region::held_blocks).sum()
    }
}

/// Layers that the probe runs and that see every token of a prompt: `max(1, layers / 8)`, and one less than all at most: the
/// probe reads what the next one would attend to.
pub(crate) fn lower_layers(layers: usize) -> usize {
    (layers / 8).max(1).min(layers.saturating_sub(1))
}

#[cfg(test)]
impl Pool {
    /// A small cache of so many blocks a region.
    pub fn of_blocks(blocks: usize) -> Self {
        let config = TextConfig {
            vocab_size: 8,
            hidden_size: 4,
            intermediate_size: 4,
            layers: 2,
            heads: 1,
            kv_heads: 1,
            head_dim: 2,
            activation: crate::config::Activation::Silu,
            max_positions: 1 << 16,
            norm_eps: 1e-6,
            rope_theta: 1e4,
            mrope_section: [1, 0, 0],
            windows: vec![None; 2],
        };
        let token_bytes = 2 * config.layers * config.head_dim * 4;
        let bytes = (blocks * BLOCK * token_bytes) as u64;
        Pool::new(&config, (Kind::Float, Device::Cpu), Capacity::Bytes(bytes)).unwrap()
    }

    /// Adds tokens to both tables.
    pub fn extend(&mut self, tables: &mut [Table; 2], more: usize) -> Result<()> {
        for (region, table) in self.regions.iter_mut().zip(tables) {
            region.extend(table, more)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_layer_is_always_left_behind_the_probes() {
        let lower = [1, 2, 5, 16, 24, 80].map(lower_layers);
        assert_eq!(lower, [0, 1, 1, 2, 3, 10]);
    }

    fn snapshot(pool: &Pool) -> Vec<(Vec<Holders>, Vec<u32>, usize)> {
        let regions = pool.regions.iter();
        let each = regions.map(|region| {
            let mut free: Vec<u32> = region.free.iter().map(|free| free.0).collect();
            free.sort_unstable();
            (region.holders.clone(), free, region.only_kept)
        });
        each.collect()
    }

    #[test]
    fn a_block_that_is_begun_is_held_whole() {
        let mut pool = Pool::of_blocks(8);
        let mut tables: [Table; 2] = Default::default();
        assert_eq!((pool.bytes(&tables), pool.held_bytes(&tables)), (0, 0));
        pool.extend(&mut tables, BLOCK + 1).unwrap();
        let token = pool.regions.iter().map(Region::token_bytes).sum::<u64>();
        assert_eq!(pool.bytes(&tables), token * (BLOCK as u64 + 1));
        assert_eq!(pool.held_bytes(&tables), token * 2 * BLOCK as u64);
        pool.release(&mut tables);
        assert_eq!(pool.held_bytes(&tables), 0);
    }

    proptest! {
        #[test]
        fn blocks_that_are_only_kept_are_counted_as_a_walk_counts_them(
            tape in prop::collection::vec((0u8..6, any::<u16>()), 1..80),
        ) {
            let mut pool = Pool::of_blocks(24);
            let mut running: Vec<[Table; 2]> = Vec::new();
            let mut kept: Vec<[Table; 2]> = Vec::new();
            for (what, number) in tape {
                let number = usize::from(number);
                let of = |many: &Vec<_>| (!many.is_empty()).then(|| number % many.len());
                match (what, of(&running), of(&kept)) {
                    (0, _, _) => running.push(Default::default()),
                    (1, Some(index), _) => {
                        // Where there is no room the tables stay as they were.
                        let _full = pool.extend(&mut running[index], number % 40);
                    }
                    (2, Some(index), _) => {
                        let tables = pool.keep(&running[index]);
                        kept.push(tables);
                    }
                    (3, Some(index), _) => {
                        let mut tables = running.swap_remove(index);
                        pool.release(&mut tables);
                    }
                    (4, _, Some(index)) => {
                        let mut tables = kept.swap_remove(index);
                        pool.release(&mut tables);
                    }
                    (5, _, Some(index)) => {
                        let tokens = kept[index][0].tokens().min(number % 60);
                        let [lower, upper] = &mut pool.regions;
                        let [low, up] = &kept[index];
                        running.push([lower.share(low, tokens), upper.share(up, tokens)]);
                    }
                    _ => {}
                }
                prop_assert_eq!(pool.kept_blocks(), pool.held_only_by(kept.iter()));
            }
            // A recount finds the same, and what was lost comes free.
            let before = snapshot(&pool);
            pool.recount(running.iter().chain(&kept));
            prop_assert_eq!(snapshot(&pool), before);
            drop(running);
            pool.recount(kept.iter());
            prop_assert_eq!(pool.kept_blocks(), pool.held_blocks());
            for mut tables in kept {
                pool.release(&mut tables);
            }
            prop_assert_eq!((pool.kept_blocks(), pool.held_blocks()), (0, 0));
        }
    }
}
