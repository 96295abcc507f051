//! Requests and nodes.

use msao_core::digest::Digest;
use msao_core::offload::{Item, Node, Part, Report, Request, capability, flag, modality};

use super::random::Random;

/// What is true of the world of a request and what no plug-in sees.
#[derive(Clone, Debug)]
pub struct World {
    /// Randomness of what happens after the plan.
    pub random: Random,
    /// Tokens of the answer, if nobody cuts it short.
    pub answer: u32,
    /// How well the draft model guesses, in [0, 1].
    pub ease: f64,
    /// Whether the link breaks while the answer runs, and after how many events.
    pub breaks_after: Option<u32>,
    /// Whether the peer that the policy chooses first refuses, before the first token.
    pub refuses: bool,
}

/// A request as it arrives.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its id.
    pub id: String,
    /// Its session, shared with a few others.
    pub session: String,
    /// Its content's digest.
    pub content: Digest,
    /// What is asked.
    pub request: Request,
    /// Media, then text, without scores.
    pub parts: Vec<Part>,
    /// This node, then its peers.
    pub nodes: Vec<Node>,
    /// What happens.
    pub world: World,
}

/// Makes one request after the other.
#[derive(Clone, Debug)]
pub struct Driver {
    seed: u64,
    next: u64,
    refusals: f64,
    /// The state of the link to each peer drifts from one request to the next.
    links: Vec<Link>,
    now_ms: f64,
}

#[derive(Clone, Debug)]
struct Link {
    uplink_bps: f64,
    rtt_ms: f64,
    queue_ms: f64,
    up: bool,
    cached_bytes: f64,
    acceptance: f64,
}

/// Of all synthetic traffic, 2026-01-01T00:00:00Z.
const BEGIN_MS: f64 = 1_767_225_600_000.0;

impl Driver {
    /// The traffic of a seed: an edge node with two peers.
    pub fn new(seed: u64) -> Driver {
        let mut random = Random::fork(seed, u64::MAX);
        let links = (0..2)
            .map(|_| Link {
                uplink_bps: random.magnitude(2e6, 2e8),
                rtt_ms: random.magnitude(3.0, 120.0),
                queue_ms: random.between(0.0, 30.0),
                up: true,
                cached_bytes: 0.0,
                acceptance: random.between(0.5, 0.9),
            })
            .collect();
        Driver {
            seed,
            next: 0,
            refusals: 0.0,
            links,
            now_ms: BEGIN_MS,
        }
    }

    /// The same traffic, of which a share meets a peer that refuses: the policy is then asked again, without that peer.
    pub fn refusing(self, share: f64) -> Driver {
        Driver {
            refusals: share,
            ..self
        }
    }

    fn drift(&mut self, random: &mut Random) {
        for link in &mut self.links {
            let wander = |value: f64, random: &mut Random, low: f64, high: f64| {
                (value * random.between(0.85, 1.18)).clamp(low, high)
            };
            link.uplink_bps = wander(link.uplink_bps, random, 5e5, 1e9);
            link.rtt_ms = wander(link.rtt_ms, random, 1.0, 400.0);
            link.queue_ms = wander(link.queue_ms + 0.5, random, 0.0, 500.0);
            link.acceptance = wander(link.acceptance, random, 0.2, 0.95);
            link.up = if link.up {
                !random.chance(0.02)
            } else {
                random.chance(0.3)
            };
            link.cached_bytes = if random.chance(0.1) {
                random.magnitude(1e4, 1e6).round()
            } else {
                0.0
            };
        }
    }

    fn nodes(&self, random: &mut Random) -> Vec<Node> {
        let here = Node {
            up: true,
            can: capability::DRAFT | capability::SAME_TOKENIZER,
            uplink_bps: -1.0,
            uplink_sd_bps: -1.0,
            downlink_bps: -1.0,
            rtt_ms: 0.0,
            jitter_ms: 0.0,
            queue_ms: random.between(0.0, 20.0),
            kv_free: f64::from(random.whole(2_000, 60_000)),
            prefill_tok_per_s: 3_000.0,
            draft_tok_per_s: 60.0,
            target_tok_per_s: -1.0,
            verify_ms: -1.0,
            acceptance: -1.0,
            confidence_floor: 1.1,
            ..Node::default()
        };
        let peers = self.links.iter().map(|link| Node {
            up: link.up,
            can: capability::DRAFT
                | capability::TARGET
                | capability::VERIFY
                | capability::SAME_TOKENIZER,
            uplink_bps: link.uplink_bps,
            uplink_sd_bps: link.uplink_bps * 0.15,
            downlink_bps: link.uplink_bps * 2.0,
            rtt_ms: link.rtt_ms,
            jitter_ms: link.rtt_ms * 0.1,
            stalled: if link.uplink_bps < 2e6 { 0.1 } else { 0.0 },
            age_ms: random.between(0.0, 5_000.0),
            queue_ms: link.queue_ms,
            planned_ms: random.between(0.0, 10.0),
            kv_free: f64::from(random.whole(10_000, 400_000)),
            prefill_tok_per_s: 12_000.0,
            draft_tok_per_s: 200.0,
            target_tok_per_s: 35.0,
            verify_ms: 32.0,
            acceptance: link.acceptance,
            price_per_mtok: 0.8,
            cached_bytes: link.cached_bytes,
            confidence_floor: if random.chance(0.3) { 0.9 } else { 1.1 },
        });
        std::iter::once(here).chain(peers).collect()
    }
}

impl Iterator for Driver {
    type Item = Scenario;

