use super::*;
use crate::rows::Class;
use crate::run::tests::{Simulated, go, in_rounds, some_wrong, spec};
use crate::spec::{Pair, Spec};

fn results(spec: &Spec, asker: &mut Simulated) -> Results {
    let folder = tempfile::tempdir().unwrap();
    go(spec, asker, folder.path()).unwrap();
    Results::read(folder.path()).unwrap()
}

/// As accurate as the baseline, and so asked that this can be known.
fn decided() -> Spec {
    let mut spec = spec();
    spec.data[0].n = 1_600;
    spec.links.truncate(1);
    let accuracy = spec.accuracy.as_mut().unwrap();
    (accuracy.requests, accuracy.chunk) = (1_600, 1_600);
    spec
}

#[test]
fn what_an_oracle_would_take_is_told() {
    let mut asker = Simulated {
        // The edge is wrong about every fourth, and the baseline about every eighth.
        scores: |turn, item| match turn.policy.name.as_str() {
            "edge-only" => f64::from(u8::from(!item.index.is_multiple_of(4))),
            _ => f64::from(u8::from(!item.index.is_multiple_of(8))),
        },
        takes: |turn, _| {
            if turn.policy.name == "edge-only" {
                30.0
            } else {
                100.0
            }
        },
        ..Simulated::default()
    };
    let found = of(&results(&decided(), &mut asker));
    let [bound] = found.summary.oracle.as_slice() else {
        panic!("{:?}", found.summary.oracle);
    };
    // Both are wrong about every eighth: of 1,600 questions 200 are the baseline's to answer.
    assert_eq!((bound.asked, bound.at_edge), (1_600, 1_400));
    assert_eq!(
        (bound.data.as_str(), bound.policy.as_str()),
        ("demo-mixed", "edge-only")
    );
    assert!(bound.points.abs() < 1e-9);
    let over = (1_400.0 * 30.0 + 200.0 * 100.0) / (1_600.0 * 100.0);
    for figure in [bound.flops, bound.flops_cloud, bound.cache_cloud] {
        assert!((figure.unwrap() - over).abs() < 1e-9);
    }
    assert!(
        found
            .markdown
            .contains("1400 of 1600 answers by edge-only are at least as good")
    );
    // Where the edge is right alone, accuracy would be better.
    let mut asker = Simulated {
        scores: |turn, item| {
            let wrong = turn.policy.name != "edge-only" && item.index.is_multiple_of(10);
            f64::from(u8::from(!wrong))
        },
        ..Simulated::default()
    };
    let found = of(&results(&decided(), &mut asker));
    let bound = &found.summary.oracle[0];
    assert_eq!(bound.at_edge, bound.asked);
    assert!((bound.points - 10.0).abs() < 1e-9);
    // Nobody answers at the edge alone, or nothing can be said of accuracy.
    let mut without = decided();
    without.policies.retain(|it| it.name != "edge-only");
    let found = of(&results(&without, &mut Simulated::default()));
    assert_eq!(found.summary.oracle, []);
}

#[test]
fn who_is_ahead_is_told() {
    let found = of(&results(&decided(), &mut Simulated::default()));
    let summary = &found.summary;
    assert_eq!(
        (summary.turns_done, summary.turns),
        (3 * 3 * 4 + 4, 3 * 3 * 4 + 4)
    );
    // Group bounds allow no 0.4 points after 40 items, but after 1,600 in pairs.
    assert_eq!(summary.duels.len(), 3);
    for duel in &summary.duels {
        assert_eq!(
            (duel.outcome, duel.best.as_deref()),
            (Outcome::Won, Some("edge-only"))
        );
        let ratio = duel.ratio.unwrap();
        assert!(
            (0.45..0.56).contains(&ratio.value) && ratio.low <= ratio.value,
            "{ratio:?}"
        );
    }
    let met: Vec<Met> = summary.aims.iter().map(|it| it.met).collect();
    // 60% less of everything: enough for latency and FLOPs of both, not for the cloud's; goodput was not driven to its end.
    assert_eq!(
        met,
        [
            Met::Met,
            Met::Met,
            Met::Missed,
            Met::Missed,
            Met::Met,
            Met::NotMeasured
        ],
        "{:#?}",
        summary.aims
    );
    for part in [
        "Where msao loses",
        "Aims",
        "Ablations",
        "without MAS",
        "Goodput",
        "USD",
        "c0ffee",
        "everything",
        "edge-routed",
        "By kind of request",
    ] {
        assert!(found.html.contains(part), "{part}");
        assert!(found.markdown.contains(part), "{part}");
    }
    assert!(found.html.contains("<svg") && !found.html.contains("NOT COMPLETE"));
    for outside in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!found.html.contains(outside), "{outside}");
    }
    // The same results, the same report.
    assert_eq!(
        of(&results(&decided(), &mut Simulated::default())).summary,
        *summary
    );
}

