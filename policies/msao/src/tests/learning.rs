use super::*;
use crate::shape::Shape;

fn shape(scene: &Scene) -> Shape {
    Shape::of(&scene.input())
}

/// An answer just as the plan has predicted it.
pub(super) fn as_predicted(plan: &Plan, tokens: u32) -> Outcome {
    let note = note(plan);
    let first_ms = f64::from(note.first_ms);
    let behind = f64::from(tokens) - 1.0;
    Outcome {
        route: plan.route as u8,
        peer: plan.peer,
        ttft_ms: first_ms,
        total_ms: first_ms + f64::from(note.tail_ms) + behind * f64::from(note.token_ms),
        tokens,
        memo: plan.memo.clone(),
        ..Outcome::default()
    }
}

pub(super) fn observed(outcome: &Outcome) -> Vec<Update> {
    Msao::observe(outcome, &PARAMS, &Calibration::default())
}

fn value(updates: &[Update], key: u32) -> Option<f64> {
    let found = updates.iter().find(|update| update.key == key);
    found.map(|update| update.value)
}

/// As the host folds updates.
pub(super) fn fold(cells: &mut Vec<(u32, Cell)>, updates: &[Update]) {
    for update in updates {
        let place = cells.iter().position(|(key, _)| *key == update.key);
        let place = place.unwrap_or_else(|| {
            cells.push((update.key, cell(0.0, 0.0)));
            cells.len() - 1
        });
        let known = &mut cells[place].1;
        match update.operation {
            Operation::Add => known.count += update.value,
            Operation::Sample => {
                let weight = if known.count > 0.0 {
                    update.weight
                } else {
                    1.0
                };
                known.mean += weight * (update.value - known.mean);
                known.count += 1.0;
            }
            Operation::Clear => panic!("nothing is cleared"),
        }
    }
}

#[test]
fn what_came_is_held_against_what_was_predicted() {
    let scene = scene().peer(verifier);
    let plan = planned(&scene);
    let outcome = as_predicted(&plan, 20);
    let (row, route) = (1, Route::Speculate);
    let updates = observed(&outcome);
    let of = |key: u32| value(&updates, key).unwrap();
    close(of(cells::first(row, route)), 1.0);
    close(of(cells::rest(row, route)), 1.0);
    close(of(cells::last(row, route)), 0.0);
    close(of(cells::length(shape(&scene))), 20.0);
    close(of(cells::length_by_bucket(shape(&scene))), 20.0);
    close(of(cells::length_by_text(shape(&scene))), 20.0);
    assert_eq!(updates[0], Update::add(cells::REQUESTS, 1.0));
    // Twice as late, and what is behind it three times as slow.
    let late = Outcome {
        ttft_ms: 2.0 * outcome.ttft_ms,
        total_ms: 2.0 * outcome.ttft_ms + 3.0 * (outcome.total_ms - outcome.ttft_ms),
        ..outcome.clone()
    };
    let updates = observed(&late);
    close(value(&updates, cells::first(row, route)).unwrap(), 2.0);
    close(value(&updates, cells::rest(row, route)).unwrap(), 3.0);
    // The probe was over before the plan.
    let probed = Outcome {
        ttft_ms: outcome.ttft_ms + 50.0,
        total_ms: outcome.total_ms + 50.0,
        probe_ms: 50.0,
        ..outcome.clone()
    };
    close(
        value(&observed(&probed), cells::first(row, route)).unwrap(),
        1.0,
    );
    // A few tokens have no pace.
    assert_eq!(
        value(&observed(&as_predicted(&plan, 3)), cells::rest(row, route)),
        None
    );
}

#[test]
fn what_ran_otherwise_says_nothing_of_times() {
    let plan = planned(&scene().peer(verifier));
    let outcome = as_predicted(&plan, 20);
    let first = cells::first(1, Route::Speculate);
    for other in [
        Outcome {
            route: 1,
            ..outcome.clone()
        },
        Outcome {
            peer: 2,
            ..outcome.clone()
        },
        Outcome {
            overrides: overrides::PEER,
            ..outcome.clone()
        },
        Outcome {
            status: status::CANCELLED,
            ..outcome.clone()
        },
    ] {
        assert_eq!(value(&observed(&other), first), None);
    }
    // A peer that failed, refused or was lost is thought to be late.
    for status in [status::DEGRADED, status::REFUSED, status::FAILED, 77] {
        let failed = Outcome {
            status,
            ..outcome.clone()
        };
        close(value(&observed(&failed), first).unwrap(), 3.0);
    }
    let nothing = Outcome {
        memo: Vec::new(),
        ..outcome
    };
    assert!(observed(&nothing).is_empty());
}

