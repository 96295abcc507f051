//! What is read of a prompt's media: from the shares that a plan names to the tokens that they mean.
//!
//! First the frames (segments of a sound): `ceil(share * frames)` of them, at least one. Then the tokens: `ceil(share *
//! tokens)` of the whole item's, of those that lie in the frames kept, and no more than those have. A share of 0 drops the
//! item.
//!
//! Where a post-processor has ranked the tokens by its keep order, the best stay; a frame ranks by the sum of `1 / (1 +
//! rank)` over its tokens, of equal ones the earlier. So a larger share of tokens keeps all that a smaller one keeps, and a
//! larger share of frames all its frames. Where nobody has ranked them, what stays is evenly spaced, the first and the last
//! included.
//!
//! A model that reads fewer tokens drops the others before its first layer. The draft model whose probe has looked at all
//! of them drops them behind the probe's layers: its choices may differ a little from those of one that never saw them.
//! A medium that a model gets at another size, or of which it gets only some frames, is laid out so ([`View`]); all of the
//! above is then said of the tokens that it has at that size.

use msao_core::inputs::Grid;
use msao_core::offload::{PartPlan, Treatment};
use msao_engine::Keep;
use msao_processor::{Processor, ProcessorError};

use super::prepare::Medium;
use super::treatment::{Reach, Reaches, is_made};
use super::view::View;

/// Which tokens of a prompt's media are read, of those that are laid out. Default: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(Vec<Option<Vec<u32>>>);

/// What one model gets to read of a prompt's media. Default: all, as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sight {
    /// Of media that are laid out as they came. A medium with a view has its own list.
    lists: Kept,
    /// Media that are laid out otherwise.
    views: Vec<Option<View>>,
}

/// What both models read of a prompt's media.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retained {
    /// The draft model of this node.
    pub draft: Sight,
    /// The target, and a draft model beside it.
    pub target: Sight,
}

impl Kept {
    /// For each medium, in the order of the prompt, the numbers of its tokens that are read, rising; `None` for all.
    pub fn new(media: Vec<Option<Vec<u32>>>) -> Kept {
        Kept(media)
    }

    /// The tokens of a medium that are read, by number, rising; `None` where all are.
    pub fn of(&self, medium: usize) -> Option<&[u32]> {
        self.0.get(medium)?.as_deref()
    }

    /// Whether everything is read.
    pub fn is_whole(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// How many of a medium's tokens are read.
    pub fn count(&self, medium: usize, tokens: u32) -> u32 {
        self.of(medium).map_or(tokens, |kept| kept.len() as u32)
    }

    /// How many tokens of media are not read; `tokens` of each, in their order.
    pub fn dropped(&self, tokens: impl Iterator<Item = u32>) -> u32 {
        let all = tokens.enumerate();
        all.map(|(medium, tokens)| tokens.saturating_sub(self.count(medium, tokens)))
            .sum()
    }

    /// The same for an engine: of a prompt with so many media.
    pub fn keep(&self, media: usize) -> Keep {
        let items = (0..media).map(|medium| self.of(medium).map(<[u32]>::to_vec));
        Keep {
            items: items.collect(),
        }
    }

    /// The same, where anything is dropped at all.
    pub fn pruning(&self, media: usize) -> Option<Keep> {
        (!self.is_whole()).then(|| self.keep(media))
    }
}

impl Sight {
    /// Of media that are all laid out as they came.
    pub fn of_lists(lists: Kept) -> Sight {
        Sight {
            lists,
            views: Vec::new(),
        }
    }

    /// How a medium is laid out, where that is not as it came.
    pub fn view(&self, medium: usize) -> Option<&View> {
        self.views.get(medium)?.as_ref()
    }

    /// Whether every medium is laid out as it came.
    pub fn is_plain(&self) -> bool {
        self.views.iter().all(Option::is_none)
    }

    /// What is read of media that are laid out as they came.
    pub fn lists(&self) -> &Kept {
        &self.lists
    }

    /// How many tokens are read of a medium, which has `tokens` as it came.
    pub fn count(&self, medium: usize, tokens: u32) -> u32 {
        match self.view(medium) {
            Some(view) => view.tokens(),
            None => self.lists.count(medium, tokens),
        }
    }

    /// The same as a share of those that it has as it came, in [0, 1].
    pub fn share(&self, medium: usize, tokens: u32) -> f64 {
        match tokens {
            0 => 1.0,
            tokens => (f64::from(self.count(medium, tokens)) / f64::from(tokens)).min(1.0),
        }
    }