#[test]
fn what_is_lost_is_on_the_first_page() {
    let mut slow = Simulated {
        takes: |turn, item| match (turn.policy.name.as_str(), turn.link.name.as_str()) {
            ("msao", "200") => 150.0 + f64::from(item.index % 3),
            ("msao", _) => 50.0,
            _ => 100.0 + f64::from(item.index % 3),
        },
        ..Simulated::default()
    };
    let mut spec = decided();
    spec.links = crate::run::tests::spec().links;
    let found = of(&results(&spec, &mut slow));
    let lost: Vec<&Duel> = found
        .summary
        .duels
        .iter()
        .filter(|it| it.outcome == Outcome::Lost)
        .collect();
    assert_eq!(lost.len(), 3);
    assert!(
        lost.iter()
            .all(|it| it.block.link == "200" && it.why.contains("first token "))
    );
    // A third of each answer's time is its first token's.
    let why =
        "mostly the tokens behind the first: +33.3 of +50.0 ms (the first token otherwise +16.7, ";
    assert!(lost.iter().all(|it| it.why.starts_with(why)), "{lost:#?}");
    let first = found.markdown.find("**Lost**").unwrap();
    assert!(first < found.markdown.find("## Accuracy").unwrap());
    assert_eq!(found.summary.aims[4].met, Met::Missed);
}

#[test]
fn a_difference_is_told_by_the_part_of_an_answer_that_makes_most_of_it() {
    let mut results = results(&decided(), &mut Simulated::default());
    for row in &mut results.rows {
        let mine = row.key.policy == "msao";
        let it = &mut row.measured;
        if it.total_ms.is_some() {
            // 25 bytes are 1 us at 200 Mbit/s: 10 ms, and 30.
            it.bytes_up = Some(if mine { 750_000 } else { 250_000 });
            // The subject is sent 5 ms late where it has a moment to be sent at.
            it.sent_ms = (it.arrival_ms).map(|due| if mine { due + 5.0 } else { due });
            it.ttft_ms = Some(if mine { 50.0 } else { 40.0 });
            it.total_ms = Some(if mine { 60.0 } else { 80.0 });
        }
    }
    let duels = of(&results).summary.duels;
    let why = |arrival: &str| {
        let mut of = duels.iter().filter(|it| it.block.arrival == arrival);
        of.next().unwrap().why.clone()
    };
    // Less in the end, though there is more to be sent.
    let closed = "mostly the tokens behind the first: -30.0 of -20.0 ms (the first token otherwise -10.0, \
                  waiting to be sent +0.000, sending at the link's rate +20.0)";
    assert!(why("closed-1").starts_with(closed), "{}", why("closed-1"));
    let poisson = "mostly the tokens behind the first: -30.0 of -20.0 ms (the first token otherwise -15.0, \
                   waiting to be sent +5.00, sending at the link's rate +20.0)";
    assert!(
        why("poisson-2").starts_with(poisson),
        "{}",
        why("poisson-2")
    );
}

#[test]
fn answers_are_told_apart_by_what_stands_behind_them() {
    let mut results = results(&decided(), &mut Simulated::default());
    let mut number = 0;
    for row in &mut results.rows {
        if row.key.policy != "msao" {
            continue;
        }
        // One of four is the edge's, and wrong, and one is confident.
        let it = &mut row.measured;
        (it.class, it.score, it.total_ms) = match number % 4 {
            // What nobody tells of is of no class.
            _ if number >= 1_600 => (None, Some(1.0), None),
            0 => (Some(Class::Edge), Some(0.0), Some(10.0)),
            1 => (Some(Class::Confident), Some(1.0), Some(20.0)),
            _ => (Some(Class::Exact), Some(1.0), Some(30.0)),
        };
        number += 1;
    }
    let found = of(&results).markdown;
    assert!(number >= 1_600);
    for line in [
        "| msao | edge-routed | 25.0% | 400 | 0.00 | 10.0 |",
        "| msao | confident | 25.0% | 400 | 100.00 | 20.0 |",
        "| msao | exact | 50.0% | 800 | 100.00 | 30.0 |",
    ] {
        assert!(found.contains(line), "{line}");
    }
}

