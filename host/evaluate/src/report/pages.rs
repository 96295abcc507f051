//! The report's parts, in their order: first what was lost and what was reached, then everything.

use std::collections::BTreeMap;

use super::aims::{Aim, Met};
use super::analysis::{Analysis, Block, Duel, Outcome, score, timed};
use super::doc::{Doc, Line, Look, Part, large, number, or_dash};
use super::figures::{Figures, Spread};
use super::plot::{Dot, Plot, Series};
use crate::plan::Purpose;
use crate::rows::{Class, word};
use crate::spec::{Arrival, Policy};
use crate::stats::{Decided, Interval, Sample, ratio_of_means};

pub(super) fn doc(analysis: &Analysis, duels: &[Duel], aims: &[Aim]) -> Doc {
    let mut doc = Doc {
        title: format!("Evaluation {}", analysis.spec().name),
        ..Doc::default()
    };
    first(&mut doc, analysis, duels, aims);
    accuracy(&mut doc, analysis);
    latency(&mut doc, analysis);
    resources(&mut doc, analysis);
    goodput(&mut doc, analysis);
    ablations(&mut doc, analysis);
    classes(&mut doc, analysis);
    facts(&mut doc, analysis);
    doc
}

/// What the first page has: the rest only says why.
fn first(doc: &mut Doc, analysis: &Analysis, duels: &[Duel], aims: &[Aim]) {
    let spec = analysis.spec();
    let done = analysis.results().finished.len();
    let all = analysis.turns();
    if done < all {
        doc.text(format!(
            "NOT COMPLETE: {done} of {all} turns are finished. The same `msao bench run` goes on with this folder."
        ));
    }
    if spec.pair.is_twin() {
        doc.text("The models are twins: real sizes, random weights. They have speed, but no accuracy: only exact policies are ranked.");
    }
    doc.heading(2, format!("Where {} loses", spec.subject));
    if duels.is_empty() {
        doc.text(format!(
            "{} takes no part in this evaluation.",
            spec.subject
        ));
    }
    let of = |outcome: Outcome| duels.iter().filter(move |it| it.outcome == outcome);
    let line = |duel: &Duel, look: Look| Line {
        cells: vec![
            duel.block.data.clone(),
            duel.block.link.clone(),
            duel.block.arrival.clone(),
            duel.best.clone().unwrap_or("-".to_owned()),
            duel.ratio.map_or("-".to_owned(), |it| times(&it)),
            duel.why.clone(),
        ],
        look,
    };
    let head = [
        "data",
        "link",
        "arrivals",
        "best ranked baseline",
        "mean latency over its",
        "why",
    ];
    if !duels.is_empty() {
        let counts = [
            Outcome::Lost,
            Outcome::Even,
            Outcome::Won,
            Outcome::Unranked,
            Outcome::Unmeasured,
        ]
        .map(|outcome| of(outcome).count());
        let [lost, even, won, unranked, unmeasured] = counts;
        doc.text(format!(
            "Of {} cells {lost} are lost to the best ranked baseline, {even} are even within noise, {won} are won, in {unranked} {} is \
             not ranked, {unmeasured} are not measured.",
            duels.len(),
            spec.subject
        ));
    }
    doc.table(
        "Lost",
        &head,
        of(Outcome::Lost).map(|it| line(it, Look::Bad)).collect(),
    );
    doc.table(
        "Not ranked",
        &head,
        of(Outcome::Unranked)
            .map(|it| line(it, Look::Bad))
            .collect(),
    );
    doc.heading(2, "Aims");
    if aims.is_empty() {
        doc.text("The aims are for the demo pair, and about the subject.");
    }
    let aims = aims.iter().map(|aim| Line {
        cells: vec![
            aim.what.clone(),
            aim.wanted.clone(),
            aim.found.clone(),
            words(aim.met).to_owned(),
        ],
        look: match aim.met {
            Met::Met => Look::Good,
            Met::Missed => Look::Bad,
            Met::NotMeasured => Look::Usual,
        },
    });
    doc.table("Aims", &["aim", "wanted", "found", "met"], aims.collect());
    doc.table(
        "Even within noise",
        &head,
        of(Outcome::Even).map(|it| line(it, Look::Usual)).collect(),
    );
    doc.table(
        "Won",
        &head,
        of(Outcome::Won).map(|it| line(it, Look::Good)).collect(),
    );
    doc.text(
        "Brackets hold 95% intervals: Student's over repeats (policies compared within each repeat), or where they are marked with ~ a \
         bootstrap over the requests of fewer than three repeats, which is too narrow where turns differ.",
    );
}

