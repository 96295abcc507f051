//! One pass of the language model over new tokens of many sequences at once.

use std::time::Instant;

use msao_core::meter::{Meter, Phase};
use tch::Tensor;

use crate::error::{EngineError, Result};
use crate::logits::Logits;
use crate::model::Model;
use crate::nn::{Work, index_tensor};
use crate::paged::Span;
use crate::pool::{Pool, Table};

/// One sequence's place in a pool and in time, and its account.
#[derive(Debug)]
pub(crate) struct State {
    /// Its tokens in the regions of the pool.
    pub tables: [Table; 2],
    /// Where the next token stands in time, height and width.
    pub next_position: [i64; 3],
    /// Tokens of the prompt in each region, which stay; 0 while it is being read.
    pub prompt: [usize; 2],
    pub meter: Meter,
    /// When the cache was last charged for.
    cache_since: Instant,
}

impl State {
    pub fn new() -> Self {
        State {
            tables: Default::default(),
            next_position: [0; 3],
            prompt: [0; 2],
            meter: Meter::new(),
            cache_since: Instant::now(),
        }
    }

    /// Tokens in the cache: those that the first layers hold, which see all.
    pub fn tokens(&self) -> usize {
        self.lower().tokens()
    }

    fn lower(&self) -> &Table {
        let [lower, _] = &self.tables;
        lower
    }

    /// Tokens behind the prompt.
    pub fn added(&self) -> usize {
        let [prompt, _] = self.prompt;
        self.tokens().saturating_sub(prompt)
    }

    /// What has been read so far is the prompt; the next token stands at `next`.
    pub fn end_prompt(&mut self, next: [i64; 3]) {
        self.prompt = self.tables.each_ref().map(Table::tokens);
        self.next_position = next;
    }

    /// Forgets the last `count` tokens behind the prompt.
    pub fn roll_back(&mut self, count: usize, pool: &mut Pool) -> Result<()> {
        let added = self.added();
        if count > added {
            return Err(EngineError::request(format!(
                "{count} tokens to forget, and only {added} were added behind the prompt"
            )));
        }
        self.charge_cache(pool);
        for (region, table) in pool.regions.iter_mut().zip(&mut self.tables) {
            let kept = table.tokens() - count;
            region.truncate(table, kept);
        }
        self.next_position = self.next_position.map(|position| position - count as i64);
        Ok(())
    }

    /// A sequence that goes on from the same tokens, sharing their cache. Its account starts anew.
    pub fn fork(&self, pool: &mut Pool) -> State {
        State {
            tables: pool.fork(&self.tables),
            next_position: self.next_position,
            prompt: self.prompt,
            meter: Meter::new(),
            cache_since: Instant::now(),
        }
    }

    /// Charges the cache's bytes, as they are now, for the time since the last charge.
    pub fn charge_cache(&mut self, pool: &Pool) {
        let now = Instant::now();
        let (bytes, held) = (pool.bytes(&self.tables), pool.held_bytes(&self.tables));
        self.meter.keep_cache(bytes, held, now - self.cache_since);
        self.cache_since = now;
    }
}

/// What a sequence reads in a pass.
pub(crate) enum Input<'a> {
    /// Text tokens behind what it has read.
    Tokens(&'a [u32]),
    /// Rows `[rows, hidden]` at given positions: a piece of a prompt.
    Embedded { x: &'a Tensor, axes: [&'a [i64]; 3] },
}

/// One sequence's part in a pass.
pub(crate) struct Part<'a> {
    pub state: &'a mut State,
    pub input: Input<'a>,
    /// What its cost is charged to.
    pub phase: Phase,
    /// After how many of its last rows logits are wanted.
    pub wanted: usize,
}

impl Part<'_> {
    fn rows(&self) -> usize {
        match &self.input {
            Input::Tokens(tokens) => tokens.len(),
            Input::Embedded { axes, .. } => axes.first().map_or(0, |axis| axis.len()),
        }
    }
}

