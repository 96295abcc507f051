use super::*;

const BOTH: u32 = capability::DRAFT | capability::TARGET;

#[test]
fn times_are_what_a_hand_gets() {
    let scene = scene().image(200, 125_000.0).peer(|peer| {
        peer.queue_ms = 3.0;
        peer.planned_ms = 2.0;
        peer.cached_bytes = 25_000.0;
        peer.stalled = 0.5;
    });
    // Three times 20 ms and 2 ms of jitter; 5 ms of waits; 100 kB at half of 45 Mbit/s; 300 tokens at 20,000/s.
    let ready = 66.0 + 5.0 + 800_000.0 / 22_500.0 + 15.0;
    let cloud = arm(&scene, 1, Route::Cloud);
    close(cloud.upload_ms, 800_000.0 / 22_500.0);
    close(cloud.first_ms, ready);
    close(cloud.total_ms, ready + 31.0 * 25.0);
    // Five drafts of 2.5 ms and a pass of 28.125 ms yield 3.68928 tokens at acceptance 0.8: no other number does better.
    // The draft model beside it takes a tenth of its time for a token, and is thought to for reading.
    let both = arm(&scene, 1, Route::CloudDraft);
    close(both.read_ms, 16.5);
    close(both.total_ms, ready + 1.5 + 31.0 * 40.625 / 3.689_28);
    // 300 tokens at 2,000/s, and one draft.
    let edge = arm(&scene, 0, Route::Edge);
    close(edge.total_ms, 160.0 + 31.0 * 10.0);
    // Round trip, pass, half a pass, queue, 68 bytes.
    let verdict = 22.0 + 30.0 + 15.0 + 3.0 + 68.0 * 8.0 / 22_500.0;
    let stream = arm(&scene, 1, Route::Speculate);
    close(stream.times.token_ms, 10.0 + 0.2 * verdict);
    // The session is opened when the probe has looked, which takes half of the reading.
    close(stream.first_ms, 75.0 + ready);
    let rest = verdict + 31.0 * (10.0 + 0.2 * verdict);
    close(stream.total_ms, 75.0 + ready + rest);
    // Without, the first draft comes after the target is ready.
    let unseen = Scene::params(scene, &with(&[("probe_tokens", 999.0)]));
    let stream = arm(&unseen, 1, Route::Speculate);
    close(stream.first_ms, ready);
    close(stream.total_ms, 160.0 + rest);
    // A unit of price for a million tokens is worth 10 s: 332 tokens.
    close(cloud.price_ms, 3.32);
    // A fifth of 32 tokens would have been others, of 5 s each.
    close(edge.doubt_ms, 32_000.0);
}

#[test]
fn a_draft_model_beside_the_target_has_to_pay_by_the_margin() {
    let both = |margin: f64| {
        let scene = scene()
            .peer(|_| {})
            .params(&with(&[("margin", margin), ("explore", 0.0)]));
        let [alone, both] = [Route::Cloud, Route::CloudDraft].map(|it| arm(&scene, 1, it));
        (
            alone.total_ms / both.total_ms - 1.0,
            both.declined,
            planned(&scene),
        )
    };
    let gain = both(0.0).0;
    assert!(gain > 0.5, "{gain}");
    assert!(!both(gain - 0.01).1);
    assert_eq!(both(gain - 0.01).2.route, Route::CloudDraft);
    let (_, declined, plan) = both(gain + 0.01);
    assert!(declined);
    assert_eq!(plan.route, Route::Cloud);
    // Nothing is declined for the sake of what would be late.
    let between = |scene: &Scene| {
        let [alone, both] = [Route::Cloud, Route::CloudDraft].map(|it| arm(scene, 1, it).total_ms);
        (alone + both) / 2.0
    };
    let scene = scene()
        .peer(|_| {})
        .params(&with(&[("margin", gain + 0.01), ("explore", 0.0)]));
    let deadline_ms = between(&scene);
    let hurried = scene.request(|request| request.deadline_ms = deadline_ms);
    assert_eq!(planned(&hurried).route, Route::CloudDraft);
}

