use msao_core::digest::Digest;
use msao_core::sampling::Confidence;
use msao_link::estimate::EstimateConfig;
use msao_registry::state::MemoryStorage;

use super::*;

/// An hour: checkpoints come when they are asked for.
const NEVER: Duration = Duration::from_secs(3600);

const SAID: Confidence = Confidence {
    top1: 0.9,
    entropy: 0.3,
    margin: 2.0,
};

fn confident(budget: Option<f64>) -> Confident {
    Confident {
        budget,
        audit_rate: 1.0,
        delta: 0.05,
        settle_drafts: 40,
    }
}

fn start(storage: &Arc<MemoryStorage>, confident: Confident) -> Adapt {
    let options = Options {
        storage: Arc::clone(storage) as Arc<dyn Storage>,
        confident,
        checkpoint_every: NEVER,
        watched: Vec::new(),
        links: Vec::new(),
        metrics: Metrics::default(),
    };
    Adapt::start(options).unwrap()
}

fn pair(target: &[u8]) -> Arc<Pair> {
    Arc::new(Pair {
        draft: Digest::of(b"draft"),
        target: Digest::of(target),
        held: "f32/none on cpu".into(),
    })
}

/// Has it learn of so many drafts, and waits until it has.
fn teach(adapt: &Adapt, pair: &Arc<Pair>, drafts: u32, accepted: bool) {
    let mut judge = adapt.judge(pair, Mix::TEXT, 0.0, None);
    for _ in 0..drafts {
        let (p_accept, _) = judge.of(&SAID);
        judge.learn(&SAID, p_accept, accepted);
    }
    drop(judge);
    adapt.checkpoint().unwrap();
}

fn told(adapt: &Adapt, pair: &Arc<Pair>) -> f64 {
    adapt.judge(pair, Mix::TEXT, 0.0, None).of(&SAID).0
}

#[test]
fn what_is_learned_is_told_at_once_and_after_a_restart() {
    let storage = Arc::new(MemoryStorage::default());
    let (one, other) = (pair(b"one"), pair(b"other"));
    let adapt = start(&storage, confident(None));
    let untaught = told(&adapt, &one);
    // Who judges already sees it too.
    let under_way = adapt.judge(&one, Mix::TEXT, 0.0, None);
    teach(&adapt, &one, 500, false);
    let taught = told(&adapt, &one);
    assert!(untaught > 0.8 && taught < 0.2, "{untaught} {taught}");
    assert_eq!(under_way.of(&SAID).0, taught);
    // Of another pair nothing is known.
    assert_eq!(told(&adapt, &other), untaught);
    let (floor, rate) = adapt.row(&one, Mix::TEXT, 0.0, true);
    assert_eq!((floor, rate), (CLOSED, Some(0.0)));
    drop(under_way);
    drop(adapt);
    let again = start(&storage, confident(None));
    assert_eq!(told(&again, &one).to_bits(), taught.to_bits());
    assert_eq!(told(&again, &other), untaught);
    assert_eq!(again.counted().unreadable, 0);
}

#[test]
fn what_was_learned_since_the_last_checkpoint_is_all_that_a_kill_loses() {
    let storage = Arc::new(MemoryStorage::default());
    let one = pair(b"one");
    let adapt = start(&storage, confident(None));
    teach(&adapt, &one, 100, false);
    let kept = told(&adapt, &one);
    // Not handed over to the disk: as if the process were killed here.
    let mut judge = adapt.judge(&one, Mix::TEXT, 0.0, None);
    for _ in 0..1000 {
        judge.learn(&SAID, 0.5, true);
    }
    let killed = start(&storage, confident(None));
    assert_eq!(told(&killed, &one).to_bits(), kept.to_bits());
    drop(judge);
}

#[test]
fn with_a_budget_agreement_opens_and_without_one_nothing_does() {
    let class = Class::whole(0.0);
    for budget in [Some(0.5), None] {
        let storage = Arc::new(MemoryStorage::default());
        let one = pair(b"one");
        let adapt = start(&storage, confident(budget));
        assert_eq!(adapt.has_budget(), budget.is_some());
        // The map has not settled: no audits yet.
        assert!(adapt.admit(&one, class).audit.is_none());
        teach(&adapt, &one, 40, true);
        for _ in 0..30 {
            if let Some(audit) = adapt.admit(&one, class).audit {
                assert_eq!((audit.pair(), audit.class()), (&*one, class));
                audit.end(Audited::Agreed);
            }
        }
        let (floor, _) = adapt.row(&one, Mix::TEXT, 0.0, true);
        assert_eq!(floor < 1.0, budget.is_some(), "{floor}");
        drop(adapt);
        // It is as it was, but for a node with another budget.
        for (other, open) in [
            (budget, budget.is_some()),
            (Some(0.2), false),
            (None, false),
        ] {
            let adapt = start(&storage, confident(other));
            let (floor, _) = adapt.row(&one, Mix::TEXT, 0.0, true);
            assert_eq!(floor < 1.0, open, "{budget:?} {other:?}");
            // Not to be written over what the next one reads.
            std::mem::forget(adapt);
        }
    }
}

