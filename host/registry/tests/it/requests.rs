//! A request's way through a generation: what is called, what takes its place, what is kept.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;

use msao_core::digest::Digest;
use msao_core::offload::manifest::Probe;
use msao_core::offload::record::Called;
use msao_core::offload::{
    Action, Decision, Item, Node, Outcome, Part, Report, Request, Route, StepInput, capability,
    flag, modality, overrides,
};
use msao_registry::{Arrival, CaseInput, Choice, NoWords, Pick, Plugins, with_scores};

use msao_registry::state::{RecordConfig, Redact};

use crate::common::plain;
use crate::common::{Bench, push, until};

fn nodes() -> Vec<Node> {
    let node = |can| Node {
        up: true,
        can,
        ..Node::default()
    };
    vec![node(capability::DRAFT), node(capability::TARGET)]
}

fn image() -> (Vec<Part>, Arc<Report>) {
    let part = |modality, tokens| Part {
        modality,
        tokens,
        necessity: -1.0,
        mas: -1.0,
        unusual: -1.0,
        ..Part::default()
    };
    let report = Report {
        items: vec![Item {
            modality: modality::IMAGE,
            tokens: 4,
            frames: 1,
            relevance: 1.0,
        }],
        ..Report::default()
    };
    (
        vec![part(modality::IMAGE, 4), part(modality::TEXT, 9)],
        Arc::new(report),
    )
}

fn arrival(id: &str) -> Arrival<'_> {
    Arrival::new(id, Digest::of(id.as_bytes()))
}

/// The policy's own words about the request called `id`, from its record.
fn own_words(bench: &Bench, plugins: &Plugins, id: &str) -> Result<String, NoWords> {
    bench.records.settle().unwrap();
    plugins.explain(&bench.records.get(id).unwrap().unwrap())
}

/// One request with a few steps; returns its plan's route and the actions.
fn run(plugins: &Plugins, id: &str, request: &Request) -> (Route, Vec<Action>) {
    let (parts, report) = image();
    let mut ticket = plugins.admit(&arrival(id));
    let mut request = request.clone();
    let mut decision = ticket.plan(&request, &parts, &nodes());
    if decision == Decision::Probe {
        let scores = ticket.score(&report, request.seed);
        request.flags |= flag::PROBED;
        decision = ticket.plan(&request, &with_scores(&parts, &scores), &nodes());
    }
    let Decision::Run(plan) = decision else {
        panic!("asked for the probe twice");
    };
    let actions = [0, 4]
        .map(|unsent| {
            ticket.step(&StepInput {
                unsent,
                ..StepInput::default()
            })
        })
        .to_vec();
    ticket.finish(Outcome::default());
    (plan.route, actions)
}

#[test]
fn without_plug_ins_the_fallback_answers_and_nothing_is_recorded_as_a_plug_ins() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    assert_eq!(plugins.admit(&arrival("a")).probe(), Probe::None);
    let (route, actions) = run(&plugins, "a", &Request::default());
    assert_eq!((route, actions[0]), (Route::Cloud, Action::Draft));
    bench.records.settle().unwrap();
    let record = bench.records.get("a").unwrap().unwrap();
    assert_eq!(record.generation.policy, None);
    assert_eq!((record.planned, record.updates), (None, None));
    assert_eq!(record.outcome.unwrap().overrides, 0);
}