#[test]
fn a_stream_is_held_against_ways_that_are_not_declined() {
    // Both models side by side are a little quicker than the target alone, and the stream quicker than either.
    let scene = |margin: f64| {
        let fast = |peer: &mut Node| {
            peer.rtt_ms = 1.0;
            peer.jitter_ms = 0.0;
            peer.acceptance = 0.95;
            peer.draft_tok_per_s = 70.0;
        };
        scene()
            .peer(fast)
            .params(&with(&[("margin", margin), ("explore", 0.0)]))
    };
    let ways = |margin: f64| {
        [Route::Cloud, Route::CloudDraft, Route::Speculate].map(|it| arm(&scene(margin), 1, it))
    };
    let [alone, both, stream] = ways(0.0);
    let over = |one: &Arm, other: &Arm| one.times.token_ms / other.times.token_ms - 1.0;
    let (beside_alone, beside_both) = (over(&alone, &stream), over(&both, &stream));
    assert!(beside_both > 0.0 && beside_alone > beside_both + 0.02);
    // More than it is ahead of both by, and than both are ahead of the target.
    let margin = (beside_both + beside_alone) / 2.0;
    assert!(margin > alone.total_ms / both.total_ms - 1.0);
    let [_, both, stream] = ways(margin);
    assert_eq!((both.declined, stream.declined), (true, false));
}

#[test]
fn what_a_peers_target_reads_and_makes_is_charged() {
    let scene = |charge: f64| {
        scene()
            .peer(|_| {})
            .params(&with(&[("target-charge", charge)]))
    };
    let charged = |charge: f64, row: u32, route: Route| arm(&scene(charge), row, route).charge_ms;
    // 100 tokens are read in 5 ms, some 32 made in 800.
    let time_ms = arm(&scene(0.0), 1, Route::Cloud).read_ms + 32.0 * 25.0;
    close(charged(0.25, 1, Route::Cloud), 0.25 * time_ms);
    let both = arm(&scene(0.0), 1, Route::CloudDraft);
    close(
        charged(0.25, 1, Route::CloudDraft),
        0.25 * (both.read_ms + 32.0 * both.times.token_ms),
    );
    close(charged(0.25, 0, Route::Edge), 0.0);
    let scored = arm(&scene(0.25), 1, Route::Cloud).score;
    close(
        scored - arm(&scene(0.0), 1, Route::Cloud).score,
        0.25 * time_ms,
    );
    // Who leaves answers there pays for these.
    let gated = with(&[("target-charge", 0.25), ("escalate-below", 0.9)]);
    let edge = arm(&scene(0.0).params(&gated), 0, Route::Edge);
    assert!(edge.charge_ms > 1.0 && edge.charge_ms < 0.25 * time_ms);
    close(
        edge.score,
        edge.total_ms + edge.price_ms + edge.charge_ms + edge.doubt_ms,
    );
}

#[test]
fn roots_are_roots() {
    for value in [1.0, 0.25, 1e-3, 1e-6, 1e-9] {
        let found = root(value);
        assert!(
            (found / value.sqrt() - 1.0).abs() < 1e-6,
            "{value}: {found}"
        );
    }
    assert_eq!([root(0.0), root(-1.0), root(f64::NAN), root(2.0)], [0.0; 4]);
}

#[test]
fn a_round_trip_is_counted_for_each_time_that_the_peer_is_waited_for() {
    let trips = |images: &[f64], cached: f64| {
        let scene = images
            .iter()
            .fold(scene(), |scene, bytes| scene.image(9, *bytes));
        let way = |rtt_ms: f64| {
            let peer = scene.clone().peer(|peer| {
                peer.rtt_ms = rtt_ms;
                peer.cached_bytes = cached;
            });
            arm(&peer, 1, Route::Cloud).first_ms
        };
        (way(120.0) - way(20.0)) / 100.0
    };
    // The question; media before it; whether a large one is there before that.
    close(trips(&[], 0.0), 1.0);
    close(trips(&[40_000.0], 0.0), 2.0);
    close(trips(&[40_000.0, 50_000.0], 0.0), 2.0);
    close(trips(&[65_536.0], 0.0), 3.0);
    // What is there is neither asked for nor sent.
    close(trips(&[90_000.0, 40_000.0], 130_000.0), 1.0);
    close(trips(&[90_000.0, 40_000.0], 90_000.0), 2.0);
}

