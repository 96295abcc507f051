//! A bare typed call: what wasmtime's own bindings do, with nothing around it.
//!
//! The engine compiles as the sandbox's does (epochs, canonical NaN), so that both run the same machine code; everything
//! else is left out: no pool, no limits, no deadline, no check, answers as they come.

use anyhow::{Context, Result, anyhow};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, Store};

/// World `offload-policy`.
#[allow(missing_docs)]
pub mod policy {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "offload-policy",
    });
}

/// World `explaining-policy`, in the types of the other.
#[allow(missing_docs)]
pub mod explaining {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "explaining-policy",
        with: { "msao:offload/types": super::policy::msao::offload::types },
    });
}

/// World `probe-postprocessor`.
#[allow(missing_docs)]
pub mod postprocessor {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "probe-postprocessor",
    });
}

/// A Store with one instance, and what finds its functions.
pub struct Bare<T> {
    /// The Store.
    pub store: Store<()>,
    /// The bindings.
    pub world: T,
}

fn wasmtime_error(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:#}")
}

fn parts(wasm: &[u8]) -> Result<(Store<()>, Component, Linker<()>)> {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(true);
    let engine = Engine::new(&config).map_err(wasmtime_error)?;
    let component = Component::from_binary(&engine, wasm).map_err(wasmtime_error)?;
    let mut linker = Linker::new(&engine);
    linker
        .define_unknown_imports_as_traps(&component)
        .map_err(wasmtime_error)?;
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(u64::MAX / 2);
    Ok((store, component, linker))
}

/// A policy.
///
/// # Errors
/// It is none.
pub fn policy(wasm: &[u8]) -> Result<Bare<policy::OffloadPolicy>> {
    let (mut store, component, linker) = parts(wasm)?;
    let world = policy::OffloadPolicy::instantiate(&mut store, &component, &linker)
        .map_err(wasmtime_error)
        .context("a bare policy")?;
    Ok(Bare { store, world })
}

/// A policy that explains its plans.
///
/// # Errors
/// It is none.
pub fn explaining(wasm: &[u8]) -> Result<Bare<explaining::ExplainingPolicy>> {
    let (mut store, component, linker) = parts(wasm)?;
    let world = explaining::ExplainingPolicy::instantiate(&mut store, &component, &linker)
        .map_err(wasmtime_error)
        .context("a bare policy that explains")?;
    Ok(Bare { store, world })
}

/// A post-processor.
///
/// # Errors
/// It is none.
pub fn postprocessor(wasm: &[u8]) -> Result<Bare<postprocessor::ProbePostprocessor>> {
    let (mut store, component, linker) = parts(wasm)?;
    let world = postprocessor::ProbePostprocessor::instantiate(&mut store, &component, &linker)
        .map_err(wasmtime_error)
        .context("a bare post-processor")?;
    Ok(Bare { store, world })
}

/// Calls by the words of core.
pub mod calls {
    use std::hint::black_box;

    use anyhow::Result;

    use super::{Bare, explaining, policy, postprocessor, wasmtime_error};
    use crate::plugins::inputs::Inputs;

    use policy::exports::msao::offload::policy as p;
    use policy::msao::offload::types as pt;
    use postprocessor::exports::msao::offload::postprocessor as s;
    use postprocessor::msao::offload::types as st;

