use msao_plugin::rules;
use proptest::prelude::*;

use super::*;

const PARAMS: [f64; 8] = [0.3, 0.0, 4.0, 8.0, 24.0, 0.7, 512.0, 5000.0];
const MANIFEST: &str = include_str!("../policy.toml");

fn scene() -> Scene {
    Scene::new().text(30).params(&PARAMS).edge(|_| {})
}

fn planned(scene: &Scene) -> (Route, u32, u32) {
    let plan = scene.plan::<ThresholdRouter>();
    (plan.route, plan.peer, plan.reason)
}

fn with(name: &str, value: f64) -> [f64; 8] {
    let mut params = PARAMS;
    let place = Settings::NAMES.iter().position(|known| *known == name);
    params[place.unwrap()] = value;
    params
}

/// A picture that is large, with what the probe says of it.
fn large_image(scene: Scene, necessity: f64) -> Scene {
    let image = Part {
        modality: modality::IMAGE,
        tokens: 600,
        frames: 1,
        bytes: 1e5,
        necessity,
        ..Part::default()
    };
    scene.part(image)
}

/// What is said to a token of this number and confidence.
fn says(memo: &[u8], token: u32, p_accept: f64) -> Action {
    let input = StepInput {
        p_accept,
        top1: 0.9,
        entropy_nats: 0.5,
        // The token is the one behind those that are committed.
        committed: token.saturating_sub(1),
        unsent: token.min(1),
        ..StepInput::default()
    };
    ThresholdRouter::step(&input, memo)
}

#[test]
fn the_draft_answers_first_where_a_target_can_take_over() {
    let plan = scene().peer(|_| {}).plan::<ThresholdRouter>();
    assert_eq!(
        (plan.route, plan.peer, plan.reason),
        (Route::Edge, 0, reason::DRAFT_FIRST)
    );
    assert_eq!(plan.terms, [20.0, -1.0]);
    let own = scene().edge(|here| {
        here.can = capability::DRAFT | capability::TARGET | capability::SAME_TOKENIZER;
    });
    assert_eq!(planned(&own), (Route::Edge, 0, reason::DRAFT_FIRST));
    assert!(!own.plan::<ThresholdRouter>().memo.is_empty());
}

#[test]
fn what_cannot_be_a_cascade_is_what_is_possible() {
    assert_eq!(planned(&scene()), (Route::Edge, 0, reason::NO_TARGET));
    let down = scene().peer(|peer| peer.up = false);
    assert_eq!(planned(&down), (Route::Edge, 0, reason::NO_TARGET));
    let full = scene().peer(|peer| peer.kv_free = 3.0);
    assert_eq!(planned(&full), (Route::Edge, 0, reason::NO_TARGET));
    let other = scene().peer(|peer| peer.can &= !capability::SAME_TOKENIZER);
    assert_eq!(planned(&other), (Route::Cloud, 1, reason::CANNOT_TAKE_OVER));
    let no_draft = scene().edge(|here| here.can = 0).peer(|_| {});
    assert_eq!(planned(&no_draft), (Route::Cloud, 1, reason::NO_DRAFT_HERE));
    let nothing = scene().edge(|here| here.can = 0);
    assert_eq!(planned(&nothing), (Route::Edge, 0, reason::NO_TARGET));
}

#[test]
fn exact_answers_come_from_the_target_at_once() {
    let exact = scene().request(|request| request.flags |= flag::EXACT);
    assert_eq!(planned(&exact), (Route::Edge, 0, reason::NO_TARGET));
    let large = large_image(exact.peer(|_| {}), -1.0);
    assert_eq!(planned(&large), (Route::Cloud, 1, reason::EXACT_ASKED));
}

#[test]
fn media_that_must_stay_do() {
    let bound = large_image(scene().peer(|_| {}), -1.0)
        .request(|request| request.flags |= flag::MEDIA_AT_EDGE);
    assert_eq!(planned(&bound), (Route::Edge, 0, reason::MEDIA_STAY));
    assert_eq!(
        says(&bound.plan::<ThresholdRouter>().memo, 1, 0.0),
        Action::Finish
    );
    let exact = bound
        .request(|request| request.flags |= flag::EXACT)
        .edge(|here| here.can = capability::DRAFT | capability::TARGET)
        .peer(|_| {});
    assert_eq!(planned(&exact), (Route::Cloud, 0, reason::EXACT_ASKED));
}

