//! Which values a specification may have.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::{Accuracy, Arrival, Pair, Prices, Rate, Set, Spec};

/// Turns that are counted in a report at most; a grid beyond that is a slip of the pen.
const MOST_TURNS: u64 = 1_000_000;
/// Entries of a list.
const MOST_ENTRIES: usize = 1_000;
/// Items of a data set, requests of a turn or of an accuracy run.
const MOST_ITEMS: u32 = 1_000_000;
/// Items that accuracy is asked with in rounds.
const MOST_ROUNDED: u32 = 20_000;
/// Rounds: with each more, every one needs more items.
const MOST_ROUNDS: usize = 10;

/// A value that may not be.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) key: String,
    pub(super) problem: String,
}

type Checked = Result<(), Wrong>;

fn wrong<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        key: key.into(),
        problem: problem.into(),
    })
}

fn count(key: impl Into<String>, value: u32, allowed: RangeInclusive<u32>) -> Checked {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (low, high) = (allowed.start(), allowed.end());
    wrong(key, format!("is {value}; allowed: {low} to {high}"))
}

fn number(key: impl Into<String>, value: f64, allowed: RangeInclusive<f64>) -> Checked {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (low, high) = (allowed.start(), allowed.end());
    wrong(key, format!("is {value}; allowed: {low} to {high}"))
}

/// Names stand in tables, file names and CSV.
fn name(key: impl Into<String>, value: &str) -> Checked {
    let fits = |it: char| it.is_ascii_alphanumeric() || "._-+".contains(it);
    let is_path = value.chars().all(|it| it == '.');
    if (1..=64).contains(&value.len()) && value.chars().all(fits) && !is_path {
        return Ok(());
    }
    wrong(
        key,
        format!(
            "is {value:?}; allowed: 1 to 64 of the characters A-Z, a-z, 0-9, . _ - and +, not points alone"
        ),
    )
}

fn names<'a>(list: &str, all: impl ExactSizeIterator<Item = &'a str>) -> Checked {
    if !(1..=MOST_ENTRIES).contains(&all.len()) {
        return wrong(
            list,
            format!("has {} entries; allowed: 1 to {MOST_ENTRIES}", all.len()),
        );
    }
    let mut seen = HashSet::new();
    for (number, value) in all.enumerate() {
        let key = format!("{list}[{number}].name");
        name(&*key, value)?;
        if !seen.insert(value) {
            return wrong(
                key,
                format!("is {value:?}, as that of an earlier entry; give each its own"),
            );
        }
    }
    Ok(())
}

pub(super) fn check(spec: &Spec) -> Checked {
    name("name", &spec.name)?;
    // TOML has no larger ones.
    if spec.seed > i64::MAX as u64 {
        return wrong(
            "seed",
            format!("is {}; allowed: 0 to {}", spec.seed, i64::MAX),
        );
    }
    count("repeats", spec.repeats, 1..=1_000)?;
    count("warm-up", spec.warm_up, 0..=MOST_ITEMS)?;
    count("learn", spec.learn, 0..=MOST_ITEMS)?;
    count("requests", spec.requests, 1..=MOST_ITEMS)?;
    number("lasts-s", spec.lasts_s, 0.0..=86_400.0)?;
    if let Pair::Twin(twin) = &spec.pair {
        name("pair.twin", twin)?;
    }
    count("decoding.max-tokens", spec.decoding.max_tokens, 1..=131_072)?;
    number(
        "decoding.temperature",
        spec.decoding.temperature,
        0.0..=10.0,
    )?;
    number("goal.times", spec.goal.times, 1.0..=1_000.0)?;
    number("goal.share", spec.goal.share, 0.5..=1.0)?;
    names("data", spec.data.iter().map(|it| it.name.as_str()))?;
    names("policies", spec.policies.iter().map(|it| it.name.as_str()))?;
    names("links", spec.links.iter().map(|it| it.name.as_str()))?;
    names("arrivals", spec.arrivals.iter().map(Arrival::name))?;
    data(spec)?;
    policies(spec)?;
    links(spec)?;
    for (number, arrival) in spec.arrivals.iter().enumerate() {
        arrives(&format!("arrivals[{number}]"), arrival)?;
    }
    accuracy(spec)?;
    prices(spec.prices.as_ref())?;
    let lists = [
        spec.data.len(),
        spec.policies.len(),
        spec.links.len(),
        spec.arrivals.len(),
    ];
    let turns = lists
        .iter()
        .fold(u64::from(spec.repeats), |turns, list| turns * *list as u64);
    if turns > MOST_TURNS {
        return wrong(
            "repeats",
            format!(
                "times data, policies, links and arrivals makes {turns} turns; allowed: up to {MOST_TURNS}"
            ),
        );
    }
    Ok(())
}

