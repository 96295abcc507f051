//! What follows what in the cloud. Whole answers are played in `tests/it/simulator`.

use msao_core::digest::Digest;
use msao_core::sampling::SamplingParams;

use super::*;
use crate::PrefixDigest;
use crate::frame::{Finish, Prompt, SessionId, Verdict, Wanted};

const SESSION: SessionId = SessionId([1; 16]);

fn open(committed: &[u32]) -> Open {
    Open {
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
        committed: committed.to_vec(),
    }
}

fn ready() -> Cloud {
    let (mut cloud, first) = Cloud::open(open(&[]), Config::default(), 0.0);
    assert_eq!(first, []);
    assert_eq!(cloud.advance(0.0, Event::Ready), []);
    cloud
}

fn draft(epoch: u32, round: u32, start: u32, committed: &[u32], proposed: &[u32]) -> Draft {
    Draft {
        session: SESSION,
        epoch,
        round,
        committed: committed.len() as u32,
        prefix: PrefixDigest::of(committed).digest(),
        start,
        forced: Vec::new(),
        proposed: proposed.to_vec(),
        last: false,
    }
}

fn verified(cloud: &mut Cloud, stamp: u64, ids: &[u32]) -> Vec<Effect> {
    let choice = |&id| Choice { id, logprobs: None };
    let choices = ids.iter().map(choice).collect();
    cloud.advance(
        1.0,
        Event::Verified {
            stamp,
            choices,
            ended: false,
        },
    )
}

fn verify(stamp: u64, position: u32, drafts: &[u32]) -> Effect {
    Effect::Verify {
        stamp,
        position,
        drafts: drafts.to_vec(),
    }
}

fn verdict(effect: &Effect) -> Verdict {
    match effect {
        Effect::Send(Frame::Verdict(verdict)) => verdict.clone(),
        other => panic!("{other:?} is no verdict"),
    }
}

