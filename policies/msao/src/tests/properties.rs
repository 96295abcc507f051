use super::*;
use crate::retention::kept;

fn hostile() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => 0.0f64..1e6,
        2 => 0.0f64..1.0,
        1 => Just(-1.0),
        1 => Just(0.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => prop::num::f64::ANY,
    ]
}

prop_compose! {
    fn any_node()(up in any::<bool>(), can in 0u32..32, numbers in prop::collection::vec(hostile(), 17)) -> Node {
        Node {
            up,
            can,
            uplink_bps: numbers[0],
            uplink_sd_bps: numbers[1],
            downlink_bps: numbers[2],
            rtt_ms: numbers[3],
            jitter_ms: numbers[4],
            stalled: numbers[5],
            age_ms: numbers[6],
            queue_ms: numbers[7],
            planned_ms: numbers[8],
            kv_free: numbers[9],
            prefill_tok_per_s: numbers[10],
            draft_tok_per_s: numbers[11],
            target_tok_per_s: numbers[12],
            verify_ms: numbers[13],
            acceptance: numbers[14],
            price_per_mtok: numbers[15],
            cached_bytes: numbers[16],
            confidence_floor: numbers[0] / 1e6,
        }
    }
}

prop_compose! {
    fn any_part()(modality in 0u8..6, tokens in any::<u32>(), numbers in prop::array::uniform5(hostile())) -> Part {
        let is_text = modality == modality::TEXT;
        Part {
            modality,
            tokens,
            frames: tokens % 9,
            bytes: numbers[0],
            duration_ms: numbers[1],
            necessity: if is_text { 1.0 } else { numbers[2] },
            mas: numbers[3],
            unusual: numbers[4],
            ..Part::default()
        }
    }
}

/// A node as hosts tell of it: all in range, or not known.
fn honest_node() -> impl Strategy<Value = Node> {
    let known = |most: f64| prop_oneof![8 => 0.0..most, 1 => Just(-1.0)];
    let link = (
        known(3e8),
        known(1e7),
        known(300.0),
        known(30.0),
        known(1.0),
    );
    let load = (
        known(500.0),
        known(100.0),
        known(1e6),
        known(1.0),
        known(1e6),
    );
    let speeds = (known(3e4), known(500.0), known(80.0), known(60.0));
    (any::<bool>(), 0u32..16, link, load, speeds).prop_map(|(up, can, link, load, speeds)| Node {
        up,
        can,
        uplink_bps: link.0,
        uplink_sd_bps: link.1,
        rtt_ms: link.2,
        jitter_ms: link.3,
        stalled: link.4,
        queue_ms: load.0,
        planned_ms: load.1,
        kv_free: load.2,
        acceptance: load.3,
        cached_bytes: load.4,
        prefill_tok_per_s: speeds.0,
        draft_tok_per_s: speeds.1,
        target_tok_per_s: speeds.2,
        verify_ms: speeds.3,
        price_per_mtok: 1.0,
        ..Node::UNKNOWN
    })
}

prop_compose! {
    fn any_scene()(
        hostile_nodes in prop::collection::vec(any_node(), 0..5),
        honest_nodes in prop::collection::vec(honest_node(), 1..5),
        honest in any::<bool>(),
        seed in any::<u64>(),
        flags in 0u32..64,
        max_tokens in prop_oneof![any::<u32>(), 1u32..300],
        deadline_ms in hostile(),
        parts in prop::collection::vec(any_part(), 0..4),
        params in prop::collection::vec(hostile(), 0..33),
        sane in any::<bool>(),
        cells in prop::collection::vec((prop_oneof![0u32..128, 1024u32..1200, any::<u32>()], hostile(), hostile()), 0..60),
    ) -> Scene {
        let mut scene = Scene::new().text(40).params(if sane { &PARAMS } else { &params });
        for part in parts {
            scene = scene.part(Part { tokens: part.tokens % 100_000, ..part });
        }
        scene.request = Request { seed, max_tokens, deadline_ms, flags, ..Request::default() };
        scene.nodes = if honest { honest_nodes } else { hostile_nodes };
        let cells: Vec<(u32, Cell)> = cells.into_iter().map(|(key, mean, count)| (key, cell(mean, count))).collect();
        scene.calibration(Calibration::from_cells(&cells))
    }
}