fn words(met: Met) -> &'static str {
    match met {
        Met::Met => "met",
        Met::Missed => "missed",
        Met::NotMeasured => "not measured",
    }
}

fn times(it: &Interval) -> String {
    format!("x{}", between(it))
}

fn between(it: &Interval) -> String {
    let mark = if it.sample == Sample::Requests {
        "~"
    } else {
        ""
    };
    format!(
        "{} [{mark}{}, {}]",
        number(it.value),
        number(it.low),
        number(it.high)
    )
}

fn look(analysis: &Analysis, policy: &Policy, ranked: bool) -> Look {
    if !ranked {
        Look::Pale
    } else if policy.name == analysis.spec().subject {
        Look::Strong
    } else {
        Look::Usual
    }
}

fn accuracy(doc: &mut Doc, analysis: &Analysis) {
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

fn latency(doc: &mut Doc, analysis: &Analysis) {
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
                let scored = analysis.scored(&data.name, &link.name, &policy.name);
                let known = scored.iter().any(|it| it.measured.score.is_some());
                let scores: Vec<f64> = scored
                    .iter()
                    .filter(|_| known)
                    .filter_map(|row| score(row))
                    .collect();
                let dot = mean_ms.zip(crate::stats::mean(&scores));
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

fn resources(doc: &mut Doc, analysis: &Analysis) {
    let spec = analysis.spec();
    doc.heading(2, "What an answer takes");
    doc.text(
        "Means for each answered request; what unanswered ones took counts too. Cache: bytes times the seconds that they were held. \
         A dash: not measured.",
    );
    let columns = [
        ("FLOPs edge", "flops_edge"),
        ("FLOPs cloud", "flops_cloud"),
        ("of both, wasted", "flops_wasted"),
        ("cache edge, B s", "cache_byte_seconds_edge"),
        ("cache cloud, B s", "cache_byte_seconds_cloud"),
        ("activations edge, B", "activation_bytes_edge"),
        ("activations cloud, B", "activation_bytes_cloud"),
        ("up, B", "bytes_up"),
        ("down, B", "bytes_down"),
        ("probe, ms", "probe_ms"),
        ("plug-ins, ms", "plugin_ms"),
        ("energy, J", "energy_j"),
    ];
    let cost = spec.prices.as_ref().map_or(String::new(), |it| {
        format!("1,000 requests, {}", it.currency)
    });
    let mut head = vec!["policy"];
    head.extend(columns.map(|it| it.0));
    head.extend([
        "drafts accepted",
        "unverified",
        "FLOPs over the baseline's",
        "of the cloud",
        "cache cloud",
    ]);
    if spec.prices.is_some() {
        head.push(&cost);
    }
    for block in analysis.blocks() {
        let rows = spec.policies.iter().filter_map(|policy| {
            let figures: &Figures = analysis.figures(&block, &policy.name)?;
            let percent =
                |column: &str| or_dash(figures.mean(column), |it| format!("{:.1}%", 100.0 * it));
            let over = |column: &str| {
                let ratio = analysis.ratio(&block, &policy.name, &spec.baseline, column);
                ratio
                    .filter(|_| policy.name != spec.baseline)
                    .map_or("-".to_owned(), |it| times(&it))
            };
            let mut cells = vec![policy.name.clone()];
            cells.extend(columns.map(|(_, column)| or_dash(figures.mean(column), large)));
            cells.extend([percent("acceptance"), percent("unverified_share")]);
            cells.extend(["flops", "flops_cloud", "cache_byte_seconds_cloud"].map(over));
            if spec.prices.is_some() {
                cells.push(figures.cost.map_or("-".to_owned(), |it| {
                    format!(
                        "{} ({} edge, {} cloud, {} egress)",
                        number(it.all()),
                        number(it.edge),
                        number(it.cloud),
                        number(it.egress)
                    )
                }));
            }
            Some(Line {
                cells,
                look: look(
                    analysis,
                    policy,
                    analysis.standing(&block, policy).is_ranked(),
                ),
            })
        });
        let rows = rows.collect();
        doc.table(
            format!("{}, link {}, {}", block.data, block.link, block.arrival),
            &head,
            rows,
        );
    }
}

fn goodput(doc: &mut Doc, analysis: &Analysis) {
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
         median of {} without load (one request at a time), all lower rates that were tried included.",
        100.0 * spec.goal.share,
        spec.goal.times,
        spec.baseline
    ));
    for data in &spec.data {
        for link in &spec.links {
            let Some(goal_ms) = analysis.goal_ms(&data.name, &link.name) else {
                doc.text(format!(
                    "{}, link {}: no goal, for {} was not measured with one request at a time.",
                    data.name, link.name, spec.baseline
                ));
                continue;
            };
            let (mut rows, mut series) = (Vec::new(), Vec::new());
            for policy in &spec.policies {
                let Some(found) = analysis.goodput(&data.name, &link.name, &policy.name) else {
                    continue;
                };
                let ranked = analysis
                    .qualified(&data.name, &link.name, policy)
                    .is_ranked();
                let rate = |it: Option<f64>, none: &str| {
                    it.map_or(none.to_owned(), |it| format!("{} /s", number(it)))
                };
                let tried = found
                    .rungs
                    .iter()
                    .map(|it| format!("{} /s: {:.1}%", number(it.rate_per_s), 100.0 * it.share()));
                rows.push(Line {
                    cells: vec![
                        policy.name.clone(),
                        rate(found.carried_per_s, "none that was tried"),
                        rate(found.missed_per_s, "none that was tried"),
                        tried.collect::<Vec<_>>().join(", "),
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
                "{}, link {}: in time is within {} ms",
                data.name,
                link.name,
                number(goal_ms)
            );
            doc.table(
                &caption,
                &["policy", "carried", "first missed", "in time"],
                rows,
            );
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

fn ablations(doc: &mut Doc, analysis: &Analysis) {
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
            let accuracy = |policy: &str| {
                let scored = analysis.scored(&block.data, &block.link, policy);
                let known = scored.iter().any(|it| it.measured.score.is_some());
                let scores: Vec<f64> = scored
                    .iter()
                    .filter(|_| known)
                    .filter_map(|row| score(row))
                    .collect();
                crate::stats::mean(&scores)
            };
            let difference = accuracy(&policy.name).zip(accuracy(&subject.name));
            rows.push(Line {
                cells: vec![
                    format!("without {without}"),
                    block.data.clone(),
                    block.link.clone(),
                    block.arrival.clone(),
                    over("total_ms"),
                    over("flops"),
                    over("bytes_up"),
                    difference.map_or("-".to_owned(), |(one, other)| {
                        format!("{:+.2}", 100.0 * (one - other))
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

/// Exact, confident and edge-routed answers apart.
fn classes(doc: &mut Doc, analysis: &Analysis) {
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

fn facts(doc: &mut Doc, analysis: &Analysis) {
    let manifest = &analysis.results().manifest;
    let (machine, facts, spec) = (&manifest.machine, &manifest.facts, &manifest.spec);
    doc.heading(2, "What was run, on what");
    let mut lines = vec![
        format!(
            "machine: {}, {} cores, {} GiB of memory, kernel {}",
            machine.cpu,
            machine.cores,
            machine.memory_bytes >> 30,
            machine.kernel
        ),
        format!("commit: {}", facts.commit),
        format!(
            "specification: {} (sha256 {}), seed {}",
            spec.name, manifest.spec_digest, spec.seed
        ),
        format!(
            "{} repeats of {} requests a turn after {} that do not count; at most {} tokens, temperature {}",
            spec.repeats,
            spec.requests,
            spec.warm_up,
            spec.decoding.max_tokens,
            spec.decoding.temperature
        ),
        format!("program starts: {}", manifest.runs.len()),
    ];
    lines.extend(
        facts
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}")),
    );
    lines.extend(
        facts
            .digests
            .iter()
            .map(|(name, digest)| format!("{name}: sha256 {digest}")),
    );
    doc.parts.push(Part::List(lines));
    if facts.emulated.is_empty() {
        doc.text("Nothing is said to be emulated.");
    } else {
        doc.text("Emulated, not real:");
        doc.parts.push(Part::List(facts.emulated.clone()));
    }
    doc.text("Rows: rows.csv, one for each request; turns.csv says which turns are finished. Intervals and bounds are as the crate msao-evaluate documents them.");
}
