//! The index of each arm, and the arm with the highest.

use alloc::vec::Vec;

use msao_plugin::{PlanInput, math};

use crate::arms::{ArmId, Forecast, forecast, that_can_run};
use crate::demand::Demand;
use crate::{Settings, reason, reward_cell};

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
    let mut arms: Vec<Arm> = that_can_run(input)
        .into_iter()
        .map(|id| {
            let seen = input.calibration.get(reward_cell(demand.class, id));
            // Untried: as good as can be.
            let tried = seen.filter(|cell| cell.count > 0.0);
            Arm {
                id,
                forecast: forecast(input, demand, settings, id),
                trials: tried.map_or(0.0, |cell| cell.count),
                mean: tried.map_or(1.0, |cell| cell.mean),
                bonus: 0.0,
                index: 0.0,
            }
        })
        .collect();
    let all_trials: f64 = arms.iter().map(|arm| arm.trials).sum();
    let log_trials = math::ln(1.0 + all_trials);
    for arm in &mut arms {
        arm.bonus = settings.exploration * math::sqrt(log_trials / arm.trials.max(1.0));
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
    let best = arms
        .iter()
        .map(|arm| arm.index)
        .fold(f64::NEG_INFINITY, f64::max);
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