#[test]
fn a_policy_that_asks_gets_the_probe_and_everything_is_recorded() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let policy = push(&plugins, "ask");
    let refused = plugins.activate(Choice::policy(policy)).unwrap_err();
    assert!(
        refused.to_string().contains("has no post-processor"),
        "{refused}"
    );
    let scorer = plugins.push(&plain::postprocessor("")).unwrap();
    plugins
        .activate(Choice {
            policy: Pick::Take(policy),
            postprocessor: Pick::Take(scorer),
        })
        .unwrap();
    let (route, actions) = run(&plugins, "a", &Request::default());
    assert_eq!(route, Route::Speculate);
    assert_eq!(actions, [Action::Draft, Action::Send]);
    bench.records.settle().unwrap();
    bench.calibration.settle();
    let record = bench.records.get("a").unwrap().unwrap();
    assert_eq!(record.asked, Some(Called::Answered(Decision::Probe)));
    assert!(matches!(
        &record.planned,
        Some(Called::Answered(Decision::Run(_)))
    ));
    assert_eq!(record.parts[0].necessity, 0.5);
    assert_eq!(record.unprobed_parts()[0].necessity, -1.0);
    assert_eq!(record.steps.len(), 2);
    let scoring = record.scoring.unwrap();
    assert!(scoring.report.is_some());
    let outcome = record.outcome.unwrap();
    assert_eq!(outcome.memo, record.ran.memo);
    assert!(matches!(record.updates, Some(Called::Answered(updates)) if updates.len() == 1));
    // The calibration that the next request sees is what this one taught.
    run(&plugins, "b", &Request::default());
    bench.records.settle().unwrap();
    let next = bench.records.get("b").unwrap().unwrap();
    assert_ne!(next.given.calibration, record.given.calibration);
    let seen = bench
        .records
        .snapshot(next.given.calibration)
        .unwrap()
        .unwrap();
    assert_eq!(seen.calibration().count, [1.0]);
}

#[test]
fn what_is_planned_again_is_recorded_from_there_on() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let scorer = plugins.push(&plain::postprocessor("")).unwrap();
    plugins
        .activate(Choice {
            policy: Pick::Take(push(&plugins, "ask")),
            postprocessor: Pick::Take(scorer),
        })
        .unwrap();
    let (parts, report) = image();
    let mut nodes = nodes();
    let mut ticket = plugins.admit(&arrival("a"));
    let mut request = Request::default();
    assert_eq!(ticket.plan(&request, &parts, &nodes), Decision::Probe);
    let scores = ticket.score(&report, 0);
    request.flags |= flag::PROBED;
    let parts = with_scores(&parts, &scores);
    ticket.plan(&request, &parts, &nodes);
    ticket.step(&StepInput::default());
    nodes[1].up = false;
    request.deadline_ms = 700.0;
    let Decision::Run(plan) = ticket.plan(&request, &parts, &nodes) else {
        panic!("it asked for the probe again");
    };
    assert_eq!(plan.route, Route::Edge);
    let last = StepInput {
        committed: 1,
        ..StepInput::default()
    };
    ticket.step(&last);
    ticket.finish(Outcome::default());
    bench.records.settle().unwrap();
    let record = bench.records.get("a").unwrap().unwrap();
    assert!(record.replanned && record.asked.is_none());
    assert_eq!((&record.request, &record.nodes), (&request, &nodes));
    let planned = Called::Answered(Decision::Run(plan.clone()));
    assert_eq!((record.planned, record.ran), (Some(planned), plan));
    let steps: Vec<StepInput> = record.steps.iter().map(|step| step.input).collect();
    assert_eq!(steps, [last]);
}

