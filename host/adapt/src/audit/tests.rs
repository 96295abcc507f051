use proptest::prelude::*;

use super::simulate::{Play, Report, Traffic, Truth, simulate};
use super::*;
use crate::random::{Random, Stream};

fn audit(budget: f64) -> Audit {
    let every = AuditConfig {
        budget,
        rate: 1.0,
        ..AuditConfig::new(3)
    };
    Audit::new(every).unwrap()
}

/// Audits `requests`, all of which end alike.
fn alike(audit: &mut Audit, requests: std::ops::Range<u64>, audited: Audited) -> Vec<Change> {
    let one = |request| {
        assert!(audit.admit(request));
        audit.finished(request, audited)
    };
    requests.filter_map(one).collect()
}

#[test]
fn the_coin_is_the_same_everywhere_and_falls_as_often_as_it_should() {
    let config = AuditConfig::new(11);
    let audited: Vec<u64> = (0..100_000).filter(|n| config.coin(*n)).collect();
    // Four standard errors of a share of 0.1 among 100,000 are 380.
    assert!(
        (9_620..=10_380).contains(&audited.len()),
        "{}",
        audited.len()
    );
    assert_eq!(audited[..5], [10, 29, 31, 55, 65]);
    let other = AuditConfig::new(12);
    let both = audited.iter().filter(|n| other.coin(**n)).count();
    assert!((880..=1_120).contains(&both), "{both}");
}

#[test]
fn a_threshold_opens_above_what_was_rejected() {
    let mut audit = audit(0.01);
    let changes = alike(&mut audit, 0..400, Audited::Rejected { acceptance: 0.9 });
    let threshold = audit.open_threshold().unwrap();
    assert!(threshold > 0.9 && threshold < 0.93, "{threshold}");
    assert_eq!(changes, [Change::Opened { threshold }]);
    // Nothing rejected any more: lower ones open one by one as the share falls below the budget.
    let changes = alike(&mut audit, 400..200_000, Audited::Agreed);
    assert!(!changes.is_empty());
    assert_eq!(audit.open_threshold(), super::threshold(THRESHOLDS - 1));
    let figures = audit.figures();
    assert_eq!((figures.audits, figures.progress), (200_000, 1.0));
    assert_eq!((figures.disagreements, figures.pending), (400, 0));
}

#[test]
fn nothing_opens_while_an_earlier_audit_has_not_ended() {
    let mut slow = audit(0.05);
    // Every tenth answer is long, wrong, and has not ended yet.
    for request in 0..1_000 {
        slow.admit(request);
        if request % 10 != 0 {
            slow.finished(request, Audited::Agreed);
        }
    }
    assert_eq!((slow.open_threshold(), slow.figures().audits), (None, 0));
    assert_eq!(slow.abandon(), None);
    let figures = slow.figures();
    assert_eq!((figures.audits, figures.disagreements), (1_000, 100));
    assert_eq!(slow.open_threshold(), None);
}

#[test]
fn what_does_not_end_or_is_no_number_speaks_against_every_threshold() {
    for audited in [
        Audited::Unfinished,
        Audited::Rejected {
            acceptance: f64::NAN,
        },
        Audited::Rejected { acceptance: 1.0 },
    ] {
        let mut audit = audit(0.5);
        alike(&mut audit, 0..500, audited);
        assert_eq!(audit.open_threshold(), None);
        assert_eq!(audit.figures().disagreements, 500);
        assert!(audit.figures().progress < 0.0);
    }
}

#[test]
fn a_change_of_traffic_closes_what_was_open_and_forgets() {
    let mut audit = audit(0.01);
    alike(&mut audit, 0..10_000, Audited::Agreed);
    assert!(audit.open_threshold().is_some());
    audit.admit(20_000);
    let mut needed = 0;
    for request in 10_000..11_000 {
        audit.admit(request);
        // A tenth of the requests are broken now; the one before them ends late.
        let end = if request % 10 == 0 {
            Audited::Rejected { acceptance: 0.99 }
        } else {
            Audited::Agreed
        };
        if request == 10_000 {
            audit.finished(20_000, Audited::Agreed);
        }
        needed += 1;
        if audit.finished(request, end) == Some(Change::Closed) {
            break;
        }
    }
    // ln(20000) / KL(0.1 || 0.01) = 9.9 / 0.144 = 69 audits, and what the mixture costs.
    assert!(needed < 150, "{needed}");
    let figures = audit.figures();
    assert_eq!((figures.audits, figures.alarms, figures.drift), (0, 1, 0.0));
    assert_eq!((audit.open_threshold(), figures.pending), (None, 0));
    // It may open again, on new evidence alone.
    alike(&mut audit, 30_000..30_300, Audited::Agreed);
    assert_eq!(audit.open_threshold(), None);
    alike(&mut audit, 30_300..30_600, Audited::Agreed);
    assert!(audit.open_threshold().is_some());
}

