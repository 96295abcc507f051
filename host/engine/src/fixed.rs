//! Passes of a few fixed shapes: how a GPU decodes and verifies.
//!
//! A pass over a handful of rows is some hundred small operations, and asking a GPU for them takes several times as long
//! as doing them. So such a pass is padded to one of a few shapes, everything that changes from pass to pass goes over in
//! one copy, and what the device then does is noted as a CUDA graph, which later passes of that shape replay. Without
//! graphs (a processor, in tests) the same operations are asked for one by one.

use std::collections::BTreeMap;

use msao_core::meter::{Meter, Phase};
use tch::{Device, Kind, Tensor};

use crate::cuda::{Graph, GraphPool};
use crate::error::{EngineError, Result};
use crate::language::LanguageModel;
use crate::nn::Work;
use crate::paged::{GATHERED, Heads, sdpa};
use crate::pass::{Input, Part};
use crate::pool::{BLOCK, Region};

/// New tokens of each sequence: one, or the last committed one and some drafts.
const ROWS: [usize; 6] = [1, 2, 3, 5, 9, 17];
/// Sequences.
const SEQUENCES: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
/// Blocks of cache of the longest sequence, at least.
const FEWEST_BLOCKS: usize = 16;
/// Shapes that are remembered.
const SHAPES: usize = 48;

/// The pass of a shape in which its graph is made: the first has libtorch and cuBLAS make what they make once, which cannot
/// be noted.
const FIRST_GRAPH: u64 = 2;
/// Passes of a shape until a graph that there was no memory for is tried again.
const PATIENCE: u64 = 256;

/// To what a pass is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    sequences: usize,
    /// New tokens of each sequence.
    rows: usize,
    /// Blocks of cache of each sequence.
    blocks: usize,
}

impl Shape {
    /// The smallest shape that a pass fits into.
    fn of(sequences: usize, rows: usize, blocks: usize) -> Option<Shape> {
        let sequences = SEQUENCES.into_iter().find(|&it| it >= sequences)?;
        let rows = ROWS.into_iter().find(|&it| it >= rows)?;
        // 16, 24, 32, 48, 64, ...: at most half as much again.
        let power = blocks.max(FEWEST_BLOCKS).next_power_of_two();
        let blocks = if power * 3 / 4 >= blocks.max(FEWEST_BLOCKS) {
            power * 3 / 4
        } else {
            power
        };
        Some(Shape {
            sequences,
            rows,
            blocks,
        })
    }

    /// Rows of the pass.
    fn all(&self) -> usize {
        self.sequences * self.rows
    }

    /// Numbers that change from pass to pass.
    fn numbers(&self) -> usize {
        4 * self.all() + 2 * (2 * self.all() + self.sequences * self.blocks)
    }
}

/// What is known of a shape.
#[derive(Debug)]
struct Made {
    /// `[numbers]`: ids; time, height, width; for each region slots of the new tokens, tokens that each row sees, blocks.
    plan: Tensor,
    /// The graph and the hidden states that it writes.
    graph: Option<(Graph, Tensor)>,
    /// Passes so far.
    passes: u64,
    /// The pass in which a graph is made; `None` once it has turned out that none can be.
    graph_in: Option<u64>,
    /// When it was last used.
    used: u64,
    flops: u64,
    activation_bytes: u64,
}

/// The shapes of a cache's passes.
#[derive(Debug)]
pub(crate) struct Shapes {
    /// Where graphs keep what lies between; `None` where there are none.
    memory: Option<GraphPool>,
    made: BTreeMap<Shape, Made>,
    passes: u64,
}

/// What a pass gave.
pub(crate) struct Given {
    /// `[rows of the shape, hidden]`.
    pub hidden: Tensor,
    /// For each row of the parts its place in `hidden`.
    pub places: Vec<i64>,
    /// Floating-point operations of the rows, attention left out.
    pub flops: u64,
    pub activation_bytes: u64,
}