fn data(spec: &Spec) -> Checked {
    for (number, data) in spec.data.iter().enumerate() {
        let key = |name: &str| format!("data[{number}].{name}");
        name(key("workload"), &data.workload)?;
        count(key("n"), data.n, 1..=MOST_ITEMS)?;
        // Whoever asks most.
        let most = spec.arrivals.iter().max_by_key(|it| spec.counted(it));
        if let Some(arrival) = most
            && data.n < spec.counted(arrival)
        {
            let why = match spec.counted(arrival) > spec.requests {
                true => "lasts-s",
                false => "requests",
            };
            return wrong(
                key("n"),
                format!(
                    "is {}, but each turn of arrivals \"{}\" asks {} ({why}), none twice; allowed: a lower {why}, or a larger n",
                    data.n,
                    arrival.name(),
                    spec.counted(arrival)
                ),
            );
        }
        if data.folder.is_none() && data.set != Set::Demo {
            return wrong(
                key("folder"),
                "is missing; only the set `demo` comes without files: name the folder of the published ones",
            );
        }
    }
    Ok(())
}

fn policies(spec: &Spec) -> Checked {
    let known = |wanted: &str| spec.policies.iter().find(|it| it.name == wanted);
    let all: Vec<&str> = spec.policies.iter().map(|it| it.name.as_str()).collect();
    let all = all.join(", ");
    match known(&spec.baseline) {
        None => {
            return wrong(
                "baseline",
                format!(
                    "is {:?}, which is no policy here; allowed: {all}",
                    spec.baseline
                ),
            );
        }
        Some(baseline) if baseline.ablation.is_some() => {
            return wrong(
                "baseline",
                format!(
                    "is {:?}, which is an ablation; name a whole policy",
                    spec.baseline
                ),
            );
        }
        Some(_) => {}
    }
    // The usual one need not take part.
    if known(&spec.subject).is_none() && spec.subject != Spec::usual_subject() {
        return wrong(
            "subject",
            format!(
                "is {:?}, which is no policy here; allowed: {all}",
                spec.subject
            ),
        );
    }
    for (number, policy) in spec.policies.iter().enumerate() {
        let key = |name: &str| format!("policies[{number}].{name}");
        name(key("policy"), &policy.policy)?;
        if let Some(postprocessor) = &policy.postprocessor {
            name(key("postprocessor"), postprocessor)?;
        }
        for (parameter, value) in &policy.parameters {
            name(key("parameters"), parameter)?;
            if let super::Parameter::Number(value) = value
                && !value.is_finite()
            {
                return wrong(
                    key(&format!("parameters.{parameter}")),
                    format!("is {value}; allowed: a finite number"),
                );
            }
        }
        if let Some(without) = &policy.ablation {
            if without.is_empty() || without.len() > 80 || without.chars().any(char::is_control) {
                return wrong(
                    key("ablation"),
                    format!(
                        "is {without:?}; allowed: 1 to 80 characters that say what is left out"
                    ),
                );
            }
            if policy.name == spec.subject {
                return wrong(
                    key("ablation"),
                    "is set for the subject itself; leave it out",
                );
            }
        }
    }
    Ok(())
}