#[test]
fn what_is_stored_comes_back_and_what_cannot_be_does_not() {
    let mut audit = audit(0.05);
    let mut random = Random::new(5, Stream::Simulation);
    for request in 0..3_000 {
        audit.admit(request);
        let acceptance = 1.0 - random.uniform().powi(3);
        // Some are still running.
        if request % 7 != 0 || request < 2_900 {
            let rejected = random.uniform() < 0.3;
            let end = if rejected {
                Audited::Rejected { acceptance }
            } else {
                Audited::Agreed
            };
            audit.finished(request, end);
        }
    }
    assert!(audit.open_threshold().is_some() && audit.figures().pending > 0);
    let stored = serde_json::to_string(&audit).unwrap();
    let back: Audit = serde_json::from_str(&stored).unwrap();
    assert_eq!(back, audit);
    assert_eq!(
        back.figures().drift.to_bits(),
        audit.figures().drift.to_bits()
    );
    assert_eq!(serde_json::to_string(&back).unwrap(), stored);

    let mut value = serde_json::to_value(&audit).unwrap();
    value["evidence"]["open"] = 1_000.into();
    let refused = serde_json::from_value::<Audit>(value).unwrap_err();
    assert!(refused.to_string().contains("begin the class anew"));
    let mut value = serde_json::to_value(&audit).unwrap();
    value["config"]["budget"] = 0.0.into();
    let refused = serde_json::from_value::<Audit>(value).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("budget is 0; allowed: above 0")
    );
}

/// Streams of 20,000 requests, a quarter audited, so that a test has as many audits as the aim: some 5,000.
fn play(truth: &Truth, budget: f64, delta: f64, unfinished: f64) -> Report {
    let play = Play {
        audit: AuditConfig {
            budget,
            delta,
            rate: 0.25,
            ..AuditConfig::new(1)
        },
        streams: 30,
        requests: 20_000,
        unfinished,
    };
    simulate(truth, &play).unwrap()
}

#[test]
fn budgets_hold_and_half_of_what_is_possible_is_reached() {
    // `examples/audits.rs` plays the whole: 200 streams of 50,000.
    let truth = Traffic::CALIBRATED.truth(9);
    for (budget, part) in [(0.01, 0.5), (0.05, 0.6)] {
        let report = play(&truth, budget, 0.05, 0.0);
        // More than 5 of 30 at a chance of 0.05 each come once in 300 times.
        assert!(report.over_budget() <= 5, "{budget} {report:?}");
        // The oracle audits nothing, of ours a quarter are.
        assert!(
            report.part_of_oracle() > part,
            "{budget} {}",
            report.part_of_oracle()
        );
        assert!(report.oracle > 0.3);
    }
    // With audits that do not end as often as the budget allows disagreement, nothing can be shown.
    let report = play(&truth, 0.01, 0.05, 0.01);
    assert!(
        report.part_of_oracle() < 0.05,
        "{}",
        report.part_of_oracle()
    );
}

#[test]
fn where_nothing_is_allowed_little_opens_and_a_careless_bound_would_be_seen() {
    let truth = Truth::brink(0.05, 0.0505).unwrap();
    let careful = play(&truth, 0.05, 0.05, 0.0);
    assert!(careful.over_budget() <= 5, "{careful:?}");
    assert_eq!((careful.oracle, careful.part_of_oracle()), (0.0, 1.0));
    let careless = play(&truth, 0.05, 0.9, 0.0);
    assert!(careless.over_budget() >= 15, "{careless:?}");
}

#[test]
fn truths_are_checked() {
    assert!(Truth::new(vec![0.0; 3], vec![0.0; 3]).is_err());
    let mut falling = vec![0.5; THRESHOLDS];
    falling[7] = 0.4;
    assert!(Truth::new(falling.clone(), vec![0.5; THRESHOLDS]).is_err());
    assert!(Truth::new(vec![0.5; THRESHOLDS], falling).is_err());
    assert!(Truth::new(vec![f64::NAN; THRESHOLDS], vec![0.5; THRESHOLDS]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_told_figures_are_in_range_and_nothing_opens_early(
        told in prop::collection::vec((0_u64..40, 0_u8..5, any::<f64>()), 0..300),
        budget in 0.05..0.6_f64,
    ) {
        let mut audit = audit(budget);
        for (request, what, acceptance) in told {
            match what {
                0 | 1 => drop(audit.admit(request)),
                2 => drop(audit.finished(request, Audited::Agreed)),
                3 => drop(audit.finished(request, Audited::Rejected { acceptance })),
                _ => drop(audit.abandon()),
            }
            let figures = audit.figures();
            prop_assert!(figures.disagreements <= figures.audits && figures.progress <= 1.0);
            prop_assert!((0.0..1.0).contains(&figures.drift) && figures.pending <= 40);
            if let Some(threshold) = audit.open_threshold() {
                prop_assert!(threshold > 0.5 && threshold < 1.0);
                // The least that any bet needs.
                let least = 20_f64.ln() / -(-budget).ln_1p();
                prop_assert!(figures.audits as f64 >= least || figures.alarms > 0);
            }
        }
    }
}