#[test]
fn each_export_has_its_fallback_and_the_request_is_answered() {
    for (fails, route, actions) in [
        ("plan", Route::Cloud, [Action::Draft, Action::Draft]),
        ("step", Route::Speculate, [Action::Draft, Action::Send]),
        ("observe", Route::Speculate, [Action::Draft, Action::Send]),
        ("score", Route::Speculate, [Action::Draft, Action::Send]),
    ] {
        let bench = Bench::new("");
        let plugins = bench.plugins();
        let policy = push(&plugins, &format!("ask fail={fails}"));
        let scorer = plugins
            .push(&plain::postprocessor(&format!("fail={fails}")))
            .unwrap();
        plugins
            .activate(Choice {
                policy: Pick::Take(policy),
                postprocessor: Pick::Take(scorer),
            })
            .unwrap();
        assert_eq!(
            run(&plugins, "a", &Request::default()),
            (route, actions.to_vec()),
            "{fails}"
        );
        bench.records.settle().unwrap();
        let record = bench.records.get("a").unwrap().unwrap();
        let outcome = record.outcome.as_ref().unwrap();
        // What `observe` was given is kept as it was: that it failed stands in what it answered.
        if fails == "observe" {
            assert_eq!(record.updates, Some(Called::Failed("trap".into())));
            assert_eq!(outcome.overrides, 0);
        } else {
            assert_eq!(outcome.overrides, overrides::FALLBACK, "{fails}");
        }
        if fails == "score" {
            let scoring = record.scoring.unwrap();
            assert_eq!(scoring.scores, Called::Failed("trap".into()));
            assert_eq!((record.parts[0].necessity, record.parts[0].mas), (1.0, 0.0));
        }
        let status = plugins.status();
        assert_eq!(status.active.exports[fails].failures, 1);
        until("the case is kept", || plugins.failures().len() == 1);
        let kept = plugins.failures().remove(0);
        assert_eq!((kept.export.as_str(), kept.kind.as_str()), (fails, "trap"));
        assert_eq!(kept.backtrace.as_deref(), Some("plain.rs"));
        let case = plugins.failure(&kept.id).unwrap().unwrap();
        let right = match case.input {
            CaseInput::Score { .. } => "score",
            CaseInput::Plan { .. } => "plan",
            CaseInput::Step { .. } => "step",
            CaseInput::Observe { .. } => "observe",
        };
        assert_eq!(right, fails);
    }
}

#[test]
fn what_records_leave_out_failing_inputs_leave_out() {
    for (fails, redact) in [
        ("plan", Redact::Tenant),
        ("score", Redact::Report),
        ("step", Redact::Steps),
    ] {
        let records = RecordConfig {
            redact: vec![redact],
            ..RecordConfig::default()
        };
        let bench = Bench::recording("", records);
        let plugins = bench.plugins();
        let policy = push(&plugins, &format!("ask fail={fails}"));
        let scorer = (plugins.push(&plain::postprocessor(&format!("fail={fails}")))).unwrap();
        plugins
            .activate(Choice {
                policy: Pick::Take(policy),
                postprocessor: Pick::Take(scorer),
            })
            .unwrap();
        let (parts, report) = image();
        let request = Request {
            tenant: 9,
            flags: flag::PROBED,
            ..Request::default()
        };
        let mut ticket = plugins.admit(&arrival("a"));
        let scores = ticket.score(&report, 0);
        ticket.plan(&request, &with_scores(&parts, &scores), &nodes());
        ticket.step(&StepInput {
            p_accept: 0.75,
            committed: 3,
            ..StepInput::default()
        });
        ticket.finish(Outcome::default());
        until("the case is kept", || plugins.failures().len() == 1);
        let kept = plugins.failures().remove(0);
        assert_eq!(kept.redacted, [redact]);
        match plugins.failure(&kept.id).unwrap().unwrap().input {
            CaseInput::Plan { request, .. } => assert_eq!(request.tenant, 0),
            CaseInput::Score { report, .. } => assert_eq!(report, Report::default()),
            CaseInput::Step { input, .. } => {
                assert_eq!((input.p_accept, input.committed), (0.0, 3))
            }
            CaseInput::Observe { .. } => panic!("observe was not told to fail"),
        }
    }
}

#[test]
fn a_probe_that_was_not_promised_is_a_failure() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    // The component asks, its manifest does not say so.
    let mut bundle = plain::policy("ask");
    bundle.manifest_text = plain::manifest("patient", "offload-policy", "");
    let bundle = msao_registry::Bundle::new(bundle.wasm, bundle.manifest_text, None).unwrap();
    let release = plugins.push(&bundle).unwrap();
    plugins.activate(Choice::policy(release)).unwrap();
    assert_eq!(run(&plugins, "a", &Request::default()).0, Route::Cloud);
    until("the case is kept", || plugins.failures().len() == 1);
    assert!(
        plugins.failures()[0]
            .message
            .starts_with("decision is probe")
    );
}

