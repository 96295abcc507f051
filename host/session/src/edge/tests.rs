//! What follows what at the edge. Whole answers are played in `tests/it/simulator`.

use msao_core::digest::Digest;
use msao_core::offload::kind;
use msao_core::sampling::SamplingParams;

use super::*;
use crate::PrefixDigest;
use crate::frame::{Draft, Prompt, SessionId, Wanted};

const SESSION: SessionId = SessionId([1; 16]);

fn config() -> Config {
    let open = Open {
        session: SESSION,
        epoch: 0,
        wanted: Wanted::Verify,
        sampling: SamplingParams::default(),
        top_logprobs: None,
        max_tokens: 20,
        target_input: Digest::of(b""),
        prompt: Prompt::default(),
        deadline_ms: 0.0,
        tokenizer: None,
        request: None,
        cost: false,
        committed: Vec::new(),
    };
    Config {
        in_flight_max: 8,
        ..Config::exact(open)
    }
}

/// An edge, with the newest stamp that it gave out.
struct Driven {
    edge: Edge,
    stamp: u64,
    now_ms: f64,
}

impl Driven {
    fn start(config: Config) -> Driven {
        let (edge, first) = Edge::start(config, 0.0);
        let mut driven = Driven {
            edge,
            stamp: 0,
            now_ms: 0.0,
        };
        driven.note(&first);
        driven
    }

    fn note(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Draft { stamp, .. } = effect {
                self.stamp = *stamp;
            }
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        self.now_ms += 1.0;
        let effects = self.edge.advance(self.now_ms, event);
        self.note(&effects);
        effects
    }

    fn drafted(&mut self, id: u32) -> Vec<Effect> {
        self.tell(Event::Drafted(Drafted {
            stamp: self.stamp,
            id,
            ends: false,
            p_accept: 0.5,
            sure: 0.5,
            top1: 0.5,
            entropy_nats: 1.0,
            margin: 1.0,
        }))
    }

    /// Drafts these, each sent at once, and gives the rounds.
    fn stream(&mut self, ids: &[u32]) -> Vec<Draft> {
        let mut rounds = Vec::new();
        for &id in ids {
            self.drafted(id);
            rounds.extend(drafts(&self.tell(Event::Action(Action::Send))));
        }
        rounds
    }

    fn verdict(&mut self, epoch: u32, start: u32, accepted: u32, next: &[u32]) -> Vec<Effect> {
        self.tell(Event::Verdict(Verdict {
            session: SESSION,
            epoch,
            round: 1,
            start,
            accepted,
            next: next.to_vec(),
            idle: false,
            finish: None,
            logprobs: None,
        }))
    }

    /// Answers the question that a verdict raised.
    fn go_on(&mut self) -> Vec<Effect> {
        self.tell(Event::Action(Action::Draft))
    }
}

fn drafts(effects: &[Effect]) -> Vec<Draft> {
    let draft = |effect: &Effect| match effect {
        Effect::Send(Frame::Draft(draft)) => Some(draft.clone()),
        _ => None,
    };
    effects.iter().filter_map(draft).collect()
}

fn committed(effects: &[Effect]) -> Vec<u32> {
    let tokens = effects.iter().filter_map(|effect| match effect {
        Effect::Commit(tokens) => Some(tokens),
        _ => None,
    });
    tokens.flatten().map(|token| token.id).collect()
}

fn rolled_back(effects: &[Effect]) -> Option<u32> {
    effects.iter().find_map(|effect| match effect {
        Effect::RollBack { to } => Some(*to),
        _ => None,
    })
}

fn appended(effects: &[Effect]) -> Vec<u32> {
    let ids = effects.iter().filter_map(|effect| match effect {
        Effect::Append { ids } => Some(ids.clone()),
        _ => None,
    });
    ids.flatten().collect()
}

fn asked(effects: &[Effect]) -> Option<StepInput> {
    effects.iter().find_map(|effect| match effect {
        Effect::Ask(input) => Some(*input),
        _ => None,
    })
}

#[test]
fn it_opens_and_drafts_at_once() {
    let (_, first) = Edge::start(config(), 0.0);
    assert!(matches!(&first[0], Effect::Send(Frame::Open(open)) if open.wanted == Wanted::Verify));
    let draft = Effect::Draft {
        stamp: 1,
        position: 0,
    };
    assert_eq!(first[1..], [draft]);
}