fn links(spec: &Spec) -> Checked {
    for (number_of, link) in spec.links.iter().enumerate() {
        let key = |name: &str| format!("links[{number_of}].{name}");
        for (way, mbit, trace) in [
            ("up", link.up_mbit, &link.up_trace),
            ("down", link.down_mbit, &link.down_trace),
        ] {
            let mbit_key = key(&format!("{way}-mbit"));
            match (mbit, trace) {
                (Some(mbit), None) => number(mbit_key, mbit, 0.01..=1_000_000.0)?,
                (None, Some(_)) => {}
                (Some(_), Some(_)) => {
                    return wrong(
                        mbit_key,
                        format!("is set beside {way}-trace; leave one of both out"),
                    );
                }
                (None, None) => {
                    return wrong(mbit_key, format!("is missing; set it, or {way}-trace"));
                }
            }
        }
        number(key("rtt-ms"), link.rtt_ms, 0.0..=10_000.0)?;
        // A delay cannot be negative.
        number(key("jitter-ms"), link.jitter_ms, 0.0..=link.rtt_ms / 2.0)?;
    }
    Ok(())
}

fn arrives(at: &str, arrival: &Arrival) -> Checked {
    let rates = 0.001..=100_000.0;
    let key = |name: &str| format!("{at}.{name}");
    match arrival {
        Arrival::Closed { concurrency, .. } => count(key("concurrency"), *concurrency, 1..=4_096),
        Arrival::Poisson { rate_per_s, .. } => number(key("rate-per-s"), *rate_per_s, rates),
        Arrival::Bursty {
            rate_per_s,
            on_ms,
            off_ms,
            ..
        } => {
            number(key("rate-per-s"), *rate_per_s, rates)?;
            number(key("on-ms"), *on_ms, 1.0..=3_600_000.0)?;
            number(key("off-ms"), *off_ms, 1.0..=3_600_000.0)
        }
        Arrival::Trace { speed, .. } => number(key("speed"), *speed, 0.000_001..=1_000_000.0),
    }
}

fn accuracy(spec: &Spec) -> Checked {
    let Some(accuracy) = &spec.accuracy else {
        return Ok(());
    };
    if spec.pair.is_twin() {
        return wrong(
            "accuracy",
            "is set, but a twin's weights are random, so that it has none; leave the section out",
        );
    }
    count("accuracy.chunk", accuracy.chunk, 1..=10_000)?;
    count("accuracy.concurrency", accuracy.concurrency, 1..=4_096)?;
    number(
        "accuracy.margin-points",
        accuracy.margin_points,
        0.01..=50.0,
    )?;
    for (number, link) in accuracy.links.iter().enumerate() {
        if !spec.links.iter().any(|it| it.name == *link) {
            let all: Vec<&str> = spec.links.iter().map(|it| it.name.as_str()).collect();
            return wrong(
                format!("accuracy.links[{number}]"),
                format!(
                    "is {link:?}, which is no link here; allowed: {}",
                    all.join(", ")
                ),
            );
        }
    }
    accuracy_data(spec, accuracy)?;
    match (accuracy.requests, accuracy.rounds.is_empty()) {
        (0, true) => {
            return wrong(
                "accuracy.requests",
                format!("is missing or 0; allowed: 1 to {MOST_ITEMS}, or rounds in its place"),
            );
        }
        (requests, true) => count("accuracy.requests", requests, 1..=MOST_ITEMS)?,
        (0, false) => rounds(spec, accuracy)?,
        (_, false) => {
            return wrong(
                "accuracy.requests",
                "is set beside rounds; leave one of both out",
            );
        }
    }
    grow(spec, accuracy)
}