impl Shapes {
    /// For a cache on `device`; `None` where padding does not pay.
    pub fn on(device: Device) -> Option<Self> {
        match device {
            Device::Cuda(_) => Some(Self::without_graphs(GraphPool::new()?)),
            _ => None,
        }
    }

    fn without_graphs(memory: impl Into<Option<GraphPool>>) -> Self {
        Shapes {
            memory: memory.into(),
            made: BTreeMap::new(),
            passes: 0,
        }
    }

    /// For tests: on any device, one operation at a time.
    pub fn padded() -> Self {
        Self::without_graphs(None)
    }

    /// Whether passes become graphs.
    pub fn have_graphs(&self) -> bool {
        self.memory.is_some()
    }

    /// Runs all layers over the parts, whose slots are reserved, if they fit a shape.
    pub fn run(
        &mut self,
        language: &LanguageModel,
        regions: &[Region; 2],
        parts: &[Part],
    ) -> Result<Option<Given>> {
        let Some((shape, tokens)) = fitting(parts) else {
            return Ok(None);
        };
        let (kind, device) = language.cache_place();
        let heads = language.heads();
        let token = (heads.kv_heads * heads.dim) as usize * kind.elt_size_in_bytes();
        // Longer contexts of many sequences go without padding.
        if shape.sequences * shape.blocks * BLOCK * token > GATHERED {
            return Ok(None);
        }
        let (numbers, places) = numbers(shape, regions, parts, &tokens);
        debug_assert_eq!(numbers.len(), shape.numbers());
        self.passes += 1;
        if !self.made.contains_key(&shape) {
            self.forget_one();
            let plan = Tensor::f_zeros([shape.numbers() as i64], (Kind::Int64, device))?;
            self.made.insert(shape, Made::new(plan));
        }
        let memory = self.graph_memory();
        let Some(made) = self.made.get_mut(&shape) else {
            return Ok(None);
        };
        made.used = self.passes;
        made.plan.f_copy_(&Tensor::f_from_slice(&numbers)?)?;
        let hidden = made.run(shape, language, regions, memory)?;
        let (all, rows) = (shape.all() as u64, places.len() as u64);
        Ok(Some(Given {
            hidden,
            // Every product costs the same for each of its rows: the division leaves nothing.
            flops: made.flops / all * rows,
            activation_bytes: made.activation_bytes * rows / all,
            places,
        }))
    }

    /// Forgets all shapes, with what their graphs hold. They are met anew.
    pub fn clear(&mut self) {
        self.made.clear();
    }

    /// Where a graph may be begun. Memory whose last graph has gone is on its way out, and libtorch lets no other in: then
    /// it is other memory.
    fn graph_memory(&mut self) -> Option<GraphPool> {
        if self.made.values().all(|made| made.graph.is_none()) {
            let fresh = |old| GraphPool::new().unwrap_or(old);
            self.memory = self.memory.map(fresh);
        }
        self.memory
    }

    /// Makes place for a shape: the one that was not used for longest goes.
    fn forget_one(&mut self) {
        if self.made.len() < SHAPES {
            return;
        }
        let oldest = self.made.iter().min_by_key(|(_, made)| made.used);
        if let Some(shape) = oldest.map(|(shape, _)| *shape) {
            self.made.remove(&shape);
        }
    }
}

impl Made {
    fn new(plan: Tensor) -> Self {
        Made {
            plan,
            graph: None,
            passes: 0,
            graph_in: Some(FIRST_GRAPH),
            used: 0,
            flops: 0,
            activation_bytes: 0,
        }
    }

