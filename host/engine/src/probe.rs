//! Looking at a prompt in passing: what encoders and first layers see anyway, written down.
//!
//! The layers of the pool's first region run over every token. The hidden states stay here until the caller has decided
//! what to keep; the other layers then read the kept tokens only. From the encoders' features come saliency and short
//! projections; from the hidden states, the attention that the prompt's last token pays to each media token in the layer
//! that comes next. By then it has read the question, and it is what the answer begins with, so it looks where the answer
//! is. (In the first layer itself no token knows yet what stands before it, and most of the text asks for nothing. A model
//! of one layer has no other: there the last token's attention does not depend on the question.) For this, one layer's queries and
//! keys are worked out that the prefill will work out again: of a model of 24 layers some thousandths of a prefill.

use std::ops::Range;
use std::time::Instant;

use msao_core::inputs::{Grid, ModelInputs};
use msao_core::meter::{Meter, Phase};
use msao_core::probe::{FEATURE_WIDTH, ItemReport, ProbeReport};
use tch::{Kind, Tensor};

use crate::error::{EngineError, Result};
use crate::logits::Logits;
use crate::model::Model;
use crate::nn::{Work, floats, index_tensor};
use crate::paged::Heads;
use crate::pass::{Input, Part, State};
use crate::pool::Pool;
use crate::prompt::{Item, Prompt};
use crate::repeats::Repeats;
use crate::runner::Piece;

/// How to look.
#[derive(Clone, Debug, Default)]
pub struct ProbeOptions {
    /// Tokens of a text without content, to stand behind the last media item in place of the real text: from the
    /// marker that closes the item to the header of the answer. What attention it pays to an item says how much
    /// any text would. Empty: none is run.
    pub content_free: Vec<u32>,
    /// Seed of the projection of features.
    pub seed: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The first layers run over all tokens.
    Looking,
    /// Everything has been seen.
    Waiting,
    /// The other layers run over what is kept.
    GoingOn,
}

/// One prompt's probe.
#[derive(Debug)]
pub(crate) struct Probe {
    options: ProbeOptions,
    stage: Stage,
    /// `[hidden, FEATURE_WIDTH]` in f32.
    projection: Tensor,
    /// One an item; zeros until it is seen. Items of no tokens never are.
    seen: Vec<ItemReport>,
    /// Hidden states after the first layers, piece after piece.
    hidden: Vec<Tensor>,
    /// Where the items lie.
    places: Vec<Range<usize>>,
    /// What looking has cost so far beyond the prefill.
    seconds: f64,
    flops: u64,
    report: Report,
}

/// What is said of it all, once it is asked for: worked out by and by, and kept.
#[derive(Debug)]
enum Report {
    Unasked,
    Begun(Begun),
    Ready(ProbeReport),
}

/// A report that is being worked out.
#[derive(Debug)]
struct Begun {
    next: Next,
    /// What is known of the items so far.
    items: Vec<ItemReport>,
    seconds: f64,
    flops: u64,
}

/// What comes next in a report.
#[derive(Debug)]
enum Next {
    /// The next layer's keys of the pieces that were read are worked out, piece after piece.
    Keys(Vec<Tensor>),
    /// The content-free text is read. The keys of all tokens are known: `[tokens, kv heads, d]`.
    Nothing(Tensor),
    /// The content-free text pays.
    NothingPays(Paying),
    Over,
}

impl Probe {
    pub fn new(
        model: &Model,
        inputs: &ModelInputs,
        prompt: &Prompt,
        options: &ProbeOptions,
    ) -> Result<Self> {
        model.check_room(inputs.extent() + options.content_free.len(), 0)?;
        let hidden = model.config().text.hidden_size;
        // Signs scaled so that lengths are kept on average (Achlioptas 2003).
        let scale = 1.0 / (FEATURE_WIDTH as f32).sqrt();
        let mut bits = SplitMix(options.seed);
        let values: Vec<f32> = (0..hidden * FEATURE_WIDTH)
            .map(|_| {
                if bits.next() >> 63 == 0 {
                    scale
                } else {
                    -scale
                }
            })
            .collect();
        let (_, device) = model.language().cache_place();
        Ok(Probe {
            options: options.clone(),
            stage: Stage::Looking,
            projection: Tensor::f_from_slice(&values)?
                .f_reshape([hidden as i64, FEATURE_WIDTH as i64])?
                .f_to_device(device)?,
            seen: prompt
                .items
                .iter()
                .map(|item| unseen(item, model.config().vision.merge_size))
                .collect(),
            hidden: Vec::new(),
            places: prompt
                .items
                .iter()
                .map(|item| item.places.clone())
                .collect(),
            seconds: 0.0,
            flops: 0,
            report: Report::Unasked,
        })
    }

