//! Looking at a prompt in passing: what encoders and first layers see anyway, written down.
//!
//! The layers of the pool's first region run over every token. From them come the attention that the text pays to each
//! media token; from the encoders' features, saliency and short projections. The hidden states stay here until the
//! caller has decided what to keep; the other layers then read the kept tokens only, so nothing is computed twice.

use std::time::Instant;

use msao_core::inputs::{Grid, ModelInputs};
use msao_core::meter::Phase;
use msao_core::probe::{FEATURE_WIDTH, ItemReport, ProbeReport};
use tch::{Kind, Tensor};

use crate::error::{EngineError, Result};
use crate::language::Tap;
use crate::logits::Logits;
use crate::model::Model;
use crate::nn::{floats, index_tensor};
use crate::pass::{Input, Part, State};
use crate::pool::{Pool, Table};
use crate::prompt::{Item, Prompt};
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
    seen: Vec<ItemReport>,
    /// Hidden states after the first layers, piece after piece.
    hidden: Vec<Tensor>,
    /// Text behind the first item: its places and its queries in the last of the first layers.
    text: Vec<usize>,
    queries: Vec<Tensor>,
    text_from: usize,
    /// Where the items lie.
    places: Vec<std::ops::Range<usize>>,
    merge: usize,
    seconds: f64,
}

