//! The draft model's own answer where a target takes over what it is not sure of.

use super::learning::{as_predicted, observed};
use super::*;
use crate::cells::{amiss, amiss_by_text, left, left_by_text, length, length_by_text};
use crate::shape::Shape;

/// A short question to a target that is 200 ms away and verifies.
fn far() -> Scene {
    scene().params(&DEFAULTS).peer(|peer| {
        verifier(peer);
        peer.rtt_ms = 200.0;
    })
}

fn shape() -> Shape {
    Shape::of(&far().input())
}

/// The same once so many requests were verified, of whose sure drafts this share did not stand.
fn known(share: f64, requests: f64) -> Scene {
    learned(far(), &[(amiss(shape()), share, requests)])
}

/// Of so many seeds, how many drafts are verified though the draft model would answer.
fn checks(scene: &Scene, seeds: u64) -> usize {
    let plans =
        (0..seeds).map(|seed| planned(&scene.clone().request(|request| request.seed = seed)));
    let checks: Vec<Plan> = plans.filter(|plan| plan.reason == reason::CHECKS).collect();
    assert!(checks.iter().all(|plan| plan.route == Route::Speculate));
    checks.len()
}

#[test]
fn the_draft_model_answers_once_it_is_known_to_be_right_where_it_is_sure() {
    let seeded = |scene: Scene| {
        let plans =
            (0..64).map(|seed| planned(&scene.clone().request(|request| request.seed = seed)));
        let edge = plans.filter(|plan| plan.route == Route::Edge);
        edge.count()
    };
    assert_eq!(seeded(far()), 0);
    assert!(seeded(known(0.001, 1000.0)) > 55);
    // It is wrong too often for what it saves.
    assert_eq!(seeded(known(0.2, 1000.0)), 0);
    // Who must have the target's answer gets it, and who has no target to take over is as careful as ever.
    let exact = known(0.001, 1000.0).request(|request| request.flags |= flag::EXACT);
    assert_eq!(seeded(exact), 0);
    let mut stranger = known(0.001, 1000.0);
    stranger.nodes[1].can &= !capability::SAME_TOKENIZER;
    stranger.nodes[1].acceptance = 0.8;
    assert_eq!(seeded(stranger), 0);
}

/// The share of edge answers that are left to a target, as seen in 1e9: a guess of 0.4 counts like four.
fn guessed(share: f64) -> f64 {
    (1e9 * share + 1.6) / (1e9 + 4.0)
}

/// A standard error less, so many having had as long a text; all others count like four.
fn thought(share: f64, alike: f64) -> f64 {
    share - (share * (1.0 - share) / (alike + 4.0)).sqrt()
}

#[test]
fn what_is_left_to_the_target_takes_its_time() {
    let answered = |share: f64| {
        let cells = [(left(shape()), share, 1e9), (amiss(shape()), 0.01, 1e9)];
        arm(&learned(far(), &cells), 0, Route::Edge)
    };
    let cloud = arm(&far(), 1, Route::Cloud);
    let (none, all) = (answered(0.0), answered(1.0));
    let guessed = |share: f64| thought(guessed(share), 0.0).max(0.0);
    let time = |share: f64| {
        let rest_ms = 31.0 * none.times.token_ms;
        let left = guessed(share);
        none.first_ms + (1.0 - left) * rest_ms + left * cloud.total_ms
    };
    close(none.total_ms, time(0.0));
    close(all.total_ms, time(1.0));
    close(none.doubt_ms, 200.0 * 0.01 * (1.0 - guessed(0.0)) * 32.0);
    close(
        all.price_ms,
        guessed(1.0) * cloud.price_ms + all.price_ms - all.beside_ms,
    );
}

#[test]
fn questions_as_long_as_this_one_say_more_than_all_others() {
    let edge = |cells: &[(u32, f64, f64)]| arm(&learned(far(), cells), 0, Route::Edge);
    let mix = [(left(shape()), 0.5, 1e9), (amiss(shape()), 0.02, 1e9)];
    let alike = |share: f64, wrong: f64, count: f64| {
        let text = [
            (left_by_text(shape()), share, count),
            (amiss_by_text(shape()), wrong, count),
        ];
        edge(&[mix.as_slice(), &text].concat())
    };
    let all = edge(&mix);
    // Twelve count three times as much as all others.
    let (none, each) = (alike(0.0, 0.0, 12.0), alike(1.0, 0.1, 12.0));
    let [few, half, many] =
        [(0.125, 12.0), (0.5, 0.0), (0.875, 12.0)].map(|it| thought(it.0, it.1));
    close(none.doubt_ms, 200.0 * 0.005 * (1.0 - few) * 32.0);
    close(each.doubt_ms, 200.0 * 0.08 * (1.0 - many) * 32.0);
    close(none.beside_ms, few / half * all.beside_ms);
    // The more are known, the less is hoped.
    assert!(alike(0.5, 0.02, 12.0).total_ms > all.total_ms);
    assert!(none.total_ms < all.total_ms && all.total_ms < each.total_ms);
    // Another length, another class.
    let own = left_by_text(shape());
    let other = |cells: &[(u32, f64, f64)]| arm(&learned(far().text(20), cells), 0, Route::Edge);
    let besides = [(left(shape()), 0.5, 1e9), (own, 1.0, 1e9)];
    close(other(&besides).beside_ms, other(&besides[..1]).beside_ms);
}

