//! How long answers take, at which rates they are in time, and what the parts of the subject are worth.

use super::super::analysis::{Analysis, Block, Goals, difference, timed};
use super::super::doc::{Doc, Line, Look, Part, number};
use super::super::figures::Spread;
use super::super::plot::{Dot, Plot, Series};
use super::{between, look, times};
use crate::spec::Arrival;
use crate::stats::{Rung, ratio_of_means};

pub(super) fn latency(doc: &mut Doc, analysis: &Analysis) {
    let spec = analysis.spec();
    doc.heading(2, "Latency");
    doc.text(
        "In ms. Between tokens: the median over answers of each answer's own percentile. Latency is of requests with a whole answer.",
    );
    let three = |it: Option<Spread>| match it {
        Some(it) => [it.p50, it.p95, it.p99].map(number).join(" / "),
        None => "-".to_owned(),
    };
    let head = [
        "policy",
        "requests",
        "unanswered",
        "mean",
        "over the baseline's",
        "p50 / p95 / p99",
        "first token p50 / p95 / p99",
        "between tokens p50 / p95 / p99",
        "ways",
        "standing",
    ];
    for block in analysis.blocks() {
        let rows = spec.policies.iter().filter_map(|policy| {
            let figures = analysis.figures(&block, &policy.name)?;
            let standing = analysis.standing(&block, policy);
            let ratio = (policy.name != spec.baseline)
                .then(|| analysis.ratio(&block, &policy.name, &spec.baseline, "total_ms"))
                .flatten();
            Some(Line {
                cells: vec![
                    policy.name.clone(),
                    figures.asked.to_string(),
                    figures.unanswered().to_string(),
                    figures.total.map_or("-".to_owned(), |it| between(&it)),
                    ratio.map_or("-".to_owned(), |it| times(&it)),
                    three(figures.total_ms),
                    three(figures.ttft_ms),
                    three(figures.itl_ms),
                    analysis.routes(&block, &policy.name),
                    standing.told(),
                ],
                look: look(analysis, policy, standing.is_ranked()),
            })
        });
        let rows = rows.collect();
        doc.table(
            format!("{}, link {}, {}", block.data, block.link, block.arrival),
            &head,
            rows,
        );
    }
    for data in &spec.data {
        for arrival in &spec.arrivals {
            let place = |link: &str| Block {
                data: data.name.clone(),
                link: link.to_owned(),
                arrival: arrival.name().to_owned(),
            };
            let series = spec.policies.iter().map(|policy| {
                let mut ranked = true;
                let mut dots = Vec::new();
                for (number, link) in spec.links.iter().enumerate() {
                    let block = place(&link.name);
                    let total = analysis
                        .figures(&block, &policy.name)
                        .and_then(|it| it.total);
                    if let Some(total) = total {
                        ranked &= analysis.standing(&block, policy).is_ranked();
                        dots.push(Dot {
                            x: number as f64,
                            y: total.value,
                            between: Some((total.low, total.high)),
                        });
                    }
                }
                Series {
                    name: policy.name.clone(),
                    ranked,
                    dots,
                }
            });
            let plot = Plot {
                title: format!("Mean latency, {}, {}", data.name, arrival.name()),
                x: "link".to_owned(),
                y: "ms".to_owned(),
                places: spec.links.iter().map(|it| it.name.clone()).collect(),
                series: series.collect(),
                ..Plot::default()
            };
            doc.parts.extend(plot.svg().map(Part::Picture));
        }
    }
    against_accuracy(doc, analysis);
}

/// Latency against accuracy: those that are not ranked are seen here.
fn against_accuracy(doc: &mut Doc, analysis: &Analysis) {
    let spec = analysis.spec();
    let Some(arrival) = spec.arrivals.first().filter(|_| !spec.pair.is_twin()) else {
        return;
    };
    for data in &spec.data {
        for link in &spec.links {
            let block = Block {
                data: data.name.clone(),
                link: link.name.clone(),
                arrival: arrival.name().to_owned(),
            };
            let series = spec.policies.iter().map(|policy| {
                let mean_ms = analysis
                    .figures(&block, &policy.name)
                    .and_then(|it| it.mean("total_ms"));
                let accuracy = analysis.accuracy(&data.name, &link.name, &policy.name);
                let dot = mean_ms.zip(accuracy);
                Series {
                    name: policy.name.clone(),
                    ranked: analysis.standing(&block, policy).is_ranked(),
                    dots: dot
                        .map(|(x, accuracy)| Dot {
                            x,
                            y: 100.0 * accuracy,
                            between: None,
                        })
                        .into_iter()
                        .collect(),
                }
            });
            let plot = Plot {
                title: format!(
                    "Accuracy and mean latency, {}, link {}, {}",
                    data.name,
                    link.name,
                    arrival.name()
                ),
                x: "mean latency, ms".to_owned(),
                y: "accuracy, points".to_owned(),
                series: series.collect(),
                scattered: true,
                close: true,
                ..Plot::default()
            };
            doc.parts.extend(plot.svg().map(Part::Picture));
        }
    }
}

