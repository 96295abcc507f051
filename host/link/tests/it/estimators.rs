//! What estimators promise, whatever they are told: nothing negative, nothing that is no number, no time that runs back; and
//! on constant input they converge.

use msao_core::offload::Node;
use msao_link::estimate::{
    EstimateConfig, Figures, Heartbeat, LinkEstimator, Speeds, Transfer, UNKNOWN,
};
use proptest::prelude::*;

/// Something that a node may tell its estimators.
#[derive(Clone, Debug)]
enum Told {
    News(f64),
    Heartbeat(Heartbeat),
    Up(f64, Transfer),
    Down(f64, Transfer),
    Report(f64, Figures),
    Plan(u64, f64),
    Settle(u64),
    Lost,
}

/// Honest times, and anything that an f64 can be.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![8 => 0.0..1e7, 1 => prop::num::f64::ANY, 1 => prop::sample::select(vec![
        f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, f64::MIN_POSITIVE, -0.0, -1.0,
    ])]
}

fn transfer() -> impl Strategy<Value = Transfer> {
    let bytes = prop_oneof![0_u64..10_000_000, any::<u64>()];
    (bytes, number(), number(), any::<bool>()).prop_map(
        |(bytes, start_ms, end_ms, acknowledged)| Transfer {
            bytes,
            start_ms,
            end_ms,
            acknowledged,
        },
    )
}

fn heartbeat() -> impl Strategy<Value = Heartbeat> {
    (number(), number(), number(), number()).prop_map(
        |(sent_ms, peer_received_ms, peer_sent_ms, received_ms)| Heartbeat {
            sent_ms,
            peer_received_ms,
            peer_sent_ms,
            received_ms,
        },
    )
}

fn figures() -> impl Strategy<Value = Figures> {
    prop::array::uniform8(number()).prop_map(|[a, b, c, d, e, f, g, h]| Figures {
        queue_ms: a,
        planned_ms: h,
        kv_free: b,
        prefill_tok_per_s: c,
        draft_tok_per_s: d,
        target_tok_per_s: e,
        verify_ms: f,
        acceptance: g,
    })
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        number().prop_map(Told::News),
        heartbeat().prop_map(Told::Heartbeat),
        (number(), transfer()).prop_map(|(now, transfer)| Told::Up(now, transfer)),
        (number(), transfer()).prop_map(|(now, transfer)| Told::Down(now, transfer)),
        (number(), figures()).prop_map(|(now, figures)| Told::Report(now, figures)),
        (any::<u64>(), number()).prop_map(|(request, ms)| Told::Plan(request, ms)),
        any::<u64>().prop_map(Told::Settle),
        Just(Told::Lost),
    ]
}

fn tell(link: &mut LinkEstimator, told: Told) {
    match told {
        Told::News(now_ms) => link.news(now_ms),
        Told::Heartbeat(heartbeat) => link.heartbeat(heartbeat),
        Told::Up(now_ms, transfer) => link.uplink(now_ms, transfer),
        Told::Down(now_ms, transfer) => link.downlink(now_ms, transfer),
        Told::Report(now_ms, figures) => link.report(now_ms, figures),
        Told::Plan(request, work_ms) => link.planned.plan(request, work_ms),
        Told::Settle(request) => drop(link.planned.settle(request)),
        Told::Lost => link.lost(),
    }
}

fn filled(link: &LinkEstimator, now_ms: f64) -> Node {
    let mut node = Node::default();
    link.fill(now_ms, &mut node);
    node
}