/// Which layers a pass runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layers {
    /// All.
    All,
    /// One region's: 0 the layers that see every token, 1 the others.
    Region(usize),
}

impl Layers {
    fn regions(self) -> std::ops::Range<usize> {
        match self {
            Layers::All => 0..2,
            Layers::Region(region) => region..region + 1,
        }
    }
}

/// Tokens that the parts' sequences have in each region.
fn lengths(parts: &[Part]) -> Vec<[usize; 2]> {
    let tables = parts.iter().map(|part| &part.state.tables);
    tables
        .map(|tables| tables.each_ref().map(Table::tokens))
        .collect()
}

/// Takes the parts' sequences back to these lengths.
fn shorten(pool: &mut Pool, parts: &mut [Part], lengths: &[[usize; 2]]) {
    for (part, lengths) in parts.iter_mut().zip(lengths) {
        let tables = pool.regions.iter_mut().zip(&mut part.state.tables);
        for ((region, table), &tokens) in tables.zip(lengths) {
            region.truncate(table, tokens);
        }
    }
}

impl Model {
    /// Runs all layers over the new tokens of several sequences and returns for each the wanted logits.
    ///
    /// When it fails no sequence has changed.
    pub(crate) fn pass(&self, pool: &mut Pool, parts: &mut [Part]) -> Result<Logits> {
        tch::no_grad(|| {
            let before = lengths(parts);
            self.place().enter()?;
            let mut layers = self.run_layers(pool, parts, Layers::All)?;
            let logits = self.wanted_logits(&layers, parts);
            let logits = logits.map(|(logits, meter)| {
                layers.meters.logits = meter;
                logits
            });
            match logits.and_then(|logits| self.place().wait().map(|()| logits)) {
                Ok(logits) => {
                    layers.charge(pool, parts);
                    Ok(logits)
                }
                Err(error) => {
                    shorten(pool, parts, &before);
                    Err(error)
                }
            }
        })
    }

    /// The logits `[n, vocab_size]` of hidden states `[n, hidden]` after the last layer, charged to a prompt.
    pub(crate) fn prompt_logits(&self, hidden: &Tensor, state: &mut State) -> Result<Logits> {
        tch::no_grad(|| {
            self.place().enter()?;
            let mut work = Work {
                meter: &mut state.meter,
                phase: Phase::Prefill,
            };
            let mark = work.meter.mark();
            let logits = self.language().logits(hidden, &mut work);
            state.meter.release_to(mark);
            Logits::new(&logits?, &[1])
        })
    }

    /// Runs the layers of one region and returns the hidden states after them, `[rows, hidden]`.
    pub(crate) fn pass_region(
        &self,
        pool: &mut Pool,
        parts: &mut [Part],
        region: usize,
    ) -> Result<Tensor> {
        tch::no_grad(|| {
            let before = lengths(parts);
            self.place().enter()?;
            let layers = self.run_layers(pool, parts, Layers::Region(region))?;
            if let Err(error) = self.place().wait() {
                shorten(pool, parts, &before);
                return Err(error);
            }
            let hidden = layers.hidden.shallow_clone();
            layers.charge(pool, parts);
            Ok(hidden)
        })
    }

    fn run_layers(&self, pool: &mut Pool, parts: &mut [Part], which: Layers) -> Result<Ran> {
        let started = Instant::now();
        let before = lengths(parts);
        for index in 0..parts.len() {
            let Some(part) = parts.get_mut(index) else {
                break;
            };
            part.state.charge_cache(pool);
            let rows = part.rows();
            let reserved = which.regions().try_for_each(|region| {
                match (
                    pool.regions.get_mut(region),
                    part.state.tables.get_mut(region),
                ) {
                    (Some(region), Some(table)) => region.extend(table, rows),
                    _ => Ok(()),
                }
            });
            if let Err(error) = reserved {
                shorten(pool, parts, &before);
                return Err(error);
            }
        }
        let ran = match self.run_fixed(pool, parts, which) {
            Ok(None) => self.run_reserved(pool, parts, which),
            Ok(Some(ran)) => Ok(ran),
            Err(error) => Err(error),
        };
        match ran {
            Ok(ran) => Ok(Ran {
                started,
                forward: which != Layers::Region(0),
                ..ran
            }),
            Err(error) => {
                shorten(pool, parts, &before);
                Err(error)
            }
        }
    }

