//! The arms that can run a request, how long each is thought to take, and which constraints it oversteps.
//!
//! ```text
//! predicted = round trip + wait + upload + prompt / reading speed + answer * time of a token
//! upload    = 8000 * bytes that are not there yet / (uplink * (1 - share in which the link stood still))
//! ```
//!
//! The time of a token by route `cloud-draft` is that of a round of four drafts, `4 * t_draft + t_verify`, divided by
//! what it yields, `1 + a + a^2 + a^3 + a^4` at acceptance `a`. The answer is taken to be as long as it may be; how far
//! off that and all else is gets learned. What is not known costs nothing until it is seen.

use msao_plugin::{Node, PlanInput, Route, capability, flag};

use crate::demand::{Demand, overstep};
use crate::{FAR_OFF, Settings, within};

/// Rows that are arms; a node with more peers knows the first ones alone. Their cells must not be more than a plug-in
/// has.
const MAX_ROWS: u32 = 64;
const ROUTES: u32 = 3;
/// Drafts a round where a peer drafts for itself.
const DRAFTS: u32 = 4;

/// One way to run a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArmId {
    pub(crate) row: u32,
    /// Never `speculate`.
    pub(crate) route: Route,
}

impl ArmId {
    /// The one with the lowest number.
    pub(crate) const FIRST: ArmId = ArmId {
        row: 0,
        route: Route::Edge,
    };

    pub(crate) fn number(self) -> u32 {
        self.row * ROUTES
            + match self.route {
                Route::Edge | Route::Speculate => 0,
                Route::Cloud => 1,
                Route::CloudDraft => 2,
            }
    }

    pub(crate) fn of(number: u32) -> Option<ArmId> {
        let route = match number % ROUTES {
            0 => Route::Edge,
            1 => Route::Cloud,
            _ => Route::CloudDraft,
        };
        let row = number / ROUTES;
        (row < MAX_ROWS).then_some(ArmId { row, route })
    }
}

/// By how much an arm oversteps each constraint, in `[0, 1]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Violation {
    pub(crate) time: f64,
    pub(crate) bandwidth: f64,
    pub(crate) waiting: f64,
    pub(crate) cache: f64,
}

impl Violation {
    pub(crate) fn sum(&self) -> f64 {
        self.time + self.bandwidth + self.waiting + self.cache
    }
}

/// An arm before its rewards are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forecast {
    /// From the nodes' figures.
    pub(crate) predicted_ms: f64,
    /// The same, times how far off such predictions were.
    pub(crate) corrected_ms: f64,
    pub(crate) violation: Violation,
}

/// Goes through what can run the request, arms by rising number: the model is there, its node is up, media that must
/// stay do, and an exact answer is not the draft model's.
pub(crate) fn each_that_can_run(input: &PlanInput, mut add: impl FnMut(ArmId)) {
    let exact = input.request.has(flag::EXACT);
    let here = input.here();
    let mut add = |can: bool, row: u32, route: Route| {
        if can && row < MAX_ROWS {
            add(ArmId { row, route });
        }
    };
    // Here the two models are each for itself, and may read different ids.
    let both_here = capability::DRAFT | capability::TARGET | capability::SAME_TOKENIZER;
    add(!exact && here.is(capability::DRAFT), 0, Route::Edge);
    add(here.is(capability::TARGET), 0, Route::Cloud);
    add(here.is(both_here), 0, Route::CloudDraft);
    if input.bound_here() {
        return;
    }
    for (row, node) in input.peers() {
        if !node.up {
            continue;
        }
        let both = capability::DRAFT | capability::TARGET;
        add(node.is(capability::TARGET), row, Route::Cloud);
        add(node.is(both), row, Route::CloudDraft);
    }
}

/// What is known of a time or a number, 0 where nothing is.
fn known(value: f64) -> f64 {
    if value > 0.0 { value } else { 0.0 }
}

/// Time of `tokens` at a speed, 0 where it is not known.
fn tokens_ms(tokens: f64, tok_per_s: f64) -> f64 {
    if tok_per_s > 0.0 {
        tokens * 1000.0 / tok_per_s
    } else {
        0.0
    }
}

/// Time of a token where a node drafts for itself; that of its target where too little is known.
fn drafted_token_ms(node: &Node) -> f64 {
    let acceptance = node.acceptance;
    if node.draft_tok_per_s > 0.0 && node.verify_ms > 0.0 && (0.0..=1.0).contains(&acceptance) {
        let (mut all_accepted, mut yields) = (1.0, 1.0);
        for _ in 0..DRAFTS {
            all_accepted *= acceptance;
            yields += all_accepted;
        }
        (tokens_ms(f64::from(DRAFTS), node.draft_tok_per_s) + node.verify_ms) / yields
    } else {
        tokens_ms(1.0, node.target_tok_per_s)
    }
}

/// Time to send `bytes` to a node.
fn upload_ms(bytes: f64, node: &Node) -> f64 {
    if bytes <= 0.0 || node.uplink_bps.is_nan() || node.uplink_bps < 0.0 {
        return 0.0;
    }
    let moves = 1.0 - within(node.stalled, 0.0, 1.0);
    // A link that stands still never gets there.
    bytes * 8000.0 / (node.uplink_bps * moves)
}

/// What all arms of a row have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    node: &'a Node,
    /// Until the answer's first token: the way, waits, upload and reading.
    begins_ms: f64,
    /// All but the time.
    violation: Violation,
}

impl<'a> Row<'a> {
    pub(crate) fn of(
        input: &PlanInput<'a>,
        demand: &Demand,
        settings: &Settings,
        row: u32,
    ) -> Row<'a> {
        let node = input.nodes.get(row as usize).unwrap_or(&Node::UNKNOWN);
        let waits_ms = known(node.queue_ms) + known(node.planned_ms);
        let (way_ms, upload_ms) = match row {
            0 => (0.0, 0.0),
            _ => {
                let missing = demand.media_bytes - known(node.cached_bytes);
                (known(node.rtt_ms), upload_ms(missing, node))
            }
        };
        let reads_ms = tokens_ms(demand.prompt_tokens, node.prefill_tok_per_s);
        let goal_ms = demand.goal_ms;
        Row {
            node,
            begins_ms: way_ms + waits_ms + upload_ms + reads_ms,
            violation: Violation {
                time: 0.0,
                bandwidth: overstep(upload_ms, settings.upload_share * goal_ms),
                waiting: overstep(waits_ms, settings.wait_share * goal_ms),
                cache: match node.kv_free {
                    room if room >= 0.0 => overstep(demand.tokens(), room),
                    _ => 0.0,
                },
            },
        }
    }

    /// How the arm by `route` would do. `off`: by what such predictions were off before.
    pub(crate) fn forecast(&self, demand: &Demand, route: Route, off: f64) -> Forecast {
        let node = self.node;
        let token_ms = match route {
            Route::Edge | Route::Speculate => tokens_ms(1.0, node.draft_tok_per_s),
            Route::Cloud => tokens_ms(1.0, node.target_tok_per_s),
            Route::CloudDraft => drafted_token_ms(node),
        };
        let predicted_ms = self.begins_ms + demand.answer_tokens * token_ms;
        let corrected_ms = predicted_ms * within(off, 1.0 / FAR_OFF, FAR_OFF);
        Forecast {
            predicted_ms,
            corrected_ms,
            violation: Violation {
                time: overstep(corrected_ms, demand.goal_ms),
                ..self.violation
            },
        }
    }
}