#[test]
fn what_was_opened_before_is_not_opened_again() {
    let opened = |start| Config {
        start,
        opened: true,
        ..config()
    };
    let (_, first) = Edge::start(opened(Start::Speculate), 0.0);
    assert!(
        matches!(first[..], [Effect::Draft { position: 0, .. }]),
        "{first:?}"
    );
    // The rest is the target's from the first place on. What it chose before it heard that counts all the same.
    let (_, first) = Edge::start(opened(Start::Cloud { with_draft: false }), 0.0);
    let [Effect::Send(Frame::Draft(draft))] = &first[..] else {
        panic!("{first:?}")
    };
    assert_eq!((draft.start, draft.epoch, draft.last), (0, 0, true));
    assert!(draft.proposed.is_empty() && draft.forced.is_empty());
    for start in [Start::Speculate, Start::Cloud { with_draft: false }] {
        let mut edge = Driven::start(opened(start));
        assert_eq!(committed(&edge.verdict(0, 0, 0, &[5])), [5], "{start:?}");
        assert_eq!(
            committed(&edge.verdict(0, 1, 0, &[6, 7])),
            [6, 7],
            "{start:?}"
        );
        // A peer that is lost is opened anew.
        edge.tell(Event::PeerLost);
        let back = edge.tell(Event::PeerBack);
        let opened = back.iter().find_map(|effect| match effect {
            Effect::Send(Frame::Open(open)) => Some(open),
            _ => None,
        });
        assert_eq!(opened.unwrap().committed, [5, 6, 7]);
    }
}

#[test]
fn rounds_follow_each_other_while_no_verdict_has_come() {
    let mut edge = Driven::start(config());
    let rounds = edge.stream(&[5, 6, 7]);
    let places: Vec<_> = rounds
        .iter()
        .map(|r| (r.round, r.start, r.committed))
        .collect();
    assert_eq!(places, [(1, 0, 0), (2, 1, 0), (3, 2, 0)]);
    assert_eq!(rounds[0].prefix, PrefixDigest::of(&[]).digest());
    let told = asked(&edge.drafted(8)).unwrap();
    assert_eq!((told.in_flight, told.unsent, told.waited_ms), (3, 1, 5.0));
}

#[test]
fn a_bonus_that_the_next_draft_equals_is_skipped() {
    let mut edge = Driven::start(config());
    edge.stream(&[5, 6, 7]);
    let effects = edge.verdict(0, 0, 1, &[6]);
    assert_eq!(committed(&effects), [5, 6]);
    assert_eq!((rolled_back(&effects), appended(&effects)), (None, vec![]));
    // The third draft stays in flight, and the next round says what is committed.
    edge.go_on();
    let next = edge.stream(&[8]);
    assert_eq!((next[0].start, next[0].committed, next[0].epoch), (3, 2, 0));
    assert_eq!(next[0].prefix, PrefixDigest::of(&[5, 6]).digest());
    assert_eq!(edge.edge.counters().accepted(), 2);
}

#[test]
fn a_bonus_that_the_next_draft_is_not_begins_an_epoch_at_once() {
    let mut edge = Driven::start(config());
    edge.stream(&[5, 6, 7]);
    let effects = edge.verdict(0, 0, 1, &[9]);
    assert_eq!(committed(&effects), [5, 9]);
    assert_eq!(
        (rolled_back(&effects), appended(&effects)),
        (Some(1), vec![9])
    );
    // The draft that was under way comes back and counts for nothing.
    let stamp = edge.stamp;
    edge.go_on();
    assert_eq!(edge.stamp, stamp + 1);
    let next = edge.stream(&[4]);
    assert_eq!((next[0].epoch, next[0].start, next[0].committed), (1, 2, 2));
    let counters = edge.edge.counters();
    assert_eq!((counters.judged(), counters.accepted()), (2, 1));
    assert_eq!((counters.rollbacks, counters.wasted), (1, 2));
}

#[test]
fn nothing_in_flight_lost_is_no_new_epoch() {
    let mut edge = Driven::start(config());
    edge.drafted(5);
    let effects = edge.verdict(0, 0, 0, &[9]);
    assert_eq!(
        (rolled_back(&effects), appended(&effects)),
        (Some(0), vec![9])
    );
    edge.go_on();
    edge.go_on();
    assert_eq!(edge.stream(&[4])[0].epoch, 0);
}

