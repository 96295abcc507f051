//! The edge's side of a request: the session's own machine, the draft model's seat, the policy's steps.

use std::collections::VecDeque;
use std::rc::Rc;

use msao_core::offload::{Action, Status, StepInput, overrides};
use msao_registry::fallback_step;
use msao_session::edge::{Committed, Drafted, Effect, Ending, Event as EdgeEvent};

use super::{Event, Simulation};
use crate::engine::{Opening, Order, Seat, What};
use crate::run::Place;
use crate::script::right;
use crate::slab::Key;

impl Simulation<'_> {
    pub(super) fn tell_edge(&mut self, key: Key, event: EdgeEvent) {
        let effects = self.advance_edge(key, event);
        self.edge_effects(key, effects);
    }

    fn advance_edge(&mut self, key: Key, event: EdgeEvent) -> Vec<Effect> {
        let now_ms = self.now_ms();
        let run = self.runs.get_mut(key);
        let machine = run.and_then(|run| run.machine.as_mut());
        machine.map_or_else(Vec::new, |machine| machine.advance(now_ms, event))
    }

    /// Does what the machine asks for, as a node's driver does.
    pub(super) fn edge_effects(&mut self, key: Key, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Send(frame) => self.edge_sends(key, frame),
                Effect::Draft { stamp, .. } => {
                    if !self.draft(key, stamp) {
                        effects.extend(self.advance_edge(key, EdgeEvent::DraftLost));
                    }
                }
                Effect::RollBack { to } => self.roll_back(key, to),
                Effect::Append { ids } => self.append(key, ids.len() as u32),
                Effect::Commit(tokens) => self.commits(key, &tokens),
                Effect::Ask(input) => {
                    let action = self.step(key, &input);
                    effects.extend(self.advance_edge(key, EdgeEvent::Action(action)));
                }
                // Between two machines that keep the protocol it does not happen; tests hold it against 0.
                Effect::GiveUpStream(_) => self.tally.contradictions += 1,
                Effect::End(ending) => return self.ends(key, ending),
            }
        }
        self.set_edge_tick(key);
    }

    /// Asks the policy. On routes without steps the node answers itself.
    fn step(&mut self, key: Key, input: &StepInput) -> Action {
        let Some(run) = self.runs.get_mut(key) else {
            return Action::Wait;
        };
        if !run.stepped {
            return match run.refused {
                true => Action::Finish,
                false => Action::Wait,
            };
        }
        let decided = &mut run.decided;
        let route = decided.plan.route;
        let action = if decided.stepless {
            fallback_step(route, input)
        } else {
            let draft = self.nodes.get(run.edge).and_then(|node| node.draft);
            if let Some(engine) = draft.and_then(|draft| self.engines.get_mut(draft)) {
                engine.owe(self.plugins.step_ms);
            }
            self.tally.steps += 1;
            match self.decides.step(input, &decided.plan.memo) {
                Ok(action) => action,
                Err(_) => {
                    decided.stepless = true;
                    decided.overrides |= overrides::FALLBACK;
                    self.tally.failures += 1;
                    fallback_step(route, input)
                }
            }
        };
        match action {
            Action::Escalate if run.way.is_none() => {
                run.decided.overrides |= run.withheld;
                Action::Draft
            }
            action => action,
        }
    }

    /// Has the draft model choose a token. False: it has no room.
    fn draft(&mut self, key: Key, stamp: u64) -> bool {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return true;
        };
        let place = match run.seat {
            Some(place) => place,
            None => {
                let Some(engine) = self.nodes.get(run.edge).and_then(|node| node.draft) else {
                    return false;
                };
                let opening = Opening {
                    run: key,
                    seat: Seat::Edge,
                    script: Rc::clone(&run.script),
                    prompt_tokens: run.treated.draft_tokens,
                    media: run.treated.draft_media,
                    reserve: run.decided.request.max_tokens,
                    probe: false,
                };
                let opened = self.engines.get_mut(engine);
                let Some(sequence) = opened.and_then(|it| it.open(now_ms, opening)) else {
                    return false;
                };
                let place = Place { engine, sequence };
                run.seat = Some(place);
                let known = std::mem::take(&mut run.known);
                if known > 0 {
                    self.order(place, Order::Append(known));
                }
                place
            }
        };
        let verify = Order::Verify {
            stamp,
            drafts: Vec::new(),
            given_ms: now_ms,
        };
        self.order(place, verify);
        true
    }

    /// A draft model that is there in case the peer is lost costs nothing as long as it is not: what it has to know is
    /// counted until it is first needed.
    fn append(&mut self, key: Key, tokens: u32) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        match run.seat {
            Some(place) => self.order(place, Order::Append(tokens)),
            None => run.known += tokens,
        }
    }

    fn roll_back(&mut self, key: Key, to: u32) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        match run.seat {
            Some(place) => self.order(place, Order::RollBack(to)),
            None => run.known = run.known.min(to),
        }
    }

    /// The draft model has done something.
    pub(super) fn drafted(&mut self, key: Key, sequence: Key, what: What) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if run.seat.is_none_or(|place| place.sequence != sequence) {
            return;
        }
        let account = &mut run.account;
        match what {
            What::Ready { waited_ms, took_ms } => {
                account.draft_ready = Some((waited_ms, took_ms));
                account.queue_ms += waited_ms;
            }
            What::Probed => {}
            What::Verified {
                stamp,
                first,
                ended,
                took_ms,
                ..
            } => {
                account.draft_passes.0 += 1;
                account.draft_passes.1 += took_ms;
                let guess = run.script.draft(first);
                let drafted = Drafted {
                    stamp,
                    id: guess.id.unwrap_or(u32::MAX),
                    ends: ended,
                    p_accept: guess.said.p_accept,
                    // What is drawn is right as often as it says.
                    sure: guess.said.p_accept,
                    top1: guess.said.top1,
                    entropy_nats: guess.said.entropy_nats,
                    margin: guess.said.margin,
                };
                self.tell_edge(key, EdgeEvent::Drafted(drafted));
            }
        }
    }

    fn commits(&mut self, key: Key, tokens: &[Committed]) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let committed = run.machine.as_ref().map_or(0, |it| it.committed().len());
        let first = committed.saturating_sub(tokens.len()) as u32;
        let account = &mut run.account;
        let is_first = account.first_ms.is_none();
        account.first_ms.get_or_insert(now_ms);
        account.last_ms = Some(now_ms);
        for (place, token) in (first..).zip(tokens) {
            account.wrong += u32::from(token.id != right(place));
        }
        if is_first {
            self.settle_ahead(key);
        }
    }

    fn ends(&mut self, key: Key, ending: Ending) {
        let Some(run) = self.runs.get(key) else {
            return;
        };
        let degraded = run
            .machine
            .as_ref()
            .is_some_and(|it| it.counters().degraded);
        let status = match ending {
            Ending::Stopped if run.overdue => Status::Failed,
            Ending::Finished(_) | Ending::Stopped if degraded => Status::Degraded,
            Ending::Finished(_) | Ending::Stopped => Status::Answered,
            // Nobody is there who may answer, or has room.
            Ending::NotExact | Ending::NoModel => Status::Refused,
        };
        self.finish(key, status);
    }

    /// The client's time is up.
    pub(super) fn late(&mut self, key: Key) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if run.ended {
            return;
        }
        run.overdue = true;
        match run.machine {
            Some(_) => self.tell_edge(key, EdgeEvent::Stop),
            None => self.finish(key, Status::Failed),
        }
    }

    /// Notes when the machine wants to be told of the time. An earlier note stays: when it is due, it is looked again.
    fn set_edge_tick(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let due = run.machine.as_ref().and_then(|machine| machine.due_ms());
        if let Some(due_ms) = due.map(|due_ms| due_ms.max(now_ms))
            && run.tick_ms.is_none_or(|tick_ms| due_ms < tick_ms)
        {
            run.tick_ms = Some(due_ms);
            self.agenda.at(due_ms, Event::EdgeTick(key));
        }
    }

    pub(super) fn edge_tick(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if run.tick_ms != Some(now_ms) {
            return;
        }
        run.tick_ms = None;
        let due = run.machine.as_ref().and_then(|machine| machine.due_ms());
        match due.is_some_and(|due_ms| due_ms <= now_ms) {
            true => self.tell_edge(key, EdgeEvent::Tick),
            false => self.set_edge_tick(key),
        }
    }
}
