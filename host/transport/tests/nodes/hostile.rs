//! Strangers and broken peers: each is turned away, and the node goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use msao_core::digest::Digest;
use msao_transport::{
    Handler, Listener, MediaStore, ServeError, ServerConfig, TransportError, memory, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::raw::{Pieces, Raw, bytes};
use super::support::{Cloud, LONG, connected, node, numbered, peer_config, small};

/// It still takes sessions.
async fn goes_on(cloud: &mut Cloud) {
    let peer = connected(peer_config(cloud.address)).await;
    let stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    let session = async {
        loop {
            let (mut there, info) = cloud.session().await;
            if info.name == "edge-1" {
                return there.recv().await;
            }
        }
    };
    assert_eq!(timeout(LONG, session).await.unwrap(), Some(Ok(small(1))));
}

/// Says something, and waits until the node hangs up.
async fn says(cloud: &Cloud, said: &[u8]) {
    let mut stream = TcpStream::connect(cloud.address).await.unwrap();
    // It may hang up while we speak.
    let _ = stream.write_all(said).await;
    let mut rest = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn garbage_is_hung_up_on() {
    let mut cloud = Cloud::plain().await;
    says(&cloud, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    says(
        &cloud,
        &[
            0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
    )
    .await;
    says(&cloud, &[0; 1000]).await;
    says(
        &cloud,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    )
    .await;
    let noise: Vec<u8> = (0..5000_u32).map(|i| ((i * 7919) >> 3) as u8).collect();
    says(&cloud, &noise).await;
    goes_on(&mut cloud).await;
}

#[tokio::test]
async fn whoever_says_nothing_is_hung_up_on() {
    let mut cloud = Cloud::with(|config| config.request_within = Duration::from_millis(300)).await;
    let begun = Instant::now();
    says(&cloud, b"").await;
    says(&cloud, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // A header that never ends.
    let mut slow = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    slow.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    slow.extend_from_slice(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]);
    says(&cloud, &slow).await;
    assert!(begun.elapsed() >= Duration::from_millis(900));
    goes_on(&mut cloud).await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_hung_up_on() {
    let (_folder, tls, _) = super::support::certificates();
    let cloud = Cloud::with(|config: &mut ServerConfig| {
        config.tls = Some(tls);
        config.handshake_within = Duration::from_millis(300);
    })
    .await;
    says(&cloud, b"").await;
    says(&cloud, &[0x16, 3, 1]).await;
    says(&cloud, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
}

#[tokio::test]
async fn large_headers_are_refused() {
    let mut cloud = Cloud::plain().await;
    let mut raw = Raw::connect(&cloud).await;
    let large = "x".repeat(60_000);
    let headers = [("x-large", large.as_str())];
    let answer = raw
        .ask(Method::POST, "/node/v1/session", &headers, Pieces::none())
        .await;
    assert!(answer.is_err() || answer.unwrap().status() == 431);
    goes_on(&mut cloud).await;
}

#[tokio::test]
async fn what_a_node_does_not_have_is_refused_by_name() {
    let cloud = Cloud::plain().await;
    let mut raw = Raw::connect(&cloud).await;
    let digest = Digest::of(b"").to_string();
    for (method, path, status) in [
        (Method::GET, "/".to_owned(), 404),
        (Method::GET, "/node/v1/session".to_owned(), 405),
        (Method::DELETE, format!("/node/v1/media/{digest}"), 405),
        (Method::HEAD, format!("/node/v1/media/{digest}"), 404),
        (
            Method::PUT,
            "/node/v1/media/../../etc/passwd".to_owned(),
            400,
        ),
        (Method::PUT, format!("/node/v1/media/{}", &digest[1..]), 400),
        (Method::GET, "/node/v1/probe/99999999999".to_owned(), 400),
        (Method::GET, "/node/v1/probe/-1".to_owned(), 400),
        (Method::GET, "/node/v1/probe/0".to_owned(), 200),
    ] {
        let answer = raw
            .ask(method.clone(), &path, &[], Pieces::none())
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
    }
    let answer = raw
        .ask(Method::GET, "/node/v1/probe/100000", &[], Pieces::none())
        .await
        .unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes().len(),
        100_000
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_before_hello_is_refused() {
    let (dial, listener) = memory();
    let _cloud = Cloud::on(listener, |_| ());
    let mut raw = Raw::over(super::unread::connect(&dial).await).await;
    let answer = raw.session(Pieces::of([bytes(&[small(1)])])).await;
    assert_eq!(answer.status(), 428);
    assert_eq!(answer.headers()["msao-error"], "hello-first");
}

#[tokio::test]
async fn wrong_frames_end_their_stream_and_no_other() {
    let mut cloud = Cloud::plain().await;
    let mut raw = Raw::connect(&cloud).await;
    raw.greet().await;
    let (body, _more) = Pieces::open(bytes(&[small(1)]));
    let _good = raw.session(body).await;
    let (mut good_there, _) = cloud.session().await;
    assert_eq!(good_there.recv().await, Some(Ok(small(1))));
    for wrong in [
        Bytes::from_static(&[1, 0, 0, 0, 1, 99, 0]),
        Bytes::from_static(&[0xFF, 0xFF, 0xFF, 0xFF, 1, 2]),
        Bytes::from_static(&[3, 0, 0, 0, 1, 2, 0xFF, 0xFF, 0xFF]),
        Bytes::from_static(&[3, 0, 0, 0, 9, 2, 0xFF, 0xFF, 0xFF]),
    ] {
        let (body, _more) = Pieces::open(wrong);
        let answer = raw.session(body).await;
        let (mut there, _) = cloud.session().await;
        let end = timeout(LONG, there.recv()).await.unwrap();
        assert!(
            matches!(end, Some(Err(TransportError::Frame(_)))),
            "{end:?}"
        );
        assert_eq!(there.recv().await, None);
        // The other side sees it as cancelled.
        let rest = timeout(LONG, answer.into_body().collect()).await.unwrap();
        assert!(rest.is_err());
    }
    good_there.send(&small(2)).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    let mut cloud = Cloud::with(|config| config.body_within = Duration::from_millis(300)).await;
    let mut raw = Raw::connect(&cloud).await;
    let (body, _more) = Pieces::open(Bytes::from_static(b"the beginning"));
    let path = format!("/node/v1/media/{}", Digest::of(b"x"));
    let answer = raw.ask(Method::PUT, &path, &[], body).await.unwrap();
    assert_eq!(answer.status(), 408);
    assert_eq!(cloud.media.used(), 0);
    goes_on(&mut cloud).await;
}

#[tokio::test]
async fn an_upload_is_held_against_what_comes_not_what_it_announces() {
    let cloud = Cloud::with(|config| config.media = MediaStore::new(1000)).await;
    let mut raw = Raw::connect(&cloud).await;
    let path = format!("/node/v1/media/{}", Digest::of(b"x"));
    let pieces = (0..20).map(|_| Bytes::from(vec![0; 100]));
    let answer = raw
        .ask(Method::PUT, &path, &[], Pieces::of(pieces))
        .await
        .unwrap();
    assert_eq!((answer.status().as_u16(), cloud.media.used()), (413, 0));
}

#[tokio::test]
async fn as_many_connections_as_allowed_and_no_more() {
    let cloud = Cloud::with(|config| config.connections = 3).await;
    let mut raw = Vec::new();
    for _ in 0..3 {
        let mut one = Raw::connect(&cloud).await;
        one.greet().await;
        raw.push(one);
    }
    says(&cloud, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let mut first = raw.swap_remove(0);
    let answer = first
        .ask(Method::GET, "/node/v1/probe/0", &[], Pieces::none())
        .await;
    assert!(answer.is_ok());
}

#[tokio::test]
async fn without_certificates_only_this_machine_is_served() {
    let serving = |listener, config| async {
        let handler: Arc<dyn Handler> = node("cloud").0;
        let draining = tokio::sync::watch::Sender::new(false).subscribe();
        let never = std::future::pending::<()>();
        serve(listener, config, handler, draining, never).await
    };
    let listener = Listener::bind("0.0.0.0:0").await.unwrap();
    let refused = serving(listener, ServerConfig::new(MediaStore::new(1)))
        .await
        .unwrap_err();
    assert!(matches!(refused, ServeError::PlainBeyondLoopback(_)));
    assert!(refused.to_string().contains("sessions.tls"), "{refused}");
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let mut config = ServerConfig::new(MediaStore::new(1));
    config.sessions = 0;
    let refused = serving(listener, config).await.unwrap_err();
    assert!(
        refused.to_string().starts_with("sessions: is 0"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_frame_that_is_none_of_a_heartbeats_ends_the_connection() {
    let mut cloud = Cloud::plain().await;
    let mut raw = Raw::connect(&cloud).await;
    let hello = msao_session::frame::Frame::Hello(super::support::hello("raw"));
    let (body, _more) = Pieces::open(bytes(&[hello, numbered(1)]));
    let beat = raw
        .ask(Method::POST, "/node/v1/heartbeat", &[], body)
        .await
        .unwrap();
    let rest = timeout(LONG, beat.into_body().collect()).await.unwrap();
    assert!(rest.is_err());
    goes_on(&mut cloud).await;
}