#[test]
fn a_token_that_is_being_drafted_is_waited_for() {
    for (drafted, back) in [(5, None), (8, Some(0))] {
        let mut edge = Driven::start(config());
        let effects = edge.verdict(0, 0, 0, &[5]);
        assert_eq!((rolled_back(&effects), appended(&effects)), (None, vec![]));
        edge.verdict(0, 1, 0, &[6]);
        let effects = edge.drafted(drafted);
        assert_eq!(rolled_back(&effects), back);
        let unread = if back.is_some() { vec![5, 6] } else { vec![6] };
        assert_eq!(appended(&effects), unread);
        assert_eq!(edge.edge.committed(), [5, 6]);
    }
}

#[test]
fn what_the_target_decoded_in_an_older_epoch_counts() {
    let mut edge = Driven::start(config());
    edge.stream(&[5, 6]);
    edge.verdict(0, 0, 0, &[9]);
    edge.go_on();
    edge.stream(&[4]);
    // Sent before the new epoch was known there.
    let effects = edge.verdict(0, 1, 0, &[4]);
    assert_eq!(
        (committed(&effects), rolled_back(&effects)),
        (vec![4], None)
    );
}

#[test]
fn a_resumed_session_hears_nothing_of_the_old_stream() {
    let mut edge = Driven::start(config());
    edge.stream(&[5, 6]);
    edge.verdict(0, 0, 1, &[]);
    edge.tell(Event::PeerLost);
    assert_eq!(committed(&edge.verdict(0, 1, 1, &[])), []);
    let effects = edge.tell(Event::PeerBack);
    let Effect::Send(Frame::Open(open)) = &effects[0] else {
        panic!("{effects:?}")
    };
    assert_eq!((open.epoch, &open.committed), (1, &vec![5]));
    // What was in flight is sent again.
    let again = drafts(&effects);
    assert_eq!((again[0].epoch, again[0].start), (1, 1));
    assert_eq!(again[0].proposed, [6]);
    assert_eq!(committed(&edge.verdict(0, 1, 0, &[7])), []);
    assert_eq!(committed(&edge.verdict(1, 1, 1, &[])), [6]);
    assert_eq!(edge.edge.counters().stale, 2);
}

#[test]
fn alone_its_drafts_are_the_answer() {
    let mut edge = Driven::start(config());
    edge.stream(&[5, 6]);
    let lost = edge.tell(Event::PeerLost);
    assert_eq!(asked(&lost).unwrap().kind, kind::LINK_DOWN);
    let effects = edge.tell(Event::Action(Action::Finish));
    assert_eq!(
        (committed(&effects), rolled_back(&effects)),
        (vec![5, 6], None)
    );
    let effects = edge.drafted(7);
    assert_eq!(committed(&effects), [7]);
    assert!(asked(&effects).is_none());
    let counters = edge.edge.counters();
    assert_eq!((counters.unverified, counters.degraded), (3, true));
}

#[test]
fn a_peer_that_comes_back_without_a_verdict_is_waited_for_no_longer() {
    for verdict in [false, true] {
        let mut edge = Driven::start(config());
        edge.stream(&[5, 6]);
        edge.now_ms = 999.0;
        edge.tell(Event::PeerLost);
        edge.now_ms = 2999.0;
        edge.tell(Event::PeerBack);
        if verdict {
            assert_eq!(committed(&edge.verdict(1, 0, 1, &[])), [5]);
        }
        edge.now_ms = 3999.0;
        edge.tell(Event::PeerLost);
        edge.now_ms = 5999.0;
        let effects = edge.tell(Event::Tick);
        let alone = if verdict { vec![] } else { vec![5, 6] };
        assert_eq!(committed(&effects), alone);
        assert_eq!(edge.edge.counters().degraded, !verdict);
    }
    // It is gone once more when its time is over already.
    let mut edge = Driven::start(config());
    edge.stream(&[5, 6]);
    edge.tell(Event::PeerLost);
    edge.tell(Event::PeerBack);
    edge.now_ms += 5000.0;
    assert_eq!(committed(&edge.tell(Event::PeerLost)), [5, 6]);
}

