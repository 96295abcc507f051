//! The contract's records as wasmtime copies them, and from and to core's.
//!
//! Lists of plain numbers go from core's slices straight into the plug-in's memory. Small tables (parts, nodes, items) are
//! rewritten into rows of these types first.

use msao_core::offload;
use wasmtime::component::{ComponentType, Lift, Lower};

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct Request {
    seed: u64,
    #[component(name = "now-ms")]
    now_ms: f64,
    #[component(name = "prompt-tokens")]
    prompt_tokens: u32,
    #[component(name = "max-tokens")]
    max_tokens: u32,
    #[component(name = "deadline-ms")]
    deadline_ms: f64,
    temperature: f64,
    tenant: u32,
    flags: u32,
}

impl From<&offload::Request> for Request {
    fn from(it: &offload::Request) -> Self {
        Request {
            seed: it.seed,
            now_ms: it.now_ms,
            prompt_tokens: it.prompt_tokens,
            max_tokens: it.max_tokens,
            deadline_ms: it.deadline_ms,
            temperature: it.temperature,
            tenant: it.tenant,
            flags: it.flags,
        }
    }
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct Part {
    modality: u8,
    tokens: u32,
    frames: u32,
    #[component(name = "width-px")]
    width_px: u32,
    #[component(name = "height-px")]
    height_px: u32,
    #[component(name = "duration-ms")]
    duration_ms: f64,
    bytes: f64,
    necessity: f64,
    mas: f64,
    unusual: f64,
}

impl From<&offload::Part> for Part {
    fn from(it: &offload::Part) -> Self {
        Part {
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
        }
    }
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct Node {
    up: bool,
    can: u32,
    #[component(name = "uplink-bps")]
    uplink_bps: f64,
    #[component(name = "uplink-sd-bps")]
    uplink_sd_bps: f64,
    #[component(name = "downlink-bps")]
    downlink_bps: f64,
    #[component(name = "rtt-ms")]
    rtt_ms: f64,
    #[component(name = "jitter-ms")]
    jitter_ms: f64,
    stalled: f64,
    #[component(name = "age-ms")]
    age_ms: f64,
    #[component(name = "queue-ms")]
    queue_ms: f64,
    #[component(name = "planned-ms")]
    planned_ms: f64,
    #[component(name = "kv-free")]
    kv_free: f64,
    #[component(name = "prefill-tok-per-s")]
    prefill_tok_per_s: f64,
    #[component(name = "draft-tok-per-s")]
    draft_tok_per_s: f64,
    #[component(name = "target-tok-per-s")]
    target_tok_per_s: f64,
    #[component(name = "verify-ms")]
    verify_ms: f64,
    acceptance: f64,
    #[component(name = "price-per-mtok")]
    price_per_mtok: f64,
    #[component(name = "cached-bytes")]
    cached_bytes: f64,
    #[component(name = "confidence-floor")]
    confidence_floor: f64,
}

impl From<&offload::Node> for Node {
    fn from(it: &offload::Node) -> Self {
        Node {
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
        }
    }
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct Calibration<'a> {
    keys: &'a [u32],
    mean: &'a [f64],
    variance: &'a [f64],
    count: &'a [f64],
}

impl<'a> From<&'a offload::Calibration> for Calibration<'a> {
    fn from(it: &'a offload::Calibration) -> Self {
        Calibration {
            keys: &it.keys,
            mean: &it.mean,
            variance: &it.variance,
            count: &it.count,
        }
    }
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub enum Operation {
    #[component(name = "sample")]
    Sample,
    #[component(name = "add")]
    Add,
    #[component(name = "clear")]
    Clear,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(record)]
pub struct Update {
    operation: Operation,
    key: u32,
    value: f64,
    weight: f64,
}

impl From<Update> for offload::Update {
    fn from(it: Update) -> Self {
        offload::Update {
            operation: match it.operation {
                Operation::Sample => offload::Operation::Sample,
                Operation::Add => offload::Operation::Add,
                Operation::Clear => offload::Operation::Clear,
            },
            key: it.key,
            value: it.value,
            weight: it.weight,
        }
    }
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub enum Route {
    #[component(name = "edge")]
    Edge,
    #[component(name = "cloud")]
    Cloud,
    #[component(name = "cloud-draft")]
    CloudDraft,
    #[component(name = "speculate")]
    Speculate,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub enum Mode {
    #[component(name = "exact")]
    Exact,
    #[component(name = "confident")]
    Confident,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub enum Rest {
    #[component(name = "send")]
    Send,
    #[component(name = "crop")]
    Crop,
    #[component(name = "flatten")]
    Flatten,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(record)]
pub struct Treatment {
    keep: f64,
    scale: f64,
    frames: f64,
    quality: u32,
    rest: Rest,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(record)]
pub struct PartPlan {
    draft: Treatment,
    target: Treatment,
}

impl From<Treatment> for offload::Treatment {
    fn from(it: Treatment) -> Self {
        offload::Treatment {
            keep: it.keep,
            scale: it.scale,
            frames: it.frames,
            quality: it.quality,
            rest: match it.rest {
                Rest::Send => offload::Rest::Send,
                Rest::Crop => offload::Rest::Crop,
                Rest::Flatten => offload::Rest::Flatten,
            },
        }
    }
}

impl From<&offload::Treatment> for Treatment {
    fn from(it: &offload::Treatment) -> Self {
        Treatment {
            keep: it.keep,
            scale: it.scale,
            frames: it.frames,
            quality: it.quality,
            rest: match it.rest {
                offload::Rest::Send => Rest::Send,
                offload::Rest::Crop => Rest::Crop,
                offload::Rest::Flatten => Rest::Flatten,
            },
        }
    }
}

impl From<PartPlan> for offload::PartPlan {
    fn from(it: PartPlan) -> Self {
        offload::PartPlan {
            draft: it.draft.into(),
            target: it.target.into(),
        }
    }
}

impl From<&offload::PartPlan> for PartPlan {
    fn from(it: &offload::PartPlan) -> Self {
        PartPlan {
            draft: (&it.draft).into(),
            target: (&it.target).into(),
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct Plan {
    route: Route,
    peer: u32,
    mode: Mode,
    #[component(name = "gamma-max")]
    gamma_max: u32,
    #[component(name = "in-flight-max")]
    in_flight_max: u32,
    #[component(name = "patience-ms")]
    patience_ms: f64,
    parts: Vec<PartPlan>,
    memo: Vec<u8>,
    reason: u32,
    terms: Vec<f64>,
}

impl From<Plan> for offload::Plan {
    fn from(it: Plan) -> Self {
        offload::Plan {
            route: match it.route {
                Route::Edge => offload::Route::Edge,
                Route::Cloud => offload::Route::Cloud,
                Route::CloudDraft => offload::Route::CloudDraft,
                Route::Speculate => offload::Route::Speculate,
            },
            peer: it.peer,
            mode: match it.mode {
                Mode::Exact => offload::Mode::Exact,
                Mode::Confident => offload::Mode::Confident,
            },
            gamma_max: it.gamma_max,
            in_flight_max: it.in_flight_max,
            patience_ms: it.patience_ms,
            parts: it.parts.into_iter().map(Into::into).collect(),
            memo: it.memo,
            reason: it.reason,
            terms: it.terms,
        }
    }
}

/// A plan as `explain` is given it.
#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct PlanRef<'a> {
    route: Route,
    peer: u32,
    mode: Mode,
    #[component(name = "gamma-max")]
    gamma_max: u32,
    #[component(name = "in-flight-max")]
    in_flight_max: u32,
    #[component(name = "patience-ms")]
    patience_ms: f64,
    parts: &'a [PartPlan],
    memo: &'a [u8],
    reason: u32,
    terms: &'a [f64],
}

impl<'a> PlanRef<'a> {
    /// `plan` with its parts rewritten.
    pub fn new(plan: &'a offload::Plan, parts: &'a [PartPlan]) -> PlanRef<'a> {
        PlanRef {
            route: match plan.route {
                offload::Route::Edge => Route::Edge,
                offload::Route::Cloud => Route::Cloud,
                offload::Route::CloudDraft => Route::CloudDraft,
                offload::Route::Speculate => Route::Speculate,
            },
            peer: plan.peer,
            mode: match plan.mode {
                offload::Mode::Exact => Mode::Exact,
                offload::Mode::Confident => Mode::Confident,
            },
            gamma_max: plan.gamma_max,
            in_flight_max: plan.in_flight_max,
            patience_ms: plan.patience_ms,
            parts,
            memo: &plan.memo,
            reason: plan.reason,
            terms: &plan.terms,
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub enum Decision {
    #[component(name = "run")]
    Run(Plan),
    #[component(name = "probe")]
    Probe,
}

impl From<Decision> for offload::Decision {
    fn from(it: Decision) -> Self {
        match it {
            Decision::Run(plan) => offload::Decision::Run(plan.into()),
            Decision::Probe => offload::Decision::Probe,
        }
    }
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
// Made by wasmtime alone, which lifts it from the plug-in's answer.
#[allow(dead_code)]
pub enum Action {
    #[component(name = "draft")]
    Draft,
    #[component(name = "send")]
    Send,
    #[component(name = "commit")]
    Commit,
    #[component(name = "wait")]
    Wait,
    #[component(name = "escalate")]
    Escalate,
    #[component(name = "finish")]
    Finish,
}

impl From<Action> for offload::Action {
    fn from(it: Action) -> Self {
        match it {
            Action::Draft => offload::Action::Draft,
            Action::Send => offload::Action::Send,
            Action::Commit => offload::Action::Commit,
            Action::Wait => offload::Action::Wait,
            Action::Escalate => offload::Action::Escalate,
            Action::Finish => offload::Action::Finish,
        }
    }
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct Outcome<'a> {
    route: u8,
    peer: u32,
    status: u8,
    overrides: u32,
    #[component(name = "ttft-ms")]
    ttft_ms: f64,
    #[component(name = "total-ms")]
    total_ms: f64,
    #[component(name = "probe-ms")]
    probe_ms: f64,
    #[component(name = "upload-ms")]
    upload_ms: f64,
    #[component(name = "queue-ms")]
    queue_ms: f64,
    #[component(name = "sent-bytes")]
    sent_bytes: f64,
    #[component(name = "received-bytes")]
    received_bytes: f64,
    #[component(name = "edge-flops")]
    edge_flops: f64,
    #[component(name = "cloud-flops")]
    cloud_flops: f64,
    cost: f64,
    tokens: u32,
    unverified: u32,
    rounds: u32,
    drafted: &'a [u32],
    accepted: &'a [u32],
    parts: &'a [PartPlan],
    memo: &'a [u8],
}

impl<'a> Outcome<'a> {
    /// `outcome` with its parts rewritten.
    pub fn new(it: &'a offload::Outcome, parts: &'a [PartPlan]) -> Outcome<'a> {
        Outcome {
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
            drafted: &it.drafted,
            accepted: &it.accepted,
            parts,
            memo: &it.memo,
        }
    }
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct Item {
    modality: u8,
    tokens: u32,
    frames: u32,
    relevance: f64,
}

impl From<&offload::Item> for Item {
    fn from(it: &offload::Item) -> Self {
        Item {
            modality: it.modality,
            tokens: it.tokens,
            frames: it.frames,
            relevance: it.relevance,
        }
    }
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct Report<'a> {
    items: &'a [Item],
    saliency: &'a [f32],
    relevance: &'a [f32],
    baseline: &'a [f32],
    frame: &'a [u32],
    y: &'a [u32],
    x: &'a [u32],
    similarity: &'a [f32],
    dim: u32,
    features: &'a [f32],
}

impl<'a> Report<'a> {
    /// `report` with its items rewritten.
    pub fn new(it: &'a offload::Report, items: &'a [Item]) -> Report<'a> {
        Report {
            items,
            saliency: &it.saliency,
            relevance: &it.relevance,
            baseline: &it.baseline,
            frame: &it.frame,
            y: &it.y,
            x: &it.x,
            similarity: &it.similarity,
            dim: it.dim,
            features: &it.features,
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct Score {
    necessity: f64,
    mas: f64,
    spatial: f64,
    temporal: f64,
    unusual: f64,
    #[component(name = "keep-order")]
    keep_order: Vec<u32>,
}

impl From<Score> for offload::Score {
    fn from(it: Score) -> Self {
        offload::Score {
            necessity: it.necessity,
            mas: it.mas,
            spatial: it.spatial,
            temporal: it.temporal,
            unusual: it.unusual,
            keep_order: it.keep_order,
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct Scores {
    items: Vec<Score>,
    updates: Vec<Update>,
}

impl From<Scores> for offload::Scores {
    fn from(it: Scores) -> Self {
        offload::Scores {
            items: it.items.into_iter().map(Into::into).collect(),
            updates: it.updates.into_iter().map(Into::into).collect(),
        }
    }
}
