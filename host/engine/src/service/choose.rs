//! The choices of a step, spread over the model's threads: at 150,000 ids a choice takes as long as a layer.

use std::cell::RefCell;

use msao_core::sampling::Scratch;

use super::client::{Client, Rows};
use crate::error::{EngineError, Result};
use crate::team;

/// Fewer logits than these are chosen by on the caller's thread: waking the others takes longer.
const WORTH_SHARING: usize = 1 << 16;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Lends the calling thread's memory for choices. Must not be nested.
pub(super) fn with_scratch<T>(run: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(run)
}

/// What one session gets from a pass.
pub(super) struct Share<'a> {
    pub id: u64,
    pub client: &'a mut Client,
    /// What it asked for; `None`: its prompt has been read.
    pub rows: Option<&'a Rows>,
    /// `width` values a row.
    pub logits: &'a [f32],
    /// How many of the tokens read the sequence must forget.
    pub forget: Result<usize>,
}

/// Lets every session take in what it got.
pub(super) fn hand_out(shares: &mut [Share], width: usize, threads: usize) {
    let values: usize = shares.iter().map(|share| share.logits.len()).sum();
    let threads = if values < WORTH_SHARING { 1 } else { threads };
    team::for_each(threads, shares, |share| {
        share.forget = match share.rows {
            None if share.logits.is_empty() => Ok(0),
            None => {
                share.client.has_read_prompt(share.logits);
                Ok(0)
            }
            Some(rows) => {
                with_scratch(|scratch| share.client.take(rows, share.logits, width, scratch))
            }
        };
    });
}

/// What a share holds until it has been treated.
pub(super) fn untreated() -> Result<usize> {
    Err(EngineError::request("choosing a token panicked"))
}
