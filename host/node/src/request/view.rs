//! How a medium is laid out for a model that gets it at another size or in part: which steps, rows and columns of its tokens
//! there are, and which of those are read.

use msao_core::inputs::Grid;
use msao_core::offload::{Rest, Treatment};
use msao_media::ship::scaled_size;
use msao_processor::{Extent, Processor, ProcessorError, Window, centre};
use msao_session::frame::{self, Made};

use super::prepare::Medium;
use super::retain::{completed, kept};

/// A medium as a model sees it that gets less than all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The medium as its client sent it.
    pub whole: Extent,
    /// Its extent in tokens.
    pub grid: Grid,
    /// Pixels across and down at which it is laid out; 0 and 0 for a sound.
    pub canvas: (u32, u32),
    /// Its extent in tokens at that size.
    pub scaled: Grid,
    /// The tokens at that size that are read, by number, rising.
    pub read: Vec<u32>,
    /// The tokens at that size that lie in the frames (of a sound: segments) that stay, read or not; likewise.
    pub stay: Vec<u32>,
}

impl View {
    /// What is left of a medium that is treated so. `order`: its tokens, those needed most first.
    ///
    /// # Errors
    /// If the model's processor takes no medium of the size that it would have.
    pub fn of(
        medium: &Medium,
        how: &Treatment,
        order: Option<&[u32]>,
        processor: &Processor,
    ) -> Result<View, ProcessorError> {
        let (whole, grid) = (medium.extent, medium.grid);
        let canvas = canvas(whole, how.scale);
        let scaled = processor.tokens_of(0, whole.resized(canvas))?;
        let order = order.map(|order| rescaled(order, grid, scaled));
        let listed = |how: &Treatment| {
            let all = scaled.patches() as u32;
            let kept = kept(how, scaled, order.as_deref());
            kept.unwrap_or_else(|| (0..all).collect::<Vec<u32>>())
        };
        let staying = Treatment { keep: 1.0, ..*how };
        Ok(View {
            whole,
            grid,
            canvas,
            scaled,
            read: listed(how),
            stay: listed(&staying),
        })
    }

    /// How many tokens are read.
    pub fn tokens(&self) -> u32 {
        self.read.len() as u32
    }

    /// Whether laying it out so takes nothing from what an encoder looks at. `false` for one that is dropped.
    pub fn is_whole(&self, processor: &Processor) -> bool {
        let steps = processor.steps(self.whole.modality(), self.scaled);
        self.scaled == self.grid
            && self.canvas == self.whole.size_px()
            && self.steps(processor).len() == steps
    }

    /// The steps of which anything is read, rising.
    pub fn steps(&self, processor: &Processor) -> Vec<usize> {
        let a_step = processor.step_tokens(self.whole.modality(), self.scaled);
        let of = |token: &u32| (*token as usize).checked_div(a_step).unwrap_or(0);
        let mut steps: Vec<usize> = self.read.iter().map(of).collect();
        steps.dedup();
        steps
    }

    /// What is laid out; nothing if it is dropped. `tight`: of rows and columns no more than what is read takes, instead of
    /// all.
    pub fn window(&self, processor: &Processor, tight: bool) -> Option<Window> {
        let modality = self.whole.modality();
        let all = processor.whole_window(modality, self.scaled);
        let steps = self.steps(processor);
        if steps.is_empty() {
            return None;
        }
        let rows = self.read.iter().map(|&token| self.place(token).1);
        let columns = self.read.iter().map(|&token| self.place(token).2);
        match (
            rows.clone().min(),
            rows.max(),
            columns.clone().min(),
            columns.max(),
        ) {
            (Some(top), Some(bottom), Some(left), Some(right)) if tight => Some(Window {
                steps,
                rows: top..bottom + 1,
                columns: left..right + 1,
            }),
            _ => Some(Window { steps, ..all }),
        }
    }

    /// Step (of a sound: token), row and column of a token.
    pub fn place(&self, token: u32) -> (usize, usize, usize) {
        let (token, across) = (token as usize, self.scaled.w.max(1));
        let a_frame = self.scaled.h.saturating_mul(across).max(1);
        let within = token % a_frame;
        (token / a_frame, within / across, within % across)
    }