    fn run(
        &mut self,
        shape: Shape,
        language: &LanguageModel,
        regions: &[Region; 2],
        memory: Option<GraphPool>,
    ) -> Result<Tensor> {
        self.passes += 1;
        if let Some((graph, hidden)) = &self.graph {
            graph.replay()?;
            return Ok(hidden.shallow_clone());
        }
        let numbers = self.plan.shallow_clone();
        let body = |meter: &mut Meter| {
            let mut work = Work {
                meter,
                phase: Phase::Decode,
            };
            let plan = Plan::of(&numbers, shape)?;
            language.run_fixed(&plan, regions, &mut work)
        };
        if let Some(memory) = memory.filter(|_| self.wants_graph()) {
            match Graph::of(memory, || body(&mut Meter::new())) {
                Ok((graph, hidden)) => {
                    graph.replay()?;
                    let given = hidden.shallow_clone();
                    self.graph = Some((graph, hidden));
                    return Ok(given);
                }
                // Then one operation at a time, which takes less memory; what is wrong with the device shows there too.
                Err(error) => self.has_no_graph(shape, &error),
            }
        }
        let mut meter = Meter::new();
        let hidden = body(&mut meter)?;
        let cost = meter.cost(Phase::Decode);
        (self.flops, self.activation_bytes) = (cost.flops, cost.activation_bytes);
        Ok(hidden)
    }

    fn wants_graph(&self) -> bool {
        self.graph.is_none() && self.graph_in.is_some_and(|pass| self.passes >= pass)
    }

    /// Notes that no graph could be made in this pass. Want of memory passes; anything else stays as it is.
    fn has_no_graph(&mut self, shape: Shape, error: &EngineError) {
        self.graph_in = if error.is_want_of_room() {
            Some(self.passes + PATIENCE)
        } else {
            let Shape {
                sequences,
                rows,
                blocks,
            } = shape;
            tracing::warn!(%error, sequences, rows, blocks, "passes of this shape go without a CUDA graph");
            None
        };
    }
}

/// The shape of a pass over a few tokens of each part, and these tokens.
fn fitting<'a>(parts: &[Part<'a>]) -> Option<(Shape, Vec<&'a [u32]>)> {
    let tokens: Option<Vec<&[u32]>> = parts
        .iter()
        .map(|part| match part.input {
            Input::Tokens(tokens) => Some(tokens),
            Input::Embedded { .. } => None,
        })
        .collect();
    let tokens = tokens?;
    let rows = tokens.iter().map(|tokens| tokens.len()).max()?;
    let tables = parts.iter().flat_map(|part| &part.state.tables);
    let blocks = tables.map(|table| table.blocks().len()).max()?;
    Some((Shape::of(parts.len(), rows, blocks)?, tokens))
}

/// What goes over for a pass, and where each row of the parts is among those of the shape.
///
/// Rows that pad write to a block that no sequence ever has, and see one token, so that nothing of theirs is not a number.
fn numbers(
    shape: Shape,
    regions: &[Region; 2],
    parts: &[Part],
    tokens: &[&[u32]],
) -> (Vec<i64>, Vec<i64>) {
    let mut numbers = Vec::with_capacity(shape.numbers());
    let mut places = Vec::with_capacity(shape.all());
    for (part, tokens) in tokens.iter().enumerate() {
        let first = (part * shape.rows) as i64;
        places.extend(first..first + tokens.len() as i64);
    }
    // One list after the other, each filled up to the shape.
    let mut list = |rows: usize, of: &mut dyn FnMut(usize, usize) -> Option<i64>, pad: i64| {
        for sequence in 0..shape.sequences {
            numbers.extend((0..rows).map(|row| of(sequence, row).unwrap_or(pad)));
        }
    };
    let token = |sequence: usize, row: usize| tokens.get(sequence)?.get(row).copied();
    list(shape.rows, &mut |s, row| token(s, row).map(i64::from), 0);
    for axis in 0..3 {
        list(
            shape.rows,
            &mut |s, row| {
                token(s, row)?;
                let start = parts.get(s)?.state.next_position.get(axis)?;
                Some(start + row as i64)
            },
            0,
        );
    }
    for (index, region) in regions.iter().enumerate() {
        let spare = region.spare_block();
        let table = |s: usize| parts.get(s).and_then(|part| part.state.tables.get(index));
        let held = |s: usize| {
            let new = tokens.get(s).map_or(0, |tokens| tokens.len());
            table(s).map_or(0, |table| table.tokens().saturating_sub(new))
        };
        list(
            shape.rows,
            &mut |s, row| {
                token(s, row)?;
                table(s)?.slots().get(held(s) + row).copied().map(i64::from)
            },
            i64::from(spare) * BLOCK as i64,
        );
        list(
            shape.rows,
            &mut |s, row| token(s, row).map(|_| (held(s) + row + 1) as i64),
            1,
        );
        list(
            shape.blocks,
            &mut |s, block| table(s)?.blocks().get(block).copied().map(i64::from),
            i64::from(spare),
        );
    }
    (numbers, places)
}