    /// How many tokens of media are not read; `tokens` of each as it came, in their order.
    pub fn dropped(&self, tokens: impl Iterator<Item = u32>) -> u32 {
        let all = tokens.enumerate();
        all.map(|(medium, tokens)| tokens.saturating_sub(self.count(medium, tokens)))
            .sum()
    }
}

impl Retained {
    /// What a plan's parts, as they can run, keep of media. `orders`: each medium's tokens, those needed most first, where a
    /// post-processor has said so.
    ///
    /// # Errors
    /// If a medium cannot be laid out at the size that it is to have.
    pub fn of(
        parts: &[PartPlan],
        media: &[Medium],
        orders: Option<&[Vec<u32>]>,
        processor: &Processor,
        reaches: Reaches,
    ) -> Result<Retained, ProcessorError> {
        let side = |treatment: fn(&PartPlan) -> &Treatment,
                    reach: Reach|
         -> Result<Sight, ProcessorError> {
            let mut sight = Sight::default();
            for (number, medium) in media.iter().enumerate() {
                let order = orders.and_then(|orders| orders.get(number));
                let order = order.map(Vec::as_slice);
                let how = parts.get(number).map_or(&Treatment::WHOLE, treatment);
                let view = view(medium, how, order, processor, reach)?;
                let list = match &view {
                    Some(_) => None,
                    None => kept(how, medium.grid, order),
                };
                sight.lists.0.push(list);
                sight.views.push(view);
            }
            Ok(sight)
        };
        Ok(Retained {
            draft: side(|part| &part.draft, reaches.draft)?,
            target: side(|part| &part.target, reaches.target)?,
        })
    }
}

/// How a medium is laid out where that is not as it came.
fn view(
    medium: &Medium,
    how: &Treatment,
    order: Option<&[u32]>,
    processor: &Processor,
    reach: Reach,
) -> Result<Option<View>, ProcessorError> {
    match reach {
        Reach::Ships if is_made(how) => View::of(medium, how, order, processor).map(Some),
        // Here nothing need be made but what an encoder then has not to look at; tokens are dropped by a list.
        Reach::Here if is_made(how) && how.keep > 0.0 => {
            let view = View::of(medium, how, order, processor)?;
            Ok((!view.is_whole(processor)).then_some(view))
        }
        _ => Ok(None),
    }
}

/// The tokens of a medium that are kept, by number, rising; `None` where all are. `grid`: its extent in tokens. `order`: its
/// tokens, those needed most first; what it leaves out follows in its own order.
pub fn kept(how: &Treatment, grid: Grid, order: Option<&[u32]>) -> Option<Vec<u32>> {
    let tokens = grid.patches();
    let a_frame = grid.h.saturating_mul(grid.w);
    let wanted = share_of(how.keep, tokens);
    let wanted_frames = share_of(how.frames, grid.t).max(1);
    if wanted == tokens && wanted_frames >= grid.t {
        return None;
    }
    let mut kept = match order {
        Some(order) => {
            let order = completed(order, tokens);
            let frames = best_frames(&order, grid.t, a_frame, wanted_frames);
            let there = order.into_iter().filter(|token| {
                let frame = token.checked_div(a_frame).unwrap_or(0);
                frames.get(frame).is_some_and(|stays| *stays)
            });
            there.take(wanted).collect()
        }
        None => {
            let frames = spread(grid.t, wanted_frames);
            let there = frames.flat_map(|frame| frame * a_frame..(frame + 1) * a_frame);
            let there: Vec<usize> = there.collect();
            let places = spread(there.len(), wanted.min(there.len()));
            let kept = places.filter_map(|place| there.get(place).copied());
            kept.collect::<Vec<usize>>()
        }
    };
    kept.sort_unstable();
    let kept = kept.into_iter().map(|token| token as u32).collect();
    Some(kept)
}

/// How many a share is of so many: none only where the share is 0.
fn share_of(share: f64, all: usize) -> usize {
    msao_core::offload::kept::count_of(share, all)
}

/// An order of all tokens: the one given, then the others by number.
pub(super) fn completed(order: &[u32], tokens: usize) -> Vec<usize> {
    let mut named = vec![false; tokens];
    let mut all = Vec::with_capacity(tokens);
    for token in order.iter().map(|&token| token as usize) {
        if let Some(named) = named.get_mut(token)
            && !std::mem::replace(named, true)
        {
            all.push(token);
        }
    }
    let others = named.iter().enumerate().filter(|(_, named)| !**named);
    all.extend(others.map(|(token, _)| token));
    all
}

/// Which frames stay if so many do: those with the best tokens.
fn best_frames(order: &[usize], frames: usize, a_frame: usize, wanted: usize) -> Vec<bool> {
    let mut worth = vec![0.0_f64; frames];
    for (rank, token) in order.iter().enumerate() {
        let frame = token.checked_div(a_frame).unwrap_or(0);
        if let Some(worth) = worth.get_mut(frame) {
            *worth += 1.0 / (1.0 + rank as f64);
        }
    }
    let mut ranked: Vec<(usize, f64)> = worth.into_iter().enumerate().collect();
    // Equal ones keep their order.
    ranked.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let mut stay = vec![false; frames];
    for (frame, _) in ranked.into_iter().take(wanted) {
        if let Some(stay) = stay.get_mut(frame) {
            *stay = true;
        }
    }
    stay
}

/// So many of the numbers below `all`, rising and evenly spaced: the first and the last among them, or the middle one alone.
fn spread(all: usize, wanted: usize) -> impl Iterator<Item = usize> {
    let wanted = wanted.min(all);
    let last = all.saturating_sub(1);
    (0..wanted).map(move |number| match wanted - 1 {
        0 => last / 2,
        gaps => (number * last + gaps / 2) / gaps,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn how(keep: f64, frames: f64) -> Treatment {
        Treatment {
            keep,
            frames,
            ..Treatment::WHOLE
        }
    }

    fn grid(t: usize, h: usize, w: usize) -> Grid {
        Grid { t, h, w }
    }

    #[test]
    fn what_the_order_puts_first_is_kept() {
        let order: [u32; 6] = [5, 0, 3, 1, 2, 4];
        let kept = |keep| kept(&how(keep, 1.0), grid(1, 2, 3), Some(&order));
        assert_eq!(kept(0.5), Some(vec![0, 3, 5]));
        assert_eq!(kept(0.51), Some(vec![0, 1, 3, 5]));
        assert_eq!(kept(0.001), Some(vec![5]));
        assert_eq!(kept(0.0), Some(vec![]));
        assert_eq!(kept(1.0), None);
        // Whole but for less than a token is whole.
        assert_eq!(kept(0.9), None);
    }

    #[test]
    fn what_an_order_leaves_out_follows_and_what_is_no_token_is_passed_over() {
        let kept = |order: &[u32]| kept(&how(0.5, 1.0), grid(1, 1, 6), Some(order));
        assert_eq!(kept(&[4]), Some(vec![0, 1, 4]));
        assert_eq!(kept(&[]), Some(vec![0, 1, 2]));
        assert_eq!(kept(&[4, 4, 9, 5]), Some(vec![0, 4, 5]));
    }

    #[test]
    fn without_an_order_what_is_kept_is_evenly_spaced() {
        let kept = |keep, frames, grid| kept(&how(keep, frames), grid, None);
        assert_eq!(kept(0.5, 1.0, grid(1, 1, 6)), Some(vec![0, 3, 5]));
        assert_eq!(kept(0.1, 1.0, grid(1, 1, 6)), Some(vec![2]));
        assert_eq!(kept(1.0, 0.5, grid(4, 1, 2)), Some(vec![0, 1, 6, 7]));
        // A sound: each token is a segment.
        assert_eq!(kept(1.0, 0.3, grid(10, 1, 1)), Some(vec![0, 5, 9]));
        // A quarter of all eight tokens, of the two frames that stay.
        assert_eq!(kept(0.25, 0.5, grid(4, 1, 2)), Some(vec![0, 7]));
        // More than the frames hold is what they hold.
        assert_eq!(kept(0.9, 0.5, grid(4, 1, 2)), Some(vec![0, 1, 6, 7]));
        assert_eq!(kept(0.5, 0.001, grid(5, 1, 1)), Some(vec![2]));
    }

    #[test]
    fn frames_with_the_best_tokens_stay_and_of_equal_ones_the_earlier() {
        // Frame 2 has the two best tokens, then frame 0 the next two.
        let order: [u32; 6] = [4, 5, 0, 1, 2, 3];
        let of = |keep, frames| kept(&how(keep, frames), grid(3, 1, 2), Some(&order));
        assert_eq!(of(1.0, 0.3), Some(vec![4, 5]));
        assert_eq!(of(1.0, 0.6), Some(vec![0, 1, 4, 5]));
        assert_eq!(of(0.5, 0.6), Some(vec![0, 4, 5]));
        // Ranks 0 and 3 are worth 1.25, ranks 1 and 2 less.
        let mixed: [u32; 4] = [3, 0, 1, 2];
        let one = kept(&how(1.0, 0.5), grid(2, 1, 2), Some(&mixed));
        assert_eq!(one, Some(vec![2, 3]));
        let frames = best_frames(&[], 3, 2, 2);
        assert_eq!(frames, [true, true, false]);
    }

    #[test]
    fn a_share_is_not_rounded_up_by_what_binary_fractions_add() {
        assert_eq!(share_of(0.07, 100), 7);
        assert_eq!(share_of(0.1, 30), 3);
        assert_eq!(share_of(1e-12, 30), 1);
        assert_eq!(share_of(1.0, 30), 30);
        assert_eq!(share_of(0.0, 30), 0);
        assert_eq!(share_of(0.5, 0), 0);
    }

    #[test]
    fn counts_and_shares_are_of_what_is_kept() {
        let kept = Kept::new(vec![None, Some(vec![0, 2]), Some(Vec::new())]);
        assert!(!kept.is_whole());
        let counts: Vec<u32> = (0..4).map(|medium| kept.count(medium, 4)).collect();
        assert_eq!(counts, [4, 2, 0, 4]);
        assert_eq!(kept.dropped([4, 4, 4, 4].into_iter()), 6);
        let sight = Sight {
            lists: kept.clone(),
            views: Vec::new(),
        };
        assert_eq!((sight.share(1, 4), sight.share(2, 4)), (0.5, 0.0));
        assert_eq!((sight.share(0, 4), sight.share(3, 0)), (1.0, 1.0));
        assert_eq!(sight.dropped([4, 4, 4, 4].into_iter()), 6);
        assert_eq!(kept.keep(3).items, [None, Some(vec![0, 2]), Some(vec![])]);
        let whole = Kept::default();
        assert!(whole.is_whole());
        assert_eq!(whole.pruning(2), None);
        assert_eq!(whole.keep(2).items, [None, None]);
    }

    /// An extent, and an order of some of its tokens.
    fn item() -> impl Strategy<Value = (Grid, Option<Vec<u32>>)> {
        (1_usize..6, 1_usize..5, 1_usize..5).prop_flat_map(|(t, h, w)| {
            let tokens: Vec<u32> = (0..(t * h * w) as u32).collect();
            let most = tokens.len();
            let order = Just(tokens).prop_shuffle();
            let order = (order, 0..=most).prop_map(|(order, named)| order[..named].to_vec());
            (Just(grid(t, h, w)), prop::option::of(order))
        })
    }

    fn listed(kept: Option<Vec<u32>>, grid: Grid) -> Vec<u32> {
        kept.unwrap_or_else(|| (0..grid.patches() as u32).collect())
    }

    proptest! {
        #[test]
        fn kept_tokens_rise_are_in_range_and_as_many_as_asked_for(
            (grid, order) in item(), keep in 0.0..=1.0, frames in 0.001..=1.0,
        ) {
            let how = how(keep, frames);
            let once = kept(&how, grid, order.as_deref());
            let again = kept(&how, grid, order.as_deref());
            prop_assert_eq!(&once, &again);
            let (tokens, a_frame) = (grid.patches(), grid.h * grid.w);
            let held = share_of(frames, grid.t).max(1) * a_frame;
            let wanted = share_of(keep, tokens).min(held);
            prop_assert_eq!(once.is_none(), wanted == tokens);
            let kept = listed(once, grid);
            prop_assert_eq!(kept.len(), wanted);
            prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(kept.iter().all(|&token| (token as usize) < tokens));
            let mut of: Vec<usize> = kept.iter().map(|&token| token as usize / a_frame).collect();
            of.dedup();
            prop_assert!(of.len() * a_frame <= held);
        }

        #[test]
        fn a_larger_share_keeps_what_a_smaller_one_keeps(
            (grid, order) in item(), one in 0.0..=1.0, other in 0.0..=1.0, frames in 0.001..=1.0,
        ) {
            let order = order.unwrap_or_default();
            let (less, more) = if one < other { (one, other) } else { (other, one) };
            let of = |keep, frames| listed(kept(&how(keep, frames), grid, Some(order.as_slice())), grid);
            let (small, large) = (of(less, frames), of(more, frames));
            prop_assert!(small.iter().all(|token| large.contains(token)), "{small:?} {large:?}");
            let (small, large) = (of(1.0, less.max(0.001)), of(1.0, more.max(0.001)));
            prop_assert!(small.iter().all(|token| large.contains(token)), "{small:?} {large:?}");
        }

        #[test]
        fn what_is_spread_has_both_ends(all in 1_usize..200, wanted in 2_usize..200) {
            let numbers: Vec<usize> = spread(all, wanted).collect();
            prop_assert_eq!(numbers.len(), wanted.min(all));
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!((numbers[0], numbers[numbers.len() - 1]), (0, all - 1));
        }
    }
}