#[test]
fn a_large_medium_that_is_needed_is_the_targets() {
    let after = |necessity| large_image(scene().peer(|_| {}), necessity);
    assert_eq!(
        planned(&after(0.7)),
        (Route::Cloud, 1, reason::NEEDS_TARGET)
    );
    assert_eq!(planned(&after(0.6)), (Route::Edge, 0, reason::DRAFT_FIRST));
    assert_eq!(after(0.6).plan::<ThresholdRouter>().terms, [20.0, 0.6]);
    let unknown = after(-1.0).params(&with("needed", 0.0));
    assert_eq!(planned(&unknown), (Route::Edge, 0, reason::DRAFT_FIRST));
    // Of which the probe says that all is needed.
    let small = scene().peer(|_| {}).image(511, 1e5);
    assert_eq!(planned(&small), (Route::Edge, 0, reason::DRAFT_FIRST));
}

#[test]
fn the_first_unsure_token_hands_over() {
    let memo = scene().peer(|_| {}).plan::<ThresholdRouter>().memo;
    for token in [1, 8] {
        assert_eq!(says(&memo, token, 0.3), Action::Draft);
        assert_eq!(says(&memo, token, 0.29), Action::Escalate);
        assert_eq!(says(&memo, token, f64::NAN), Action::Escalate);
    }
}

#[test]
fn the_threshold_falls_behind_the_window() {
    let memo = scene().peer(|_| {}).plan::<ThresholdRouter>().memo;
    // Of 17 tokens behind the window 8 are left: 0.3 * 8 / 17 is 0.141.
    assert_eq!(says(&memo, 17, 0.15), Action::Draft);
    assert_eq!(says(&memo, 17, 0.14), Action::Escalate);
    // The last: 0.3 / 17 is 0.0176.
    assert_eq!(says(&memo, 24, 0.017), Action::Escalate);
    assert_eq!(says(&memo, 24, 0.018), Action::Finish);
    assert_eq!(says(&memo, 25, 0.0), Action::Finish);
}

#[test]
fn a_window_past_the_latest_token_ends_with_it() {
    let scene = scene().peer(|_| {}).params(&with("latest", 4.0));
    let memo = scene.plan::<ThresholdRouter>().memo;
    assert_eq!(says(&memo, 4, 0.29), Action::Escalate);
    assert_eq!(says(&memo, 5, 0.0), Action::Finish);
    let never = scene.params(&with("latest", 0.0));
    assert_eq!(
        says(&never.plan::<ThresholdRouter>().memo, 1, 0.0),
        Action::Finish
    );
}

#[test]
fn entropy_and_the_drafts_own_probability_count_too() {
    let memo = scene().peer(|_| {}).plan::<ThresholdRouter>().memo;
    let entropy = |memo: &[u8], entropy_nats, top1| {
        let input = StepInput {
            p_accept: 0.9,
            top1,
            entropy_nats,
            committed: 2,
            ..StepInput::default()
        };
        ThresholdRouter::step(&input, memo)
    };
    assert_eq!(entropy(&memo, 4.1, 0.9), Action::Escalate);
    assert_eq!(entropy(&memo, 4.0, 0.1), Action::Draft);
    let by_top1 = scene().peer(|_| {}).params(&with("signal", 1.0));
    let memo = by_top1.plan::<ThresholdRouter>().memo;
    assert_eq!(entropy(&memo, 0.0, 0.1), Action::Escalate);
}