#[test]
fn acceptance_is_learned_by_mix_and_weighs_by_drafts() {
    let scene = scene().peer(verifier);
    let plan = planned(&scene);
    let mut outcome = as_predicted(&plan, 20);
    outcome.drafted[15] = 10;
    outcome.drafted[3] = 6;
    outcome.accepted[15] = 10;
    outcome.accepted[3] = 2;
    let key = cells::acceptance(1, shape(&scene));
    let updates = observed(&outcome);
    let update = updates.iter().find(|update| update.key == key).unwrap();
    close(update.value, 12.0 / 16.0);
    close(update.weight, 0.2 * 0.5);
    // (16 * 0.5 + 4 * 0.9) / 20.
    let sure = learned(scene, &[(key, 0.5, 99.0)]);
    close(arm(&sure, 1, Route::Cloud).acceptance, 0.58);
    assert_eq!(way(&sure).0, Route::Cloud);
}

#[test]
fn answers_are_thought_to_be_as_long_as_such_answers_were() {
    let tokens = |cells: &[(u32, f64, f64)]| {
        let scene = learned(scene().peer(|_| {}), cells);
        weigh(&scene.input(), &settings()).tokens
    };
    let plain = shape(&scene());
    let (own, bucket) = (cells::length(plain), cells::length_by_bucket(plain));
    // A quarter of 128.
    close(tokens(&[]), 32.0);
    close(tokens(&[(own, 10.0, 1.0)]), 21.0);
    close(tokens(&[(own, 10.0, 100.0)]), (8.0 * 10.0 + 32.0) / 9.0);
    close(tokens(&[(bucket, 14.0, 8.0)]), (8.0 * 14.0 + 32.0) / 9.0);
    close(tokens(&[(own, 1e9, 100.0)]), 128.0);
    // Images, and answers of another class of lengths, are another shape.
    let other = shape(&scene().image(9, 1e5));
    assert_ne!(other, plain);
    assert_ne!(
        shape(&scene().request(|request| request.max_tokens = 129)),
        plain
    );
    close(tokens(&[(cells::length(other), 10.0, 100.0)]), 32.0);
    // Where the prompt's text is as long, what that came to comes before the rest of the shape.
    let alike = cells::length_by_text(plain);
    let both = [(own, 10.0, 1e9), (alike, 91.0, 8.0)];
    close(
        tokens(&both),
        (8.0 * 91.0 + (8.0 * 10.0 + 32.0) / 9.0) / 9.0,
    );
}

#[test]
fn every_length_of_text_has_a_class_and_longer_ones_none_before() {
    let class = |tokens: u32| {
        let scene = Scene::new().text(tokens);
        shape(&scene).text
    };
    let mut last = 0;
    for tokens in (0..2000).chain([u32::MAX]) {
        let text = class(tokens);
        assert!(text == last || text == last + 1, "{tokens}: {text}");
        last = text;
    }
    assert_eq!([class(0), class(17), class(31)], [0, 17, 31]);
    assert_eq!([class(32), class(35), class(63)], [32, 32, 39]);
    assert_eq!([class(64), class(511), class(u32::MAX)], [40, 42, 43]);
    assert_eq!(last + 1, shape::TEXTS);
}

#[test]
fn what_was_learned_corrects_within_its_limit() {
    let route = Route::CloudDraft;
    let off = |mean: f64, count: f64, limit: f64| {
        let scene = learned(
            scene().peer(|_| {}),
            &[(cells::rest(1, route), mean, count)],
        );
        arm(
            &scene.params(&with(&[("correction-limit", limit)])),
            1,
            route,
        )
        .rest_off
    };
    // A mean of one sample weighs a third.
    close(off(1.6, 1.0, 2.0), 1.2);
    close(off(1.6, 8.0, 2.0), 1.0 + 0.8 * 0.6);
    close(off(100.0, 1e9, 2.0), 2.0);
    close(off(0.0, 1e9, 2.0), 0.5);
    close(off(100.0, 1e9, 1.0), 1.0);
    // Firsts of a peer have much in common: one route's say something of another's.
    let firsts = learned(
        scene().peer(|_| {}),
        &[(cells::first(1, Route::Cloud), 1.6, 2.0)],
    );
    close(arm(&firsts, 1, route).first_off, 1.3);
    // What is not renewed fades.
    let stale = learned(
        scene().peer(|_| {}),
        &[
            (cells::REQUESTS, 0.0, 256.0),
            (cells::rest(1, route), 1.6, 1e9),
            (cells::last(1, route), 0.0, 9.0),
        ],
    );
    close(arm(&stale, 1, route).rest_off, 1.3);
}

