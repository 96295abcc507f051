//! What unit tests are built from: a request, its parts and the nodes, or what the probe saw, a line each.

mod hard;

use alloc::vec::Vec;

pub use self::hard::{hard_probes, noise, vast};
use crate::{
    Calibration, Decision, Item, Node, Part, Plan, PlanInput, Policy, PostProcessor, Report,
    Request, ScoreInput, Scores, capability, modality,
};

/// The arguments of a `plan`, to be filled in step by step. What is not said is plain: a streamed question in text, an edge
/// that has the draft model, links and speeds of a good day.
///
/// ```
/// use msao_plugin::prelude::*;
///
/// let scene = Scene::new()
///     .text(40)
///     .image(1196, 200_000.0)
///     .edge(|edge| edge.draft_tok_per_s = 60.0)
///     .peer(|peer| peer.up = false);
/// assert_eq!(scene.input().parts.len(), 2);
/// assert_eq!(scene.input().peers().count(), 1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// What is asked; `prompt_tokens` is the parts' sum unless it is set.
    pub request: Request,
    /// Media without the text, which [`Scene::input`] wants last.
    parts: Vec<Part>,
    /// This node, then each peer.
    pub nodes: Vec<Node>,
    /// Parameters.
    pub params: Vec<f64>,
    /// What was learned.
    pub calibration: Calibration,
}

impl Scene {
    /// An empty text and no node yet.
    pub fn new() -> Scene {
        let mut scene = Scene::default();
        scene.parts.push(Part::default());
        scene
    }

    /// Changes the request.
    pub fn request(mut self, change: impl FnOnce(&mut Request)) -> Scene {
        change(&mut self.request);
        self
    }

    /// Sets the length of the text.
    pub fn text(mut self, tokens: u32) -> Scene {
        if let Some(text) = self.parts.last_mut() {
            self.request.prompt_tokens += tokens.saturating_sub(text.tokens);
            text.tokens = tokens;
        }
        self
    }

    /// Adds a medium before the text.
    pub fn part(mut self, part: Part) -> Scene {
        self.request.prompt_tokens += part.tokens;
        let text = self.parts.len().saturating_sub(1);
        self.parts.insert(text, part);
        self
    }

    /// Adds a picture of so many tokens and bytes, of which the probe says that all is needed.
    pub fn image(self, tokens: u32, bytes: f64) -> Scene {
        self.part(Part {
            modality: modality::IMAGE,
            tokens,
            frames: 1,
            width_px: 640,
            height_px: 480,
            bytes,
            ..Part::default()
        })
    }

    /// Sets this node. It has the draft model at 100 tokens a second.
    pub fn edge(mut self, change: impl FnOnce(&mut Node)) -> Scene {
        let mut node = Node {
            can: capability::DRAFT | capability::SAME_TOKENIZER,
            queue_ms: 0.0,
            planned_ms: 0.0,
            kv_free: 100_000.0,
            prefill_tok_per_s: 2_000.0,
            draft_tok_per_s: 100.0,
            price_per_mtok: 0.0,
            ..Node::UNKNOWN
        };
        change(&mut node);
        self.nodes.truncate(0);
        self.nodes.push(node);
        self
    }

    /// Adds a peer, after [`Scene::edge`]. It has both models, verifies, and lies 20 ms and 50 Mbit/s away.
    pub fn peer(mut self, change: impl FnOnce(&mut Node)) -> Scene {
        let mut node = Node {
            can: capability::DRAFT
                | capability::TARGET
                | capability::VERIFY
                | capability::SAME_TOKENIZER,
            uplink_bps: 50e6,
            uplink_sd_bps: 5e6,
            downlink_bps: 100e6,
            rtt_ms: 20.0,
            jitter_ms: 2.0,
            stalled: 0.0,
            age_ms: 100.0,
            queue_ms: 0.0,
            planned_ms: 0.0,
            kv_free: 1e6,
            prefill_tok_per_s: 20_000.0,
            draft_tok_per_s: 400.0,
            target_tok_per_s: 40.0,
            verify_ms: 30.0,
            acceptance: 0.8,
            price_per_mtok: 1.0,
            cached_bytes: 0.0,
            ..Node::UNKNOWN
        };
        change(&mut node);
        self.nodes.push(node);
        self
    }

