use msao_plugin::rules;
use proptest::prelude::*;

use super::*;
use crate::arms::{Forecast, Row, each_that_can_run};
use crate::demand::overstep;

const MANIFEST: &str = include_str!("../policy.toml");
const PARAMS: [f64; 19] = [
    0.2, 1.0, 10_000.0, 0.3, 0.3, 0.4, 0.4, 0.2, 20.0, 10.0, 14.0, 500.0, 0.5, 2.0, 0.02, 1024.0,
    256.0, 1e5, 3000.0,
];
const BOTH: u32 = capability::DRAFT | capability::TARGET;

fn settings() -> Settings {
    Settings::read(&PARAMS)
}

fn scene() -> Scene {
    Scene::new()
        .text(100)
        .request(|request| request.max_tokens = 50)
        .params(&PARAMS)
        .edge(|_| {})
}

fn edge() -> ArmId {
    ArmId {
        row: 0,
        route: Route::Edge,
    }
}

fn at(row: u32, route: Route) -> ArmId {
    ArmId { row, route }
}

fn cell(mean: f64, count: f64) -> Cell {
    Cell {
        mean,
        variance: 0.0,
        count,
    }
}

/// With these rewards for requests of class 0.
fn learned(scene: Scene, rewards: &[(ArmId, f64, f64)]) -> Scene {
    let cells: Vec<(u32, Cell)> = rewards
        .iter()
        .map(|&(arm, mean, count)| (reward_cell(0, arm), cell(mean, count)))
        .collect();
    scene.calibration(Calibration::from_cells(&cells))
}

fn planned(scene: &Scene) -> (Route, u32, u32) {
    let plan = scene.plan::<PerLlm>();
    (plan.route, plan.peer, plan.reason)
}

fn forecasted(scene: &Scene, id: ArmId) -> Forecast {
    let (input, settings) = (scene.input(), settings());
    let demand = Demand::of(&input, &settings);
    let off = scene.calibration.mean_or(time_cell(id), 1.0);
    Row::of(&input, &demand, &settings, id.row).forecast(&demand, id.route, off)
}

fn that_can_run(input: &PlanInput) -> Vec<ArmId> {
    let mut arms = Vec::new();
    each_that_can_run(input, |id| arms.push(id));
    arms
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} and {b}");
}

#[test]
fn arms_are_what_can_run() {
    let all = scene()
        .peer(|_| {})
        .peer(|peer| peer.can = capability::TARGET);
    let arms = |scene: &Scene| that_can_run(&scene.input());
    let (cloud, both) = (Route::Cloud, Route::CloudDraft);
    assert_eq!(
        arms(&all),
        [edge(), at(1, cloud), at(1, both), at(2, cloud)]
    );
    let down = scene().peer(|peer| peer.up = false);
    assert_eq!(arms(&down), [edge()]);
    let exact = all.clone().request(|request| request.flags |= flag::EXACT);
    assert_eq!(arms(&exact), [at(1, cloud), at(1, both), at(2, cloud)]);
    let bound = all
        .image(64, 1e5)
        .request(|request| request.flags |= flag::MEDIA_AT_EDGE);
    assert_eq!(arms(&bound), [edge()]);
    // Its own two models go together only if they read the same ids.
    let own = scene().edge(|here| here.can = BOTH);
    assert_eq!(arms(&own), [edge(), at(0, cloud)]);
    let alike = scene().edge(|here| here.can = BOTH | capability::SAME_TOKENIZER);
    assert_eq!(arms(&alike), [edge(), at(0, cloud), at(0, both)]);
    assert!(arms(&scene().edge(|here| here.can = 0)).is_empty());
}