pub(super) fn goodput(doc: &mut Doc, analysis: &Analysis) {
    let spec = analysis.spec();
    if !spec
        .arrivals
        .iter()
        .any(|it| matches!(it, Arrival::Poisson { .. }))
    {
        return;
    }
    doc.heading(2, "Goodput");
    doc.text(format!(
        "The highest Poisson rate that was tried at which at least {:.0}% of the requests had their whole answer within {} times the \
         median of {} without load (one request at a time) for requests of the same kind: with the same media, and with a short or a \
         long answer; all lower rates that were tried included. By one median: the same against the median of all kinds together. \
         Where it is a short answer's, long ones miss it at any rate, whoever answers; no aim is about it.",
        100.0 * spec.goal.share,
        spec.goal.times,
        spec.baseline
    ));
    for data in &spec.data {
        for link in &spec.links {
            let goals = analysis.goals(&data.name, &link.name);
            let single = analysis.single_goal(&data.name, &link.name);
            let (Some(goals), Some(single)) = (goals, single) else {
                doc.text(format!(
                    "{}, link {}: no goal, for {} was not measured with one request at a time.",
                    data.name, link.name, spec.baseline
                ));
                continue;
            };
            let (mut rows, mut series) = (Vec::new(), Vec::new());
            for policy in &spec.policies {
                let carried =
                    |goals: &Goals| analysis.goodput(&data.name, &link.name, &policy.name, goals);
                let Some(by_one) = carried(&single) else {
                    continue;
                };
                let Some(found) = carried(&goals) else {
                    doc.text(format!(
                        "{}, link {}, {}: no goodput, for {} answered none of a kind with one request at a time.",
                        data.name, link.name, policy.name, spec.baseline
                    ));
                    continue;
                };
                let ranked = analysis
                    .qualified(&data.name, &link.name, policy)
                    .is_ranked();
                let rate = |it: Option<f64>, none: &str| {
                    it.map_or(none.to_owned(), |it| format!("{} /s", number(it)))
                };
                let tried = |rungs: &[Rung]| {
                    let told = rungs.iter().map(|it| {
                        format!("{} /s: {:.1}%", number(it.rate_per_s), 100.0 * it.share())
                    });
                    told.collect::<Vec<_>>().join(", ")
                };
                rows.push(Line {
                    cells: vec![
                        policy.name.clone(),
                        rate(found.carried_per_s, "none that was tried"),
                        rate(found.missed_per_s, "none that was tried"),
                        tried(&found.rungs),
                        rate(by_one.carried_per_s, "none that was tried"),
                        tried(&by_one.rungs),
                    ],
                    look: look(analysis, policy, ranked),
                });
                let dots = found.rungs.iter().map(|it| Dot {
                    x: it.rate_per_s,
                    y: 100.0 * it.share(),
                    between: None,
                });
                series.push(Series {
                    name: policy.name.clone(),
                    ranked,
                    dots: dots.collect(),
                });
            }
            let caption = format!(
                "{}, link {}: in time is within {goals}",
                data.name, link.name
            );
            let by_one = format!("carried by one median ({single})");
            let head = [
                "policy",
                "carried",
                "first missed",
                "in time",
                &by_one,
                "in time by one median",
            ];
            doc.table(&caption, &head, rows);
            let plot = Plot {
                title: caption,
                x: "requests a second".to_owned(),
                y: "in time, %".to_owned(),
                series,
                level: Some(100.0 * spec.goal.share),
                ..Plot::default()
            };
            doc.parts.extend(plot.svg().map(Part::Picture));
        }
    }
}

pub(super) fn ablations(doc: &mut Doc, analysis: &Analysis) {
    let spec = analysis.spec();
    let Some(subject) = analysis.subject() else {
        return;
    };
    let mut rows = Vec::new();
    for policy in &spec.policies {
        let Some(without) = &policy.ablation else {
            continue;
        };
        for block in analysis.blocks() {
            let over = |column: &str| {
                let pairs = analysis.pairs(
                    &timed(&block, &policy.name),
                    &timed(&block, &subject.name),
                    column,
                );
                ratio_of_means(&pairs).map_or("-".to_owned(), |it| times(&it))
            };
            if analysis.figures(&block, &policy.name).is_none() {
                continue;
            }
            let scored = |policy: &str| analysis.scored(&block.data, &block.link, policy);
            let accuracy = difference(&scored(&policy.name), &scored(&subject.name));
            rows.push(Line {
                cells: vec![
                    format!("without {without}"),
                    block.data.clone(),
                    block.link.clone(),
                    block.arrival.clone(),
                    over("total_ms"),
                    over("flops"),
                    over("bytes_up"),
                    accuracy.map_or("-".to_owned(), |(found, _)| {
                        format!("{:+.2}", 100.0 * found)
                    }),
                ],
                look: Look::Usual,
            });
        }
    }
    if rows.is_empty() {
        return;
    }
    doc.heading(2, "Ablations");
    doc.text(format!(
        "Each against {}, whole: how many times as much, and points of accuracy.",
        subject.name
    ));
    let head = [
        "what",
        "data",
        "link",
        "arrivals",
        "mean latency",
        "FLOPs",
        "bytes up",
        "accuracy",
    ];
    doc.table("Ablations", &head, rows);
}