/// Plays a link that is lost at `lost_ms` and comes and goes from then on, always before a verdict has come, on a clock that
/// goes on only once all that is due has been done. Gives when the edge waits no longer, and whether it then goes on alone.
fn flapping(config: Config, lost_ms: f64, every_ms: f64) -> (f64, bool) {
    let start = config.start;
    let (mut edge, _) = Edge::start(config, 0.0);
    let mut changes = 0_u32;
    for _ in 0..1000 {
        let change_ms = lost_ms + every_ms * f64::from(changes);
        let due_ms = edge.due_ms().filter(|due_ms| *due_ms <= change_ms);
        let (now_ms, event) = match due_ms {
            Some(due_ms) => (due_ms, Event::Tick),
            None if changes.is_multiple_of(2) => (change_ms, Event::PeerLost),
            None => (change_ms, Event::PeerBack),
        };
        changes += u32::from(event != Event::Tick);
        let mut effects = edge.advance(now_ms, event);
        if asked(&effects).is_some() {
            effects.extend(edge.advance(now_ms, Event::Action(Action::Wait)));
        }
        if effects.contains(&Effect::End(Ending::NotExact)) {
            return (now_ms, false);
        }
        if edge.counters().degraded {
            return (now_ms, true);
        }
    }
    panic!("{start:?}: after {changes} changes it still waits");
}

#[test]
fn a_link_that_comes_and_goes_without_a_verdict_is_waited_for_until_the_limit() {
    // Their sum is rounded, and that less the first is less than the second.
    let (lost_ms, limit_ms) = (3500.3, 5000.0);
    assert!(lost_ms + limit_ms - lost_ms < limit_ms);
    for start in [
        Start::Speculate,
        Start::Cloud { with_draft: false },
        Start::Cloud { with_draft: true },
    ] {
        // When the limit is over the link goes, or is about to come back.
        for every_ms in [100.0, 200.0] {
            for exact_only in [false, true] {
                let config = Config {
                    start,
                    exact_only,
                    parted_limit_ms: limit_ms,
                    ..config()
                };
                let ended = flapping(config, lost_ms, every_ms);
                assert_eq!(ended, (lost_ms + limit_ms, !exact_only), "{start:?}");
            }
        }
    }
}

#[test]
fn an_exact_answer_is_never_finished_alone() {
    let mut edge = Driven::start(Config {
        exact_only: true,
        ..config()
    });
    edge.stream(&[5]);
    edge.tell(Event::PeerLost);
    let effects = edge.tell(Event::Action(Action::Finish));
    assert_eq!(effects, [Effect::End(Ending::NotExact)]);
    assert_eq!(edge.tell(Event::PeerBack), []);
}

#[test]
fn escalated_the_rest_is_the_targets() {
    let mut edge = Driven::start(config());
    edge.stream(&[5]);
    edge.drafted(6);
    let effects = edge.tell(Event::Action(Action::Escalate));
    assert_eq!(rolled_back(&effects), Some(1));
    let last = drafts(&effects);
    assert!(last[0].last && last[0].proposed.is_empty());
    // What is in flight is judged still.
    assert_eq!(committed(&edge.verdict(0, 0, 1, &[8])), [5, 8]);
    assert_eq!(edge.edge.counters().accepted(), 1);
    // Route `edge` opens a session with what it has.
    let mut edge = Driven::start(Config {
        start: Start::Alone,
        ..config()
    });
    edge.drafted(5);
    assert_eq!(committed(&edge.go_on()), [5]);
    edge.drafted(6);
    let effects = edge.tell(Event::Action(Action::Escalate));
    let Effect::Send(Frame::Open(open)) = &effects[0] else {
        panic!("{effects:?}")
    };
    assert_eq!((open.wanted, &open.committed), (Wanted::Decode, &vec![5]));
}