#[test]
fn an_audit_that_is_dropped_disagrees() {
    let storage = Arc::new(MemoryStorage::default());
    let (one, class) = (pair(b"one"), Class::whole(0.0));
    let adapt = start(&storage, confident(Some(0.5)));
    teach(&adapt, &one, 40, true);
    for _ in 0..10 {
        let admitted = adapt.admit(&one, class);
        assert!(admitted.audit.is_some() && admitted.floor > 1.0);
    }
    let figures = adapt.figures();
    let shown = &figures[0].classes[0];
    assert_eq!(
        (shown.audits, shown.disagreements, shown.floor),
        (10, 10, None)
    );
    assert_eq!((shown.requests, shown.pending), (10, 0));
}

#[test]
fn an_audit_of_a_request_that_is_of_another_class_by_now_is_none() {
    let storage = Arc::new(MemoryStorage::default());
    let (one, class) = (pair(b"one"), Class::whole(0.0));
    let adapt = start(&storage, confident(Some(0.5)));
    teach(&adapt, &one, 40, true);
    let admitted = || adapt.admit(&one, class).audit.unwrap();
    admitted().still(class).unwrap().end(Audited::Agreed);
    let pruned = Class {
        target: Retained::Half,
        ..class
    };
    assert!(admitted().still(pruned).is_none());
    let figures = adapt.figures();
    assert_eq!(figures[0].classes.len(), 1);
    let shown = &figures[0].classes[0];
    assert_eq!((shown.audits, shown.disagreements), (2, 1));
}

#[test]
fn a_request_that_is_no_audit_gets_the_floor_until_an_alarm() {
    let storage = Arc::new(MemoryStorage::default());
    let (one, class) = (pair(b"one"), Class::whole(0.0));
    let half = Confident {
        audit_rate: 0.5,
        ..confident(Some(0.5))
    };
    let adapt = start(&storage, half);
    teach(&adapt, &one, 40, true);
    let mut open = None;
    for _ in 0..500 {
        let admitted = adapt.admit(&one, class);
        match admitted.audit {
            Some(audit) => audit.end(Audited::Agreed),
            None if admitted.floor < 1.0 => open = Some(admitted),
            None => {}
        }
    }
    let open = open.unwrap();
    let judge = adapt.judge(&one, Mix::TEXT, 0.0, open.sure);
    let (_, sure) = judge.of(&SAID);
    assert!(sure >= open.floor, "{sure} {}", open.floor);
    for _ in 0..500 {
        drop(adapt.admit(&one, class));
    }
    // What was open is so no longer, for requests under way too.
    assert_eq!(judge.of(&SAID).1, 0.0);
    assert!(adapt.figures()[0].alarms > 0);
    let admitted = adapt.admit(&one, class);
    assert!(admitted.floor > 1.0 && admitted.sure.is_none());
}

#[test]
fn what_cannot_be_read_is_learned_anew() {
    let storage = Arc::new(MemoryStorage::default());
    let one = pair(b"one");
    let adapt = start(&storage, confident(None));
    teach(&adapt, &one, 500, false);
    drop(adapt);
    let mut keys = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        std::ops::ControlFlow::Continue(())
    };
    storage.scan(b"adapt/", visit).unwrap();
    assert_eq!(keys.len(), 1);
    storage.put(&keys[0], b"{\"version\":1,").unwrap();
    let adapt = start(&storage, confident(None));
    assert_eq!(adapt.counted().unreadable, 1);
    assert!(told(&adapt, &one) > 0.8);
    teach(&adapt, &one, 500, false);
    assert!(told(&adapt, &one) < 0.2);
}

