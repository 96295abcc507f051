use std::path::Path;

use super::*;
use crate::plan::Plan;
use crate::rows::{Key, Measured};

/// Two looks of 97.5% each, at 200 and 400 items, and a margin of 5 points: without a difference 78 items are enough.
fn spec(more: &str) -> Spec {
    let policy = |name: &str| format!("{{ name = \"{name}\", policy = \"{name}\" }}");
    let text = format!(
        "name = \"t\"\nrepeats = 1\nrequests = 4\npair = \"demo\"\n\
         accuracy = {{ rounds = [200, 400], chunk = 100, margin-points = 5.0{more} }}\n\
         data = [{{ set = \"demo\", n = 400 }}]\npolicies = [{}, {}, {}]\n\
         links = [{{ name = \"fast\", up-mbit = 200, down-mbit = 200, rtt-ms = 20 }}, \
         {{ name = \"slow\", up-mbit = 5, down-mbit = 5, rtt-ms = 80 }}]\n\
         arrivals = [{{ kind = \"closed\", concurrency = 1 }}]\n",
        policy("cloud-only"),
        policy("msao"),
        policy("edge-only")
    );
    Spec::parse(&text).unwrap()
}

/// 4% of the subject's answers are wrong, which 400 items do not decide, and 25% of the edge's, which 200 do.
fn score(policy: &str, index: u32) -> f64 {
    let wrong = match policy {
        "msao" => index.is_multiple_of(25),
        "edge-only" => index.is_multiple_of(4),
        _ => false,
    };
    f64::from(u8::from(!wrong))
}

fn accuracy_turns(plan: &Plan) -> impl Iterator<Item = &Turn> {
    let turns = plan.turns().iter();
    turns.filter(|it| it.purpose == Purpose::Accuracy)
}

/// What these turns come to.
fn rows<'a>(plan: &Plan, turns: impl Iterator<Item = &'a Turn>) -> Vec<Row> {
    let mut rows = Vec::new();
    for turn in turns {
        for item in plan.items(turn) {
            rows.push(Row {
                key: Key {
                    run: "r1".to_owned(),
                    turn: turn.id.clone(),
                    repeat: turn.repeat,
                    purpose: turn.purpose,
                    data: turn.data.name.clone(),
                    link: turn.link.name.clone(),
                    arrival: turn.arrival.name().to_owned(),
                    policy: turn.policy.name.clone(),
                    index: item.index,
                    seed: item.seed,
                },
                measured: Measured {
                    score: Some(score(&turn.policy.name, item.index)),
                    ..Measured::default()
                },
            });
        }
    }
    rows
}

fn told(spec: &Spec, rows: &[Row], policy: &str) -> Told {
    let of = |policy: &str| -> Vec<&Row> {
        let rows = rows.iter().filter(|it| it.key.policy == policy);
        rows.collect()
    };
    let both = both(&of(policy), &of("cloud-only"));
    judge(spec, spec.accuracy.as_ref().unwrap(), &spec.data[0], &both)
}

#[test]
fn nothing_is_decided_between_two_looks() {
    let spec = spec(", links = [\"fast\"]");
    let plan = Plan::new(&spec, Path::new("")).unwrap();
    let until = |chunks: u32| rows(&plan, accuracy_turns(&plan).filter(|it| it.repeat < chunks));
    // 100 items are as sure as 200 that a quarter is lost; but it was not said beforehand that they would be looked at.
    let early = told(&spec, &until(1), "edge-only");
    assert_eq!((early.rounds, early.open), (1, true));
    let verdict = early.verdict.unwrap();
    assert!(verdict.upper < -5.0 && verdict.items == 100, "{verdict:?}");
    assert_eq!(verdict.decided, Decided::Undecided { more: Some(100) });
    let first = told(&spec, &until(2), "edge-only");
    assert_eq!((first.rounds, first.open), (1, false));
    let verdict = first.verdict.unwrap();
    assert_eq!((verdict.items, verdict.level), (200, 0.975));
    assert_eq!(verdict.decided, Decided::Worse);
    // Who is not decided goes on, and is judged again when the next round is whole.
    let [two, three, four] = [2, 3, 4].map(|chunks| told(&spec, &until(chunks), "msao"));
    for (found, items) in [(&two, 200), (&three, 200), (&four, 400)] {
        let verdict = found.verdict.unwrap();
        assert!(!verdict.is_decided() && verdict.items == items);
        assert_eq!((found.rounds, found.open), (2, false));
    }
    // Where nobody scores, more items tell no more.
    let mut unscored = until(2);
    for row in &mut unscored {
        row.measured.score = None;
    }
    let found = told(&spec, &unscored, "msao");
    assert_eq!((found.verdict, found.rounds), (None, 1));
}