    /// The same as an OPEN says it, with the list of what is read of the window's tokens where that is not all.
    /// `tight`: as in [`View::window`].
    pub fn made(
        &self,
        processor: &Processor,
        shipped: bool,
        tight: bool,
    ) -> (Made, Option<Vec<u8>>) {
        let modality = self.whole.modality();
        let (length, frames, fps) = match self.whole {
            Extent::Image { .. } => (1, 0, 0.0),
            Extent::Video {
                sampled,
                frames,
                fps,
                ..
            } => (sampled, frames, fps),
            Extent::Audio { samples } => (samples, 0, 0.0),
        };
        let window = self.window(processor, tight);
        let keep = window.as_ref().and_then(|window| {
            let there = processor.numbers(modality, self.scaled, window);
            let numbered = (0_u32..).zip(&there);
            let read = numbered.filter(|(_, number)| self.read.binary_search(number).is_ok());
            let read: Vec<u32> = read.map(|(own, _)| own).collect();
            (read.len() < there.len()).then(|| frame::keep_bits(&read, there.len()))
        });
        let steps = processor.steps(modality, self.scaled);
        let made = Made {
            shipped,
            size: self.whole.size_px(),
            length: length as u32,
            frames: frames as u32,
            fps,
            whole: (self.grid.t as u32, self.grid.h as u32, self.grid.w as u32),
            canvas: self.canvas,
            scaled: (self.scaled.h as u32, self.scaled.w as u32),
            window: window.map(|window| {
                let there: Vec<u32> = window.steps.iter().map(|&step| step as u32).collect();
                frame::Window {
                    top: window.rows.start as u32,
                    left: window.columns.start as u32,
                    rows: window.rows.len() as u32,
                    columns: window.columns.len() as u32,
                    steps: frame::keep_bits(&there, steps),
                }
            }),
        };
        (made, keep)
    }
}

/// Pixels across and down of a medium at a scale; 0 and 0 for a sound.
pub fn canvas(whole: Extent, scale: f64) -> (u32, u32) {
    match whole {
        Extent::Image { .. } | Extent::Video { .. } => scaled_size(whole.size_px(), scale),
        Extent::Audio { .. } => (0, 0),
    }
}

/// Whether `rest` cuts what is laid out down to what is read.
pub fn is_tight(rest: Rest) -> bool {
    match rest {
        Rest::Send => false,
        Rest::Crop | Rest::Flatten => true,
    }
}

/// An order of a medium's tokens as one of those that it has at another size. A token there is worth the sum of
/// `1 / (1 + rank)` over those whose centres lie in it; of equal ones the earlier comes first.
fn rescaled(order: &[u32], grid: Grid, scaled: Grid) -> Vec<u32> {
    if grid == scaled {
        return order.to_vec();
    }
    let (across, a_frame) = (grid.w.max(1), grid.h.saturating_mul(grid.w).max(1));
    let mut worth = vec![0.0_f64; scaled.patches()];
    for (rank, token) in completed(order, grid.patches()).into_iter().enumerate() {
        let within = token % a_frame;
        let row = centre(within / across, grid.h, scaled.h);
        let column = centre(within % across, grid.w, scaled.w);
        let there = (token / a_frame * scaled.h + row) * scaled.w + column;
        if let Some(worth) = worth.get_mut(there) {
            *worth += 1.0 / (1.0 + rank as f64);
        }
    }
    let mut ranked: Vec<(u32, f64)> = (0_u32..).zip(worth).collect();
    // Equal ones keep their order.
    ranked.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    ranked.into_iter().map(|(token, _)| token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_follows_its_tokens_to_another_size() {
        let grid = |h, w| Grid { t: 1, h, w };
        // Four by four: the bottom right corner first, then the top left one.
        let order: [u32; 4] = [15, 0, 14, 1];
        assert_eq!(rescaled(&order, grid(4, 4), grid(4, 4)), order);
        let half = rescaled(&order, grid(4, 4), grid(2, 2));
        assert_eq!(half.len(), 4);
        assert_eq!(&half[..2], &[3, 0]);
        // Frames stay frames.
        let clip = |h, w| Grid { t: 2, h, w };
        let last_first: Vec<u32> = (0..8).rev().collect();
        assert_eq!(rescaled(&last_first, clip(2, 2), clip(1, 1)), [1, 0]);
        // What is larger leaves some without worth, behind the others.
        assert_eq!(rescaled(&[1], grid(1, 2), grid(1, 4)), [3, 1, 0, 2]);
    }
}
