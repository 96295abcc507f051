//! Plug-ins of the plainest kind, for measuring what a call costs.

// Each build has what it uses.
#[cfg(feature = "policy")]
mod decide;
#[cfg(feature = "postprocessor")]
mod judge;

#[cfg(feature = "policy")]
mod policy {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "offload-policy",
        generate_all,
    });

    use exports::msao::offload::policy::{
        Action, Calibration, Decision, Guest, Node, Outcome, Part, Request, Update,
    };
    use msao::offload::types::{Mode, Operation, PartPlan, Plan, Rest, Route, Treatment};

    use crate::decide;

    struct Bare;

    /// Tells one build from the other.
    const MEMO: u8 = if cfg!(feature = "other") { 8 } else { 7 };

    /// Fails on a memo of the other build: no request may meet two.
    fn own(memo: &[u8]) {
        const OTHER: u8 = 15 - MEMO;
        if memo.first() == Some(&OTHER) {
            core::arch::wasm32::unreachable();
        }
    }

    impl Guest for Bare {
        fn plan(
            request: Request,
            parts: Vec<Part>,
            nodes: Vec<Node>,
            params: Vec<f64>,
            calibration: Calibration,
        ) -> Decision {
            let bytes: f64 = parts.iter().map(|part| part.bytes).sum();
            let mut best = (f64::INFINITY, 0);
            for (i, node) in nodes.iter().enumerate() {
                let cost = decide::cost_ms(
                    node.rtt_ms,
                    node.queue_ms,
                    node.uplink_bps,
                    node.prefill_tok_per_s,
                    node.target_tok_per_s,
                    bytes,
                    f64::from(request.prompt_tokens),
                    f64::from(request.max_tokens),
                );
                if node.up && i > 0 && cost < best.0 {
                    best = (cost, i as u32);
                }
            }
            let learned = decide::learned(&calibration.mean, &calibration.count);
            let least = params.first().copied().unwrap_or(0.1);
            let parts = parts.iter().map(|part| {
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
            let plan = Plan {
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
                memo: vec![MEMO; 16],
                reason: 0,
                terms: Vec::new(),
            };
            Decision::Run(plan)
        }

        fn step(
            _kind: u32,
            p_accept: f64,
            _top1: f64,
            _entropy_nats: f64,
            _margin: f64,
            _judged: u32,
            _accepted: u32,
            unsent: u32,
            in_flight: u32,
            _committed: u32,
            _waited_ms: f64,
            _elapsed_ms: f64,
            _rtt_ms: f64,
            _queue_ms: f64,
            memo: Vec<u8>,
        ) -> Action {
            own(&memo);
            if decide::act(p_accept, unsent, in_flight) == 0 {
                Action::Draft
            } else {
                Action::Send
            }
        }

        fn observe(outcome: Outcome, _params: Vec<f64>, calibration: Calibration) -> Vec<Update> {
            own(&outcome.memo);
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
    }

    export!(Bare);
}

#[cfg(feature = "postprocessor")]
mod postprocessor {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "probe-postprocessor",
        generate_all,
    });

    use exports::msao::offload::postprocessor::{Calibration, Guest, Report, Scores};
    use msao::offload::types::Score;

    use crate::judge;

    struct Bare;

    impl Guest for Bare {
        fn score(
            report: Report,
            _seed: u64,
            _params: Vec<f64>,
            _calibration: Calibration,
        ) -> Scores {
            let dim = report.dim as usize;
            let mut from = 0;
            let items = report.items.iter().map(|item| {
                let to = from + item.tokens as usize;
                let tokens = from..to;
                from = to;
                let spatial = judge::sparsity(&report.saliency[tokens.clone()]);
                let temporal = judge::repeated(&report.similarity[tokens.clone()], 0.9);
                let features = &report.features[tokens.start * dim..tokens.end * dim];
                let spread = judge::spread(features, dim);
                Score {
                    necessity: (item.relevance / (1.0 + item.relevance)).clamp(0.0, 1.0),
                    mas: 1.0 - (1.0 - spatial) * (1.0 - temporal),
                    spatial,
                    temporal,
                    unusual: 0.0,
                    keep_order: judge::order(
                        &report.relevance[tokens.clone()],
                        &report.baseline[tokens],
                        &spread,
                    ),
                }
            });
            Scores {
                items: items.collect(),
                updates: Vec::new(),
            }
        }
    }

    export!(Bare);
}
