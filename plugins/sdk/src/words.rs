//! Names for the contract's numbers, and starting points for its records.

use alloc::vec::Vec;

use crate::{
    Calibration, Mode, Node, Outcome, Part, PartPlan, Plan, Request, Rest, Route, Treatment,
};

/// Numbers of [`Part::modality`] and of an item's.
pub mod modality {
    /// All text of a request together.
    pub const TEXT: u8 = 0;
    /// A picture.
    pub const IMAGE: u8 = 1;
    /// A clip.
    pub const VIDEO: u8 = 2;
    /// A sound.
    pub const AUDIO: u8 = 3;
}

/// Bits of [`Request::flags`].
pub mod flag {
    /// Only exact answers.
    pub const EXACT: u32 = 1;
    /// Media must not leave the edge.
    pub const MEDIA_AT_EDGE: u32 = 2;
    /// Log-probabilities are asked for.
    pub const LOGPROBS: u32 = 4;
    /// The answer is streamed.
    pub const STREAMED: u32 = 8;
    /// The probe has run.
    pub const PROBED: u32 = 16;
}

/// Bits of [`Node::can`].
pub mod capability {
    /// Has the draft model.
    pub const DRAFT: u32 = 1;
    /// Has the target model.
    pub const TARGET: u32 = 2;
    /// Verifies drafts.
    pub const VERIFY: u32 = 4;
    /// Shares this node's tokenizer.
    pub const SAME_TOKENIZER: u32 = 8;
}

/// Numbers of [`Outcome::status`]. Take others for [`status::FAILED`].
pub mod status {
    /// Answered.
    pub const ANSWERED: u8 = 0;
    /// Answered without the peer, which was lost.
    pub const DEGRADED: u8 = 1;
    /// Cancelled by the client.
    pub const CANCELLED: u8 = 2;
    /// Refused.
    pub const REFUSED: u8 = 3;
    /// Failed.
    pub const FAILED: u8 = 4;
}

/// Bits of [`Outcome::overrides`].
pub mod overrides {
    /// Another route than planned.
    pub const ROUTE: u32 = 1;
    /// Exact instead of confident.
    pub const EXACT: u32 = 2;
    /// Media kept at the edge.
    pub const MEDIA: u32 = 4;
    /// Another retention than planned, or media that were to be made smaller went as they came.
    pub const RETENTION: u32 = 8;
    /// Another peer than planned.
    pub const PEER: u32 = 16;
    /// An answer was refused and a fallback ran.
    pub const FALLBACK: u32 = 32;
}

/// Bins of acceptance probability in [`Outcome::drafted`] and [`Outcome::accepted`].
pub const BINS: usize = 16;

impl Treatment {
    /// Everything as it came.
    pub const WHOLE: Treatment = Treatment {
        keep: 1.0,
        scale: 1.0,
        frames: 1.0,
        quality: 0,
        rest: Rest::Send,
    };

    /// Nothing of it.
    pub const DROPPED: Treatment = Treatment {
        keep: 0.0,
        ..Treatment::WHOLE
    };

    /// The `keep` most needed of its tokens, a share in `[0, 1]`; bytes as they came.
    pub const fn keeping(keep: f64) -> Treatment {
        Treatment {
            keep,
            ..Treatment::WHOLE
        }
    }
}

impl PartPlan {
    /// Everything as it came, for both sides.
    pub const WHOLE: PartPlan = PartPlan {
        draft: Treatment::WHOLE,
        target: Treatment::WHOLE,
    };
}

impl Plan {
    /// Everything whole and exact by `route`: four drafts a round, one round under way, a second of patience.
    ///
    /// ```
    /// use msao_plugin::{Plan, Route};
    ///
    /// let plan = Plan {
    ///     gamma_max: 8,
    ///     ..Plan::plain(Route::Speculate, 1)
    /// };
    /// assert_eq!(plan.in_flight_max, 1);
    /// ```
    pub fn plain(route: Route, peer: u32) -> Plan {
        Plan {
            route,
            peer,
            mode: Mode::Exact,
            gamma_max: 4,
            in_flight_max: 1,
            patience_ms: 1000.0,
            parts: Vec::new(),
            memo: Vec::new(),
            reason: 0,
            terms: Vec::new(),
        }
    }
}

impl Request {
    /// Whether all bits of `flags` ([`flag`]) are set.
    pub fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}

impl Node {
    /// A node that answers and of which nothing else is known.
    pub const UNKNOWN: Node = Node {
        up: true,
        can: 0,
        uplink_bps: -1.0,
        uplink_sd_bps: -1.0,
        downlink_bps: -1.0,
        rtt_ms: -1.0,
        jitter_ms: -1.0,
        stalled: -1.0,
        age_ms: -1.0,
        queue_ms: -1.0,
        planned_ms: -1.0,
        kv_free: -1.0,
        prefill_tok_per_s: -1.0,
        draft_tok_per_s: -1.0,
        target_tok_per_s: -1.0,
        verify_ms: -1.0,
        acceptance: -1.0,
        price_per_mtok: -1.0,
        cached_bytes: -1.0,
        confidence_floor: 2.0,
    };

    /// Whether it has all of these capabilities ([`capability`]).
    pub fn is(&self, capabilities: u32) -> bool {
        self.can & capabilities == capabilities
    }
}

impl Part {
    /// Whether it is something other than text.
    pub fn is_media(&self) -> bool {
        self.modality != modality::TEXT
    }
}

impl Default for Request {
    fn default() -> Self {
        Request {
            seed: 0,
            now_ms: 0.0,
            prompt_tokens: 0,
            max_tokens: 128,
            deadline_ms: 0.0,
            temperature: 0.0,
            tenant: 0,
            flags: 0,
        }
    }
}

impl Default for Part {
    /// An empty text.
    fn default() -> Self {
        Part {
            modality: modality::TEXT,
            tokens: 0,
            frames: 0,
            width_px: 0,
            height_px: 0,
            duration_ms: 0.0,
            bytes: 0.0,
            necessity: 1.0,
            mas: 0.0,
            unusual: 0.0,
        }
    }
}

#[allow(clippy::derivable_impls, reason = "the type is generated")]
impl Default for Calibration {
    fn default() -> Self {
        Calibration {
            keys: Vec::new(),
            mean: Vec::new(),
            variance: Vec::new(),
            count: Vec::new(),
        }
    }
}

impl Default for Outcome {
    /// A request that was answered at once on the edge, without a single token.
    fn default() -> Self {
        Outcome {
            route: 0,
            peer: 0,
            status: status::ANSWERED,
            overrides: 0,
            ttft_ms: -1.0,
            total_ms: -1.0,
            probe_ms: 0.0,
            upload_ms: 0.0,
            queue_ms: 0.0,
            sent_bytes: 0.0,
            received_bytes: 0.0,
            edge_flops: 0.0,
            cloud_flops: 0.0,
            cost: 0.0,
            tokens: 0,
            unverified: 0,
            rounds: 0,
            drafted: alloc::vec![0; BINS],
            accepted: alloc::vec![0; BINS],
            parts: Vec::new(),
            memo: Vec::new(),
        }
    }
}
