//! What follows what, as tables and properties.

use proptest::prelude::*;

use super::*;
use crate::signing::SigningKeyFile;

fn release(number: u8) -> Release {
    Release {
        artifact: Digest::of(&[number]),
        manifest: Digest::of(&[number, 1]),
    }
}

/// Points of the curve, by number.
fn key(number: u64) -> PublicKey {
    SigningKeyFile::from_seed([u8::try_from(number).unwrap(); 32]).public()
}

fn start() -> Deployment {
    Deployment::new(Digest::of(b"salt"))
}

fn spec(state: &Deployment, policy: u8) -> Spec {
    state.draft(Some(release(policy)), None, Values::new(), Values::new())
}

fn activate(state: &Deployment, policy: u8) -> Deployment {
    let event = Event::Activated {
        spec: spec(state, policy),
        claims: Vec::new(),
        why: None,
    };
    state.advance(&event).unwrap()
}

fn canary(state: &Deployment, policy: u8) -> Deployment {
    let event = Event::CanaryStarted {
        spec: spec(state, policy),
        claims: Vec::new(),
    };
    state.advance(&event).unwrap()
}

fn left(number: u64) -> Event {
    Event::Left {
        number,
        why: "test".into(),
    }
}

#[test]
fn a_rollback_goes_to_the_one_before_and_then_to_the_fallback() {
    let state = activate(&activate(&start(), 1), 2);
    let back = state.advance(&left(state.active.number)).unwrap();
    assert_eq!(back.active.policy, Some(release(1)));
    assert_eq!(back.previous, None);
    let further = back.advance(&left(back.active.number)).unwrap();
    assert_eq!(further.active.policy, None);
    let end = further.advance(&left(further.active.number));
    assert_eq!(end, Err(NotNow::NothingBefore));
}

#[test]
fn a_post_processor_alone_is_left_for_the_fallback() {
    let spec = start().draft(None, Some(release(1)), Values::new(), Values::new());
    let event = Event::Activated {
        spec,
        claims: Vec::new(),
        why: None,
    };
    let state = start().advance(&event).unwrap();
    let before = state.previous.as_ref().unwrap().number;
    let alone = state.advance(&left(before)).unwrap();
    let back = alone.advance(&left(alone.active.number)).unwrap();
    assert_eq!((back.active.postprocessor, back.previous), (None, None));
}

#[test]
fn a_canary_steps_and_is_promoted_or_dropped() {
    let state = canary(&activate(&start(), 1), 2);
    let number = state.rollout.as_ref().unwrap().candidate.number;
    let step = |step| Event::CanaryStepped { number, step };
    assert_eq!(
        state.advance(&step(2)),
        Err(NotNow::WrongStep { at: 0, asked: 2 })
    );
    let stepped = state.advance(&step(1)).unwrap();
    assert_eq!(stepped.advance(&step(0)), Ok(state.clone()));
    let other = Event::CanaryStarted {
        spec: spec(&stepped, 3),
        claims: Vec::new(),
    };
    assert_eq!(stepped.advance(&other), Err(NotNow::CanaryUnderWay(number)));
    let promoted = stepped.advance(&Event::Promoted { number }).unwrap();
    assert_eq!(promoted.active.policy, Some(release(2)));
    assert_eq!(promoted.previous.as_ref().unwrap().policy, Some(release(1)));
    let dropped = stepped.advance(&left(number)).unwrap();
    assert_eq!((&dropped.active, &dropped.rollout), (&state.active, &None));
    // What was compared with the active one goes with it.
    let both = stepped.advance(&left(stepped.active.number)).unwrap();
    assert_eq!(both.rollout, None);
}

#[test]
fn turning_off_ends_what_runs_beside_too() {
    let shadowed = |state: &Deployment, policy| {
        let spec = spec(state, policy);
        state.advance(&Event::ShadowStarted { spec }).unwrap()
    };
    let off = |state: &Deployment| state.advance(&Event::Off);
    assert_eq!(off(&start()), Err(NotNow::SameAsActive));
    let active = activate(&start(), 1);
    for (state, was) in [
        (active.clone(), 1),
        (canary(&active, 2), 1),
        (shadowed(&canary(&active, 2), 3), 1),
    ] {
        let next = off(&state).unwrap();
        assert_eq!(
            (next.active.policy, next.rollout, next.shadow),
            (None, None, None)
        );
        assert_eq!(next.previous.unwrap().policy, Some(release(was)));
    }
    // The fallback is active already, and goes on: what a rollback goes back to stays as well.
    let fallback = off(&active).unwrap();
    for state in [
        canary(&fallback, 2),
        shadowed(&fallback, 2),
        shadowed(&canary(&fallback, 2), 3),
    ] {
        let next = off(&state).unwrap();
        assert_eq!(
            (&next.active, &next.previous),
            (&fallback.active, &fallback.previous)
        );
        assert_eq!((&next.rollout, &next.shadow), (&None, &None));
        assert_eq!(off(&next), Err(NotNow::SameAsActive));
    }
}

#[test]
fn older_serials_are_refused() {
    let claim = |serial, number| Claim {
        plugin: "p".into(),
        release: release(number),
        serial,
        key: key(1),
    };
    let activated = |state: &Deployment, number, serial| {
        state.advance(&Event::Activated {
            spec: spec(state, number),
            claims: vec![claim(serial, number)],
            why: None,
        })
    };
    let state = activated(&start(), 1, 7).unwrap();
    assert!(matches!(
        activated(&state, 2, 6),
        Err(NotNow::Serial(SignatureError::Older { highest: 7, .. }))
    ));
    assert!(matches!(
        activated(&state, 2, 7),
        Err(NotNow::Serial(SignatureError::SerialUsed { .. }))
    ));
    let newer = activated(&state, 2, 8).unwrap();
    assert!(activated(&newer, 1, 7).is_err());
    // Going back needs no claim: the operator names it.
    let back = newer.advance(&left(newer.active.number)).unwrap();
    assert_eq!(back.active.policy, Some(release(1)));
    assert_eq!(back.newest["p"][&key(1)].serial, 8);
}

