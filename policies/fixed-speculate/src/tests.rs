use super::*;

fn scene() -> Scene {
    Scene::new()
        .text(30)
        .params(&[4.0, 1.0, 1000.0])
        .edge(|_| {})
}

fn planned(scene: &Scene) -> (Route, u32, u32) {
    let plan = scene.plan::<FixedSpeculate>();
    (plan.route, plan.peer, plan.reason)
}

#[test]
fn it_speculates_with_the_nearest_peer_that_verifies() {
    let scene = scene()
        .peer(|far| far.rtt_ms = 90.0)
        .peer(|near| near.rtt_ms = 15.0)
        .peer(|down| {
            down.up = false;
            down.rtt_ms = 1.0;
        });
    let plan = scene.plan::<FixedSpeculate>();
    assert_eq!((plan.route, plan.peer), (Route::Speculate, 2));
    assert_eq!((plan.gamma_max, plan.in_flight_max), (4, 1));
    assert_eq!(plan.terms, [15.0, 0.8]);
}

#[test]
fn it_declines_where_speculation_is_impossible() {
    let down = scene().peer(|peer| peer.up = false);
    assert_eq!(planned(&down), (Route::Edge, 0, reason::NO_PEER));
    assert_eq!(planned(&scene()), (Route::Edge, 0, reason::NO_PEER));

    let full = scene().peer(|peer| peer.kv_free = 10.0);
    assert_eq!(planned(&full), (Route::Edge, 0, reason::NO_PEER));

    for lacking in [capability::VERIFY, capability::SAME_TOKENIZER] {
        let scene = scene().peer(|peer| peer.can &= !lacking);
        assert_eq!(
            planned(&scene),
            (Route::Cloud, 1, reason::PEER_CANNOT_VERIFY)
        );
    }
    let no_draft = scene()
        .edge(|edge| edge.can &= !capability::DRAFT)
        .peer(|_| {});
    assert_eq!(planned(&no_draft), (Route::Cloud, 1, reason::NO_DRAFT_HERE));
}

#[test]
fn media_that_must_stay_do() {
    let bound = |scene: Scene| scene.request(|request| request.flags |= flag::MEDIA_AT_EDGE);
    let image = bound(scene().image(64, 1e5).peer(|_| {}));
    assert_eq!(planned(&image), (Route::Edge, 0, reason::MEDIA_STAY));
    let text = bound(scene().peer(|_| {}));
    assert_eq!(planned(&text).0, Route::Speculate);
}

#[test]
fn a_cloud_node_drafts_for_itself_where_it_can() {
    let both = scene().edge(|here| here.can |= capability::TARGET);
    assert_eq!(planned(&both), (Route::CloudDraft, 0, reason::OWN_TARGET));
    let target = scene().edge(|here| here.can = capability::TARGET);
    assert_eq!(planned(&target), (Route::Cloud, 0, reason::OWN_TARGET));
}

#[test]
fn every_round_has_gamma_drafts() {
    let memo = scene().peer(|_| {}).plan::<FixedSpeculate>().memo;
    let says = |event, unsent, in_flight, waited_ms| {
        let input = StepInput {
            event,
            unsent,
            in_flight,
            waited_ms,
            ..StepInput::default()
        };
        FixedSpeculate::step(&input, &memo)
    };
    assert_eq!(says(Event::Drafted, 3, 0, 0.0), Action::Draft);
    assert_eq!(says(Event::Drafted, 4, 0, 0.0), Action::Send);
    assert_eq!(says(Event::Drafted, 1, 4, 5.0), Action::Wait);
    assert_eq!(says(Event::Verdict, 1, 0, 0.0), Action::Draft);
    assert_eq!(says(Event::Overdue, 0, 4, 1000.0), Action::Wait);
    assert_eq!(says(Event::Overdue, 0, 4, 3000.0), Action::Finish);
    assert_eq!(says(Event::LinkDown, 0, 4, 10.0), Action::Finish);
}

#[test]
fn with_two_rounds_under_way_it_drafts_on() {
    let memo = scene()
        .params(&[4.0, 2.0, 1000.0])
        .peer(|_| {})
        .plan::<FixedSpeculate>()
        .memo;
    let says = |unsent, in_flight| {
        let input = StepInput {
            unsent,
            in_flight,
            ..StepInput::default()
        };
        FixedSpeculate::step(&input, &memo)
    };
    assert_eq!(says(2, 4), Action::Draft);
    assert_eq!(says(4, 4), Action::Send);
    assert_eq!(says(1, 8), Action::Wait);
}

#[test]
fn a_plan_without_rounds_is_finished_here() {
    let memo = scene().plan::<FixedSpeculate>().memo;
    assert_eq!(
        FixedSpeculate::step(&StepInput::default(), &memo),
        Action::Finish
    );
}

#[test]
fn the_manifest_names_what_the_code_reads() {
    let manifest = include_str!("../policy.toml");
    let named: Vec<String> = manifest
        .split("[[parameter]]")
        .skip(1)
        .filter_map(|table| table.lines().find_map(|line| line.strip_prefix("name = ")))
        .map(|name| name.trim_matches('"').replace('-', "_"))
        .collect();
    assert_eq!(named, Settings::NAMES);
}
