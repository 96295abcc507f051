//! How accurate the answers are, and what stands behind them.

use std::collections::BTreeMap;

use super::super::analysis::{Analysis, difference};
use super::super::doc::{Doc, Line, Look, number, or_dash};
use super::look;
use crate::plan::Purpose;
use crate::rows::{Class, Row, word};
use crate::spec::{Data, Spec};
use crate::stats::{Decided, level_of, mean};

pub(super) fn accuracy(doc: &mut Doc, analysis: &Analysis) {
    let spec = analysis.spec();
    if spec.pair.is_twin() {
        return;
    }
    doc.heading(2, "Accuracy");
    doc.text(format!(
        "In points of 100. A policy is ranked if the one-sided 95% bound of its paired difference to {} is above -{} points. Items of one \
         group (a picture, a question's rotations) count as one sample. A request without an answer counts as wrong.",
        spec.baseline,
        spec.margin_points()
    ));
    for data in &spec.data {
        asked_how(doc, spec, data);
        let mut rows = Vec::new();
        for (links, link) in analysis.judged_over() {
            for policy in &spec.policies {
                let scored = analysis.scored(&data.name, link, &policy.name);
                let scores: Vec<f64> = if scored.iter().any(|it| it.measured.score.is_some()) {
                    scored.iter().filter_map(|row| row.score()).collect()
                } else {
                    Vec::new()
                };
                let Some(accuracy) = mean(&scores) else {
                    continue;
                };
                let parsed: Vec<f64> = (scored.iter())
                    .filter_map(|row| row.measured.parsed.map(|it| f64::from(u8::from(it))))
                    .collect();
                let apart = scored
                    .first()
                    .is_some_and(|it| it.key.purpose == Purpose::Accuracy);
                let verdict = analysis.verdict(&data.name, link, &policy.name);
                let standing = analysis.qualified(&data.name, link, policy);
                let more = match verdict.map(|it| it.decided) {
                    Some(Decided::Undecided { more: Some(more) }) => format!("{more} more items"),
                    _ => String::new(),
                };
                let told = if policy.name == spec.baseline {
                    "baseline".to_owned()
                } else {
                    verdict_word(verdict.map(|it| it.decided))
                };
                rows.push(Line {
                    cells: vec![
                        links.clone(),
                        policy.name.clone(),
                        scores.len().to_string(),
                        if apart {
                            "apart".to_owned()
                        } else {
                            "timed turns".to_owned()
                        },
                        format!("{:.2}", 100.0 * accuracy),
                        verdict.map_or("-".to_owned(), |it| format!("{:+.2}", it.difference)),
                        verdict.map_or("-".to_owned(), |it| format!("{:+.2}", it.lower)),
                        told,
                        more,
                        or_dash(mean(&parsed), |it| format!("{:.1}%", 100.0 * (1.0 - it))),
                    ],
                    look: look(analysis, policy, standing.is_ranked()),
                });
            }
        }
        let head = [
            "link",
            "policy",
            "scores",
            "told by",
            "accuracy",
            "difference",
            "at least",
            "verdict",
            "to decide",
            "unparsed",
        ];
        doc.table(format!("Accuracy on {}", data.name), &head, rows);
        if spec.is_pooled() {
            by_link(doc, analysis, data);
        }
    }
}

/// Where accuracy was asked otherwise than all items of all policies over each link.
fn asked_how(doc: &mut Doc, spec: &Spec, data: &Data) {
    let Some(accuracy) = &spec.accuracy else {
        return;
    };
    let asked = spec.accuracy_data(data);
    if let Some(folder) = asked.folder.as_ref().filter(|_| asked != *data) {
        doc.text(format!(
            "{}: asked apart with questions of their own, of {}.",
            data.name,
            folder.display()
        ));
    }
    let looks: Vec<String> = (accuracy.looks(asked.n).iter())
        .map(u32::to_string)
        .collect();
    if !looks.is_empty() {
        let level = 100.0 * level_of(looks.len());
        doc.text(format!(
            "{}: asked in rounds. After {} items it was looked which policies are decided, and those were asked no further. The {} looks \
             were fixed beforehand, each with bounds of {level:.2}%, so that all together are of 95%. Beyond the first round {} asked. \
             Where policies have different numbers of scores, compare them by their differences alone.",
            data.name,
            looks.join(" and "),
            looks.len(),
            match accuracy.grow.is_empty() {
                true => "everybody undecided was".to_owned(),
                false => format!("only {} and the baseline were", accuracy.grow.join(", ")),
            }
        ));
    }
    if accuracy.pooled {
        doc.text(
            "Links took turns, chunk by chunk: a verdict is on all of them together and holds for every link of the specification. What \
             was found over each alone is told below, and judged nowhere.",
        );
    }
}

