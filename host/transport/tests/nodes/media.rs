//! Media: sent once, asked for first where they are large, kept under their own digest.

use std::time::Duration;

use bytes::Bytes;
use msao_core::digest::Digest;
use msao_link::shaper::{Link, LinkConfig};
use msao_session::frame::RefusedCode;
use msao_transport::limits::ASKED_FROM;
use msao_transport::{MediaStore, TransportError, Uploaded};
use tokio::time::{sleep, timeout};

use super::support::{Cloud, LONG, connected, link, peer_config, until};

fn medium(byte: u8, bytes: usize) -> (Digest, Bytes) {
    let bytes = Bytes::from(vec![byte; bytes]);
    (Digest::of(&bytes), bytes)
}

#[tokio::test]
async fn a_medium_goes_once() {
    let cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let (digest, bytes) = medium(1, 3_000_000);
    assert_eq!(peer.has(digest), None);
    let first = peer.media(digest, bytes.clone()).await.unwrap();
    assert_eq!(first.sent_bytes, 3_000_000);
    assert_eq!(cloud.media.get(digest), Some(bytes.clone()));
    assert!(first.asked_ms > 0.0);
    // What it has sent it does not ask for.
    let again = peer.media(digest, bytes.clone()).await.unwrap();
    assert_eq!(again, Uploaded::default());
    // Another node asks once.
    let other = connected(peer_config(cloud.address)).await;
    let asked = other.media(digest, bytes.clone()).await.unwrap();
    assert_eq!(asked.sent_bytes, 0);
    assert!(asked.asked_ms > 0.0);
    let again = other.media(digest, bytes.clone()).await.unwrap();
    assert_eq!(again, Uploaded::default());
    assert_eq!(peer.cached_bytes([digest, Digest([0; 32])]), 3e6);
    peer.forget(digest);
    assert_eq!(peer.cached_bytes([digest]), 0.0);
}

#[tokio::test]
async fn a_small_medium_is_sent_without_a_question() {
    let cloud = Cloud::plain().await;
    let (digest, bytes) = medium(12, ASKED_FROM as usize - 1);
    // Each node sends it once, whether it is there or not.
    for _ in 0..2 {
        let peer = connected(peer_config(cloud.address)).await;
        let sent = peer.media(digest, bytes.clone()).await.unwrap();
        assert_eq!((sent.sent_bytes, sent.asked_ms), (ASKED_FROM - 1, 0.0));
        assert_eq!(cloud.media.get(digest), Some(bytes.clone()));
        let again = peer.media(digest, bytes.clone()).await.unwrap();
        assert_eq!(again, Uploaded::default());
    }
    assert_eq!(cloud.media.used(), ASKED_FROM - 1);
    let (digest, bytes) = medium(13, ASKED_FROM as usize);
    let peer = connected(peer_config(cloud.address)).await;
    assert!(peer.media(digest, bytes).await.unwrap().asked_ms > 0.0);
}

#[tokio::test]
async fn callers_with_the_same_medium_share_one_upload() {
    let cloud = Cloud::plain().await;
    let link = Link::start(&LinkConfig {
        up: toml_direction("8 Mbit/s"),
        ..LinkConfig::default()
    })
    .unwrap();
    let mut config = peer_config(cloud.address);
    config.shape = Some(link.clone());
    let peer = connected(config).await;
    let before = link.traffic().up.accepted_bytes;
    let (digest, bytes) = medium(2, 400_000);
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (peer, bytes) = (peer.clone(), bytes.clone());
            tokio::spawn(async move { peer.media(digest, bytes).await.unwrap().sent_bytes })
        })
        .collect();
    let mut sent = 0;
    for caller in callers {
        sent += caller.await.unwrap();
    }
    assert_eq!(sent, 400_000);
    let over_the_link = link.traffic().up.accepted_bytes - before;
    assert!(over_the_link < 450_000, "{over_the_link}");
}

fn toml_direction(bandwidth: &str) -> msao_link::shaper::DirectionConfig {
    msao_link::shaper::DirectionConfig {
        bandwidth: Some(bandwidth.parse().unwrap()),
        ..Default::default()
    }
}