#[test]
fn on_the_edge_alone_a_draft_is_committed_once_the_policy_has_seen_it() {
    let alone = || {
        Driven::start(Config {
            start: Start::Alone,
            ..config()
        })
    };
    let mut edge = alone();
    let effects = edge.drafted(5);
    assert_eq!(committed(&effects), []);
    let input = asked(&effects).unwrap();
    assert_eq!(
        (input.kind, input.unsent, input.committed),
        (kind::DRAFTED, 1, 0)
    );
    // Whatever it says but that the target shall have it.
    let effects = edge.tell(Event::Action(Action::Wait));
    assert_eq!(committed(&effects), [5]);
    assert!(matches!(effects[1..], [Effect::Draft { position: 1, .. }]));
    // The target takes over at the very token: where it chooses the same, nothing is taken back.
    edge.drafted(6);
    let effects = edge.tell(Event::Action(Action::Escalate));
    assert_eq!((committed(&effects), rolled_back(&effects)), (vec![], None));
    let effects = edge.verdict(1, 1, 0, &[6, 7]);
    assert_eq!(committed(&effects), [6, 7]);
    assert_eq!((rolled_back(&effects), appended(&effects)), (None, vec![7]));
    let counters = edge.edge.counters();
    assert_eq!((counters.judged(), counters.accepted()), (1, 1));
    // Where it chooses another, that one is.
    let mut edge = alone();
    edge.drafted(5);
    edge.tell(Event::Action(Action::Escalate));
    let effects = edge.verdict(1, 0, 0, &[8]);
    assert_eq!(committed(&effects), [8]);
    assert_eq!(
        (rolled_back(&effects), appended(&effects)),
        (Some(0), vec![8])
    );
    let counters = edge.edge.counters();
    assert_eq!((counters.judged(), counters.accepted()), (1, 0));
    assert_eq!((counters.wasted, counters.unverified), (1, 0));
}

#[test]
fn a_draft_is_not_committed_by_what_was_said_of_something_else() {
    let mut edge = Driven::start(Config {
        start: Start::Alone,
        ..config()
    });
    // The question about the link is open when the draft comes.
    let effects = edge.tell(Event::PeerBack);
    assert_eq!(asked(&effects).unwrap().kind, kind::LINK_UP);
    edge.drafted(5);
    let effects = edge.go_on();
    assert_eq!(committed(&effects), []);
    assert_eq!(asked(&effects).unwrap().kind, kind::DRAFTED);
    // So it is where something more important has come between.
    edge.tell(Event::PeerLost);
    assert_eq!(committed(&edge.go_on()), [5]);
    edge.drafted(6);
    let effects = edge.go_on();
    assert_eq!(committed(&effects), []);
    assert_eq!(asked(&effects).unwrap().kind, kind::DRAFTED);
    assert_eq!(committed(&edge.go_on()), [6]);
}

#[test]
fn what_is_confident_enough_is_committed_and_forced() {
    let mut edge = Driven::start(Config {
        confidence_floor: 0.5,
        ..config()
    });
    edge.drafted(5);
    edge.go_on();
    edge.drafted(6);
    let effects = edge.tell(Event::Action(Action::Commit));
    assert_eq!(committed(&effects), [5, 6]);
    let forced = drafts(&effects);
    assert_eq!((forced[0].start, forced[0].committed), (0, 2));
    assert_eq!((&forced[0].forced, forced[0].epoch), (&vec![5, 6], 1));
    // What the target decoded before it heard of that is void.
    assert_eq!(committed(&edge.verdict(0, 0, 0, &[9])), []);
    // Without a floor nothing is committed.
    let mut edge = Driven::start(config());
    edge.drafted(5);
    let effects = edge.tell(Event::Action(Action::Commit));
    assert_eq!(
        (committed(&effects), drafts(&effects)[0].forced.len()),
        (vec![], 0)
    );
}

#[test]
fn drafts_that_were_sure_when_they_were_made_are_no_more_once_that_is_shut() {
    let mut edge = Driven::start(Config {
        confidence_floor: 0.5,
        ..config()
    });
    edge.drafted(5);
    let effects = edge.tell(Event::Action(Action::Commit));
    assert_eq!(committed(&effects), [5]);
    edge.drafted(6);
    edge.go_on();
    edge.drafted(7);
    assert_eq!(edge.tell(Event::Shut), []);
    // They go on as drafts, for the target to judge.
    let effects = edge.tell(Event::Action(Action::Commit));
    assert_eq!(committed(&effects), []);
    let sent = drafts(&effects);
    assert_eq!((&sent[0].forced, &sent[0].proposed), (&vec![], &vec![6, 7]));
    assert_eq!(committed(&edge.verdict(1, 1, 2, &[8])), [6, 7, 8]);
    assert_eq!(edge.edge.counters().unverified, 1);
    // On the edge alone the next draft is the target's to say, unless the edge was free.
    for (alone_floor, own) in [(0.5, vec![]), (0.0, vec![6])] {
        let mut edge = Driven::start(Config {
            start: Start::Alone,
            alone_floor,
            ..config()
        });
        edge.drafted(5);
        assert_eq!(committed(&edge.go_on()), [5]);
        edge.drafted(6);
        // Too late for the one that nobody has committed yet.
        edge.tell(Event::Shut);
        assert_eq!(committed(&edge.go_on()), own);
        assert_eq!(edge.edge.counters().escalated, own.is_empty());
    }
}