#[test]
fn the_breaker_keeps_calls_away_and_lets_one_through_later() {
    let bench = Bench::new("[breaker]\nfailures = 3\nback-off-ms = 200");
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "fail=plan")))
        .unwrap();
    for i in 0..10 {
        run(&plugins, &format!("request-{i}"), &Request::default());
    }
    let plan = plugins.status().active.exports["plan"].clone();
    assert_eq!((plan.breaker, plan.failures, plan.skipped), ("open", 3, 7));
    std::thread::sleep(std::time::Duration::from_millis(250));
    run(&plugins, "later", &Request::default());
    let plan = plugins.status().active.exports["plan"].clone();
    assert_eq!((plan.breaker, plan.failures, plan.skipped), ("open", 4, 7));
}

#[test]
fn under_the_defaults_a_policy_that_always_fails_is_left_on_a_quiet_node_and_on_a_busy_one() {
    // Requests a second.
    for rate in [1_u64, 100] {
        let bench = Bench::new("");
        let plugins = bench.plugins();
        let good = plugins
            .activate(Choice::policy(push(&plugins, "salt=good")))
            .unwrap();
        plugins
            .activate(Choice::policy(push(&plugins, "fail=plan")))
            .unwrap();
        let (parts, _) = image();
        let left = (0..300 * rate).find(|i| {
            plugins.pass(std::time::Duration::from_millis(1000 / rate));
            let mut ticket = plugins.admit(&arrival(&format!("request-{i}")));
            let number = ticket.number();
            ticket.plan(&Request::default(), &parts, &nodes());
            ticket.finish(Outcome::default());
            number == good.number
        });
        let left = left.expect("it stayed for the whole window") / rate;
        // Five inputs at once, eleven more after 1, 3, 7, 15, 25, ... 85 s.
        assert!(
            (80..=110).contains(&left),
            "{rate} a second: after {left} s"
        );
    }
}

#[test]
fn one_bad_request_sent_again_and_again_opens_no_breaker() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "fail-tenant=3")))
        .unwrap();
    let (parts, _) = image();
    let ask = |tenant, content: &[u8]| {
        let request = Request {
            tenant,
            ..Request::default()
        };
        let mut ticket = plugins.admit(&Arrival::new("a", Digest::of(content)));
        ticket.plan(&request, &parts, &nodes());
        let failed = ticket.failed();
        ticket.finish(Outcome::default());
        failed
    };
    for _ in 0..100 {
        assert!(ask(3, b"bad"));
    }
    assert!(!ask(0, b"good"), "everybody else is served");
    let plan = plugins.status().active.exports["plan"].clone();
    assert_eq!(
        (plan.breaker, plan.failures, plan.skipped),
        ("closed", 100, 0)
    );
    // Five different ones open it.
    for number in 0..5_u8 {
        ask(3, &[number]);
    }
    assert!(ask(0, b"good"));
}

#[test]
fn a_full_sandbox_is_not_the_plug_ins_fault() {
    let bench = Bench::new("[error-budget]\ninputs = 1\n[breaker]\nfailures = 1");
    let plugins = bench.plugins();
    let receipt = plugins
        .activate(Choice::policy(push(&plugins, "overload")))
        .unwrap();
    for i in 0..20 {
        assert_eq!(
            run(&plugins, &format!("request-{i}"), &Request::default()).0,
            Route::Cloud
        );
    }
    let status = plugins.status();
    assert_eq!(status.active.number, receipt.number);
    assert_eq!(status.active.exports["plan"].breaker, "closed");
    assert_eq!(status.failing_inputs, 0);
}

