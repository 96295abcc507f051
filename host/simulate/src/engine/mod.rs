//! A model's engine: one pass at a time over whoever is ready, as the real one's thread does it (`msao_engine::service`).
//!
//! Prompts are let in first come first served, as long as there is room for them and their answers. A pass has the next
//! token of all who want one, the drafts of all who want a verdict, and a piece of the prompts that are being read; between
//! two passes one medium is encoded for a while. What takes no time (taking back, appending, a choice by logits that stand
//! already) is done at once.

mod sequence;

use std::collections::VecDeque;
use std::rc::Rc;

use self::sequence::{Sequence, Stage};
use crate::profile::EngineCost;
use crate::retention::MediaTokens;
use crate::script::Script;
use crate::slab::{Key, Slab};

/// Tokens that a block of the cache holds (`msao_engine::CACHE_BLOCK`).
const BLOCK: u32 = 16;
/// Rows of a prompt that are read in any pass that reads at all.
const FEWEST_ROWS: f64 = 16.0;
/// How long a medium is encoded at once with nobody being answered, in ms.
const ENCODE_ALONE_MS: f64 = 100.0;

/// Which of a request's seats on models a sequence is, and so whose choices it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// The draft model at the edge.
    Edge,
    /// The target.
    Target,
    /// The draft model beside the target.
    Beside,
}

/// What a sequence is opened with.
pub(crate) struct Opening {
    pub run: Key,
    pub seat: Seat,
    pub script: Rc<Script>,
    /// Tokens of the prompt that are read.
    pub prompt_tokens: u32,
    /// Tokens that encoders make.
    pub media: MediaTokens,
    /// Tokens of the answer at most.
    pub reserve: u32,
    /// The probe looks at it first.
    pub probe: bool,
}

/// What a sequence is asked.
#[derive(Debug)]
pub(crate) enum Order {
    /// Hold drafts against the model's choices; without drafts it chooses one token.
    Verify {
        stamp: u64,
        drafts: Vec<u32>,
        given_ms: f64,
    },
    RollBack(u32),
    /// So many tokens that others chose.
    Append(u32),
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Done {
    pub run: Key,
    pub seat: Seat,
    pub sequence: Key,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// The prompt has been read.
    Ready { waited_ms: f64, took_ms: f64 },
    /// The probe has seen it, and waits to be told what to keep.
    Probed,
    /// A verdict.
    Verified {
        stamp: u64,
        /// Place of the first choice.
        first: u32,
        /// Tokens chosen; those behind `first`, the accepted drafts among them.
        choices: u32,
        accepted: u32,
        /// The model ends the answer behind them.
        ended: bool,
        /// Since the order, waiting included.
        took_ms: f64,
    },
}

/// What is in the pass under way.
#[derive(Default)]
struct Pass {
    verified: Vec<Key>,
    /// Rows of prompts.
    read: Vec<(Key, u32)>,
    /// A medium, and for how long it is encoded.
    encoded: Option<(Key, f64)>,
}

/// See the module.
pub(crate) struct Engine {
    cost: EngineCost,
    capacity: u32,
    /// Of the capacity, what is set aside for those inside.
    reserved: u32,
    sequences: Slab<Sequence>,
    waiting: VecDeque<Key>,
    encoding: VecDeque<Key>,
    reading: VecDeque<Key>,
    /// Whose verdict needs a pass.
    wanting: VecDeque<Key>,
    /// Who may have something that needs none.
    touched: Vec<Key>,
    pass: Pass,
    busy: bool,
    /// Time that the host needs before the next pass.
    debt_ms: f64,
}

impl Engine {
    pub fn new(cost: &EngineCost) -> Engine {
        Engine {
            capacity: cost.capacity(),
            cost: cost.clone(),
            reserved: 0,
            sequences: Slab::new(),
            waiting: VecDeque::new(),
            encoding: VecDeque::new(),
            reading: VecDeque::new(),
            wanting: VecDeque::new(),
            touched: Vec::new(),
            pass: Pass::default(),
            busy: false,
            debt_ms: 0.0,
        }
    }

    /// Opens a sequence, or has it wait for room. None: there is no room to wait either, or would never be any.
    pub fn open(&mut self, now_ms: f64, opening: Opening) -> Option<Key> {
        let tokens = opening.prompt_tokens.saturating_add(opening.reserve);
        let needs = tokens.div_ceil(BLOCK).saturating_mul(BLOCK);
        // What a cache of a size that is no multiple has beyond its blocks is of no use.
        let full = self.waiting.len() >= self.cost.limits.waiting as usize;
        if full || needs > self.capacity {
            return None;
        }
        let sequence = Sequence::new(opening, needs, now_ms, &self.cost);
        let key = self.sequences.insert(sequence);
        self.waiting.push_back(key);
        Some(key)
    }

