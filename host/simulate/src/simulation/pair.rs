//! Both models in the cloud: where the target would choose a single token, the draft model beside it drafts first. Orders are
//! done one after the other, as a node's `Pair` does them.

use super::Simulation;
use crate::engine::{Order, What};
use crate::run::{Doing, PairOrder};
use crate::slab::Key;

/// Drafts a round at most.
const MOST: usize = 16;

impl Simulation<'_> {
    /// One of the two has read the prompt; with the other one both have.
    pub(super) fn half_is_ready(&mut self, key: Key, waited_ms: f64, took_ms: f64) {
        let served = self.runs.get_mut(key).and_then(|run| run.cloud.as_mut());
        let Some(pair) = served.and_then(|served| served.pair.as_mut()) else {
            return;
        };
        match pair.half_ready.take() {
            None => pair.half_ready = Some((waited_ms, took_ms)),
            Some((other_waited_ms, other_took_ms)) => {
                let waited_ms = waited_ms.max(other_waited_ms);
                self.is_ready(key, waited_ms, took_ms.max(other_took_ms));
            }
        }
    }

    /// Does orders as long as nobody has to be waited for.
    pub(super) fn pair_goes_on(&mut self, key: Key) {
        let now_ms = self.now_ms();
        loop {
            let Some(run) = self.runs.get_mut(key) else {
                return;
            };
            let reserve = run.decided.request.max_tokens;
            let Some(served) = run.cloud.as_mut() else {
                return;
            };
            let (Some(target), Some(pair)) = (served.target, served.pair.as_mut()) else {
                return;
            };
            if !matches!(pair.doing, Doing::Nothing) {
                return;
            }
            let Some(order) = pair.queue.pop_front() else {
                return;
            };
            let beside = pair.place;
            match order {
                PairOrder::RollBack(to) => {
                    pair.written = pair.written.min(to);
                    self.order(target, Order::RollBack(to));
                    self.order(beside, Order::RollBack(to));
                }
                PairOrder::Append(tokens) => {
                    pair.written += tokens;
                    self.order(target, Order::Append(tokens));
                    self.order(beside, Order::Append(tokens));
                }
                PairOrder::Verify {
                    stamp,
                    drafts,
                    given_ms,
                } => {
                    // The target's choice behind the drafts needs a place too.
                    let room = reserve.saturating_sub(pair.written + 1) as usize;
                    // The prompt's own logits choose the first token: it need not wait for drafts.
                    let first = pair.written == 0;
                    let own = drafts.is_empty();
                    let wanted = match own && !first {
                        true => pair.pace.drafts(MOST).min(room),
                        false => 0,
                    };
                    if wanted > 0 {
                        pair.doing = Doing::Drafting {
                            stamp,
                            given_ms,
                            began_ms: now_ms,
                            wanted,
                            drafts: Vec::with_capacity(wanted),
                        };
                        self.order(beside, one(now_ms));
                    } else {
                        pair.doing = Doing::Verifying {
                            given_ms,
                            began_ms: now_ms,
                            drafted: 0,
                            draft_ms: 0.0,
                            counts: own && !first,
                        };
                        let verify = Order::Verify {
                            stamp,
                            drafts,
                            given_ms: now_ms,
                        };
                        self.order(target, verify);
                    }
                }
            }
        }
    }

    /// The draft model beside the target has done something.
    pub(super) fn beside_done(&mut self, key: Key, sequence: Key, what: What) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let Some(served) = run.cloud.as_mut() else {
            return;
        };
        let (Some(target), Some(pair)) = (served.target, served.pair.as_mut()) else {
            return;
        };
        if pair.place.sequence != sequence {
            return;
        }
        if let What::Ready { waited_ms, took_ms } = what {
            return self.half_is_ready(key, waited_ms, took_ms);
        }
        let What::Verified { first, ended, .. } = what else {
            return;
        };
        let Doing::Drafting {
            stamp,
            given_ms,
            began_ms,
            wanted,
            drafts,
        } = &mut pair.doing
        else {
            return;
        };
        // What ends the sequence is no token of it.
        let id = run.script.draft(first).id.filter(|_| !ended);
        drafts.extend(id);
        if id.is_some() && drafts.len() < *wanted {
            let place = pair.place;
            return self.order(place, one(now_ms));
        }
        let (stamp, given_ms, draft_ms) = (*stamp, *given_ms, now_ms - *began_ms);
        let drafts = std::mem::take(drafts);
        let drafted = drafts.len() as u32;
        pair.written += drafted;
        pair.doing = Doing::Verifying {
            given_ms,
            began_ms: now_ms,
            drafted,
            draft_ms,
            counts: true,
        };
        let verify = Order::Verify {
            stamp,
            drafts,
            given_ms: now_ms,
        };
        self.order(target, verify);
    }

    /// The target has said what it makes of the drafts: the draft model is taken to where it is.
    pub(super) fn pair_verified(&mut self, key: Key, what: What) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let served = run.cloud.as_mut();
        let Some(pair) = served.and_then(|served| served.pair.as_mut()) else {
            return;
        };
        let Doing::Verifying {
            given_ms,
            began_ms,
            drafted,
            draft_ms,
            counts,
        } = std::mem::replace(&mut pair.doing, Doing::Nothing)
        else {
            return;
        };
        let What::Verified {
            choices,
            accepted,
            ended,
            ..
        } = what
        else {
            return;
        };
        // Drafts that came over the link are not in the draft model's answer.
        let stood = accepted.min(drafted);
        if counts {
            let verify_ms = now_ms - began_ms;
            (pair.pace).saw(drafted as usize, draft_ms, stood as usize, verify_ms);
            // Each of the two is as fast as it was by itself.
            if let Some(node) = run.way.and_then(|way| self.nodes.get_mut(way.node)) {
                let speeds = &mut node.target_speeds;
                if drafted > 0 {
                    speeds.drafted(drafted, draft_ms);
                    speeds.verified(drafted, stood, verify_ms);
                } else {
                    speeds.decoded(choices, verify_ms);
                }
            }
        }
        let beside = pair.place;
        if !ended {
            let back = drafted - stood;
            let to = pair.written.saturating_sub(back);
            let unread = choices.saturating_sub(stood);
            pair.written = to + unread;
            if back > 0 {
                self.order(beside, Order::RollBack(to));
            }
            self.order(beside, Order::Append(unread));
        }
        self.verdict(key, what, now_ms - given_ms);
        self.pair_goes_on(key);
    }
}

/// One more draft. Nobody looks at its stamp.
fn one(now_ms: f64) -> Order {
    Order::Verify {
        stamp: 0,
        drafts: Vec::new(),
        given_ms: now_ms,
    }
}
