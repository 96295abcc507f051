//! The cloud's side of a request: the session's own machine, and the target's seat.

use std::collections::VecDeque;
use std::rc::Rc;

use msao_session::cloud::{Choice, Cloud, Config, Effect, Event as CloudEvent};
use msao_session::frame::{Frame, Open, Refused, RefusedCode, SessionId, Wanted};

use super::Simulation;
use crate::engine::{Opening, Order, Seat, What};
use crate::run::{Doing, Pair, PairOrder, Place, Run, Served};
use crate::script::right;
use crate::slab::Key;

/// Drafts that one pass verifies for a session at most.
const MOST_DRAFTS: usize = 64;
/// Every so many verdicts the edge is told what its session has cost.
const TOLD_EVERY: u32 = 16;
/// Whoever finds no room may come back after so long at the earliest, in ms.
const LEAST_RETRY_MS: f64 = 100.0;

impl Simulation<'_> {
    pub(super) fn served(&mut self, key: Key) -> Option<&mut Served> {
        self.runs.get_mut(key)?.cloud.as_deref_mut()
    }

    pub(super) fn arrives_at_cloud(&mut self, key: Key, frame: Frame) {
        match frame {
            Frame::Open(open) => match self.served(key) {
                None => self.opened(key, *open),
                Some(served) => {
                    served.decodes = open.wanted != Wanted::Verify;
                    self.tell_cloud(key, CloudEvent::Reopened(open));
                }
            },
            Frame::Draft(draft) => {
                if let Some(served) = self.served(key) {
                    served.decodes |= draft.last;
                }
                self.tell_cloud(key, CloudEvent::Draft(draft));
            }
            Frame::Cancel(_) | Frame::Close(_) => self.tell_cloud(key, CloudEvent::Done),
            _ => {}
        }
    }

    fn opened(&mut self, key: Key, open: Open) {
        let now_ms = self.now_ms();
        let way = self.runs.get(key).and_then(|run| run.way);
        let Some(node) = way.and_then(|way| self.nodes.get(way.node)) else {
            return;
        };
        let (target, beside) = (node.target, node.draft);
        if node.sessions.len() >= node.most_sessions {
            let refused = self.no_room(key, open.session, "as many sessions as may be are there");
            return self.send_down(key, Frame::Refused(refused), 0);
        }
        let both = open.wanted == Wanted::DecodeWithDraft;
        let decodes = open.wanted != Wanted::Verify;
        let config = Config {
            batch_max: MOST_DRAFTS,
            ..Config::default()
        };
        let (machine, effects) = Cloud::open(open, config, now_ms);
        let place = self.open_seat(key, Seat::Target, target);
        let beside = beside.filter(|_| both && place.is_some());
        let pair = match beside {
            Some(_) => self.open_seat(key, Seat::Beside, beside),
            None => None,
        };
        // Of two seats both are needed.
        let full = place.is_none() || (beside.is_some() && pair.is_none());
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        run.cloud = Some(Box::new(Served {
            machine,
            target: place,
            pair: pair.map(|place| Pair {
                place,
                pace: Default::default(),
                queue: VecDeque::new(),
                doing: Doing::Nothing,
                written: 0,
                half_ready: None,
            }),
            decodes,
            busy: false,
            spare: false,
            orders: Vec::new(),
            acceptance: Default::default(),
            verdicts: 0,
            tick_ms: None,
        }));
        if let Some(way) = way
            && let Some(node) = self.nodes.get_mut(way.node)
        {
            node.sessions.push(key);
            self.flapped.push(way.node);
        }
        self.cloud_effects(key, effects);
        if full {
            let session = SessionId(key.name());
            let refused = self.no_room(
                key,
                session,
                "the cache has no room, nor any to wait for it",
            );
            self.tell_cloud(
                key,
                CloudEvent::Failed {
                    code: refused.code,
                    retry_after_ms: refused.retry_after_ms,
                    message: refused.message,
                },
            );
        }
    }

    fn no_room(&self, key: Key, session: SessionId, why: &str) -> Refused {
        let way = self.runs.get(key).and_then(|run| run.way);
        let node = way.and_then(|way| self.nodes.get(way.node));
        let figures = node.map(|node| node.figures(self.now_ms(), &self.engines));
        Refused {
            session,
            code: RefusedCode::Overloaded,
            retry_after_ms: figures.map_or(0.0, |it| it.queue_ms).max(LEAST_RETRY_MS),
            message: why.to_owned(),
        }
    }

    fn open_seat(&mut self, key: Key, seat: Seat, engine: Option<usize>) -> Option<Place> {
        let now_ms = self.now_ms();
        let (engine, run) = (engine?, self.runs.get(key)?);
        let treated = &run.treated;
        // A session names one keep list a medium: what the target reads, a draft model beside it reads too.
        let (prompt_tokens, media) = match seat {
            Seat::Target | Seat::Beside => (treated.target_tokens, treated.target_media),
            Seat::Edge => (treated.draft_tokens, treated.draft_media),
        };
        let opening = Opening {
            run: key,
            seat,
            script: Rc::clone(&run.script),
            prompt_tokens,
            media,
            reserve: run.decided.request.max_tokens,
            probe: false,
        };
        let sequence = self.engines.get_mut(engine)?.open(now_ms, opening)?;
        self.stirred.push(engine);
        Some(Place { engine, sequence })
    }

    pub(super) fn tell_cloud(&mut self, key: Key, event: CloudEvent) {
        let now_ms = self.now_ms();
        if let Some(served) = self.served(key) {
            let effects = served.machine.advance(now_ms, event);
            self.cloud_effects(key, effects);
        }
    }

    fn cloud_effects(&mut self, key: Key, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Verify {
                    stamp,
                    position,
                    drafts,
                } => self.verify(key, stamp, position, drafts),
                Effect::RollBack { to } => self.order_target(key, PairOrder::RollBack(to)),
                Effect::Append { ids } => {
                    self.order_target(key, PairOrder::Append(ids.len() as u32));
                }
                Effect::Send(frame) => {
                    let beside = self.account_bytes(key, &frame);
                    self.send_down(key, frame, beside);
                }
                Effect::Free => return self.frees(key),
            }
        }
        self.set_cloud_tick(key);
    }

    fn verify(&mut self, key: Key, stamp: u64, position: u32, drafts: Vec<u32>) {
        let given_ms = self.now_ms();
        let Some(served) = self.served(key) else {
            return;
        };
        let count = drafts.len() as u32;
        served.orders.push((stamp, position, count));
        // What is decoded because nobody else wants the target is no work that others wait for.
        let busy = served.decodes || count > 0;
        self.set_busy(key, busy);
        let verify = PairOrder::Verify {
            stamp,
            drafts,
            given_ms,
        };
        self.order_target(key, verify);
    }

    /// Gives the target an order, by way of the pair where there is one.
    fn order_target(&mut self, key: Key, order: PairOrder) {
        let Some(served) = self.served(key) else {
            return;
        };
        if let Some(pair) = &mut served.pair {
            pair.queue.push_back(order);
            return self.pair_goes_on(key);
        }
        let order = match order {
            PairOrder::Verify {
                stamp,
                drafts,
                given_ms,
            } => Order::Verify {
                stamp,
                drafts,
                given_ms,
            },
            PairOrder::RollBack(to) => Order::RollBack(to),
            PairOrder::Append(tokens) => Order::Append(tokens),
        };
        if let Some(place) = served.target {
            self.order(place, order);
        }
    }

    /// Bytes of what the edge is told of the cost: ahead of the first verdict, of the last, and now and then.
    fn account_bytes(&mut self, key: Key, frame: &Frame) -> u64 {
        let Frame::Verdict(verdict) = frame else {
            return 0;
        };
        let Some(served) = self.served(key) else {
            return 0;
        };
        let told = served.verdicts.is_multiple_of(TOLD_EVERY) || verdict.finish.is_some();
        served.verdicts += 1;
        if told { self.cost_bytes } else { 0 }
    }

    /// The target has done something.
    pub(super) fn target_done(&mut self, key: Key, sequence: Key, what: What) {
        let Some(served) = self.served(key) else {
            return;
        };
        if served.target.is_none_or(|place| place.sequence != sequence) {
            return;
        }
        let paired = served.pair.is_some();
        match what {
            What::Ready { waited_ms, took_ms } if paired => {
                self.half_is_ready(key, waited_ms, took_ms)
            }
            What::Ready { waited_ms, took_ms } => self.is_ready(key, waited_ms, took_ms),
            What::Verified { .. } if paired => self.pair_verified(key, what),
            What::Verified { took_ms, .. } => self.verdict(key, what, took_ms),
            What::Probed => {}
        }
    }

    /// The prompt has been read.
    pub(super) fn is_ready(&mut self, key: Key, waited_ms: f64, took_ms: f64) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        run.account.queue_ms += waited_ms;
        let read = run.treated.target_tokens;
        let node = run.way.and_then(|way| self.nodes.get_mut(way.node));
        if let Some(node) = node {
            node.target_speeds.began(now_ms, waited_ms);
            node.target_speeds.prefilled(read, took_ms);
        }
        self.tell_cloud(key, CloudEvent::Ready);
    }

    /// What the target says to an order; `took_ms` since it was given.
    pub(super) fn verdict(&mut self, key: Key, what: What, took_ms: f64) {
        let What::Verified {
            stamp,
            first,
            choices,
            accepted,
            ended,
            ..
        } = what
        else {
            return;
        };
        self.set_busy(key, false);
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let Some(served) = run.cloud.as_mut() else {
            return;
        };
        let place = served
            .orders
            .iter()
            .position(|(other, _, _)| *other == stamp);
        match place.map(|place| served.orders.swap_remove(place)) {
            // The prompt's own logits chose it: that was no pass.
            Some((_, 0, 0)) | None => {}
            Some((_, _, drafts)) => {
                let node = run.way.and_then(|way| self.nodes.get_mut(way.node));
                if let Some(node) = node {
                    if served.pair.is_none() {
                        node.times.saw(drafts as usize, took_ms);
                        served.acceptance.saw(drafts as usize, accepted as usize);
                        let best = served.acceptance.best(&node.times, 0.0, MOST_DRAFTS);
                        served.machine.limit_batch(best);
                    }
                    match (drafts, &served.pair) {
                        // Both models made it, and have told how fast they were.
                        (0, Some(_)) => {}
                        (0, None) => node.target_speeds.decoded(choices, took_ms),
                        _ => node.target_speeds.verified(drafts, accepted, took_ms),
                    }
                }
            }
        }
        let choices = (first..first + choices).map(|place| Choice {
            id: right(place),
            logprobs: None,
        });
        let verified = CloudEvent::Verified {
            stamp,
            choices: choices.collect(),
            ended,
        };
        self.tell_cloud(key, verified);
    }

    /// Gives back what a session holds.
    pub(super) fn frees(&mut self, key: Key) {
        self.set_busy(key, false);
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let (Some(served), way) = (run.cloud.take(), run.way) else {
            return;
        };
        if let Some(way) = way
            && let Some(node) = self.nodes.get_mut(way.node)
        {
            node.sessions.retain(|other| *other != key);
        }
        let pair = served.pair.as_ref().map(|pair| pair.place);
        let mut flops = 0.0;
        for place in [served.target, pair].into_iter().flatten() {
            flops += self.close(place);
        }
        if let Some(run) = self.runs.get_mut(key) {
            run.account.cloud_flops += flops;
        }
    }

    /// What a session has cost so far.
    pub(super) fn cloud_flops(&self, run: &Run) -> f64 {
        let served = run.cloud.as_ref();
        let target = served.and_then(|served| served.target);
        let pair = served.and_then(|served| Some(served.pair.as_ref()?.place));
        let of = |place: Place| {
            let engine = self.engines.get(place.engine);
            engine.map_or(0.0, |engine| engine.flops(place.sequence))
        };
        let seats = [target, pair].into_iter().flatten();
        run.account.cloud_flops + seats.map(of).sum::<f64>()
    }
}