#[tokio::test]
async fn where_the_one_who_sends_is_dropped_another_sends() {
    let cloud = Cloud::plain().await;
    let link = Link::start(&LinkConfig {
        up: toml_direction("8 Mbit/s"),
        ..LinkConfig::default()
    })
    .unwrap();
    let mut config = peer_config(cloud.address);
    config.shape = Some(link);
    let peer = connected(config).await;
    let (digest, bytes) = medium(3, 1_500_000);
    let call = || {
        let (peer, bytes) = (peer.clone(), bytes.clone());
        tokio::spawn(async move { peer.media(digest, bytes).await })
    };
    let first = call();
    sleep(Duration::from_millis(100)).await;
    let second = call();
    sleep(Duration::from_millis(100)).await;
    first.abort();
    let second = timeout(LONG, second).await.unwrap().unwrap().unwrap();
    assert_eq!(second.sent_bytes, 1_500_000);
    assert_eq!(
        cloud.media.get(digest).map(|bytes| bytes.len()),
        Some(1_500_000)
    );
    assert_eq!(cloud.media.used(), 1_500_000);
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let (digest, _) = medium(4, 1000);
    let (_, bytes) = medium(5, 1000);
    let refused = peer.media(digest, bytes.clone()).await;
    assert_eq!(refused, Err(TransportError::WrongDigest(digest)));
    assert_eq!((cloud.media.used(), peer.has(digest)), (0, None));
    // The next one is not taken for it.
    assert_eq!(
        peer.media(Digest::of(&bytes), bytes)
            .await
            .unwrap()
            .sent_bytes,
        1000
    );
}

#[tokio::test]
async fn what_is_larger_than_all_that_is_kept_is_refused() {
    let cloud = Cloud::with(|config| config.media = MediaStore::new(100_000)).await;
    let peer = connected(peer_config(cloud.address)).await;
    let (digest, bytes) = medium(6, 5_000_000);
    let refused = peer.media(digest, bytes).await.unwrap_err();
    assert!(
        matches!(&refused, TransportError::Refused { code: RefusedCode::Request, message, .. }
            if message.contains("sessions.media-mib")),
        "{refused:?}"
    );
    assert_eq!(cloud.media.used(), 0);
    // What was used longest ago makes room.
    let [one, two, three] = [7, 8, 9].map(|byte| medium(byte, 40_000));
    for (digest, bytes) in [&one, &two, &three] {
        peer.media(*digest, bytes.clone()).await.unwrap();
    }
    assert_eq!(cloud.media.get(one.0), None);
    assert!(cloud.media.get(two.0).is_some() && cloud.media.get(three.0).is_some());
    // What it forgot is sent again once it has said so.
    assert!(peer.has(one.0).is_some());
    let believed = peer.media(one.0, one.1.clone()).await.unwrap();
    assert_eq!(believed, Uploaded::default());
    peer.forget(one.0);
    assert_eq!(peer.media(one.0, one.1).await.unwrap().sent_bytes, 40_000);
}

#[tokio::test]
async fn an_upload_that_is_cut_leaves_nothing_and_can_be_repeated() {
    let cloud = Cloud::plain().await;
    let link = link();
    link.set_bandwidth(
        msao_link::shaper::Direction::Up,
        Some("8 Mbit/s".parse().unwrap()),
    );
    let mut config = peer_config(cloud.address);
    config.shape = Some(link.clone());
    let peer = connected(config).await;
    let (digest, bytes) = medium(10, 1_000_000);
    let upload = {
        let (peer, bytes) = (peer.clone(), bytes.clone());
        tokio::spawn(async move { peer.media(digest, bytes).await })
    };
    let coming = async {
        while cloud.media.used() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, coming).await.unwrap();
    link.cut();
    let cut = timeout(LONG, upload).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(cut, TransportError::Lost(_)), "{cut:?}");
    let gone = async {
        while cloud.media.used() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, gone).await.unwrap();
    link.set_bandwidth(msao_link::shaper::Direction::Up, None);
    until(&peer, |status| status.up).await;
    let sent = peer.media(digest, bytes).await.unwrap().sent_bytes;
    assert_eq!(sent, 1_000_000);
}

#[tokio::test]
async fn a_restarted_peer_is_not_believed_to_have_what_it_had() {
    let cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let (digest, bytes) = medium(11, 1000);
    peer.media(digest, bytes.clone()).await.unwrap();
    assert_eq!(peer.has(digest), Some(1000));
    let address = cloud.kill().await;
    until(&peer, |status| !status.up).await;
    let _cloud = Cloud::at(address, |_| ()).await;
    until(&peer, |status| status.up).await;
    assert_eq!(peer.has(digest), None);
    assert_eq!(peer.media(digest, bytes).await.unwrap().sent_bytes, 1000);
}

#[tokio::test]
async fn an_empty_medium_is_one_too() {
    let cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let (digest, bytes) = medium(0, 0);
    assert_eq!(
        peer.media(digest, bytes.clone()).await.unwrap().sent_bytes,
        0
    );
    assert_eq!(cloud.media.get(digest), Some(bytes));
}
