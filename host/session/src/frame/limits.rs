//! How large anything on the wire may be, and which versions of it are spoken.
//!
//! A frame is refused by its header, before its payload is taken in.

use super::Kind;

/// The newest version of the protocol that this code speaks.
pub const NEWEST: u8 = 1;

/// The oldest: the one before the newest, where there is one.
pub const OLDEST: u8 = 1;

/// Bytes of a frame's header: payload length (`u32`, little-endian), version, kind.
pub const HEADER_BYTES: usize = 6;

/// Most ids that a draft proposes. A plan's `gamma_max` is at most this.
pub const MAX_PROPOSED: usize = 64;

/// Most ids that a draft forces.
pub const MAX_FORCED: usize = 1024;

/// Most ids that a verdict commits, accepted and next together.
pub const MAX_VERDICT_IDS: usize = 512;

/// Most alternatives that a verdict tells at one place. OpenAI's limit of `top_logprobs`.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// Most tokens of an answer, hence most ids that an OPEN takes up again.
pub const MAX_ANSWER: usize = 1 << 17;

/// Most media of a request.
pub const MAX_MEDIA: usize = 256;

/// The version of [`Made`](super::Made), and of the shipments that it is about, which this code writes and reads.
pub const SHIPMENTS: u8 = 1;

/// Most pixels of a medium's side.
pub const MAX_SIDE: usize = 1 << 20;

/// Most bytes of the bits that say which steps of a medium are laid out.
pub const MAX_STEP_BYTES: usize = 16 << 10;

/// Most bytes of all messages' texts, of all keep lists, and of the bits of steps together.
pub const MAX_PROMPT_BYTES: usize = 2 << 20;

/// Most bytes of a name, a version or a reason in words.
pub const MAX_TEXT_BYTES: usize = 256;

/// Most ids that one WORDS tells of.
pub const MAX_WORDS: usize = 256;

/// Most bytes that an id stands for.
pub const MAX_WORD_BYTES: usize = 4 << 10;

/// Levels that CBOR may be nested.
pub(super) const MAX_DEPTH: usize = 16;

/// Bytes of a draft without its ids.
pub(super) const DRAFT_BYTES: usize = 16 + 4 + 4 + 4 + 32 + 4 + 1 + 2 + 2;

/// Bytes of a verdict without its ids.
pub(super) const VERDICT_BYTES: usize = 16 + 4 + 4 + 4 + 1 + 2 + 2;

/// Bytes of an id and its log-probability.
pub(super) const LOGPROB_BYTES: usize = 4 + 8;

/// Most bytes of a payload.
pub const fn max_payload(kind: Kind) -> usize {
    match kind {
        Kind::Hello => 4 << 10,
        // Messages and keep lists, the committed ids, and the rest.
        Kind::Open => MAX_PROMPT_BYTES + 4 * MAX_ANSWER + (256 << 10),
        Kind::Draft => DRAFT_BYTES + 4 * (MAX_PROPOSED + MAX_FORCED),
        Kind::Verdict => {
            let place = LOGPROB_BYTES + 1 + MAX_TOP_LOGPROBS * LOGPROB_BYTES;
            VERDICT_BYTES + MAX_VERDICT_IDS * (4 + place)
        }
        Kind::Cancel | Kind::Close => 256,
        Kind::Refused | Kind::Heartbeat | Kind::Cost => 1 << 10,
        // Each with its id and the names of its fields.
        Kind::Words => 256 + MAX_WORDS * (MAX_WORD_BYTES + 64),
    }
}