fn refused(effects: &[Effect]) -> RefusedCode {
    assert_eq!(effects.last(), Some(&Effect::Free));
    match &effects[0] {
        Effect::Send(Frame::Refused(refused)) => refused.code,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn drafts_that_come_during_a_pass_join_the_next() {
    let mut cloud = ready();
    cloud.advance(0.0, Event::Draft(draft(0, 1, 0, &[], &[4, 5])));
    let first = verified(&mut cloud, 1, &[4]);
    assert_eq!(first[1], verify(2, 1, &[5]));
    for (round, id) in [(2, 6), (3, 7)] {
        let more = draft(0, round, round, &[], &[id]);
        assert_eq!(cloud.advance(0.0, Event::Draft(more)), []);
    }
    // The bonus is the next draft: it is accepted with the first.
    let effects = verified(&mut cloud, 2, &[5, 6]);
    let said = verdict(&effects[0]);
    assert_eq!(
        (said.start, said.accepted, said.next.len(), said.idle),
        (1, 2, 0, false)
    );
    assert_eq!(effects[1], verify(3, 3, &[7]));
}

/// A session that was opened before anybody knew whether there would be drafts.
#[test]
fn an_edge_that_leaves_the_rest_from_the_first_place_on_loses_nothing_that_was_chosen() {
    let mut cloud = ready();
    assert_eq!(cloud.advance(0.0, Event::Spare(true)), [verify(1, 0, &[])]);
    let first = verified(&mut cloud, 1, &[4]);
    assert_eq!(
        (verdict(&first[0]).start, &first[1]),
        (0, &verify(2, 1, &[]))
    );
    // Another wants the target meanwhile.
    cloud.advance(0.0, Event::Spare(false));
    let rest = Draft {
        last: true,
        ..draft(0, 1, 0, &[], &[])
    };
    assert_eq!(cloud.advance(0.0, Event::Draft(rest)), []);
    let next = verified(&mut cloud, 2, &[5]);
    let said = verdict(&next[0]);
    assert_eq!((said.epoch, said.start, &said.next), (0, 1, &vec![5]));
    assert_eq!(next[1], verify(3, 2, &[]));
}

#[test]
fn the_first_token_waits_for_no_pass_over_drafts() {
    let mut cloud = ready();
    let first = cloud.advance(0.0, Event::Draft(draft(0, 1, 0, &[], &[5, 6, 7])));
    assert_eq!(first, [verify(1, 0, &[])]);
    // It is held against the draft for its place, and the others follow.
    let effects = verified(&mut cloud, 1, &[5]);
    let said = verdict(&effects[0]);
    assert_eq!((said.start, said.accepted, said.next.len()), (0, 1, 0));
    assert_eq!(effects[1], verify(2, 1, &[6, 7]));
    let mut cloud = ready();
    cloud.advance(0.0, Event::Draft(draft(0, 1, 0, &[], &[5, 6])));
    let effects = verified(&mut cloud, 1, &[8]);
    let said = verdict(&effects[0]);
    assert_eq!((said.accepted, said.next.as_slice()), (0, [8].as_slice()));
    assert_eq!(effects.len(), 1);
}

#[test]
fn a_batch_has_as_many_drafts_as_pay() {
    let mut cloud = ready();
    cloud.limit_batch(2);
    cloud.advance(0.0, Event::Draft(draft(0, 1, 0, &[], &[4, 5, 6, 7])));
    let effects = verified(&mut cloud, 1, &[4]);
    assert_eq!(effects[1], verify(2, 1, &[5, 6]));
    cloud.limit_batch(0);
    let effects = verified(&mut cloud, 2, &[5, 6, 7]);
    let said = verdict(&effects[0]);
    // The choice behind the batch meets the draft that waited for it.
    assert_eq!((said.start, said.accepted, said.next.len()), (1, 3, 0));
    assert_eq!(effects.len(), 1);
}

#[test]
fn a_lost_draft_voids_its_epoch() {
    let mut cloud = ready();
    cloud.advance(0.0, Event::Draft(draft(0, 1, 0, &[], &[5, 6])));
    let effects = verified(&mut cloud, 1, &[5, 9]);
    let said = verdict(&effects[0]);
    assert_eq!((said.accepted, said.next.as_slice()), (1, [9].as_slice()));
    assert_eq!(effects.len(), 1);
    // Of the old epoch, still on its way.
    let late = draft(0, 2, 2, &[], &[7]);
    assert_eq!(cloud.advance(0.0, Event::Draft(late)), []);
    let new = draft(1, 3, 2, &[5, 9], &[4]);
    assert_eq!(cloud.advance(0.0, Event::Draft(new)), [verify(2, 2, &[4])]);
    assert_eq!(cloud.counters().stale_rounds, 1);
}

#[test]
fn an_idle_target_goes_on_by_itself_and_holds_late_drafts_against_that() {
    let mut cloud = ready();
    assert_eq!(cloud.advance(0.0, Event::Spare(true)), [verify(1, 0, &[])]);
    let effects = verified(&mut cloud, 1, &[5]);
    assert!(verdict(&effects[0]).idle);
    assert_eq!(effects[1], verify(2, 1, &[]));
    // Its first draft says the same, its second is for the place under way.
    cloud.advance(0.0, Event::Draft(draft(0, 1, 0, &[], &[5, 6, 7])));
    let effects = verified(&mut cloud, 2, &[6]);
    let said = verdict(&effects[0]);
    assert_eq!((said.start, said.accepted, said.next.len()), (1, 1, 0));
    assert_eq!(effects[1], verify(3, 2, &[7]));
    // Drafts that say something else than what was decoded are void.
    verified(&mut cloud, 3, &[7, 8]);
    cloud.advance(0.0, Event::Draft(draft(0, 2, 3, &[], &[1])));
    assert_eq!(cloud.counters().accepted, 3);
    assert!(!cloud.is_waiting());
}

#[test]
fn forced_ids_take_the_target_where_the_edge_is() {
    let mut cloud = ready();
    cloud.advance(0.0, Event::Spare(true));
    verified(&mut cloud, 1, &[5]);
    let forced = Draft {
        forced: vec![5, 3],
        ..draft(1, 1, 0, &[5, 3], &[4])
    };
    let effects = cloud.advance(0.0, Event::Draft(forced));
    let expected = [
        Effect::RollBack { to: 1 },
        Effect::Append { ids: vec![3] },
        verify(3, 2, &[4]),
    ];
    assert_eq!(effects, expected);
    // What was under way is of no account.
    assert_eq!(verified(&mut cloud, 2, &[6]), []);
    assert_eq!(cloud.chosen(), [5, 3]);
}

#[test]
fn contradictions_are_refused_and_free_everything() {
    let wrong_prefix = Draft {
        prefix: Digest::of(b"another"),
        ..draft(0, 1, 0, &[], &[5])
    };
    let ahead = Draft {
        committed: 3,
        start: 3,
        ..draft(0, 1, 0, &[], &[5])
    };
    let forced_ahead = Draft {
        start: 2,
        ..draft(0, 1, 0, &[], &[5])
    };
    let other = Draft {
        session: SessionId([2; 16]),
        ..draft(0, 1, 0, &[], &[5])
    };
    let long = draft(0, 1, 0, &[], &[1; 21]);
    let forced_long = Draft {
        forced: vec![1; 21],
        ..draft(0, 1, 0, &[1; 21], &[])
    };
    let cases = [
        (wrong_prefix, RefusedCode::Prefix),
        (ahead, RefusedCode::Protocol),
        (forced_ahead, RefusedCode::Protocol),
        (other, RefusedCode::Protocol),
        (long, RefusedCode::Protocol),
        (forced_long, RefusedCode::Protocol),
    ];
    for (draft, code) in cases {
        let mut cloud = ready();
        assert_eq!(refused(&cloud.advance(0.0, Event::Draft(draft))), code);
        assert!(cloud.is_freed());
        assert_eq!(cloud.advance(0.0, Event::Done), []);
    }
    let mut cloud = ready();
    cloud.advance(0.0, Event::Draft(draft(0, 1, 0, &[], &[5, 6])));
    let overlap = draft(0, 2, 1, &[], &[6]);
    let effects = cloud.advance(0.0, Event::Draft(overlap));
    assert_eq!(refused(&effects), RefusedCode::Protocol);
    let mut cloud = ready();
    let other = Open {
        max_tokens: 21,
        ..open(&[])
    };
    let effects = cloud.advance(0.0, Event::Reopened(Box::new(other)));
    assert_eq!(refused(&effects), RefusedCode::Protocol);
}

#[test]
fn a_round_that_comes_twice_counts_once() {
    let mut cloud = ready();
    let round = draft(0, 1, 0, &[], &[5]);
    cloud.advance(0.0, Event::Draft(round.clone()));
    assert_eq!(cloud.advance(0.0, Event::Draft(round)), []);
    assert_eq!(
        (cloud.counters().drafts, cloud.counters().stale_rounds),
        (1, 1)
    );
}

#[test]
fn a_lease_is_kept_or_taken_up() {
    let mut cloud = ready();
    cloud.advance(0.0, Event::Draft(draft(0, 1, 0, &[], &[5, 6])));
    assert_eq!(cloud.advance(100.0, Event::Lost), []);
    // The pass ends with nobody to tell.
    assert_eq!(verified(&mut cloud, 1, &[5, 6, 7]), []);
    assert_eq!(cloud.due_ms(), Some(2100.0));
    let mut other = cloud.clone();
    let again = Open {
        epoch: 1,
        ..open(&[5])
    };
    let effects = other.advance(2000.0, Event::Reopened(Box::new(again)));
    assert_eq!(effects, [Effect::RollBack { to: 1 }]);
    let next = draft(1, 2, 1, &[5], &[6]);
    assert_eq!(
        other.advance(2000.0, Event::Draft(next)),
        [verify(2, 1, &[6])]
    );
    assert_eq!(other.due_ms(), None);
    assert_eq!(cloud.advance(2099.0, Event::Tick), []);
    assert_eq!(cloud.advance(2100.0, Event::Tick), [Effect::Free]);
    assert!(cloud.is_freed());
}

#[test]
fn the_last_place_has_no_place_behind_it() {
    let committed: Vec<u32> = (0..18).collect();
    let (mut cloud, first) = Cloud::open(open(&committed), Config::default(), 0.0);
    assert_eq!(first.len(), 1);
    cloud.advance(0.0, Event::Ready);
    let drafts = draft(0, 1, 18, &committed, &[18, 19]);
    assert_eq!(
        cloud.advance(0.0, Event::Draft(drafts)),
        [verify(1, 18, &[18])]
    );
    let effects = verified(&mut cloud, 1, &[18, 19]);
    let said = verdict(&effects[0]);
    assert_eq!((said.accepted, said.finish), (2, Some(Finish::Length)));
    // Kept for a while, in case the edge never hears of it.
    assert_eq!(cloud.due_ms(), Some(2001.0));
    assert_eq!(cloud.advance(1500.0, Event::Done), [Effect::Free]);
}

#[test]
fn a_deadline_is_told() {
    let open = Open {
        deadline_ms: 50.0,
        ..open(&[])
    };
    let (mut cloud, _) = Cloud::open(open, Config::default(), 10.0);
    assert_eq!(cloud.advance(59.0, Event::Tick), []);
    assert_eq!(
        refused(&cloud.advance(60.0, Event::Tick)),
        RefusedCode::Deadline
    );
}

#[test]
fn where_no_drafts_come_the_target_decodes_whatever_waits() {
    let mut cloud = ready();
    let last = Draft {
        last: true,
        ..draft(0, 1, 0, &[], &[])
    };
    assert_eq!(cloud.advance(0.0, Event::Draft(last)), [verify(1, 0, &[])]);
    let wanted = Open {
        wanted: Wanted::Decode,
        ..open(&[])
    };
    let (mut cloud, _) = Cloud::open(wanted, Config::default(), 0.0);
    assert_eq!(cloud.advance(0.0, Event::Ready), [verify(1, 0, &[])]);
}
