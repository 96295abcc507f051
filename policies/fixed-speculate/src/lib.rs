//! `fixed-speculate`: the plainest speculation, to compare others with. Every round has the same number of drafts,
//! whatever the link, the draft's confidence and the load are.
//!
//! It declines where speculation is impossible: no peer that is up, verifies and shares the tokenizer; media that must
//! stay; no draft model here. The manifest's reasons say which it was.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

/// The manifest's reasons, by number.
mod reason {
    pub const SPECULATES: u32 = 0;
    pub const NO_PEER: u32 = 1;
    pub const PEER_CANNOT_VERIFY: u32 = 2;
    pub const MEDIA_STAY: u32 = 3;
    pub const NO_DRAFT_HERE: u32 = 4;
    pub const OWN_TARGET: u32 = 5;
}

/// Times the patience after which a silent peer is given up.
const GIVE_UP: f64 = 3.0;

parameters! {
    struct Settings {
        gamma: u32,
        in_flight: u32,
        patience_ms: f64,
    }
}

memo! {
    /// What `step` goes by. A plan that runs on this node alone has none.
    struct Rounds {
        gamma: u32,
        in_flight: u32,
        patience_ms: f64,
    }
}

/// The policy.
#[derive(Debug)]
pub struct FixedSpeculate;

/// Where the request runs, and why.
fn choose(input: &PlanInput) -> (Route, u32, u32) {
    let here = input.here();
    let verifier = capability::TARGET | capability::VERIFY | capability::SAME_TOKENIZER;
    let drafts = here.is(capability::DRAFT);
    let alone = |reason| match (here.is(capability::TARGET), drafts) {
        (true, true) => (Route::CloudDraft, 0, reason),
        (true, false) => (Route::Cloud, 0, reason),
        (false, _) => (Route::Edge, 0, reason),
    };
    if input.bound_here() {
        return alone(reason::MEDIA_STAY);
    }
    if drafts && let Some((peer, _)) = input.nearest(verifier) {
        return (Route::Speculate, peer, reason::SPECULATES);
    }
    match input.nearest(capability::TARGET) {
        // A target of its own is nearer than any peer's.
        _ if here.is(capability::TARGET) => alone(reason::OWN_TARGET),
        Some((peer, _)) if drafts => (Route::Cloud, peer, reason::PEER_CANNOT_VERIFY),
        Some((peer, _)) => (Route::Cloud, peer, reason::NO_DRAFT_HERE),
        None => alone(reason::NO_PEER),
    }
}

impl Policy for FixedSpeculate {
    fn plan(input: &PlanInput) -> Decision {
        let settings = Settings::read(input.params);
        let (route, peer, reason) = choose(input);
        let rounds = Rounds {
            gamma: settings.gamma,
            in_flight: settings.in_flight,
            patience_ms: settings.patience_ms,
        };
        let node = (peer > 0).then(|| input.nodes.get(peer as usize)).flatten();
        Decision::Run(Plan {
            gamma_max: settings.gamma,
            in_flight_max: settings.in_flight,
            patience_ms: settings.patience_ms,
            memo: match route {
                Route::Speculate => rounds.encode(),
                _ => Vec::new(),
            },
            reason,
            terms: vec![
                node.map_or(-1.0, |node| node.rtt_ms),
                node.map_or(-1.0, |node| node.acceptance),
            ],
            ..Plan::plain(route, peer)
        })
    }

    fn step(input: &StepInput, memo: &[u8]) -> Action {
        let Some(rounds) = Rounds::decode(memo) else {
            // Planned onto this node: nobody is there to verify.
            return Action::Finish;
        };
        match input.event {
            Event::LinkDown | Event::Refused => Action::Finish,
            Event::Overdue if input.waited_ms >= GIVE_UP * rounds.patience_ms => Action::Finish,
            Event::Overdue => Action::Wait,
            Event::Drafted | Event::Verdict | Event::LinkUp => {
                if input.in_flight.div_ceil(rounds.gamma.max(1)) >= rounds.in_flight {
                    Action::Wait
                } else if input.unsent >= rounds.gamma {
                    Action::Send
                } else {
                    Action::Draft
                }
            }
        }
    }
}

export_policy!(FixedSpeculate);

#[cfg(test)]
mod tests;