#[test]
fn who_is_not_as_accurate_is_not_ranked() {
    let mut wrong = Simulated {
        scores: |turn, item| match turn.policy.name.as_str() {
            // Worse on 5% of the items.
            "msao" if item.index % 20 == 0 => 0.0,
            _ => 1.0,
        },
        ..Simulated::default()
    };
    let found = of(&results(&decided(), &mut wrong));
    assert!(found.summary.duels.iter().all(
        |it| it.outcome == Outcome::Unranked && it.why.contains("less accurate: -5.00 points")
    ));
    assert_eq!(found.summary.aims[0].met, Met::Missed);
    assert!(found.html.contains("class=\"pale\"") && found.markdown.contains("msao (not ranked)"));
    // Of few items nobody knows: how many more is told.
    let few = of(&results(&spec(), &mut Simulated::default()));
    let duel = &few.summary.duels[0];
    assert!(
        duel.outcome == Outcome::Unranked && duel.why.contains("more items would tell"),
        "{duel:?}"
    );
    assert_eq!(few.summary.aims[0].met, Met::NotMeasured);
}

#[test]
fn what_rounds_decided_is_told_with_the_looks() {
    let mut asker = Simulated {
        scores: some_wrong,
        ..Simulated::default()
    };
    let mut results = results(&in_rounds(), &mut asker);
    let found = of(&results);
    assert_eq!((found.summary.turns_done, found.summary.turns), (36, 36));
    let accurate = |found: &Report, policy: &str| {
        let all = found.summary.accuracy.iter();
        let mut of = all.filter(|it| it.link == "200" && it.policy == policy);
        of.next().unwrap().verdict.unwrap()
    };
    for (policy, items, decided) in [
        ("msao", 400, None),
        ("edge-only", 200, Some(crate::stats::Decided::Worse)),
        ("no-mas", 200, Some(crate::stats::Decided::Qualified)),
    ] {
        let verdict = accurate(&found, policy);
        assert_eq!((verdict.items, verdict.level), (items, 0.975), "{policy}");
        assert!(decided.is_none_or(|it| it == verdict.decided), "{policy}");
        assert_eq!(verdict.is_decided(), decided.is_some(), "{policy}");
    }
    for part in [
        "After 200 and 400 items it was looked",
        "The 2 looks were fixed",
        "bounds of 97.50%",
        "everybody undecided was asked",
        "| 200 | no-mas | 200 | apart |",
        "| 200 (not ranked) | msao | 400 | apart |",
    ] {
        assert!(found.markdown.contains(part), "{part}");
    }
    // Differences are over what both were asked, however many more one was: an ablation of the subject, which loses 4%.
    let ablation = "| without MAS | demo-mixed | 200 | closed-1 |";
    let line = found.markdown.lines().find(|it| it.starts_with(ablation));
    assert!(line.unwrap().contains("| +5.00 |"), "{line:?}");
    // A part of the first round decides nobody.
    results
        .rows
        .retain(|row| row.key.purpose == crate::plan::Purpose::Timed || row.key.repeat == 0);
    let part = of(&results);
    assert!(!accurate(&part, "no-mas").is_decided());
    assert_eq!(part.summary.turns, 32);
}

#[test]
fn pooled_links_have_one_verdict_for_all() {
    let mut spec = in_rounds();
    let accuracy = spec.accuracy.as_mut().unwrap();
    accuracy.links.clear();
    accuracy.pooled = true;
    let mut asker = Simulated {
        // Over the slow link one of eight is wrong.
        scores: |turn, item| {
            let wrong = turn.link.name == "5" && turn.policy.name == "msao";
            f64::from(u8::from(!(wrong && item.index.is_multiple_of(8))))
        },
        ..Simulated::default()
    };
    let results = results(&spec, &mut asker);
    let found = of(&results);
    let analysis = Analysis::of(&results);
    let [fast, slow] =
        ["200", "5"].map(|link| *analysis.verdict("demo-mixed", link, "msao").unwrap());
    assert_eq!(fast, slow);
    // Half of one of eight.
    assert!((fast.difference + 6.25).abs() < 2.5, "{fast:?}");
    let told: Vec<&str> = found
        .summary
        .accuracy
        .iter()
        .map(|it| it.link.as_str())
        .collect();
    assert_eq!(told, ["200 and 5"; 3]);
    let rows: Vec<&str> = found
        .markdown
        .lines()
        .skip_while(|it| !it.contains("Found over each link alone"))
        .filter(|it| it.contains("| msao |"))
        .take(2)
        .collect();
    assert!(
        rows[0].starts_with("| 200 | msao |") && rows[0].ends_with("| +0.00 |"),
        "{rows:?}"
    );
    assert!(
        rows[1].starts_with("| 5 | msao |") && rows[1].contains("| -1"),
        "{rows:?}"
    );
}

