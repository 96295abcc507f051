//! Prompts of whose media not everything is laid out: some are at another size, some are there in part, some not at all.
//!
//! Each token that there is stands where it would in the prompt with everything ([`msao_core::inputs::Whole`]): frames and
//! cells of a crop at their own places, those of a medium that was made smaller where their centres lie, and text as far
//! behind a medium as if all of it were there. An encoder sees the part that is laid out, and nothing else.

use msao_core::chat::{Message, Modality};
use msao_core::inputs::{Grid, ModelInputs, Whole};

use crate::error::ProcessorError;
use crate::layout::{Extent, Window, centre};
use crate::placeholders::{self, MediaSpan};
use crate::prepare::{Media, Prepared};
use crate::processor::Processor;

/// A medium of which not all need be laid out.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// All of it, at the size that it came in: where its tokens stand follows from that.
    pub whole: Extent,
    /// What there is of it, at a size that may be another, and which part of that is laid out; nothing if it is dropped. It
    /// has as many frames, or samples, as the whole: those outside the part are not looked at.
    pub there: Option<(&'a Media, &'a Window)>,
}

impl Processor {
    /// As [`Processor::prepare`], of media that are laid out in part. The spans of the result are those of what is laid out;
    /// a medium that is dropped has an empty one.
    ///
    /// # Errors
    /// As [`Processor::prepare`], where the limit of tokens is held against the whole prompt; also if a part is not one of
    /// its medium, or a medium has other frames or samples than its whole.
    pub fn prepare_shown(
        &self,
        messages: &[Message],
        media: &[Shown<'_>],
    ) -> Result<Prepared, ProcessorError> {
        let given: Vec<Modality> = media.iter().map(|it| it.whole.modality()).collect();
        let modalities = self.check_media(messages, &given)?;
        let text = self.render(messages, true)?;
        let ids = self.tokenizer.encode(&text)?;
        placeholders::check_counts(&ids, &self.placeholders, &modalities)?;

        let mut whole = Whole::default();
        let mut grids = Vec::with_capacity(media.len());
        for (index, shown) in media.iter().enumerate() {
            let laid = self.lay_out(shown.whole);
            let modality = shown.whole.modality();
            let laid = laid.map_err(|why| ProcessorError::media(index, modality, why))?;
            match modality {
                Modality::Image => whole.images.push(laid.patches),
                Modality::Video => whole.videos.push(laid.patches),
                Modality::Text | Modality::Audio => {}
            }
            whole.second_per_grid_ts.extend(laid.seconds_per_grid);
            grids.push(laid.tokens);
        }
        let counts: Vec<usize> = grids.iter().map(Grid::patches).collect();
        self.check_limits(&ids, &[], &counts)?;

        let (mut notes, mut plans, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (shown, &grid)) in media.iter().zip(&grids).enumerate() {
            let Some((medium, window)) = shown.there else {
                cells.push(Vec::new());
                continue;
            };
            let fail = |why: String| ProcessorError::media(index, shown.whole.modality(), why);
            cells.push(
                self.cells(shown.whole, grid, medium, window)
                    .map_err(fail)?,
            );
            plans.push(self.plan(index, medium, &mut notes)?.within(window));
        }
        let there: Vec<usize> = cells.iter().map(Vec::len).collect();
        self.check_limits(&ids, &plans, &there)?;

        let expand =
            |tokens: &[usize]| placeholders::expand(&ids, &self.placeholders, &modalities, tokens);
        let (input_ids, spans) = expand(&there);
        let (whole_ids, whole_spans) = expand(&counts);
        whole.places = places(&whole_spans, &cells, whole_ids.len());
        whole.input_ids = whole_ids;
        let inputs = ModelInputs {
            input_ids,
            whole: Some(whole),
            ..self.process(&plans)
        };
        Ok(Prepared {
            text,
            inputs,
            spans,
            notes,
        })
    }

    /// For each token of a part of a medium the token of the whole, of which `grid` is the extent in tokens, at whose place it
    /// stands.
    fn cells(
        &self,
        whole: Extent,
        grid: Grid,
        medium: &Media,
        window: &Window,
    ) -> Result<Vec<u32>, String> {
        let (modality, here) = (whole.modality(), Extent::of(medium));
        // Frames and samples are never other than they were: only sides change.
        if here != whole.resized(here.size_px()) {
            return Err(format!(
                "what there is of it, {here:?}, is none of {whole:?}"
            ));
        }
        let scaled = self.lay_out(here)?.tokens;
        let steps = self.steps(modality, scaled);
        let rising = window.steps.is_sorted_by(|a, b| a < b);
        let inside =
            |range: &std::ops::Range<usize>, most: usize| !range.is_empty() && range.end <= most;
        let fits = rising
            && window.steps.last().is_some_and(|&last| last < steps)
            && inside(&window.rows, scaled.h)
            && inside(&window.columns, scaled.w);
        if !fits || scaled.t != grid.t {
            return Err(format!(
                "{window:?} is no part of {steps} steps of {} x {} tokens",
                scaled.h, scaled.w
            ));
        }
        let numbers = self.numbers(modality, scaled, window).into_iter();
        let a_step = scaled.h.saturating_mul(scaled.w).max(1);
        let cell = |number: u32| {
            let (t, place) = (number as usize / a_step, number as usize % a_step);
            let row = centre(place / scaled.w.max(1), scaled.h, grid.h);
            let column = centre(place % scaled.w.max(1), scaled.w, grid.w);
            ((t * grid.h + row) * grid.w + column) as u32
        };
        Ok(numbers.map(cell).collect())
    }
}

/// Of each token that there is the place in the whole prompt of so many tokens; `cells`: of each medium those of its tokens
/// at whose places they stand.
fn places(whole: &[MediaSpan], cells: &[Vec<u32>], tokens: usize) -> Vec<u32> {
    let mut media: Vec<_> = whole.iter().zip(cells).collect();
    // A template may write media in another order than they were given in.
    media.sort_by_key(|(span, _)| span.tokens.start);
    let mut places = Vec::new();
    let mut next = 0;
    for (span, cells) in media {
        let start = span.tokens.start as u32;
        places.extend(next..start);
        places.extend(cells.iter().map(|cell| start + cell));
        next = span.tokens.end as u32;
    }
    places.extend(next..tokens as u32);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_where_it_would_and_media_by_their_cells() {
        let span = |modality, tokens| MediaSpan { modality, tokens };
        // The second of the media stands first in the prompt; the third is dropped.
        let whole = [
            span(Modality::Image, 6..10),
            span(Modality::Video, 1..4),
            span(Modality::Audio, 11..13),
        ];
        let cells = [vec![0, 3], vec![1], Vec::new()];
        let wanted = [0, 2, 4, 5, 6, 9, 10, 13, 14];
        assert_eq!(places(&whole, &cells, 15), wanted);
        assert_eq!(places(&[], &[], 3), [0, 1, 2]);
    }
}