#[test]
fn times_are_what_a_hand_gets() {
    let scene = scene().image(200, 125_000.0).peer(|peer| {
        peer.queue_ms = 3.0;
        peer.planned_ms = 2.0;
        peer.cached_bytes = 25_000.0;
        peer.stalled = 0.5;
    });
    // 300 tokens at 2,000/s, 50 at 100/s.
    close(forecasted(&scene, edge()).predicted_ms, 150.0 + 500.0);
    // 20 ms away, 5 ms of waits, 100 kB at half of 50 Mbit/s, 300 tokens at 20,000/s.
    let begins_ms = 20.0 + 5.0 + 32.0 + 15.0;
    let cloud = forecasted(&scene, at(1, Route::Cloud));
    close(cloud.predicted_ms, begins_ms + 50.0 * 25.0);
    // Four drafts at 400/s and a pass of 30 ms yield 3.3616 tokens at acceptance 0.8.
    let both = forecasted(&scene, at(1, Route::CloudDraft));
    close(both.predicted_ms, begins_ms + 50.0 * 40.0 / 3.3616);
}

#[test]
fn what_is_unknown_costs_nothing() {
    let scene = Scene::new()
        .params(&PARAMS)
        .edge(|here| {
            *here = Node {
                can: capability::DRAFT,
                ..Node::UNKNOWN
            };
        })
        .peer(|peer| {
            *peer = Node {
                can: BOTH,
                ..Node::UNKNOWN
            };
        });
    for arm in that_can_run(&scene.input()) {
        let forecast = forecasted(&scene, arm);
        assert_eq!(
            (forecast.predicted_ms, forecast.violation.sum()),
            (0.0, 0.0)
        );
    }
}

#[test]
fn overstepping_is_a_share_of_what_is_allowed() {
    assert_eq!(overstep(5.0, 10.0), 0.0);
    assert_eq!(overstep(10.0, 10.0), 0.0);
    assert_eq!(overstep(15.0, 10.0), 0.5);
    assert_eq!(overstep(90.0, 10.0), 1.0);
    assert_eq!(overstep(0.0, 0.0), 0.0);
    assert_eq!(overstep(1.0, 0.0), 1.0);
    assert_eq!(overstep(f64::NAN, 10.0), 1.0);
    assert_eq!(overstep(f64::INFINITY, f64::INFINITY), 0.0);
    assert_eq!(overstep(1.0, f64::NAN), 1.0);
}

#[test]
fn each_constraint_is_seen() {
    let violation = |change: fn(&mut Node)| {
        let scene = scene().image(200, 1e6).peer(change);
        forecasted(&scene, at(1, Route::Cloud)).violation
    };
    assert_eq!(violation(|_| {}).sum(), 0.0);
    let slow = violation(|peer| peer.target_tok_per_s = 4.0);
    assert!(slow.time > 0.2 && slow.bandwidth + slow.waiting + slow.cache == 0.0);
    // 8 Mbit in 4 s, of 3 s that are allowed.
    let narrow = violation(|peer| peer.uplink_bps = 2e6);
    close(narrow.bandwidth, 1.0 / 3.0);
    assert_eq!(violation(|peer| peer.stalled = 1.0).bandwidth, 1.0);
    let busy = violation(|peer| peer.queue_ms = 4500.0);
    close(busy.waiting, 0.5);
    // 350 tokens.
    let full = violation(|peer| peer.kv_free = 280.0);
    close(full.cache, 0.25);
    assert_eq!(violation(|peer| peer.kv_free = 0.0).cache, 1.0);
}