#[test]
fn a_target_that_is_only_known_to_verify_is_thought_to_be_as_fast() {
    let scene = scene().peer(|peer| peer.target_tok_per_s = -1.0);
    close(arm(&scene, 1, Route::Cloud).times.token_ms, 30.0);
}

#[test]
fn it_speculates_where_a_token_takes_less_time_so() {
    let plan = planned(&scene().peer(verifier));
    assert_eq!(
        (plan.route, plan.peer, plan.reason),
        (Route::Speculate, 1, reason::SPECULATES)
    );
    assert_eq!(plan.mode, Mode::Exact);
    close(term(&plan, "verdict"), 67.0 + 68.0 * 8.0 / 45_000.0);
    // The cloud alone is next.
    close(term(&plan, "next"), term(&plan, "cloud"));
    close(term(&plan, "total"), 644.749_6);
}

#[test]
fn it_declines_where_speculation_does_not_pay() {
    // 10 + 0.2 * 67 ms a token: more than 25 less the margin, and than both models side by side.
    let few = scene().peer(|peer| {
        verifier(peer);
        peer.acceptance = 0.8;
    });
    assert_eq!(way(&few), (Route::Cloud, 1, reason::DECLINES));
    let beside = scene().peer(|peer| peer.acceptance = 0.9);
    assert_eq!(way(&beside), (Route::CloudDraft, 1, reason::DECLINES));
    // Where nobody verifies there is nothing to decline.
    let nobody = scene().peer(|peer| peer.can = capability::TARGET);
    assert_eq!(way(&nobody), (Route::Cloud, 1, reason::QUICKEST));
    let margin = few.params(&with(&[("margin", 0.05)]));
    assert_eq!(way(&margin), (Route::Cloud, 1, reason::QUICKEST));
    assert!(!arm(&margin, 1, Route::Speculate).declined);
}

#[test]
fn it_follows_the_figures_at_once() {
    let with_peer = |change: fn(&mut Node)| {
        way(&scene().peer(|peer| {
            verifier(peer);
            change(peer);
        }))
        .0
    };
    assert_eq!(with_peer(|_| {}), Route::Speculate);
    assert_eq!(with_peer(|peer| peer.rtt_ms = 120.0), Route::Cloud);
    assert_eq!(with_peer(|peer| peer.queue_ms = 200.0), Route::Cloud);
    assert_eq!(with_peer(|peer| peer.acceptance = 0.6), Route::Cloud);
    assert_eq!(with_peer(|peer| peer.up = false), Route::Edge);
    // Of two peers, the one with less to wait for.
    let queues = |first: f64, second: f64| {
        let scene = scene()
            .peer(|peer| peer.queue_ms = first)
            .peer(|peer| peer.queue_ms = second);
        way(&scene).1
    };
    assert_eq!((queues(300.0, 10.0), queues(10.0, 300.0)), (2, 1));
}

