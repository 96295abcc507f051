use std::collections::BTreeMap;

use msao_core::offload::manifest::Manifest;
use proptest::prelude::*;

use super::*;

fn tunables() -> Tunables {
    let parameter = |name: &str, kind: &str, default: &str, max: &str| {
        format!(
            "[[parameter]]\nname = \"{name}\"\ntype = \"{kind}\"\ndefault = {default}\nmin = 1\nmax = {max}\nmeaning = \"\"\n\
             tune = true\n"
        )
    };
    let text = format!(
        "name = \"p\"\nversion = \"1.0.0\"\nworld = \"offload-policy\"\ndescription = \"\"\nstate-schema = 0\n{}{}",
        parameter("drafts", "int", "30", "32"),
        parameter("patience", "float", "900.0", "1000.0"),
    );
    Tunables::new(&Manifest::parse(&text).unwrap(), &BTreeMap::new()).unwrap()
}

const WANTED: Wanted = Wanted {
    weight: 0.0,
    delta: 0.05,
    budget: Some(0.02),
};

/// Six drafts and a patience of 40 are fastest; more drafts than nine disagree too often, and at one nothing is answered.
fn world(params: &[f64]) -> Option<Measured> {
    let [drafts, patience] = params else {
        panic!("{params:?}");
    };
    if *drafts < 2.0 {
        return None;
    }
    Some(Measured {
        latency_ms: 50.0 + (drafts - 6.0).powi(2) + 5.0 * (patience / 40.0).ln().powi(2),
        requests: 1_000,
        exposed: 400,
        disagreed: if *drafts > 9.0 { 60 } else { 2 },
        ..Measured::default()
    })
}

fn search(seed: u64, evaluations: u32) -> Search {
    Search::new(tunables(), WANTED, seed, evaluations)
}

fn play(_: Origin, params: Vec<f64>) -> anyhow::Result<Played> {
    Ok(Played::Over(world(&params)))
}

fn nothing(_: &Search) -> anyhow::Result<()> {
    Ok(())
}

fn whole(seed: u64, evaluations: u32) -> Search {
    let mut search = search(seed, evaluations);
    assert!(go_on(&mut search, &mut play, &mut nothing).unwrap());
    search
}

#[test]
fn the_fastest_that_keeps_the_budget_is_found_sooner_than_at_random() {
    let (mut tuned, mut random) = (0.0, 0.0);
    for seed in 0..8 {
        let search = whole(seed, 20);
        assert_eq!(search.progress(), (41, 41));
        // The defaults break the budget.
        let declared = search.trials().declared.as_ref().unwrap();
        let judge = search.judge().unwrap();
        assert!(!judge.keeps(declared.measured.as_ref().unwrap()));
        let best = search.best().unwrap();
        assert_eq!(best.origin, Origin::Tuned);
        assert_eq!(&search.trials().tuned[best.number], best.trial);
        assert!(best.trial.point[0] <= 9.0, "{best:?}");
        tuned += best.objective;
        random += search.best_random().map_or(200.0, |best| best.objective);
    }
    assert!(tuned < random, "{tuned} {random}");
    // The best there is has 50.
    assert!(tuned / 8.0 < 52.5, "{tuned}");
}

#[test]
fn without_an_answer_there_is_nothing_to_compare_with() {
    let mut search = search(1, 3);
    let mut none = |_: Origin, _: Vec<f64>| -> anyhow::Result<Played> { Ok(Played::Over(None)) };
    let error = go_on(&mut search, &mut none, &mut nothing).unwrap_err();
    assert!(
        error.to_string().contains("no request is answered"),
        "{error}"
    );
    assert_eq!(search.trials(), &Trials::default());
}

#[test]
fn what_cannot_have_been_tried_is_refused() {
    let trials = || whole(1, 2).trials().clone();
    let spoiled: [fn(&mut Trials); 4] = [
        |trials| trials.declared = None,
        |trials| trials.tuned[0].point.push(1.0),
        |trials| trials.tuned[1].point[0] = f64::NAN,
        |trials| {
            trials
                .declared
                .as_mut()
                .unwrap()
                .measured
                .as_mut()
                .unwrap()
                .disagreed = 500
        },
    ];
    for (number, spoil) in spoiled.into_iter().enumerate() {
        let mut trials = trials();
        spoil(&mut trials);
        assert!(search(1, 2).resume(trials).is_err(), "{number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Wherever it is stopped, and however often, the trace is that of a search that was not; also by way of text.
    #[test]
    fn a_search_that_was_interrupted_goes_the_same_way(
        seed: u64, evaluations in 1_u32..9, stops in prop::collection::vec(0_usize..6, 0..5),
    ) {
        let uninterrupted = whole(seed, evaluations);
        let mut trials = Trials::default();
        for left in stops {
            let mut search = search(seed, evaluations).resume(trials).unwrap();
            let mut left = left;
            let mut some = |origin: Origin, params: Vec<f64>| -> anyhow::Result<Played> {
                if left == 0 {
                    return Ok(Played::Stopped);
                }
                left -= 1;
                play(origin, params)
            };
            let mut text = serde_json::to_string(search.trials()).unwrap();
            go_on(&mut search, &mut some, &mut |search| {
                text = serde_json::to_string(search.trials())?;
                Ok(())
            })
            .unwrap();
            trials = serde_json::from_str(&text).unwrap();
        }
        let mut last = search(seed, evaluations).resume(trials).unwrap();
        go_on(&mut last, &mut play, &mut nothing).unwrap();
        prop_assert_eq!(last.trials(), uninterrupted.trials());
        prop_assert_eq!(last.best(), uninterrupted.best());
    }

    /// What is proposed keeps the constraint and is never worse than the defaults, where those keep it.
    #[test]
    fn the_best_keeps_the_constraint(seed: u64, evaluations in 1_u32..7, budget in 0.004..0.2_f64) {
        let wanted = Wanted { budget: Some(budget), ..WANTED };
        let mut search = Search::new(tunables(), wanted, seed, evaluations);
        go_on(&mut search, &mut play, &mut nothing).unwrap();
        let judge = search.judge().unwrap().clone();
        for best in [search.best(), search.best_random()].into_iter().flatten() {
            prop_assert!(judge.keeps(best.measured));
            prop_assert_eq!(judge.objective(best.measured), best.objective);
            let declared = search.trials().declared.as_ref().unwrap().measured.as_ref().unwrap();
            prop_assert!(!judge.keeps(declared) || best.objective <= judge.objective(declared));
        }
        let all = search.trials().tuned.iter().chain(&search.trials().random);
        for trial in all {
            let space = search.tunables().space();
            prop_assert!(trial.point.len() == space.dimensions().len());
            for (value, dimension) in trial.point.iter().zip(space.dimensions()) {
                prop_assert!(*value >= dimension.min && *value <= dimension.max);
            }
        }
    }
}
