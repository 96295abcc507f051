use super::*;
use crate::cells;
use crate::shape::Shape;

/// The memo of a plan that speculates: drafts of 10 ms, verdicts after some 67 ms, 25 ms a token without.
fn memo(change: impl FnOnce(&mut Note)) -> Vec<u8> {
    let plan = planned(&scene().peer(verifier));
    assert_eq!(plan.route, Route::Speculate);
    let mut note = note(&plan);
    change(&mut note);
    note.encode()
}

/// So many drafts out, the last of which stands with `p_accept`.
fn says(memo: &[u8], unsent: u32, in_flight: u32, p_accept: f64) -> Action {
    let input = StepInput {
        p_accept,
        unsent,
        in_flight,
        committed: 5,
        rtt_ms: 20.0,
        queue_ms: 0.0,
        ..StepInput::default()
    };
    Msao::step(&input, memo)
}

fn on(event: Event, change: impl FnOnce(&mut StepInput), memo: &[u8]) -> Action {
    let mut input = StepInput {
        event,
        p_accept: 0.9,
        committed: 5,
        rtt_ms: 20.0,
        queue_ms: 0.0,
        ..StepInput::default()
    };
    change(&mut input);
    Msao::step(&input, memo)
}

#[test]
fn it_drafts_on_while_the_next_draft_is_worth_it() {
    let memo = memo(|note| note.chunk = 2);
    // Nothing is under way: the target begins with what there is, however doubtful.
    assert_eq!(says(&memo, 1, 0, 0.9), Action::Send);
    assert_eq!(says(&memo, 1, 0, 0.01), Action::Send);
    // A round is two drafts.
    assert_eq!(says(&memo, 1, 2, 0.9), Action::Draft);
    assert_eq!(says(&memo, 2, 2, 0.9), Action::Send);
    // A token takes 16.7 ms, a draft is charged 3 and a little: 0.9^m is worth that up to 14 drafts.
    assert_eq!(says(&memo, 1, 13, 0.9), Action::Draft);
    assert_eq!(says(&memo, 1, 14, 0.9), Action::Wait);
    // A doubtful one waits for the verdict over those before it.
    assert_eq!(says(&memo, 1, 2, 0.2), Action::Wait);
    assert_eq!(says(&memo, 1, 2, f64::NAN), Action::Wait);
}

#[test]
fn a_busy_target_is_charged_for() {
    let more_ms = |queue_ms: f64| {
        let plan = planned(&scene().peer(|peer| {
            verifier(peer);
            peer.acceptance = 0.97;
            peer.queue_ms = queue_ms;
        }));
        assert_eq!(plan.route, Route::Speculate);
        f64::from(note(&plan).more_ms)
    };
    // An eighth of what eight drafts add to a pass; then of 100/130 of a pass as well.
    let bytes_ms = 4.0 * 8.0 / 45_000.0;
    close(more_ms(0.0), 5.0 / 8.0 + bytes_ms);
    close(more_ms(100.0), (5.0 + 30.0 / 1.3) / 8.0 + bytes_ms);
    let says = |more_ms: f32| says(&memo(|note| note.more_ms = more_ms), 0, 6, 0.9);
    assert_eq!((says(0.6), says(6.0)), (Action::Draft, Action::Wait));
}

#[test]
fn what_happens_elsewhere_is_answered() {
    let memo = memo(|_| {});
    let none = |_: &mut StepInput| {};
    let unsent = |input: &mut StepInput| input.unsent = 2;
    assert_eq!(on(Event::Verdict, none, &memo), Action::Draft);
    assert_eq!(on(Event::Verdict, unsent, &memo), Action::Send);
    assert_eq!(on(Event::LinkUp, none, &memo), Action::Draft);
    assert_eq!(on(Event::LinkUp, unsent, &memo), Action::Send);
    assert_eq!(on(Event::LinkDown, unsent, &memo), Action::Finish);
    assert_eq!(on(Event::Refused, unsent, &memo), Action::Finish);
    // Nobody but the target may finish an exact answer.
    let exact = self::memo(|note| note.flags |= noted::EXACT);
    assert_eq!(on(Event::LinkDown, unsent, &exact), Action::Draft);
    assert_eq!(on(Event::Refused, unsent, &exact), Action::Draft);
}