#[test]
fn sure_drafts_are_verified_often_at_first_and_ever_fewer() {
    // The first is for certain.
    assert_eq!(checks(&far(), 100), 100);
    let quarter = checks(&known(0.0, 2.0), 1000);
    assert!((190..310).contains(&quarter), "{quarter}");
    let few = checks(&known(0.0, 1e6), 4000);
    assert!((40..130).contains(&few), "{few}");
    // Nothing is to be learned where the draft model would not answer even if it were always right, or nobody verifies.
    let near = learned(
        scene().params(&DEFAULTS).peer(|peer| {
            verifier(peer);
            peer.rtt_ms = 0.1;
            peer.target_tok_per_s = 5000.0;
            peer.prefill_tok_per_s = 1e6;
        }),
        &[],
    );
    assert_eq!(checks(&near, 100), 0);
    let mut silent = far();
    silent.nodes[1].can &= !capability::VERIFY;
    assert_eq!(checks(&silent, 100), 0);
}

#[test]
fn how_often_sure_drafts_do_not_stand_is_learned_where_they_are_judged() {
    let plan = planned(&far());
    assert_eq!(plan.reason, reason::CHECKS);
    let mut outcome = as_predicted(&plan, 9);
    outcome.drafted = vec![0; 16];
    outcome.accepted = vec![0; 16];
    // Of those that were not sure nothing is asked.
    (outcome.drafted[3], outcome.accepted[3]) = (5, 0);
    (outcome.drafted[15], outcome.accepted[15]) = (4, 3);
    let found = |updates: Vec<Update>, key: u32| {
        let update = updates.into_iter().find(|update| update.key == key);
        update.map(|update| (update.value, update.weight))
    };
    assert_eq!(found(observed(&outcome), amiss(shape())), Some((0.25, 1.0)));
    assert_eq!(
        found(observed(&outcome), amiss_by_text(shape())),
        Some((0.25, 1.0))
    );
    // Those that were not sure would have left an edge answer to the target.
    assert_eq!(found(observed(&outcome), left(shape())), Some((1.0, 1.0)));
    // The tenth counts a tenth.
    let nine = Calibration::from_cells(&[(amiss(shape()), cell(0.5, 9.0))]);
    let updates = Msao::observe(&outcome, &DEFAULTS, &nine);
    assert_eq!(found(updates, amiss(shape())), Some((0.25, 0.1)));
    // Where answers have 16 tokens, one of which 4 were drafted counts a quarter of that.
    let of_sixteen = Calibration::from_cells(&[
        (length(shape()), cell(16.0, 50.0)),
        (amiss(shape()), cell(0.5, 9.0)),
    ]);
    let updates = Msao::observe(&outcome, &DEFAULTS, &of_sixteen);
    assert_eq!(found(updates, amiss(shape())), Some((0.25, 0.025)));
    // Questions that are as long have answers of their own length.
    let of_two = Calibration::from_cells(&[
        (length(shape()), cell(16.0, 50.0)),
        (length_by_text(shape()), cell(8.0, 50.0)),
        (amiss_by_text(shape()), cell(0.5, 4.0)),
    ]);
    let updates = Msao::observe(&outcome, &DEFAULTS, &of_two);
    assert_eq!(found(updates, amiss_by_text(shape())), Some((0.25, 0.1)));
}

#[test]
fn whether_a_target_would_have_taken_over_is_learned_of_drafts_that_were_judged() {
    let plan = planned(&far());
    assert_eq!(plan.reason, reason::CHECKS);
    let left_with = |tokens: u32, drafts: &[(usize, u32)]| {
        let mut outcome = as_predicted(&plan, tokens);
        outcome.drafted = vec![0; 16];
        for (bin, count) in drafts {
            outcome.drafted[*bin] = *count;
        }
        outcome.accepted = outcome.drafted.clone();
        let updates = observed(&outcome);
        let of = |key: u32| {
            let update = updates.iter().find(|update| update.key == key);
            update.map(|update| (update.value, update.weight))
        };
        assert_eq!(of(left(shape())), of(left_by_text(shape())));
        of(left(shape()))
    };
    // A late token needs 0.7, for which the twelfth of 16 bins is taken to be sure enough; the first two need 0.97.
    let (stays, goes) = (Some((0.0, 1.0)), Some((1.0, 1.0)));
    assert_eq!(left_with(9, &[(15, 9)]), stays);
    assert_eq!(left_with(9, &[(11, 1), (15, 8)]), stays);
    assert_eq!(left_with(9, &[(10, 1), (15, 8)]), goes);
    assert_eq!(left_with(2, &[(14, 1), (15, 2)]), stays);
    assert_eq!(left_with(2, &[(14, 1), (15, 1)]), goes);
    // Of a longer answer no more were judged: the others went unverified, or the target had the rest.
    assert_eq!(left_with(9, &[(14, 1), (15, 1)]), stays);
    assert_eq!(left_with(9, &[]), None);
}