/// A pass's numbers on the device, by their meaning.
pub(crate) struct Plan {
    pub shape: Shape,
    /// `[rows]`.
    pub ids: Tensor,
    /// `[3, rows]`: time, height, width.
    pub axes: Tensor,
    pub regions: [PlanOfRegion; 2],
}

/// What concerns the layers of one region.
pub(crate) struct PlanOfRegion {
    /// `[rows]`: slots of the new tokens.
    new: Tensor,
    /// `[rows]`: tokens that each row sees, itself last.
    seen: Tensor,
    /// `[sequences * blocks]`.
    blocks: Tensor,
}

impl Plan {
    fn of(numbers: &Tensor, shape: Shape) -> Result<Self> {
        let mut first = 0i64;
        let mut next = |count: usize| -> Result<Tensor> {
            let part = numbers.f_narrow(0, first, count as i64)?;
            first += count as i64;
            Ok(part)
        };
        let all = shape.all();
        let ids = next(all)?;
        let axes = next(3 * all)?.f_view([3, all as i64])?;
        let mut region = || -> Result<PlanOfRegion> {
            Ok(PlanOfRegion {
                new: next(all)?,
                seen: next(all)?,
                blocks: next(shape.sequences * shape.blocks)?,
            })
        };
        Ok(Plan {
            shape,
            ids,
            axes,
            regions: [region()?, region()?],
        })
    }
}

/// Attention of a pass of a fixed shape in the layers of one region.
pub(crate) struct Attention<'a> {
    shape: Shape,
    plan: &'a PlanOfRegion,
    heads: Heads,
    /// Of each window that a layer has, `[sequences, 1, queries, tokens]`: 0 where a query sees a token, else minus
    /// infinity.
    masks: Vec<(Option<usize>, Tensor)>,
}

impl<'a> Attention<'a> {
    pub fn new(shape: Shape, plan: &'a PlanOfRegion, heads: Heads) -> Self {
        Attention {
            shape,
            plan,
            heads,
            masks: Vec::new(),
        }
    }

    /// Attends in one layer: see [`crate::paged::Paged::attend`].
    pub fn attend(
        &mut self,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        region: &Region,
        layer: usize,
        window: Option<usize>,
        work: &mut Work,
    ) -> Result<Tensor> {
        let Heads {
            heads,
            kv_heads,
            dim,
        } = self.heads;
        let (keys, values) = region.layer(layer)?;
        let _ = keys.shallow_clone().f_index_copy_(0, &self.plan.new, k)?;
        let _ = values.shallow_clone().f_index_copy_(0, &self.plan.new, v)?;
        let sequences = self.shape.sequences as i64;
        let (rows, group) = (self.shape.rows as i64, heads / kv_heads);
        let tokens = (self.shape.blocks * BLOCK) as i64;
        let gathered = |x: &Tensor| -> Result<Tensor> {
            Ok(x.f_view([-1, BLOCK as i64 * kv_heads * dim])?
                .f_index_select(0, &self.plan.blocks)?
                .f_view([sequences, tokens, kv_heads, dim])?
                .f_transpose(1, 2)?)
        };
        let (k, v) = (work.hold(gathered(keys)?), work.hold(gathered(values)?));
        // The heads that share a key head become its queries.
        let q = q
            .f_reshape([sequences, rows, kv_heads, group, dim])?
            .f_permute([0, 2, 3, 1, 4])?
            .f_reshape([sequences, kv_heads, group * rows, dim])?;
        let mask = self.mask(window, group, q.kind())?;
        let out = sdpa(&q, &k, &v, Some(&mask), false)?
            .f_reshape([sequences, kv_heads, group, rows, dim])?
            .f_permute([0, 3, 1, 2, 4])?
            .f_reshape([sequences * rows, heads * dim])?;
        Ok(work.hold(out))
    }