#[test]
fn one_bad_request_sent_a_thousand_times_does_not_bring_down_a_good_policy() {
    let bench = Bench::new("[breaker]\nfailures = 20");
    let plugins = bench.plugins();
    let receipt = plugins
        .activate(Choice::policy(push(&plugins, "fail-tenant=3")))
        .unwrap();
    let bad = Request {
        tenant: 3,
        ..Request::default()
    };
    let (parts, _) = image();
    for seed in 0..1000 {
        let request = Request {
            seed,
            now_ms: seed as f64,
            ..bad.clone()
        };
        let id = format!("request-{seed}");
        let same = Arrival::new(&id, Digest::of(b"the same content"));
        let mut ticket = plugins.admit(&same);
        ticket.plan(&request, &parts, &nodes());
        assert!(ticket.failed());
        ticket.finish(Outcome::default());
    }
    assert_eq!(plugins.status().active.number, receipt.number);
    assert_eq!(plugins.status().active.error_budget, (1, 16));
    until("it is kept", || !plugins.failures().is_empty());
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(plugins.failures().len(), 1, "once, whatever seed and time");
    // Sixteen different ones do.
    for i in 0..16 {
        run(&plugins, &format!("other-{i}"), &bad);
    }
    until("the generation is left", || {
        plugins.deployment().active.number != receipt.number
    });
    assert_eq!(run(&plugins, "after", &bad).0, Route::Cloud);
    let history = plugins.history(1);
    let told = format!("{:?}", history[0].event);
    assert!(
        told.contains("error budget is spent") && told.contains("told to fail"),
        "{told}"
    );
}

#[test]
fn a_spent_budget_brings_back_the_last_good_generation() {
    let bench = Bench::new("[error-budget]\ninputs = 4\n[breaker]\nfailures = 1000000");
    let plugins = bench.plugins();
    let good = plugins
        .activate(Choice::policy(push(&plugins, "salt=good")))
        .unwrap();
    plugins
        .activate(Choice::policy(push(&plugins, "fail=step")))
        .unwrap();
    let before = std::time::Instant::now();
    for i in 0..4 {
        run(&plugins, &format!("request-{i}"), &Request::default());
    }
    // On the request's own thread: the very next one is good again.
    let ticket = plugins.admit(&arrival("next"));
    assert_eq!(ticket.number(), good.number, "after {:?}", before.elapsed());
    drop(ticket);
    until("it is written down", || {
        plugins.deployment().active.number == good.number
    });
    assert!(!run(&plugins, "again", &Request::default()).1.is_empty());
    assert_eq!(plugins.status().active.exports["step"].failures, 0);
}

#[test]
fn explaining_is_asked_for_and_may_fail() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let (parts, _) = image();
    for (words, said) in [("salt=1", true), ("fail=explain", false)] {
        plugins
            .activate(Choice::policy(push(&plugins, words)))
            .unwrap();
        let mut ticket = plugins.admit(&arrival("a"));
        ticket.plan(&Request::default(), &parts, &nodes());
        let words = ticket.explain(&Request::default(), &parts, &nodes());
        assert_eq!(words.is_some(), said);
        assert!(!ticket.failed());
        ticket.finish(Outcome::default());
    }
}

#[test]
fn a_decision_that_is_over_is_explained_by_whom_decided() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    run(&plugins, "fallback", &Request::default());
    assert_eq!(
        own_words(&bench, &plugins, "fallback"),
        Err(NoWords::Fallback)
    );
    let mut at = 0;
    let mut decide = |words: &str| {
        plugins
            .activate(Choice::policy(push(&plugins, words)))
            .unwrap();
        at += 1;
        let id = format!("request-{at}");
        run(&plugins, &id, &Request::default());
        id
    };
    let first = decide("salt=1");
    let said = Ok("gamma is 4".to_owned());
    assert_eq!(own_words(&bench, &plugins, &first), said);
    // It is the one before now, and stays in memory.
    let unplanned = decide("fail=plan");
    assert_eq!(own_words(&bench, &plugins, &first), said);
    assert_eq!(
        own_words(&bench, &plugins, &unplanned),
        Err(NoWords::NoPlan)
    );
    let speechless = decide("fail=explain");
    assert_eq!(
        own_words(&bench, &plugins, &speechless),
        Err(NoWords::Failed("trap".into()))
    );
    assert_eq!(plugins.status().active.exports["explain"].failures, 1);
    decide("salt=2");
    until("the first is taken apart", || {
        own_words(&bench, &plugins, &first) == Err(NoWords::Gone)
    });
}
