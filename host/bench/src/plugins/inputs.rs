//! What the measured plug-ins are given: a request of the size that the aims name.

use std::sync::Arc;

use msao_core::offload::manifest::Manifest;
use msao_core::offload::{
    BINS, Calibration, Item, Node, Outcome, Part, PlanInput, Report, Request, StepInput,
};

/// Everything that a call may want.
pub struct Inputs {
    /// A request.
    pub request: Request,
    /// Three media and the text.
    pub parts: Vec<Part>,
    /// This node and two peers.
    pub nodes: Vec<Node>,
    /// Four parameters.
    pub params: Vec<f64>,
    /// 64 cells.
    pub calibration: Arc<Calibration>,
    /// A drafted token.
    pub step: StepInput,
    /// 16 bytes, as the measured policy leaves them.
    pub memo: Vec<u8>,
    /// An answered request.
    pub outcome: Outcome,
    /// One image of 1,196 tokens (26 by 46), 8 features each.
    pub report: Arc<Report>,
}

/// Tokens of the report.
pub const TOKENS: u32 = 26 * 46;
/// Features of each.
pub const FEATURES: u32 = 8;

impl Default for Inputs {
    fn default() -> Inputs {
        let part = |modality: u8, tokens: u32| Part {
            modality,
            tokens,
            frames: u32::from(modality != 0),
            width_px: 1280,
            height_px: 720,
            bytes: 200_000.0,
            necessity: 0.7,
            mas: 0.6,
            unusual: 0.1,
            ..Part::default()
        };
        let node = |rtt_ms: f64| Node {
            up: true,
            can: 15,
            uplink_bps: 50e6,
            uplink_sd_bps: 5e6,
            downlink_bps: 100e6,
            rtt_ms,
            jitter_ms: 2.0,
            prefill_tok_per_s: 8000.0,
            draft_tok_per_s: 60.0,
            target_tok_per_s: 30.0,
            verify_ms: 30.0,
            acceptance: 0.8,
            confidence_floor: 2.0,
            ..Node::default()
        };
        let cells = 64u32;
        let wave = |i: u32, over: u32| ((i * 2_654_435_761) % over) as f32 / over as f32;
        let column = |salt: u32| {
            (0..TOKENS)
                .map(|i| wave(i + salt, 997))
                .collect::<Vec<f32>>()
        };
        Inputs {
            request: Request {
                seed: 7,
                now_ms: 1.75e12,
                prompt_tokens: 1500,
                max_tokens: 128,
                ..Request::default()
            },
            parts: vec![part(1, 1196), part(2, 2000), part(3, 150), part(0, 40)],
            nodes: vec![node(0.0), node(20.0), node(50.0)],
            params: vec![0.1, 0.9, 60.0, 1.0],
            calibration: Arc::new(Calibration {
                keys: (0..cells).collect(),
                mean: (0..cells).map(|i| f64::from(wave(i, 101))).collect(),
                variance: vec![0.1; cells as usize],
                count: (0..cells).map(f64::from).collect(),
            }),
            step: StepInput {
                p_accept: 0.8,
                top1: 0.7,
                entropy_nats: 1.0,
                margin: 2.0,
                judged: 10,
                accepted: 8,
                unsent: 2,
                in_flight: 4,
                committed: 12,
                waited_ms: 10.0,
                elapsed_ms: 300.0,
                rtt_ms: 20.0,
                ..StepInput::default()
            },
            memo: vec![7; 16],
            outcome: Outcome {
                route: 3,
                peer: 1,
                ttft_ms: 200.0,
                total_ms: 2000.0,
                tokens: 100,
                rounds: 20,
                drafted: vec![9; BINS],
                accepted: vec![7; BINS],
                memo: vec![7; 16],
                ..Outcome::default()
            },
            report: Arc::new(Report {
                items: vec![Item {
                    modality: 1,
                    tokens: TOKENS,
                    frames: 1,
                    relevance: 1.5,
                }],
                saliency: column(1),
                relevance: column(2),
                baseline: column(3),
                frame: vec![0; TOKENS as usize],
                y: (0..TOKENS).map(|i| i / 46).collect(),
                x: (0..TOKENS).map(|i| i % 46).collect(),
                similarity: vec![2.0; TOKENS as usize],
                dim: FEATURES,
                features: (0..TOKENS * FEATURES).map(|i| wave(i, 1009)).collect(),
            }),
        }
    }
}

impl Inputs {
    /// The arguments of `plan`.
    pub fn plan(&self) -> PlanInput<'_> {
        PlanInput {
            request: &self.request,
            parts: &self.parts,
            nodes: &self.nodes,
            params: &self.params,
            calibration: &self.calibration,
        }
    }
}

/// The manifest of the measured plug-in for `world`, as text.
pub fn manifest_text(world: &str) -> String {
    format!(
        "name = \"bare\"\nversion = \"0.1.0\"\nworld = \"{world}\"\ndescription = \"\"\nstate-schema = 1\n"
    )
}

/// The manifest of the measured plug-in for `world`.
///
/// # Errors
/// None: the text is right.
pub fn manifest(world: &str) -> anyhow::Result<Manifest> {
    Ok(Manifest::parse(&manifest_text(world))?)
}
