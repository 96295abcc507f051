//! How a request runs.

use serde::{Deserialize, Serialize};

/// Bytes of a memo.
pub const MAX_MEMO: usize = 256;

/// Where a request runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// The draft model, here.
    Edge,
    /// The target model, on the peer.
    Cloud,
    /// Both models on the peer.
    CloudDraft,
    /// The edge drafts, the cloud verifies.
    Speculate,
}

/// What may be committed while speculating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Only what the target confirmed.
    Exact,
    /// Also tokens that are probable enough.
    Confident,
}

/// What is done with pixels that the keep order drops, before they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// Sent as they are.
    Send,
    /// Cut off, as far as a rectangle allows.
    Crop,
    /// Painted over in one colour.
    Flatten,
}

/// How one side gets a part. Ranges: `record treatment` in `wit/types.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Treatment {
    /// Share of tokens kept, in `[0, 1]`.
    pub keep: f64,
    /// Factor of width and height, in `(0, 1]`.
    pub scale: f64,
    /// Share of frames or segments kept, in `(0, 1]`.
    pub frames: f64,
    /// JPEG quality, 1 to 100; 0 for the original bytes, or the best where they cannot be had.
    pub quality: u32,
    /// What becomes of the rest.
    pub rest: Rest,
}

impl Treatment {
    /// Everything as it came.
    pub const WHOLE: Treatment = Treatment {
        keep: 1.0,
        scale: 1.0,
        frames: 1.0,
        quality: 0,
        rest: Rest::Send,
    };
}

/// How both sides get a part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PartPlan {
    /// The draft model.
    pub draft: Treatment,
    /// The target model.
    pub target: Treatment,
}

/// How a request runs. Ranges: `record plan` in `wit/types.wit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Plan {
    /// Where.
    pub route: Route,
    /// Row of the peer among the nodes. On [`Route::Edge`] media are brought to it at once, in case the answer is left to it;
    /// 0: they are not.
    pub peer: u32,
    /// What may be committed.
    pub mode: Mode,
    /// Drafted tokens a round at most, 1 to 64.
    pub gamma_max: u32,
    /// Rounds under way at once at most, 1 to 64.
    pub in_flight_max: u32,
    /// After so long without a verdict `step` is told; in `(0, 60000]`.
    pub patience_ms: f64,
    /// One for each part, or none.
    pub parts: Vec<PartPlan>,
    /// At most [`MAX_MEMO`] bytes for `step` and `observe`.
    pub memo: Vec<u8>,
    /// Number of the reason in the manifest.
    pub reason: u32,
    /// Values of the manifest's terms, in its order.
    pub terms: Vec<f64>,
}

impl Plan {
    /// Everything whole by `route`: what the host falls back to, and where tests start from.
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

/// What `plan` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Run it so.
    Run(Plan),
    /// Run the probe, then ask again.
    Probe,
}
