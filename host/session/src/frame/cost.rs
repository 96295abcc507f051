//! COST: what a session has cost the node that has the target.

use serde::{Deserialize, Serialize};

use super::control::duration;
use super::wire::must;
use super::{FrameError, Kind, SessionId};

/// What a session has cost so far, where the OPEN asked for it ([`super::Open::cost`]). It comes ahead of the first verdict
/// of a stream, ahead of the one that ends the answer, and now and then between.
///
/// All are sums since the account began, so that one that is lost or comes twice does no harm: of each sum the largest counts.
/// A session that was taken up again where nothing of it was left has another account; what it cost is the sum of all its
/// accounts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The session.
    pub session: SessionId,
    /// Names what is summed up; drawn at random where it begins.
    pub account: u64,
    /// Floating-point operations of the target, a multiply and an add being two.
    pub target_flops: u64,
    /// Likewise, of the draft model beside it.
    #[serde(default)]
    pub draft_flops: u64,
    /// Tokens of the prompt that the target did not read, because an earlier prompt that begins alike had been read.
    #[serde(default)]
    pub cached_tokens: u32,
    /// Bytes of keys and values that were held for it, times the seconds for which they were; of both models.
    #[serde(default)]
    pub cache_byte_seconds: f64,
    /// Time in which either model computed for it, in ms.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub busy_ms: f64,
    /// Most bytes of intermediate results that one of them held for it at once.
    #[serde(default, skip_serializing_if = "is_none")]
    pub activation_bytes: u64,
}

/// What is not counted is not told, as before it could be.
fn is_nothing(value: &f64) -> bool {
    *value == 0.0
}

fn is_none(value: &u64) -> bool {
    *value == 0
}

impl Cost {
    pub(super) fn check(&self) -> Result<(), FrameError> {
        must(
            Kind::Cost,
            "cache_byte_seconds",
            "finite and not negative",
            duration(self.cache_byte_seconds),
        )?;
        must(
            Kind::Cost,
            "busy_ms",
            "finite and not negative",
            duration(self.busy_ms),
        )
    }
}
