//! Which tokens go last: a few by worth and diversity, and then an even sample of the others.
//!
//! The few, `pointed` of all, by greedy determinantal selection (CDPruner, arXiv 2506.10967), below. Behind them comes a grid that
//! grows finer (LLaVA-PruMerge+, arXiv 2403.15388, adds an even sample too): what stands out answers most questions, but
//! whoever counts goes by what is around and between as well. Where plain ground went last, things were seen and miscounted
//! at half of the tokens.
//!
//! With unit features `f_i` and worths `w_i` in [0, 1], the kernel is `L = diag(w) (F F^T + ridge I) diag(w)`. Each step
//! takes the token that adds most to the determinant: the one with the largest `w_i^2 * v_i`, where `v_i` is what is left
//! of its variance once those taken before are known.
//!
//! In CDPruner a token is worth its relevance. Here it is worth its saliency too ([`worth`]): what early layers pay to single tokens is a
//! rough guide, and by it alone plain ground was kept before things that stand out.
//!
//! The usual recursion over the kernel's rows costs `N * T` a step. Features have only 16 dimensions or so, so `v` is
//! kept in their space: `v_i = ridge + f_i^T M f_i`, with `M` the identity at first and `M -= u u^T / v_j`, `u = M f_j`,
//! for each `j` taken; `N * dim` a step, and the same numbers (Woodbury). The ridge is what a kernel of so low a rank needs: without
//! it nothing would be left after as many tokens as there are dimensions.

use alloc::vec::Vec;

use msao_plugin::{ItemView, math};

/// Below this norm a feature has no direction.
const TINY: f32 = 1e-12;

/// All tokens of the item, most needed first: the share `pointed` of them by worth, up to `greedy` by diversity too, and the others as
/// a grid that grows finer. What is worth nothing is left to the grid. `columns`: its features of length 1.
pub(crate) fn keep_order(
    view: &ItemView,
    columns: &[Vec<f32>],
    greedy: usize,
    ridge: f64,
    salience: f64,
    pointed: f64,
) -> Vec<u32> {
    let worth = worth(view, salience as f32);
    let first = math::ceil(pointed * view.len() as f64) as usize;
    let mut order = select(columns, &worth, greedy.min(first), ridge as f32);
    let at = |token: &u32| worth.get(*token as usize).copied().unwrap_or(0.0);
    let by_worth = |a: &u32, b: &u32| at(b).total_cmp(&at(a)).then(a.cmp(b));
    let mut next = left(view.len(), &order, 0..view.len() as u32);
    next.retain(|token| at(token) > 0.0);
    let places = first.saturating_sub(order.len());
    // Of a large item only a small part has to be sorted.
    if places < next.len() {
        next.select_nth_unstable_by(places, by_worth);
        next.truncate(places);
    }
    next.sort_unstable_by(by_worth);
    order.append(&mut next);
    let mut rest = left(view.len(), &order, view.coarse_to_fine());
    order.append(&mut rest);
    order
}

/// Those of `tokens` that have not been taken.
fn left(count: usize, taken: &[u32], tokens: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut free = alloc::vec![true; count];
    for &token in taken {
        if let Some(flag) = free.get_mut(token as usize) {
            *flag = false;
        }
    }
    let tokens = tokens.into_iter();
    tokens
        .filter(|token| free.get(*token as usize) == Some(&true))
        .collect()
}

/// What each token is worth by itself, in [0, 1]: its saliency beside the largest, of which the share `salience` counts whatever the
/// question is, and the rest by [`relevance`]. Relevance alone where saliency says nothing.
pub(crate) fn worth(view: &ItemView, salience: f32) -> Vec<f32> {
    let mut worth = relevance(view);
    let finite = view.saliency.iter().copied().filter(|it| it.is_finite());
    let most = finite.fold(0.0_f32, f32::max);
    if most > 0.0 {
        for (worth, saliency) in worth.iter_mut().zip(view.saliency) {
            let stands_out = if saliency.is_finite() {
                (saliency / most).max(0.0)
            } else {
                0.0
            };
            *worth = stands_out * (salience + (1.0 - salience) * *worth);
        }
    }
    worth
}

