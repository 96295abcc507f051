use proptest::prelude::*;

use super::super::Dimension;
use super::*;

fn square() -> Space {
    Space::new(vec![Dimension::float(0.0, 1.0), Dimension::float(0.0, 1.0)]).unwrap()
}

/// Asks and tells, `trials` times.
fn run(tuner: &mut Tuner, trials: u32, f: impl Fn(&[f64]) -> (f64, f64)) {
    for _ in 0..trials {
        let point = tuner.suggest();
        let (objective, constraint) = f(&point);
        tuner.tell(&point, objective, constraint).unwrap();
    }
}

#[test]
fn a_bowl_is_found_and_the_same_seed_goes_the_same_way() {
    let bowl = |p: &[f64]| ((p[0] - 0.3).powi(2) + (p[1] - 0.8).powi(2), -1.0);
    let mut tuner = Tuner::new(square(), 1);
    run(&mut tuner, 20, bowl);
    assert!(tuner.best().unwrap().objective < 1e-3, "{:?}", tuner.best());
    let mut again = Tuner::new(square(), 1);
    run(&mut again, 10, bowl);
    let stored = serde_json::to_string(&again).unwrap();
    let mut again: Tuner = serde_json::from_str(&stored).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), stored);
    run(&mut again, 10, bowl);
    assert_eq!(again, tuner);
    assert_eq!(again.suggest(), again.suggest());
    let mut other = Tuner::new(square(), 2);
    run(&mut other, 3, bowl);
    assert_ne!(other.trials[..], tuner.trials[..3]);
}

#[test]
fn the_edge_of_what_is_allowed_is_found() {
    // The lowest sum whose product is at least 1/4, which almost nothing of the space keeps with y below 0.3.
    let f = |p: &[f64]| (p[0] + 3.0 * p[1], (0.25 - p[0] * p[1]).max(p[1] - 0.3));
    let mut tuner = Tuner::new(square(), 3);
    run(&mut tuner, 30, f);
    let best = tuner.best().unwrap();
    assert!(best.constraint <= 0.0);
    // x = sqrt(3/4), y = sqrt(1/12).
    assert!(best.objective < 3_f64.sqrt() * 1.02, "{best:?}");
}

#[test]
fn noise_does_not_lead_astray() {
    let mut tuner = Tuner::new(square(), 5);
    let mut random = crate::random::Random::new(1, crate::random::Stream::Simulation);
    for _ in 0..40 {
        let p = tuner.suggest();
        let objective = (p[0] - 0.6).powi(2) + (p[1] - 0.2).powi(2) + 0.02 * random.normal();
        tuner.tell(&p, objective, -1.0).unwrap();
    }
    let last: Vec<&Trial> = tuner.trials.iter().rev().take(10).collect();
    let off = |trial: &&&Trial| (trial.point[0] - 0.6).hypot(trial.point[1] - 0.2) < 0.3;
    assert!(last.iter().filter(off).count() >= 6, "{last:?}");
}

#[test]
fn failures_are_kept_away_from() {
    let f = |p: &[f64]| match p[0] < 0.5 {
        true => (f64::NAN, f64::INFINITY),
        false => ((p[0] - 0.7).powi(2) + (p[1] - 0.5).powi(2), -1.0),
    };
    let mut tuner = Tuner::new(square(), 7);
    run(&mut tuner, 25, f);
    let best = tuner.best().unwrap();
    assert!(best.objective < 1e-3, "{best:?}");
    // Three of the six of the design, and some that were worth a try.
    let failed = tuner
        .trials
        .iter()
        .filter(|trial| trial.outcome.is_none())
        .count();
    assert!(failed <= 8, "{failed}");
}

#[test]
fn nothing_to_learn_is_no_trouble() {
    let space = || Space::new(vec![Dimension::int(0.0, 2.0), Dimension::float(5.0, 5.0)]).unwrap();
    for outcome in [
        (1.0, -1.0),
        (1.0, 1.0),
        (f64::NAN, f64::NAN),
        (f64::MAX, f64::MIN),
        (0.0, 0.0),
    ] {
        let mut tuner = Tuner::new(space(), 1);
        run(&mut tuner, 12, |_| outcome);
        assert_eq!(tuner.trials(), 12);
        let seen: std::collections::BTreeSet<i64> =
            tuner.trials.iter().map(|t| t.point[0] as i64).collect();
        assert_eq!(
            seen.len(),
            3,
            "all three are tried before any is tried again"
        );
        assert_eq!(tuner.best().is_some(), outcome.1 <= 0.0);
    }
}

#[test]
fn what_is_told_is_checked_and_bounded() {
    let mut tuner = Tuner::new(square(), 1);
    assert!(matches!(
        tuner.tell(&[0.5], 1.0, 0.0),
        Err(TellError::Foreign(_))
    ));
    assert!(tuner.tell(&[0.5, f64::NAN], 1.0, 0.0).is_err());
    tuner.tell(&[7.0, -1.0], -5.0, 0.0).unwrap();
    assert_eq!(tuner.best().unwrap().point, [1.0, 0.0]);
    for i in 0..MAX_TRIALS + 10 {
        tuner.tell(&[0.5, i as f64 / 300.0], 1.0, -1.0).unwrap();
    }
    assert_eq!(tuner.trials(), MAX_TRIALS);
    assert_eq!(tuner.best().unwrap().objective, -5.0);
    let mut value = serde_json::to_value(&tuner).unwrap();
    value["trials"][3]["point"][0] = 2.0.into();
    assert!(serde_json::from_value::<Tuner>(value).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_told_what_is_suggested_is_in_the_space(
        told in prop::collection::vec((any::<(f64, f64)>(), 0..3_u8), 0..14),
        seed: u64,
    ) {
        let dimensions = vec![Dimension::int(1.0, 8.0), Dimension::float(0.1, 10.0).log()];
        let space = Space::new(dimensions).unwrap();
        let mut tuner = Tuner::new(space.clone(), seed);
        let mut last = vec![1.0, 1.0];
        for ((objective, constraint), repeat) in told {
            let point = tuner.suggest();
            prop_assert_eq!(space.nearest(&point), Some(point.clone()));
            // The same point again, now and then.
            last = if repeat == 0 { last } else { point };
            tuner.tell(&last, objective, constraint).unwrap();
        }
        let point = tuner.suggest();
        prop_assert_eq!(space.nearest(&point), Some(point));
    }
}