/// Rounds and policies of the turns that are wanted when these rows are there.
fn wanted(plan: &Plan, wanted: &Wanted) -> Vec<(u32, String, usize)> {
    let mut counts: BTreeMap<(u32, String), usize> = BTreeMap::new();
    for turn in accuracy_turns(plan).filter(|it| wanted.wants(it)) {
        *counts
            .entry((turn.round, turn.policy.name.clone()))
            .or_default() += 1;
    }
    let counts = counts.into_iter();
    counts
        .map(|((round, policy), count)| (round, policy, count))
        .collect()
}

fn lines(of: &[(u32, &str, usize)]) -> Vec<(u32, String, usize)> {
    let lines = of.iter();
    lines
        .map(|(round, policy, count)| (*round, (*policy).to_owned(), *count))
        .collect()
}

#[test]
fn the_baseline_goes_on_with_who_is_not_decided() {
    let spec = spec(", links = [\"slow\"]");
    let plan = Plan::new(&spec, Path::new("")).unwrap();
    let first = [(0, "cloud-only", 2), (0, "edge-only", 2), (0, "msao", 2)];
    let mut both = first.to_vec();
    both.extend([(1, "cloud-only", 2), (1, "msao", 2)]);
    let before = Wanted::of(&spec, &[]);
    assert_eq!(wanted(&plan, &before), lines(&first));
    assert!(before.is_open());
    let one_round = rows(&plan, accuracy_turns(&plan).filter(|it| it.round == 0));
    let after = Wanted::of(&spec, &one_round);
    assert_eq!(wanted(&plan, &after), lines(&both));
    assert!(!after.is_open());
    // A part of a round tells nothing, whoever's it is.
    let part: Vec<Row> = (one_round.iter())
        .filter(|it| it.key.repeat == 0 || it.key.policy != "cloud-only")
        .cloned()
        .collect();
    let part = Wanted::of(&spec, &part);
    assert!(wanted(&plan, &part) == lines(&first) && part.is_open());
    // When all is there, it is still what was wanted.
    let all = rows(&plan, accuracy_turns(&plan).filter(|it| after.wants(it)));
    assert_eq!(wanted(&plan, &Wanted::of(&spec, &all)), lines(&both));
}

#[test]
fn each_link_has_a_verdict_of_its_own_or_all_have_one() {
    for (more, chunks) in [("", 2 * 2), (", pooled = true", 2)] {
        let spec = spec(more);
        let plan = Plan::new(&spec, Path::new("")).unwrap();
        let first: Vec<&Turn> = accuracy_turns(&plan).filter(|it| it.round == 0).collect();
        assert_eq!(first.len(), chunks * 3);
        for link in ["fast", "slow"] {
            let over = first.iter().filter(|it| it.link.name == link);
            assert_eq!(over.count(), chunks * 3 / 2);
        }
        // One link's rows alone decide that link, or nothing.
        let fast = first.iter().copied().filter(|it| it.link.name == "fast");
        let half = Wanted::of(&spec, &rows(&plan, fast));
        let second = |wanted: &Wanted| -> Vec<&str> {
            let turns = accuracy_turns(&plan).filter(|it| it.round == 1 && wanted.wants(it));
            let mut links: Vec<&str> = turns.map(|it| it.link.name.as_str()).collect();
            links.sort_unstable();
            links.dedup();
            links
        };
        match spec.is_pooled() {
            false => assert_eq!(second(&half), ["fast"]),
            true => assert!(second(&half).is_empty()),
        }
        let whole = Wanted::of(&spec, &rows(&plan, first.into_iter()));
        assert_eq!(second(&whole), ["fast", "slow"]);
    }
}

#[test]
fn only_who_may_grow_goes_on() {
    let spec = spec(", links = [\"fast\"], grow = [\"edge-only\"]");
    let plan = Plan::new(&spec, Path::new("")).unwrap();
    assert!(accuracy_turns(&plan).all(|it| it.round == 0 || it.policy.name != "msao"));
    let one_round = rows(&plan, accuracy_turns(&plan).filter(|it| it.round == 0));
    // The edge is decided, and the subject is not asked again: nobody goes on.
    let found = Wanted::of(&spec, &one_round);
    assert!(accuracy_turns(&plan).all(|it| it.round == 0 || !found.wants(it)));
    assert!(!found.is_open());
}