impl Probe {
    pub fn new(
        model: &Model,
        inputs: &ModelInputs,
        prompt: &Prompt,
        options: &ProbeOptions,
    ) -> Result<Self> {
        model.check_room(inputs.input_ids.len() + options.content_free.len(), 0)?;
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
            seen: Vec::new(),
            hidden: Vec::new(),
            text: Vec::new(),
            queries: Vec::new(),
            text_from: prompt
                .items
                .first()
                .map_or(usize::MAX, |item| item.places.end),
            places: prompt
                .items
                .iter()
                .map(|item| item.places.clone())
                .collect(),
            merge: model.config().vision.merge_size,
            seconds: 0.0,
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

    /// Notes an item's features, `[tokens, hidden]`.
    pub fn see(&mut self, item: &Item, features: &Tensor) -> Result<()> {
        let started = Instant::now();
        let (saliency, projected) = tch::no_grad(|| -> Result<_> {
            let features = features.f_to_kind(Kind::Float)?;
            let mean = features.f_mean_dim([0].as_slice(), true, Kind::Float)?;
            let centred = features.f_sub(&mean)?;
            let saliency = centred.f_norm_scalaropt_dim(2.0, [1].as_slice(), false)?;
            let projected = features.f_matmul(&self.projection)?;
            Ok((floats(&saliency)?, floats(&projected)?))
        })?;
        let tokens = item.places.len();
        let grid = item.grid.map_or(
            Grid {
                t: tokens,
                h: 1,
                w: 1,
            },
            |grid| Grid {
                t: grid.t,
                h: grid.h / self.merge,
                w: grid.w / self.merge,
            },
        );
        self.seen.push(ItemReport {
            modality: item.modality,
            grid,
            saliency,
            features: projected,
            relevance: vec![0.0; tokens],
            relevance_of_nothing: Vec::new(),
        });
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
            let hidden = model.pass_region(pool, &mut [part], 1, None)?;
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
        // Text is what lies in no item.
        let text: Vec<(i64, usize)> = (0i64..)
            .zip(&piece.places)
            .filter(|(_, place)| **place >= self.text_from && !self.in_item(**place))
            .map(|(row, &place)| (row, place))
            .collect();
        let mut tap = Tap {
            rows: text.iter().map(|(row, _)| *row).collect(),
            queries: None,
        };
        let tapped = (!tap.rows.is_empty()).then_some(&mut tap);
        let hidden = model.pass_region(pool, &mut [part], 0, tapped)?;
        self.hidden.push(hidden);
        if let Some(queries) = tap.queries {
            self.queries.push(queries);
            self.text.extend(text.iter().map(|(_, place)| *place));
        }
        Ok(Logits::nothing(1))
    }

    fn in_item(&self, place: usize) -> bool {
        self.places.iter().any(|places| places.contains(&place))
    }

    /// What was seen. Runs the content-free text; may be asked for again.
    pub fn report(
        &mut self,
        model: &Model,
        pool: &mut Pool,
        state: &mut State,
        prompt: &Prompt,
    ) -> Result<ProbeReport> {
        if self.stage != Stage::Waiting {
            return Err(EngineError::request(
                "the probe reports once it has seen the whole prompt and before what is kept is said",
            ));
        }
        let started = Instant::now();
        let before = state.meter.cost(Phase::Prefill).flops;
        let mut flops = 0;
        tch::no_grad(|| -> Result<()> {
            if !self.queries.is_empty() {
                let queries = Tensor::f_cat(&self.queries, 0)?;
                for (report, item) in self.seen.iter_mut().zip(&prompt.items) {
                    let behind = self.text.iter().position(|&place| place >= item.places.end);
                    let Some(behind) = behind else { continue };
                    let places = self.text.get(behind..).unwrap_or_default();
                    let rows = places.len() as i64;
                    let queries = queries.f_narrow(0, behind as i64, rows)?;
                    let [lower, _] = &state.tables;
                    report.relevance = attention(model, pool, &queries, places, lower, item)?;
                    flops += attention_flops(model, places.len(), lower.tokens());
                }
            }
            let Some(last) = prompt.items.last().map(|item| item.places.end) else {
                return Ok(());
            };
            if self.options.content_free.is_empty() {
                return Ok(());
            }
            let (queries, table) = self.read_nothing(model, pool, state, prompt, last)?;
            let places: Vec<usize> = (last..last + self.options.content_free.len()).collect();
            let mut result = Ok(());
            for (report, item) in self.seen.iter_mut().zip(&prompt.items) {
                match attention(model, pool, &queries, &places, &table, item) {
                    Ok(relevance) => report.relevance_of_nothing = relevance,
                    Err(error) => result = Err(error),
                }
                flops += attention_flops(model, places.len(), table.tokens());
            }
            let mut table = table;
            if let Some(region) = pool.regions.first_mut() {
                region.truncate(&mut table, 0);
            }
            result
        })?;
        state.meter.add_flops(Phase::Prefill, flops);
        let spent = self.seconds + started.elapsed().as_secs_f64();
        let [lower, _] = &pool.regions;
        Ok(ProbeReport {
            items: self.seen.clone(),
            layers: lower.layers().len(),
            extra_flops: state.meter.cost(Phase::Prefill).flops - before,
            extra_seconds: spent,
        })
    }

    /// Reads the content-free text behind the last item in the first layers. Returns its queries and the table of what it
    /// saw, which the caller gives back.
    fn read_nothing(
        &self,
        model: &Model,
        pool: &mut Pool,
        state: &mut State,
        prompt: &Prompt,
        last: usize,
    ) -> Result<(Tensor, Table)> {
        let [lower, _] = &mut pool.regions;
        let [table, _] = &state.tables;
        let mut beside = State::new();
        let axes = &prompt.positions.axes;
        let behind = axes.each_ref().map(|axis| axis.get(last).copied());
        // Where the text behind the item stands; an item that ends the prompt is followed by what comes next.
        beside.next_position = match behind {
            [Some(t), Some(h), Some(w)] => [t, h, w],
            _ => prompt.positions.next,
        };
        if let Some(first) = beside.tables.first_mut() {
            *first = lower.share(table, last);
        }
        let count = self.options.content_free.len();
        let mut tap = Tap {
            rows: (0..count as i64).collect(),
            queries: None,
        };
        let part = Part {
            state: &mut beside,
            input: Input::Tokens(&self.options.content_free),
            phase: Phase::Prefill,
            wanted: 0,
        };
        let ran = model.pass_region(pool, &mut [part], 0, Some(&mut tap));
        state
            .meter
            .add_flops(Phase::Prefill, beside.meter.cost(Phase::Prefill).flops);
        let [table, _] = beside.tables;
        match (ran, tap.queries) {
            (Ok(_), Some(queries)) => Ok((queries, table)),
            (ran, _) => {
                let mut table = table;
                if let Some(region) = pool.regions.first_mut() {
                    region.truncate(&mut table, 0);
                }
                Err(ran
                    .err()
                    .unwrap_or_else(|| EngineError::request("the first layers gave no queries")))
            }
        }
    }

    /// Hands out the hidden states after the first layers, `[L, hidden]`, for the other layers to read from. When it
    /// fails nothing has changed.
    pub fn go_on(&mut self) -> Result<Tensor> {
        let hidden = tch::no_grad(|| Tensor::f_cat(&self.hidden, 0))?;
        self.stage = Stage::GoingOn;
        self.queries.clear();
        self.hidden.clear();
        Ok(hidden)
    }
}

/// Rows of text whose attention is computed together.
const ROWS_AT_ONCE: usize = 64;

/// Attention that rows at `places` pay to an item's tokens, averaged over rows and heads. `queries`: `[rows, heads, d]`;
/// `table`: the tokens that the rows saw, in the order of their places.
fn attention(
    model: &Model,
    pool: &Pool,
    queries: &Tensor,
    places: &[usize],
    table: &Table,
    item: &Item,
) -> Result<Vec<f32>> {
    let [lower, _] = &pool.regions;
    let (keys, _) = lower.layer(lower.layers().end - 1)?;
    let device = keys.device();
    let heads = model.language().heads();
    let group = heads.heads / heads.kv_heads;
    let slots: Vec<i64> = table.slots().iter().map(|&slot| i64::from(slot)).collect();
    let all = slots.len() as i64;
    let keys = keys
        .f_index_select(0, &index_tensor(&slots, device)?)?
        .f_to_kind(Kind::Float)?
        .f_permute([1, 2, 0])?;
    let tokens = Tensor::f_arange(all, (Kind::Int64, device))?;
    let sink = tokens.f_lt(1)?;
    let mut paid = vec![0f32; item.places.len()];
    // Some rows at a time: long texts behind long prompts would make matrices of gigabytes.
    for (block, places) in places.chunks(ROWS_AT_ONCE).enumerate() {
        let rows = places.len() as i64;
        let queries = queries
            .f_narrow(0, (block * ROWS_AT_ONCE) as i64, rows)?
            .f_to_kind(Kind::Float)?
            .f_reshape([rows, heads.kv_heads, group, heads.dim])?
            .f_permute([1, 2, 0, 3])?
            .f_reshape([heads.kv_heads, group * rows, heads.dim])?;
        let scores = queries
            .f_matmul(&keys)?
            .f_mul_scalar(1.0 / (heads.dim as f64).sqrt())?
            .f_reshape([heads.heads, rows, all])?;
        // A row sees the tokens up to its own place, but for the first.
        let seen: Vec<i64> = places.iter().map(|&place| place as i64).collect();
        let own = index_tensor(&seen, device)?.f_unsqueeze(1)?;
        let hidden = tokens.f_gt_tensor(&own)?.f_logical_or(&sink)?;
        let weights = scores
            .f_masked_fill(&hidden, f64::NEG_INFINITY)?
            .f_softmax(-1, Kind::Float)?
            .f_sum_dim_intlist([0, 1].as_slice(), false, Kind::Float)?;
        let here = weights.f_narrow(0, item.places.start as i64, item.places.len() as i64)?;
        for (sum, weight) in paid.iter_mut().zip(floats(&here)?) {
            *sum += weight;
        }
    }
    let all = (places.len() as i64 * heads.heads).max(1) as f32;
    for sum in &mut paid {
        *sum /= all;
    }
    Ok(paid)
}

fn attention_flops(model: &Model, rows: usize, tokens: usize) -> u64 {
    let heads = model.language().heads();
    2 * (heads.heads * heads.dim) as u64 * rows as u64 * tokens as u64
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
