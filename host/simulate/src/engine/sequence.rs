//! One prompt and its answer on a model, as the engine's client for it keeps it: what is written, what the model has read.

use std::collections::VecDeque;
use std::rc::Rc;

use super::{Done, Opening, Order, Seat, What};
use crate::profile::EngineCost;
use crate::script::Script;
use crate::slab::Key;

/// How far a prompt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// For room.
    Waiting,
    /// Its media come first.
    Encoding,
    /// By the probe's layers, or by all.
    Reading,
    /// The probe has seen it.
    Held,
    /// It has been read.
    Ready,
}

pub(super) struct Sequence {
    run: Key,
    seat: Seat,
    script: Rc<Script>,
    pub(super) stage: Stage,
    pub(super) orders: VecDeque<Order>,
    /// Tokens of the answer, and of them those that the model has read.
    written: u32,
    read: u32,
    /// The logits for the next choice stand: nothing needs to be read for it.
    fresh: bool,
    /// A verdict waits for a pass, or is in one.
    wanting: bool,
    pub(super) opened_ms: f64,
    admitted_ms: f64,
    /// Tokens of the prompt.
    pub(super) prompt: u32,
    /// Rows of it still to be read, each through this share of the layers.
    pub(super) rows: u32,
    pub(super) share: f64,
    /// The probe is what reads it.
    pub(super) probe: bool,
    pub(super) encode_ms: f64,
    media_tokens: u32,
    /// Tokens of the cache that are set aside for it.
    pub(super) needs: u32,
    pub(super) flops: f64,
}

impl Sequence {
    pub(super) fn new(opening: Opening, needs: u32, now_ms: f64, cost: &EngineCost) -> Sequence {
        Sequence {
            run: opening.run,
            seat: opening.seat,
            script: opening.script,
            stage: Stage::Waiting,
            orders: VecDeque::new(),
            written: 0,
            read: 0,
            fresh: false,
            wanting: false,
            opened_ms: now_ms,
            admitted_ms: now_ms,
            prompt: opening.prompt_tokens,
            rows: opening.prompt_tokens.max(1),
            share: if opening.probe {
                // A model of few layers still reads some of them.
                cost.probe_share.max(1e-3)
            } else {
                1.0
            },
            probe: opening.probe,
            encode_ms: cost.encode_ms(opening.media),
            media_tokens: opening.media.sum(),
            needs,
            flops: 0.0,
        }
    }

    pub(super) fn admit(&mut self, now_ms: f64) -> Stage {
        self.admitted_ms = now_ms;
        self.stage = if self.media_tokens > 0 {
            Stage::Encoding
        } else {
            Stage::Reading
        };
        self.stage
    }

    pub(super) fn keep(&mut self, now_ms: f64, tokens: u32, share: f64, script: Rc<Script>) {
        self.script = script;
        // What it waited before belongs to the probe.
        (self.opened_ms, self.admitted_ms) = (now_ms, now_ms);
        self.prompt = tokens.min(self.prompt);
        self.rows = self.prompt.max(1);
        self.share = share;
        self.probe = false;
        self.stage = Stage::Reading;
    }

    /// Tokens in the cache.
    pub(super) fn held(&self) -> f64 {
        match self.stage {
            Stage::Waiting => 0.0,
            _ => f64::from(self.prompt + self.read),
        }
    }

    /// Adds operations of so many rows.
    pub(super) fn charge(&mut self, rows: f64, per_row: f64, per_pair: f64) {
        let before = f64::from(self.prompt + self.written);
        self.flops += rows * (per_row + before * per_pair);
    }

