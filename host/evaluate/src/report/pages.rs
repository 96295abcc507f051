//! The report's parts, in their order: first what was lost and what was reached, then everything.

mod accuracy;
mod latency;
mod resources;

use super::aims::{Aim, Met};
use super::analysis::Analysis;
use super::doc::{Doc, Line, Look, Part, number};
use super::duel::{Duel, Outcome};
use super::oracle::Oracle;
use crate::spec::Policy;
use crate::stats::{Interval, Sample};

pub(super) fn doc(analysis: &Analysis, duels: &[Duel], aims: &[Aim], oracle: &[Oracle]) -> Doc {
    let mut doc = Doc {
        title: format!("Evaluation {}", analysis.spec().name),
        ..Doc::default()
    };
    first(&mut doc, analysis, duels, aims, oracle);
    accuracy::accuracy(&mut doc, analysis);
    latency::latency(&mut doc, analysis);
    resources::resources(&mut doc, analysis);
    latency::goodput(&mut doc, analysis);
    latency::ablations(&mut doc, analysis);
    accuracy::classes(&mut doc, analysis);
    accuracy::kinds(&mut doc, analysis);
    facts(&mut doc, analysis);
    doc
}

/// What the first page has: the rest only says why.
fn first(doc: &mut Doc, analysis: &Analysis, duels: &[Duel], aims: &[Aim], oracle: &[Oracle]) {
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
    for bound in oracle {
        doc.text(bound.told(&spec.baseline));
    }
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
            "{} repeats of {} requests a turn{} after {} that do not count; at most {} tokens, temperature {}",
            spec.repeats,
            spec.requests,
            match spec.lasts_s > 0.0 {
                true => format!(
                    " (of those that come at a rate at least {} s long)",
                    spec.lasts_s
                ),
                false => String::new(),
            },
            spec.warm_up,
            spec.decoding.max_tokens,
            spec.decoding.temperature
        ),
        match spec.learn {
            0 => "over each link every policy begins with nothing learned".to_owned(),
            learn => format!(
                "over each link every policy is asked {learn} questions first, that do not count, to learn from"
            ),
        },
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