/// What the question pays to each token beyond what any text would, scaled to [0, 1]. All 1 where that is the same for
/// all; 0 where it is not a number.
pub(crate) fn relevance(view: &ItemView) -> Vec<f32> {
    let mut values: Vec<f32> = view
        .relevance
        .iter()
        .zip(view.baseline)
        .map(|(asked, any)| asked - any)
        .collect();
    values.resize(view.len(), f32::NAN);
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = (
        finite().fold(f32::INFINITY, f32::min),
        finite().fold(f32::NEG_INFINITY, f32::max),
    );
    let range = high - low;
    for value in &mut values {
        *value = match value.is_finite() {
            true if range > 0.0 && range.is_finite() => (*value - low) / range,
            true => 1.0,
            false => 0.0,
        };
    }
    values
}

/// Features of length 1, a column a dimension. A token without a direction has zeros: it is like no other.
pub(crate) fn unit_columns(view: &ItemView) -> Vec<Vec<f32>> {
    let (dim, tokens) = (view.dim, view.len());
    let mut columns = alloc::vec![alloc::vec![0.0; tokens]; dim];
    if dim == 0 {
        return columns;
    }
    for (token, feature) in view.features.chunks_exact(dim).enumerate().take(tokens) {
        let norm = math::sqrtf(feature.iter().map(|value| value * value).sum());
        if !norm.is_finite() || norm < TINY {
            continue;
        }
        for (column, value) in columns.iter_mut().zip(feature) {
            if let Some(place) = column.get_mut(token) {
                *place = value / norm;
            }
        }
    }
    columns
}

/// Takes up to `count` tokens greedily; ends early where nothing of worth is left. Its loops over tokens are element by
/// element, so that wide instructions change no bit.
#[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
pub(crate) fn select(columns: &[Vec<f32>], worth: &[f32], count: usize, ridge: f32) -> Vec<u32> {
    let (dim, tokens) = (columns.len(), worth.len());
    let mut variance: Vec<f32> = alloc::vec![ridge; tokens];
    for column in columns {
        for (left, value) in variance.iter_mut().zip(column) {
            *left += value * value;
        }
    }
    // What a token adds is its worth squared times what is left of its variance; a taken one adds nothing.
    let mut weight: Vec<f32> = worth.iter().map(|w| w * w).collect();
    let mut matrix: Vec<Vec<f32>> = (0..dim)
        .map(|row| (0..dim).map(|i| if i == row { 1.0 } else { 0.0 }).collect())
        .collect();
    let mut along: Vec<f32> = alloc::vec![0.0; tokens];
    let mut taken = Vec::with_capacity(count.min(tokens));
    while taken.len() < count.min(tokens) {
        let Some(best) = largest(&weight, &variance) else {
            break;
        };
        let feature: Vec<f32> = columns
            .iter()
            .map(|column| column.get(best).copied().unwrap_or(0.0))
            .collect();
        let direction: Vec<f32> = matrix.iter().map(|row| dot(row, &feature)).collect();
        let left = ridge + dot(&direction, &feature);
        taken.push(best as u32);
        if let Some(weight) = weight.get_mut(best) {
            *weight = 0.0;
        }
        along.fill(0.0);
        for (column, scale) in columns.iter().zip(&direction) {
            for (sum, value) in along.iter_mut().zip(column) {
                *sum += scale * value;
            }
        }
        for (left_over, known) in variance.iter_mut().zip(&along) {
            let rest = *left_over - known * known / left;
            *left_over = if rest > ridge { rest } else { ridge };
        }
        for (row, a) in matrix.iter_mut().zip(&direction) {
            for (entry, b) in row.iter_mut().zip(&direction) {
                *entry -= a * b / left;
            }
        }
    }
    taken
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The first token of those that add most, if that is above 0.
fn largest(weight: &[f32], variance: &[f32]) -> Option<usize> {
    let gains = weight
        .iter()
        .zip(variance)
        .map(|(weight, left)| weight * left);
    let (best, gain) =
        gains
            .enumerate()
            .fold((0, 0.0), |best, (token, gain)| match gain > best.1 {
                true => (token, gain),
                false => best,
            });
    (gain > 0.0).then_some(best)
}