    pub fn looking(&self) -> bool {
        self.stage == Stage::Looking
    }

    pub fn stop_looking(&mut self) {
        self.stage = Stage::Waiting;
    }

    /// Tokens that the report will read beside the prompt, for a while.
    pub fn beside(&self) -> usize {
        match self.stage {
            Stage::GoingOn => 0,
            Stage::Looking | Stage::Waiting => self.options.content_free.len(),
        }
    }

    pub fn going_on(&self) -> bool {
        self.stage == Stage::GoingOn
    }

    pub fn waiting(&self) -> bool {
        self.stage == Stage::Waiting
    }

    /// Notes the features of item `number`, `[tokens, hidden]`, of which those of temporal patches that repeat another are
    /// its own to the bit.
    pub fn see(
        &mut self,
        number: usize,
        features: &Tensor,
        repeats: Option<&Repeats>,
        meter: &mut Meter,
    ) -> Result<()> {
        let started = Instant::now();
        let (mut saliency, mut projected) = tch::no_grad(|| -> Result<_> {
            let features = features.f_to_kind(Kind::Float)?;
            let mean = features.f_mean_dim([0].as_slice(), true, Kind::Float)?;
            let centred = features.f_sub(&mean)?;
            let saliency = centred.f_norm_scalaropt_dim(2.0, [1].as_slice(), false)?;
            let projected = features.f_matmul(&self.projection)?;
            Ok((floats(&saliency)?, floats(&projected)?))
        })?;
        if let Some(repeats) = repeats {
            repeats.level(&mut saliency);
            repeats.level(&mut projected);
        }
        if let Some(report) = self.seen.get_mut(number) {
            report.saliency = saliency;
            report.features = projected;
        }
        let flops = 2 * (features.numel() * FEATURE_WIDTH) as u64;
        meter.add_flops(Phase::Prefill, flops);
        self.flops += flops;
        self.seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Runs a piece of the prompt through the layers that it is now the turn of. Returns the logits that follow the
    /// prompt when the last kept token has been through the last layer.
    pub fn advance(
        &mut self,
        model: &Model,
        pool: &mut Pool,
        state: &mut State,
        piece: &Piece,
    ) -> Result<Logits> {
        let part = Part {
            state,
            input: Input::Embedded {
                x: &piece.x,
                axes: piece.axes.each_ref().map(Vec::as_slice),
            },
            phase: Phase::Prefill,
            wanted: 0,
        };
        if self.stage != Stage::Looking {
            let hidden = model.pass_region(pool, &mut [part], 1)?;
            if !piece.last {
                return Ok(Logits::nothing(1));
            }
            let logits = hidden
                .f_narrow(0, piece.rows as i64 - 1, 1)
                .map_err(EngineError::from)
                .and_then(|last| model.prompt_logits(&last, state));
            if logits.is_err() {
                // The piece will be read again.
                let [_, upper] = &mut pool.regions;
                let [_, table] = &mut state.tables;
                let before = table.tokens() - piece.rows;
                upper.truncate(table, before);
            }
            return logits;
        }
        self.hidden.push(model.pass_region(pool, &mut [part], 0)?);
        Ok(Logits::nothing(1))
    }

    /// What was seen, if it has been worked out. May be asked for while what is kept is waited for.
    pub fn report(&self) -> Result<Option<&ProbeReport>> {
        if self.stage != Stage::Waiting {
            return Err(EngineError::request(
                "the probe reports once it has seen the whole prompt and before what is kept is said",
            ));
        }
        Ok(match &self.report {
            Report::Ready(report) => Some(report),
            Report::Unasked | Report::Begun(_) => None,
        })
    }

    /// Goes on working out the report by a piece of the prompt, a block of rows of text, or a pass over the content-free
    /// text. When it fails it is begun anew the next time.
    pub fn report_on(
        &mut self,
        model: &Model,
        pool: &mut Pool,
        state: &mut State,
        prompt: &Prompt,
    ) -> Result<()> {
        if self.report()?.is_some() {
            return Ok(());
        }
        let started = Instant::now();
        let mut begun = match std::mem::replace(&mut self.report, Report::Unasked) {
            Report::Begun(begun) => begun,
            Report::Unasked | Report::Ready(_) => Begun {
                next: match with_tokens(prompt).next() {
                    Some(_) => Next::Keys(Vec::new()),
                    None => Next::Over,
                },
                items: self.seen.clone(),
                seconds: 0.0,
                flops: 0,
            },
        };
        let before = state.meter.cost(Phase::Prefill).flops;
        tch::no_grad(|| self.step(&mut begun, model, pool, state, prompt))?;
        begun.flops += state.meter.cost(Phase::Prefill).flops - before;
        let took = started.elapsed();
        begun.seconds += took.as_secs_f64();
        state.meter.busy += took;
        self.report = match begun.next {
            Next::Over => {
                let [lower, _] = &pool.regions;
                Report::Ready(ProbeReport {
                    items: begun.items,
                    layers: lower.layers().len(),
                    extra_flops: self.flops + begun.flops,
                    extra_seconds: self.seconds + begun.seconds,
                })
            }
            _ => Report::Begun(begun),
        };
        Ok(())
    }

    fn step(
        &self,
        begun: &mut Begun,
        model: &Model,
        pool: &mut Pool,
        state: &mut State,
        prompt: &Prompt,
    ) -> Result<()> {
        let items = self.places.as_slice();
        begun.next = match std::mem::replace(&mut begun.next, Next::Over) {
            Next::Keys(mut keys) => match self.hidden.get(keys.len()) {
                Some(piece) => {
                    let first: i64 = keys.iter().map(length).sum();
                    let at = positions(prompt, first as usize, length(piece) as usize);
                    let (queries, of_piece) = self.ahead(model, pool, state, piece, &at)?;
                    keys.push(of_piece);
                    if keys.len() < self.hidden.len() {
                        Next::Keys(keys)
                    } else {
                        let keys = Tensor::f_cat(&keys, 0)?;
                        if let Some(paid) = self.last_pays(model, pool, state, &queries, &keys)? {
                            for (report, paid) in begun.items.iter_mut().zip(paid) {
                                report.relevance = paid;
                            }
                        }
                        Next::Nothing(keys)
                    }
                }
                None => Next::Over,
            },
            Next::Nothing(keys) => match self.nothing_pays(model, pool, state, prompt, &keys)? {
                Some(paying) => Next::NothingPays(paying),
                None => Next::Over,
            },
            Next::NothingPays(mut paying) => {
                if paying.pay(items)? {
                    let paid = paying.averages();
                    for (report, paid) in begun.items.iter_mut().zip(paid) {
                        report.relevance_of_nothing = paid;
                    }
                    Next::Over
                } else {
                    Next::NothingPays(paying)
                }
            }
            Next::Over => Next::Over,
        };
        Ok(())
    }

    /// Queries and keys of hidden states in the layer behind the first ones.
    fn ahead(
        &self,
        model: &Model,
        pool: &Pool,
        state: &mut State,
        hidden: &Tensor,
        at: &[Vec<i64>; 3],
    ) -> Result<(Tensor, Tensor)> {
        let mut work = Work {
            meter: &mut state.meter,
            phase: Phase::Prefill,
        };
        model.place().enter()?;
        let mark = work.meter.mark();
        let at = at.each_ref().map(Vec::as_slice);
        let both = model
            .language()
            .ahead(layer_ahead(pool), hidden, at, &mut work);
        work.meter.release_to(mark);
        model.place().wait()?;
        both
    }

    /// What the prompt's last token pays to each item, unless it is a medium's. `queries`: of the last piece; `keys`: of all.
    fn last_pays(
        &self,
        model: &Model,
        pool: &Pool,
        state: &mut State,
        queries: &Tensor,
        keys: &Tensor,
    ) -> Result<Option<Vec<Vec<f32>>>> {
        let last = length(keys) as usize - 1;
        if self.places.iter().any(|places| places.contains(&last)) {
            return Ok(None);
        }
        let query = queries.f_narrow(0, length(queries) - 1, 1)?;
        let attention = Attention::new(model, layer_ahead(pool), keys)?;
        charge(model, &mut state.meter, 1, last + 1);
        let mut paying = Paying::new(attention, query, vec![last], &self.places);
        while !paying.pay(&self.places)? {}
        Ok(Some(paying.averages()))
    }

    /// What the content-free text is to pay, if there is any and an item before it.
    fn nothing_pays(
        &self,
        model: &Model,
        pool: &mut Pool,
        state: &mut State,
        prompt: &Prompt,
        keys: &Tensor,
    ) -> Result<Option<Paying>> {
        let last = with_tokens(prompt).map(|item| item.places.end).max();
        let nothing = self.options.content_free.len();
        let Some(last) = last.filter(|_| nothing > 0) else {
            return Ok(None);
        };
        // Where the text behind the item stands; an item that ends the prompt is followed by what comes next.
        let behind = (prompt.positions.axes.each_ref()).map(|axis| axis.get(last).copied());
        let begins = match behind {
            [Some(t), Some(h), Some(w)] => [t, h, w],
            _ => prompt.positions.next,
        };
        let hidden = self.read_nothing(model, pool, state, last, begins)?;
        let at = begins.map(|first| (first..first + nothing as i64).collect());
        let (queries, of_nothing) = self.ahead(model, pool, state, &hidden, &at)?;
        let before = keys.f_narrow(0, 0, last as i64)?;
        let keys = Tensor::f_cat(&[before, of_nothing], 0)?;
        let places: Vec<usize> = (last..last + nothing).collect();
        let attention = Attention::new(model, layer_ahead(pool), &keys)?;
        charge(model, &mut state.meter, places.len(), last + nothing);
        Ok(Some(Paying::new(attention, queries, places, &self.places)))
    }

    /// Reads the content-free text behind the prompt's first `last` tokens in the first layers, at positions from `begins` on.
    /// Returns its hidden states `[ids, hidden]`.
    fn read_nothing(
        &self,
        model: &Model,
        pool: &mut Pool,
        state: &mut State,
        last: usize,
        begins: [i64; 3],
    ) -> Result<Tensor> {
        let [lower, _] = &mut pool.regions;
        let [table, _] = &state.tables;
        let mut beside = State::new();
        beside.next_position = begins;
        if let Some(first) = beside.tables.first_mut() {
            *first = lower.share(table, last);
        }
        let part = Part {
            state: &mut beside,
            input: Input::Tokens(&self.options.content_free),
            phase: Phase::Prefill,
            wanted: 0,
        };
        let hidden = model.pass_region(pool, &mut [part], 0);
        state
            .meter
            .add_flops(Phase::Prefill, beside.meter.cost(Phase::Prefill).flops);
        let [mut table, _] = beside.tables;
        if let Some(region) = pool.regions.first_mut() {
            region.truncate(&mut table, 0);
        }
        hidden
    }

    /// Hands out the hidden states after the first layers, `[L, hidden]`, for the other layers to read from. When it
    /// fails nothing has changed.
    pub fn go_on(&mut self) -> Result<Tensor> {
        let hidden = tch::no_grad(|| Tensor::f_cat(&self.hidden, 0))?;
        self.stage = Stage::GoingOn;
        self.hidden.clear();
        self.report = Report::Unasked;
        Ok(hidden)
    }
}

/// Rows of text whose attention is computed together.
const ROWS_AT_ONCE: usize = 64;

/// What rows of text behind all items pay to each of them, taken in some rows at a time: much text behind a long prompt would
/// make matrices of gigabytes, and keep everybody else waiting.
#[derive(Debug)]
struct Paying {
    attention: Attention,
    /// `[rows, heads, d]`, of rows at `places`, which rise.
    queries: Tensor,
    places: Vec<usize>,
    /// Rows taken in so far.
    done: usize,
    /// For each token of each item the sum over these rows and all heads.
    paid: Vec<Vec<f32>>,
}

impl Paying {
    fn new(
        attention: Attention,
        queries: Tensor,
        places: Vec<usize>,
        items: &[Range<usize>],
    ) -> Self {
        Paying {
            attention,
            queries,
            places,
            done: 0,
            paid: items.iter().map(|item| vec![0.0; item.len()]).collect(),
        }
    }

