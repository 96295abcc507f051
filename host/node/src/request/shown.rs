//! From a prompt as OPEN tells it, and the bytes of its media, to what a model reads: on the side with the target, and for
//! models of this node that get less than all of it.

use std::sync::Arc;

use bytes::Bytes;
use msao_core::chat::Message;
use msao_core::inputs::ModelInputs;
use msao_media::Limits;
use msao_processor::{Extent, Media, Processor, Shown, Window};
use msao_session::frame::{Medium, kept_tokens};

use super::made::{Opened, open_made};
use super::prepare::decoded_bytes;
use super::retain::Kept;

/// A medium as OPEN tells it, and its bytes.
#[derive(Clone, Debug)]
pub struct Given {
    /// What is said of it.
    pub medium: Medium,
    /// Its bytes, where they are needed.
    pub bytes: Option<Bytes>,
}

/// A prompt as a model reads it.
#[derive(Clone, Debug)]
pub struct Laid {
    /// What there is to read.
    pub inputs: Arc<ModelInputs>,
    /// Tokens of each medium that is laid out, in their order.
    pub media: Vec<u32>,
    /// Which of them are read.
    pub kept: Kept,
}

impl Laid {
    /// Of a prompt of whose media so many tokens each are laid out (nothing: it is dropped), read as `wanted` says.
    ///
    /// # Errors
    /// A keep list is of another number of tokens.
    pub fn new(
        inputs: Arc<ModelInputs>,
        media: &[Option<u32>],
        wanted: &[Medium],
    ) -> Result<Laid, String> {
        if media.len() != wanted.len() {
            let (wanted, here) = (wanted.len(), media.len());
            return Err(format!(
                "prompt.media has {wanted} entries, and the messages name {here}"
            ));
        }
        let (mut there, mut kept) = (Vec::new(), Vec::new());
        for (number, (medium, tokens)) in wanted.iter().zip(media).enumerate() {
            let Some(tokens) = *tokens else {
                continue;
            };
            let bits = medium.keep.as_ref();
            let list = bits
                .map(|bits| kept_tokens(bits, tokens as usize))
                .transpose();
            let list = list.map_err(|error| format!("prompt.media[{number}].keep {error}"))?;
            kept.push(list.filter(|list| list.len() < tokens as usize));
            there.push(tokens);
        }
        Ok(Laid {
            inputs,
            media: there,
            kept: Kept::new(kept),
        })
    }

    /// Tokens of the prompt that are read.
    pub fn tokens(&self) -> u32 {
        let dropped = self.kept.dropped(self.media.iter().copied());
        (self.inputs.input_ids.len() as u32).saturating_sub(dropped)
    }
}

/// Decodes a prompt's media and lays it out. Slow: not for the threads that serve sockets. What the media take together once
/// they are decoded is bounded by `limits`, as that of each is.
///
/// # Errors
/// What is wrong with it, with the field where it is about how a medium was made.
pub fn lay_out(
    processor: &Processor,
    messages: &[Message],
    given: &[Given],
    limits: &Limits,
) -> Result<Laid, String> {
    let mut limits = limits.clone();
    let most = limits.max_decoded_bytes;
    let mut opened = Vec::with_capacity(given.len());
    for (number, one) in given.iter().enumerate() {
        let one = open(processor, number, one, &limits)?;
        let taken = one.there.as_ref().map_or(0, |(it, _)| decoded_bytes(it));
        let left = limits.max_decoded_bytes.checked_sub(taken);
        limits.max_decoded_bytes = left.ok_or_else(|| {
            format!(
                "prompt.media[{number}] takes, with those before it, more than {most} bytes once it is decoded \
                 (media.decoded-mib)"
            )
        })?;
        opened.push(one);
    }
    let prepared = if given.iter().all(|one| one.medium.made.is_none()) {
        let media = opened.into_iter().filter_map(|one| one.there);
        let media: Vec<Media> = media.map(|(media, _)| media).collect();
        processor.prepare(messages, &media)
    } else {
        let windows = windows(processor, &opened)?;
        let shown = opened.iter().zip(&windows).map(|(one, window)| Shown {
            whole: one.whole,
            there: one
                .there
                .as_ref()
                .map(|(media, _)| media)
                .zip(window.as_ref()),
        });
        let shown: Vec<Shown> = shown.collect();
        processor.prepare_shown(messages, &shown)
    };
    let prepared = prepared.map_err(|error| error.to_string())?;
    let spans = prepared.spans.iter();
    let tokens: Vec<Option<u32>> = spans
        .map(|span| (!span.tokens.is_empty()).then_some(span.tokens.len() as u32))
        .collect();
    let wanted: Vec<Medium> = given.iter().map(|one| one.medium.clone()).collect();
    Laid::new(Arc::new(prepared.inputs), &tokens, &wanted)
}

