//! The index of each arm, and the arm with the highest.

use alloc::vec::Vec;

use msao_plugin::{PlanInput, math};

use crate::arms::{ArmId, Forecast, Row, each_that_can_run};
use crate::demand::Demand;
use crate::{Settings, reason, reward_cell, time_cell};

/// An arm with all that is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arm {
    pub(crate) id: ArmId,
    pub(crate) forecast: Forecast,
    /// For such demands.
    pub(crate) trials: f64,
    pub(crate) mean: f64,
    pub(crate) bonus: f64,
    pub(crate) index: f64,
}

/// What was chosen.
pub(crate) struct Chosen {
    pub(crate) arm: Arm,
    /// Of the manifest.
    pub(crate) reason: u32,
    /// Arms that could run it.
    pub(crate) arms: usize,
}

/// All arms that can run the request, weighed.
pub(crate) fn weigh(input: &PlanInput, demand: &Demand, settings: &Settings) -> Vec<Arm> {
    // At most two of a peer, and three here.
    let mut arms = Vec::with_capacity(2 * input.nodes.len() + 1);
    // Arms come by rising number, and so do their cells.
    let nobody = ArmId::FIRST;
    let mut rewards = input.calibration.rising(reward_cell(demand.class, nobody));
    let mut times = input.calibration.rising(time_cell(nobody));
    let mut row: Option<(u32, Row)> = None;
    let mut all_trials = 0.0;
    each_that_can_run(input, |id| {
        let known = match row {
            Some((number, known)) if number == id.row => known,
            _ => Row::of(input, demand, settings, id.row),
        };
        row = Some((id.row, known));
        let off = times.get(time_cell(id)).map_or(1.0, |cell| cell.mean);
        let seen = rewards.get(reward_cell(demand.class, id));
        // Untried: as good as can be.
        let tried = seen.filter(|cell| cell.count > 0.0);
        let trials = tried.map_or(0.0, |cell| cell.count);
        all_trials += trials;
        arms.push(Arm {
            id,
            forecast: known.forecast(demand, id.route, off),
            trials,
            mean: tried.map_or(1.0, |cell| cell.mean),
            bonus: 0.0,
            index: 0.0,
        });
    });
    let log_trials = math::ln(1.0 + all_trials);
    for arm in &mut arms {
        let trials = if arm.trials > 1.0 { arm.trials } else { 1.0 };
        arm.bonus = settings.exploration * math::sqrt(log_trials / trials);
        let index = arm.mean + arm.bonus - settings.penalty * arm.forecast.violation.sum();
        arm.index = if index.is_nan() {
            f64::NEG_INFINITY
        } else {
            index
        };
    }
    arms
}

/// SplitMix64's finish (Steele, Lea, Flood 2014): a number below `bound` of the seed.
fn drawn(seed: u64, bound: usize) -> usize {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^= word >> 31;
    ((u128::from(word) * bound as u128) >> 64) as usize
}

/// `None`: nothing can run it.
pub(crate) fn choose(input: &PlanInput, demand: &Demand, settings: &Settings) -> Option<Chosen> {
    let arms = weigh(input, demand, settings);
    let mut best = f64::NEG_INFINITY;
    for arm in &arms {
        if arm.index > best {
            best = arm.index;
        }
    }
    let equals = || arms.iter().filter(|arm| arm.index >= best);
    let arm = *equals().nth(drawn(input.request.seed, equals().count()))?;
    Some(Chosen {
        arm,
        reason: match arm {
            _ if arms.len() == 1 => reason::ONLY_ONE,
            arm if arm.forecast.violation.sum() > 0.0 => reason::OVERSTEPS,
            arm if arm.trials > 0.0 => reason::BEST,
            _ => reason::UNTRIED,
        },
        arms: arms.len(),
    })
}
