//! A peer that comes, goes, comes back, or never was one.

use std::time::Duration;

use msao_core::offload::Node;
use msao_link::estimate::Figures;
use msao_transport::{Dial, PeerConfig, TransportError, memory};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use super::support::{Cloud, LONG, connected, down_with, link, peer_config, small, start, until};

#[tokio::test]
async fn a_peer_that_is_up_tells_what_it_is_and_how_it_is() {
    let cloud = Cloud::plain().await;
    *cloud.node.figures.lock().unwrap() = Figures {
        queue_ms: 12.0,
        kv_free: 4096.0,
        target_tok_per_s: 30.0,
        ..Figures::UNKNOWN
    };
    let peer = start(peer_config(cloud.address));
    let before = peer.open().unwrap_err();
    assert!(matches!(before, TransportError::Down { .. }), "{before}");
    let status = until(&peer, |status| status.up).await;
    let agreement = status.agreement.unwrap();
    assert!(agreement.cloud && agreement.drafts && agreement.cloud_draft && agreement.keep_lists);
    assert_eq!(
        (status.hello.unwrap().software.as_str(), status.why),
        ("cloud", None)
    );

    let planned = peer.plan(40.0);
    let mut row = Node {
        price_per_mtok: 3.0,
        ..Node::default()
    };
    let known = async {
        loop {
            peer.fill(&mut row);
            if row.rtt_ms >= 0.0 && row.jitter_ms >= 0.0 {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, known).await.unwrap();
    assert!(row.up);
    assert_eq!(
        (row.queue_ms, row.kv_free, row.target_tok_per_s),
        (12.0, 4096.0, 30.0)
    );
    assert_eq!(
        (row.draft_tok_per_s, row.acceptance, row.uplink_bps),
        (-1.0, -1.0, -1.0)
    );
    assert_eq!((row.planned_ms, row.price_per_mtok), (40.0, 3.0));
    drop(planned);
    peer.fill(&mut row);
    assert_eq!(row.planned_ms, 0.0);
}

#[tokio::test]
async fn a_peer_that_was_killed_comes_back_on_its_port() {
    let mut cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let mut stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    let (there, _) = cloud.session().await;
    drop(there);
    let _ = stream.recv().await;
    let mut stream = peer.open().unwrap();
    let address = cloud.kill().await;
    let end = timeout(LONG, stream.recv()).await.unwrap();
    assert!(matches!(end, Some(Err(_))), "{end:?}");
    until(&peer, |status| !status.up).await;
    let refused = peer.open().unwrap_err();
    assert!(matches!(refused, TransportError::Down { .. }), "{refused}");
    let mut row = Node {
        up: true,
        ..Node::default()
    };
    peer.fill(&mut row);
    assert!(!row.up);

    let mut cloud = Cloud::at(address, |_| ()).await;
    until(&peer, |status| status.up).await;
    let stream = peer.open().unwrap();
    stream.send(&small(2)).await.unwrap();
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(2))));
}