#[test]
fn a_key_has_no_say_in_the_serials_of_another() {
    let claim = |number, serial, by| Claim {
        plugin: "p".into(),
        release: release(number),
        serial,
        key: key(by),
    };
    let activated = |state: &Deployment, claim: Claim| {
        state.advance(&Event::Activated {
            spec: spec(state, u8::try_from(claim.serial % 100).unwrap()),
            claims: vec![claim],
            why: None,
        })
    };
    let state = activated(&start(), claim(1, 7, 1)).unwrap();
    let other = activated(&state, claim(2, u64::MAX, 2)).unwrap();
    assert!(activated(&other, claim(3, 8, 1)).is_ok());
    assert!(activated(&other, claim(3, 6, 1)).is_err());
    assert!(activated(&other, claim(3, 8, 2)).is_err());
}

#[test]
fn a_canarys_serial_counts_when_it_is_promoted() {
    let claim = |number, serial| Claim {
        plugin: "p".into(),
        release: release(number),
        serial,
        key: key(1),
    };
    let state = activate(&start(), 1);
    let begun = |state: &Deployment, number, serial| {
        state.advance(&Event::CanaryStarted {
            spec: spec(state, number),
            claims: vec![claim(number, serial)],
        })
    };
    let under_way = begun(&state, 2, 9).unwrap();
    let number = under_way.rollout.as_ref().unwrap().candidate.number;
    // It was worse: the one before it may come again.
    let dropped = under_way.advance(&left(number)).unwrap();
    assert!(begun(&dropped, 3, 8).is_ok());
    let promoted = under_way.advance(&Event::Promoted { number }).unwrap();
    assert!(begun(&promoted, 3, 8).is_err());
}

#[test]
fn a_change_of_parameters_is_a_new_revision() {
    let state = activate(&start(), 1);
    let tuned = Values::from([("p".into(), BTreeMap::new())]);
    let draft = state.draft(state.active.policy, None, Values::new(), tuned.clone());
    assert_eq!(draft.revision, state.active.revision + 1);
    let event = Event::Activated {
        spec: draft,
        claims: Vec::new(),
        why: None,
    };
    let changed = state.advance(&event).unwrap();
    assert_ne!(changed.active.id(), state.active.id());
    // The same parameters again have the revision that they had.
    let again = changed.draft(state.active.policy, None, Values::new(), Values::new());
    assert_eq!(again.revision, state.active.revision);
}

#[test]
fn other_pins_are_new_revisions_of_all_generations() {
    let state = canary(&activate(&activate(&start(), 1), 2), 3);
    let pins = Values::from([("p".into(), BTreeMap::new())]);
    let mut repinned = state.clone();
    for spec in state.known() {
        let spec = repinned.repinned(spec.number, &pins).unwrap();
        repinned = repinned.advance(&Event::Repinned { spec }).unwrap();
    }
    let revisions: Vec<u64> = repinned.known().map(|spec| spec.revision).collect();
    assert_eq!(revisions, [state.active.revision + 1; 3]);
    assert!(repinned.known().all(|spec| spec.pins == pins));
    let numbers = |state: &Deployment| state.known().map(|it| it.number).collect::<Vec<_>>();
    assert_eq!(numbers(&repinned), numbers(&state));
    assert_eq!(repinned.repinned(repinned.active.number, &pins), None);
}

fn event(state: &Deployment, kind: u8, policy: u8, pick: u8) -> Event {
    let numbers: Vec<u64> = state.known().map(|spec| spec.number).collect();
    let number = numbers[usize::from(pick) % numbers.len()];
    let spec = spec(state, policy);
    let claims = vec![Claim {
        plugin: "p".into(),
        release: release(policy),
        serial: u64::from(pick),
        key: key(1),
    }];
    match kind {
        0 => Event::Activated {
            spec,
            claims,
            why: None,
        },
        1 => Event::CanaryStarted { spec, claims },
        2 => Event::CanaryStepped {
            number,
            step: usize::from(pick % 4),
        },
        3 => Event::Promoted { number },
        4 => left(number),
        5 => Event::ShadowStarted { spec },
        6 => Event::Off,
        _ => Event::Restarted {
            spec,
            why: "test".into(),
        },
    }
}

proptest! {
    #[test]
    fn whatever_happens_one_generation_is_active_and_numbers_are_never_used_twice(
        events in prop::collection::vec((0_u8..8, 0_u8..5, 0_u8..10), 0..80),
    ) {
        let mut state = start();
        let mut newest = 0;
        for (kind, policy, pick) in events {
            let event = event(&state, kind, policy, pick);
            let Ok(next) = state.advance(&event) else { continue };
            let mut numbers: Vec<u64> = next.known().map(|spec| spec.number).collect();
            numbers.sort_unstable();
            prop_assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{numbers:?}");
            prop_assert!(numbers.iter().all(|&number| number < next.next));
            prop_assert!(next.next >= state.next);
            let serial = next.newest.get("p").map_or(0, |keys| keys[&key(1)].serial);
            prop_assert!(serial >= newest);
            newest = serial;
            let text = serde_json::to_string(&next).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Deployment>(&text).unwrap(), &next);
            state = next;
        }
    }
}
