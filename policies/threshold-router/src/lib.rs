//! `threshold-router`: a cascade by confidence, after FrugalGPT (arXiv 2305.05176): the small model answers, and where it is
//! unsure the large one takes over. What finer ways of sharing an answer are compared with. FrugalGPT scores whole answers
//! by a model of its own; here the tokens' confidence stands for that, since what was streamed cannot be taken back.
//!
//! **`plan`** stays on route `edge` where the draft model is here and a target can take over: one that is up, has room and
//! has this node's tokenizer, so that it can go on from what the edge has committed. Straight to the target go requests for
//! exact answers, and those with a *large* medium whose necessity is high. The latter is known only where the manifest says
//! `probe = "full"`, which takes a post-processor; as shipped it says nothing, so that the policy runs without one.
//!
//! **`step`** looks at each drafted token's confidence. A call is given the last token's figures and remembers
//! nothing, so there is no running mean to go by. There need be no running minimum either: the least confidence of the
//! tokens so far is below the threshold exactly if one of them is, and at the first that is the target takes over. The
//! first `window` tokens are held against the whole threshold. After that it falls in a straight line to nothing behind
//! token `latest`: what is committed stays, so the later the target comes the less it can mend. With `k` the number of
//! the token,
//!
//! ```text
//! strictness(k) = 1                                          k <= window
//!                 (latest + 1 - k) / (latest + 1 - window)   window < k <= latest
//! hand over if    confidence < threshold * strictness(k)   or   entropy * strictness(k) > entropy-max
//! ```
//!
//! The token itself is the target's then, and so is the end of the answer where that was what was drafted.
//! An answer is handed over at most once: from then on the host asks no more about its tokens. A figure that is not a
//! number counts as no confidence.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

/// The manifest's reasons, by number.
mod reason {
    pub const DRAFT_FIRST: u32 = 0;
    pub const NO_TARGET: u32 = 1;
    pub const MEDIA_STAY: u32 = 2;
    pub const NO_DRAFT_HERE: u32 = 3;
    pub const EXACT_ASKED: u32 = 4;
    pub const CANNOT_TAKE_OVER: u32 = 5;
    pub const NEEDS_TARGET: u32 = 6;
}

/// The number of the choice `p-accept` of the parameter `signal`.
const P_ACCEPT: u32 = 0;

parameters! {
    struct Settings {
        threshold: f64,
        signal: u32,
        entropy_max: f64,
        window: u32,
        latest: u32,
        needed: f64,
        large: u32,
        patience_ms: f64,
    }
}

memo! {
    /// What `step` goes by. A plan that nobody can take over has none.
    struct Watch {
        threshold: f64,
        calibrated: bool,
        entropy_max: f64,
        window: u32,
        latest: u32,
    }
}

/// The policy.
#[derive(Debug)]
pub struct ThresholdRouter;

/// Where a request runs.
struct Choice {
    route: Route,
    /// The row that answers, or, on route `edge`, that may take over.
    row: u32,
    reason: u32,
    watched: bool,
}

/// The row of a node with all of these capabilities that may answer: this one before any peer.
fn reachable(input: &PlanInput, capabilities: u32) -> Option<u32> {
    if input.here().is(capabilities) {
        return Some(0);
    }
    match input.nearest(capabilities) {
        Some((row, _)) if !input.bound_here() => Some(row),
        _ => None,
    }
}

/// The necessity of each medium that is large.
fn large(input: &PlanInput, settings: &Settings) -> impl Iterator<Item = f64> {
    let from = settings.large;
    input
        .media()
        .filter(move |part| part.tokens >= from)
        .map(|part| part.necessity)
}

