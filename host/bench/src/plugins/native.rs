//! What the measured plug-ins do, as plain Rust: the same arithmetic on the same values.

use msao_core::offload::{
    Action, Calibration, Decision, Mode, Operation, Outcome, PartPlan, Plan, PlanInput, Report,
    Rest, Route, Score, Scores, StepInput, Treatment, Update,
};

#[path = "../../guests/src/decide.rs"]
// The same file is compiled into the guest, which has no such lints.
#[allow(clippy::too_many_arguments, missing_docs, unreachable_pub)]
mod decide;
#[path = "../../guests/src/judge.rs"]
// As above.
#[allow(clippy::indexing_slicing, missing_docs, unreachable_pub)]
mod judge;

/// `plan`.
pub fn plan(input: PlanInput) -> Decision {
    let bytes: f64 = input.parts.iter().map(|part| part.bytes).sum();
    let mut best = (f64::INFINITY, 0);
    for (i, node) in input.nodes.iter().enumerate() {
        let cost = decide::cost_ms(
            node.rtt_ms,
            node.queue_ms,
            node.uplink_bps,
            node.prefill_tok_per_s,
            node.target_tok_per_s,
            bytes,
            f64::from(input.request.prompt_tokens),
            f64::from(input.request.max_tokens),
        );
        if node.up && i > 0 && cost < best.0 {
            best = (cost, i as u32);
        }
    }
    let learned = decide::learned(&input.calibration.mean, &input.calibration.count);
    let least = input.params.first().copied().unwrap_or(0.1);
    let parts = input.parts.iter().map(|part| {
        let keep = if part.modality == 0 {
            1.0
        } else {
            decide::keep(part.necessity, part.mas, least)
        };
        let treatment = Treatment {
            keep,
            scale: 1.0,
            frames: 1.0,
            quality: 0,
            rest: Rest::Send,
        };
        PartPlan {
            draft: treatment,
            target: treatment,
        }
    });
    Decision::Run(Plan {
        route: if best.1 == 0 {
            Route::Edge
        } else {
            Route::Speculate
        },
        peer: best.1,
        mode: Mode::Exact,
        gamma_max: 1 + (8.0 * learned.clamp(0.0, 1.0)) as u32,
        in_flight_max: 4,
        patience_ms: 500.0,
        parts: parts.collect(),
        memo: vec![7; 16],
        reason: 0,
        terms: Vec::new(),
    })
}

/// `step`.
pub fn step(input: &StepInput) -> Action {
    if decide::act(input.p_accept, input.unsent, input.in_flight) == 0 {
        Action::Draft
    } else {
        Action::Send
    }
}

/// `observe`.
pub fn observe(outcome: &Outcome, calibration: &Calibration) -> Vec<Update> {
    let learned = decide::learned(&calibration.mean, &calibration.count);
    let bins = outcome.drafted.iter().zip(&outcome.accepted).enumerate();
    let seen = bins.filter(|(_, (drafted, _))| **drafted > 0);
    seen.map(|(bin, (drafted, accepted))| Update {
        operation: Operation::Sample,
        key: bin as u32,
        value: f64::from(*accepted) / f64::from(*drafted) + 0.0 * learned,
        weight: 0.1,
    })
    .collect()
}

/// `score`.
pub fn score(report: &Report) -> Scores {
    let dim = report.dim as usize;
    let mut from = 0;
    let items = report.items.iter().map(|item| {
        let tokens = from..from + item.tokens as usize;
        let of = |column: &'_ [f32]| column.get(tokens.clone()).unwrap_or_default().to_vec();
        let spatial = judge::sparsity(&of(&report.saliency));
        let temporal = judge::repeated(&of(&report.similarity), 0.9);
        let features = report.features.get(tokens.start * dim..tokens.end * dim);
        let spread = judge::spread(features.unwrap_or_default(), dim);
        let keep_order = judge::order(&of(&report.relevance), &of(&report.baseline), &spread);
        from = tokens.end;
        Score {
            necessity: (item.relevance / (1.0 + item.relevance)).clamp(0.0, 1.0),
            mas: 1.0 - (1.0 - spatial) * (1.0 - temporal),
            spatial,
            temporal,
            unusual: 0.0,
            keep_order,
        }
    });
    Scores {
        items: items.collect(),
        updates: Vec::new(),
    }
}