#[test]
fn a_route_that_is_slower_than_it_should_be_is_left_soon() {
    // Both models side by side are thought to take 17.9 ms a token; they take twice that, and the target alone 25.
    let mut cells: Vec<(u32, Cell)> = Vec::new();
    let mut routes = Vec::new();
    for seed in 0..20 {
        let scene = scene()
            .peer(|peer| peer.acceptance = 0.5)
            .request(|request| request.seed = seed)
            .params(&with(&[("explore", 0.0)]))
            .calibration(Calibration::from_cells(&cells));
        let plan = planned(&scene);
        let mut outcome = as_predicted(&plan, 32);
        if plan.route == Route::CloudDraft {
            outcome.total_ms = 2.0 * outcome.total_ms - outcome.ttft_ms;
        }
        fold(&mut cells, &observed(&outcome));
        routes.push(plan.route);
    }
    assert_eq!(routes[0], Route::CloudDraft);
    assert_eq!(routes[1..], [Route::Cloud; 19]);
}

#[test]
fn of_two_routes_that_are_far_off_the_slower_one_is_seen_to_be_slower() {
    for key in [cells::first, cells::rest] {
        let offs = |cloud: f64, both: f64| {
            let scene = learned(
                scene().peer(|_| {}),
                &[
                    (key(1, Route::Cloud), cloud, 1e9),
                    (key(1, Route::CloudDraft), both, 1e9),
                ],
            );
            [Route::Cloud, Route::CloudDraft].map(|route| {
                let arm = arm(&scene, 1, route);
                arm.first_off * arm.rest_off
            })
        };
        // In common they are off by 4: of that no more than 2 is believed.
        let [cloud, both] = offs(3.0, 5.0);
        close(cloud, 2.0 * 3.0 / 4.0);
        close(both, 2.0 * 5.0 / 4.0);
        // Beside that neither by more than 2.
        let [cloud, both] = offs(0.125, 8.0);
        close(cloud, 2.0 * 0.5);
        close(both, 2.0 * 8.0 / 4.0625);
    }
}

#[test]
fn what_an_edge_answer_takes_behind_the_probe_is_learned_apart() {
    let about = |probed: bool, cells: &[(u32, f64, f64)]| {
        // Somebody else could answer, if only much later: alone a draft model is not looked over.
        let far = scene().image(100, 1e5).peer(|peer| peer.rtt_ms = 1e6);
        let scene = far.request(|request| {
            if probed {
                request.flags |= flag::PROBED;
            }
        });
        learned(scene, cells)
    };
    // 200 tokens at 2,000/s: half of them is the probe's, and a draft takes 10 ms.
    let first = |probed: bool, cells: &[(u32, f64, f64)]| {
        arm(&about(probed, cells), 0, Route::Edge).first_ms
    };
    close(first(false, &[]), 50.0 + 60.0);
    close(first(true, &[]), 60.0);
    let known = [
        (cells::PROBE, 1.5, 1e9),
        (cells::BEHIND_PROBE, 0.5, 1e9),
        (cells::first(0, Route::Edge), 2.0, 1e9),
    ];
    close(first(false, &known), 1.5 * 50.0 + 0.5 * 60.0);
    close(first(true, &known), 0.5 * 60.0);
    // Of what is not looked at, both are one.
    let small = learned(scene().image(20, 1e5), &known);
    close(arm(&small, 0, Route::Edge).first_ms, 2.0 * 70.0);
    for (probed, key, other) in [
        (true, cells::BEHIND_PROBE, cells::first(0, Route::Edge)),
        (false, cells::first(0, Route::Edge), cells::BEHIND_PROBE),
    ] {
        let plan = planned(&about(probed, &[]).params(&with(&[("probe_tokens", 999.0)])));
        assert_eq!(plan.route, Route::Edge);
        let updates = observed(&as_predicted(&plan, 9));
        assert!(value(&updates, key).is_some() && value(&updates, other).is_none());
    }
}

#[test]
fn the_probe_and_what_was_sent_are_learned_from() {
    let image = Part {
        modality: modality::IMAGE,
        tokens: 600,
        bytes: 4e5,
        necessity: 0.9,
        mas: 0.6,
        unusual: 0.0,
        ..Part::default()
    };
    let scene = scene()
        .part(image)
        .peer(slow)
        .request(|request| request.flags |= flag::PROBED);
    let plan = planned(&scene);
    let shape = shape(&scene);
    let sent = Outcome {
        probe_ms: 350.0,
        sent_bytes: 336_000.0,
        parts: plan.parts.clone(),
        ..as_predicted(&plan, 20)
    };
    let updates = observed(&sent);
    // Predicted: half of 700 tokens at 2,000/s, and 224 kB.
    close(value(&updates, cells::PROBE).unwrap(), 2.0);
    close(value(&updates, cells::kept(shape)).unwrap(), 0.7);
    close(value(&updates, cells::bytes(shape)).unwrap(), 1.5);
    // Media that went as they came say nothing of it.
    let whole = Outcome {
        overrides: overrides::RETENTION,
        ..sent
    };
    assert_eq!(value(&observed(&whole), cells::bytes(shape)), None);
}