    /// Sets the parameters, in the manifest's order.
    pub fn params(mut self, params: &[f64]) -> Scene {
        self.params = params.to_vec();
        self
    }

    /// Sets what was learned.
    pub fn calibration(mut self, calibration: Calibration) -> Scene {
        self.calibration = calibration;
        self
    }

    /// What `plan` is given.
    pub fn input(&self) -> PlanInput<'_> {
        PlanInput {
            request: &self.request,
            parts: &self.parts,
            nodes: &self.nodes,
            params: &self.params,
            calibration: &self.calibration,
        }
    }

    /// What the policy decides.
    pub fn decide<P: Policy>(&self) -> Decision {
        P::plan(&self.input())
    }

    /// The policy's plan.
    ///
    /// # Panics
    /// If it asks for the probe instead.
    #[allow(clippy::panic, reason = "for unit tests, whose way to fail it is")]
    pub fn plan<P: Policy>(&self) -> Plan {
        match self.decide::<P>() {
            Decision::Run(plan) => plan,
            Decision::Probe => panic!("the policy asks for the probe"),
        }
    }
}

/// The arguments of a `score`, to be filled in step by step. Items are plain: their tokens are alike in every respect, and
/// unlike their predecessors. Change what matters in [`Probe::report`].
#[derive(Clone, Debug)]
pub struct Probe {
    /// What the probe saw.
    pub report: Report,
    /// The request's own randomness.
    pub seed: u64,
    /// What was learned.
    pub calibration: Calibration,
}

impl Probe {
    /// No item yet; `dim` features a token, 1 to 64.
    pub fn new(dim: u32) -> Probe {
        Probe {
            report: Report {
                items: Vec::new(),
                saliency: Vec::new(),
                relevance: Vec::new(),
                baseline: Vec::new(),
                frame: Vec::new(),
                y: Vec::new(),
                x: Vec::new(),
                similarity: Vec::new(),
                dim,
                features: Vec::new(),
            },
            seed: 0,
            calibration: Calibration::default(),
        }
    }

    /// Sets the seed.
    pub fn seed(mut self, seed: u64) -> Probe {
        self.seed = seed;
        self
    }

    /// Adds a picture of `height` rows of `width` tokens.
    pub fn image(self, height: u32, width: u32) -> Probe {
        self.item(modality::IMAGE, 1, height, width)
    }

    /// Adds a clip of so many frames, each of `height` rows of `width` tokens.
    pub fn video(self, frames: u32, height: u32, width: u32) -> Probe {
        self.item(modality::VIDEO, frames, height, width)
    }

    fn item(mut self, modality: u8, frames: u32, height: u32, width: u32) -> Probe {
        let report = &mut self.report;
        report.items.push(Item {
            modality,
            tokens: frames * height * width,
            frames,
            relevance: 1.0,
        });
        for frame in 0..frames {
            for place in 0..height * width {
                report.frame.push(frame);
                report.y.push(place / width);
                report.x.push(place % width);
                report.saliency.push(1.0);
                report.relevance.push(0.01);
                report.baseline.push(0.01);
                report.similarity.push(if frame == 0 { 2.0 } else { 0.0 });
                report
                    .features
                    .extend((0..report.dim).map(|i| if i == 0 { 1.0 } else { 0.0 }));
            }
        }
        self
    }

    /// What the post-processor makes of it.
    pub fn score<P: PostProcessor>(&self, params: &[f64]) -> Scores {
        P::score(&ScoreInput {
            report: &self.report,
            seed: self.seed,
            params,
            calibration: &self.calibration,
        })
    }
}
