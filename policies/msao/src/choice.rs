//! The way that is taken, of all that there are.

use msao_plugin::{PlanInput, Route};

use crate::arms::{Arm, Weighed};
use crate::cells::{self, seen};
use crate::{Settings, larger, reason};

/// What was chosen, and by what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen<'a> {
    pub(crate) arm: &'a Arm,
    /// Score of the best other one; -1 where there is none.
    pub(crate) next: f64,
    /// Of the manifest.
    pub(crate) reason: u32,
}

pub(crate) fn is_better(a: &Arm, b: &Arm) -> bool {
    a.rank < b.rank || (a.rank == b.rank && a.score < b.score)
}

/// SplitMix64's finish (Steele, Lea, Flood 2014): a number in `[0, 1)` of the seed.
fn drawn(seed: u64) -> f64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^= word >> 31;
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

/// The arm that was not taken for longest, of those close to the best, on the few requests that try one. Never the
/// draft model's own answer: it is no trial for the client. Nor what cannot pay by the node's own figures, whatever was
/// learned: so trials cost `explore * explore-band` of all time at most, as far as predictions are right, and a route
/// that turns out to be slower than predicted is soon no longer close.
fn tried<'a>(
    arms: &'a [Arm],
    best: &Arm,
    input: &PlanInput,
    settings: &Settings,
) -> Option<&'a Arm> {
    if drawn(input.request.seed) >= settings.explore {
        return None;
    }
    let close = best.score * (1.0 + settings.explore_band);
    let after = f64::from(settings.explore_after);
    let mut tried: Option<&Arm> = None;
    for arm in arms {
        let other = arm.route != best.route || arm.row != best.row;
        let pays = arm.route != Route::Edge && !arm.hopeless;
        let may = other && pays && arm.rank <= best.rank;
        let longest = tried.is_none_or(|tried| arm.stale > tried.stale);
        if may && longest && arm.stale >= after && arm.score <= close {
            tried = Some(arm);
        }
    }
    tried
}

/// Drafts from here that are verified in place of the draft model's own answer, which would be best if it were never amiss: on
/// `(checks-first / (checks-first + checked))^2` of such requests, `checked` having been verified before, and on `checks-least` of
/// them at least. Nothing else would ever tell how often it is.
fn checked<'a>(
    weighed: &'a Weighed,
    best: &Arm,
    input: &PlanInput,
    settings: &Settings,
) -> Option<&'a Arm> {
    let own = (weighed.arms.iter()).find(|arm| arm.route == Route::Edge)?;
    let gated = weighed.gated && own.rank <= best.rank;
    if !gated || own.score - own.doubt_ms > best.score {
        return None;
    }
    let known = seen(input.calibration.get(cells::amiss(weighed.shape)));
    let checked = known.map_or(0.0, |(_, count)| count);
    let first = settings.checks_first;
    let share = if first > 0.0 {
        first / (first + checked)
    } else {
        0.0
    };
    // Another number of the seed than the one by which ways are tried.
    if drawn(!input.request.seed) >= larger(share * share, settings.checks_least) {
        return None;
    }
    let mut found: Option<&Arm> = None;
    for arm in weighed
        .arms
        .iter()
        .filter(|arm| arm.route == Route::Speculate)
    {
        if arm.rank <= best.rank && found.is_none_or(|found| arm.score < found.score) {
            found = Some(arm);
        }
    }
    found
}

/// `None`: nothing can run it.
pub(crate) fn choose<'a>(
    weighed: &'a Weighed,
    input: &PlanInput,
    settings: &Settings,
) -> Option<Chosen<'a>> {
    let (mut best, mut second): (Option<&Arm>, Option<&Arm>) = (None, None);
    for arm in weighed.arms.iter().filter(|arm| !arm.declined) {
        if best.is_none_or(|best| is_better(arm, best)) {
            second = best;
            best = Some(arm);
        } else if second.is_none_or(|second| is_better(arm, second)) {
            second = Some(arm);
        }
    }
    let best = best?;
    let checked = checked(weighed, best, input, settings);
    let tried = match checked {
        Some(_) => None,
        None => tried(&weighed.arms, best, input, settings),
    };
    let other = checked.or(tried);
    let arm = other.unwrap_or(best);
    let next = if other.is_some() { Some(best) } else { second };
    let declines =
        |other: &Arm| other.declined && other.row == arm.row && other.route == Route::Speculate;
    Some(Chosen {
        arm,
        next: next.map_or(-1.0, |next| next.score),
        reason: match arm {
            _ if checked.is_some() => reason::CHECKS,
            _ if tried.is_some() => reason::TRIES,
            arm if arm.rank >= 2 => reason::LATE,
            arm if arm.route == Route::Edge && weighed.arms.len() == 1 => {
                match input.bound_here() {
                    true => reason::MEDIA_STAY,
                    false => reason::NO_TARGET,
                }
            }
            _ if weighed.arms.len() == 1 => reason::ONLY_ONE,
            arm if arm.route == Route::Speculate => reason::SPECULATES,
            _ if weighed.arms.iter().any(declines) => reason::DECLINES,
            _ => reason::QUICKEST,
        },
    })
}
