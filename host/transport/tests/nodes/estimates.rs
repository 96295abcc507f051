//! What a peer makes of its link, under the paused clock.

use std::time::Duration;

use bytes::Bytes;
use msao_core::digest::Digest;
use msao_core::offload::Node;
use msao_link::shaper::{Link, LinkConfig};
use msao_transport::{Dial, Peer, PeerConfig, memory};
use tokio::time::sleep;

use super::support::{Cloud, connected};

fn link(up: &str, down: &str, delay_ms: f64) -> Link {
    let mut config = LinkConfig::default();
    for (direction, bandwidth) in [(&mut config.up, up), (&mut config.down, down)] {
        direction.bandwidth = Some(bandwidth.parse().unwrap());
        direction.delay_ms = delay_ms;
    }
    Link::start(&config).unwrap()
}

async fn over(link: &Link, probe: Option<Duration>) -> (Cloud, Peer) {
    let (dial, listener) = memory();
    let cloud = Cloud::on(listener, |_| ());
    let mut config = PeerConfig::new("cloud", "cloud.test:7443");
    config.dial = Dial::Memory(dial);
    config.shape = Some(link.clone());
    config.probe = probe;
    (cloud, connected(config).await)
}

fn row(peer: &Peer) -> Node {
    let mut row = Node::default();
    peer.fill(&mut row);
    row
}

fn near(what: &str, value: f64, expected: f64, share: f64) {
    assert!(
        (value / expected - 1.0).abs() <= share,
        "{what} is {value}, not within {share} of {expected}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_link_is_known_soon_after_it_was_connected_to() {
    let link = link("20 Mbit/s", "20 Mbit/s", 20.0);
    let (_cloud, peer) = over(&link, Some(Duration::from_secs(300))).await;
    sleep(Duration::from_secs(3)).await;
    let row = row(&peer);
    near("uplink", row.uplink_bps, 20e6, 0.2);
    near("downlink", row.downlink_bps, 20e6, 0.2);
    near("round trip", row.rtt_ms, 40.0, 0.2);
    assert!((0.0..=8.0).contains(&row.jitter_ms), "{}", row.jitter_ms);
    assert_eq!(row.stalled, 0.0);
}

#[tokio::test(start_paused = true)]
async fn directions_differ_and_slow_ones_are_known_too() {
    for (up, down, up_bps, down_bps) in [
        ("2 Mbit/s", "50 Mbit/s", 2e6, 50e6),
        ("500 kbit/s", "500 kbit/s", 5e5, 5e5),
        ("200 Mbit/s", "400 Mbit/s", 2e8, 4e8),
    ] {
        let link = link(up, down, 20.0);
        let (_cloud, peer) = over(&link, Some(Duration::from_secs(300))).await;
        sleep(Duration::from_secs(15)).await;
        let row = row(&peer);
        near(up, row.uplink_bps, up_bps, 0.2);
        near(down, row.downlink_bps, down_bps, 0.2);
    }
}

#[tokio::test(start_paused = true)]
async fn media_tell_the_uplink_also_when_several_go_at_once() {
    let link = link("20 Mbit/s", "20 Mbit/s", 20.0);
    let (_cloud, peer) = over(&link, None).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(row(&peer).uplink_bps, -1.0);
    let uploads: Vec<_> = (0..4_u8)
        .map(|byte| {
            let peer = peer.clone();
            let bytes = Bytes::from(vec![byte; 500_000]);
            tokio::spawn(async move { peer.media(Digest::of(&bytes), bytes).await })
        })
        .collect();
    for upload in uploads {
        assert_eq!(upload.await.unwrap().unwrap().sent_bytes, 500_000);
    }
    near("uplink", row(&peer).uplink_bps, 20e6, 0.2);
    assert_eq!(row(&peer).downlink_bps, -1.0);
}

#[tokio::test(start_paused = true)]
async fn a_long_fat_link_is_filled() {
    let link = link("400 Mbit/s", "400 Mbit/s", 50.0);
    let (_cloud, peer) = over(&link, None).await;
    sleep(Duration::from_secs(1)).await;
    let bytes = Bytes::from(vec![1; 20_000_000]);
    let sent = peer.media(Digest::of(&bytes), bytes).await.unwrap();
    // 400 ms of bytes, and a round trip. The 16 MiB that may be under way are more than the 5 MB of this link.
    near("time to send", sent.sent_ms, 500.0, 0.2);
    near("time to ask", sent.asked_ms, 100.0, 0.2);
    near("uplink", row(&peer).uplink_bps, 4e8, 0.2);
}

#[tokio::test(start_paused = true)]
async fn old_knowledge_is_made_new_at_little_cost() {
    let link = link("20 Mbit/s", "20 Mbit/s", 20.0);
    let (_cloud, peer) = over(&link, Some(Duration::from_secs(300))).await;
    sleep(Duration::from_secs(10)).await;
    link.set_bandwidth(
        msao_link::shaper::Direction::Down,
        Some("5 Mbit/s".parse().unwrap()),
    );
    let before = link.traffic();
    sleep(Duration::from_secs(3600)).await;
    let after = link.traffic();
    // Weight 1/2 for the second sample, 1/3 for the third, and so on to 1/8: twelve samples.
    let row = row(&peer);
    assert!(row.downlink_bps < 9e6, "{}", row.downlink_bps);
    near("uplink", row.uplink_bps, 20e6, 0.2);
    // An hour's heartbeats and twelve measurements.
    let up = after.up.accepted_bytes - before.up.accepted_bytes;
    let down = after.down.accepted_bytes - before.down.accepted_bytes;
    assert!(up < 8_000_000 && down < 8_000_000, "{up}, {down}");
}

#[tokio::test(start_paused = true)]
async fn a_stall_shows() {
    let link = link("20 Mbit/s", "20 Mbit/s", 20.0);
    let (dial, listener) = memory();
    let _cloud = Cloud::on(listener, |_| ());
    let mut config = PeerConfig::new("cloud", "cloud.test:7443");
    config.dial = Dial::Memory(dial);
    config.shape = Some(link.clone());
    config.gone_after = Duration::from_secs(20);
    let peer = connected(config).await;
    sleep(Duration::from_secs(10)).await;
    link.stall(Duration::from_secs(5));
    sleep(Duration::from_secs(10)).await;
    assert!(peer.status().up);
    // 5 s of the 20 since the beginning, less the beat that was not due yet.
    let stalled = row(&peer).stalled;
    assert!((0.2..=0.27).contains(&stalled), "{stalled}");
}