#[test]
fn what_was_learned_elsewhere_is_taken_for_the_same_models_alone() {
    let there = Arc::new(MemoryStorage::default());
    let (one, other) = (pair(b"one"), pair(b"other"));
    let teacher = start(&there, confident(None));
    teach(&teacher, &one, 500, false);
    let exported = teacher.export();
    assert_eq!(exported.len(), 1);
    // As it goes over the wire.
    let text = serde_json::to_string(&exported[0]).unwrap();
    let read = || serde_json::from_str::<Exported>(&text).unwrap();
    assert_eq!(read(), exported[0]);

    let here = Arc::new(MemoryStorage::default());
    let adapt = start(&here, confident(None));
    let refused = adapt.import(read(), &[(*other).clone()]).unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains(&one.target.short()) && said.contains(&other.target.short()),
        "{said}"
    );
    assert!(told(&adapt, &one) > 0.8);
    assert_eq!(adapt.import(read(), &[(*one).clone()]), Ok(500));
    assert_eq!(told(&adapt, &one).to_bits(), told(&teacher, &one).to_bits());
    let mut value = serde_json::to_value(read()).unwrap();
    value["counts"]["mixes"][0][15]["accepted"] = serde_json::json!(1e6);
    let odd: Exported = serde_json::from_value(value).unwrap();
    assert_eq!(adapt.import(odd, &[(*one).clone()]), Err(NotTaken::Counts));
    // It is kept, and can be forgotten.
    drop(adapt);
    let adapt = start(&here, confident(None));
    assert!(told(&adapt, &one) < 0.2);
    assert_eq!(
        (adapt.forget(&one), adapt.forget(&other)),
        (Some(500), None)
    );
    assert!(told(&adapt, &one) > 0.8);
    drop(adapt);
    assert!(told(&start(&here, confident(None)), &one) > 0.8);
}

#[test]
fn pairs_that_are_held_are_bounded() {
    let storage = Arc::new(MemoryStorage::default());
    let adapt = start(&storage, confident(None));
    for number in 0..2 * MOST_PAIRS {
        let one = pair(&number.to_le_bytes());
        let mut judge = adapt.judge(&one, Mix::TEXT, 0.0, None);
        judge.learn(&SAID, 0.5, true);
    }
    adapt.checkpoint().unwrap();
    assert_eq!(adapt.pairs().len(), MOST_PAIRS);
    let newest = pair(&(2 * MOST_PAIRS - 1).to_le_bytes());
    assert!(adapt.pairs().contains(&newest));
    drop(adapt);
    let mut kept = 0;
    let visit = &mut |_: &[u8], _: &[u8]| {
        kept += 1;
        std::ops::ControlFlow::Continue(())
    };
    storage.scan(b"adapt/", visit).unwrap();
    assert!(kept <= MOST_PAIRS);
}

#[test]
fn speeds_are_there_after_a_restart() {
    let storage = Arc::new(MemoryStorage::default());
    let start = |speeds: &Arc<Mutex<Speeds>>| {
        Adapt::start(Options {
            storage: Arc::clone(&storage) as Arc<dyn Storage>,
            confident: confident(None),
            checkpoint_every: NEVER,
            watched: vec![Watched {
                model: "demo on cpu".into(),
                speeds: Arc::clone(speeds),
            }],
            links: Vec::new(),
            metrics: Metrics::default(),
        })
        .unwrap()
    };
    let new = || Arc::new(Mutex::new(Speeds::new(&EstimateConfig::default())));
    let before = new();
    let adapt = start(&before);
    before.lock().unwrap().drafted(50, 100.0);
    drop(adapt);
    let after = new();
    drop(start(&after));
    let figures = after.lock().unwrap().figures(0.0, 0.0, 0.0);
    assert!(
        (figures.draft_tok_per_s - 500.0).abs() < 1e-6,
        "{figures:?}"
    );
}

/// A link of which something is known.
struct Known {
    address: &'static str,
    bandwidth: Mutex<Bandwidth>,
}

impl WatchedLink for Known {
    fn name(&self) -> String {
        format!("cloud at {}", self.address)
    }

    fn bandwidth(&self) -> Bandwidth {
        *self.bandwidth.lock().unwrap()
    }

    fn remember(&self, before: Bandwidth) {
        *self.bandwidth.lock().unwrap() = before;
    }
}

#[test]
fn what_a_link_carries_is_known_after_a_restart_if_it_is_the_same_link() {
    let storage = Arc::new(MemoryStorage::default());
    let start = |link: &Arc<Known>| {
        Adapt::start(Options {
            storage: Arc::clone(&storage) as Arc<dyn Storage>,
            confident: confident(None),
            checkpoint_every: NEVER,
            watched: Vec::new(),
            links: vec![Arc::clone(link) as Arc<dyn WatchedLink>],
            metrics: Metrics::default(),
        })
        .unwrap()
    };
    let link = |address, bandwidth| {
        Arc::new(Known {
            address,
            bandwidth: Mutex::new(bandwidth),
        })
    };
    let seen = Bandwidth {
        uplink_bps: 19_512_345.678_9,
        ..Bandwidth::UNKNOWN
    };
    drop(start(&link("10.0.0.1:7070", seen)));
    let (same, other) = (
        link("10.0.0.1:7070", Bandwidth::UNKNOWN),
        link("10.0.0.2:7070", Bandwidth::UNKNOWN),
    );
    drop(start(&same));
    drop(start(&other));
    assert_eq!(same.bandwidth(), seen);
    assert_eq!(other.bandwidth(), Bandwidth::UNKNOWN);
}