/// Every measured field by its name.
fn fields(node: &Node) -> [(&'static str, f64); 15] {
    [
        ("uplink_bps", node.uplink_bps),
        ("uplink_sd_bps", node.uplink_sd_bps),
        ("downlink_bps", node.downlink_bps),
        ("rtt_ms", node.rtt_ms),
        ("jitter_ms", node.jitter_ms),
        ("stalled", node.stalled),
        ("age_ms", node.age_ms),
        ("queue_ms", node.queue_ms),
        ("planned_ms", node.planned_ms),
        ("kv_free", node.kv_free),
        ("prefill_tok_per_s", node.prefill_tok_per_s),
        ("draft_tok_per_s", node.draft_tok_per_s),
        ("target_tok_per_s", node.target_tok_per_s),
        ("verify_ms", node.verify_ms),
        ("acceptance", node.acceptance),
    ]
}

/// A number as the contract has it: unknown, or finite and not negative, shares at most 1.
fn keeps_the_contract(node: &Node) -> Result<(), TestCaseError> {
    for (name, value) in fields(node) {
        let known = value.is_finite() && value >= 0.0;
        prop_assert!(known || value == UNKNOWN, "{name} is {value}");
    }
    prop_assert!(node.stalled <= 1.0 && node.acceptance <= 1.0);
    Ok(())
}

proptest! {
    #[test]
    fn whatever_is_told_the_contract_is_kept(
        begun_ms in number(),
        all in prop::collection::vec((told(), number()), 0..60),
    ) {
        let mut link = LinkEstimator::new(&EstimateConfig::default(), begun_ms);
        keeps_the_contract(&filled(&link, begun_ms))?;
        for (told, now_ms) in all {
            tell(&mut link, told);
            keeps_the_contract(&filled(&link, now_ms))?;
        }
    }

    #[test]
    fn whatever_a_node_does_its_figures_keep_the_contract(
        all in prop::collection::vec((0_u8..5, any::<u32>(), any::<u32>(), number(), number()), 0..60),
    ) {
        let mut speeds = Speeds::new(&EstimateConfig::default());
        for (what, tokens, accepted, a, b) in all {
            match what {
                0 => speeds.prefilled(tokens, a),
                1 => speeds.drafted(tokens, a),
                2 => speeds.decoded(tokens, a),
                3 => speeds.verified(tokens % 20, accepted, a),
                _ => speeds.began(a, b),
            }
            let mut node = Node::default();
            speeds.figures(a, b, a).fill(&mut node);
            keeps_the_contract(&node)?;
        }
    }

    /// A time before one that was told earlier is taken for the later one.
    #[test]
    fn time_does_not_run_back(times in prop::collection::vec(0.0..1e6, 1..40), rtt_ms in 0.0..100.0) {
        let config = EstimateConfig::default();
        let (mut jumping, mut monotone) = (LinkEstimator::new(&config, 0.0), LinkEstimator::new(&config, 0.0));
        let mut latest = 0.0_f64;
        for now_ms in times {
            latest = latest.max(now_ms);
            for (link, now_ms) in [(&mut jumping, now_ms), (&mut monotone, latest)] {
                link.news(now_ms);
                link.uplink(now_ms, Transfer { bytes: 1 << 20, start_ms: 0.0, end_ms: 1.0 + rtt_ms, acknowledged: false });
            }
            prop_assert_eq!(filled(&jumping, now_ms), filled(&monotone, latest));
            prop_assert_eq!(filled(&jumping, latest).age_ms, 0.0);
        }
    }

    /// While nothing comes, estimates age and stalls grow.
    #[test]
    fn silence_only_makes_things_worse(beats in 1_u32..40, silences in prop::collection::vec(0.0..5_000.0_f64, 1..20)) {
        let mut link = LinkEstimator::new(&EstimateConfig::default(), 0.0);
        let mut now_ms = 0.0;
        for beat in 1..=beats {
            now_ms = f64::from(beat) * 500.0;
            link.heartbeat(Heartbeat {
                sent_ms: now_ms - 20.0, peer_received_ms: 0.0, peer_sent_ms: 0.0, received_ms: now_ms,
            });
        }
        let mut before = filled(&link, now_ms);
        prop_assert_eq!((before.stalled, before.age_ms), (0.0, 0.0));
        for silence_ms in silences {
            now_ms += silence_ms;
            let after = filled(&link, now_ms);
            prop_assert!(after.stalled >= before.stalled);
            let aged_ms = after.age_ms - before.age_ms;
            prop_assert!((aged_ms - silence_ms).abs() < 1e-6);
            before = after;
        }
    }

    #[test]
    fn constant_input_is_converged_to(
        mbps in 0.1..10_000.0,
        first_mbps in 0.1..10_000.0,
        rtt_ms in 0.0..500.0,
        offset_ms in -1e9..1e9,
        acknowledged in any::<bool>(),
    ) {
        let mut link = LinkEstimator::new(&EstimateConfig::default(), 0.0);
        let bytes = 100_000_000_u64;
        let lasts_ms = |mbps: f64| bytes as f64 * 8.0 / (mbps * 1000.0);
        let mut at_ms = 0.0;
        for step in 0..400 {
            at_ms += 500.0;
            link.heartbeat(Heartbeat {
                sent_ms: at_ms - rtt_ms - 1.0,
                peer_received_ms: at_ms + offset_ms,
                peer_sent_ms: at_ms + offset_ms + 1.0,
                received_ms: at_ms,
            });
            // What it was at first is forgotten.
            let lasts_ms = lasts_ms(if step < 3 { first_mbps } else { mbps });
            let waits_ms = if acknowledged { rtt_ms } else { 0.0 };
            link.uplink(at_ms, Transfer { bytes, start_ms: at_ms, end_ms: at_ms + lasts_ms + waits_ms, acknowledged });
        }
        let node = filled(&link, at_ms);
        // A round trip longer than the transfer hides the bandwidth.
        if !acknowledged || rtt_ms < lasts_ms(mbps.max(first_mbps)) {
            prop_assert!((node.uplink_bps / (mbps * 1e6) - 1.0).abs() < 1e-3, "{} {mbps}", node.uplink_bps);
            prop_assert!(node.uplink_sd_bps < mbps.max(first_mbps) * 1e3);
        }
        prop_assert!((node.rtt_ms - rtt_ms).abs() < 1e-3, "{} {rtt_ms}", node.rtt_ms);
        prop_assert!(node.jitter_ms < 1e-3);
        prop_assert_eq!((node.stalled, node.age_ms), (0.0, 0.0));
    }
}

#[test]
fn a_peer_that_is_lost_takes_its_figures_and_its_plans_along() {
    let mut link = LinkEstimator::new(&EstimateConfig::default(), 0.0);
    link.planned.plan(1, 30.0);
    link.report(
        10.0,
        Figures {
            queue_ms: 5.0,
            ..Figures::UNKNOWN
        },
    );
    let node = filled(&link, 10.0);
    assert_eq!((node.queue_ms, node.planned_ms), (5.0, 30.0));
    link.lost();
    let node = filled(&link, 10.0);
    assert_eq!((node.queue_ms, node.planned_ms), (UNKNOWN, 0.0));
}

#[test]
fn what_others_have_planned_waits_before_us_and_what_is_ours_counts_once() {
    let mut link = LinkEstimator::new(&EstimateConfig::default(), 0.0);
    let told = |planned_ms| Figures {
        queue_ms: 5.0,
        planned_ms,
        ..Figures::UNKNOWN
    };
    // All of it is from others.
    link.report(10.0, told(40.0));
    let node = filled(&link, 10.0);
    assert_eq!((node.queue_ms, node.planned_ms), (45.0, 0.0));
    // The peer has heard of ours, and of 10 ms from elsewhere.
    link.planned.plan(1, 30.0);
    let node = filled(&link, 10.0);
    assert_eq!((node.queue_ms, node.planned_ms), (15.0, 30.0));
    // It has not heard of it yet.
    link.report(20.0, told(0.0));
    let node = filled(&link, 20.0);
    assert_eq!((node.queue_ms, node.planned_ms), (5.0, 30.0));
    link.planned.settle(1);
    link.report(30.0, told(UNKNOWN));
    let node = filled(&link, 30.0);
    assert_eq!((node.queue_ms, node.planned_ms), (5.0, 0.0));
    let spread = link.spread();
    assert_eq!((spread.queue_mean_ms, spread.queue_sd_ms), (5.0, 0.0));
}

/// The estimators over the shaper: each measures what the other makes.
mod over_a_shaped_link {
    use std::time::Duration;

    use msao_link::estimate::{EstimateConfig, Heartbeat, LinkEstimator, Transfer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, sleep};

    use crate::support::{connect, content, link, ms};

    #[tokio::test(start_paused = true)]
    async fn bandwidth_round_trip_and_stalls_are_found_again() {
        let shaped = link(
            "up = { bandwidth = '20 Mbit/s', delay-ms = 20.0, jitter-ms = 4.0 }\n\
             down = { bandwidth = '50 Mbit/s', delay-ms = 20.0, jitter-ms = 4.0 }\n\
             stalls = [{ at-ms = 20000, for-ms = 6000 }]",
        );
        let begun = Instant::now();
        let now_ms = || ms(begun.elapsed());
        let mut estimator = LinkEstimator::new(&EstimateConfig::default(), now_ms());
        let (mut edge, mut cloud) = connect(&shaped);
        tokio::spawn(async move {
            let mut asked = [0; 8];
            while cloud.read_exact(&mut asked).await.is_ok() {
                cloud.write_all(&asked).await.unwrap();
            }
        });
        while now_ms() < 60_000.0 {
            let sent_ms = now_ms();
            edge.write_all(&[0; 8]).await.unwrap();
            edge.read_exact(&mut [0; 8]).await.unwrap();
            estimator.heartbeat(Heartbeat {
                sent_ms,
                peer_received_ms: 0.0,
                peer_sent_ms: 0.0,
                received_ms: now_ms(),
            });
            // Every 500 ms, in step with nothing.
            sleep(Duration::from_micros(460_123)).await;
        }
        for _ in 0..20 {
            // Answered with one byte: what a PUT's answer is.
            let (mut edge, mut cloud) = connect(&shaped);
            let start_ms = now_ms();
            let server = tokio::spawn(async move {
                cloud.read_exact(&mut vec![0; 1_000_000]).await.unwrap();
                cloud.write_all(&[1]).await.unwrap();
                cloud
            });
            edge.write_all(&content(1_000_000)).await.unwrap();
            edge.read_exact(&mut [0]).await.unwrap();
            let end_ms = now_ms();
            estimator.uplink(
                end_ms,
                Transfer {
                    bytes: 1_000_000,
                    start_ms,
                    end_ms,
                    acknowledged: true,
                },
            );
            drop(server.await.unwrap());
        }
        let node = super::filled(&estimator, now_ms());
        // Jitter delays the last segment of a dense train by up to 4 ms more than the mean, and the shortest round trip
        // is up to 8 ms below it: 12 ms of 400.
        assert!((node.uplink_bps / 20e6 - 1.0).abs() < 0.035, "{node:?}");
        // The shortest of twenty: near the 32 ms that are the least.
        assert!((31.0..36.5).contains(&node.rtt_ms), "{node:?}");
        // The mean deviation of the sum of two uniform draws from -4 to 4 is 8 / 3.
        assert!((1.3..4.5).contains(&node.jitter_ms), "{node:?}");
        // 6 s less the heartbeat that was under way, of 60.
        assert!((node.stalled - 0.1).abs() < 0.02, "{node:?}");
    }
}