#[test]
fn what_cannot_run_is_no_way() {
    assert_eq!(way(&scene()), (Route::Edge, 0, reason::NO_TARGET));
    let down = scene().peer(|peer| peer.up = false);
    assert_eq!(way(&down), (Route::Edge, 0, reason::NO_TARGET));
    let bound = scene()
        .image(9, 1e5)
        .peer(|_| {})
        .request(|request| request.flags |= flag::MEDIA_AT_EDGE);
    assert_eq!(way(&bound), (Route::Edge, 0, reason::MEDIA_STAY));
    let exact = scene().request(|request| request.flags |= flag::EXACT);
    let plan = planned(&exact);
    assert_eq!((plan.route, plan.reason), (Route::Edge, reason::NONE));
    assert!(plan.memo.is_empty());
    let one = exact.peer(|peer| peer.can = capability::TARGET);
    assert_eq!(way(&one), (Route::Cloud, 1, reason::ONLY_ONE));
    // Here the two models are each for itself, and may read different ids.
    let own = scene().edge(|here| {
        here.can = BOTH;
        here.target_tok_per_s = 40.0;
    });
    assert_eq!(way(&own), (Route::Cloud, 0, reason::QUICKEST));
    let alike = scene().edge(|here| {
        here.can = BOTH | capability::SAME_TOKENIZER;
        here.target_tok_per_s = 10.0;
    });
    assert_eq!(way(&alike), (Route::CloudDraft, 0, reason::QUICKEST));
    assert_eq!(way(&Scene::new().params(&PARAMS)).2, reason::NONE);
}

#[test]
fn an_edge_answer_is_dear_by_what_the_target_would_have_said() {
    // It would be there much sooner.
    let slow = scene().peer(|peer| {
        verifier(peer);
        peer.rtt_ms = 2000.0;
    });
    assert_eq!(way(&slow).0, Route::Cloud);
    let cheap = slow.params(&with(&[("doubt", 100.0)]));
    assert_eq!(way(&cheap), (Route::Edge, 0, reason::QUICKEST));
}

#[test]
fn a_deadline_comes_first() {
    let by = |deadline_ms: f64| {
        let scene = scene()
            .peer(verifier)
            .request(|request| request.deadline_ms = deadline_ms);
        way(&scene)
    };
    assert_eq!(by(700.0).0, Route::Speculate);
    // Only the draft model is that quick.
    assert_eq!(by(600.0).0, Route::Edge);
    assert_eq!(by(100.0), (Route::Speculate, 1, reason::LATE));
}

#[test]
fn a_peer_without_room_is_the_last_resort() {
    let full = |peer: &mut Node| peer.kv_free = 200.0;
    let two = scene().peer(full).peer(|peer| peer.rtt_ms = 200.0);
    assert_eq!(way(&two).1, 2);
    // 100 tokens to read, and 128 that may be written.
    let just = scene().peer(|peer| peer.kv_free = 228.0).peer(|_| {});
    assert_eq!(way(&just).1, 1);
}

#[test]
fn a_target_without_room_is_waited_for_where_the_draft_model_is_worse() {
    let full = |peer: &mut Node| {
        peer.kv_free = 0.0;
        peer.queue_ms = 300.0;
    };
    let one = scene().peer(full);
    assert_eq!(way(&one).0, Route::CloudDraft);
    let words = Msao::explain(&one.input(), &planned(&one));
    assert_eq!(words.matches("no room as things are").count(), 3);
    // The score decides: what the target would have said otherwise is worth next to nothing here.
    let cheap = one.clone().params(&with(&[("doubt", 1.0)]));
    assert_eq!(way(&cheap).0, Route::Edge);
    // Another target with room comes first, and nobody waits beyond a deadline.
    assert_eq!(way(&one.clone().peer(|peer| peer.rtt_ms = 400.0)).1, 2);
    let soon = one.request(|request| request.deadline_ms = 400.0);
    assert_eq!(way(&soon).0, Route::Edge);
}

#[test]
fn price_counts_by_its_weight() {
    let two = |weight: f64| {
        let scene = scene()
            .peer(|dear| dear.price_per_mtok = 10.0)
            .peer(|cheap| {
                cheap.rtt_ms = 60.0;
                cheap.price_per_mtok = 1.0;
            })
            .params(&with(&[("cost-weight", weight)]));
        way(&scene).1
    };
    assert_eq!((two(0.0), two(1e6)), (1, 2));
}