#[test]
fn untried_arms_come_first_and_the_seed_chooses_among_them() {
    let scene = scene().peer(|_| {});
    let by_seed = |seed| planned(&scene.clone().request(|request| request.seed = seed));
    assert_eq!(by_seed(1), by_seed(1));
    let mut seen: Vec<(Route, u32, u32)> = Vec::new();
    for seed in 0..60 {
        let plan = by_seed(seed);
        assert_eq!(plan.2, reason::UNTRIED);
        if !seen.contains(&plan) {
            seen.push(plan);
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn the_index_is_the_formula() {
    let rewards = [
        (edge(), 0.6, 3.0),
        (at(1, Route::Cloud), 0.5, 4.0),
        (at(1, Route::CloudDraft), 0.58, 2.0),
    ];
    let plan = learned(scene().peer(|_| {}), &rewards).plan::<PerLlm>();
    let bonus = |n: f64| 0.2 * (10.0_f64.ln() / n).sqrt();
    // 0.6 + 0.175, 0.5 + 0.152, 0.58 + 0.215.
    assert_eq!((plan.route, plan.peer), (Route::CloudDraft, 1));
    assert_eq!(plan.reason, reason::BEST);
    close(plan.terms[0], 0.58 + bonus(2.0));
    close(plan.terms[1], 0.58);
    close(plan.terms[2], bonus(2.0));
    assert_eq!(plan.terms[5..], [0.0, 3.0]);
}

#[test]
fn an_arm_that_oversteps_is_charged() {
    let rewards = [
        (edge(), 0.5, 100.0),
        (at(1, Route::Cloud), 0.9, 100.0),
        (at(1, Route::CloudDraft), 0.4, 100.0),
    ];
    let good = learned(scene().peer(|_| {}), &rewards);
    assert_eq!(planned(&good), (Route::Cloud, 1, reason::BEST));
    let busy = learned(scene().peer(|peer| peer.queue_ms = 4500.0), &rewards);
    assert_eq!(planned(&busy), (Route::Edge, 0, reason::BEST));
    let worth_it = busy.params(&{
        let mut params = PARAMS;
        params[1] = 0.5;
        params
    });
    assert_eq!(planned(&worth_it), (Route::Cloud, 1, reason::OVERSTEPS));
}

#[test]
fn a_deadline_is_a_constraint() {
    let rewards = [(edge(), 0.9, 100.0), (at(1, Route::Cloud), 0.5, 100.0)];
    let scene = |deadline_ms| {
        let scene = scene()
            .edge(|here| here.draft_tok_per_s = 20.0)
            .peer(|peer| peer.can = capability::TARGET)
            .request(|request| request.deadline_ms = deadline_ms);
        learned(scene, &rewards)
    };
    assert_eq!(planned(&scene(4000.0)).0, Route::Edge);
    // Class 8 has learned nothing: untried arms are equal but for what they overstep.
    let plan = scene(1300.0).plan::<PerLlm>();
    assert_eq!((plan.route, plan.terms[5]), (Route::Cloud, 8.0));
}

#[test]
fn classes_are_the_demands() {
    let class = |change: fn(Scene) -> Scene| {
        let scene = change(scene());
        Demand::of(&scene.input(), &settings()).class
    };
    assert_eq!(class(|scene| scene), 0);
    assert_eq!(class(|scene| scene.text(1024)), 1);
    assert_eq!(
        class(|scene| scene.request(|request| request.max_tokens = 256)),
        2
    );
    assert_eq!(class(|scene| scene.image(9, 6e4).image(9, 4e4)), 4);
    assert_eq!(
        class(|scene| scene.request(|request| request.deadline_ms = 3000.0)),
        8
    );
    let all = class(|scene| {
        scene.text(2000).image(9, 1e6).request(|request| {
            request.max_tokens = 999;
            request.deadline_ms = 1.0;
        })
    });
    assert_eq!(all, demand::CLASSES - 1);
}

#[test]
fn what_was_learned_of_times_corrects_the_forecast() {
    let off = |off| {
        let calibration = Calibration::from_cells(&[(time_cell(edge()), cell(off, 9.0))]);
        forecasted(&scene().calibration(calibration), edge()).corrected_ms
    };
    close(off(2.0), 2.0 * 550.0);
    close(off(1e9), FAR_OFF * 550.0);
    close(off(-1e9), 550.0 / FAR_OFF);
    close(off(f64::NAN), 550.0 / FAR_OFF);
}

#[test]
fn one_arm_and_none() {
    assert_eq!(planned(&scene()), (Route::Edge, 0, reason::ONLY_ONE));
    let nothing = scene().edge(|here| here.can = 0);
    let plan = nothing.plan::<PerLlm>();
    assert_eq!(
        (plan.route, plan.peer, plan.reason),
        (Route::Edge, 0, reason::NONE)
    );
    assert!(plan.memo.is_empty());
    let no_node = Scene::new().params(&PARAMS);
    assert_eq!(planned(&no_node), (Route::Edge, 0, reason::NONE));
    assert_eq!(PerLlm::step(&StepInput::default(), &[]), Action::Finish);
}

/// An answer by this arm, just in time, for class 0 and 100 tokens of prompt.
fn outcome(arm: ArmId) -> Outcome {
    let note = Note {
        class: 0,
        arm: arm.number(),
        goal_ms: 2000.0,
        predicted_ms: 1000.0,
        prompt_tokens: 100,
    };
    Outcome {
        route: arm.route as u8,
        peer: arm.row,
        total_ms: 2000.0,
        tokens: 100,
        memo: note.encode(),
        ..Outcome::default()
    }
}

fn observed(outcome: &Outcome, calibration: &Calibration) -> Vec<Update> {
    PerLlm::observe(outcome, &PARAMS, calibration)
}

#[test]
fn the_reward_is_the_formula() {
    let nothing = Calibration::default();
    let reward = |outcome: &Outcome| observed(outcome, &nothing)[0].value;
    // Time 1/2, nothing else: 1 - 0.4 / 2.
    close(reward(&outcome(edge())), 0.8);
    // 10^12 operations at 20 pJ are 20 J, of 200 tokens: 0.1 J of 0.5 J.
    let computed = Outcome {
        edge_flops: 1e12,
        ..outcome(edge())
    };
    close(reward(&computed), 0.8 - 0.4 * 0.2);
    // Nobody counted the peer's operations: 14 GFLOP a token at 10 pJ are 0.14 J; 80 kB at 500 nJ are 0.04 J.
    // 10^-4 for 200 tokens is 0.5 a million, of 2.
    let away = Outcome {
        sent_bytes: 70_000.0,
        received_bytes: 10_000.0,
        cost: 1e-4,
        ..outcome(at(1, Route::Cloud))
    };
    close(
        reward(&away),
        1.0 - 0.4 * 0.5 - 0.4 * (0.1402 / 0.5) - 0.2 * 0.25,
    );
    let counted = Outcome {
        cloud_flops: 1e12,
        ..outcome(at(1, Route::Cloud))
    };
    close(reward(&counted), 0.8 - 0.4 * 0.1);
}

#[test]
fn the_mean_is_plain_at_first_and_fades_later() {
    let arm = edge();
    let weights = |count| {
        let key = reward_cell(0, arm);
        let calibration = Calibration::from_cells(&[(key, cell(0.5, count))]);
        observed(&outcome(arm), &calibration)[0].weight
    };
    assert_eq!(weights(0.0), 1.0);
    assert_eq!(weights(3.0), 0.25);
    assert_eq!(weights(1e6), 0.02);
    let updates = observed(&outcome(arm), &Calibration::default());
    let keys: Vec<u32> = updates.iter().map(|update| update.key).collect();
    assert_eq!(keys, [reward_cell(0, arm), time_cell(arm)]);
    assert_eq!(updates[1].value, 2.0);
}

#[test]
fn a_bad_choice_rewards_with_nothing_and_another_way_teaches_nothing() {
    let nothing = Calibration::default();
    let arm = at(2, Route::CloudDraft);
    for status in [status::DEGRADED, status::REFUSED, status::FAILED, 99] {
        let bad = Outcome {
            status,
            route: 0,
            ..outcome(arm)
        };
        assert_eq!(
            observed(&bad, &nothing),
            [Update::sample(reward_cell(0, arm), 0.0, 1.0)]
        );
    }
    let cancelled = Outcome {
        status: status::CANCELLED,
        ..outcome(arm)
    };
    let otherwise = Outcome {
        peer: 1,
        ..outcome(arm)
    };
    let fallback = Outcome {
        memo: Vec::new(),
        ..outcome(arm)
    };
    for outcome in [cancelled, otherwise, fallback] {
        assert!(observed(&outcome, &nothing).is_empty());
    }
}

#[test]
fn it_learns_which_arm_is_best() {
    // The peer's two models are quick; all else is slow.
    let mut cells: Vec<(u32, Cell)> = Vec::new();
    let mut last = Vec::new();
    for seed in 0..400 {
        let scene = scene()
            .peer(|_| {})
            .request(|request| request.seed = seed)
            .calibration(Calibration::from_cells(&cells));
        let plan = scene.plan::<PerLlm>();
        let quick = plan.route == Route::CloudDraft;
        let outcome = Outcome {
            route: plan.route as u8,
            peer: plan.peer,
            total_ms: if quick { 1000.0 } else { 9000.0 },
            tokens: 50,
            memo: plan.memo,
            ..Outcome::default()
        };
        for update in PerLlm::observe(&outcome, &PARAMS, &scene.calibration) {
            // As the host folds samples.
            match cells.iter_mut().find(|(key, _)| *key == update.key) {
                Some((_, cell)) => {
                    cell.mean += update.weight * (update.value - cell.mean);
                    cell.count += 1.0;
                }
                None => cells.push((update.key, cell(update.value, 1.0))),
            }
        }
        last.push(quick);
    }
    let quick = last[200..].iter().filter(|quick| **quick).count();
    assert!(quick > 180, "{quick} of 200");
}

#[test]
fn every_arm_and_class_has_a_cell_of_its_own_and_all_fit() {
    let mut keys = Vec::new();
    let arms: Vec<ArmId> = (0..CLASS_STRIDE).filter_map(ArmId::of).collect();
    for arm in &arms {
        assert_eq!(ArmId::of(arm.number()), Some(*arm));
        keys.push(time_cell(*arm));
        keys.extend((0..demand::CLASSES).map(|class| reward_cell(class, *arm)));
    }
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((keys.len(), all), (all, arms.len() * 17));
    assert!(all <= 4096, "{all}");
}

#[test]
fn peers_beyond_the_last_row_are_no_arms() {
    let mut scene = scene();
    for _ in 0..100 {
        scene = scene.peer(|_| {});
    }
    let arms = that_can_run(&scene.input());
    assert_eq!(arms.last(), Some(&at(63, Route::CloudDraft)));
    let words = PerLlm::explain(&scene.input(), &scene.plan::<PerLlm>());
    assert!(
        words.ends_with(" more") && words.len() <= 4096,
        "{}",
        words.len()
    );
}

#[test]
fn it_says_why() {
    let rewards = [(edge(), 0.61, 3.0)];
    let scene = learned(scene().peer(|peer| peer.queue_ms = 4500.0), &rewards);
    let words = PerLlm::explain(&scene.input(), &scene.plan::<PerLlm>());
    let lines: Vec<&str> = words.lines().collect();
    assert_eq!(
        lines[0],
        "100 tokens to read, up to 50 to write, 0 bytes of media, within 10000 ms: class 0."
    );
    assert_eq!(lines.len(), 4, "{words}");
    assert!(
        words.contains(
            "the draft model here: index 0.746; mean 0.610 of 3, bonus 0.136; some 550 ms"
        )
    );
    assert!(words.contains("the target at peer 1: index 0.735; untried"));
    assert!(words.contains("some 5775 ms; oversteps waiting"), "{words}");
    let nothing = Scene::new().params(&PARAMS);
    let words = PerLlm::explain(&nothing.input(), &nothing.plan::<PerLlm>());
    assert!(words.ends_with("Nothing that may answer is up."));
}

#[test]
fn the_manifest_names_what_the_code_reads() {
    let named: Vec<String> = MANIFEST
        .split("[[parameter]]")
        .skip(1)
        .filter_map(|table| table.lines().find_map(|line| line.strip_prefix("name = ")))
        .map(|name| name.trim_matches('"').replace('-', "_"))
        .collect();
    assert_eq!(named, Settings::NAMES);
    let defaults: Vec<f64> = MANIFEST
        .lines()
        .filter_map(|line| line.strip_prefix("default = ")?.parse().ok())
        .collect();
    assert_eq!(defaults, PARAMS);
}

fn hostile() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => 0.0f64..1e6,
        1 => Just(-1.0),
        1 => Just(0.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => prop::num::f64::ANY,
    ]
}

prop_compose! {
    fn any_node()(up in any::<bool>(), can in 0u32..32, numbers in prop::collection::vec(hostile(), 12)) -> Node {
        Node {
            up,
            can,
            uplink_bps: numbers[0],
            stalled: numbers[1],
            rtt_ms: numbers[2],
            queue_ms: numbers[3],
            planned_ms: numbers[4],
            kv_free: numbers[5],
            prefill_tok_per_s: numbers[6],
            draft_tok_per_s: numbers[7],
            target_tok_per_s: numbers[8],
            verify_ms: numbers[9],
            acceptance: numbers[10],
            cached_bytes: numbers[11],
            ..Node::UNKNOWN
        }
    }
}

prop_compose! {
    fn any_scene()(
        nodes in prop::collection::vec(any_node(), 0..5),
        seed in any::<u64>(),
        flags in 0u32..64,
        tokens in any::<[u32; 2]>(),
        deadline_ms in hostile(),
        parts in prop::collection::vec((0u8..6, hostile()), 0..3),
        params in prop::collection::vec(hostile(), 0..22),
        sane in any::<bool>(),
        cells in prop::collection::vec((0u32..4200, hostile(), hostile()), 0..40),
    ) -> Scene {
        let mut scene = Scene::new().params(if sane { &PARAMS } else { &params });
        for (modality, bytes) in parts {
            scene = scene.part(Part { modality, bytes, ..Part::default() });
        }
        scene.request = Request {
            seed,
            prompt_tokens: tokens[0],
            max_tokens: tokens[1],
            deadline_ms,
            flags,
            ..Request::default()
        };
        scene.nodes = nodes;
        let cells: Vec<(u32, Cell)> = cells.into_iter().map(|(key, mean, count)| (key, cell(mean, count))).collect();
        scene.calibration(Calibration::from_cells(&cells))
    }
}

proptest! {
    #[test]
    fn every_plan_keeps_the_rules(scene in any_scene()) {
        let plan = scene.plan::<PerLlm>();
        let (reasons, terms) = (MANIFEST.matches("[[reason]]").count(), MANIFEST.matches("[[term]]").count());
        prop_assert_eq!(rules::plan(&plan, &scene.input(), reasons, terms), Ok(()));
        prop_assert_eq!(plan.terms.len(), terms);
        prop_assert!(plan.route != Route::Speculate);
        if plan.route != Route::Edge {
            let node = &scene.nodes[plan.peer as usize];
            prop_assert!(node.is(capability::TARGET) && (plan.peer == 0 || node.up));
            prop_assert!(plan.peer == 0 || !scene.input().bound_here());
        }
        // The same input, the same plan.
        prop_assert_eq!(scene.plan::<PerLlm>(), plan.clone());
        prop_assert!(PerLlm::explain(&scene.input(), &plan).len() <= 4096);
    }

    #[test]
    fn an_arm_that_can_run_is_found(scene in any_scene()) {
        let arms = that_can_run(&scene.input()).len();
        let plan = scene.plan::<PerLlm>();
        prop_assert_eq!(plan.reason == reason::NONE, arms == 0);
    }

    #[test]
    fn updates_keep_the_rules_and_rewards_are_shares(
        scene in any_scene(),
        numbers in prop::array::uniform8(hostile()),
        tokens in any::<u32>(),
        status in 0u8..7,
        as_planned in any::<bool>(),
    ) {
        let plan = scene.plan::<PerLlm>();
        let outcome = Outcome {
            route: if as_planned { plan.route as u8 } else { 3 },
            peer: plan.peer,
            status,
            total_ms: numbers[0],
            sent_bytes: numbers[1],
            received_bytes: numbers[2],
            edge_flops: numbers[3],
            cloud_flops: numbers[4],
            cost: numbers[5],
            tokens,
            memo: plan.memo,
            ..Outcome::default()
        };
        let updates = PerLlm::observe(&outcome, &scene.params, &scene.calibration);
        prop_assert_eq!(rules::updates(&updates), Ok(()));
        prop_assert!(updates.first().is_none_or(|update| (0.0..=1.0).contains(&update.value)));
    }

    #[test]
    fn any_memo_is_read_or_left(memo in prop::collection::vec(any::<u8>(), 0..40), status in 0u8..7) {
        let outcome = Outcome { status, memo, ..Outcome::default() };
        let updates = observed(&outcome, &Calibration::default());
        prop_assert_eq!(rules::updates(&updates), Ok(()));
    }

    #[test]
    fn a_violation_is_a_share(used in hostile(), allowed in hostile()) {
        prop_assert!((0.0..=1.0).contains(&overstep(used, allowed)));
    }
}