#[test]
fn once_handed_over_a_silent_or_refusing_target_is_given_up() {
    let memo = scene().peer(|_| {}).plan::<ThresholdRouter>().memo;
    let says = |event, unsent| {
        let input = StepInput {
            event,
            unsent,
            committed: 30,
            ..StepInput::default()
        };
        ThresholdRouter::step(&input, &memo)
    };
    assert_eq!(says(Event::Overdue, 0), Action::Finish);
    assert_eq!(says(Event::Refused, 0), Action::Finish);
    assert_eq!(says(Event::LinkDown, 0), Action::Draft);
    // Drafts pile up until the target is back: this is no answer that goes on alone.
    assert_eq!(says(Event::Drafted, 3), Action::Draft);
    let begun = StepInput {
        unsent: 1,
        judged: 1,
        committed: 30,
        ..StepInput::default()
    };
    assert_eq!(ThresholdRouter::step(&begun, &memo), Action::Draft);
    assert_eq!(says(Event::Drafted, 1), Action::Finish);
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
}

fn hostile() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1.0f64..1e6,
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(-1.0),
        1 => prop::num::f64::ANY,
    ]
}

prop_compose! {
    fn any_node()(up in any::<bool>(), can in 0u32..32, numbers in prop::collection::vec(hostile(), 18)) -> Node {
        Node {
            up,
            can,
            rtt_ms: numbers[0],
            queue_ms: numbers[1],
            planned_ms: numbers[2],
            kv_free: numbers[3],
            ..Node::UNKNOWN
        }
    }
}

prop_compose! {
    fn any_scene()(
        nodes in prop::collection::vec(any_node(), 0..4),
        flags in 0u32..64,
        parts in prop::collection::vec((0u8..6, 0u32..2000, hostile()), 0..3),
        params in prop::collection::vec(hostile(), 0..12),
        sane in any::<bool>(),
    ) -> Scene {
        let mut scene = Scene::new()
            .params(if sane { &PARAMS } else { &params })
            .request(|request| request.flags = flags);
        for (modality, tokens, necessity) in parts {
            scene = scene.part(Part { modality, tokens, necessity, ..Part::default() });
        }
        scene.nodes = nodes;
        scene
    }
}

proptest! {
    #[test]
    fn every_plan_keeps_the_rules(scene in any_scene()) {
        let plan = scene.plan::<ThresholdRouter>();
        let (reasons, terms) = (MANIFEST.matches("[[reason]]").count(), MANIFEST.matches("[[term]]").count());
        prop_assert_eq!(rules::plan(&plan, &scene.input(), reasons, terms), Ok(()));
        // Nothing is sent where the client or the nodes forbid it.
        if plan.route != Route::Edge && plan.peer > 0 {
            prop_assert!(!scene.input().bound_here());
            let peer = &scene.nodes[plan.peer as usize];
            prop_assert!(peer.up && peer.is(capability::TARGET));
        }
    }

    #[test]
    fn an_answer_is_not_handed_over_late(
        token in 0u32..5000, latest in 0u32..5000, window in 1u32..5000, numbers in prop::array::uniform4(hostile()),
    ) {
        let watch = Watch { threshold: numbers[0], calibrated: true, entropy_max: numbers[1], window, latest };
        let input = StepInput {
            p_accept: numbers[2], entropy_nats: numbers[3], committed: token, unsent: 1, ..StepInput::default()
        };
        let says = ThresholdRouter::step(&input, &watch.encode());
        prop_assert!(says != Action::Escalate || token < latest);
        prop_assert!((0.0..=1.0).contains(&watch.strictness(token)));
    }

    #[test]
    fn more_confidence_never_hands_over_what_less_did_not(
        token in 1u32..40, a in 0.0f64..1.0, b in 0.0f64..1.0, threshold in 0.0f64..1.0,
    ) {
        let watch = Watch { threshold, calibrated: true, entropy_max: 4.0, window: 8, latest: 24 };
        let hands_over = |p| says(&watch.encode(), token, p) == Action::Escalate;
        prop_assert!(hands_over(a.min(b)) || !hands_over(a.max(b)));
    }

    #[test]
    fn any_memo_has_an_answer(memo in prop::collection::vec(any::<u8>(), 0..64), kind in 0u32..9) {
        let input = StepInput { event: Event::of(kind), ..StepInput::default() };
        ThresholdRouter::step(&input, &memo);
    }
}
