//! Whether scores mean something: what post-processors say of a question's media, beside what the target really loses
//! without them.

use std::collections::BTreeMap;

use anyhow::Result;
use msao_core::chat::Modality;

use super::checkpoint::Checkpoint;
use super::fit::{Fit, fit};
use super::judges::{Judges, NAMES};
use super::lab::Lab;
use super::measure::{Depth, Item, MUCH, Measured, NONE, SHARES, Said, measure};
use super::progress::Progress;
use super::questions::{Asked, World};
use super::setting::{Setting, questions};
use super::stats::{area, mean, spearman};
use super::unseen;
use super::work::share;
use crate::report::Row;

/// The part's name.
pub const PART: &str = "scores";
/// Seed of the choice of questions.
const SEED: u64 = 0x5c0e;
/// Moves when what is measured of a question changes.
const EDITION: u32 = 1;

/// Rank correlation of necessity and harm.
const NECESSITY: f64 = 0.7;
/// Area under the curve of necessity for much harm.
const AREA: f64 = 0.95;
/// Rank correlation of MAS and what could really go.
const SPARSITY: f64 = 0.6;

/// The part's rows.
///
/// # Errors
/// Data, a model or a component fails, or it is interrupted.
pub fn rows(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    let mut judges = Judges::load(&setting.shelf)?;
    let fitted = fit(setting, &judges)?;
    judges.calibrate(fitted.params.clone(), fitted.calibration.clone());
    let all = crate::vqa::read(&setting.heldout)?;
    let world = World::new(&all);
    let seen = world.seen(setting.questions, SEED);
    let unseen = world.unseen(setting.questions.div_ceil(2), SEED);
    let asked: Vec<&Asked> = seen.iter().chain(&unseen).collect();
    let measured = ask(setting, &judges, &asked)?;
    let of = |asked: &[Asked]| -> Vec<&Measured> {
        let each = asked.iter().filter_map(|it| measured.get(&it.id));
        each.collect()
    };
    let mut rows = about_fit(&fitted);
    let (of_seen, of_unseen) = (of(&seen), of(&unseen));
    for (number, name) in NAMES.into_iter().enumerate() {
        let judged = number == 0;
        rows.extend(table(name, number, "", &of_seen, judged));
        rows.extend(table(name, number, "unseen mixes: ", &of_unseen, false));
    }
    rows.extend(unseen::rows(&of_seen, &of_unseen));
    Ok(rows)
}

/// Measures all questions that an earlier run has not.
fn ask(setting: &Setting, judges: &Judges, asked: &[&Asked]) -> Result<BTreeMap<String, Measured>> {
    let of = format!(
        "{PART} {EDITION}; {}; {}; questions {}",
        setting.pair()?,
        judges.named(),
        questions(&setting.heldout)?
    );
    let kept = setting.kept(PART);
    let (mut checkpoint, before) = Checkpoint::<Measured>::open(&kept, &of, setting.fresh)?;
    let before = before.into_iter().map(|it| (it.id.clone(), it));
    let mut measured: BTreeMap<String, Measured> = before.collect();
    let left: Vec<&Asked> = (asked.iter().copied())
        .filter(|it| !measured.contains_key(&it.id))
        .collect();
    let processor = setting.processor()?;
    let done = asked.len() - left.len();
    let mut progress = Progress::new("questions scored and taken apart", asked.len(), done);
    share(
        &left,
        setting.workers,
        &setting.interrupt,
        || Lab::load(&setting.models, &processor),
        |lab, asked| Ok(measure(lab, judges, asked, Depth::Shares)?.0),
        |_, it| {
            checkpoint.add(&it)?;
            measured.insert(it.id.clone(), it);
            progress.step();
            Ok(())
        },
    )?;
    progress.end();
    setting.interrupt.check(&setting.to_go_on(PART))?;
    checkpoint.remove()?;
    Ok(measured)
}

/// What `mas-joint` was calibrated by.
fn about_fit(fit: &Fit) -> Vec<Row> {
    let pins = fit.pins.iter().map(|(name, it)| format!("{name} = {it}"));
    let mut details = vec![match fit.pins.is_empty() {
        true => "no parameter of it could be fitted".to_owned(),
        false => format!("fitted: {}", pins.collect::<Vec<_>>().join(", ")),
    }];
    for (modality, map) in &fit.maps {
        let knots = map.at.iter().zip(&map.height);
        let knots: Vec<String> = knots
            .map(|(at, it)| format!("{at:.2} -> {it:.2}"))
            .collect();
        let (items, needed) = fit.seen.get(modality).copied().unwrap_or_default();
        details.push(format!(
            "{}: {needed} of {items} items were needed; by ln relevance: {}",
            modality.name(),
            knots.join(", ")
        ));
    }
    details.extend(fit.of.iter().map(|(key, it)| format!("{key}: {it}")));
    let (before, after) = fit.losses;
    let name = |by: &str| format!("calibration set: loss of mas-joint's necessity {by}");
    vec![
        Row::told(name("by its defaults"), before, " nats"),
        Row::told(name("as fitted"), after, " nats").with_details(details),
    ]
}