#[test]
fn whether_a_target_took_over_is_learned_of_edge_answers() {
    let scene = known(0.001, 1000.0);
    let plans = (0..).map(|seed| planned(&scene.clone().request(|request| request.seed = seed)));
    let plan = plans
        .into_iter()
        .find(|plan| plan.route == Route::Edge)
        .unwrap();
    let share = |outcome: &Outcome| {
        let updates = observed(outcome);
        let found = updates.iter().find(|update| update.key == left(shape()));
        assert!(updates.iter().all(|update| update.key != amiss(shape())));
        found.map(|update| update.value)
    };
    let stayed = as_predicted(&plan, 9);
    assert_eq!(share(&stayed), Some(0.0));
    let alike = observed(&stayed)
        .into_iter()
        .find(|it| it.key == left_by_text(shape()));
    assert_eq!(alike.map(|it| (it.value, it.weight)), Some((0.0, 1.0)));
    let mut taken_over = as_predicted(&plan, 9);
    (taken_over.route, taken_over.peer) = (Route::Cloud as u8, 1);
    // The token in question was judged: it says nothing of those that are sure.
    taken_over.drafted = vec![0; 16];
    taken_over.accepted = vec![0; 16];
    taken_over.drafted[15] = 1;
    assert_eq!(share(&taken_over), Some(1.0));
    // All count alike at first, and each a twentieth in the end.
    let weight = |count: f64| {
        let so_far = Calibration::from_cells(&[(left(shape()), cell(0.5, count))]);
        let updates = Msao::observe(&taken_over, &DEFAULTS, &so_far);
        let found = updates.iter().find(|update| update.key == left(shape()));
        found.unwrap().weight
    };
    assert_eq!([weight(1.0), weight(3.0), weight(1e6)], [0.5, 0.25, 0.05]);
    // The host's doing.
    taken_over.overrides = overrides::ROUTE;
    assert_eq!(share(&taken_over), None);
}

#[test]
fn one_answer_that_was_left_to_a_target_is_no_reason_never_to_try_again() {
    let routes = |count: f64| {
        let scene = learned(
            far(),
            &[(left(shape()), 1.0, count), (amiss(shape()), 0.0, 1e9)],
        );
        let plans =
            (0..64).map(|seed| planned(&scene.clone().request(|request| request.seed = seed)));
        plans.filter(|plan| plan.route == Route::Edge).count()
    };
    assert!(routes(1.0) > 32, "{}", routes(1.0));
    assert_eq!(routes(1e9), 0);
}

#[test]
fn media_are_brought_to_where_an_answer_may_be_left_to() {
    let about = |share: f64, bytes: f64| {
        let scene = far().image(64, bytes);
        let shape = Shape::of(&scene.input());
        learned(
            scene,
            &[(left(shape), share, 1e9), (amiss(shape), 0.0, 1e9)],
        )
    };
    let plan = |scene: Scene| {
        let plans =
            (0..64).map(|seed| planned(&scene.clone().request(|request| request.seed = seed)));
        plans
            .into_iter()
            .find(|plan| plan.route == Route::Edge)
            .unwrap()
    };
    assert_eq!(plan(about(0.5, 1e5)).peer, 1);
    // It is hardly ever left to anybody; and there is nothing to be brought.
    assert_eq!(plan(about(0.0, 1e5)).peer, 0);
    assert_eq!(plan(known(0.0, 1e9)).peer, 0);
    // Two trips of 200 ms and the upload, all of which are over by the first token of an edge that has waited for long.
    let (scene, cloud) = (about(1.0, 1e5), arm(&about(1.0, 1e5), 1, Route::Cloud));
    let taken = |scene: &Scene| {
        let own = arm(scene, 0, Route::Edge);
        let left = thought(guessed(1.0), 0.0);
        (own.total_ms - own.first_ms - (1.0 - left) * 31.0 * own.times.token_ms) / left
    };
    let mut slow = scene.clone();
    slow.nodes[0].queue_ms = 1e4;
    let rtt_ms = 202.0;
    close(
        taken(&slow),
        cloud.total_ms - 2.0 * rtt_ms - cloud.upload_ms,
    );
    // They set out when there is a plan, behind the probe.
    let edge = arm(&scene, 0, Route::Edge);
    let first_ms = edge.first_ms - edge.probe_ms;
    assert!(edge.probe_ms > 30.0 && first_ms < 2.0 * rtt_ms);
    close(taken(&scene), cloud.total_ms - first_ms);
}