    /// Does the orders that need no pass. True if one is next that does: it waits for the next pass.
    pub(super) fn settle(&mut self, key: Key, now_ms: f64, done: &mut Vec<Done>) -> bool {
        if self.stage != Stage::Ready || self.wanting {
            return false;
        }
        while let Some(order) = self.orders.front() {
            match order {
                Order::RollBack(to) => {
                    let to = *to;
                    self.roll_back(to);
                }
                Order::Append(tokens) => {
                    self.written += tokens;
                    self.fresh &= *tokens == 0;
                }
                Order::Verify { drafts, .. } => {
                    // A choice that stands already may settle the verdict with nothing read.
                    let settled = self.fresh && drafts.first().copied() != Some(self.choice());
                    if !settled {
                        self.wanting = true;
                        return true;
                    }
                    done.extend(self.judge(key, now_ms));
                    continue;
                }
            }
            self.orders.pop_front();
        }
        false
    }

    /// The model's choice at the next place; an id that no token has where it ends the answer.
    fn choice(&self) -> u32 {
        self.next().unwrap_or(u32::MAX)
    }

    fn next(&self) -> Option<u32> {
        match self.seat {
            Seat::Target => self.script.target(self.written),
            Seat::Edge | Seat::Beside => self.script.draft(self.written).id,
        }
    }

    fn roll_back(&mut self, to: u32) {
        if to >= self.written {
            return;
        }
        self.written = to;
        match to.checked_sub(1) {
            // The prompt's own logits are kept.
            None => (self.read, self.fresh) = (0, true),
            // The last token that stays is read again, for the logits behind it.
            Some(before) => (self.read, self.fresh) = (self.read.min(before), false),
        }
    }

    /// Rows that the verdict at the front needs.
    pub(super) fn wanted_rows(&self) -> u32 {
        let drafts = match self.orders.front() {
            Some(Order::Verify { drafts, .. }) => drafts.len() as u32,
            _ => 0,
        };
        (self.written.saturating_sub(self.read) + drafts).max(1)
    }

    /// The pass that it waited for is over.
    pub(super) fn verified(&mut self, key: Key, now_ms: f64) -> Option<Done> {
        self.wanting = false;
        self.judge(key, now_ms)
    }

    /// Holds the drafts of the order at the front against the model's choices.
    fn judge(&mut self, key: Key, now_ms: f64) -> Option<Done> {
        let Some(Order::Verify {
            stamp,
            drafts,
            given_ms,
        }) = self.orders.pop_front()
        else {
            return None;
        };
        let first = self.written;
        let mut left = drafts.iter();
        let mut accepted = 0;
        let ended = loop {
            let Some(id) = self.next() else {
                break true;
            };
            self.written += 1;
            if left.next() == Some(&id) {
                accepted += 1;
            } else {
                break false;
            }
        };
        self.read = first + accepted;
        self.fresh = ended;
        Some(Done {
            run: self.run,
            seat: self.seat,
            sequence: key,
            what: What::Verified {
                stamp,
                first,
                choices: self.written - first,
                accepted,
                ended,
                took_ms: now_ms - given_ms,
            },
        })
    }

    /// So many rows of the prompt have been read. True if those were the last.
    pub(super) fn has_read(&mut self, rows: u32) -> bool {
        self.rows = self.rows.saturating_sub(rows);
        self.rows == 0 && self.stage == Stage::Reading
    }

    /// All of it has been read, by the probe or by the whole model.
    pub(super) fn read_whole(&mut self, key: Key, now_ms: f64) -> Done {
        let what = if self.probe {
            self.stage = Stage::Held;
            What::Probed
        } else {
            self.stage = Stage::Ready;
            self.fresh = true;
            What::Ready {
                waited_ms: self.admitted_ms - self.opened_ms,
                took_ms: now_ms - self.admitted_ms,
            }
        };
        Done {
            run: self.run,
            seat: self.seat,
            sequence: key,
            what,
        }
    }

    /// Its media have been encoded for so long. True if they are through.
    pub(super) fn has_encoded(&mut self, ms: f64, flops_per_token: f64) -> bool {
        self.encode_ms -= ms;
        if self.encode_ms > 1e-9 {
            return false;
        }
        self.flops += f64::from(self.media_tokens) * flops_per_token;
        self.stage = Stage::Reading;
        true
    }
}
