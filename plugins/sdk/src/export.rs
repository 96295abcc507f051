//! The macros that make a component of a type.

/// Exports a [`Policy`](crate::Policy): the world `offload-policy`, or `explaining-policy` where the type also is
/// [`Explain`](crate::Explain) and the macro is told so: `export_policy!(MyPolicy, explain)`. Once a crate.
#[macro_export]
macro_rules! export_policy {
    ($policy:ident, explain) => {
        $crate::export_policy!($policy);

        const _: () = {
            struct Words;

            impl $crate::__private::Explanation for Words {
                fn explain(
                    request: $crate::Request,
                    parts: $crate::__private::Vec<$crate::Part>,
                    nodes: $crate::__private::Vec<$crate::Node>,
                    params: $crate::__private::Vec<f64>,
                    calibration: $crate::Calibration,
                    plan: $crate::Plan,
                ) -> $crate::__private::String {
                    let input = $crate::PlanInput {
                        request: &request,
                        parts: &parts,
                        nodes: &nodes,
                        params: &params,
                        calibration: &calibration,
                    };
                    <$policy as $crate::Explain>::explain(&input, &plan)
                }
            }

            #[cfg(target_arch = "wasm32")]
            $crate::bindings::explanation::export_explanation!(Words);
        };
    };
    ($policy:ident) => {
        const _: () = {
            struct Component;

            impl $crate::__private::OffloadPolicy for Component {
                fn plan(
                    request: $crate::Request,
                    parts: $crate::__private::Vec<$crate::Part>,
                    nodes: $crate::__private::Vec<$crate::Node>,
                    params: $crate::__private::Vec<f64>,
                    calibration: $crate::Calibration,
                ) -> $crate::Decision {
                    <$policy as $crate::Policy>::plan(&$crate::PlanInput {
                        request: &request,
                        parts: &parts,
                        nodes: &nodes,
                        params: &params,
                        calibration: &calibration,
                    })
                }

                fn step(
                    kind: u32,
                    p_accept: f64,
                    top1: f64,
                    entropy_nats: f64,
                    margin: f64,
                    judged: u32,
                    accepted: u32,
                    unsent: u32,
                    in_flight: u32,
                    committed: u32,
                    waited_ms: f64,
                    elapsed_ms: f64,
                    rtt_ms: f64,
                    queue_ms: f64,
                    memo: $crate::__private::Vec<u8>,
                ) -> $crate::Action {
                    let input = $crate::StepInput {
                        event: $crate::Event::of(kind),
                        p_accept,
                        top1,
                        entropy_nats,
                        margin,
                        judged,
                        accepted,
                        unsent,
                        in_flight,
                        committed,
                        waited_ms,
                        elapsed_ms,
                        rtt_ms,
                        queue_ms,
                    };
                    <$policy as $crate::Policy>::step(&input, &memo)
                }

                fn observe(
                    outcome: $crate::Outcome,
                    params: $crate::__private::Vec<f64>,
                    calibration: $crate::Calibration,
                ) -> $crate::__private::Vec<$crate::Update> {
                    <$policy as $crate::Policy>::observe(&outcome, &params, &calibration)
                }
            }

            #[cfg(target_arch = "wasm32")]
            $crate::bindings::offload_policy::export_offload_policy!(Component);
        };
    };
}

/// Exports a [`PostProcessor`](crate::PostProcessor): the world `probe-postprocessor`. Once a crate.
#[macro_export]
macro_rules! export_postprocessor {
    ($postprocessor:ident) => {
        const _: () = {
            struct Component;

            impl $crate::__private::ProbePostprocessor for Component {
                fn score(
                    report: $crate::Report,
                    seed: u64,
                    params: $crate::__private::Vec<f64>,
                    calibration: $crate::Calibration,
                ) -> $crate::Scores {
                    <$postprocessor as $crate::PostProcessor>::score(&$crate::ScoreInput {
                        report: &report,
                        seed,
                        params: &params,
                        calibration: &calibration,
                    })
                }
            }

            #[cfg(target_arch = "wasm32")]
            $crate::bindings::probe_postprocessor::export_probe_postprocessor!(Component);
        };
    };
}