    /// Runs all layers in one of the cache's fixed shapes; `None` where there are none or the parts fit none.
    fn run_fixed(&self, pool: &mut Pool, parts: &[Part], which: Layers) -> Result<Option<Ran>> {
        let Pool { shapes, regions } = pool;
        let Some(shapes) = shapes.as_mut().filter(|_| which == Layers::All) else {
            return Ok(None);
        };
        let language = self.language();
        let Some(given) = shapes.run(language, regions, parts)? else {
            return Ok(None);
        };
        let mut meters = Meters::default();
        meters.layers.add_flops(Phase::Decode, given.flops);
        let mark = meters.layers.mark();
        meters.layers.hold(Phase::Decode, given.activation_bytes);
        meters.layers.release_to(mark);
        let attention = |part: &Part| {
            let flops = regions
                .iter()
                .zip(&part.state.tables)
                .map(|(region, table)| {
                    let span = Span {
                        first_row: 0,
                        rows: part.rows(),
                        slots: table.slots(),
                    };
                    language.attention_flops(region, &span)
                });
            flops.sum()
        };
        Ok(Some(Ran {
            attention: parts.iter().map(attention).collect(),
            places: Some(given.places),
            ..Ran::new(given.hidden, meters)
        }))
    }

    fn run_reserved(&self, pool: &Pool, parts: &[Part], which: Layers) -> Result<Ran> {
        let language = self.language();
        let mut axes: [Vec<i64>; 3] = Default::default();
        let mut inputs = Vec::new();
        let mut tokens: Vec<u32> = Vec::new();
        for part in parts {
            match &part.input {
                Input::Tokens(new) => {
                    tokens.extend_from_slice(new);
                    for (axis, &start) in axes.iter_mut().zip(&part.state.next_position) {
                        axis.extend(start..start + new.len() as i64);
                    }
                }
                Input::Embedded { x, axes: places } => {
                    // Tokens of the parts before are embedded together.
                    if !tokens.is_empty() {
                        inputs.push(language.embed(&std::mem::take(&mut tokens))?);
                    }
                    inputs.push(x.shallow_clone());
                    for (axis, places) in axes.iter_mut().zip(places) {
                        axis.extend_from_slice(places);
                    }
                }
            }
        }
        if !tokens.is_empty() {
            inputs.push(language.embed(&tokens)?);
        }
        let mut x = match inputs.as_slice() {
            [alone] => alone.shallow_clone(),
            _ => Tensor::f_cat(&inputs, 0)?,
        };
        let mut meters = Meters::default();
        let mut attention = vec![0u64; parts.len()];
        for index in which.regions() {
            let Some(region) = pool.regions.get(index) else {
                continue;
            };
            let mut spans = Vec::with_capacity(parts.len());
            let mut first_row = 0;
            for (part, flops) in parts.iter().zip(&mut attention) {
                let Some(table) = part.state.tables.get(index) else {
                    continue;
                };
                let span = Span {
                    first_row,
                    rows: part.rows(),
                    slots: table.slots(),
                };
                *flops += language.attention_flops(region, &span);
                first_row += span.rows;
                spans.push(span);
            }
            let mut work = Work {
                meter: &mut meters.layers,
                phase: Phase::Decode,
            };
            let mark = work.meter.mark();
            let axes = axes.each_ref().map(Vec::as_slice);
            let result = language.run(&x, axes, region, &spans, &mut work);
            work.meter.release_to(mark);
            x = result?;
        }
        Ok(Ran {
            attention,
            ..Ran::new(x, meters)
        })
    }