#[test]
fn an_overdue_verdict_is_waited_for_until_patience_ends() {
    let memo = memo(|_| {});
    let give_up_ms = f64::from(Note::decode(&memo).unwrap().give_up_ms);
    let overdue = |in_flight: u32, waited_ms: f64, memo: &[u8]| {
        let out = |input: &mut StepInput| {
            input.in_flight = in_flight;
            input.waited_ms = waited_ms;
        };
        on(Event::Overdue, out, memo)
    };
    assert_eq!(overdue(3, 0.5 * give_up_ms, &memo), Action::Draft);
    assert_eq!(overdue(30, 0.5 * give_up_ms, &memo), Action::Wait);
    assert_eq!(overdue(3, give_up_ms, &memo), Action::Finish);
    // The target has the rest, and says nothing.
    assert_eq!(overdue(0, 0.0, &memo), Action::Finish);
    let exact = self::memo(|note| note.flags |= noted::EXACT);
    assert_eq!(overdue(3, give_up_ms, &exact), Action::Draft);
    // Patience is a multiple of what a verdict takes, and of what comes before the first.
    let plan = planned(&scene().peer(verifier));
    close(plan.patience_ms, 4.0 * term(&plan, "verdict") + 27.0);
}

#[test]
fn sure_drafts_are_committed_in_confident_mode_alone() {
    let exact = memo(|_| {});
    assert_eq!(says(&exact, 1, 0, 1.0), Action::Send);
    let confident = planned(&scene().peer(|peer| {
        verifier(peer);
        peer.confidence_floor = 0.9;
    }))
    .memo;
    assert_eq!(says(&confident, 1, 0, 0.985), Action::Commit);
    // The threshold is the policy's own, and what is behind others is not committed with them.
    assert_eq!(says(&confident, 1, 0, 0.95), Action::Send);
    assert_eq!(says(&confident, 2, 0, 0.985), Action::Send);
    assert_ne!(says(&confident, 1, 1, 0.985), Action::Commit);
}

#[test]
fn an_answer_whose_drafts_do_not_stand_is_left_to_the_target() {
    let memo = memo(|_| {});
    let judged = |judged: u32, accepted: u32| {
        let counts = |input: &mut StepInput| {
            input.judged = judged;
            input.accepted = accepted;
        };
        on(Event::Verdict, counts, &memo)
    };
    // (8 * 0.9 + 8) / (8 + 32) = 0.38: 10 + 0.62 * 65 ms a token, and the target alone takes 25.
    assert_eq!(judged(32, 8), Action::Escalate);
    assert_eq!(judged(32, 28), Action::Draft);
    // So few say nothing.
    assert_eq!(judged(20, 2), Action::Draft);
}

#[test]
fn an_edge_answer_is_handed_over_where_it_is_unsure() {
    let unsure = |late: f64| {
        [
            ("doubt", 0.0),
            ("escalate-below", 0.5),
            ("escalate-window", 8.0),
            ("escalate-late", late),
        ]
    };
    let edge = |scene: Scene| planned(&scene.params(&with(&unsure(0.0))));
    // Few were ever left to a target, and nothing has to be found out.
    let shape = Shape::of(&scene().input());
    let known = [
        (cells::left(shape), 0.0, 1e9),
        (cells::amiss(shape), 0.0, 1e9),
    ];
    let far = learned(scene().peer(|peer| peer.rtt_ms = 3000.0), &known);
    let plan = edge(far.clone());
    assert_eq!(plan.route, Route::Edge);
    let token = |memo: &[u8], committed: u32, p_accept: f64| {
        let drafted = |input: &mut StepInput| {
            // The token itself is not committed yet.
            input.committed = committed;
            input.unsent = 1;
            input.p_accept = p_accept;
        };
        on(Event::Drafted, drafted, memo)
    };
    assert_eq!(token(&plan.memo, 7, 0.51), Action::Draft);
    assert_eq!(token(&plan.memo, 7, 0.49), Action::Escalate);
    assert_eq!(token(&plan.memo, 2, f64::NAN), Action::Escalate);
    assert_eq!(token(&plan.memo, 8, 0.0), Action::Finish);
    // Further on less will do.
    let late = planned(&far.params(&with(&unsure(0.25))));
    assert_eq!(token(&late.memo, 7, 0.3), Action::Escalate);
    assert_eq!(token(&late.memo, 8, 0.3), Action::Draft);
    assert_eq!(token(&late.memo, 8, 0.2), Action::Escalate);
    // Whoever has taken over and is silent is done without.
    for event in [Event::Overdue, Event::LinkDown, Event::Refused] {
        assert_eq!(on(event, |_| {}, &plan.memo), Action::Finish);
    }
    // Nobody is there to take over: the host need not ask.
    for alone in [
        scene(),
        scene().peer(|peer| peer.up = false),
        scene()
            .image(9, 1e5)
            .peer(|_| {})
            .request(|request| request.flags |= flag::MEDIA_AT_EDGE),
    ] {
        assert_eq!(token(&edge(alone).memo, 1, 0.0), Action::Finish);
    }
}

#[test]
fn without_a_note_the_draft_model_finishes() {
    assert_eq!(Msao::step(&StepInput::default(), &[]), Action::Finish);
    assert_eq!(Msao::step(&StepInput::default(), &[7; 256]), Action::Finish);
}