    /// Ends a sequence. Gives the floating-point operations that it has cost.
    pub fn close(&mut self, key: Key) -> f64 {
        let Some(sequence) = self.sequences.remove(key) else {
            return 0.0;
        };
        let others = |list: &mut VecDeque<Key>| list.retain(|other| *other != key);
        match sequence.stage {
            Stage::Waiting => others(&mut self.waiting),
            Stage::Encoding => others(&mut self.encoding),
            Stage::Reading => others(&mut self.reading),
            Stage::Held | Stage::Ready => {}
        }
        if sequence.stage != Stage::Waiting {
            self.reserved = self.reserved.saturating_sub(sequence.needs);
        }
        sequence.flops
    }

    pub fn order(&mut self, key: Key, order: Order) {
        if let Some(sequence) = self.sequences.get_mut(key) {
            sequence.orders.push_back(order);
            self.touched.push(key);
        }
    }

    /// Goes on with a sequence that the probe has seen: so many tokens are kept of its prompt, and the answer is this one.
    pub fn keep(&mut self, now_ms: f64, key: Key, tokens: u32, script: Rc<Script>) {
        let share = 1.0 - self.cost.probe_share;
        if let Some(sequence) = self.sequences.get_mut(key)
            && sequence.stage == Stage::Held
        {
            sequence.keep(now_ms, tokens, share, script);
            self.reading.push_back(key);
        }
    }

    /// Floating-point operations so far.
    pub fn flops(&self, key: Key) -> f64 {
        self.sequences.get(key).map_or(0.0, |it| it.flops)
    }

    /// The host needs so long before the next pass.
    pub fn owe(&mut self, ms: f64) {
        self.debt_ms += ms;
    }

    /// Tokens for which there is room.
    pub fn kv_free(&self) -> f64 {
        let held: f64 = self.sequences.entries().map(|(_, it)| it.held()).sum();
        (f64::from(self.capacity) - held).max(0.0)
    }

    /// How long whoever came first has waited for room; 0 where nobody waits.
    pub fn oldest_ms(&self, now_ms: f64) -> f64 {
        let first = self
            .waiting
            .front()
            .and_then(|key| self.sequences.get(*key));
        first.map_or(0.0, |it| now_ms - it.opened_ms)
    }

    /// Tokens of the prompts that wait for room.
    pub fn waiting_tokens(&self) -> u64 {
        let waiting = self.waiting.iter();
        let waiting = waiting.filter_map(|key| self.sequences.get(*key));
        waiting.map(|sequence| u64::from(sequence.prompt)).sum()
    }

    /// A pass is under way.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Does what takes no time. If nothing came of it that may lead to more, no pass is under way and the device is `free`, begins one
    /// and tells when it ends.
    pub fn turn(&mut self, now_ms: f64, free: bool, done: &mut Vec<Done>) -> Option<f64> {
        let before = done.len();
        self.admit(now_ms);
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            self.settle(key, now_ms, done);
        }
        self.touched = touched;
        if self.busy || !free || done.len() > before {
            return None;
        }
        self.begin(now_ms)
    }

    fn admit(&mut self, now_ms: f64) {
        while let Some(&key) = self.waiting.front() {
            if let Some(sequence) = self.sequences.get_mut(key) {
                if sequence.needs > self.capacity.saturating_sub(self.reserved) {
                    return;
                }
                self.reserved += sequence.needs;
                match sequence.admit(now_ms) {
                    Stage::Encoding => self.encoding.push_back(key),
                    _ => self.reading.push_back(key),
                }
            }
            self.waiting.pop_front();
        }
    }

    fn settle(&mut self, key: Key, now_ms: f64, done: &mut Vec<Done>) {
        let Some(sequence) = self.sequences.get_mut(key) else {
            return;
        };
        if sequence.settle(key, now_ms, done) {
            self.wanting.push_back(key);
        }
    }

    /// Begins a pass if there is anything to do.
    fn begin(&mut self, now_ms: f64) -> Option<f64> {
        let verify_ms = self.gather();
        let decodes = !self.pass.verified.is_empty();
        let encode_ms = self.encode(decodes);
        let read_ms = self.read(decodes);
        if !decodes && self.pass.read.is_empty() && self.pass.encoded.is_none() {
            return None;
        }
        self.busy = true;
        let debt_ms = std::mem::take(&mut self.debt_ms);
        Some(now_ms + debt_ms + encode_ms + verify_ms + read_ms)
    }