fn accuracy_data(spec: &Spec, accuracy: &Accuracy) -> Checked {
    let mut seen = HashSet::new();
    for (number, data) in accuracy.data.iter().enumerate() {
        let key = |name: &str| format!("accuracy.data[{number}].{name}");
        if !spec.data.iter().any(|it| it.name == data.instead_of) {
            let all: Vec<&str> = spec.data.iter().map(|it| it.name.as_str()).collect();
            return wrong(
                key("instead-of"),
                format!(
                    "is {:?}, which is no data set here; allowed: {}",
                    data.instead_of,
                    all.join(", ")
                ),
            );
        }
        if !seen.insert(data.instead_of.as_str()) {
            return wrong(
                key("instead-of"),
                format!(
                    "is {:?}, as that of an earlier entry; leave one of both out",
                    data.instead_of
                ),
            );
        }
        count(key("n"), data.n, 1..=MOST_ITEMS)?;
        if data.made_by.len() > 200 || data.made_by.chars().any(char::is_control) {
            return wrong(
                key("made-by"),
                "is no command; allowed: one line of up to 200 bytes",
            );
        }
    }
    Ok(())
}

fn rounds(spec: &Spec, accuracy: &Accuracy) -> Checked {
    let all = &accuracy.rounds;
    if all.len() > MOST_ROUNDS {
        return wrong(
            "accuracy.rounds",
            format!("has {} entries; allowed: 1 to {MOST_ROUNDS}", all.len()),
        );
    }
    // Pooled links have equal parts in every round.
    let links = spec.accuracy_links().len().max(1) as u32;
    let (step, what) = match accuracy.pooled {
        true => (accuracy.chunk.saturating_mul(links), "chunk times links"),
        false => (accuracy.chunk, "chunk"),
    };
    let mut before = 0;
    for (number, items) in all.iter().enumerate() {
        let key = || format!("accuracy.rounds[{number}]");
        count(key(), *items, before + 1..=MOST_ROUNDED)?;
        if !items.is_multiple_of(step) {
            return wrong(
                key(),
                format!("is {items}; allowed: multiples of {step} ({what})"),
            );
        }
        before = *items;
    }
    let first = all.first().copied().unwrap_or(0);
    for data in &spec.data {
        let n = spec.accuracy_data(data).n;
        if n < first {
            return wrong(
                "accuracy.rounds[0]",
                format!(
                    "is {first}, but of {} no more than {n} are asked (n); allowed: up to that, or a larger n",
                    data.name
                ),
            );
        }
    }
    Ok(())
}

fn grow(spec: &Spec, accuracy: &Accuracy) -> Checked {
    if !accuracy.grow.is_empty() && accuracy.rounds.is_empty() {
        return wrong(
            "accuracy.grow",
            "is set without rounds; set them, or leave it out",
        );
    }
    for (number, policy) in accuracy.grow.iter().enumerate() {
        let known = spec.policies.iter().any(|it| it.name == *policy);
        if !known || *policy == spec.baseline {
            let all = spec.policies.iter().map(|it| it.name.as_str());
            let all: Vec<&str> = all.filter(|it| *it != spec.baseline).collect();
            return wrong(
                format!("accuracy.grow[{number}]"),
                format!(
                    "is {policy:?}, which is no policy here besides the baseline; allowed: {}",
                    all.join(", ")
                ),
            );
        }
    }
    Ok(())
}

fn prices(prices: Option<&Prices>) -> Checked {
    let Some(prices) = prices else {
        return Ok(());
    };
    name("prices.currency", &prices.currency)?;
    for (node, rate) in [("edge", prices.edge), ("cloud", prices.cloud)] {
        let (unit, price) = match rate {
            Rate::NodeSeconds(price) => ("per-1000-node-s", price),
            Rate::Pflop(price) => ("per-pflop", price),
        };
        number(format!("prices.{node}.{unit}"), price, 0.0..=1e9)?;
    }
    number("prices.egress-per-gb", prices.egress_per_gb, 0.0..=1e9)
}