#[test]
fn on_twins_only_what_is_exact_is_ranked() {
    let mut spec = spec();
    spec.pair = Pair::Twin("7b".to_owned());
    spec.accuracy = None;
    spec.policies[2].exact = true;
    let results = results(&spec, &mut Simulated::default());
    let found = of(&results);
    assert!(found.summary.aims.is_empty());
    // edge-only is faster than cloud-only, but no opponent here.
    assert!(
        found
            .summary
            .duels
            .iter()
            .all(|it| it.outcome == Outcome::Won && it.best.as_deref() == Some("cloud-only"))
    );
    assert!(
        found.markdown.contains("edge-only (not ranked)")
            && !found.markdown.contains("## Accuracy")
    );
    let analysis = Analysis::of(&results);
    let block = &analysis.blocks()[0];
    assert_eq!(
        analysis.standing(block, &spec.policies[1]),
        Standing::NotExact
    );
}

#[test]
fn who_leaves_requests_unanswered_is_not_ranked() {
    let mut results = results(&decided(), &mut Simulated::default());
    for row in &mut results.rows {
        if row.key.policy == "msao" && row.key.arrival == "poisson-4" && row.key.index % 2 == 0 {
            row.measured = crate::rows::Measured {
                status: crate::rows::Status::Shed,
                ..crate::rows::Measured::default()
            };
        }
    }
    let found = of(&results);
    let of = |arrival: &str| {
        found
            .summary
            .duels
            .iter()
            .find(|it| it.block.arrival == arrival)
            .unwrap()
    };
    assert_eq!(of("poisson-4").outcome, Outcome::Unranked);
    assert!(of("poisson-4").why.contains("unanswered"));
    assert_eq!(of("closed-1").outcome, Outcome::Won);
}

#[test]
fn aims_are_held_against_all_requests_of_a_cell() {
    let mut results = results(&decided(), &mut Simulated::default());
    for row in &mut results.rows {
        if row.measured.total_ms.is_some() {
            // Of three repeats one has what takes long.
            let first = row.key.repeat == 0;
            row.measured.total_ms = Some(match row.key.policy.as_str() {
                "msao" if first => 190.0,
                "msao" => 10.0,
                _ => 100.0,
            });
        }
    }
    let aim = &of(&results).summary.aims[0];
    // 210 of 300 in each cell. The mean of the repeats' logarithms would say 73% lower, and the aim were met.
    assert!(aim.found.starts_with("30.0% lower"), "{aim:?}");
    assert_eq!(aim.met, Met::Missed);
}

#[test]
fn goodput_is_held_against_the_unloaded_baseline() {
    let mut loaded = Simulated {
        // The baseline takes 100 ms alone, so that 200 ms are in time. It carries 2 a second, the subject 4.
        takes: |turn, _| match (turn.arrival.name(), turn.policy.name.as_str()) {
            ("closed-1", "cloud-only") => 100.0,
            ("poisson-4", "cloud-only") => 201.0,
            ("poisson-4", "msao") => 200.0,
            _ => 90.0,
        },
        ..Simulated::default()
    };
    let results = results(&decided(), &mut loaded);
    let analysis = Analysis::of(&results);
    let goals = analysis.goals("demo-mixed", "200").unwrap();
    assert_eq!(goals.of("image", false), Some(200.0));
    assert_eq!(goals.of("image", true), None);
    let carried = |policy: &str| {
        let found = analysis.goodput("demo-mixed", "200", policy, &goals);
        let found = found.unwrap();
        (found.carried_per_s, found.missed_per_s)
    };
    assert_eq!(carried("cloud-only"), (Some(2.0), Some(4.0)));
    assert_eq!(carried("msao"), (Some(4.0), None));
    let aims = of(&results).summary.aims;
    // Twice as much, and the ladder ends there.
    assert!(
        aims[5].found.contains("at least 2.00 times") && aims[5].met == Met::NotMeasured,
        "{:?}",
        aims[5]
    );
}

