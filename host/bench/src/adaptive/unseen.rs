//! Whether what is said of media degrades safely where the mix is one that nothing was calibrated with: it is called more
//! unusual, more is kept of it, and no more harm is done.
//!
//! All of it follows from what `scores` has measured. What would be kept is reckoned by `msao`'s formula with the defaults
//! that it has for the draft model, the hardest that anything shipped does (`policies/msao/src/retention.rs`):
//!
//! ```text
//! rho  = keep-min + (1 - MAS) * (1 - keep-min)
//! keep = rho + unusual * (1 - rho)                      1 from 0.95 on; 0 where necessity < drop * (1 - unusual)
//! ```
//!
//! Too little is kept of an item that is needed if it is less than the smallest share without harm, by the keep order of
//! whoever is asked.

use super::measure::{Item, Measured, Said};
use super::stats::{Paired, mean, paired};
use crate::report::Row;

/// `draft-keep-min` and `draft-drop`, as the manifest has them.
const LEAST: f64 = 0.1;
const DROP: f64 = 0.05;
/// From here on it keeps all.
const NEARLY_ALL: f64 = 0.95;
const POINTS: &str = " points";
/// The numbers of the one that is judged, and of the baseline that it may not be worse than.
const OURS: usize = 0;
const UNIFORM: usize = 1;

/// An item, and of which question.
struct Seen<'a> {
    question: &'a str,
    item: &'a Item,
}

impl Seen<'_> {
    fn said(&self, number: usize) -> Option<Said> {
        self.item.said.get(number).copied()
    }

    /// The share that would be kept.
    fn kept(&self) -> Option<f64> {
        self.said(OURS).map(|said| kept(&said))
    }

    /// Whether that is too little, in the keep order of the post-processor of this number: 100 or 0.
    fn too_little(&self, number: usize) -> Option<f64> {
        let (kept, said) = (self.kept()?, self.said(number)?);
        Some(if kept < said.least { 100.0 } else { 0.0 })
    }
}

/// The share of an item that is kept by what is said of it.
fn kept(said: &Said) -> f64 {
    if said.necessity < DROP * (1.0 - said.unusual) {
        return 0.0;
    }
    let rho = LEAST + (1.0 - said.mas) * (1.0 - LEAST);
    let keep = rho + said.unusual * (1.0 - rho);
    if keep < NEARLY_ALL { keep } else { 1.0 }
}

fn all<'a>(measured: &[&'a Measured]) -> Vec<Seen<'a>> {
    let of = |it: &'a Measured| {
        let question = it.id.as_str();
        it.items.iter().map(move |item| Seen { question, item })
    };
    measured.iter().copied().flat_map(of).collect()
}

/// The mean of a figure over items, and its error: those of a question depend on each other.
fn over(items: &[Seen], of: impl Fn(&Seen) -> Option<f64>) -> Option<Paired> {
    let each = items.iter().filter_map(|it| Some((it.question, of(it)?)));
    paired(&each.collect::<Vec<_>>())
}

/// Of two sets of items that have nothing to do with each other, how much more a figure is over the second; and the error of
/// that.
fn more(one: Option<Paired>, other: Option<Paired>) -> Option<(f64, f64)> {
    let (one, other) = (one?, other?);
    Some((other.mean - one.mean, one.error.hypot(other.error)))
}

/// The rows about both.
pub fn rows(seen: &[&Measured], unseen: &[&Measured]) -> Vec<Row> {
    let (seen, unseen) = (all(seen), all(unseen));
    let mut rows = unusual(&seen, &unseen);
    rows.push(retention(&seen, &unseen));
    rows.push(harm(&seen, &unseen));
    rows.push(beside_uniform(&unseen));
    rows
}