    fn mask(&mut self, window: Option<usize>, group: i64, kind: Kind) -> Result<Tensor> {
        if let Some((_, made)) = self.masks.iter().find(|(of, _)| *of == window) {
            return Ok(made.shallow_clone());
        }
        let (sequences, rows) = (self.shape.sequences as i64, self.shape.rows as i64);
        let tokens = (self.shape.blocks * BLOCK) as i64;
        let device = self.plan.seen.device();
        let places = Tensor::f_arange(tokens, (Kind::Int64, device))?;
        let seen = self.plan.seen.f_view([sequences, rows, 1])?;
        let mut hidden = places.f_ge_tensor(&seen)?;
        if let Some(window) = window {
            let first = seen.f_sub_scalar(window as i64)?;
            hidden = hidden.f_logical_or(&places.f_lt_tensor(&first)?)?;
        }
        let mask = Tensor::f_zeros([sequences, rows, tokens], (kind, device))?
            .f_masked_fill(&hidden, f64::NEG_INFINITY)?
            .f_unsqueeze(1)?
            .f_expand([sequences, group, rows, tokens], false)?
            .f_reshape([sequences, 1, group * rows, tokens])?;
        self.masks.push((window, mask.shallow_clone()));
        Ok(mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_puts_a_graph_off_and_anything_else_does_without() {
        let shape = Shape::of(1, 1, 1).unwrap();
        let full = EngineError::DeviceFull {
            said: "CUDA out of memory".into(),
        };
        let broken = EngineError::Device("CUDA error: operation not permitted".into());
        // The passes in which a graph is tried, where each try ends like this.
        for (error, tries) in [
            (
                &full,
                vec![
                    FIRST_GRAPH,
                    FIRST_GRAPH + PATIENCE,
                    FIRST_GRAPH + 2 * PATIENCE,
                ],
            ),
            (&broken, vec![FIRST_GRAPH]),
        ] {
            let mut made = Made::new(Tensor::new());
            let mut tried = Vec::new();
            for pass in 1..=FIRST_GRAPH + 2 * PATIENCE {
                made.passes = pass;
                if made.wants_graph() {
                    tried.push(pass);
                    made.has_no_graph(shape, error);
                }
            }
            assert_eq!(tried, tries, "{error}");
        }
    }

    #[test]
    fn a_shape_holds_what_it_was_chosen_for_and_little_more() {
        for sequences in 1..=64 {
            for rows in 1..=17 {
                for blocks in [1, 15, 16, 17, 24, 25, 33, 200, 2000] {
                    let shape = Shape::of(sequences, rows, blocks).unwrap();
                    assert!(shape.sequences >= sequences && shape.sequences <= 2 * sequences);
                    assert!(shape.rows >= rows && shape.rows < 2 * rows.max(2));
                    assert!(shape.blocks >= blocks && shape.blocks <= (blocks * 3 / 2).max(16));
                }
            }
        }
        assert_eq!(Shape::of(65, 1, 1), None);
        assert_eq!(Shape::of(1, 18, 1), None);
    }
}