    /// The logits that the parts want, and what they cost.
    fn wanted_logits(&self, ran: &Ran, parts: &[Part]) -> Result<(Logits, Meter)> {
        let Ran { hidden, places, .. } = ran;
        let mut meter = Meter::new();
        let mut rows: Vec<i64> = Vec::new();
        let mut counts = Vec::with_capacity(parts.len());
        let mut first = 0i64;
        for part in parts {
            let end = first + part.rows() as i64;
            let wanted = part.wanted.min(part.rows());
            counts.push(wanted);
            rows.extend(end - wanted as i64..end);
            first = end;
        }
        if rows.is_empty() {
            return Ok((Logits::nothing(parts.len()), meter));
        }
        if let Some(places) = places {
            for row in &mut rows {
                *row = places.get(*row as usize).copied().unwrap_or(*row);
            }
        }
        let in_order = rows.iter().zip(0..).all(|(row, place)| *row == place);
        let picked = if in_order {
            hidden.f_narrow(0, 0, rows.len() as i64)?
        } else {
            hidden.f_index_select(0, &index_tensor(&rows, hidden.device())?)?
        };
        let mut work = Work {
            meter: &mut meter,
            phase: Phase::Decode,
        };
        let mark = work.meter.mark();
        let logits = self.language().logits(&picked, &mut work);
        work.meter.release_to(mark);
        Ok((Logits::new(&logits?, &counts)?, meter))
    }
}

/// The account of a pass, to be shared among its sequences.
#[derive(Debug, Default)]
struct Meters {
    layers: Meter,
    logits: Meter,
}

/// What running layers gave.
struct Ran {
    /// `[rows, hidden]`, in the parts' order unless `places` says otherwise.
    hidden: Tensor,
    /// For each row of the parts its place in `hidden`.
    places: Option<Vec<i64>>,
    meters: Meters,
    /// Floating-point operations of attention, by part.
    attention: Vec<u64>,
    started: Instant,
    /// Whether the tokens have been through their last layer.
    forward: bool,
}

impl Ran {
    fn new(hidden: Tensor, meters: Meters) -> Self {
        Ran {
            hidden,
            places: None,
            meters,
            attention: Vec::new(),
            started: Instant::now(),
            forward: true,
        }
    }

    /// Charges each part for its rows' share and moves it on, once the place has been waited for.
    ///
    /// The time is the whole pass's for each: that is what it waited for.
    fn charge(self, pool: &Pool, parts: &mut [Part]) {
        let elapsed = self.started.elapsed();
        let all = parts.iter().map(Part::rows).sum::<usize>().max(1) as u64;
        let wanted = |part: &Part| part.wanted.min(part.rows()) as u64;
        let all_wanted = parts.iter().map(wanted).sum::<u64>().max(1);
        let layers = self.meters.layers.cost(Phase::Decode);
        let logits = self.meters.logits.cost(Phase::Decode);
        for (part, attention) in parts.iter_mut().zip(&self.attention) {
            let (own_rows, all_rows) = (part.rows(), all as usize);
            let rows = own_rows as u64;
            // Every product costs the same for each of its rows: both divisions leave nothing.
            let flops =
                layers.flops / all * rows + logits.flops / all_wanted * wanted(part) + attention;
            let activations = (layers.activation_bytes * rows / all)
                .max(logits.activation_bytes * wanted(part) / all_wanted);
            let meter = &mut part.state.meter;
            meter.add_flops(part.phase, flops);
            meter.add_shared_time(part.phase, elapsed, own_rows, all_rows);
            let mark = meter.mark();
            meter.hold(part.phase, activations);
            meter.release_to(mark);
            if let (Input::Tokens(tokens), true) = (&part.input, self.forward) {
                let count = tokens.len() as i64;
                part.state.next_position =
                    part.state.next_position.map(|position| position + count);
            }
            part.state.charge_cache(pool);
        }
    }
}