#[test]
fn a_policy_that_waits_for_nothing_is_woken() {
    let mut edge = Driven::start(config());
    edge.drafted(5);
    assert_eq!(edge.tell(Event::Action(Action::Wait)), []);
    edge.now_ms = edge.edge.due_ms().unwrap();
    let effects = edge.tell(Event::Tick);
    assert_eq!(asked(&effects).unwrap().kind, kind::OVERDUE);
    assert_eq!(drafts(&effects)[0].proposed, [5]);
}

#[test]
fn a_peer_that_contradicts_itself_is_given_up() {
    let cases: [(u32, u32, u32, Violation); 3] = [
        (
            1,
            0,
            0,
            Violation::Epoch {
                found: 1,
                newest: 0,
            },
        ),
        (
            0,
            1,
            0,
            Violation::Start {
                found: 1,
                expected: 0,
            },
        ),
        (
            0,
            0,
            2,
            Violation::Accepted {
                accepted: 2,
                in_flight: 1,
            },
        ),
    ];
    for (epoch, start, accepted, violation) in cases {
        let mut edge = Driven::start(config());
        edge.stream(&[5]);
        let effects = edge.verdict(epoch, start, accepted, &[7]);
        assert!(
            effects.contains(&Effect::GiveUpStream(violation)),
            "{effects:?}"
        );
        assert_eq!(committed(&effects), []);
        assert_eq!(asked(&effects).unwrap().kind, kind::LINK_DOWN);
    }
}

#[test]
fn limits_hold_drafts_back_until_a_verdict() {
    let mut edge = Driven::start(Config {
        gamma_max: 2,
        in_flight_max: 1,
        ..config()
    });
    let mut sent = Vec::new();
    for id in [5, 6, 7, 8] {
        edge.drafted(id);
        sent.extend(drafts(&edge.go_on()));
    }
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].proposed, [5, 6]);
    assert!(edge.edge.drafting.is_none(), "a full round waits");
    let effects = edge.verdict(0, 0, 2, &[7]);
    assert_eq!(drafts(&effects)[0].proposed, [8]);
    assert!(edge.edge.counters().waited_ms > 0.0);
}

#[test]
fn without_a_draft_model_the_rest_is_the_targets() {
    let mut driven = Driven::start(config());
    driven.stream(&[1, 2]);
    let effects = driven.tell(Event::DraftLost);
    let sent = effects.iter().any(|effect| {
        matches!(effect, Effect::Send(Frame::Draft(draft)) if draft.last && draft.proposed.is_empty())
    });
    assert!(sent, "{effects:?}");
    let drafts = |effects: &[Effect]| {
        let of = |effect: &&Effect| matches!(effect, Effect::Draft { .. });
        effects.iter().filter(of).count()
    };
    assert_eq!(drafts(&effects), 0);
    // Whatever happens then, nothing is drafted, and nobody finishes alone.
    let effects = driven.tell(Event::PeerLost);
    assert_eq!(drafts(&effects), 0);
    let effects = driven.tell(Event::Action(Action::Finish));
    assert!(
        effects.contains(&Effect::End(Ending::NotExact)),
        "{effects:?}"
    );

    let alone = Config {
        start: Start::Alone,
        ..config()
    };
    let mut driven = Driven::start(alone);
    let effects = driven.tell(Event::DraftLost);
    assert_eq!(effects, [Effect::End(Ending::NoModel)]);
}