    /// Takes in the next rows. True once there are no more.
    fn pay(&mut self, items: &[Range<usize>]) -> Result<bool> {
        let left = self.places.get(self.done..).unwrap_or_default();
        let rows = left.chunks(ROWS_AT_ONCE).next().unwrap_or_default();
        if rows.is_empty() {
            return Ok(true);
        }
        let first = self.done as i64;
        let queries = self.queries.f_narrow(0, first, rows.len() as i64)?;
        let weights = self.attention.weights(&queries, rows)?;
        for (paid, item) in self.paid.iter_mut().zip(items) {
            if item.is_empty() {
                continue;
            }
            let here = weights
                .f_narrow(1, item.start as i64, item.len() as i64)?
                .f_sum_dim_intlist([0].as_slice(), false, Kind::Float)?;
            for (sum, weight) in paid.iter_mut().zip(floats(&here)?) {
                *sum += weight;
            }
        }
        self.done += rows.len();
        Ok(self.done == self.places.len())
    }

    /// For each item what is paid to its tokens, averaged over rows and heads.
    fn averages(mut self) -> Vec<Vec<f32>> {
        let all = self.places.len() as i64 * self.attention.heads.heads;
        for sum in self.paid.iter_mut().flatten() {
            *sum /= all.max(1) as f32;
        }
        self.paid
    }
}

/// Attention in the layer behind the first ones, which rows of text pay to what they saw.
#[derive(Debug)]
struct Attention {
    heads: Heads,
    /// `[kv heads, d, tokens]` in f32.
    keys: Tensor,
    /// `[tokens]`: 0, 1, ...
    tokens: Tensor,
    /// How many tokens the layer sees at most, its own included.
    window: Option<usize>,
}

impl Attention {
    /// `keys`: `[tokens, kv heads, d]`, in the order of their places.
    fn new(model: &Model, layer: usize, keys: &Tensor) -> Result<Self> {
        Ok(Attention {
            heads: model.language().heads(),
            keys: keys.f_to_kind(Kind::Float)?.f_permute([1, 2, 0])?,
            tokens: Tensor::f_arange(length(keys), (Kind::Int64, keys.device()))?,
            window: model.config().text.windows.get(layer).copied().flatten(),
        })
    }