/// Of each three requests of a turn the first asks for a long answer; all of them are about pictures or about clips.
fn of_kinds(results: &mut Results, takes: fn(&crate::rows::Key, &str, bool) -> f64) {
    let mut asked = std::collections::HashMap::new();
    for row in &mut results.rows {
        let number = asked.entry(row.key.turn.clone()).or_insert(0_u32);
        let measured = &mut row.measured;
        measured.long = number.is_multiple_of(3);
        measured.kind = ["image", "video"][(*number / 2 % 2) as usize].to_owned();
        if measured.total_ms.is_some() {
            measured.total_ms = Some(takes(&row.key, &measured.kind, measured.long));
        }
        *number += 1;
    }
}

#[test]
fn each_kind_of_request_has_a_goal_of_its_own() {
    let mut results = results(&decided(), &mut Simulated::default());
    of_kinds(&mut results, |key, kind, long| {
        let loaded = match (key.arrival.as_str(), key.policy.as_str()) {
            ("closed-1", _) => 1.0,
            // A little too long for any kind.
            ("poisson-4", "cloud-only") => 2.01,
            _ => 2.0,
        };
        let media = if kind == "image" { 100.0 } else { 40.0 };
        loaded * media * if long { 4.0 } else { 1.0 }
    });
    let analysis = Analysis::of(&results);
    let goals = analysis.goals("demo-mixed", "200").unwrap();
    for (kind, long, ms) in [
        ("image", false, 200.0),
        ("image", true, 800.0),
        ("video", false, 80.0),
        ("video", true, 320.0),
    ] {
        assert_eq!(goals.of(kind, long), Some(ms), "{kind} {long}");
    }
    // By one median no rate is carried, whoever answers: of the longer half of the answers most take more than twice as long.
    let single = analysis.single_goal("demo-mixed", "200").unwrap();
    assert_eq!(single.of("image", true), single.of("video", false));
    for (policy, by_kind) in [
        ("cloud-only", (Some(2.0), Some(4.0))),
        ("msao", (Some(4.0), None)),
    ] {
        let found = |goals| {
            let found = analysis.goodput("demo-mixed", "200", policy, goals);
            let found = found.unwrap();
            (found.carried_per_s, found.missed_per_s)
        };
        assert_eq!(found(&goals), by_kind, "{policy}");
        assert_eq!(found(&single), (None, Some(2.0)), "{policy}");
    }
    let told = of(&results);
    assert!(told.summary.aims[5].found.contains("at least 2.00 times"));
    for part in [
        "in time is within 200 ms (image, short), 800 ms (image, long), 80.0 ms (video, short), 320 ms (video, long)",
        "carried by one median (",
    ] {
        assert!(told.markdown.contains(part), "{part}");
    }
    // Without load nobody was asked for a long answer: what long ones may take is not known, and nothing is carried by guess.
    for row in &mut results.rows {
        row.measured.long &= row.key.arrival != "closed-1";
    }
    let analysis = Analysis::of(&results);
    let goals = analysis.goals("demo-mixed", "200").unwrap();
    assert_eq!(goals.of("image", true), None);
    assert_eq!(analysis.goodput("demo-mixed", "200", "msao", &goals), None);
    let told = of(&results);
    assert_eq!(told.summary.aims[5].met, Met::NotMeasured);
    assert!(told.markdown.contains("answered none of a kind"));
}

#[test]
fn a_part_of_a_run_and_evil_words_are_reported_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut asker = Simulated {
        interrupts_after: Some(40),
        ..Simulated::default()
    };
    asker.facts.emulated = vec!["<script>alert(1)</script>".to_owned()];
    asker
        .facts
        .versions
        .insert("a|b".to_owned(), "\"<img src=x>\"".to_owned());
    go(&spec(), &mut asker, folder.path()).unwrap();
    let found = report(folder.path()).unwrap();
    assert_eq!(report(folder.path()).unwrap().html, found.html);
    assert!(
        found.html.contains("NOT COMPLETE: 5 of 88 turns"),
        "{}",
        &found.html[..3_000]
    );
    assert!(!found.html.contains("<script") && !found.html.contains("<img"));
    assert!(!found.markdown.contains("<script") && found.markdown.contains("a\\|b"));
    // Of nothing, too.
    let folder = tempfile::tempdir().unwrap();
    asker.interrupts_after = Some(0);
    asker.asked = 0;
    go(&spec(), &mut asker, folder.path()).unwrap();
    assert!(
        report(folder.path())
            .unwrap()
            .html
            .contains("NOT COMPLETE: 0 of 88")
    );
    assert!(
        serde_json::to_string(&found.summary)
            .unwrap()
            .contains("\"turns-done\":5")
    );
}