#[test]
fn a_target_that_is_there_is_not_left_for_the_draft() {
    let mut edge = Driven::start(config());
    edge.drafted(5);
    // As if it had said: draft on.
    let effects = edge.tell(Event::Action(Action::Finish));
    assert_eq!(committed(&effects), []);
    assert!(
        matches!(effects[..], [Effect::Draft { position: 1, .. }]),
        "{effects:?}"
    );
    edge.drafted(6);
    edge.tell(Event::Action(Action::Send));
    let sent_ms = edge.now_ms;
    // It is asked again and again, and heeded once the peer has been silent for as long as a lost one is waited for.
    let mut gave_up_ms = None;
    while gave_up_ms.is_none() {
        edge.now_ms = edge.edge.due_ms().unwrap();
        edge.tell(Event::Tick);
        let effects = edge.tell(Event::Action(Action::Finish));
        if !committed(&effects).is_empty() {
            assert_eq!(committed(&effects), [5, 6]);
            gave_up_ms = Some(edge.now_ms);
        }
        assert!(edge.now_ms < 60_000.0, "it waits for ever");
    }
    let waited_ms = gave_up_ms.unwrap() - sent_ms;
    assert!((5000.0..7000.0).contains(&waited_ms), "{waited_ms}");
    let counters = edge.edge.counters();
    assert_eq!((counters.unverified, counters.unverified_parted), (2, 2));
    assert!(counters.degraded);
}

#[test]
fn on_the_edge_alone_what_is_not_sure_is_left_to_the_target() {
    let alone = |alone_floor| {
        Driven::start(Config {
            start: Start::Alone,
            alone_floor,
            ..config()
        })
    };
    let mut edge = alone(0.5);
    edge.drafted(5);
    // Whatever the policy wants, the floor holds.
    let effects = edge.tell(Event::Action(Action::Finish));
    assert_eq!(committed(&effects), [5]);
    let effects = edge.tell(Event::Drafted(Drafted {
        stamp: edge.stamp,
        id: 6,
        ends: false,
        p_accept: 0.9,
        sure: 0.49,
        top1: 0.9,
        entropy_nats: 1.0,
        margin: 1.0,
    }));
    assert_eq!((committed(&effects), rolled_back(&effects)), (vec![], None));
    let opened = effects.iter().find_map(|effect| match effect {
        Effect::Send(Frame::Open(open)) => Some((open.wanted, open.committed.clone())),
        _ => None,
    });
    assert_eq!(opened, Some((Wanted::Decode, vec![5])));
    assert!(edge.edge.counters().escalated);
    let effects = edge.verdict(1, 1, 0, &[7]);
    assert_eq!(
        (committed(&effects), rolled_back(&effects)),
        (vec![7], Some(1))
    );
    // Nobody is there any more: what it has is better than nothing, and is told apart.
    edge.tell(Event::PeerLost);
    edge.tell(Event::Action(Action::Finish));
    let stamp = edge.stamp;
    let effects = edge.tell(Event::Drafted(Drafted {
        stamp,
        id: 8,
        ends: false,
        p_accept: 0.1,
        sure: 0.1,
        top1: 0.1,
        entropy_nats: 1.0,
        margin: 1.0,
    }));
    assert_eq!(committed(&effects), [8]);
    let counters = edge.edge.counters();
    assert_eq!((counters.unverified, counters.unverified_parted), (2, 1));
    // An end is a choice like any other.
    let mut edge = alone(0.6);
    let effects = edge.tell(Event::Drafted(Drafted {
        stamp: edge.stamp,
        id: 0,
        ends: true,
        p_accept: 0.5,
        sure: 0.5,
        top1: 0.5,
        entropy_nats: 1.0,
        margin: 1.0,
    }));
    assert!(!effects.iter().any(|it| matches!(it, Effect::End(_))));
    assert!(edge.edge.counters().escalated);
}

#[test]
fn every_draft_that_was_judged_is_told_once() {
    let mut edge = Driven::start(config());
    edge.stream(&[5, 6]);
    edge.drafted(7);
    // The second is rejected, and the third falls with it: nobody has judged that one.
    edge.verdict(0, 0, 1, &[9]);
    let told: Vec<_> = edge.edge.take_judged();
    let told: Vec<_> = told.iter().map(|it| (it.drafted.id, it.accepted)).collect();
    assert_eq!(told, [(5, true), (6, false)]);
    assert_eq!(edge.edge.take_judged(), []);
    // One that comes after the target's word counts too.
    edge.go_on();
    edge.go_on();
    edge.verdict(1, 2, 0, &[4]);
    edge.drafted(4);
    let told: Vec<_> = edge.edge.take_judged();
    assert_eq!(told.len(), 1);
    assert!(told[0].accepted && told[0].drafted.id == 4);
    assert_eq!(edge.edge.counters().judged(), 3);
}
