//! Why a plan is as it is, in words.

use alloc::format;
use alloc::string::String;

use msao_plugin::{PlanInput, Route};

use crate::Settings;
use crate::choice::{Arm, weigh};
use crate::demand::Demand;

/// An explanation holds 4,096 bytes; the last line needs some of them.
const MAX_BYTES: usize = 3_900;

fn place(arm: &Arm) -> String {
    match (arm.id.route, arm.id.row) {
        (Route::Edge | Route::Speculate, _) => "the draft model here".into(),
        (Route::Cloud, 0) => "the target here".into(),
        (Route::Cloud, row) => format!("the target at peer {row}"),
        (Route::CloudDraft, 0) => "both models here".into(),
        (Route::CloudDraft, row) => format!("both models at peer {row}"),
    }
}

/// Which constraints it oversteps.
fn oversteps(arm: &Arm) -> String {
    let violation = &arm.forecast.violation;
    let by = [
        ("time", violation.time),
        ("bandwidth", violation.bandwidth),
        ("waiting", violation.waiting),
        ("cache", violation.cache),
    ];
    let mut words = String::new();
    for (name, _) in by.into_iter().filter(|(_, by)| *by > 0.0) {
        words += if words.is_empty() {
            "; oversteps "
        } else {
            ", "
        };
        words += name;
    }
    words
}

/// All arms, those with the highest index first.
pub(crate) fn explain(input: &PlanInput) -> String {
    let settings = Settings::read(input.params);
    let demand = Demand::of(input, &settings);
    let mut arms = weigh(input, &demand, &settings);
    let mut words = format!(
        "{} tokens to read, up to {} to write, {:.0} bytes of media, within {:.0} ms: class {}.",
        input.request.prompt_tokens,
        input.request.max_tokens,
        demand.media_bytes,
        demand.goal_ms,
        demand.class
    );
    if arms.is_empty() {
        return words + "\nNothing that may answer is up.";
    }
    // Stable: equals stay in the order of rows.
    arms.sort_by(|a, b| b.index.total_cmp(&a.index));
    for (number, arm) in arms.iter().enumerate() {
        let line = format!(
            "\n{}: index {:.3}; {}; some {:.0} ms{}",
            place(arm),
            arm.index,
            match arm.trials > 0.0 {
                true => format!(
                    "mean {:.3} of {:.0}, bonus {:.3}",
                    arm.mean, arm.trials, arm.bonus
                ),
                false => format!("untried, bonus {:.3}", arm.bonus),
            },
            arm.forecast.corrected_ms,
            oversteps(arm)
        );
        if words.len() + line.len() > MAX_BYTES {
            return words + &format!("\nand {} more", arms.len() - number);
        }
        words += &line;
    }
    words
}