/// Over memory, with the limits that nodes have.
fn over_memory(dial: msao_transport::MemoryDial) -> PeerConfig {
    let mut config = PeerConfig::new("cloud", "cloud.test:7443");
    config.dial = Dial::Memory(dial);
    config.probe = None;
    config
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_on_both_sides_in_time() {
    let (dial, listener) = memory();
    let mut cloud = Cloud::on(listener, |config| {
        config.gone_after = Duration::from_secs(1)
    });
    let link = link();
    let mut config = over_memory(dial);
    config.shape = Some(link.clone());
    let peer = connected(config).await;
    let mut stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(1))));
    sleep(Duration::from_secs(5)).await;
    assert!(peer.status().up);

    let stalled = Instant::now();
    link.stall(Duration::from_secs(20));
    let end = stream.recv().await;
    let after = stalled.elapsed().as_millis();
    assert!(
        matches!(&end, Some(Err(TransportError::Lost(why))) if why.contains("nothing was heard")),
        "{end:?}"
    );
    assert!((700..=1_100).contains(&after), "{after}");
    assert!(!peer.status().up);
    let end = there.recv().await;
    let after = stalled.elapsed().as_millis();
    assert!(
        matches!(&end, Some(Err(TransportError::Lost(why))) if why.contains("no heartbeat")),
        "{end:?}"
    );
    assert!((700..=1_300).contains(&after), "{after}");

    // When the link moves again it is found.
    until(&peer, |status| status.up).await;
    let after = stalled.elapsed().as_secs();
    assert!((20..=40).contains(&after), "{after}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_beat_is_waited_for() {
    let (dial, listener) = memory();
    let _cloud = Cloud::on(listener, |config| {
        config.gone_after = Duration::from_secs(1)
    });
    let mut config = over_memory(dial);
    config.heartbeat = Duration::from_secs(3);
    config.gone_after = Duration::from_secs(10);
    let peer = connected(config).await;
    let mut watch = peer.watch();
    watch.mark_unchanged();
    sleep(Duration::from_secs(60)).await;
    assert!(!watch.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_lives_as_long_as_its_heartbeat() {
    let (dial, listener) = memory();
    let mut cloud = Cloud::on(listener, |config| {
        config.gone_after = Duration::from_secs(1)
    });
    let peer = connected(over_memory(dial)).await;
    let mut watch = peer.watch();
    watch.mark_unchanged();
    sleep(Duration::from_secs(3600)).await;
    assert!(!watch.has_changed().unwrap());
    let stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(1))));
    // A session on which nothing is said lives on as well.
    sleep(Duration::from_secs(600)).await;
    stream.send(&small(2)).await.unwrap();
    assert_eq!(there.recv().await, Some(Ok(small(2))));
}

#[tokio::test]
async fn whoever_never_says_hello_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = peer_config(listener.local_addr().unwrap());
    config.hello_within = Duration::from_millis(300);
    let peer = start(config);
    let (mut silent, _) = listener.accept().await.unwrap();
    let why = down_with(&peer, "HELLO").await;
    assert!(why.contains("did not answer HELLO"), "{why}");
    // The connection was closed, not forgotten.
    let mut rest = Vec::new();
    let closed = timeout(LONG, silent.read_to_end(&mut rest)).await.unwrap();
    drop(closed);
}

#[tokio::test]
async fn nodes_without_a_common_version_say_so() {
    let cloud = Cloud::plain().await;
    {
        let mut hello = cloud.node.hello.lock().unwrap();
        (hello.oldest, hello.newest) = (7, 9);
    }
    let peer = start(peer_config(cloud.address));
    let why = down_with(&peer, "versions").await;
    assert!(
        why.contains("7 to 9") && why.contains("upgrade the older one"),
        "{why}"
    );
    // Repaired without a restart of this side.
    *cloud.node.hello.lock().unwrap() = super::support::hello("cloud");
    until(&peer, |status| status.up).await;
}

#[tokio::test]
async fn nobody_at_the_address_is_told() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let peer = start(peer_config(address));
    let why = down_with(&peer, &address.to_string()).await;
    assert!(why.to_lowercase().contains("refused"), "{why}");
}

#[tokio::test]
async fn with_its_last_handle_a_peers_connections_end() {
    let mut cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let other = peer.clone();
    let mut stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(1))));
    drop(peer);
    assert!(other.status().up);
    drop(other);
    let (end, far_end) = (
        timeout(LONG, stream.recv()).await.unwrap(),
        timeout(LONG, there.recv()).await.unwrap(),
    );
    assert!(matches!(end, Some(Err(TransportError::Lost(_)))), "{end:?}");
    assert!(matches!(far_end, Some(Err(_))), "{far_end:?}");
}

#[tokio::test]
async fn as_many_sessions_as_allowed_and_no_more() {
    let mut cloud = Cloud::with(|config| config.sessions = 2).await;
    let peer = connected(peer_config(cloud.address)).await;
    let _one = peer.open().unwrap();
    let (one_there, _) = cloud.session().await;
    let _two = peer.open().unwrap();
    let (_two_there, _) = cloud.session().await;
    let mut three = peer.open().unwrap();
    let refused = timeout(LONG, three.recv()).await.unwrap();
    assert!(
        matches!(&refused, Some(Err(TransportError::Refused { code, retry_after_ms, .. }))
            if *code == msao_session::frame::RefusedCode::Overloaded && *retry_after_ms > 0.0),
        "{refused:?}"
    );
    // A place is free again with the stream.
    drop(one_there);
    let _four = peer.open().unwrap();
    cloud.session().await;
}