fn choose(input: &PlanInput, settings: &Settings) -> Choice {
    let target = reachable(input, capability::TARGET);
    let cloud = |row, reason| Choice {
        route: Route::Cloud,
        row,
        reason,
        watched: false,
    };
    let edge = |row, reason, watched| Choice {
        route: Route::Edge,
        row,
        reason,
        watched,
    };
    let Some(target) = target else {
        return match input.bound_here() {
            true => edge(0, reason::MEDIA_STAY, false),
            false => edge(0, reason::NO_TARGET, false),
        };
    };
    if !input.here().is(capability::DRAFT) {
        return cloud(target, reason::NO_DRAFT_HERE);
    }
    if input.request.has(flag::EXACT) {
        return cloud(target, reason::EXACT_ASKED);
    }
    let heir = reachable(input, capability::TARGET | capability::SAME_TOKENIZER);
    let Some(heir) = heir else {
        return cloud(target, reason::CANNOT_TAKE_OVER);
    };
    // Without a probe a necessity is -1.
    if large(input, settings).any(|necessity| necessity >= 0.0 && necessity >= settings.needed) {
        return cloud(target, reason::NEEDS_TARGET);
    }
    edge(heir, reason::DRAFT_FIRST, settings.latest > 0)
}

impl Policy for ThresholdRouter {
    fn plan(input: &PlanInput) -> Decision {
        let settings = Settings::read(input.params);
        let choice = choose(input, &settings);
        let peer = (choice.row > 0)
            .then(|| input.nodes.get(choice.row as usize))
            .flatten();
        let known = |value: f64| if value.is_finite() { value } else { -1.0 };
        let watch = Watch {
            threshold: settings.threshold,
            calibrated: settings.signal == P_ACCEPT,
            entropy_max: settings.entropy_max,
            window: settings.window,
            latest: settings.latest,
        };
        let row = match choice.route {
            Route::Edge => 0,
            _ => choice.row,
        };
        Decision::Run(Plan {
            patience_ms: match settings.patience_ms {
                patience_ms if patience_ms > 1.0 => patience_ms.min(60_000.0),
                _ => 1.0,
            },
            memo: match choice.watched {
                true => watch.encode(),
                false => Vec::new(),
            },
            reason: choice.reason,
            terms: vec![
                known(peer.map_or(-1.0, |node| node.rtt_ms)),
                known(large(input, &settings).fold(-1.0, f64::max)),
            ],
            ..Plan::plain(choice.route, row)
        })
    }

    fn step(input: &StepInput, memo: &[u8]) -> Action {
        let Some(watch) = Watch::decode(memo) else {
            return Action::Finish;
        };
        match input.event {
            // The target that has taken over is silent, or takes nothing over.
            Event::Overdue | Event::Refused => Action::Finish,
            // The host looks for the target again, and for another that has the very same; it ends that by itself.
            Event::LinkDown | Event::LinkUp | Event::Verdict => Action::Draft,
            // Only where it has taken over, and such a target is looked for, is more than the last draft held back, or was one
            // judged.
            Event::Drafted if input.unsent > 1 || input.judged > 0 => Action::Draft,
            Event::Drafted => match number(input) {
                0 => Action::Draft,
                token if token > watch.latest => Action::Finish,
                _ if watch.is_unsure(input) => Action::Escalate,
                token if token == watch.latest => Action::Finish,
                _ => Action::Draft,
            },
        }
    }
}

/// Which of the answer's tokens was drafted, from 1 on: it is committed only once it was looked at.
fn number(input: &StepInput) -> u32 {
    input.committed.saturating_add(input.unsent)
}

impl Watch {
    /// How much of the threshold holds for the token of this number, in `[0, 1]`.
    fn strictness(&self, token: u32) -> f64 {
        if token <= self.window {
            return 1.0;
        }
        let left = (f64::from(self.latest) + 1.0 - f64::from(token)).max(0.0);
        // 1 or more: the token is in (window, latest].
        left / (f64::from(self.latest) + 1.0 - f64::from(self.window)).max(1.0)
    }

    fn is_unsure(&self, input: &StepInput) -> bool {
        let strictness = self.strictness(number(input));
        let confidence = match self.calibrated {
            true => input.p_accept,
            false => input.top1,
        };
        let entropy_nats = input.entropy_nats;
        confidence.is_nan()
            || entropy_nats.is_nan()
            || confidence < self.threshold * strictness
            || entropy_nats * strictness > self.entropy_max
    }
}

export_policy!(ThresholdRouter);

#[cfg(test)]
mod tests;