#[test]
fn what_is_not_known_is_taken_for_middling() {
    let scene = Scene::new()
        .text(100)
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
    // 20 ms away; 100 tokens at 5,000/s; 31 at 40/s.
    close(arm(&scene, 1, Route::Cloud).total_ms, 20.0 + 20.0 + 775.0);
    assert_eq!(way(&scene).0, Route::CloudDraft);
}

#[test]
fn confident_mode_takes_the_higher_threshold() {
    let floor = |floor: f64| {
        let plan = planned(&scene().peer(|peer| {
            verifier(peer);
            peer.confidence_floor = floor;
        }));
        (plan.mode, f64::from(note(&plan).commit_from))
    };
    assert_eq!(floor(0.9), (Mode::Confident, f64::from(0.98_f32)));
    assert_eq!(floor(0.99), (Mode::Confident, f64::from(0.99_f32)));
    for none in [1.01, 2.0, f64::NAN, -1.0] {
        assert_eq!(floor(none), (Mode::Exact, 2.0), "{none}");
    }
    let exact = planned(
        &scene()
            .peer(|peer| {
                verifier(peer);
                peer.confidence_floor = 0.5;
            })
            .request(|request| request.flags |= flag::EXACT),
    );
    assert_eq!((exact.route, exact.mode), (Route::Speculate, Mode::Exact));
}

#[test]
fn the_probe_is_asked_for_where_it_can_change_the_plan() {
    let asks = |scene: &Scene| scene.decide::<Msao>() == Decision::Probe;
    // The probe takes a quarter of what it is thought to before anything is known: 44 ms.
    let quick = [(cells::PROBE, 0.25, 1e9)];
    let fast = learned(scene().image(600, 4e5), &quick);
    // The draft model goes on from it; of a larger picture it would be ready too late to pay.
    assert!(asks(&scene().image(200, 4e5).peer(verifier)));
    // Alone it has no plan to change.
    assert!(!asks(&fast));
    // Pruning saves some 40 ms at 50 Mbit/s; at 5 Mbit/s it saves 180.
    assert!(!asks(&fast.clone().peer(|_| {})));
    let slow = fast.clone().peer(slow);
    assert!(asks(&slow));
    // The peer has it already.
    assert!(!asks(&fast.clone().peer(|peer| {
        super::slow(peer);
        peer.cached_bytes = 4e5;
    })));
    assert!(!asks(&learned(slow.clone(), &[(cells::PROBE, 8.0, 9.0)])));
    assert!(!asks(&learned(
        slow.clone(),
        &[quick[0], (cells::kept(shape_of(&slow)), 0.99, 9.0)]
    )));
    // Not twice, not for next to nothing, not without media.
    assert!(!asks(
        &slow
            .clone()
            .request(|request| request.flags |= flag::PROBED)
    ));
    assert!(!asks(&scene().image(63, 4e5).peer(verifier)));
    assert!(!asks(&scene().peer(verifier)));
    // A peer that is down and still has figures has just refused: nobody may ask again.
    assert!(!asks(&slow.clone().peer(|refused| refused.up = false)));
    // One that is lost has not. Without another there is nothing to change.
    let gone = |lost: &mut Node| {
        *lost = Node {
            up: false,
            can: BOTH,
            ..Node::UNKNOWN
        };
    };
    assert!(asks(&slow.peer(gone)));
    let lost = fast.clone().peer(gone);
    assert!(!asks(&lost));
    assert!(asks(&lost.clone().peer(super::slow)));
    // Nor where nobody else may see the medium.
    let bound = |request: &mut Request| request.flags |= flag::MEDIA_AT_EDGE;
    assert!(!asks(&lost.peer(super::slow).request(bound)));
}

fn shape_of(scene: &Scene) -> shape::Shape {
    shape::Shape::of(&scene.input())
}