/// How unusual items are said to be: higher where less is known.
fn unusual(seen: &[Seen], unseen: &[Seen]) -> Vec<Row> {
    let of = |items: &[Seen]| {
        let said = items.iter().filter_map(|it| it.said(OURS));
        mean(said.map(|said| said.unusual))
    };
    let (known, other) = (of(seen), of(unseen));
    let told = |over: &str, figure: Option<f64>| {
        let name = format!("{over}mas-joint: how unusual items are, mean");
        Row::told(name, figure.unwrap_or(f64::NAN), "")
    };
    let name = "unseen mixes: mas-joint: how much more unusual items are there";
    let more = known.zip(other).map(|(known, other)| other - known);
    vec![
        told("", known),
        told("unseen mixes: ", other),
        match more {
            Some(more) => Row::above(name, more, 0.0, ""),
            None => Row::failed(name, "> 0", NOTHING),
        },
    ]
}

const NOTHING: &str = "too few items were scored";

/// The share that would be kept.
fn retention(seen: &[Seen], unseen: &[Seen]) -> Row {
    let name = "unseen mixes: mas-joint: how much more is kept there, in points";
    let of = |items: &[Seen]| over(items, |it| it.kept().map(|kept| 100.0 * kept));
    let (known, other) = (of(seen), of(unseen));
    let Some((points, error)) = more(known, other) else {
        return Row::failed(name, "no less than is kept of others", NOTHING);
    };
    // 0 less the error, so that no row says "-0".
    Row::at_least(name, points, 0.0 - error, POINTS).with_more(Some(format!(
        "{} and {} % of an item on average; standard error {error:.2} points",
        shown(known),
        shown(other)
    )))
}

/// Needed items of which too little would be kept, beside those of mixes that were seen.
fn harm(seen: &[Seen], unseen: &[Seen]) -> Row {
    let name = "unseen mixes: needed items of which too little is kept, beyond those of seen mixes";
    let of = |items: &[Seen]| {
        over(items, |it| {
            it.item.is_needed().then(|| it.too_little(OURS)).flatten()
        })
    };
    let (known, other) = (of(seen), of(unseen));
    let Some((points, error)) = more(known, other) else {
        return Row::failed(name, "no more than of seen mixes", NOTHING);
    };
    let needed = unseen.iter().filter(|it| it.item.is_needed());
    let dropped = needed.filter(|it| it.kept() == Some(0.0)).count();
    Row::at_most(name, points, error, POINTS).with_details(vec![
        format!(
            "{} and {} % of them; standard error {error:.2} points",
            shown(known),
            shown(other)
        ),
        format!("{dropped} of those over unseen mixes would be dropped"),
    ])
}

/// The same, beside what `uniform` makes of the same shares of the same items.
fn beside_uniform(unseen: &[Seen]) -> Row {
    let name = "unseen mixes: needed items of which too little is kept: mas-joint less uniform at the same shares";
    let difference = |it: &Seen| {
        let more = it.too_little(OURS)? - it.too_little(UNIFORM)?;
        it.item.is_needed().then_some(more)
    };
    let Some(all) = over(unseen, difference) else {
        return Row::failed(name, "no more than by uniform", NOTHING);
    };
    Row::at_most(name, all.mean, all.error, POINTS).with_more(Some(format!(
        "paired standard error {:.2} points over {} items",
        all.error, all.count
    )))
}

fn shown(figure: Option<Paired>) -> String {
    figure.map_or_else(|| "none".to_owned(), |it| format!("{:.1}", it.mean))
}

#[cfg(test)]
mod tests {
    use msao_core::chat::Modality;

    use super::*;

    fn said(necessity: f64, mas: f64, unusual: f64, least: f64) -> Said {
        Said {
            necessity,
            mas,
            unusual,
            least,
        }
    }

    /// A question of one item.
    fn one(id: &str, harm: f64, ours: Said, uniform: f64) -> Measured {
        Measured {
            id: id.into(),
            mix: "image".into(),
            items: vec![Item {
                modality: Modality::Image,
                tokens: 100,
                relevance: 1.0,
                harm,
                said: vec![ours, said(1.0, 0.0, 1.0, uniform)],
            }],
        }
    }