    /// Never ends.
    fn next(&mut self) -> Option<Scenario> {
        let number = self.next;
        self.next += 1;
        let mut random = Random::fork(self.seed, number);
        self.now_ms += random.between(5.0, 400.0).round();
        self.drift(&mut random);
        let parts = parts(&mut random);
        let prompt_tokens = parts.iter().map(|part| part.tokens).sum();
        let mut flags = 0;
        for (bit, probability) in [
            (flag::EXACT, 0.2),
            (flag::MEDIA_AT_EDGE, 0.05),
            (flag::LOGPROBS, 0.05),
            (flag::STREAMED, 0.7),
        ] {
            if random.chance(probability) {
                flags |= bit;
            }
        }
        let request = Request {
            seed: random.bits(),
            now_ms: self.now_ms,
            prompt_tokens,
            max_tokens: random.whole(16, 256),
            deadline_ms: if random.chance(0.2) {
                random.between(500.0, 10_000.0).round()
            } else {
                0.0
            },
            temperature: if random.chance(0.5) { 0.0 } else { 0.7 },
            tenant: random.whole(0, 3),
            flags,
        };
        let answer = random.whole(4, 120).min(request.max_tokens);
        let ease = random.between(0.3, 0.98);
        // From a stream of its own: all else stays as it is without refusals.
        let refuses = Random::fork(request.seed, 2).chance(self.refusals);
        let breaks_after = random.chance(0.02).then(|| random.whole(3, 60));
        Some(Scenario {
            id: format!("sim-{}-{number}", self.seed),
            session: format!("session-{}", random.whole(0, 4_000)),
            content: Digest::of(&random.bits().to_le_bytes()),
            nodes: self.nodes(&mut random),
            request,
            parts,
            world: World {
                random,
                answer,
                ease,
                breaks_after,
                refuses,
            },
        })
    }
}

/// A medium by kind: none, some images, a clip, a sound; then all text.
fn parts(random: &mut Random) -> Vec<Part> {
    let unscored = Part {
        necessity: -1.0,
        mas: -1.0,
        unusual: -1.0,
        ..Part::default()
    };
    let mut parts = Vec::new();
    let kind = random.unit();
    if kind < 0.5 {
        for _ in 0..random.whole(1, 2) {
            let (across, down) = (random.whole(4, 18), random.whole(4, 14));
            parts.push(Part {
                modality: modality::IMAGE,
                tokens: across * down,
                frames: 1,
                width_px: across * 28,
                height_px: down * 28,
                bytes: random.magnitude(2e4, 6e5).round(),
                ..unscored.clone()
            });
        }
    } else if kind < 0.65 {
        let (across, down, frames) = (random.whole(4, 8), random.whole(3, 6), random.whole(4, 12));
        parts.push(Part {
            modality: modality::VIDEO,
            tokens: across * down * frames,
            frames,
            width_px: across * 28,
            height_px: down * 28,
            duration_ms: f64::from(frames) * 500.0,
            bytes: random.magnitude(2e5, 4e6).round(),
            ..unscored.clone()
        });
    } else if kind < 0.75 {
        let segments = random.whole(2, 12);
        parts.push(Part {
            modality: modality::AUDIO,
            tokens: segments * 25,
            frames: segments,
            duration_ms: f64::from(segments) * 1000.0,
            bytes: f64::from(segments) * 32_000.0,
            ..unscored.clone()
        });
    }
    let tokens = random.whole(12, 900);
    parts.push(Part {
        modality: modality::TEXT,
        tokens,
        bytes: f64::from(tokens) * 4.0,
        necessity: 1.0,
        mas: 0.0,
        unusual: 0.0,
        ..Part::default()
    });
    parts
}

impl Scenario {
    /// What the probe would see: a few bright blobs on a dull ground, moving a little from frame to frame. None without
    /// media.
    pub fn report(&self) -> Option<Report> {
        const DIM: u32 = 16;
        let media = self
            .parts
            .iter()
            .filter(|part| part.modality != modality::TEXT);
        let mut report = Report {
            dim: DIM,
            ..Report::default()
        };
        let mut random = Random::fork(self.request.seed, 1);
        for part in media {
            report.items.push(Item {
                modality: part.modality,
                tokens: part.tokens,
                frames: part.frames,
                relevance: random.between(0.3, 6.0),
            });
            let frames = part.frames.max(1);
            let per_frame = part.tokens / frames;
            let across = if part.width_px > 0 {
                part.width_px / 28
            } else {
                per_frame
            }
            .max(1);
            let (blob_y, blob_x) = (random.between(0.0, 8.0), random.between(0.0, 12.0));
            let stillness = random.unit();
            for token in 0..part.tokens {
                let (frame, place) = (token / per_frame.max(1), token % per_frame.max(1));
                let (y, x) = (place / across, place % across);
                let away = (f64::from(y) - blob_y).abs() + (f64::from(x) - blob_x).abs();
                let bright = 1.0 / (1.0 + away * away);
                let noise = random.between(0.0, 0.2);
                report.saliency.push((bright * 4.0 + noise) as f32);
                report.relevance.push((bright * 0.02 + noise * 0.01) as f32);
                report.baseline.push((0.002 + noise * 0.005) as f32);
                report.frame.push(frame.min(frames - 1));
                report.y.push(y);
                report.x.push(x);
                let same = if random.chance(stillness) { 0.97 } else { 0.4 };
                report.similarity.push(if frame == 0 { 2.0 } else { same });
                for _ in 0..DIM {
                    report
                        .features
                        .push((bright + random.between(-0.5, 0.5)) as f32);
                }
            }
        }
        (!report.items.is_empty()).then_some(report)
    }
}