#[test]
fn it_says_why() {
    let scene = scene().peer(verifier);
    let words = Msao::explain(&scene.input(), &planned(&scene));
    let lines: Vec<&str> = words.lines().collect();
    assert_eq!(
        lines[0],
        "100 tokens to read, 0 of them of media of 0 bytes; some 32 to write. In ms:"
    );
    assert_eq!(
        lines[1],
        "drafts from here, verified at peer 1: 646; some 645 ms, the first token after 27 ms (reading 5, the way 22, tokens \
         618, price 1); 90% of drafts stand"
    );
    assert!(
        lines[2].starts_with("the target at peer 1: 803;"),
        "{words}"
    );
    assert!(lines[3].contains("doubt 16000"), "{words}");
    assert_eq!(
        lines[4],
        "Against the target at peer 1, what speaks for it most: tokens, 157 ms less."
    );
    let declined = scene.peer(|_| {});
    let words = Msao::explain(&declined.input(), &planned(&declined));
    assert!(words.contains("; declined: it does not pay"), "{words}");
    let nothing = Scene::new().params(&PARAMS);
    let words = Msao::explain(&nothing.input(), &planned(&nothing));
    assert!(words.ends_with("Nothing that may answer is up."));
}

#[test]
fn without_speculation_targets_answer_alone() {
    let fast = |params: &[f64]| scene().params(params).peer(verifier);
    assert_eq!(way(&fast(&PARAMS)).0, Route::Speculate);
    let without = with(&[("speculation", 0.0)]);
    // Nothing is declined that there is not.
    assert_eq!(way(&fast(&without)), (Route::Cloud, 1, reason::QUICKEST));
    let both = scene().params(&without).peer(|peer| peer.acceptance = 0.9);
    assert_eq!(way(&both), (Route::Cloud, 1, reason::QUICKEST));
    let plan = planned(&both);
    assert_eq!(
        (term(&plan, "speculate"), term(&plan, "cloud-draft")),
        (-1.0, -1.0)
    );
    let words = Msao::explain(&both.input(), &plan);
    assert!(!words.contains("drafts"), "{words}");
}

#[test]
fn without_calibration_it_decides_as_if_nothing_had_been_learned() {
    use crate::cells::{REQUESTS, first, rest};
    let cells = [
        (REQUESTS, 0.0, 500.0),
        (first(1, Route::Cloud), 4.0, 200.0),
        (rest(1, Route::Cloud), 4.0, 200.0),
    ];
    let alone = || scene().peer(|peer| peer.can = capability::TARGET);
    let without = with(&[("calibration", 0.0), ("explore", 0.5)]);
    let taught = planned(&learned(alone().params(&without), &cells));
    assert_eq!(taught, planned(&alone().params(&without)));
    let corrected = planned(&learned(alone(), &cells));
    assert!(term(&corrected, "first-off") > 1.5 && term(&taught, "first-off") == 1.0);
    let words = Msao::explain(&learned(alone().params(&without), &cells).input(), &taught);
    assert!(!words.contains("were off"), "{words}");
}

#[test]
fn behind_the_probe_the_draft_model_waits_for_nobody() {
    let busy = |flags: u32| {
        scene()
            .image(200, 4e5)
            .peer(|_| {})
            .request(move |request| request.flags |= flags)
            .edge(|here| {
                here.queue_ms = 70.0;
                here.planned_ms = 30.0;
            })
    };
    let idle = scene()
        .image(200, 4e5)
        .peer(|_| {})
        .request(|request| request.flags |= flag::PROBED);
    let first_ms = |scene: &Scene| arm(scene, 0, Route::Edge).first_ms;
    close(first_ms(&busy(flag::PROBED)), first_ms(&idle));
    assert!(first_ms(&busy(0)) >= 100.0 + first_ms(&idle));
    // Behind a refusal its seat may be gone.
    let refused = busy(flag::PROBED).peer(|refused| refused.up = false);
    assert!(first_ms(&refused) >= 100.0 + first_ms(&idle));
    // Without media nobody has looked, whatever the flag says.
    let text = |flags: u32| {
        scene()
            .peer(|_| {})
            .request(move |request| request.flags |= flags)
            .edge(|here| here.queue_ms = 70.0)
    };
    close(first_ms(&text(flag::PROBED)), first_ms(&text(0)));
}