    /// Takes into the pass whoever wants a verdict; gives what that takes.
    fn gather(&mut self) -> f64 {
        let most = self.cost.limits.decode_rows;
        let (mut answers, mut rows) = (0_u32, 0_u32);
        while let Some(&key) = self.wanting.front() {
            if let Some(sequence) = self.sequences.get_mut(key) {
                let own = sequence.wanted_rows();
                if rows + own > most && answers > 0 {
                    break;
                }
                answers += 1;
                rows += own;
                sequence.charge(
                    f64::from(own),
                    self.cost.flops_per_token,
                    self.cost.flops_per_token_pair,
                );
                self.pass.verified.push(key);
            }
            self.wanting.pop_front();
        }
        if answers == 0 {
            return 0.0;
        }
        self.cost.pass_ms
            + f64::from(answers - 1) * self.cost.row_ms
            + f64::from(rows - answers) * self.cost.draft_ms
    }

    /// Takes a piece of one medium; gives what that takes.
    fn encode(&mut self, decodes: bool) -> f64 {
        let Some(&key) = self.encoding.front() else {
            return 0.0;
        };
        let alone = !decodes && self.reading.is_empty();
        let most_ms = if alone {
            ENCODE_ALONE_MS
        } else {
            self.cost.limits.encode_slice_ms
        };
        let left_ms = self.sequences.get(key).map_or(0.0, |it| it.encode_ms);
        let took_ms = left_ms.min(most_ms);
        self.pass.encoded = Some((key, took_ms));
        took_ms
    }

    /// Takes pieces of prompts; gives what they take.
    fn read(&mut self, decodes: bool) -> f64 {
        let limits = &self.cost.limits;
        let (slice_ms, mut rows_left) = if decodes {
            (limits.prompt_slice_ms, limits.prompt_rows)
        } else {
            (limits.idle_prompt_slice_ms, limits.idle_prompt_rows)
        };
        let row_ms = 1000.0 / self.cost.prefill_tok_per_s;
        let mut whole_left = (slice_ms / row_ms).max(FEWEST_ROWS);
        let (mut took_ms, mut layers) = (0.0, 0.0_f64);
        for &key in &self.reading {
            let Some(sequence) = self.sequences.get_mut(key) else {
                continue;
            };
            // Casting saturates.
            let most = ((whole_left / sequence.share) as u32).min(rows_left);
            let rows = sequence.rows.min(most);
            if rows == 0 {
                break;
            }
            let whole = f64::from(rows) * sequence.share;
            rows_left -= rows;
            whole_left -= whole;
            took_ms += whole * row_ms;
            layers = layers.max(sequence.share);
            if sequence.probe && rows == sequence.rows {
                took_ms += self.cost.probe_ms;
            }
            sequence.charge(
                whole,
                self.cost.prefill_flops_per_token,
                self.cost.flops_per_token_pair / 2.0,
            );
            self.pass.read.push((key, rows));
        }
        if decodes || took_ms == 0.0 {
            return took_ms;
        }
        // The weights of these layers are read, however few rows there are.
        took_ms.max(self.cost.pass_ms * layers)
    }

    /// The pass is over.
    pub fn passed(&mut self, now_ms: f64, done: &mut Vec<Done>) {
        let mut pass = std::mem::take(&mut self.pass);
        self.busy = false;
        for key in pass.verified.drain(..) {
            if let Some(sequence) = self.sequences.get_mut(key) {
                done.extend(sequence.verified(key, now_ms));
                self.touched.push(key);
            }
        }
        for (key, rows) in pass.read.drain(..) {
            if let Some(sequence) = self.sequences.get_mut(key)
                && sequence.has_read(rows)
            {
                self.reading.retain(|other| *other != key);
                done.push(sequence.read_whole(key, now_ms));
                self.touched.push(key);
            }
        }
        if let Some((key, ms)) = pass.encoded.take()
            && let Some(sequence) = self.sequences.get_mut(key)
            && sequence.has_encoded(ms, self.cost.encoder_flops_per_token)
        {
            self.encoding.retain(|other| *other != key);
            self.reading.push_back(key);
        }
        // Its memory is used again.
        self.pass = pass;
    }
}

#[cfg(test)]
mod tests;