fn event() -> impl Strategy<Value = Event> {
    (0u32..9).prop_map(Event::of)
}

prop_compose! {
    fn any_step()(
        event in event(),
        numbers in prop::array::uniform8(hostile()),
        counts in prop::array::uniform5(prop_oneof![0u32..40, any::<u32>()]),
    ) -> StepInput {
        StepInput {
            event,
            p_accept: numbers[0],
            top1: numbers[1],
            entropy_nats: numbers[2],
            margin: numbers[3],
            judged: counts[0],
            accepted: counts[1],
            unsent: counts[2],
            in_flight: counts[3],
            committed: counts[4],
            waited_ms: numbers[4],
            elapsed_ms: numbers[5],
            rtt_ms: numbers[6],
            queue_ms: numbers[7],
        }
    }
}

proptest! {
    #[test]
    fn every_plan_keeps_the_rules(scene in any_scene()) {
        let decision = scene.decide::<Msao>();
        // The same input, the same answer.
        prop_assert_eq!(scene.decide::<Msao>(), decision.clone());
        let asked = scene.request.has(flag::PROBED);
        prop_assert!(decision != Decision::Probe || !asked);
        let probed = scene.clone().request(|request| request.flags |= flag::PROBED);
        let (scene, plan) = match decision {
            Decision::Run(plan) => (scene, plan),
            Decision::Probe => (probed.clone(), probed.plan::<Msao>()),
        };
        let (reasons, terms) = (listed("[[reason]]").count(), listed("[[term]]").count());
        prop_assert_eq!(rules::plan(&plan, &scene.input(), reasons, terms), Ok(()));
        prop_assert!(plan.reason == reason::NONE || plan.terms.len() == terms);
        let target = &scene.nodes.get(plan.peer as usize).cloned().unwrap_or(Node::UNKNOWN);
        if plan.route != Route::Edge {
            prop_assert!(target.is(capability::TARGET) && (plan.peer == 0 || target.up));
            prop_assert!(plan.peer == 0 || !scene.input().bound_here());
        }
        if plan.route == Route::Speculate {
            let verifies = capability::VERIFY | capability::SAME_TOKENIZER;
            prop_assert!(target.is(verifies) && scene.input().here().is(capability::DRAFT));
        }
        let may_commit = target.confidence_floor <= 1.0 && !scene.request.has(flag::EXACT);
        prop_assert!(plan.mode == Mode::Exact || (plan.route == Route::Speculate && may_commit));
        prop_assert!(plan.route != Route::Edge || plan.reason == reason::NONE || !scene.request.has(flag::EXACT));
        let words = Msao::explain(&scene.input(), &plan);
        prop_assert!(!words.is_empty() && words.len() <= 4096, "{}", words.len());
    }

    #[test]
    fn the_way_taken_is_the_best_but_for_trials(scene in any_scene()) {
        let scene = scene.params(&with(&[("explore", 0.0)])).request(|request| request.flags |= flag::PROBED);
        let plan = scene.plan::<Msao>();
        let weighed = weigh(&scene.input(), &Settings::read(&scene.params));
        for arm in weighed.arms.iter().filter(|arm| !arm.declined) {
            let score = plan.terms[0];
            prop_assert!(arm.score.is_finite());
            prop_assert!(arm.rank > 0 || arm.score >= score, "{arm:?} and {score}");
        }
        prop_assert_eq!(weighed.arms.is_empty(), plan.reason == reason::NONE);
    }

    #[test]
    fn a_trial_costs_little(scene in any_scene(), seeds in prop::collection::vec(any::<u64>(), 20)) {
        let scene = scene.params(&PARAMS).request(|request| request.flags |= flag::PROBED);
        for seed in seeds {
            let plan = scene.clone().request(|request| request.seed = seed).plan::<Msao>();
            if plan.reason == reason::TRIES {
                prop_assert!(plan.terms[0] <= 1.2 * plan.terms[1] * (1.0 + 1e-12));
            }
        }
    }

    #[test]
    fn updates_keep_the_rules(
        scene in any_scene(),
        numbers in prop::array::uniform8(hostile()),
        tokens in any::<u32>(),
        status in 0u8..7,
        overrides in 0u32..64,
        as_planned in any::<bool>(),
        counts in prop::collection::vec(any::<u32>(), 0..20),
    ) {
        let plan = planned(&scene);
        let outcome = Outcome {
            route: if as_planned { plan.route as u8 } else { 3 },
            peer: plan.peer,
            status,
            overrides: if as_planned { 0 } else { overrides },
            ttft_ms: numbers[0],
            total_ms: numbers[1],
            probe_ms: numbers[2],
            upload_ms: numbers[3],
            queue_ms: numbers[4],
            sent_bytes: numbers[5],
            received_bytes: numbers[6],
            cost: numbers[7],
            tokens,
            drafted: counts.clone(),
            accepted: counts,
            memo: plan.memo,
            ..Outcome::default()
        };
        let updates = Msao::observe(&outcome, &scene.params, &scene.calibration);
        prop_assert_eq!(rules::updates(&updates), Ok(()));
        let mut keys: Vec<u32> = updates.iter().map(|update| update.key).collect();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(keys.len(), updates.len());
    }

    #[test]
    fn any_memo_is_read_or_left(
        memo in prop::collection::vec(any::<u8>(), Note::SIZE),
        cut in 0usize..2 * Note::SIZE,
        input in any_step(),
        status in 0u8..7,
    ) {
        let memo = memo[..cut.min(memo.len())].to_vec();
        Msao::step(&input, &memo);
        let outcome = Outcome { status, ttft_ms: 5.0, total_ms: 9.0, tokens: 9, memo, ..Outcome::default() };
        let updates = Msao::observe(&outcome, &PARAMS, &Calibration::default());
        prop_assert_eq!(rules::updates(&updates), Ok(()));
    }

    /// Whoever waits for a verdict while none is due waits until patience ends.
    #[test]
    fn it_waits_only_while_something_is_under_way(scene in any_scene(), input in any_step()) {
        let plan = planned(&scene);
        let action = Msao::step(&input, &plan.memo);
        prop_assert!(action != Action::Wait || input.in_flight > 0);
        let may_commit = plan.mode == Mode::Confident;
        prop_assert!(action != Action::Commit || (may_commit && input.unsent == 1 && input.in_flight == 0));
        // Nobody but the target finishes an exact answer.
        let exact = plan.route == Route::Speculate && scene.request.has(flag::EXACT);
        prop_assert!(action != Action::Finish || !exact);
    }

    #[test]
    fn more_of_what_is_unusual_or_dense_is_kept(
        mas in 0.0f64..=1.0, unusual in 0.0f64..=1.0, necessity in 0.0f64..=1.0, more in 0.0f64..=1.0, least in 0.0f64..=1.0,
        most in 0.0f64..=1.0,
    ) {
        let part = |mas: f64, unusual: f64| Part { modality: 1, necessity, mas, unusual, ..Part::default() };
        let share = kept(&part(mas, unusual), least, most, 0.05);
        prop_assert!((0.0..=1.0).contains(&share));
        let stranger = unusual + more * (1.0 - unusual);
        prop_assert!(kept(&part(mas, stranger), least, most, 0.05) >= share - 1e-9);
        prop_assert!(kept(&part(mas * more, unusual), least, most, 0.05) >= share - 1e-9);
        prop_assert!(share <= kept(&part(mas, unusual), least, 1.0, 0.05) + 1e-9);
        prop_assert!(unusual > 0.0 || share <= most + 1e-9 || most >= 0.95);
        prop_assert!(share == 0.0 || share >= least.min(most) - 1e-9);
    }

    #[test]
    fn a_better_link_is_never_predicted_to_be_slower(
        node in honest_node(), better in 1.0f64..10.0, bytes in 0.0f64..1e6,
    ) {
        let with_peer = |node: Node| scene().image(300, bytes).params(&with(&[("worth", 0.0)])).peer(|peer| *peer = node);
        let node = Node { up: true, can: capability::TARGET, uplink_bps: node.uplink_bps.abs(), rtt_ms: node.rtt_ms.abs(), ..node };
        let faster = Node { uplink_bps: node.uplink_bps * better, rtt_ms: node.rtt_ms / better, ..node };
        let total = |node: Node| arm(&with_peer(node), 1, Route::Cloud).total_ms;
        let (slow, fast) = (total(node), total(faster));
        prop_assert!(fast <= slow * (1.0 + 1e-9), "{fast} and {slow}");
    }
}
