//! A node that drains lets running sessions end, and may serve again; one that goes down does not.

use std::time::Duration;

use bytes::Bytes;
use msao_core::digest::Digest;
use msao_session::frame::RefusedCode;
use msao_transport::TransportError;
use tokio::time::timeout;

use super::support::{Cloud, LONG, connected, down_with, peer_config, small, start, until};

#[tokio::test]
async fn running_sessions_go_on_and_no_new_ones_begin() {
    let mut cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let mut stream = peer.open().unwrap();
    let (mut there, _) = cloud.session().await;
    cloud.stop();
    let status = until(&peer, |status| status.draining).await;
    assert!(!status.up);
    let refused = peer.open().unwrap_err();
    assert!(
        matches!(
            refused,
            TransportError::Refused {
                code: RefusedCode::Draining,
                ..
            }
        ),
        "{refused}"
    );
    // Frames go both ways, and media come too.
    stream.send(&small(1)).await.unwrap();
    assert_eq!(there.recv().await, Some(Ok(small(1))));
    let bytes = Bytes::from_static(b"a picture");
    peer.media(Digest::of(&bytes), bytes).await.unwrap();
    // The last frames of a session are not lost, however soon the node closes.
    for number in 0..200 {
        there.send(&small(number)).await.unwrap();
    }
    there.finish();
    stream.finish();
    assert_eq!(there.recv().await, None);
    drop(there);
    for number in 0..200 {
        let frame = timeout(LONG, stream.recv()).await.unwrap();
        assert_eq!(frame, Some(Ok(small(number))));
    }
    assert_eq!(stream.recv().await, None);
    cloud.stopped().await;
    down_with(&peer, "").await;
    assert!(matches!(
        peer.open().unwrap_err(),
        TransportError::Down { .. }
    ));
}

#[tokio::test]
async fn an_operator_has_it_drain_and_serve_again() {
    let mut cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let stream = peer.open().unwrap();
    let (mut there, _) = cloud.session().await;
    cloud.drain(true);
    let status = until(&peer, |status| status.draining).await;
    assert!(!status.up);
    assert!(matches!(
        peer.open().unwrap_err(),
        TransportError::Refused {
            code: RefusedCode::Draining,
            ..
        }
    ));
    // Who connects meanwhile is told as well.
    let late = start(peer_config(cloud.address));
    until(&late, |status| status.draining).await;
    cloud.drain(false);
    for peer in [&peer, &late] {
        let status = until(peer, |status| status.up).await;
        assert!(!status.draining && status.why.is_none(), "{status:?}");
    }
    // It was the same connection all the time: the session that ran goes on, and a new one begins.
    stream.send(&small(1)).await.unwrap();
    assert_eq!(there.recv().await, Some(Ok(small(1))));
    let another = peer.open().unwrap();
    another.send(&small(2)).await.unwrap();
    let (mut begun, _) = cloud.session().await;
    assert_eq!(begun.recv().await, Some(Ok(small(2))));
    // And again, to the end.
    cloud.drain(true);
    until(&peer, |status| status.draining).await;
    drop((stream, there, another, begun));
    cloud.stop();
    cloud.stopped().await;
    until(&peer, |status| !status.up && !status.draining).await;
}

#[tokio::test]
async fn a_session_that_does_not_end_is_cut() {
    let mut cloud = Cloud::with(|config| config.drain_within = Duration::from_millis(200)).await;
    let peer = connected(peer_config(cloud.address)).await;
    let mut stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    let (there, _) = cloud.session().await;
    cloud.stop();
    cloud.stopped().await;
    let end = timeout(LONG, stream.recv()).await.unwrap();
    assert!(matches!(end, Some(Err(_))), "{end:?}");
    drop(there);
}

#[tokio::test]
async fn an_idle_node_goes_down_at_once() {
    let mut cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let begun = std::time::Instant::now();
    cloud.stop();
    cloud.stopped().await;
    // Far below the 30 s that sessions would be given.
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
    until(&peer, |status| !status.up).await;
}