fn open(
    processor: &Processor,
    number: usize,
    given: &Given,
    limits: &Limits,
) -> Result<Opened, String> {
    let medium = &given.medium;
    if let Some(made) = &medium.made {
        let bytes = given.bytes.as_ref();
        return open_made(processor, number, medium, made, bytes, limits);
    }
    let bytes = given.bytes.as_ref();
    let bytes = bytes.ok_or_else(|| format!("prompt.media[{number}] is not here"))?;
    let media = processor.decode(medium.modality, bytes, limits);
    let media = media.map_err(|error| error.to_string())?;
    Ok(Opened {
        whole: Extent::of(&media),
        there: Some((media, None)),
    })
}

/// What is laid out of each medium; nothing of one that is dropped.
fn windows(processor: &Processor, opened: &[Opened]) -> Result<Vec<Option<Window>>, String> {
    let mut windows = Vec::with_capacity(opened.len());
    for (number, one) in opened.iter().enumerate() {
        windows.push(match &one.there {
            None => None,
            Some((_, Some(window))) => Some(window.clone()),
            Some((_, None)) => {
                let tokens = processor.tokens_of(number, one.whole);
                let tokens = tokens.map_err(|error| error.to_string())?;
                Some(processor.whole_window(one.whole.modality(), tokens))
            }
        });
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use msao_core::chat::Modality;
    use msao_core::digest::Digest;
    use msao_session::frame::keep_bits;

    use super::*;

    #[test]
    fn a_keep_list_for_other_tokens_than_there_are_is_refused_with_its_place() {
        let laid = |keeps: &[Option<Vec<u8>>], media: &[Option<u32>]| {
            let wanted: Vec<Medium> = keeps
                .iter()
                .map(|keep| Medium {
                    digest: Digest([0; 32]),
                    modality: Modality::Image,
                    keep: keep.clone(),
                    made: None,
                })
                .collect();
            let tokens = 5 + media.iter().flatten().sum::<u32>() as usize;
            let inputs = Arc::new(ModelInputs {
                input_ids: vec![0; tokens],
                ..ModelInputs::default()
            });
            Laid::new(inputs, media, &wanted)
        };
        let bits = |kept: &[u32]| Some(keep_bits(kept, 10));
        let some = laid(&[None, bits(&[1, 9])], &[Some(4), Some(10)]).unwrap();
        assert_eq!(
            (some.kept.of(0), some.kept.of(1)),
            (None, Some(&[1, 9][..]))
        );
        assert_eq!(some.tokens(), 5 + 4 + 2);
        // All of it, bit by bit, is all of it.
        let all: Vec<u32> = (0..10).collect();
        assert!(laid(&[bits(&all)], &[Some(10)]).unwrap().kept.is_whole());
        assert_eq!(laid(&[bits(&[])], &[Some(10)]).unwrap().tokens(), 5);
        // One that is dropped is none of those that are laid out.
        let behind = laid(&[None, bits(&[3])], &[None, Some(10)]).unwrap();
        assert_eq!((behind.media.as_slice(), behind.tokens()), (&[10][..], 6));
        assert_eq!(behind.kept.of(0), Some(&[3][..]));
        for (keeps, media, words) in [
            (
                vec![None, bits(&[1])],
                vec![Some(4), Some(17)],
                "prompt.media[1].keep has 2 bytes",
            ),
            (
                vec![bits(&[9])],
                vec![Some(9)],
                "prompt.media[0].keep has bits behind the last",
            ),
            (
                vec![None],
                vec![Some(4), Some(4)],
                "prompt.media has 1 entries",
            ),
        ] {
            let why = laid(&keeps, &media).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
