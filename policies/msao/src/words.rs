//! Why a plan is as it is, in words.

use alloc::format;
use alloc::string::String;

use msao_plugin::{Calibration, Part, PartPlan, Plan, PlanInput, Rest, Route, Treatment, modality};

use crate::Settings;
use crate::arms::{Arm, Weighed, weigh};
use crate::choice::is_better;

/// An explanation holds 4,096 bytes; the last lines need some of them.
const MAX_BYTES: usize = 3_400;

fn place(arm: &Arm) -> String {
    match (arm.route, arm.row) {
        (Route::Edge, _) => "the draft model here".into(),
        (Route::Cloud, 0) => "the target here".into(),
        (Route::Cloud, row) => format!("the target at peer {row}"),
        (Route::CloudDraft, 0) => "both models here".into(),
        (Route::CloudDraft, row) => format!("both models at peer {row}"),
        (Route::Speculate, row) => format!("drafts from here, verified at peer {row}"),
    }
}

/// What an arm's score is made of, in ms.
fn components(arm: &Arm) -> [(&'static str, f64); 9] {
    let off = arm.first_off;
    let way_ms = arm.times.first_ms - arm.waits_ms - arm.upload_ms - arm.read_ms;
    [
        ("the probe", arm.probe_ms),
        ("waits", arm.waits_ms * off),
        ("upload", arm.upload_ms * off),
        ("reading", arm.read_ms * off),
        ("the way", way_ms * off),
        ("tokens", arm.total_ms - arm.first_ms),
        ("price", arm.price_ms),
        ("charge", arm.charge_ms),
        ("doubt", arm.doubt_ms),
    ]
}

fn line(arm: &Arm) -> String {
    let mut words = format!(
        "\n{}: {:.0}; some {:.0} ms, the first token after {:.0} ms",
        place(arm),
        arm.score,
        arm.total_ms,
        arm.first_ms
    );
    let mut sign = " (";
    for (name, ms) in components(arm) {
        if ms >= 0.5 {
            words += &format!("{sign}{name} {ms:.0}");
            sign = ", ";
        }
    }
    if sign != " (" {
        words += ")";
    }
    let off = arm.first_off - 1.0 + (arm.rest_off - 1.0);
    if !(-1e-9..=1e-9).contains(&off) {
        words += &format!(
            "; firsts were off by {:.2} before, rests by {:.2}",
            arm.first_off, arm.rest_off
        );
    }
    if arm.route == Route::Speculate {
        words += &format!("; {:.0}% of drafts stand", 100.0 * arm.acceptance);
    }
    for (is_so, so) in [
        (arm.rank >= 2, "; late"),
        (
            arm.rank % 2 == 1 && arm.route != Route::Edge,
            "; no room as things are",
        ),
        (arm.declined, "; declined: it does not pay"),
    ] {
        if is_so {
            words += so;
        }
    }
    words
}

fn treatment(how: &Treatment) -> String {
    let mut words = match how.keep {
        keep if keep <= 0.0 => return "nothing".into(),
        keep if keep >= 1.0 => String::from("all"),
        keep => format!("{:.0}%", 100.0 * keep),
    };
    if how.quality > 0 {
        words += &format!(" as JPEG of quality {}", how.quality);
    }
    if how.scale < 1.0 {
        words += &format!(" at {:.0}% of its size", 100.0 * how.scale);
    }
    if how.keep < 1.0 && how.rest == Rest::Flatten {
        words += ", the rest painted over";
    }
    words
}

fn kept(part: &Part, plan: &PartPlan) -> String {
    let name = match part.modality {
        modality::VIDEO => "clip",
        modality::AUDIO => "sound",
        _ => "image",
    };
    let scores = match part.mas >= 0.0 {
        true => format!(
            "necessity {:.2}, MAS {:.2}, unusual {:.2}",
            part.necessity, part.mas, part.unusual
        ),
        false => "not looked at".into(),
    };
    format!(
        "\n{name} of {} tokens ({scores}): the target gets {}; the draft model {}",
        part.tokens,
        treatment(&plan.target),
        treatment(&plan.draft)
    )
}

/// What counts most between the plan's way and the best other one.
fn decided(plan: &Plan, weighed: &Weighed) -> Option<String> {
    // An edge answer's row is this node's, whoever its media are brought to.
    let edge = plan.route == Route::Edge;
    let is_plans = |arm: &&Arm| arm.route == plan.route && (edge || arm.row == plan.peer);
    let chosen = weighed.arms.iter().find(is_plans)?;
    let others = (weighed.arms.iter()).filter(|arm| !is_plans(arm) && !arm.declined);
    let mut next: Option<&Arm> = None;
    for arm in others {
        if next.is_none_or(|next| is_better(arm, next)) {
            next = Some(arm);
        }
    }
    let next = next?;
    let mut most = ("nothing", 0.0);
    for ((name, own), (_, other)) in components(chosen).into_iter().zip(components(next)) {
        let less = other - own;
        if less > most.1 {
            most = (name, less);
        }
    }
    Some(format!(
        "\nAgainst {}, what speaks for it most: {}, {:.0} ms less.",
        place(next),
        most.0,
        most.1
    ))
}

/// All ways that there are, the best first; what is kept; and what decided.
pub(crate) fn explain(input: &PlanInput, plan: &Plan) -> String {
    let settings = Settings::read(input.params);
    let nothing = Calibration::default();
    let input = &settings.input(input, &nothing);
    let mut weighed = weigh(input, &settings);
    let media = &weighed.media;
    let mut words = format!(
        "{:.0} tokens to read, {:.0} of them of media of {:.0} bytes; some {:.0} to write. In ms:",
        media.tokens.first().copied().unwrap_or(0.0),
        media.media_tokens,
        media.bytes.first().copied().unwrap_or(0.0),
        weighed.tokens
    );
    if weighed.arms.is_empty() {
        return words + "\nNothing that may answer is up.";
    }
    // Stable: equals stay in the order of rows.
    weighed
        .arms
        .sort_by(|a, b| (a.rank.cmp(&b.rank)).then(a.score.total_cmp(&b.score)));
    let parts = input.parts.iter().zip(&plan.parts);
    let media = parts
        .filter(|(part, _)| part.is_media())
        .map(|(part, plan)| kept(part, plan));
    let lines = weighed.arms.iter().map(line).chain(media);
    let all = weighed.arms.len() + plan.parts.len();
    for (number, line) in lines.enumerate() {
        if words.len() + line.len() > MAX_BYTES {
            words += &format!("\nand up to {} lines more", all - number);
            break;
        }
        words += &line;
    }
    if let Some(decided) = decided(plan, &weighed) {
        words += &decided;
    }
    words
}