    /// The arguments of a policy's calls in the bindings' own types, made once: a bare call does not convert.
    pub struct PolicyArgs<'a> {
        inputs: &'a Inputs,
        request: p::Request,
        parts: Vec<p::Part>,
        nodes: Vec<p::Node>,
        calibration: pt::Calibration,
        outcome: p::Outcome,
    }

    impl<'a> PolicyArgs<'a> {
        /// Converts.
        pub fn new(inputs: &'a Inputs) -> PolicyArgs<'a> {
            let r = &inputs.request;
            PolicyArgs {
                inputs,
                request: p::Request {
                    seed: r.seed,
                    now_ms: r.now_ms,
                    prompt_tokens: r.prompt_tokens,
                    max_tokens: r.max_tokens,
                    deadline_ms: r.deadline_ms,
                    temperature: r.temperature,
                    tenant: r.tenant,
                    flags: r.flags,
                },
                parts: (inputs.parts.iter())
                    .map(|it| p::Part {
                        modality: it.modality,
                        tokens: it.tokens,
                        frames: it.frames,
                        width_px: it.width_px,
                        height_px: it.height_px,
                        duration_ms: it.duration_ms,
                        bytes: it.bytes,
                        necessity: it.necessity,
                        mas: it.mas,
                        unusual: it.unusual,
                    })
                    .collect(),
                nodes: (inputs.nodes.iter())
                    .map(|it| p::Node {
                        up: it.up,
                        can: it.can,
                        uplink_bps: it.uplink_bps,
                        uplink_sd_bps: it.uplink_sd_bps,
                        downlink_bps: it.downlink_bps,
                        rtt_ms: it.rtt_ms,
                        jitter_ms: it.jitter_ms,
                        stalled: it.stalled,
                        age_ms: it.age_ms,
                        queue_ms: it.queue_ms,
                        planned_ms: it.planned_ms,
                        kv_free: it.kv_free,
                        prefill_tok_per_s: it.prefill_tok_per_s,
                        draft_tok_per_s: it.draft_tok_per_s,
                        target_tok_per_s: it.target_tok_per_s,
                        verify_ms: it.verify_ms,
                        acceptance: it.acceptance,
                        price_per_mtok: it.price_per_mtok,
                        cached_bytes: it.cached_bytes,
                        confidence_floor: it.confidence_floor,
                    })
                    .collect(),
                calibration: pt::Calibration {
                    keys: inputs.calibration.keys.clone(),
                    mean: inputs.calibration.mean.clone(),
                    variance: inputs.calibration.variance.clone(),
                    count: inputs.calibration.count.clone(),
                },
                outcome: outcome(inputs),
            }
        }
    }

    fn outcome(inputs: &Inputs) -> p::Outcome {
        let it = &inputs.outcome;
        p::Outcome {
            route: it.route,
            peer: it.peer,
            status: it.status,
            overrides: it.overrides,
            ttft_ms: it.ttft_ms,
            total_ms: it.total_ms,
            probe_ms: it.probe_ms,
            upload_ms: it.upload_ms,
            queue_ms: it.queue_ms,
            sent_bytes: it.sent_bytes,
            received_bytes: it.received_bytes,
            edge_flops: it.edge_flops,
            cloud_flops: it.cloud_flops,
            cost: it.cost,
            tokens: it.tokens,
            unverified: it.unverified,
            rounds: it.rounds,
            drafted: it.drafted.clone(),
            accepted: it.accepted.clone(),
            parts: Vec::new(),
            memo: it.memo.clone(),
        }
    }

    /// `plan`.
    ///
    /// # Errors
    /// The call traps.
    pub fn plan(bare: &mut Bare<policy::OffloadPolicy>, args: &PolicyArgs) -> Result<()> {
        let decision = bare
            .world
            .msao_offload_policy()
            .call_plan(
                &mut bare.store,
                args.request,
                &args.parts,
                &args.nodes,
                &args.inputs.params,
                &args.calibration,
            )
            .map_err(wasmtime_error)?;
        black_box(decision);
        Ok(())
    }

    /// `explain` of a plan that keeps everything.
    ///
    /// # Errors
    /// The call traps.
    pub fn explain(bare: &mut Bare<explaining::ExplainingPolicy>, args: &PolicyArgs) -> Result<()> {
        let plan = pt::Plan {
            route: pt::Route::Edge,
            peer: 0,
            mode: pt::Mode::Exact,
            gamma_max: 4,
            in_flight_max: 1,
            patience_ms: 1000.0,
            parts: Vec::new(),
            memo: Vec::new(),
            reason: 0,
            terms: Vec::new(),
        };
        let words = bare
            .world
            .msao_offload_explanation()
            .call_explain(
                &mut bare.store,
                args.request,
                &args.parts,
                &args.nodes,
                &args.inputs.params,
                &args.calibration,
                &plan,
            )
            .map_err(wasmtime_error)?;
        black_box(words);
        Ok(())
    }

    /// `step`.
    ///
    /// # Errors
    /// The call traps.
    pub fn step(bare: &mut Bare<policy::OffloadPolicy>, args: &PolicyArgs) -> Result<()> {
        let it = &args.inputs.step;
        let action = bare
            .world
            .msao_offload_policy()
            .call_step(
                &mut bare.store,
                it.kind,
                it.p_accept,
                it.top1,
                it.entropy_nats,
                it.margin,
                it.judged,
                it.accepted,
                it.unsent,
                it.in_flight,
                it.committed,
                it.waited_ms,
                it.elapsed_ms,
                it.rtt_ms,
                it.queue_ms,
                &args.inputs.memo,
            )
            .map_err(wasmtime_error)?;
        black_box(action);
        Ok(())
    }

    /// `observe`.
    ///
    /// # Errors
    /// The call traps.
    pub fn observe(bare: &mut Bare<policy::OffloadPolicy>, args: &PolicyArgs) -> Result<()> {
        let updates = bare
            .world
            .msao_offload_policy()
            .call_observe(
                &mut bare.store,
                &args.outcome,
                &args.inputs.params,
                &args.calibration,
            )
            .map_err(wasmtime_error)?;
        black_box(updates);
        Ok(())
    }

    /// The arguments of `score` in the bindings' own types, made once.
    pub struct ScoreArgs {
        report: s::Report,
        calibration: s::Calibration,
        params: Vec<f64>,
    }

    impl ScoreArgs {
        /// Converts.
        pub fn new(inputs: &Inputs) -> ScoreArgs {
            let it = &inputs.report;
            ScoreArgs {
                report: s::Report {
                    items: (it.items.iter())
                        .map(|it| st::Item {
                            modality: it.modality,
                            tokens: it.tokens,
                            frames: it.frames,
                            relevance: it.relevance,
                        })
                        .collect(),
                    saliency: it.saliency.clone(),
                    relevance: it.relevance.clone(),
                    baseline: it.baseline.clone(),
                    frame: it.frame.clone(),
                    y: it.y.clone(),
                    x: it.x.clone(),
                    similarity: it.similarity.clone(),
                    dim: it.dim,
                    features: it.features.clone(),
                },
                calibration: s::Calibration {
                    keys: inputs.calibration.keys.clone(),
                    mean: inputs.calibration.mean.clone(),
                    variance: inputs.calibration.variance.clone(),
                    count: inputs.calibration.count.clone(),
                },
                params: inputs.params.clone(),
            }
        }
    }

    /// `score`.
    ///
    /// # Errors
    /// The call traps.
    pub fn score(
        bare: &mut Bare<postprocessor::ProbePostprocessor>,
        args: &ScoreArgs,
    ) -> Result<()> {
        let scores = bare
            .world
            .msao_offload_postprocessor()
            .call_score(
                &mut bare.store,
                &args.report,
                7,
                &args.params,
                &args.calibration,
            )
            .map_err(wasmtime_error)?;
        black_box(scores);
        Ok(())
    }
}