    #[test]
    fn what_is_kept_is_what_the_policy_keeps() {
        assert!((kept(&said(1.0, 1.0, 0.0, 1.0)) - 0.1).abs() < 1e-12);
        // 0.1 + 0.5 * 0.9, and half of the rest.
        assert!((kept(&said(1.0, 0.5, 0.5, 1.0)) - 0.775).abs() < 1e-12);
        assert_eq!(kept(&said(1.0, 1.0, 1.0, 1.0)), 1.0);
        assert_eq!(kept(&said(0.04, 0.0, 0.0, 1.0)), 0.0);
        // What is unusual is not dropped so soon.
        assert!(kept(&said(0.04, 0.0, 0.5, 1.0)) > 0.9);
    }

    fn verdicts(seen: &[Measured], unseen: &[Measured]) -> Vec<bool> {
        let (seen, unseen): (Vec<_>, Vec<_>) = (seen.iter().collect(), unseen.iter().collect());
        let rows = rows(&seen, &unseen);
        let aimed = rows.iter().filter(|row| !row.aim.is_empty());
        aimed.map(|row| row.met).collect()
    }

    #[test]
    fn to_keep_more_of_what_is_unusual_is_safe() {
        let seen = [
            one("a", 1.0, said(0.9, 0.8, 0.1, 0.25), 0.25),
            one("b", 1.0, said(0.9, 0.8, 0.1, 0.25), 0.25),
        ];
        let unseen = [
            one("c", 1.0, said(0.9, 0.8, 0.6, 0.5), 0.5),
            one("d", 1.0, said(0.9, 0.8, 0.6, 0.5), 0.5),
        ];
        assert_eq!(verdicts(&seen, &unseen), [true; 4]);
        // The other way round the same is not, but for what uniform does as well.
        assert_eq!(verdicts(&unseen, &seen), [false, false, true, true]);
    }

    #[test]
    fn harm_beyond_that_of_seen_mixes_or_of_uniform_misses() {
        let good = |id: &str| one(id, 1.0, said(0.9, 0.8, 0.1, 0.1), 0.1);
        // More is kept, and too little all the same; uniform would do with it.
        let bad = |id: &str| one(id, 1.0, said(0.9, 0.6, 0.2, 1.0), 0.25);
        let (seen, unseen) = ([good("a"), good("b")], [bad("c"), bad("d")]);
        assert_eq!(verdicts(&seen, &unseen), [true, true, false, false]);
        // Of what nobody needs nothing is too little.
        let unneeded = |id: &str| one(id, 0.0, said(0.0, 0.6, 0.2, 1.0), 0.25);
        let unseen = [bad("c"), unneeded("d"), unneeded("e")];
        let met = verdicts(&seen, &unseen);
        assert!(
            !met[2] && !met[3],
            "one question alone shows nothing: {met:?}"
        );
    }

    #[test]
    fn a_needed_item_that_would_be_dropped_counts() {
        let dropped = |id: &str| one(id, 1.0, said(0.01, 0.5, 0.0, 0.05), 0.05);
        let items = [dropped("a"), dropped("b")];
        let all: Vec<&Measured> = items.iter().collect();
        let row = harm(&super::all(&[]), &super::all(&all));
        assert!(!row.met, "nothing was seen: {row:?}");
        let good = [
            one("c", 1.0, said(0.9, 0.0, 0.5, 0.1), 0.1),
            one("d", 1.0, said(0.9, 0.0, 0.5, 0.1), 0.1),
        ];
        let good: Vec<&Measured> = good.iter().collect();
        let row = harm(&super::all(&good), &super::all(&all));
        assert_eq!((row.value, row.met), (Some(100.0), false));
        assert!(row.details[1].starts_with("2 of those"), "{row:?}");
    }
}