/// What one verdict holds together.
fn by_link(doc: &mut Doc, analysis: &Analysis, data: &Data) {
    let spec = analysis.spec();
    let mut rows = Vec::new();
    for link in spec.accuracy_links() {
        let of = |policy: &str| -> Vec<&Row> {
            let scored = analysis.scored(&data.name, &link.name, policy);
            let here = scored.into_iter().filter(|it| it.key.link == link.name);
            here.collect()
        };
        let baseline = of(&spec.baseline);
        for policy in spec.policies.iter().filter(|it| it.name != spec.baseline) {
            if let Some((found, items)) = difference(&of(&policy.name), &baseline) {
                rows.push(Line {
                    cells: vec![
                        link.name.clone(),
                        policy.name.clone(),
                        items.to_string(),
                        format!("{:+.2}", 100.0 * found),
                    ],
                    look: Look::Usual,
                });
            }
        }
    }
    doc.table(
        format!("Found over each link alone, on {}", data.name),
        &["link", "policy", "scores", "difference"],
        rows,
    );
}

fn verdict_word(decided: Option<Decided>) -> String {
    match decided {
        None => "no scores",
        Some(Decided::Qualified) => "equal",
        Some(Decided::Worse) => "worse",
        Some(Decided::Undecided { .. }) => "undecided",
    }
    .to_owned()
}

/// Answers that are looked at together.
#[derive(Default)]
struct Together {
    scores: Vec<f64>,
    times: Vec<f64>,
    count: usize,
}

impl Together {
    fn add(&mut self, row: &Row) {
        self.count += 1;
        self.scores.extend(row.measured.score);
        self.times.extend(row.measured.total_ms);
    }

    /// Count, accuracy, mean latency.
    fn cells(&self) -> [String; 3] {
        [
            self.count.to_string(),
            or_dash(mean(&self.scores), |it| format!("{:.2}", 100.0 * it)),
            or_dash(mean(&self.times), number),
        ]
    }
}

/// Exact, confident and edge-routed answers apart.
pub(super) fn classes(doc: &mut Doc, analysis: &Analysis) {
    let mut classes: BTreeMap<(&str, &str, Class), Together> = BTreeMap::new();
    let mut all: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for row in answered(analysis) {
        if let Some(class) = row.measured.class {
            let (data, policy) = (row.key.data.as_str(), row.key.policy.as_str());
            classes.entry((data, policy, class)).or_default().add(row);
            *all.entry((data, policy)).or_default() += 1;
        }
    }
    if classes.is_empty() {
        return;
    }
    let rows = classes.iter().map(|((data, policy, class), of)| {
        let class = match class {
            Class::Edge => "edge-routed".to_owned(),
            class => word(class),
        };
        let all = all.get(&(*data, *policy)).copied().unwrap_or(of.count);
        let share = format!("{:.1}%", 100.0 * of.count as f64 / all.max(1) as f64);
        let names = [(*data).to_owned(), (*policy).to_owned(), class, share];
        line(analysis, policy, names, of)
    });
    doc.heading(2, "Exact, confident and edge-routed answers");
    doc.text(
        "All cells together. Which requests end in which class is the policy's choice, so that classes of one policy are of different \
         requests: this says what stands behind its answers, not which class is better.",
    );
    let head = [
        "data", "policy", "answers", "share", "count", "accuracy", "mean ms",
    ];
    doc.table("Answers by what stands behind them", &head, rows.collect());
}

/// By media, by length, and by whether the models know such mixes.
pub(super) fn kinds(doc: &mut Doc, analysis: &Analysis) {
    let mut kinds: BTreeMap<(&str, String, &str), Together> = BTreeMap::new();
    for row in answered(analysis) {
        let (measured, key) = (&row.measured, &row.key);
        let mut kind = if measured.kind.is_empty() {
            "other".to_owned()
        } else {
            measured.kind.clone()
        };
        if measured.long {
            kind.push_str(", long");
        }
        if measured.seen_mix == Some(false) {
            kind.push_str(", mix not trained on");
        }
        let key = (key.data.as_str(), kind, key.policy.as_str());
        kinds.entry(key).or_default().add(row);
    }
    if kinds.is_empty() {
        return;
    }
    let rows = kinds.iter().map(|((data, kind, policy), of)| {
        line(
            analysis,
            policy,
            [(*data).to_owned(), kind.clone(), (*policy).to_owned()],
            of,
        )
    });
    doc.heading(2, "By kind of request");
    doc.text("All cells together; answered requests alone.");
    doc.table(
        "By kind of request",
        &["data", "kind", "policy", "count", "accuracy", "mean ms"],
        rows.collect(),
    );
}

fn answered<'a>(analysis: &Analysis<'a>) -> impl Iterator<Item = &'a Row> {
    analysis
        .results()
        .rows
        .iter()
        .filter(|row| row.measured.is_answered())
}

fn line<const N: usize>(
    analysis: &Analysis,
    policy: &str,
    names: [String; N],
    of: &Together,
) -> Line {
    Line {
        cells: names.into_iter().chain(of.cells()).collect(),
        look: if policy == analysis.spec().subject {
            Look::Strong
        } else {
            Look::Usual
        },
    }
}