    /// What each of some rows pays to each token, `[rows, tokens]`, summed over heads.
    fn weights(&self, queries: &Tensor, places: &[usize]) -> Result<Tensor> {
        let Heads {
            heads,
            kv_heads,
            dim,
        } = self.heads;
        let (rows, group) = (places.len() as i64, heads / kv_heads);
        let queries = queries
            .f_to_kind(Kind::Float)?
            .f_reshape([rows, kv_heads, group, dim])?
            .f_permute([1, 2, 0, 3])?
            .f_reshape([kv_heads, group * rows, dim])?;
        let scores = queries
            .f_matmul(&self.keys)?
            .f_mul_scalar(1.0 / (dim as f64).sqrt())?
            .f_reshape([heads, rows, -1])?;
        // A row sees the tokens up to its own place, but for the first.
        let seen: Vec<i64> = places.iter().map(|&place| place as i64).collect();
        let own = index_tensor(&seen, self.tokens.device())?.f_unsqueeze(1)?;
        let sink = self.tokens.f_lt(1)?;
        let mut hidden = self.tokens.f_gt_tensor(&own)?.f_logical_or(&sink)?;
        if let Some(window) = self.window {
            let before = own.f_sub_scalar(window as i64)?;
            hidden = hidden.f_logical_or(&self.tokens.f_le_tensor(&before)?)?;
        }
        Ok(scores
            .f_masked_fill(&hidden, f64::NEG_INFINITY)?
            .f_softmax(-1, Kind::Float)?
            .f_sum_dim_intlist([0].as_slice(), false, Kind::Float)?)
    }
}

/// The layer behind those of the pool's first region.
fn layer_ahead(pool: &Pool) -> usize {
    let [lower, _] = &pool.regions;
    lower.layers().end
}

/// How long a tensor's first axis is.
fn length(tensor: &Tensor) -> i64 {
    tensor.size().first().copied().unwrap_or(0)
}

/// Positions of `count` tokens of a prompt from place `first` on.
fn positions(prompt: &Prompt, first: usize, count: usize) -> [Vec<i64>; 3] {
    let axes = prompt.positions.axes.each_ref();
    axes.map(|axis| axis.iter().skip(first).take(count).copied().collect())
}

/// Charges a prompt for the scores of so many rows.
fn charge(model: &Model, meter: &mut Meter, rows: usize, tokens: usize) {
    let heads = model.language().heads();
    let flops = 2 * (heads.heads * heads.dim) as u64 * rows as u64 * tokens as u64;
    meter.add_flops(Phase::Prefill, flops);
}

/// The items that have tokens.
fn with_tokens(prompt: &Prompt) -> impl Iterator<Item = &Item> {
    prompt.items.iter().filter(|item| !item.places.is_empty())
}

/// An item of which nothing has been seen.
fn unseen(item: &Item, merge: usize) -> ItemReport {
    let tokens = item.places.len();
    let grid = item.grid.map_or(
        Grid {
            t: tokens,
            h: 1,
            w: 1,
        },
        |grid| Grid {
            t: grid.t,
            h: grid.h / merge,
            w: grid.w / merge,
        },
    );
    ItemReport {
        modality: item.modality,
        grid,
        saliency: vec![0.0; tokens],
        features: vec![0.0; tokens * FEATURE_WIDTH],
        relevance: vec![0.0; tokens],
        relevance_of_nothing: Vec::new(),
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): the projection needs no more than scattered bits.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
impl Probe {
    /// Makes going on fail, as it does for want of memory; again to undo it.
    pub fn spoil(&mut self) {
        match self.hidden.pop() {
            Some(last) if last.dim() == 1 => {}
            last => {
                self.hidden.extend(last);
                self.hidden.push(Tensor::from(0.0f32).reshape([1]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// What [`ItemReport::relevance`] says, word by word.
    fn word_by_word(
        heads: &Heads,
        (queries, keys): (&[f32], &[f32]),
        places: &[usize],
        item: &Range<usize>,
    ) -> Vec<f64> {
        let (heads, kv_heads, dim) = (
            heads.heads as usize,
            heads.kv_heads as usize,
            heads.dim as usize,
        );
        let mut paid = vec![0.0; item.len()];
        for (row, &place) in places.iter().enumerate() {
            for head in 0..heads {
                let kv_head = head / (heads / kv_heads);
                let score = |token: usize| -> f64 {
                    let query = &queries[(row * heads + head) * dim..][..dim];
                    let key = &keys[(kv_head * dim * 150)..];
                    let products = query.iter().enumerate();
                    let dot: f64 = products
                        .map(|(d, q)| f64::from(*q) * f64::from(key[d * 150 + token]))
                        .sum();
                    (dot / (dim as f64).sqrt()).exp()
                };
                let all: f64 = (1..=place).map(score).sum();
                for (paid, token) in paid.iter_mut().zip(item.clone()) {
                    *paid += score(token) / all / (places.len() * heads) as f64;
                }
            }
        }
        paid
    }

    #[test]
    fn one_pass_over_the_text_tells_what_each_item_is_paid() {
        let heads = Heads {
            heads: 4,
            kv_heads: 2,
            dim: 8,
        };
        let items = [3..10, 0..0, 20..40];
        // More rows than are computed together.
        let places: Vec<usize> = (41..150).collect();
        assert!(places.len() > ROWS_AT_ONCE + 40);
        let mut bits = SplitMix(7);
        let mut values = |count: usize| -> Vec<f32> {
            let draw = |_| (bits.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            (0..count).map(draw).collect()
        };
        let (queries, keys) = (values(places.len() * 4 * 8), values(2 * 8 * 150));
        let attention = Attention {
            heads,
            keys: Tensor::from_slice(&keys).reshape([2, 8, 150]),
            tokens: Tensor::arange(150, (Kind::Int64, Device::Cpu)),
            window: None,
        };
        let rows = Tensor::from_slice(&queries).reshape([places.len() as i64, 4, 8]);
        let mut paying = Paying::new(attention, rows, places.clone(), &items);
        let mut blocks = 1;
        while !paying.pay(&items).unwrap() {
            blocks += 1;
        }
        assert_eq!(blocks, places.len().div_ceil(ROWS_AT_ONCE));
        let paid = paying.averages();
        assert_eq!(paid.len(), items.len());
        for (item, paid) in items.iter().zip(&paid) {
            let expected = word_by_word(&heads, (&queries, &keys), &places, item);
            assert_eq!(paid.len(), expected.len());
            for (ours, expected) in paid.iter().zip(expected) {
                // Sums of some hundred products in f32.
                assert!((f64::from(*ours) - expected).abs() < 1e-6);
            }
        }
        assert!(paid[2].iter().all(|&paid| paid > 0.0));
    }
}
