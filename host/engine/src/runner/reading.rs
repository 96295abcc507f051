//! A prompt that is being read: what it needs next, and the piece that comes next.

use std::sync::Arc;

use msao_core::inputs::ModelInputs;
use tch::Tensor;

use super::Needs;
use crate::error::{EngineError, Result};
use crate::media_cache::MediaKeys;
use crate::model::Encoding;
use crate::nn::index_tensor;
use crate::prefix_cache::Chain;
use crate::probe::Probe;
use crate::prompt::Prompt;
use crate::repeats::Repeats;

#[derive(Debug)]
pub(super) struct Reading {
    /// Its media until they have been encoded.
    pub inputs: Arc<ModelInputs>,
    pub prompt: Prompt,
    /// Hashes of its media, where anything is kept.
    pub keys: Option<MediaKeys>,
    /// What is encoded of each item, where it is not all of it.
    pub repeats: Vec<Option<Repeats>>,
    /// The item that is being encoded.
    pub encoding: Option<Encoding>,
    /// Items, in order, that need not be encoded: dropped whole or read already.
    pub skip: Vec<bool>,
    /// Kept tokens read so far.
    pub read: usize,
    /// Of these, tokens that another prompt had read.
    pub shared: usize,
    /// Edition of the kept prefixes that was last looked through.
    pub looked: u64,
    pub chain: Option<Chain>,
    pub probe: Option<Probe>,
}

/// Some rows of a prompt.
pub(crate) struct Piece {
    /// `[rows, hidden]`.
    pub x: Tensor,
    /// Where they stand.
    pub axes: [Vec<i64>; 3],
    pub rows: usize,
    /// Whether the prompt ends with it.
    pub last: bool,
}

/// Tokens that waiting for another prompt must save at least, beside half of what is unread.
const WORTH_WAITING: usize = 64;

impl Reading {
    /// Takes over its first `tokens` tokens, which another prompt has read: of its media those before the first unread
    /// token need no encoder, nor do those that are dropped whole.
    pub fn share(&mut self, tokens: usize) {
        self.read = tokens;
        self.shared = tokens;
        let first_unread = self.prompt.keep.get(tokens).copied().unwrap_or(0);
        let keep = &self.prompt.keep;
        let looked_at = self.probe.is_some();
        self.skip = (self.prompt.items.iter())
            .map(|item| {
                let places = item.places.clone();
                let next = keep.partition_point(|&place| place < places.start);
                let dropped = keep.get(next).is_none_or(|&place| place >= places.end);
                places.end <= first_unread || (dropped && !looked_at)
            })
            .collect();
        if self.skip.get(self.prompt.encoded) == Some(&true) {
            self.encoding = None;
        }
        self.let_go_of_media();
    }

    /// Drops its share in pixels and sounds once no encoder needs them any more: a prompt may wait for long to be read.
    fn let_go_of_media(&mut self) {
        let ModelInputs {
            images,
            videos,
            audio,
            ..
        } = self.inputs.as_ref();
        let any = images.is_some() || videos.is_some() || audio.is_some();
        if any && self.needs() != Needs::Encoding {
            self.inputs = Arc::new(ModelInputs {
                input_ids: self.inputs.input_ids.clone(),
                ..ModelInputs::default()
            });
        }
    }

    /// The chain of a prompt that has been read, if others may go on from it: nothing was dropped behind a probe.
    pub fn read_whole(&mut self) -> Option<Chain> {
        let tokens = self.prompt.positions.axes.first().map_or(0, Vec::len);
        match (&self.probe, &self.keys) {
            (None, _) => self.chain.take(),
            (Some(_), Some(keys)) if self.prompt.keep.len() == tokens => {
                Some(Chain::new(&self.inputs, &self.prompt, keys))
            }
            _ => None,
        }
    }

    /// Whether most of what is unread will soon have been read for another prompt.
    pub fn had_better_wait(&self, ahead: &Reading) -> bool {
        let (Some(chain), Some(other)) = (&self.chain, &ahead.chain) else {
            return false;
        };
        if self.read > self.shared {
            return false;
        }
        let common = chain.common(other);
        // Its last token is always read: what follows it is wanted.
        let saved = common.min(chain.tokens() - 1).saturating_sub(self.read);
        // It is kept once all of the other has been read: a short prompt waits for no long one, and for nobody's media
        // but its own.
        let parts_at = ahead.prompt.keep.get(common).copied();
        let items = ahead.prompt.items.iter().zip(&ahead.skip);
        let foreign = items
            .skip(ahead.prompt.encoded)
            .any(|(item, &skip)| !skip && parts_at.is_some_and(|place| item.places.end > place));
        saved >= WORTH_WAITING
            && 2 * saved >= chain.tokens() - self.read
            && 2 * saved >= other.tokens() - ahead.read
            && !foreign
    }

    /// Counts items as encoded that need not be.
    pub fn pass_over(&mut self) {
        while self.skip.get(self.prompt.encoded).is_some_and(|&skip| skip) {
            self.prompt.encoded += 1;
        }
        self.let_go_of_media();
    }

    pub fn needs(&self) -> Needs {
        let waiting = self
            .skip
            .iter()
            .skip(self.prompt.encoded)
            .any(|&skip| !skip);
        if waiting {
            return Needs::Encoding;
        }
        match &self.probe {
            Some(probe) if probe.waiting() => Needs::Keeping,
            _ => Needs::Reading(self.prompt.keep.len() - self.read),
        }
    }

    pub fn piece(&self, most: usize) -> Result<Piece> {
        if self.needs() == Needs::Encoding {
            return Err(EngineError::request(
                "the media of a prompt must be encoded before it is read",
            ));
        }
        let left = self.prompt.keep.get(self.read..).unwrap_or_default();
        let places = left.get(..most.max(1).min(left.len())).unwrap_or_default();
        let (Some(&first), Some(&last)) = (places.first(), places.last()) else {
            return Err(EngineError::request(
                "the prompt has been read; a keep list is waited for",
            ));
        };
        let rows = places.len();
        let x = if last - first + 1 == rows {
            self.prompt.x.f_narrow(0, first as i64, rows as i64)?
        } else {
            let index: Vec<i64> = places.iter().map(|&place| place as i64).collect();
            let x = &self.prompt.x;
            tch::no_grad(|| -> Result<Tensor> {
                Ok(x.f_index_select(0, &index_tensor(&index, x.device())?)?)
            })?
        };
        let pick = |axis: &Vec<i64>| -> Vec<i64> {
            let picked = places.iter().filter_map(|&place| axis.get(place));
            picked.copied().collect()
        };
        Ok(Piece {
            x,
            axes: self.prompt.positions.axes.each_ref().map(pick),
            rows,
            last: rows == left.len(),
        })
    }
}