/// The figures of a post-processor over some questions: the first three are judged.
fn table(name: &str, number: usize, over: &str, measured: &[&Measured], judged: bool) -> Vec<Row> {
    let said = items(measured, number);
    let pairs = |of: &[(&Item, Said)]| -> Vec<(f64, f64)> {
        of.iter()
            .map(|(item, said)| (said.necessity, item.felt()))
            .collect()
    };
    let by_modality = [Modality::Image, Modality::Video, Modality::Audio].map(|modality| {
        let of: Vec<(&Item, Said)> = (said.iter().copied())
            .filter(|(item, _)| item.modality == modality)
            .collect();
        let needed = of.iter().filter(|(item, _)| item.is_needed()).count();
        let correlation = shown(spearman(&pairs(&of)));
        format!(
            "{}: {correlation} ({} items, {needed} of them needed)",
            modality.name(),
            of.len()
        )
    });
    let areas: Vec<(f64, bool)> = said
        .iter()
        .map(|(item, said)| (said.necessity, item.harm > MUCH))
        .collect();
    let much = areas.iter().filter(|(_, much)| *much).count();
    let could_go = |needed: bool| -> Vec<(f64, f64)> {
        said.iter()
            .filter(|(item, _)| item.is_needed() || !needed)
            .map(|(_, said)| (said.mas, 1.0 - said.least))
            .collect()
    };
    let needed = could_go(true);
    let least = mean(needed.iter().map(|(_, gone)| 1.0 - gone));
    let aimed = |name: String, value: Option<f64>, aim: f64| match (value, judged) {
        (Some(value), true) => Row::at_least(name, value, aim, ""),
        (Some(value), false) => Row::told(name, value, ""),
        (None, true) => Row::failed(name, &format!(">= {aim}"), "it never differs"),
        (None, false) => undefined(name),
    };
    let needed_alone = format!(
        "{} items; smallest share of {SHARES:?} without harm of {NONE} or more: {} on average",
        needed.len(),
        shown(least)
    );
    let counts = format!(
        "{much} of {} items of {} questions",
        areas.len(),
        measured.len()
    );
    let of_all = format!("{over}{name}: MAS and what can go of all items, needed or not, Spearman");
    vec![
        with(
            aimed(
                format!("{over}{name}: necessity and harm, Spearman"),
                spearman(&pairs(&said)),
                NECESSITY,
            ),
            by_modality,
        ),
        with(
            aimed(
                format!("{over}{name}: necessity for harm above {MUCH}, area under the curve"),
                area(&areas),
                AREA,
            ),
            [counts],
        ),
        with(
            aimed(
                format!("{over}{name}: MAS and what can go of items that are needed, Spearman"),
                spearman(&needed),
                SPARSITY,
            ),
            [needed_alone],
        ),
        // What nobody needs can go as a whole, whatever is in it: that is necessity's to say, and so no aim of this one.
        match spearman(&could_go(false)) {
            Some(value) => Row::told(of_all, value, ""),
            None => undefined(of_all),
        },
    ]
}

/// A row with more to look at.
fn with(mut row: Row, details: impl IntoIterator<Item = String>) -> Row {
    row.details.extend(details);
    row
}

/// All items, with what a post-processor says of each.
fn items<'a>(measured: &[&'a Measured], number: usize) -> Vec<(&'a Item, Said)> {
    let items = measured.iter().flat_map(|it| &it.items);
    items
        .filter_map(|item| Some((item, *item.said.get(number)?)))
        .collect()
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("{value:.3}"))
}

/// A figure that does not exist: what never differs goes with nothing.
fn undefined(name: String) -> Row {
    Row {
        name,
        figure: "never differs".into(),
        value: None,
        aim: String::new(),
        met: true,
        details: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(items: &[(f64, f64, f64, f64)]) -> Measured {
        let items = items.iter().map(|&(harm, necessity, mas, least)| Item {
            modality: Modality::Image,
            tokens: 100,
            relevance: 1.0,
            harm,
            said: vec![Said {
                necessity,
                mas,
                unusual: 0.25,
                least,
            }],
        });
        Measured {
            id: "1".into(),
            mix: "image".into(),
            items: items.collect(),
        }
    }

    #[test]
    fn the_table_holds_what_was_said_against_what_was_lost() {
        let one = measured(&[
            (-0.5, 0.1, 0.9, 0.05),
            (0.01, 0.1, 0.2, 0.05),
            (0.05, 0.6, 0.3, 0.75),
            (3.0, 0.9, 0.8, 0.25),
        ]);
        let rows = table("it", 0, "", &[&one], true);
        // Harm 0, 0, 0.05, 3: ranks 1.5, 1.5, 3, 4, and so are necessity's.
        assert_eq!(rows[0].value, Some(1.0));
        assert!(rows[0].met && rows[0].aim.contains("0.7"));
        assert_eq!((rows[1].value, rows[1].met), (Some(1.0), true));
        // Of the two that are needed the sparser one can lose more; of all four 0.9, 0.2, 0.3, 0.8 against 0.95, 0.95, 0.25,
        // 0.75: ranks 4, 1, 2, 3 and 3.5, 3.5, 1, 2 give 0.5 / sqrt(5 * 4.5).
        assert_eq!(rows[2].value, Some(1.0));
        let of_all = rows[3].value.unwrap();
        assert!((of_all - 0.5 / 22.5_f64.sqrt()).abs() < 1e-12, "{of_all}");
        assert!(rows[3].name.contains("of all items") && rows[3].aim.is_empty());
        assert!(rows[2].details[0].contains("0.500 on average"));
    }

    #[test]
    fn a_baseline_that_says_the_same_of_all_has_no_figure_and_no_aim() {
        let one = measured(&[(0.0, 1.0, 0.5, 0.05), (3.0, 1.0, 0.5, 0.25)]);
        let rows = table("it", 0, "", &[&one], false);
        assert!(rows.iter().all(|row| row.met && row.aim.is_empty()));
        assert_eq!((rows[0].value, rows[1].value), (None, Some(0.5)));
        // The judged one may not get away with it.
        let rows = table("it", 0, "", &[&one], true);
        assert!(rows.iter().take(3).all(|row| !row.met));
        // Nor with saying nothing.
        let rows = table("it", 7, "", &[&one], true);
        assert!(rows.iter().take(3).all(|row| !row.met));
    }
}
