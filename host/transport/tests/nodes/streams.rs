//! Frames over one stream: both ways, to a good end, to a bad one.

use msao_session::frame::{Frame, encode, limits};
use msao_transport::{PeerConfig, ServerConfig, Stream, TransportError};
use tokio::time::timeout;

use super::support::{Cloud, LONG, certificates, connected, link, numbered, peer_config, small};

/// Sends everything back, to the end.
async fn echo(mut stream: Stream) {
    while let Some(Ok(frame)) = stream.recv().await {
        stream.send(&frame).await.unwrap();
    }
    stream.finish();
}

async fn there_and_back(mut cloud: Cloud, config: PeerConfig, with_certificate: bool) {
    let peer = connected(config).await;
    let (sender, mut receiver) = {
        let stream = peer.open().unwrap();
        let meter = stream.meter();
        assert_eq!((meter.sent_bytes(), meter.received_bytes()), (0, 0));
        stream.split()
    };
    let (there, info) = cloud.session().await;
    assert_eq!(
        (info.name.as_str(), info.agreement.version),
        ("edge-1", limits::NEWEST)
    );
    assert_eq!(info.hello.software, "edge");
    assert_eq!(info.certificate.is_some(), with_certificate);
    let meter = there.meter();
    let echoing = tokio::spawn(echo(there));
    let sending = tokio::spawn(async move {
        for number in 0..5000 {
            sender.send(&numbered(number)).await.unwrap();
        }
    });
    for number in 0..5000 {
        let frame = timeout(LONG, receiver.recv()).await.unwrap().unwrap();
        assert_eq!(frame.unwrap(), numbered(number));
    }
    assert_eq!(receiver.recv().await, None);
    sending.await.unwrap();
    echoing.await.unwrap();
    let mut bytes = Vec::new();
    for number in 0..5000 {
        encode(&numbered(number), limits::NEWEST, &mut bytes).unwrap();
    }
    let counted = (meter.received_bytes(), meter.sent_bytes());
    assert_eq!(counted, (bytes.len() as u64, bytes.len() as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_go_there_and_back_in_the_clear() {
    let cloud = Cloud::plain().await;
    let config = peer_config(cloud.address);
    there_and_back(cloud, config, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_go_there_and_back_with_certificates() {
    let (_folder, cloud_tls, edge_tls) = certificates();
    let cloud = Cloud::with(|config: &mut ServerConfig| config.tls = Some(cloud_tls)).await;
    let mut config = peer_config(cloud.address);
    config.tls = Some(edge_tls);
    there_and_back(cloud, config, true).await;
}

#[tokio::test]
async fn a_stream_can_be_sent_to_before_the_peer_has_answered() {
    let mut cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let stream = peer.open().unwrap();
    stream.try_send(&small(1)).unwrap();
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(1))));
}

#[tokio::test]
async fn a_dropped_stream_is_cancelled_for_the_other_side() {
    let mut cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    // Dropped at the edge.
    let stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(1))));
    drop(stream);
    let end = timeout(LONG, there.recv()).await.unwrap();
    assert_eq!(end, Some(Err(TransportError::Cancelled)));
    assert_eq!(there.recv().await, None);
    assert!(there.send(&small(2)).await.is_err());
    // Dropped in the cloud.
    let mut stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    let (there, _) = cloud.session().await;
    there.send(&small(3)).await.unwrap();
    assert_eq!(stream.recv().await, Some(Ok(small(3))));
    drop(there);
    let end = timeout(LONG, stream.recv()).await.unwrap();
    assert_eq!(end, Some(Err(TransportError::Cancelled)));
    // The connection has not suffered.
    let stream = peer.open().unwrap();
    stream.send(&small(4)).await.unwrap();
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(4))));
}

#[tokio::test]
async fn a_finished_sender_ends_its_direction_alone() {
    let mut cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let (sender, mut receiver) = peer.open().unwrap().split();
    sender.send(&small(1)).await.unwrap();
    sender.finish();
    assert_eq!(sender.send(&small(2)).await, Err(TransportError::Finished));
    drop(sender);
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(1))));
    assert_eq!(there.recv().await, None);
    there.send(&small(3)).await.unwrap();
    assert_eq!(receiver.recv().await, Some(Ok(small(3))));
    there.finish();
    assert_eq!(receiver.recv().await, None);
}

#[tokio::test]
async fn a_cut_is_seen_on_both_sides() {
    let mut cloud = Cloud::plain().await;
    let link = link();
    let mut config = peer_config(cloud.address);
    config.shape = Some(link.clone());
    let peer = connected(config).await;
    let mut stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(1))));
    let mut watch = peer.watch();
    watch.mark_unchanged();
    link.cut();
    let (here, there) = (
        timeout(LONG, stream.recv()).await.unwrap(),
        timeout(LONG, there.recv()).await.unwrap(),
    );
    assert!(
        matches!(here, Some(Err(TransportError::Lost(_)))),
        "{here:?}"
    );
    assert!(
        matches!(there, Some(Err(TransportError::Lost(_)))),
        "{there:?}"
    );
    assert!(stream.send(&small(2)).await.is_err());
    // It was seen as down, and comes back.
    timeout(LONG, watch.wait_for(|status| !status.up))
        .await
        .unwrap()
        .unwrap();
    timeout(LONG, watch.wait_for(|status| status.up))
        .await
        .unwrap()
        .unwrap();
    assert!(peer.open().is_ok());
}

#[tokio::test]
async fn a_frame_outside_its_limits_leaves_the_stream_as_it_was() {
    let mut cloud = Cloud::plain().await;
    let peer = connected(peer_config(cloud.address)).await;
    let stream = peer.open().unwrap();
    let Frame::Draft(mut draft) = numbered(1) else {
        panic!("a draft");
    };
    draft.proposed = vec![0; 1000];
    let refused = stream.send(&Frame::Draft(draft)).await;
    assert!(
        matches!(refused, Err(TransportError::Frame(_))),
        "{refused:?}"
    );
    stream.send(&small(1)).await.unwrap();
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(1))));
}

#[tokio::test]
async fn whoever_may_not_wait_is_told_that_there_is_no_room() {
    let cloud = Cloud::plain().await;
    let link = link();
    let mut config = peer_config(cloud.address);
    config.shape = Some(link.clone());
    let peer = connected(config).await;
    let stream = peer.open().unwrap();
    link.stall(LONG);
    let full = async {
        loop {
            match stream.try_send(&numbered(59)) {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    };
    assert_eq!(timeout(LONG, full).await.unwrap(), TransportError::Full);
}
