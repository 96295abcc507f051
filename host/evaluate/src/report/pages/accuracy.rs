//! How accurate the answers are, and what stands behind them.

use std::collections::BTreeMap;

use super::super::analysis::{Analysis, score};
use super::super::doc::{Doc, Line, Look, number, or_dash};
use super::look;
use crate::plan::Purpose;
use crate::rows::{Class, word};
use crate::stats::Decided;

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
        let mut rows = Vec::new();
        for link in &spec.links {
            for policy in &spec.policies {
                let scored = analysis.scored(&data.name, &link.name, &policy.name);
                let scores: Vec<f64> = if scored.iter().any(|it| it.measured.score.is_some()) {
                    scored.iter().filter_map(|row| score(row)).collect()
                } else {
                    Vec::new()
                };
                let Some(mean) = crate::stats::mean(&scores) else {
                    continue;
                };
                let parsed: Vec<f64> = (scored.iter())
                    .filter_map(|row| row.measured.parsed.map(|it| f64::from(u8::from(it))))
                    .collect();
                let apart = scored
                    .first()
                    .is_some_and(|it| it.key.purpose == Purpose::Accuracy);
                let verdict = analysis.verdict(&data.name, &link.name, &policy.name);
                let standing = analysis.qualified(&data.name, &link.name, policy);
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
                        link.name.clone(),
                        policy.name.clone(),
                        scores.len().to_string(),
                        if apart {
                            "apart".to_owned()
                        } else {
                            "timed turns".to_owned()
                        },
                        format!("{:.2}", 100.0 * mean),
                        verdict.map_or("-".to_owned(), |it| format!("{:+.2}", it.difference)),
                        verdict.map_or("-".to_owned(), |it| format!("{:+.2}", it.lower)),
                        told,
                        more,
                        or_dash(crate::stats::mean(&parsed), |it| {
                            format!("{:.1}%", 100.0 * (1.0 - it))
                        }),
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
    }
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

/// Exact, confident and edge-routed answers apart.
pub(super) fn classes(doc: &mut Doc, analysis: &Analysis) {
    #[derive(Default)]
    struct Of {
        scores: Vec<f64>,
        times: Vec<f64>,
        count: usize,
    }
    let spec = analysis.spec();
    let mut classes: BTreeMap<(String, String, Class), Of> = BTreeMap::new();
    for row in &analysis.results().rows {
        let Some(class) = row.measured.class.filter(|_| row.measured.is_answered()) else {
            continue;
        };
        let key = (row.key.data.clone(), row.key.policy.clone(), class);
        let of = classes.entry(key).or_default();
        of.count += 1;
        of.scores.extend(row.measured.score);
        of.times.extend(row.measured.total_ms);
    }
    let rows = classes.into_iter().map(|((data, policy, class), of)| Line {
        cells: vec![
            data,
            policy.clone(),
            match class {
                Class::Edge => "edge-routed".to_owned(),
                class => word(class),
            },
            of.count.to_string(),
            or_dash(crate::stats::mean(&of.scores), |it| {
                format!("{:.2}", 100.0 * it)
            }),
            or_dash(crate::stats::mean(&of.times), number),
        ],
        look: if policy == spec.subject {
            Look::Strong
        } else {
            Look::Usual
        },
    });
    let rows: Vec<Line> = rows.collect();
    if rows.is_empty() {
        return;
    }
    doc.heading(2, "Exact, confident and edge-routed answers");
    doc.text(
        "All cells together. Which requests end in which class is the policy's choice, so that classes of one policy are of different \
         requests: this says what stands behind its answers, not which class is better.",
    );
    doc.table(
        "Answers by what stands behind them",
        &["data", "policy", "answers", "count", "accuracy", "mean ms"],
        rows,
    );
}
